//! A broker inside a program that decides who may connect, and that publishes and subscribes itself.
//!
//! ```text
//! cargo run -p mqtt-tokio --example broker -- 127.0.0.1:1883
//! mosquitto_sub -u alice -P secret -t 'clock' &
//! mosquitto_pub -u alice -P secret -t 'hello' -m 'Hi!'
//! ```

use mqtt_proto::ReasonCode;
use mqtt_session::Message;
use mqtt_tokio::broker::{Answer, Ask, AskFor, Broker, Config, Question};
use std::time::Duration;

/// Everybody who knows the password is welcome.
async fn decide(ask: Ask) -> Answer {
    match ask.question {
        Question::Connect { password: Some(password), .. } if password == "secret" => Answer::Allow,
        _ => Answer::Deny(ReasonCode::BadUserNameOrPassword),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:1883".into());
    let mut config = Config::listening_on([address.parse()?]);
    config.broker.ask = AskFor { connect: true, ..AskFor::default() };
    let broker = Broker::bind(config.authorized_by(decide)).await?;
    let mut hello = broker.subscribe("hello", Default::default()).await?;
    let mut clock = tokio::time::interval(Duration::from_secs(1));
    for second in 0..60 {
        tokio::select! {
            _ = clock.tick() => {
                broker.publish(Message::new("clock", second.to_string())).await?;
            }
            message = hello.recv() => {
                if let Some(message) = message? {
                    println!("hello: {}", String::from_utf8_lossy(&message.payload));
                }
            }
        }
    }
    broker.shutdown().await?;
    Ok(())
}

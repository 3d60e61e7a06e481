//! Subscribe, publish, receive, disconnect.
//!
//! ```text
//! cargo run -p mqtt-tokio --example client -- mqtt://localhost
//! ```

use mqtt_proto::QoS;
use mqtt_session::Message;
use mqtt_tokio::client::{Client, Item};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "mqtt://localhost".into());

    let client = Client::connect(&url).await?;
    let mut hello = client.subscribe("hello/#", QoS::AtLeastOnce).await?;
    client.publish(Message::new("hello/world", "Hi!").with_qos(QoS::AtLeastOnce)).await?;
    if let Some(Item::Message(message)) = hello.recv().await {
        println!("{}: {:?}", message.topic, message.payload);
    }
    client.disconnect().await?;
    Ok(())
}

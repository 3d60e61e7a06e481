//! Subscribe, publish, receive, disconnect.
//!
//! ```text
//! cargo run -p mqtt-async-std --example async_std_client -- mqtt://localhost
//! cargo run -p mqtt-async-std --no-default-features --features client,smol --example async_std_client
//! ```

use mqtt_async_std::client::{Client, Item};
use mqtt_proto::QoS;
use mqtt_session::Message;

async fn run() -> Result<(), Box<dyn std::error::Error>> {
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

// Any executor will do to wait for the client; its driver runs by itself.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    futures_lite::future::block_on(run())
}

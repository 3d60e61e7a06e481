//! A broker that the program subscribes to as well.
//!
//! ```text
//! cargo run -p mqtt-async-std --example async_std_broker -- 127.0.0.1:1883
//! cargo run -p mqtt-async-std --no-default-features --features broker,smol --example async_std_broker
//! mosquitto_pub -t 'hello' -m 'Hi!'
//! ```

use mqtt_async_std::broker::{Broker, Config};

async fn run() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:1883".into());

    let broker = Broker::bind(Config::listening_on([address.parse()?])).await?;
    println!("listening on {}", broker.local_addrs()[0]);
    let mut hello = broker.subscribe("hello", Default::default()).await?;
    while let Some(message) = hello.recv().await? {
        println!("hello: {}", String::from_utf8_lossy(&message.payload));
    }
    broker.serve().await?;
    Ok(())
}

// Any executor will do to wait for the broker, which has a thread of its own.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    futures_lite::future::block_on(run())
}

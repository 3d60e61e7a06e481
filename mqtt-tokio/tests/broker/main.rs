//! The broker on real sockets, with peers that speak raw packets. Everything is on 127.0.0.1 and
//! port 0; whoever has to wait, waits for a packet.
#![cfg(feature = "broker")]

#[cfg(feature = "access")]
mod access;
mod auth;
mod handle;
mod links;
mod peer;

use mqtt_tokio::broker::{Broker, BrokerHandle, Config};

async fn broker() -> BrokerHandle {
    broker_with(|_| {}).await
}

async fn broker_with(set: impl FnOnce(&mut Config)) -> BrokerHandle {
    let mut config = Config::listening_on(["127.0.0.1:0".parse().unwrap()]);
    set(&mut config);
    Broker::bind(config).await.unwrap()
}

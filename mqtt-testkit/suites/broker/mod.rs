//! The broker on real sockets, with peers that speak raw packets. Everything is on 127.0.0.1 and
//! port 0; whoever has to wait, waits for a packet.

#[cfg(feature = "access")]
mod access;
pub(crate) mod auth;
mod handle;
pub(crate) mod links;
mod observe;
pub(crate) mod peer;
mod transports;

use crate::adapter::broker::{Broker, BrokerHandle, Config};

pub(crate) async fn broker() -> BrokerHandle {
    broker_with(|_| {}).await
}

pub(crate) async fn broker_with(set: impl FnOnce(&mut Config)) -> BrokerHandle {
    let mut config = Config::listening_on(["127.0.0.1:0".parse().unwrap()]);
    config.broker.shards = mqtt_testkit::shards();
    set(&mut config);
    Broker::bind(config).await.unwrap()
}

//! Broker and client with a store: what was acknowledged survives them.

use crate::adapter::broker::{Broker, BrokerHandle, Config, Event};
use crate::adapter::client::{Error, Item, Options, Subscription};
use crate::rt;
use futures_lite::future::poll_once;
use mqtt_proto::{QoS, ReasonCode};
use mqtt_session::client::{CleanStart, DisconnectOptions};
use mqtt_session::{Durability, Message};
use mqtt_store::{MemoryStore, StoreErrorKind};
use mqtt_testkit::adapters::within;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

async fn broker(store: &MemoryStore) -> Result<BrokerHandle> {
    broker_in(store, 1).await
}

async fn broker_in(store: &MemoryStore, shards: u16) -> Result<BrokerHandle> {
    let store = store.clone();
    let mut config = Config::listening_on(["127.0.0.1:0".parse::<SocketAddr>()?])
        .stored_in(Durability::Synced, move || Ok(Box::new(store.clone())));
    config.broker.shards = shards;
    Ok(Broker::bind(config).await?)
}

fn options(broker: &BrokerHandle, client_id: &str) -> Options {
    let address = broker.local_addrs()[0];
    Options::new(address.ip().to_string(), address.port()).client_id(client_id).clean_start(CleanStart::Never)
}

fn message(payload: &str, qos: QoS) -> Message {
    Message::new("t", payload.to_owned()).with_qos(qos)
}

async fn next(stream: &mut Subscription) -> Result<String> {
    let item = within::<rt::Runtime, _>(stream.recv()).await;
    match item {
        Some(Item::Message(message)) => Ok(String::from_utf8(message.payload.to_vec())?),
        other => panic!("{other:?} instead of a message"),
    }
}

#[rt::test]
async fn what_the_broker_acknowledged_survives_its_end() -> Result {
    let store = MemoryStore::that_forgets();
    let first = broker(&store).await?;
    let subscriber = options(&first, "s").connect().await?;
    drop(subscriber.subscribe("t", QoS::ExactlyOnce).await?);
    subscriber.disconnect().await?;
    let publisher = options(&first, "p").connect().await?;
    publisher.publish(message("one", QoS::AtLeastOnce)).await?;
    publisher.publish(message("two", QoS::ExactlyOnce)).await?;
    publisher.publish(message("kept", QoS::AtLeastOnce).retained()).await?;
    publisher.disconnect().await?;
    first.shutdown().await?;
    // What was not synced is gone.
    store.cut_power();
    let second = broker(&store).await?;
    let stats = second.stats().await?;
    assert_eq!((stats.subscriptions, stats.retained, stats.messages), (1, 1, 3));
    let subscriber = options(&second, "s").configure(|config| config.adopt_session = true).start()?;
    let mut unclaimed = subscriber.unclaimed().ok_or("nobody else has it")?;
    for expected in ["one", "two", "kept"] {
        assert_eq!(next(&mut unclaimed).await?, expected);
    }
    subscriber.disconnect().await?;
    // Its acknowledgements have arrived when its end has.
    while second.stats().await?.connections > 0 {}
    second.shutdown().await?;
    let third = broker(&store).await?;
    assert_eq!(third.stats().await?.messages, 1, "the retained one");
    third.shutdown().await?;
    Ok(())
}

/// All shards write to one store, and find what is theirs when they are more or fewer the next time.
#[rt::test]
async fn what_several_shards_acknowledged_survives_in_any_number_of_them() -> Result {
    let store = MemoryStore::that_forgets();
    let names: Vec<String> = (0..8).map(|n| format!("s{n}")).collect();
    let first = broker_in(&store, 3).await?;
    for name in &names {
        let subscriber = options(&first, name).connect().await?;
        drop(subscriber.subscribe("t", QoS::ExactlyOnce).await?);
        subscriber.disconnect().await?;
    }
    let publisher = options(&first, "p").connect().await?;
    for (number, qos) in [QoS::AtLeastOnce, QoS::ExactlyOnce].into_iter().cycle().take(10).enumerate() {
        publisher.publish(message(&number.to_string(), qos)).await?;
    }
    publisher.disconnect().await?;
    first.shutdown().await?;
    store.cut_power();
    for (shards, names) in [(3, &names[..2]), (1, &names[2..4]), (4, &names[4..6]), (2, &names[6..])] {
        let broker = broker_in(&store, shards).await?;
        assert_eq!(broker.stats().await?.subscriptions, 8);
        for name in names {
            let subscriber =
                options(&broker, name).configure(|config| config.adopt_session = true).start()?;
            let mut unclaimed = subscriber.unclaimed().ok_or("nobody else has it")?;
            for expected in 0..10 {
                assert_eq!(next(&mut unclaimed).await?, expected.to_string(), "{name} of {shards} shards");
            }
            subscriber.disconnect().await?;
        }
        while broker.stats().await?.connections > 0 {}
        broker.shutdown().await?;
        store.cut_power();
    }
    Ok(())
}

#[rt::test]
async fn a_store_that_fails_is_never_acknowledged_from_memory() -> Result {
    let store = MemoryStore::new();
    let broker = broker(&store).await?;
    let mut events = broker.events();
    let subscriber = options(&broker, "s").connect().await?;
    let mut stream = subscriber.subscribe("t", QoS::AtLeastOnce).await?;
    store.fail_writes(StoreErrorKind::DiskFull);
    let publisher =
        options(&broker, "p").clean_start(CleanStart::Always).configure(|c| c.session_expiry_secs = 0);
    let publisher = publisher.connect().await?;
    let mut owed = pin!(rt::spawn({
        let publisher = publisher.clone();
        async move { publisher.publish(message("owed", QoS::AtLeastOnce)).await }
    }));
    assert_eq!(next(&mut stream).await?, "owed", "delivered, and not acknowledged");
    while events.recv().await?.as_deref() != Some(&Event::StoreFailed) {}
    // Its refusal waits behind what is owed.
    let refused = rt::spawn({
        let publisher = publisher.clone();
        async move { publisher.publish(message("refused", QoS::AtLeastOnce)).await }
    });
    publisher.publish(message("passes", QoS::AtMostOnce)).await?;
    assert_eq!(next(&mut stream).await?, "passes");
    assert!(poll_once(&mut owed).await.is_none());
    store.heal();
    owed.await?;
    assert!(matches!(refused.await, Err(Error::Refused(ReasonCode::QuotaExceeded))));
    publisher.publish(message("again", QoS::AtLeastOnce)).await?;
    assert_eq!(next(&mut stream).await?, "again");
    broker.shutdown().await?;
    Ok(())
}

#[rt::test]
async fn what_a_client_has_not_sent_survives_its_end() -> Result {
    let broker_store = MemoryStore::new();
    let client_store = MemoryStore::that_forgets();
    let broker = broker(&broker_store).await?;
    let listener = options(&broker, "s").connect().await?;
    let mut stream = listener.subscribe("t", QoS::ExactlyOnce).await?;
    let nobody = "127.0.0.1:1".parse::<SocketAddr>()?;
    let stored = |options: Options| options.session_store(Durability::Synced, client_store.clone());
    let away = Options::new(nobody.ip().to_string(), nobody.port()).client_id("p");
    let first = stored(away).start()?;
    for payload in ["one", "two"] {
        drop(first.try_publish(message(payload, QoS::ExactlyOnce))?);
    }
    // Once it has ended, all that it was given is stored.
    let drain = Duration::from_millis(10);
    let _ = first.disconnect_with(DisconnectOptions { drain, ..DisconnectOptions::default() }).await;
    client_store.cut_power();
    let second = stored(options(&broker, "p")).connect().await?;
    assert_eq!(next(&mut stream).await?, "one");
    assert_eq!(next(&mut stream).await?, "two");
    second.publish(message("three", QoS::ExactlyOnce)).await?;
    assert_eq!(next(&mut stream).await?, "three");
    second.disconnect().await?;
    let third = stored(options(&broker, "p")).connect().await?;
    third.publish(message("four", QoS::ExactlyOnce)).await?;
    assert_eq!(next(&mut stream).await?, "four", "and nothing twice");
    third.disconnect().await?;
    broker.shutdown().await?;
    Ok(())
}

#[rt::test]
async fn a_stored_session_needs_a_client_identifier() -> Result {
    let options = Options::new("localhost", 1).session_store(Durability::Written, MemoryStore::new());
    assert!(matches!(options.start(), Err(Error::NoClientId)));
    Ok(())
}

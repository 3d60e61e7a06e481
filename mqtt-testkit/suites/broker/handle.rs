//! The broker's handle: commands, events, beginning and end.

use super::peer::{Peer, dial};
use super::{broker, broker_with};
use crate::adapter::broker::{
    AskFor, BindError, Broker, Config, Ended, Event, Lagged, PublishFailed, ServeError, SubscribeFailed,
};
use crate::rt;
use futures_lite::future::zip;
use mqtt_proto::{QoS, ReasonCode, Version};
use mqtt_session::{Durability, Message};

#[rt::test]
async fn the_program_itself_publishes_and_subscribes() {
    let broker = broker().await;
    let mut own = broker.subscribe("a/#", QoS::AtLeastOnce.into()).await.unwrap();
    let mut peer = Peer::subscriber(&broker, "peer", "a/b").await;
    assert_eq!(broker.publish(Message::new("a/b", "x")).await, Ok(2));
    assert_eq!(broker.publish(Message::new("c", "x")).await, Ok(0));
    assert_eq!(peer.recv().await, "PUBLISH a/b q0 \"x\"");
    assert_eq!(own.recv().await.unwrap().unwrap().topic, "a/b");
    peer.publish("a/c", b"y").await;
    assert_eq!(own.recv().await.unwrap().unwrap().payload, "y");
}

#[rt::test]
async fn mistakes_are_handed_back() {
    let broker = broker().await;
    let Err(PublishFailed::Refused(error)) = broker.publish(Message::new("a/#", "x")).await else {
        panic!("a wildcard was published to");
    };
    assert_eq!(error.into_message().topic, "a/#");
    let error = broker.subscribe("a/#/b", Default::default()).await.unwrap_err();
    assert!(matches!(error, SubscribeFailed::Invalid(_)), "{error:?}");
}

#[rt::test]
async fn a_dropped_subscription_ends() {
    let broker = broker().await;
    let own = broker.subscribe("a", Default::default()).await.unwrap();
    assert_eq!(broker.publish(Message::new("a", "x")).await, Ok(1));
    drop(own);
    assert_eq!(broker.publish(Message::new("a", "x")).await, Ok(0));
}

#[rt::test]
async fn who_does_not_take_its_messages_learns_how_many_are_missing() {
    let broker = broker_with(|config| config.backlog = 2).await;
    let mut own = broker.subscribe("a", Default::default()).await.unwrap();
    for n in 0..5 {
        broker.publish(Message::new("a", n.to_string())).await.unwrap();
    }
    assert_eq!(own.recv().await, Err(Lagged(3)));
    assert_eq!(own.recv().await.unwrap().unwrap().payload, "0");
    assert_eq!(own.recv().await.unwrap().unwrap().payload, "1");
    broker.publish(Message::new("a", "5")).await.unwrap();
    assert_eq!(own.recv().await.unwrap().unwrap().payload, "5");
}

#[rt::test]
async fn a_client_can_be_disconnected() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker, Version::V5, "c").await;
    let reason = ReasonCode::AdministrativeAction;
    assert_eq!(broker.disconnect("other", reason).await, Ok(false));
    assert_eq!(broker.disconnect("c", reason).await, Ok(true));
    assert_eq!(peer.recv().await, "DISCONNECT 98");
    assert_eq!(peer.recv().await, "EOF");
}

#[rt::test]
async fn events_tell_what_happens() {
    let broker = broker().await;
    let mut events = broker.events();
    let peer = Peer::connect(&broker, Version::V5, "c").await;
    let event = events.recv().await.unwrap().unwrap();
    assert!(matches!(&*event, Event::Connected { client_id, .. } if client_id == "c"), "{event:?}");
    drop(peer);
    let event = events.recv().await.unwrap().unwrap();
    assert!(matches!(&*event, Event::Disconnected { client_id: Some(id), .. } if id == "c"), "{event:?}");
    broker.shutdown().await.unwrap();
    while let Some(event) = events.recv().await.unwrap() {
        assert!(matches!(*event, Event::SessionEnded { .. }), "{event:?}");
    }
}

#[rt::test]
async fn shutting_down_takes_leave() {
    let broker = broker().await;
    let address = broker.local_addrs()[0];
    let mut own = broker.subscribe("a", Default::default()).await.unwrap();
    let mut five = Peer::connect(&broker, Version::V5, "five").await;
    let mut four = Peer::connect(&broker, Version::V311, "four").await;
    // The peer closes its side when it has read the farewell; until then the broker waits a little.
    let (ended, ()) = zip(broker.shutdown(), async {
        assert_eq!(five.recv().await, "DISCONNECT 8B");
        assert_eq!(five.recv().await, "EOF");
        drop(five);
        assert_eq!(four.recv().await, "EOF");
    })
    .await;
    assert_eq!(ended, Ok(()));
    assert_eq!(broker.shutdown().await, Ok(()), "twice is as good as once");
    assert_eq!(broker.stats().await, Err(Ended));
    assert_eq!(own.recv().await, Ok(None));
    assert_eq!(broker.events().recv().await, Ok(None));
    // Nobody listens there any more.
    assert!(dial(address).await.is_err());
}

#[rt::test]
async fn the_broker_ends_with_its_last_handle() {
    let broker = broker().await;
    let other = broker.clone();
    let mut peer = Peer::connect(&broker, Version::V5, "c").await;
    drop(broker);
    assert!(other.stats().await.is_ok());
    drop(other);
    assert_eq!(peer.recv().await, "DISCONNECT 8B");
    assert_eq!(peer.recv().await, "EOF");
}

#[rt::test]
async fn a_panic_inside_ends_the_broker_with_an_error() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker, Version::V5, "c").await;
    let (ended, ()) = zip(broker.serve(), broker.panic()).await;
    assert_eq!(ended, Err(ServeError::Panicked("a test asked for this panic".to_owned())));
    assert_eq!(broker.shutdown().await, ended);
    assert_eq!(broker.stats().await, Err(Ended));
    // On the shard that failed connections are cut, on others they are told.
    let end = peer.recv().await;
    if mqtt_testkit::shards() == 1 || end != "DISCONNECT 8B" {
        assert_eq!(end, "EOF", "the connections are cut");
    }
}

#[rt::test]
async fn a_broker_that_cannot_start_says_why() {
    let first = broker().await;
    let taken = first.local_addrs()[0];
    let error = Broker::bind(Config::listening_on([taken])).await.unwrap_err();
    assert!(matches!(error, BindError::Listen { ref address, .. } if *address == taken.into()), "{error}");

    let mut config = Config::default();
    config.broker.durability = Durability::Synced;
    assert!(matches!(Broker::bind(config).await, Err(BindError::NoStore)));

    let mut config = Config::default();
    config.broker.work_budget = 0;
    let error = Broker::bind(config).await.unwrap_err();
    assert!(error.to_string().starts_with("setting work_budget must not be 0"), "{error}");

    let mut config = Config::default();
    config.broker.ask = AskFor { publish: true, ..AskFor::default() };
    assert!(matches!(Broker::bind(config).await, Err(BindError::NoAuthorizer)));

    let mut config = Config::default();
    config.mailbox = 0;
    assert!(matches!(Broker::bind(config).await, Err(BindError::Zero("mailbox"))));
}

#[rt::test]
async fn it_listens_on_several_addresses() {
    let any = "127.0.0.1:0".parse().unwrap();
    let broker = Broker::bind(Config::listening_on([any, any])).await.unwrap();
    assert_eq!(broker.local_addrs().len(), 2);
    for &address in broker.local_addrs() {
        let stream = dial(address).await.unwrap();
        Peer::over(stream, Version::V5).introduce("c").await;
    }
}

//! Asking the program who may do what.

use super::broker_with;
use super::peer::{Peer, connect};
use crate::adapter::broker::{Answer, Ask, Authorizer, BrokerHandle, Config, Decision, Question};
use crate::rt;
use futures_lite::AsyncWriteExt;
use futures_lite::future::yield_now;
use mqtt_proto::{ConnectRef, PacketRef, PublishRef, ReasonCode, Version, WillRef};
use std::sync::Arc;

pub(crate) async fn broker_by<D>(decide: impl Fn(Ask) -> D + Send + Sync + 'static) -> BrokerHandle
where
    D: Future<Output = Answer> + Send + 'static,
{
    broker_with(|config| *config = std::mem::take(config).authorized_by(decide)).await
}

#[rt::test]
async fn the_answer_counts() {
    answers_count().await;
}

pub(crate) async fn answers_count() {
    let broker = broker_by(|ask: Ask| async move {
        // Whoever decides may wait for others of this runtime.
        rt::spawn(yield_now()).await;
        match ask.question {
            Question::Publish { topic, .. } if topic != "open" => Answer::Deny(ReasonCode::NotAuthorized),
            _ if ask.client_id == "stranger" => Answer::Deny(ReasonCode::Banned),
            _ => Answer::Allow,
        }
    })
    .await;
    let mut stranger = Peer::open(&broker, Version::V5).await;
    stranger.send(&connect(Version::V5, "stranger")).await;
    assert_eq!(stranger.recv().await, "CONNACK 8A");
    assert_eq!(stranger.recv().await, "EOF");

    let mut sub = Peer::subscriber(&broker, "sub", "#").await;
    let mut from = Peer::connect(&broker, Version::V311, "pub").await;
    from.publish("closed", b"1").await;
    from.publish("open", b"2").await;
    assert_eq!(sub.recv().await, "PUBLISH open q0 \"2\"");
}

#[rt::test]
async fn only_who_is_asked_about_waits() {
    let (pass, gate) = async_channel::bounded(1);
    let broker = broker_by(move |ask: Ask| {
        let gate = gate.clone();
        async move {
            if matches!(ask.question, Question::Connect { .. }) && ask.client_id == "waits" {
                gate.recv().await.unwrap();
            }
            Answer::Allow
        }
    })
    .await;
    let mut waits = Peer::open(&broker, Version::V311).await;
    waits.send(&connect(Version::V311, "waits")).await;
    let _other = Peer::connect(&broker, Version::V311, "other").await;
    pass.send(()).await.unwrap();
    assert_eq!(waits.recv().await, "CONNACK 00");
}

/// A broker that answers `waits` only when it is told to, and is asked about no packet but CONNECT.
async fn gated() -> (async_channel::Sender<()>, BrokerHandle) {
    let (pass, gate) = async_channel::bounded(1);
    let decide = move |ask: Ask| {
        let gate = gate.clone();
        async move {
            if matches!(ask.question, Question::Connect { .. }) && ask.client_id == "waits" {
                gate.recv().await.unwrap();
            }
            Answer::Allow
        }
    };
    let broker = broker_with(|config| {
        *config = std::mem::take(config).authorized_by(decide);
        config.broker.ask.publish = false;
        config.broker.ask.subscribe = false;
    });
    (pass, broker.await)
}

#[rt::test]
async fn what_came_during_a_question_is_read_after_it() {
    let (pass, broker) = gated().await;
    let mut waits = Peer::open(&broker, Version::V311).await;
    waits.send(&connect(Version::V311, "waits")).await;
    Peer::connect(&broker, Version::V311, "behind the question").await;
    waits.send(&PacketRef::Pingreq).await;
    Peer::connect(&broker, Version::V311, "behind the packet").await;
    pass.send(()).await.unwrap();
    assert_eq!(waits.recv().await, "CONNACK 00");
    assert_eq!(waits.recv().await, "PINGRESP");
}

#[rt::test]
async fn an_end_during_a_question_is_seen_after_it() {
    let (pass, broker) = gated().await;
    let mut sub = Peer::subscriber(&broker, "sub", "will").await;
    let mut waits = Peer::open(&broker, Version::V311).await;
    let will = Some(WillRef { topic: "will", payload: b"gone", ..WillRef::default() });
    let version = Version::V311;
    let hello = ConnectRef { version, client_id: "waits", clean_start: true, will, ..ConnectRef::default() };
    waits.send(&PacketRef::Connect(hello)).await;
    Peer::connect(&broker, Version::V311, "behind the question").await;
    waits.publish("will", b"last words").await;
    // It only says no more; one that is gone would be told of once more, when it is written to.
    waits.stream.close().await.unwrap();
    Peer::connect(&broker, Version::V311, "behind the end").await;
    pass.send(()).await.unwrap();
    assert_eq!(sub.recv().await, "PUBLISH will q0 \"last words\"");
    assert_eq!(sub.recv().await, "PUBLISH will q0 \"gone\"");
}

#[rt::test]
async fn a_panic_is_a_no() {
    let broker = broker_by(|ask: Ask| async move {
        assert_ne!(ask.client_id, "trap", "this client makes the authorizer panic");
        Answer::Allow
    })
    .await;
    let mut trap = Peer::open(&broker, Version::V5).await;
    trap.send(&connect(Version::V5, "trap")).await;
    assert_eq!(trap.recv().await, "CONNACK 80");
    let _other = Peer::connect(&broker, Version::V5, "other").await;
}

/// Needs nobody's time to decide.
struct AtOnce;

impl Authorizer for AtOnce {
    fn decide(self: Arc<Self>, ask: Ask) -> Decision {
        assert_ne!(ask.client_id, "trap", "this client makes the authorizer panic");
        match ask.question {
            Question::Publish { topic, .. } if topic != "open" => Answer::Deny(ReasonCode::NotAuthorized),
            _ => Answer::Allow,
        }
        .into()
    }
}

#[rt::test]
async fn an_answer_at_once_counts_however_many_questions_a_read_holds() {
    const EACH: usize = 2_000;
    let broker = broker_with(|config| *config = std::mem::take(config).authorized_by(AtOnce)).await;
    let mut trap = Peer::open(&broker, Version::V5).await;
    trap.send(&connect(Version::V5, "trap")).await;
    assert_eq!(trap.recv().await, "CONNACK 80", "a panic is a no");
    let mut sub = Peer::subscriber(&broker, "sub", "#").await;
    let mut from = Peer::connect(&broker, Version::V311, "pub").await;
    let mut bytes = Vec::new();
    for topic in ["open", "closed"].into_iter().cycle().take(2 * EACH) {
        let publish = PublishRef { topic, payload: b"1", ..PublishRef::default() };
        PacketRef::Publish(publish).encode(Version::V311, &mut bytes).unwrap();
    }
    from.stream.write_all(&bytes).await.unwrap();
    from.publish("open", b"2").await;
    for _ in 0..EACH {
        assert_eq!(sub.recv().await, "PUBLISH open q0 \"1\"");
    }
    assert_eq!(sub.recv().await, "PUBLISH open q0 \"2\"");
}

#[test]
fn who_decides_asks_everything_unless_told_otherwise() {
    let config = Config::default().authorized_by(|_| async { Answer::Allow });
    assert!(config.broker.ask.connect && config.broker.ask.publish && config.broker.ask.subscribe);
}

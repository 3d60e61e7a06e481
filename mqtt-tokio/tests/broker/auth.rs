//! Asking the program who may do what.

use crate::broker_with;
use crate::peer::{Peer, connect};
use mqtt_proto::{ReasonCode, Version};
use mqtt_tokio::broker::{Answer, Ask, BrokerHandle, Config, Question};
use std::sync::Arc;
use tokio::sync::Notify;

async fn broker_by<D>(decide: impl Fn(Ask) -> D + Send + Sync + 'static) -> BrokerHandle
where
    D: Future<Output = Answer> + Send + 'static,
{
    broker_with(|config| *config = std::mem::take(config).authorized_by(decide)).await
}

#[tokio::test]
async fn the_answer_counts_inside_a_current_thread_runtime() {
    the_answer_counts().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_answer_counts_inside_a_multi_thread_runtime() {
    the_answer_counts().await;
}

async fn the_answer_counts() {
    let broker = broker_by(|ask: Ask| async move {
        // Whoever decides may wait for others of this runtime.
        tokio::spawn(tokio::task::yield_now()).await.unwrap();
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

#[tokio::test]
async fn only_who_is_asked_about_waits() {
    let gate = Arc::new(Notify::new());
    let pass = Arc::clone(&gate);
    let broker = broker_by(move |ask: Ask| {
        let gate = Arc::clone(&gate);
        async move {
            if ask.client_id == "waits" {
                gate.notified().await;
            }
            Answer::Allow
        }
    })
    .await;
    let mut waits = Peer::open(&broker, Version::V311).await;
    waits.send(&connect(Version::V311, "waits")).await;
    let _other = Peer::connect(&broker, Version::V311, "other").await;
    pass.notify_one();
    assert_eq!(waits.recv().await, "CONNACK 00");
}

#[tokio::test]
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

#[test]
fn a_runtime_that_ends_answers_nothing_any_more() {
    let inner = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let broker = inner.block_on(broker_by(|_| std::future::pending()));
    drop(inner);
    let outer = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    outer.block_on(async {
        let mut peer = Peer::open(&broker, Version::V5).await;
        peer.send(&connect(Version::V5, "c")).await;
        assert_eq!(peer.recv().await, "CONNACK 80");
    });
}

#[test]
fn who_decides_asks_everything_unless_told_otherwise() {
    let config = Config::default().authorized_by(|_| async { Answer::Allow });
    assert!(config.broker.ask.connect && config.broker.ask.publish && config.broker.ask.subscribe);
}

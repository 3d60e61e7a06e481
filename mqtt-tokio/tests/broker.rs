//! The broker's suite on Tokio, and what only Tokio has.

use mqtt_tokio as adapter;
mod rt;
#[path = "../../mqtt-testkit/suites/broker/mod.rs"]
mod suite;

use mqtt_proto::Version;
use mqtt_session::Message;
use suite::auth::{answers_count, broker_by};
use suite::peer::{Peer, connect};
use suite::{broker, broker_with, links};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_go_through_inside_a_multi_thread_runtime() {
    links::messages_do_go_through().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_answer_counts_inside_a_multi_thread_runtime() {
    answers_count().await;
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

#[tokio::test(flavor = "multi_thread")]
async fn no_command_is_forgotten_however_many_come_at_once() {
    let broker = broker().await;
    for _ in 0..20 {
        let asked: Vec<_> = (0..200)
            .map(|_| {
                let broker = broker.clone();
                tokio::spawn(async move { broker.stats().await })
            })
            .collect();
        for answer in asked {
            answer.await.unwrap().unwrap();
        }
    }
}

/// Each message is retained on the shard that its topic gives, and published through the first one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_published_is_found_at_once_on_whichever_shard_it_is_retained() {
    let broker = broker_with(|config| config.broker.shards = 3).await;
    for n in 0..2_000 {
        let topic = format!("t/{n}");
        broker.publish(Message::new(&*topic, "x").retained()).await.unwrap();
        assert!(broker.retained_message(&topic).await.unwrap().is_some(), "{topic}");
        assert!(broker.remove_retained(&topic).await.unwrap(), "{topic}");
        assert!(broker.retained_message(&topic).await.unwrap().is_none(), "{topic}");
    }
}

//! Looking into a running broker, on however many shards it works.

use super::broker;
use super::peer::Peer;
use crate::adapter::broker::{Place, TransportStats};
use crate::rt;
use mqtt_proto::{QoS, Version};
use mqtt_session::Message;
use std::collections::BTreeSet;

#[rt::test]
async fn lists_come_in_pages_that_show_everything_once() {
    let broker = broker().await;
    let mut peers = Vec::new();
    for n in 0..9 {
        let mut peer = Peer::connect(&broker, Version::V5, &format!("c{n}")).await;
        peer.subscribe("all").await;
        peer.subscribe(&format!("$share/g/{}", n % 3)).await;
        peers.push(peer);
        broker.publish(Message::new(format!("r/{n}"), "12345").retained()).await.unwrap();
    }
    let (mut clients, mut subscriptions, mut retained) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let mut next = Some(Place::default());
    while let Some(at) = next {
        let page = broker.clients(at, 2, true).await.unwrap();
        assert!(page.items.len() <= 2);
        for client in page.items {
            assert_eq!(client.subscriptions, 2);
            assert!(clients.insert(client.client_id), "twice");
        }
        // As it travels through hands that do not know what it is.
        next = page.next.map(|next| next.to_string().parse().unwrap());
    }
    next = Some(Place::default());
    while let Some(at) = next {
        let page = broker.subscriptions(at, 4).await.unwrap();
        for subscription in page.items {
            assert!(subscriptions.insert((subscription.client_id, subscription.filter)), "twice");
        }
        next = page.next;
    }
    // What was published on another shard gets to the shard of its topic in its own time.
    while retained.len() < 9 {
        retained.clear();
        next = Some(Place::default());
        while let Some(at) = next {
            let page = broker.retained(at, 4).await.unwrap();
            retained.extend(page.items.into_iter().map(|item| (item.topic, item.payload_len)));
            next = page.next;
        }
    }
    assert_eq!((clients.len(), subscriptions.len(), retained.len()), (9, 18, 9));
    assert!(subscriptions.contains(&(Some("c4".to_owned()), "$share/g/1".to_owned())));
    assert!(retained.contains(&("r/8".to_owned(), 5)));
    assert_eq!(broker.client("c5").await.unwrap().unwrap().client_id, "c5");
    assert_eq!(broker.client("nobody").await, Ok(None));
    let own = broker.subscriptions_of("c5", Place::default(), 10).await.unwrap();
    let own: Vec<_> = own.items.into_iter().map(|item| item.filter).collect();
    assert_eq!(own, ["all", "$share/g/2"]);
    assert_eq!(broker.subscriptions_of("nobody", Place::default(), 10).await.unwrap().items, []);
    assert_eq!(broker.transport_stats().await, Ok(TransportStats::default()));
}

#[rt::test]
async fn a_session_and_a_retained_message_can_be_removed() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker, Version::V5, "c").await;
    assert_eq!(broker.remove_session("other").await, Ok(false));
    assert_eq!(broker.remove_session("c").await, Ok(true));
    assert_eq!(peer.recv().await, "DISCONNECT 98");
    assert_eq!(broker.client("c").await, Ok(None));
    broker.publish(Message::new("r", "kept").with_qos(QoS::AtLeastOnce).retained()).await.unwrap();
    let message = loop {
        if let Some(message) = broker.retained_message("r").await.unwrap() {
            break message;
        }
    };
    assert_eq!((&message.payload[..], message.qos), (&b"kept"[..], QoS::AtLeastOnce));
    assert_eq!(broker.remove_retained("r").await, Ok(true));
    assert_eq!(broker.remove_retained("r").await, Ok(false));
    assert_eq!(broker.retained_message("r").await, Ok(None));
}

#[rt::test]
async fn the_memory_that_is_told_is_published() {
    let broker = super::broker_with(|config| {
        config.broker.sys_interval = Some(std::time::Duration::from_millis(100));
    })
    .await;
    broker.tell_memory(12_345).await.unwrap();
    let mut own = broker.subscribe("$SYS/broker/heap/current", QoS::AtMostOnce.into()).await.unwrap();
    assert_eq!(own.recv().await.unwrap().unwrap().payload, "12345");
}

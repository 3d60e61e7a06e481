//! With a store: what waits for it, and what a client made from it does.

mod peer;

use mqtt_proto::*;
use mqtt_session::client::*;
use mqtt_session::store::Contents;
use mqtt_session::{Durability, Message, PublishErrorKind, StoreGroup, StoreOp, StoreSeq};
use peer::*;

fn config() -> ClientConfig {
    ClientConfig { durability: Durability::Synced, clean_start: CleanStart::Never, ..ClientConfig::new("c") }
}

/// A store that keeps what it was told to, and can lose what it did not confirm.
#[derive(Default)]
struct Disk {
    log: Vec<StoreOp>,
}

impl Disk {
    /// Takes everything emitted, and confirms it.
    fn commit(&mut self, peer: &mut Peer) {
        loop {
            let groups = peer.groups();
            let Some((last, _)) = groups.last() else { return };
            let last = *last;
            self.log.extend(groups.into_iter().flat_map(|(_, group)| group.ops.to_vec()));
            peer.client.handle_stored(peer.now, last);
            peer.pump();
        }
    }

    /// The client dies with everything that is not here, and another is made.
    fn restart(&self, config: ClientConfig) -> Peer {
        let client = Client::restore(config, mqtt_session::Timestamp::ZERO, self.log.clone()).unwrap();
        let mut peer = Peer::with(client, Version::V5);
        peer.start();
        peer.clear();
        peer
    }
}

fn online(config: ClientConfig) -> (Peer, Disk) {
    let mut peer = Peer::online(config);
    let mut disk = Disk::default();
    disk.commit(&mut peer);
    (peer, disk)
}

#[test]
fn a_message_is_sent_only_after_its_identifier_is_stored() {
    let (mut peer, mut disk) = online(config());
    peer.publish("a", "1", QoS::AtLeastOnce);
    peer.publish("b", "0", QoS::AtMostOnce);
    assert_eq!(peer.sent(), ["PUBLISH q0 b=0"], "QoS 0 waits for nothing");
    disk.commit(&mut peer);
    assert_eq!(peer.sent(), ["PUBLISH q1 #1 a=1"]);
}

#[test]
fn pubrel_waits_for_its_stage_and_pubrec_and_pubcomp_for_their_identifier() {
    let (mut peer, mut disk) = online(config());
    peer.publish("a", "1", QoS::ExactlyOnce);
    disk.commit(&mut peer);
    peer.clear();
    peer.pubrec(1);
    assert!(peer.sent().is_empty());
    disk.commit(&mut peer);
    assert_eq!(peer.sent(), ["PUBREL #1"]);
    peer.deliver("b", "", QoS::ExactlyOnce, 9);
    assert!(peer.sent().is_empty());
    disk.commit(&mut peer);
    assert_eq!(peer.sent(), ["PUBREC #9"]);
    peer.pubrel(9);
    assert!(peer.sent().is_empty());
    disk.commit(&mut peer);
    assert_eq!(peer.sent(), ["PUBCOMP #9"]);
}

#[test]
fn a_new_link_does_not_overtake_the_store() {
    let (mut peer, mut disk) = online(config());
    peer.publish("a", "1", QoS::ExactlyOnce);
    disk.commit(&mut peer);
    peer.pubrec(1);
    peer.deliver("b", "", QoS::ExactlyOnce, 9);
    peer.resume();
    peer.deliver_as("b", "", QoS::ExactlyOnce, 9, true);
    assert!(peer.sent().is_empty());
    disk.commit(&mut peer);
    assert_eq!(peer.sent(), ["PUBREC #9", "PUBREL #1"]);
}

#[test]
fn after_a_crash_everything_goes_on_under_its_identifier_and_token() {
    let (mut peer, mut disk) = online(config());
    let first = peer.publish("a", "1", QoS::AtLeastOnce);
    let second = peer.publish("a", "2", QoS::ExactlyOnce);
    disk.commit(&mut peer);
    peer.pubrec(2);
    disk.commit(&mut peer);
    let mut peer = disk.restart(config());
    peer.accept(true);
    assert_eq!(peer.sent(), ["PUBLISH q1 #1 dup a=1", "PUBREL #2"]);
    peer.puback(1);
    peer.pubcomp(2);
    assert_eq!(peer.done(), [(first, acked()), (second, acked())]);
    let third = peer.publish("a", "3", QoS::AtLeastOnce);
    assert!(third > second);
    disk.commit(&mut peer);
    assert_eq!(peer.sent(), ["PUBLISH q1 #3 a=3"]);
}

#[test]
fn what_was_queued_survives_and_what_was_done_does_not_come_back() {
    let (mut peer, mut disk) = online(config());
    peer.publish("a", "done", QoS::AtLeastOnce);
    disk.commit(&mut peer);
    peer.puback(1);
    disk.commit(&mut peer);
    peer.cut();
    let message = Message {
        properties: props(&[Property::ContentType("t")]),
        ..message("a", "later", QoS::ExactlyOnce)
    };
    peer.publish_message(message.retained());
    disk.commit(&mut peer);
    let mut peer = disk.restart(config());
    peer.accept(true);
    disk.commit(&mut peer);
    assert_eq!(peer.sent(), ["PUBLISH q2 #1 retain a=later ContentType(\"t\")"]);
}

/// Exactly once towards the application ends at its acknowledgement.
#[test]
fn what_was_acknowledged_by_hand_is_not_shown_again_and_what_was_not_is() {
    let manual = ClientConfig { ack_mode: AckMode::Manual, ..config() };
    let (mut peer, mut disk) = online(manual.clone());
    peer.deliver("a", "seen", QoS::ExactlyOnce, 1);
    peer.deliver("a", "not", QoS::ExactlyOnce, 2);
    let delivery = peer.messages().remove(0).delivery.unwrap();
    peer.ack(delivery, ReasonCode::Success).unwrap();
    disk.commit(&mut peer);
    let mut peer = disk.restart(manual);
    peer.accept(true);
    disk.commit(&mut peer);
    peer.deliver_as("a", "seen", QoS::ExactlyOnce, 1, true);
    peer.deliver_as("a", "not", QoS::ExactlyOnce, 2, true);
    let messages = peer.messages();
    assert_eq!(messages.len(), 1);
    assert_eq!((&messages[0].message.payload[..], messages[0].dup), (&b"not"[..], true));
    assert_eq!(peer.sent(), ["PUBREC #1"]);
}

#[test]
fn a_lost_session_takes_over_what_is_still_wanted() {
    let (mut peer, mut disk) = online(config());
    peer.publish("a", "1", QoS::AtLeastOnce);
    disk.commit(&mut peer);
    peer.cut();
    peer.redial();
    peer.clear();
    peer.accept(false);
    disk.commit(&mut peer);
    assert_eq!(peer.sent(), ["PUBLISH q1 #2 a=1"]);
    let mut peer = disk.restart(config());
    peer.accept(true);
    assert_eq!(peer.sent(), ["PUBLISH q1 #2 dup a=1"]);
}

/// Found by the simulator: a crash between the group that ends a session and those that remove what was
/// over with it left bodies behind for ever.
#[test]
fn a_lost_session_takes_what_is_over_with_it_in_one_group() {
    let (mut peer, mut disk) = online(config());
    peer.publish("a", "1", QoS::ExactlyOnce);
    disk.commit(&mut peer);
    peer.pubrec(1);
    disk.commit(&mut peer);
    peer.cut();
    peer.redial();
    peer.accept(false);
    let (_, first) = peer.groups().remove(0);
    let mut contents = Contents::default();
    contents.apply(&StoreGroup { ops: disk.log.iter().cloned().chain(first.ops.to_vec()).collect() });
    let left: Vec<_> = contents.records().collect();
    assert!(matches!(left[..], [StoreOp::PutSession(..)]), "{left:?}");
}

#[test]
fn a_failed_store_stops_what_depends_on_it_and_gets_everything_again() {
    let (mut peer, mut disk) = online(config());
    peer.publish("a", "1", QoS::AtLeastOnce);
    let lost = peer.groups();
    assert!(!lost.is_empty());
    peer.client.handle_store_failed(peer.now);
    let error = peer.client.publish(peer.now, message("a", "2", QoS::AtLeastOnce)).unwrap_err();
    assert_eq!(error.kind, PublishErrorKind::StoreFailed);
    peer.publish("a", "0", QoS::AtMostOnce);
    assert_eq!(peer.sent(), ["PUBLISH q0 a=0"]);
    // The store works again, and takes what it had lost.
    disk.commit(&mut peer);
    assert_eq!(peer.sent(), ["PUBLISH q1 #1 a=1"]);
    peer.publish("a", "2", QoS::AtLeastOnce);
}

#[test]
fn a_store_that_does_not_answer_fills_the_queue() {
    let (mut peer, _disk) = online(ClientConfig { max_queued_bytes: 1000, ..config() });
    let full = (0..1000).any(|_| {
        let result = peer.client.publish(peer.now, message("a", "0123456789", QoS::AtLeastOnce));
        peer.pump();
        result.is_err()
    });
    assert!(full);
}

#[test]
fn confirming_too_much_confirms_only_what_was_emitted() {
    let (mut peer, _disk) = online(config());
    peer.client.handle_stored(peer.now, StoreSeq(u64::MAX));
    peer.publish("a", "1", QoS::AtLeastOnce);
    assert!(peer.sent().is_empty());
}

#[test]
fn what_is_published_at_qos_0_is_not_stored() {
    let (mut peer, _) = online(config());
    peer.publish("b", "0", QoS::AtMostOnce);
    assert!(peer.groups().is_empty());
    assert_eq!(peer.sent(), ["PUBLISH q0 b=0"]);
}

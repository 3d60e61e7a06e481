//! The exhaustive look at a small world, within bounds that a test can afford: crashes with one message only.
//! `scripts/sim` looks at two (`mqtt-sim --model`).

use mqtt_proto::QoS;
use mqtt_sim::model::{Bounds, explore};

fn every_state_keeps_the_promises(bounds: Bounds) {
    let seen = explore(bounds).unwrap_or_else(|what| panic!("{bounds:?}: {what}"));
    assert!(seen.states > 100 && seen.ends > 0, "{bounds:?}: {seen:?}");
}

#[test]
fn two_messages_at_least_once_with_a_drop() {
    let qos = QoS::AtLeastOnce;
    every_state_keeps_the_promises(Bounds { qos, messages: 2, window: 1, drops: 1, crashes: 0 });
}

#[test]
fn two_messages_exactly_once_with_a_drop() {
    let qos = QoS::ExactlyOnce;
    every_state_keeps_the_promises(Bounds { qos, messages: 2, window: 1, drops: 1, crashes: 0 });
}

#[test]
fn a_message_at_least_once_with_a_crash() {
    let qos = QoS::AtLeastOnce;
    every_state_keeps_the_promises(Bounds { qos, messages: 1, window: 1, drops: 0, crashes: 1 });
}

#[test]
fn a_message_exactly_once_with_a_crash() {
    let qos = QoS::ExactlyOnce;
    every_state_keeps_the_promises(Bounds { qos, messages: 1, window: 1, drops: 0, crashes: 1 });
}

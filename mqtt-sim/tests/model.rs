//! The exhaustive look at a small world, within bounds that a test can afford: crashes with one message only.
//! `scripts/sim` looks at two (`mqtt-sim --model`).

use mqtt_proto::QoS;
use mqtt_sim::model::{Bounds, explore};

#[test]
fn every_state_within_small_bounds_keeps_the_promises() {
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        for (messages, drops, crashes) in [(2, 1, 0), (1, 0, 1)] {
            let bounds = Bounds { qos, messages, window: 1, drops, crashes };
            let seen = explore(bounds).unwrap_or_else(|what| panic!("{bounds:?}: {what}"));
            assert!(seen.states > 100 && seen.ends > 0, "{bounds:?}: {seen:?}");
        }
    }
}

//! How often a client asks for memory for each message: counted, not timed. One test, so that nobody else allocates
//! meanwhile.

use mqtt_proto::QoS;
use mqtt_testkit::adapters::Busy;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;

#[global_allocator]
static COUNTING: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Before anything is counted, and while it is.
const ROUNDS: usize = 20;

/// What a message is for the application: a topic and a payload.
const ITS_OWN: usize = 2;
/// What a round may take besides, however many messages it has.
const BESIDES: usize = 20;

#[test]
fn a_message_takes_only_what_the_application_has_of_it() {
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
        for publishes in [false, true] {
            let mut busy = if publishes { Busy::publishing(qos) } else { Busy::receiving(qos) }.unwrap();
            // Tables and buffers find their sizes.
            (0..ROUNDS).for_each(|_| busy.round().unwrap());
            let region = Region::new(COUNTING);
            (0..ROUNDS).for_each(|_| busy.round().unwrap());
            let change = region.change();
            let made = change.allocations + change.reallocations;
            let most = ITS_OWN * Busy::MESSAGES + BESIDES;
            assert!(made <= most * ROUNDS, "{qos:?}, publishes: {publishes}: {change:?}");
        }
    }
}

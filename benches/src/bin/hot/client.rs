//! The client's paths: its machine, its driver and its streams, on a runtime that is nothing but memory.

use mqtt_proto::QoS;
use mqtt_testkit::adapters::Busy;
use std::error::Error;

/// Name, whether it publishes, QoS.
pub(crate) const SCENARIOS: [(&str, bool, QoS); 4] = [
    ("client-receive-q0", false, QoS::AtMostOnce),
    ("client-receive-q1", false, QoS::AtLeastOnce),
    ("client-publish-q0", true, QoS::AtMostOnce),
    ("client-publish-q1", true, QoS::AtLeastOnce),
];

/// Has so many messages pass, and tells how many those were.
pub(crate) fn run(
    &(_, publishes, qos): &(&str, bool, QoS),
    messages: usize,
) -> Result<usize, Box<dyn Error>> {
    let mut busy = if publishes { Busy::publishing(qos)? } else { Busy::receiving(qos)? };
    let rounds = messages / Busy::MESSAGES;
    for _ in 0..rounds {
        busy.round()?;
    }
    Ok(rounds * Busy::MESSAGES)
}

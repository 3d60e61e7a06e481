//! Accepting connections.

use super::link;
use super::node::Node;
use crate::runtime::{LocalRuntime, sleep};
use mqtt_session::broker::Peer;
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Connections taken before others get their turn.
const ACCEPTS_PER_TURN: usize = 32;
/// How long a listener rests when the system has no more descriptors or memory, so that it neither
/// dies nor spins.
const REST: Duration = Duration::from_millis(100);
/// How often such a rest is told.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Accepts for ever [MQTT-4.2-1].
pub(super) async fn accept<L: LocalRuntime>(node: Rc<Node<L>>, listener: L::Listener, number: u16) {
    let port = L::port(&listener);
    let mut told: Option<Instant> = None;
    let mut accepted = 0;
    loop {
        match L::accept(&listener).await {
            Ok((stream, address)) => {
                tracing::debug!("New connection from {address} on port {port}.");
                let peer = Peer { address: Some(address), listener: number, ..Peer::default() };
                link::open(&node, stream, peer);
                accepted += 1;
                if accepted >= ACCEPTS_PER_TURN {
                    accepted = 0;
                    L::yield_now().await;
                }
            }
            Err(e) if is_about_one_connection(&e) => {}
            Err(e) => {
                if told.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
                    told = Some(Instant::now());
                    tracing::error!("Cannot accept connections at times: {e}. This is told once a minute.");
                }
                sleep::<L::Timer>(REST).await;
            }
        }
    }
}

/// Whether the connection that was to be accepted is gone, and the next may be well.
fn is_about_one_connection(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionRefused
            | ErrorKind::Interrupted
    )
}

//! Accepting connections.

use super::bind::Listener;
use super::link;
use super::node::Node;
use crate::runtime::{LocalRuntime, sleep};
use mqtt_session::broker::Peer;
use std::cell::Cell;
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

/// A place among the connections of a listener; free again when it is dropped.
pub(super) struct Place(Rc<Cell<u32>>);

impl Place {
    fn take(taken: &Rc<Cell<u32>>, most: Option<u32>) -> Option<Self> {
        if most.is_some_and(|most| taken.get() >= most) {
            return None;
        }
        taken.set(taken.get() + 1);
        Some(Self(Rc::clone(taken)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Accepts for ever [MQTT-4.2-1].
pub(super) async fn accept<L: LocalRuntime>(node: Rc<Node<L>>, listener: L::Listener, settings: Listener) {
    let port = L::port(&listener);
    let Listener { number, max_connections, .. } = settings;
    let open = Rc::new(Cell::new(0));
    let mut full: Option<Instant> = None;
    let mut told: Option<Instant> = None;
    let mut accepted = 0;
    loop {
        match L::accept(&listener).await {
            Ok((stream, address)) => {
                tracing::debug!("New connection from {address} on port {port}.");
                accepted += 1;
                if let Some(place) = Place::take(&open, max_connections) {
                    let peer = Peer { address: Some(address), listener: number, ..Peer::default() };
                    link::open(&node, stream, peer, place);
                } else if full.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
                    full = Some(Instant::now());
                    tracing::warn!(
                        "Connection from {address} closed: port {port} has its maximum of {} connections. \
                         This is told once a minute.",
                        open.get()
                    );
                }
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

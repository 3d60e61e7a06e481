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

/// How many connections may be accepted, so many a second and a second's worth at once.
struct Pace {
    /// The time that one takes.
    each: Duration,
    most: Duration,
    /// What of it is there.
    credit: Duration,
    at: Instant,
}

impl Pace {
    fn new(rate: Option<u32>, now: Instant) -> Self {
        let each = rate.map_or(Duration::ZERO, |rate| Duration::from_secs(1) / rate.max(1));
        let most = Duration::from_secs(1).max(each);
        Self { each, most, credit: most, at: now }
    }

    /// How long until the next may be accepted.
    fn wait(&mut self, now: Instant) -> Option<Duration> {
        self.credit = (self.credit + now.saturating_duration_since(self.at)).min(self.most);
        self.at = now;
        self.each.checked_sub(self.credit).filter(|wait| !wait.is_zero())
    }

    fn took_one(&mut self) {
        self.credit = self.credit.saturating_sub(self.each);
    }
}

/// Accepts for ever [MQTT-4.2-1].
pub(super) async fn accept<L: LocalRuntime>(node: Rc<Node<L>>, listener: L::Listener, settings: Listener) {
    let port = L::port(&listener);
    let Listener { number, max_connections, max_connect_rate, rates, .. } = settings;
    let mut pace = Pace::new(max_connect_rate, Instant::now());
    let open = Rc::new(Cell::new(0));
    let mut full: Option<Instant> = None;
    let mut told: Option<Instant> = None;
    let mut paced: Option<Instant> = None;
    let mut accepted = 0;
    loop {
        if let Some(wait) = pace.wait(Instant::now()) {
            if paced.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
                paced = Some(Instant::now());
                tracing::warn!(
                    "Connections on port {port} come faster than its {} a second, so they have to wait. This \
                     is told once a minute.",
                    max_connect_rate.unwrap_or_default()
                );
            }
            sleep::<L::Timer>(wait).await;
        }
        match L::accept(&listener).await {
            Ok((stream, address)) => {
                tracing::debug!("New connection from {address} on port {port}.");
                accepted += 1;
                pace.took_one();
                if let Some(place) = Place::take(&open, max_connections) {
                    let peer = Peer { address: Some(address), listener: number, rates, ..Peer::default() };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_come_at_their_rate_after_a_burst() {
        let mut now = Instant::now();
        let mut pace = Pace::new(Some(20), now);
        for _ in 0..20 {
            assert_eq!(pace.wait(now), None);
            pace.took_one();
        }
        for _ in 0..100 {
            let wait = pace.wait(now).expect("the burst is over");
            assert_eq!(wait, Duration::from_millis(50));
            now += wait;
            assert_eq!(pace.wait(now), None);
            pace.took_one();
        }
        let mut free = Pace::new(None, now);
        for _ in 0..1_000 {
            assert_eq!(free.wait(now), None);
            free.took_one();
        }
    }
}

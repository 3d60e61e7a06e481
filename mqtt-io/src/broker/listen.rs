//! Accepting connections.

use super::bind::Listener;
use super::link::{self, Accepted};
use super::log::{self, At};
use super::node::Node;
use super::poller::Entrance;
use super::sockets::{Address, SocketFile};
use crate::runtime::{LocalRuntime, sleep};
use mqtt_session::broker::Peer;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Connections taken before others get their turn.
const ACCEPTS_PER_TURN: usize = 32;
/// How long a listener rests when the system has no more descriptors or memory, so that it neither
/// dies nor spins.
const REST: Duration = Duration::from_millis(100);
/// How often such a rest is told.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// A place among the connections of a listener; free again when it is dropped.
pub(super) struct Place(Arc<AtomicU32>);

impl Place {
    /// Only the thread that accepts takes places, so nobody comes in between.
    pub(super) fn take(taken: &Arc<AtomicU32>, most: Option<u32>) -> Option<Self> {
        if most.is_some_and(|most| taken.load(Ordering::Relaxed) >= most) {
            return None;
        }
        taken.fetch_add(1, Ordering::Relaxed);
        Some(Self(Arc::clone(taken)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
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

/// A socket that is listened on.
pub(super) struct Door<L: LocalRuntime> {
    pub(super) listener: Listening<L>,
    /// Goes when the listener does.
    pub(super) file: Option<SocketFile>,
    pub(super) settings: Listener,
}

/// A listening socket and who waits for it.
pub(super) enum Listening<L: LocalRuntime> {
    /// Its connections have tasks.
    Task(L::Listener),
    /// Its connections have a poller.
    Polled(Entrance<L>),
}

impl<L: LocalRuntime> Listening<L> {
    fn port(&self) -> u16 {
        match self {
            Self::Task(listener) => L::port(listener),
            Self::Polled(entrance) => entrance.port(),
        }
    }

    async fn accept(&self) -> io::Result<(Accepted<L>, Option<SocketAddr>)> {
        match self {
            Self::Task(listener) => {
                L::accept(listener).await.map(|(stream, from)| (Accepted::Task(stream), from))
            }
            Self::Polled(entrance) => {
                entrance.accept().await.map(|(stream, from)| (Accepted::Polled(stream), from))
            }
        }
    }
}

/// Something that is told now and then only.
#[derive(Default)]
struct Seldom(Option<Instant>);

impl Seldom {
    fn may_tell(&mut self) -> bool {
        let may = self.0.is_none_or(|at| at.elapsed() >= TELL_EVERY);
        if may {
            self.0 = Some(Instant::now());
        }
        may
    }
}

/// Accepts for ever [MQTT-4.2-1].
pub(super) async fn accept<L: LocalRuntime>(node: Rc<Node<L>>, door: Door<L>) {
    let Door {
        listener,
        file,
        settings: Listener { number, max_connections, max_connect_rate, rates, transport, address, .. },
    } = door;
    let _file = file;
    let at = match (&address, listener.port()) {
        (Address::Unix(_), _) => address.to_string(),
        (Address::Tcp(_), port) => format!("port {port}"),
    };
    let open = Arc::new(AtomicU32::new(0));
    let mut pace = Pace::new(max_connect_rate, Instant::now());
    let mut paced = Seldom::default();
    let (mut full, mut stranger, mut broken, mut told) =
        (Seldom::default(), Seldom::default(), Seldom::default(), Seldom::default());
    let mut accepted = 0;
    loop {
        if let Some(wait) = pace.wait(Instant::now()) {
            if paced.may_tell() {
                tracing::warn!(
                    "Connections on {at} come faster than its {} a second, so they have to wait. This \
                     is told once a minute.",
                    max_connect_rate.unwrap_or_default()
                );
            }
            sleep::<L::Timer>(wait).await;
        }
        match listener.accept().await {
            Ok((stream, address)) => {
                let from = At(address);
                log::accepted(node.log_style(), address, &at);
                accepted += 1;
                pace.took_one();
                let transport = transport.get();
                if !transport.believes(address) {
                    if stranger.may_tell() {
                        tracing::warn!(
                            "Connection from {from} closed: {at} is for proxies, and this is none that is \
                             trusted. This is told once a minute."
                        );
                    }
                } else if let Some(place) = Place::take(&open, max_connections) {
                    let peer = Peer { address, listener: number, rates, ..Peer::default() };
                    match transport.stack() {
                        // What costs something before CONNECT is done by all shards in turn.
                        Ok(stack) if !stack.is_plain() => {
                            link::open_somewhere(&node, stream, peer, stack, place)
                        }
                        Ok(stack) => link::open(&node, stream, peer, stack, place),
                        Err(e) if broken.may_tell() => tracing::error!("Connection from {from} closed: {e}."),
                        Err(_) => {}
                    }
                } else if full.may_tell() {
                    tracing::warn!(
                        "Connection from {from} closed: {at} has its maximum of {} connections. \
                         This is told once a minute.",
                        open.load(Ordering::Relaxed)
                    );
                }
                if accepted >= ACCEPTS_PER_TURN {
                    accepted = 0;
                    L::yield_now().await;
                }
            }
            Err(e) if is_about_one_connection(&e) => {}
            Err(e) => {
                if told.may_tell() {
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

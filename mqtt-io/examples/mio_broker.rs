//! A broker on `mio`: one thread, one epoll, no async.
//!
//! Run it by `cargo run -p mqtt-io --example mio_broker -- 127.0.0.1:1883`.
//!
//! [`Shard`] holds the machine and its links, and writes through [`Wire`]. What is left to do here is to
//! accept, to read, to keep one deadline, and to close.

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};
use mqtt_io::{Clock, Effect, Reading, Shard, Stack, Wire};
use mqtt_session::broker::{BrokerConfig, Closed, ConnectionId, Peer};
use mqtt_session::{Seed, Timestamp};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Wake, Waker};
use std::time::Duration;

const LISTENER: Token = Token(usize::MAX);
/// How long a peer may take to read its farewell and close.
const LINGER: Duration = Duration::from_secs(2);
/// Reads of one link before others get their turn.
const READS: usize = 16;

/// What the shard holds of a connection: the writing half.
struct Socket(Token, Rc<TcpStream>);

impl Wire for Socket {
    fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        (&*self.1).write_vectored(slices)
    }
}

/// What this program holds of it.
struct Link {
    stream: Rc<TcpStream>,
    conn: ConnectionId,
    waker: Waker,
    /// Set once the connection is gone and its peer is only seen off: until when.
    leaving: Option<Timestamp>,
}

/// Wakes a link whose reading was paused: `mio` says nothing of it.
struct Resume(Token, Arc<Mutex<Vec<Token>>>);

impl Wake for Resume {
    fn wake(self: Arc<Self>) {
        self.1.lock().expect("one thread").push(self.0);
    }
}

struct Broker {
    shard: Shard<Socket>,
    links: HashMap<Token, Link>,
    again: Arc<Mutex<Vec<Token>>>,
    buffer: Vec<u8>,
    next: usize,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:1883".into());
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(1024));
    let mut listener = TcpListener::bind(address.parse()?)?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    println!("listening on {}", listener.local_addr()?);
    let clock = Clock::start();
    let mut config = BrokerConfig::default();
    config.seed = Seed([0, 1].map(|n| RandomState::new().hash_one(n).to_ne_bytes()).concat()[..].try_into()?);
    let shard = Shard::new(config, clock.now()).map_err(|e| format!("{e:?}"))?;
    let (links, again, buffer) = (HashMap::new(), Arc::default(), vec![0; 64 << 10]);
    let mut broker = Broker { shard, links, again, buffer, next: 0 };
    loop {
        match poll.poll(&mut events, broker.wait(clock.now())) {
            Err(e) if e.kind() != ErrorKind::Interrupted => return Err(e.into()),
            _ => {}
        }
        let now = clock.now();
        broker.accept(now, &listener, poll.registry())?;
        let mut ready: Vec<Token> = events.iter().map(|event| event.token()).collect();
        ready.append(&mut broker.again.lock().expect("one thread"));
        ready.into_iter().for_each(|token| broker.ready(now, token));
        broker.shard.tick(now);
        // Whatever came of all this is written once.
        broker.shard.flush(now);
        broker.perform(now);
    }
}

impl Broker {
    /// How long there is nothing to do if nothing happens.
    fn wait(&self, now: Timestamp) -> Option<Duration> {
        let busy = self.shard.is_dirty() || !self.again.lock().expect("one thread").is_empty();
        let leaving = self.links.values().filter_map(|link| link.leaving);
        let due = leaving.chain(self.shard.deadline()).chain(busy.then_some(now)).min()?;
        // Rounded up, so as not to wake too early.
        Some(due.since(now) + Duration::from_millis(u64::from(due > now)))
    }

    fn accept(&mut self, now: Timestamp, listener: &TcpListener, epoll: &Registry) -> io::Result<()> {
        // Errors are about one connection, or pass; `WouldBlock` says that there is none.
        while let Ok((mut stream, address)) = listener.accept() {
            let token = Token(self.next);
            self.next += 1;
            epoll.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
            let _ = stream.set_nodelay(true);
            let (stream, waker) = (Rc::new(stream), Arc::new(Resume(token, self.again.clone())).into());
            let peer = Peer { address: Some(address), ..Peer::default() };
            let conn = self.shard.accept(now, peer, Stack::plain(), |_| Socket(token, stream.clone()));
            self.links.insert(token, Link { stream, conn, waker, leaving: None });
        }
        Ok(())
    }

    /// A socket can be read, or written again. `mio` tells once, so it is read until it is empty.
    fn ready(&mut self, now: Timestamp, token: Token) {
        let Some(Link { stream, conn, waker, .. }) = self.links.get(&token) else { return };
        self.shard.writable(now, *conn);
        for _ in 0..READS {
            if self.shard.reading(*conn) == Reading::Paused {
                return;
            }
            match (&**stream).read(&mut self.buffer) {
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Ok(n) if n > 0 => drop(self.shard.read(now, *conn, &self.buffer[..n], waker)),
                end => {
                    self.shard.closed(now, *conn, if end.is_ok() { Closed::Eof } else { Closed::Error });
                    return drop(self.links.remove(&token));
                }
            }
        }
        waker.wake_by_ref();
    }

    /// Does what the shard wants done. `mio` waits for writability by itself; there are no questions.
    fn perform(&mut self, now: Timestamp) {
        let mut effects = Vec::new();
        self.shard.take_effects(&mut effects);
        for effect in effects {
            let Effect::Close { wire: Socket(token, stream), linger } = effect else { continue };
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let until = if linger { now + LINGER } else { now };
            self.links.entry(token).and_modify(|link| link.leaving = Some(until));
        }
        self.links.retain(|_, link| link.leaving.is_none_or(|until| until > now));
    }
}

//! The turn: one machine, its links, and obedience to its outputs.
//!
//! No function here waits, and none calls into code of the program's user.

mod effect;
mod write;

pub use self::effect::{Effect, Reading, TransportEvent, TransportStats, Travelling};
use self::write::{Written, says_goodbye, write};
use crate::link::{Link, Links, State};
use crate::stack::Received;
use crate::trace::{Machine, Recorder};
use crate::{Clock, Command, Reply, Sink, Stack, View, Wire};
use mqtt_proto::EncodeError;
use mqtt_session::broker::{
    BrokerConfig, Closed, ConfigError, ConnectionId, Event, LocalId, Output, Peer, ReadStatus, Stats,
};
use mqtt_session::{Broker, Durability, ShardId, ShardMessage, Timestamp};
use mqtt_store::StorageHandle;
use std::collections::HashMap;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::task::Waker;
use std::time::Duration;

/// How often one flush goes through the links that became dirty again while it wrote.
const FLUSH_ROUNDS: usize = 4;
/// So many bytes that were read, or came from other shards, and not followed by a flush are followed by one at once, so that what they
/// caused neither grows nor leaves the cache while other links are read.
const COLLECT_BYTES: usize = 64 << 10;
/// How often the machine is told the wall clock, if anything happens.
const WALL_CLOCK_EVERY: Duration = Duration::from_secs(10);

/// Why there is no shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ShardError {
    /// A setting cannot be.
    Config(ConfigError),
    /// [`BrokerConfig::durability`] promises what only a store can keep, and there is none.
    NoStore,
}

/// One machine with its links. `W` is the adapter's handle of a socket.
pub struct Shard<W> {
    broker: Machine,
    links: Links<W>,
    /// Links with bytes to send or a hang-up to finish, each at most once or twice.
    dirty: Vec<ConnectionId>,
    /// The other half of `dirty`, kept for its memory.
    spare: Vec<ConnectionId>,
    effects: Vec<Effect<W>>,
    sinks: HashMap<LocalId, Sink>,
    /// Bytes that were read or came from other shards since the last flush.
    collected: usize,
    /// The connection that is being closed and its address, for events that still name it.
    leaving: Option<(ConnectionId, Option<SocketAddr>)>,
    transports: TransportStats,
    wall_clock_at: Timestamp,
    /// Something has happened since.
    stirred: bool,
    shut_down: bool,
    storage: Option<StorageHandle>,
    number: usize,
    /// Groups were handed to the storage thread that it was not woken for.
    unsaved: bool,
    /// What other shards are to hear, by their numbers.
    letters: Vec<Vec<ShardMessage>>,
    has_letters: bool,
    /// Subscriptions of the program itself that not all shards know of yet.
    subscribing: HashMap<LocalId, Reply<Result<LocalId, EncodeError>>>,
}

impl<W: Wire> Shard<W> {
    /// A shard without links, which stores nothing.
    ///
    /// # Errors
    /// If the settings contradict each other or ask for a store.
    pub fn new(config: BrokerConfig, now: Timestamp) -> Result<Self, ShardError> {
        if config.durability != Durability::Off {
            return Err(ShardError::NoStore);
        }
        let broker = Broker::new(config, now).map_err(ShardError::Config)?;
        Ok(Self::around(broker, now, None, None))
    }

    /// A shard without links around a machine that was restored at `now`. `storage` gets its groups; have its reports brought by [`Command::Stored`] and
    /// [`Command::StoreFailed`], and its recovery by [`Command::Stored`] with 0.
    pub fn restored(broker: Broker, now: Timestamp, storage: StorageHandle) -> Self {
        Self::recorded(broker, now, Some(storage), None)
    }

    /// A shard without links around a new or restored machine, of which a trace may be written.
    pub fn recorded(
        broker: Broker,
        now: Timestamp,
        storage: Option<StorageHandle>,
        trace: Option<Recorder>,
    ) -> Self {
        let mut shard = Self::around(broker, now, storage, trace);
        shard.obey(now);
        shard
    }

    fn around(
        broker: Broker,
        now: Timestamp,
        storage: Option<StorageHandle>,
        trace: Option<Recorder>,
    ) -> Self {
        let shards = usize::from(broker.config().shards);
        Self {
            number: usize::from(broker.config().shard.0),
            letters: (0..shards).map(|_| Vec::new()).collect(),
            has_letters: false,
            subscribing: HashMap::new(),
            broker: Machine::new(broker, trace),
            links: Links::new(),
            dirty: Vec::new(),
            spare: Vec::new(),
            effects: Vec::new(),
            sinks: HashMap::new(),
            collected: 0,
            leaving: None,
            transports: TransportStats::default(),
            wall_clock_at: now,
            stirred: false,
            shut_down: false,
            storage,
            unsaved: false,
        }
    }

    /// Somebody connected. `wire` makes the handle of the socket from the connection's number. What
    /// `stack` learns of the peer is put into `peer` before anybody is told of it.
    pub fn accept(
        &mut self,
        now: Timestamp,
        peer: Peer,
        stack: Stack,
        wire: impl FnOnce(ConnectionId) -> W,
    ) -> ConnectionId {
        let conn = self.broker.handle_accept(now);
        let (address, is_plain) = (peer.address, stack.is_plain());
        let (known, unknown) = if is_plain { (Some(peer), None) } else { (None, Some(Box::new(peer))) };
        let wire = wire(conn);
        self.links.insert(Link {
            conn,
            wire,
            stack,
            address,
            peer: unknown,
            state: State::Open,
            paused: None,
        });
        if let Some(peer) = known {
            self.broker.handle_identified(now, conn, peer);
        }
        self.obey(now);
        conn
    }

    /// The socket gave `bytes`; all of them are taken. `waker` wakes who reads, should the answer be
    /// [`Reading::Paused`].
    #[inline]
    pub fn read(&mut self, now: Timestamp, conn: ConnectionId, bytes: &[u8], waker: &Waker) -> Reading {
        let Some(link) = self.links.get_mut(conn) else { return Reading::Gone };
        if !matches!(link.state, State::Closing | State::ClosingBlocked) {
            let mut status = ReadStatus::Ready;
            let mut incoming = link.stack.handle_wire(bytes);
            while let Some(received) = incoming.next() {
                match received {
                    Received::Bytes(piece) => status = self.broker.handle_read(now, conn, piece),
                    Received::Open(opened) => {
                        let mut peer = link.peer.take().map(|peer| *peer).unwrap_or_default();
                        peer.address = opened.proxied.or(peer.address);
                        peer.tls_identity = opened.tls.as_ref().and_then(|tls| tls.subject.clone());
                        link.address = peer.address;
                        self.broker.handle_identified(now, conn, peer);
                        self.transports.opened += 1;
                        self.effects.push(Effect::Transport(TransportEvent::Opened(opened), link.address));
                    }
                }
            }
            if status == ReadStatus::Paused {
                link.paused = Some(waker.clone());
            }
            if let Some(layers) = link.stack.layers_mut() {
                if let Some(error) = layers.take_failure() {
                    self.transports.failed(&error);
                    self.effects.push(Effect::Transport(TransportEvent::Failed(error), link.address));
                    self.close(now, conn, Closed::Error, false);
                } else if layers.has_ended() {
                    self.close(now, conn, Closed::Eof, false);
                } else if !layers.wire_out().is_empty() && link.state == State::Open {
                    self.dirty.push(conn);
                }
            }
            self.collected += bytes.len();
            self.obey(now);
            if self.collected >= COLLECT_BYTES {
                self.flush(now);
            }
        }
        self.reading(conn)
    }

    /// Whether the link may be read. Ask after the waker of a paused one woke.
    pub fn reading(&mut self, conn: ConnectionId) -> Reading {
        match self.links.get_mut(conn) {
            None => Reading::Gone,
            Some(link) if link.paused.is_some() => Reading::Paused,
            Some(_) => Reading::Go,
        }
    }

    /// Who is woken when a paused link may be read again, in place of the waker that [`Shard::read`] was given: for those
    /// to whom a waker costs something.
    pub fn resume_by(&mut self, conn: ConnectionId, waker: Waker) {
        if let Some(paused) = self.links.get_mut(conn).and_then(|link| link.paused.as_mut()) {
            *paused = waker;
        }
    }

    /// Whether the link waits for [`Shard::writable`].
    pub fn is_blocked(&mut self, conn: ConnectionId) -> bool {
        let link = self.links.get_mut(conn);
        link.is_some_and(|link| matches!(link.state, State::Blocked | State::ClosingBlocked))
    }

    /// The socket ended or failed. Once per link; calls for a link that is gone do nothing.
    pub fn closed(&mut self, now: Timestamp, conn: ConnectionId, why: Closed) {
        self.close(now, conn, why, false);
        self.obey(now);
    }

    /// The socket takes bytes again.
    pub fn writable(&mut self, now: Timestamp, conn: ConnectionId) {
        let Some(link) = self.links.get_mut(conn) else { return };
        link.state = match link.state {
            State::Blocked => State::Open,
            State::ClosingBlocked => State::Closing,
            other => other,
        };
        self.flush_link(now, conn);
        self.obey(now);
    }

    /// Somebody wants something. The reply comes after everything that the command caused.
    pub fn command(&mut self, now: Timestamp, command: Command) {
        let reply: Box<dyn FnOnce() + Send> = match command {
            Command::Publish(message, reply) => {
                let result = self.broker.publish(now, message);
                Box::new(move || reply(result))
            }
            Command::Subscribe { filter, options, sink, reply } => {
                let result = self.broker.subscribe(now, &filter, options);
                if let Ok(id) = result {
                    self.sinks.insert(id, sink);
                    if self.letters.len() > 1 {
                        self.subscribing.insert(id, reply);
                        return self.obey(now);
                    }
                }
                Box::new(move || reply(result))
            }
            Command::Disconnect(client_id, reason, reply) => {
                let found = self.broker.disconnect(now, &client_id, reason);
                Box::new(move || reply(found))
            }
            Command::RemoveSession(client_id, reply) => {
                let found = self.broker.remove_session(now, &client_id);
                Box::new(move || reply(found))
            }
            Command::RemoveRetained(topic, reply) => {
                let found = self.broker.remove_retained(now, &topic);
                Box::new(move || reply(found))
            }
            Command::Look(look) => {
                let links = &self.links;
                let addresses = |conn| links.get(conn).and_then(|link| link.address);
                look(&View { broker: self.broker.look(), now, addresses: &addresses });
                return;
            }
            Command::Memory(bytes) => {
                self.broker.handle_memory(now, bytes);
                return self.obey(now);
            }
            Command::Transports(reply) => {
                let stats = self.transports;
                Box::new(move || reply(stats))
            }
            Command::SetAcls(acls, reply) => {
                self.broker.set_acls(now, acls);
                Box::new(move || reply(()))
            }
            Command::DisconnectUsers(users, reason, reply) => {
                let closed =
                    users.iter().map(|user| self.broker.disconnect_user(now, user.as_deref(), reason)).sum();
                Box::new(move || reply(closed))
            }
            Command::Stats(reply) => {
                let stats = self.stats();
                Box::new(move || reply(stats))
            }
            Command::Unsubscribe(id) => {
                if self.sinks.remove(&id).is_some() {
                    self.broker.unsubscribe(now, id);
                }
                return self.obey(now);
            }
            Command::Answer(id, answer) => {
                self.broker.handle_answer(now, id, answer);
                return self.obey(now);
            }
            Command::Stored(through) => {
                self.broker.handle_stored(now, through);
                return self.obey(now);
            }
            Command::StoreFailed(from) => {
                self.broker.handle_store_failed(now, from);
                return self.obey(now);
            }
            Command::Shutdown => {
                self.shut_down = true;
                self.broker.shutdown(now);
                return self.obey(now);
            }
            Command::ShardLost(lost) => {
                self.broker.handle_shard_lost(now, lost);
                return self.obey(now);
            }
            Command::Panic => panic!("a test asked for this panic"),
        };
        self.obey(now);
        // Other shards hear of it before anybody can ask them about it.
        self.post();
        self.effects.push(Effect::Call(reply));
    }

    /// The deadline came.
    pub fn tick(&mut self, now: Timestamp) {
        let is_clock_due = now.since(self.wall_clock_at) >= WALL_CLOCK_EVERY;
        if is_clock_due {
            self.wall_clock_at = now;
            self.broker.handle_wall_clock(now, Clock::unix_ms());
        }
        self.broker.handle_timeout(now);
        self.obey(now);
        self.stirred &= !is_clock_due;
    }

    /// Writes what every dirty link has to send, as far as the sockets take it now.
    pub fn flush(&mut self, now: Timestamp) {
        self.collected = 0;
        self.save();
        for _ in 0..FLUSH_ROUNDS {
            if self.dirty.is_empty() {
                break;
            }
            let mut round = std::mem::replace(&mut self.dirty, std::mem::take(&mut self.spare));
            for conn in round.drain(..) {
                self.flush_link(now, conn);
            }
            self.spare = round;
            self.obey(now);
        }
        self.save();
        self.post();
        self.broker.settled();
    }

    /// Has the storage thread write what it was handed.
    fn save(&mut self) {
        if std::mem::take(&mut self.unsaved)
            && let Some(storage) = &self.storage
        {
            storage.flush();
        }
    }

    /// Whether [`Shard::flush`] has something to do.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty() || self.unsaved || self.has_letters
    }

    /// When [`Shard::tick`] is to be called.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        let clock = self.stirred.then(|| self.wall_clock_at + WALL_CLOCK_EVERY);
        [self.broker.poll_timeout(), clock].into_iter().flatten().min()
    }

    /// Takes what is to be done with the shard released. `into` must be empty; its memory is kept
    /// for the next effects.
    pub fn take_effects(&mut self, into: &mut Vec<Effect<W>>) {
        std::mem::swap(&mut self.effects, into);
    }

    /// Whether there is something to take.
    #[must_use]
    pub fn has_effects(&self) -> bool {
        !self.effects.is_empty()
    }

    /// Whether the shard was shut down and every link is closed.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.shut_down && self.links.len() == 0 && self.broker.has_left() && !self.has_letters
    }

    /// The figures.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.broker.stats()
    }

    /// The handle of a link's socket.
    pub fn wire(&mut self, conn: ConnectionId) -> Option<&mut W> {
        self.links.get_mut(conn).map(|link| &mut link.wire)
    }

    /// What another shard says, in its order.
    pub fn letters(&mut self, now: Timestamp, from: ShardId, letters: Vec<ShardMessage>) {
        for letter in letters {
            self.collected += letter.size();
            self.broker.handle_shard(now, from, letter);
            self.obey(now);
            if self.collected >= COLLECT_BYTES {
                self.flush(now);
            }
        }
    }

    /// A link arrives from the shard that accepted it.
    pub fn arrive(
        &mut self,
        now: Timestamp,
        link: Travelling,
        wire: impl FnOnce(ConnectionId) -> W,
    ) -> ConnectionId {
        let Travelling { moved, stack, address } = link;
        let conn = self.broker.handle_moved(now, moved);
        let wire = wire(conn);
        self.links.insert(Link { conn, wire, stack, address, peer: None, state: State::Open, paused: None });
        // What its layers may have to say.
        self.dirty.push(conn);
        self.obey(now);
        conn
    }

    fn rehome(&mut self, now: Timestamp, conn: ConnectionId, to: ShardId) {
        let Some(moved) = self.broker.take_moving(now, conn) else { return };
        let Some(link) = self.links.remove(conn) else { return };
        if let Some(reader) = link.paused {
            reader.wake();
        }
        let travelling = Travelling { moved, stack: link.stack, address: link.address };
        self.effects.push(Effect::Move { to, link: Box::new(travelling), wire: link.wire });
    }

    /// Has the letters carried away.
    fn post(&mut self) {
        if !std::mem::take(&mut self.has_letters) {
            return;
        }
        for (to, letters) in (0..).map(ShardId).zip(&mut self.letters) {
            if !letters.is_empty() {
                self.effects.push(Effect::Letters(to, std::mem::take(letters)));
            }
        }
    }

    /// Does what the machine says.
    fn obey(&mut self, now: Timestamp) {
        self.stirred = true;
        while let Some(output) = self.broker.poll_output() {
            match output {
                Output::Flush(conn) => self.dirty.push(conn),
                Output::Resume(conn) => self.resume(now, conn),
                Output::Hangup { conn, after_flush } => self.hang_up(now, conn, after_flush),
                Output::Ask(ask) => self.effects.push(Effect::Ask(ask)),
                Output::Event(event) => self.event(*event),
                Output::Store(seq, group) => {
                    if let Some(storage) = &self.storage {
                        storage.store(self.number, seq, group);
                        self.unsaved = true;
                    }
                }
                Output::Shard { to, message } => {
                    if let Some(letters) = self.letters.get_mut(usize::from(to.0)) {
                        let message = match letters.last_mut() {
                            Some(last) => last.join(*message),
                            None => Some(*message),
                        };
                        letters.extend(message);
                        self.has_letters = true;
                    }
                }
                Output::Rehome { conn, to } => self.rehome(now, conn, to),
            }
        }
    }

    fn resume(&mut self, now: Timestamp, conn: ConnectionId) {
        let Some(link) = self.links.get_mut(conn) else { return };
        if self.broker.handle_read(now, conn, &[]) == ReadStatus::Ready
            && let Some(reader) = link.paused.take()
        {
            reader.wake();
        }
    }

    fn hang_up(&mut self, now: Timestamp, conn: ConnectionId, after_flush: bool) {
        let Some(link) = self.links.get_mut(conn) else { return };
        link.state = match (after_flush, link.state) {
            (true, State::Open | State::Closing) => State::Closing,
            (true, State::Blocked | State::ClosingBlocked) => State::ClosingBlocked,
            (false, _) | (true, State::Broken) => return self.close(now, conn, Closed::Hangup, false),
        };
        // What the peer says from now on is thrown away, so it need not wait.
        if let Some(reader) = link.paused.take() {
            reader.wake();
        }
        self.dirty.push(conn);
    }

    /// Takes the link out: this is what makes sure that the machine hears of its end once.
    fn close(&mut self, now: Timestamp, conn: ConnectionId, why: Closed, linger: bool) {
        let Some(mut link) = self.links.remove(conn) else { return };
        let mut linger = linger;
        if let Some(layers) = link.stack.layers_mut() {
            // The goodbyes of the layers, if the socket takes them now.
            layers.close();
            let is_writable = matches!(link.state, State::Open | State::Closing);
            if is_writable && !layers.wire_out().is_empty() {
                linger |= link.wire.write(&[IoSlice::new(layers.wire_out())]).is_ok();
            }
        }
        self.leaving = Some((conn, link.address));
        self.broker.handle_close(now, conn, why);
        if let Some(reader) = link.paused {
            reader.wake();
        }
        self.effects.push(Effect::Close { wire: link.wire, linger });
    }

    fn event(&mut self, event: Event) {
        if let Event::Message { subscriber: id, message } = event {
            if let Some(sink) = self.sinks.get(&id) {
                self.effects.push(Effect::Deliver { id, sink: Sink::clone(sink), message });
            }
            return;
        }
        if let Event::InForce { subscriber: id } = event {
            if let Some(reply) = self.subscribing.remove(&id) {
                self.effects.push(Effect::Call(Box::new(move || reply(Ok(id)))));
            }
            return;
        }
        let address = match &event {
            Event::Connected { conn, .. }
            | Event::Refused { conn, .. }
            | Event::Malformed { conn, .. }
            | Event::Disconnected { conn, .. } => self.address(*conn),
            _ => None,
        };
        self.effects.push(Effect::Event(Box::new(event), address));
    }

    fn address(&mut self, conn: ConnectionId) -> Option<SocketAddr> {
        match self.links.get_mut(conn) {
            Some(link) => link.address,
            None => self.leaving.filter(|(left, _)| *left == conn)?.1,
        }
    }

    fn flush_link(&mut self, now: Timestamp, conn: ConnectionId) {
        let Some(link) = self.links.get_mut(conn) else { return };
        // A farewell is protected if there is one.
        let mut linger = false;
        loop {
            let closing = match link.state {
                State::Open => false,
                State::Closing => true,
                State::Blocked | State::ClosingBlocked | State::Broken => return,
            };
            link.state = match write(&mut self.broker, link, now) {
                // The machine says so if there is more.
                Written::All if !closing => return,
                Written::All | Written::Part => {
                    linger = true;
                    continue;
                }
                Written::Nothing if !closing => return,
                // Behind the last byte of MQTT come the goodbyes of the layers.
                Written::Nothing if link.stack.layers_mut().is_some_and(says_goodbye) => continue,
                Written::Nothing => return self.close(now, conn, Closed::Hangup, linger),
                Written::Blocked if closing => State::ClosingBlocked,
                Written::Blocked => State::Blocked,
                Written::Failed if closing => return self.close(now, conn, Closed::Hangup, false),
                // The reader closes the link when it has read what the peer sent before the end: a
                // DISCONNECT may be among it. The machine's write timeout ends what never ends.
                Written::Failed => State::Broken,
            };
            if link.state != State::Broken {
                self.effects.push(Effect::AwaitWritable(conn));
            }
        }
    }
}

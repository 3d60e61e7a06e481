//! A small world, looked at exhaustively: one publisher, the broker, one subscriber and two messages, with
//! links that may drop and a broker that may crash between any two steps, and a store that commits late.
//!
//! States are found breadth first. A machine is a function of its inputs, so a state is the list of steps
//! that leads to it, and two states are the same if everything in them prints the same.

use mqtt_proto::{
    Frame, MAX_PACKET_SIZE, PacketRef, PropertiesBuf, QoS, SubscriptionOptions, Version, frame_header,
};
use mqtt_session::broker::{self, BrokerConfig, Closed, ConnectionId, Outbox, Peer};
use mqtt_session::client::{CleanStart, ClientConfig, Event, LinkDown, Outcome, Output};
use mqtt_session::store::{Contents, StoredClock};
use mqtt_session::{Broker, Client, Durability, Message, StoreGroup, StoreOp, StoreSeq, Timestamp};
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

const PUBLISHER: usize = 0;
const SUBSCRIBER: usize = 1;

/// What is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// QoS of the messages.
    pub qos: QoS,
    /// Messages, of which each takes an identifier.
    pub messages: u8,
    /// The Receive Maximum of subscriber and broker.
    pub window: u16,
    /// How often a link may drop.
    pub drops: u8,
    /// How often the broker may crash.
    pub crashes: u8,
}

/// What was seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// Different states.
    pub states: usize,
    /// Steps to the farthest of them.
    pub depth: usize,
    /// States in which nothing is left to be done.
    pub ends: usize,
}

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    /// The next packet of a client arrives at the broker.
    Up(usize),
    /// The next packet of the broker arrives at a client.
    Down(usize),
    /// The next group is on the disk.
    Stored,
    /// A link drops, with all that is on it; the client comes back.
    Drop(usize),
    /// The broker crashes and starts from what is on the disk.
    Crash,
}

#[derive(Debug)]
struct Link {
    conn: ConnectionId,
    up: VecDeque<Vec<u8>>,
    down: VecDeque<Vec<u8>>,
}

#[derive(Debug)]
struct World {
    bounds: Bounds,
    now: Timestamp,
    broker: Broker,
    clients: [Client; 2],
    links: [Option<Link>; 2],
    pending: VecDeque<(StoreSeq, StoreGroup)>,
    contents: Contents,
    got: Vec<u8>,
    acknowledged: usize,
    /// Identifiers that the broker has bound, with their messages.
    bound: BTreeMap<u16, u8>,
    wrong: Option<String>,
}

fn client(id: &str, now: Timestamp, window: u16) -> Client {
    let mut config = ClientConfig::new(id);
    config.version = Version::V5;
    config.clean_start = CleanStart::FirstOnly;
    config.session_expiry_secs = 1_000_000;
    config.keep_alive_secs = 0;
    config.receive_maximum = window;
    config.max_unacknowledged = config.max_unacknowledged.max(usize::from(window));
    Client::new(config, now).expect("these settings can be")
}

fn frames(mut bytes: &[u8], into: &mut VecDeque<Vec<u8>>) {
    while let Ok(Frame::Header { total, .. }) = frame_header(bytes, MAX_PACKET_SIZE) {
        let (frame, rest) = bytes.split_at(total);
        into.push_back(frame.to_vec());
        bytes = rest;
    }
}

impl World {
    fn new(bounds: Bounds) -> Self {
        let now = Timestamp::from_micros(1_000_000);
        let mut config = BrokerConfig::default();
        config.durability = Durability::Synced;
        config.receive_maximum = bounds.window;
        let mut world = Self {
            bounds,
            now,
            broker: Broker::new(config, now).expect("these settings can be"),
            clients: [client("p", now, bounds.window), client("s", now, bounds.window)],
            links: [None, None],
            pending: VecDeque::new(),
            contents: Contents::default(),
            got: Vec::new(),
            acknowledged: 0,
            bound: BTreeMap::new(),
            wrong: None,
        };
        world.clients.iter_mut().for_each(|client| client.connect(now));
        let filter = [("t", SubscriptionOptions::from(QoS::ExactlyOnce))];
        world.clients[SUBSCRIBER].subscribe(now, &filter, &PropertiesBuf::new()).expect("a filter");
        world.settle();
        while let Some(step) = world.steps(0, 0).first().copied() {
            world.take(step);
        }
        for n in 0..bounds.messages {
            let message = Message::new("t", vec![n]).with_qos(bounds.qos);
            world.clients[PUBLISHER].publish(now, message).expect("there is room");
        }
        world.settle();
        world
    }

    /// What may happen next.
    fn steps(&self, drops: u8, crashes: u8) -> Vec<Step> {
        let mut steps = Vec::new();
        for (number, link) in self.links.iter().enumerate() {
            let Some(link) = link else { continue };
            steps.extend((!link.up.is_empty()).then_some(Step::Up(number)));
            steps.extend((!link.down.is_empty()).then_some(Step::Down(number)));
            steps.extend((drops > 0).then_some(Step::Drop(number)));
        }
        steps.extend((!self.pending.is_empty()).then_some(Step::Stored));
        steps.extend((crashes > 0).then_some(Step::Crash));
        steps
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Up(number) => {
                let Some(link) = &mut self.links[number] else { return };
                let Some(frame) = link.up.pop_front() else { return };
                let conn = link.conn;
                if number == SUBSCRIBER {
                    self.finished(&frame);
                }
                let _ = self.broker.handle_read(self.now, conn, &frame);
            }
            Step::Down(number) => {
                let Some(link) = &mut self.links[number] else { return };
                let Some(frame) = link.down.pop_front() else { return };
                self.clients[number].handle_read(self.now, &frame);
            }
            Step::Stored => {
                let Some((seq, group)) = self.pending.pop_front() else { return };
                self.contents.apply(&group);
                self.broker.handle_stored(self.now, seq);
            }
            Step::Drop(number) => {
                if let Some(link) = self.links[number].take() {
                    self.broker.handle_close(self.now, link.conn, Closed::Error);
                    self.come_back(number);
                }
            }
            Step::Crash => {
                let unix_ms = self.now.as_micros() / 1_000;
                let clock = StoreOp::PutClock(StoredClock { time: self.now, unix_ms });
                self.contents.apply(&StoreGroup { ops: [clock].into() });
                let config = self.broker.config().clone();
                let restored = Broker::restore(config, unix_ms, self.contents.records());
                let (broker, restored) = restored.expect("these settings could be");
                (self.broker, self.now) = (broker, restored.now.max(self.now));
                self.pending.clear();
                // What was bound and not stored is free again.
                let kept = self.contents.records().filter_map(|record| match record {
                    StoreOp::PutExchange { packet_id, .. } => Some(packet_id.get()),
                    _ => None,
                });
                let kept: Vec<u16> = kept.collect();
                self.bound.retain(|id, _| kept.contains(id));
                for number in 0..2 {
                    if self.links[number].take().is_some() {
                        self.come_back(number);
                    }
                }
            }
        }
        self.settle();
    }

    /// A client that lost its link waits and dials.
    fn come_back(&mut self, number: usize) {
        self.clients[number].handle_link_down(self.now, LinkDown::Failed);
        self.settle();
        while self.links[number].is_none() {
            let Some(due) = self.clients[number].poll_timeout() else { return };
            self.now = self.now.max(due);
            self.clients[number].handle_timeout(self.now);
            self.broker.handle_timeout(self.now);
            self.settle();
        }
    }

    /// Obeys all machines until they want nothing.
    fn settle(&mut self) {
        let mut busy = true;
        while busy {
            busy = false;
            for number in 0..2 {
                while let Some(output) = self.clients[number].poll_output() {
                    busy = true;
                    self.obey(number, output);
                }
            }
            while let Some(output) = self.broker.poll_output() {
                busy = true;
                match output {
                    broker::Output::Flush(conn) => self.drain(conn),
                    broker::Output::Resume(conn) => {
                        let _ = self.broker.handle_read(self.now, conn, &[]);
                    }
                    broker::Output::Store(seq, group) => self.pending.push_back((seq, group)),
                    broker::Output::Hangup { .. } => self.wrong = Some("the broker hung up".into()),
                    _ => {}
                }
            }
        }
    }

    fn obey(&mut self, number: usize, output: Output) {
        let now = self.now;
        match output {
            Output::Dial { .. } => {
                let conn = self.broker.handle_accept(now);
                self.broker.handle_identified(now, conn, Peer::default());
                self.links[number] = Some(Link { conn, up: VecDeque::new(), down: VecDeque::new() });
                self.clients[number].handle_link_up(now);
            }
            Output::Flush => {
                let mut outbox = self.clients[number].outbox(now, 1 << 16);
                let mut slices = [&[][..]; 64];
                let used = outbox.fill_slices(&mut slices);
                let bytes = slices[..used].concat();
                outbox.consume(bytes.len());
                if let Some(link) = &mut self.links[number] {
                    frames(&bytes, &mut link.up);
                }
            }
            Output::HangUp => self.wrong = Some(format!("client {number} hung up")),
            Output::Event(Event::Message(received)) => {
                self.got.extend(received.message.payload.first().copied());
            }
            Output::Event(Event::Done { outcome, .. }) => match outcome {
                Outcome::Acked { reason, .. } if !reason.is_error() => self.acknowledged += 1,
                Outcome::Granted(_) => {}
                other => self.wrong = Some(format!("a message ended as {other:?}")),
            },
            _ => {}
        }
    }

    fn drain(&mut self, conn: ConnectionId) {
        let outbox = self.broker.outbox(self.now, conn, 1 << 16);
        let mut slices = [&[][..]; Outbox::MOST_SLICES];
        let used = outbox.fill_slices(&mut slices);
        let bytes = slices[..used].concat();
        outbox.consume(bytes.len());
        let mut new = VecDeque::new();
        frames(&bytes, &mut new);
        for number in 0..2 {
            if self.links[number].as_ref().is_none_or(|link| link.conn != conn) {
                continue;
            }
            if number == SUBSCRIBER {
                new.iter().for_each(|frame| self.bind(frame));
            }
            if let Some(link) = &mut self.links[number] {
                link.down.append(&mut new);
            }
        }
    }

    /// A packet for the subscriber: no identifier may stand for two messages, nor too many at once.
    fn bind(&mut self, frame: &[u8]) {
        let Ok(PacketRef::Publish(publish)) = PacketRef::decode(frame, Version::V5) else { return };
        let (Some(id), Some(&message)) = (publish.packet_id, publish.payload.first()) else { return };
        let known = self.bound.insert(id.get(), message);
        if known.is_some_and(|known| known != message) {
            self.wrong = Some(format!("identifier {id} is bound to {known:?} and {message}"));
        }
        if self.bound.len() > usize::from(self.bounds.window) {
            self.wrong =
                Some(format!("{} messages under way, {} may be", self.bound.len(), self.bounds.window));
        }
    }

    /// The subscriber ended an exchange.
    fn finished(&mut self, frame: &[u8]) {
        if let Ok(PacketRef::Puback(ack) | PacketRef::Pubcomp(ack)) = PacketRef::decode(frame, Version::V5) {
            self.bound.remove(&ack.packet_id.get());
        }
    }

    /// What must hold in every state, and in one in which nothing is left to be done.
    fn check(&self, is_end: bool) -> Result<(), String> {
        if let Some(wrong) = &self.wrong {
            return Err(wrong.clone());
        }
        let wanted: Vec<u8> = (0..self.bounds.messages).collect();
        match self.bounds.qos {
            QoS::ExactlyOnce => {
                if !wanted.starts_with(&self.got) {
                    return Err(format!("at QoS 2 the subscriber got {:?}", self.got));
                }
                if is_end && self.got != wanted {
                    return Err(format!("at QoS 2 the subscriber got only {:?}", self.got));
                }
            }
            _ => {
                if is_end && wanted.iter().any(|n| !self.got.contains(n)) {
                    return Err(format!("at QoS 1 the subscriber got only {:?}", self.got));
                }
            }
        }
        if is_end && self.acknowledged != wanted.len() {
            return Err(format!("{} of {} were acknowledged", self.acknowledged, wanted.len()));
        }
        Ok(())
    }

    fn digest(&self, drops: u8, crashes: u8) -> u64 {
        let mut hasher = DefaultHasher::new();
        (format!("{self:?}"), drops, crashes).hash(&mut hasher);
        hasher.finish()
    }
}

fn replay(bounds: Bounds, path: &[Step]) -> (World, u8, u8) {
    let mut world = World::new(bounds);
    let (mut drops, mut crashes) = (bounds.drops, bounds.crashes);
    for step in path {
        match step {
            Step::Drop(_) => drops -= 1,
            Step::Crash => crashes -= 1,
            _ => {}
        }
        world.take(*step);
    }
    (world, drops, crashes)
}

/// Looks at every state within `bounds`.
///
/// # Errors
/// The steps to a state in which a rule is broken, and which.
pub fn explore(bounds: Bounds) -> Result<Seen, String> {
    let mut seen = Seen::default();
    let mut known = HashSet::new();
    let mut open: VecDeque<Vec<Step>> = VecDeque::from([Vec::new()]);
    while let Some(path) = open.pop_front() {
        let (world, drops, crashes) = replay(bounds, &path);
        if !known.insert(world.digest(drops, crashes)) {
            continue;
        }
        seen.states += 1;
        seen.depth = path.len();
        let is_end = world.steps(0, 0).is_empty();
        seen.ends += usize::from(is_end);
        world.check(is_end).map_err(|what| format!("{what}\nafter {path:?}"))?;
        for step in world.steps(drops, crashes) {
            let mut next = path.clone();
            next.push(step);
            open.push_back(next);
        }
    }
    Ok(seen)
}

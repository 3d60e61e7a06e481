//! The world: nodes, links, store and broker on one clock, and what happens next.

mod broker;
mod crash;
mod nodes;

use crate::checks::End;
use crate::network::{Link, Pipe};
use crate::node::Node;
use crate::options::{Kind, Options, SHARED};
use crate::oracle::Oracle;
use crate::random::Random;
use crate::store::Store;
use crate::trace::{Hash, Trace};
use crate::wire::{Seen, Tap};
use mqtt_proto::{QoS, SubscriptionOptions};
use mqtt_session::broker::{Ask, ConnectionId, Moved, Restore, Stats};
use mqtt_session::{Broker, Durability, ShardId, ShardMessage, StoreSeq, Timestamp};
use std::collections::{BTreeMap, VecDeque};

/// What will happen.
#[derive(Debug)]
enum Event {
    /// A node does something.
    Act(usize),
    /// A piece may have arrived.
    Arrive { link: usize, up: bool },
    /// A connection is open, or could not be opened.
    Dialled { node: usize, dial: u64, opened: bool },
    /// One end learns that a link is broken.
    Broken { link: usize, at_node: bool },
    /// An answer is ready, for the broker of that life.
    Answer { life: u32, shard: usize, ask: Box<Ask> },
    /// What one shard said reaches another.
    Mail { life: u32, from: usize, to: usize },
    /// The broker's store is done with a group.
    Stored { life: u32, seq: StoreSeq },
    /// A node's store is.
    NodeStored { node: usize, life: u32, seq: StoreSeq },
    /// The broker starts again.
    Restart,
    /// Somebody looks at the clock on the wall.
    WallClock,
}

/// What the world's own subscriber subscribes to, and nobody else does: the other shards do not hear of it.
const WATCHED: &str = "+/#";

/// What goes from shard to shard.
#[derive(Debug)]
enum Letter {
    Said(ShardMessage),
    Moved(Moved, usize),
}

/// A link and those who listen to it.
struct Wire {
    link: Link,
    /// What the node sent, the broker got, the broker sent, the node got.
    taps: [Tap; 4],
    /// How much of each outbox was listened to and not taken.
    heard_node: usize,
    heard_broker: usize,
    /// Whose session it has at the broker.
    client: Option<String>,
    connect: Option<Seen>,
    present: bool,
    /// The broker works on what it gets.
    live: bool,
    /// CONNACK was sent.
    greeted: bool,
    /// Nothing may follow.
    farewell: bool,
    /// The broker has to say why it ends the link.
    owes_farewell: bool,
    /// What came before the session was known.
    early: Vec<Seen>,
    requests: BTreeMap<u16, Seen>,
    inbound: BTreeMap<u16, Seen>,
}

/// A whole simulated world.
pub struct Sim {
    /// What was drawn.
    pub options: Options,
    /// The time in microseconds.
    pub now: u64,
    /// What is checked.
    pub oracle: Oracle,
    /// What happened.
    pub trace: Trace,
    /// What all machines gave.
    pub hash: Hash,
    /// The first thing that was wrong.
    pub failure: Option<String>,
    random: Random,
    /// Its shards.
    brokers: Vec<Broker>,
    /// Messages that one has handed to another and that do not count as handled yet.
    handed: BTreeMap<(usize, usize), u64>,
    /// How many messages of a group its shard may hand to another.
    slots: BTreeMap<(usize, usize, String), u32>,
    /// What is on its way between them, by both.
    mail: BTreeMap<(usize, usize), VecDeque<Letter>>,
    store: Store,
    /// The number in the store of each group of each shard, and the other way round.
    numbers: BTreeMap<(usize, u64), u64>,
    places: BTreeMap<u64, (usize, u64)>,
    /// Up to which of its groups each shard knows them to be safe.
    through: Vec<u64>,
    nodes: Vec<Node>,
    wires: Vec<Wire>,
    by_conn: BTreeMap<(usize, ConnectionId), usize>,
    ends: BTreeMap<String, (End, usize)>,
    events: BTreeMap<(u64, u64), Event>,
    next_event: u64,
    calm: bool,
    idle_calls: u32,
    /// Counts lives of the broker.
    life: u32,
    down: bool,
    /// After so many outputs of the broker it crashes.
    crash_after: Option<u32>,
    /// How far the broker's time is ahead of the world's, in microseconds.
    ahead: i64,
    /// How far the clock on the wall has leapt, in milliseconds, and whether it did while down.
    leapt: i64,
    /// What earlier lives of the broker dropped.
    dropped_before: u64,
    /// Clients about whose sessions something changed that is not known to be in a group yet.
    changed: Vec<String>,
}

impl Sim {
    /// What a broker writes into a new store: over how many shards it is spread.
    fn note_shards(&mut self) {
        if self.options.broker.durability != Durability::Off {
            let restore =
                Restore::new(self.options.broker.clone()).expect("settings that were drawn are valid");
            restore.finish(self.unix_ms()).first.iter().for_each(|group| self.store.write_first(group));
        }
    }

    /// The world of a seed.
    ///
    /// # Panics
    /// If the settings that were drawn are refused.
    #[must_use]
    pub fn new(seed: u64, traced: bool, shards: Option<u16>) -> Self {
        let mut random = Random::new(seed);
        let options = Options::draw(&mut random, shards);
        let now = 10_000_000;
        let start = Timestamp::from_micros(now);
        let everything =
            SubscriptionOptions { retain_as_published: true, ..SubscriptionOptions::from(QoS::ExactlyOnce) };
        let brokers = (0..options.broker.shards).map(|shard| {
            let mut config = options.broker.clone();
            config.shard = ShardId(shard);
            let mut broker = Broker::new(config, start).expect("settings that were drawn are valid");
            broker.subscribe(start, WATCHED, everything).expect("a filter");
            broker
        });
        let brokers = brokers.collect();
        let nodes: Vec<Node> =
            (0..).zip(&options.nodes).map(|(n, node)| Node::new(n, node.clone(), start)).collect();
        let mut oracle = Oracle::default();
        oracle.wills_may_fail = options.broker.ask.will;
        // What a client's will waits for: its own earlier messages, which wait for the store.
        let stored = options.broker.durability != Durability::Off;
        oracle.tick = options.tick + if stored { 120_000_000 } else { 0 };
        oracle.max_expiry = options.broker.max_session_expiry;
        // Of two publishers, the one may be first where a message is retained, and the other be seen first: what waits for
        // a store, or is on its way to another shard, is seen late.
        let far = if options.broker.shards > 1 || options.reshards { 2 * options.mail.max(1_000) } else { 0 };
        oracle.overlap = far + if stored { 120_000_000 } else { 0 };
        // A round through all shards, their answers, and that these are stored at both ends. Clocks may be late.
        let failing = if options.store_failures > 0 { 120_000_000 } else { 4 * options.store_delay };
        oracle.answering = 3_000_000 + if far > 0 { 2 * far + failing } else { 0 };
        oracle.refusals = options.broker.ask.publish;
        for (n, node) in nodes.iter().enumerate() {
            if node.options.kind == Kind::Machine {
                oracle.add_client(node.name(), n, node.options.shares);
            }
        }
        let mut sim = Self {
            now,
            oracle,
            trace: Trace::new(traced),
            hash: Hash::default(),
            failure: None,
            random,
            brokers,
            handed: BTreeMap::new(),
            slots: BTreeMap::new(),
            mail: BTreeMap::new(),
            store: Store::default(),
            numbers: BTreeMap::new(),
            places: BTreeMap::new(),
            through: vec![0; usize::from(options.broker.shards)],
            wires: Vec::new(),
            by_conn: BTreeMap::new(),
            ends: BTreeMap::new(),
            events: BTreeMap::new(),
            next_event: 0,
            calm: false,
            idle_calls: 0,
            life: 0,
            down: false,
            crash_after: None,
            ahead: 0,
            leapt: 0,
            dropped_before: 0,
            changed: Vec::new(),
            options,
            nodes,
        };
        sim.note_shards();
        sim.look_at_clock();
        for node in 0..sim.nodes.len() {
            sim.later(1_000, Event::Act(node));
        }
        sim.settle();
        sim
    }

    fn time(&self) -> Timestamp {
        Timestamp::from_micros(self.now)
    }

    /// The broker's time.
    fn broker_time(&self) -> Timestamp {
        self.to_broker(self.now)
    }

    fn to_broker(&self, time: u64) -> Timestamp {
        Timestamp::from_micros(time.saturating_add_signed(self.ahead))
    }

    /// The time that an input of the broker is given.
    fn given_broker_time(&mut self) -> Timestamp {
        let given = self.given_time();
        self.to_broker(given.as_micros())
    }

    /// The time that an input is given: now and then an older one.
    fn given_time(&mut self) -> Timestamp {
        let back =
            if self.random.chance(self.options.stale_clocks) { self.random.range(0..2_000_000) } else { 0 };
        Timestamp::from_micros(self.now - back)
    }

    fn schedule(&mut self, at: u64, event: Event) {
        self.next_event += 1;
        self.events.insert((at.max(self.now), self.next_event), event);
    }

    /// Has somebody look when the next piece of a link arrives.
    fn arm(&mut self, link: usize, up: bool) {
        let ends = &mut self.wires[link].link;
        let pipe = if up { &mut ends.up } else { &mut ends.down };
        if let Some(at) = pipe.arm() {
            self.schedule(at, Event::Arrive { link, up });
        }
    }

    fn later(&mut self, most: u64, event: Event) {
        let at = self.now + self.random.range(1..most + 2);
        self.schedule(at, event);
    }

    fn fail(&mut self, what: String) {
        let now = self.now;
        self.trace.line(now, || format!("WRONG: {what}"));
        self.failure.get_or_insert(what);
    }

    fn check(&mut self, result: Result<(), String>) {
        if let Err(what) = result {
            self.fail(what);
        }
    }

    fn rounded(&self, due: Timestamp) -> u64 {
        due.as_micros().div_ceil(self.options.tick).saturating_mul(self.options.tick).max(self.now)
    }

    /// Lets the next thing happen. False if nothing ever will.
    pub fn step(&mut self) -> bool {
        let event_at = self.events.first_key_value().map(|((at, _), _)| *at);
        let due = self.brokers.iter().map(Broker::poll_timeout).zip(0..);
        let due = due.filter_map(|(due, shard)| Some((due?, shard))).min().filter(|_| !self.down);
        let shard = due.map_or(0, |(_, shard)| shard);
        let broker_at = due.map(|(due, _)| {
            self.rounded(Timestamp::from_micros(due.as_micros().saturating_add_signed(-self.ahead)))
        });
        let node_at = (0..)
            .zip(&self.nodes)
            .filter_map(|(n, node)| Some((self.rounded(node.client.as_ref()?.poll_timeout()?), n)))
            .min();
        let first = [event_at, broker_at, node_at.map(|(at, _)| at)].into_iter().flatten().min();
        let Some(at) = first else { return false };
        self.idle_calls = if at == self.now { self.idle_calls + 1 } else { 0 };
        if self.idle_calls > 100_000 {
            let who = if broker_at == Some(at) { "the broker".into() } else { format!("n{:?}", node_at) };
            self.fail(format!("time stands still: {who} asks again and again to be called now"));
        }
        self.now = at;
        self.draw_crash();
        if broker_at == Some(at) {
            self.broker_timeout(shard);
        } else if let Some((_, node)) = node_at.filter(|(node_at, _)| *node_at == at) {
            self.node_timeout(node);
        } else if let Some(((_, _), event)) = self.events.pop_first() {
            self.happen(event);
        }
        self.settle();
        self.check_step();
        true
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Act(node) => self.act(node),
            Event::Arrive { link, up: true } => self.arrive_at_broker(link),
            Event::Arrive { link, up: false } => self.arrive_at_node(link),
            Event::Dialled { node, dial, opened } => self.dialled(node, dial, opened),
            Event::Broken { link, at_node: true } => self.node_lost(link, true),
            Event::Broken { link, at_node: false } => self.broker_lost(link),
            Event::Answer { life, shard, ask } if life == self.life => self.answer(shard, &ask),
            Event::Mail { life, from, to } if life == self.life => self.mail_arrives(from, to),
            Event::Stored { life, seq } if life == self.life => self.stored(seq),
            Event::NodeStored { node, life, seq } if life == self.nodes[node].life => {
                self.node_stored(node, seq);
            }
            Event::Answer { .. } | Event::Mail { .. } | Event::Stored { .. } | Event::NodeStored { .. } => {}
            Event::Restart => self.restart_broker(),
            Event::WallClock => self.look_at_clock(),
        }
    }

    /// Has everybody obey and drains everything, until nobody wants anything.
    fn settle(&mut self) {
        for _ in 0..100_000 {
            let mut busy = self.obey_broker();
            for node in 0..self.nodes.len() {
                busy |= self.obey_node(node);
            }
            if !busy {
                return;
            }
        }
        self.fail("the outputs never end".into());
    }

    fn check_step(&mut self) {
        if self.down {
            return;
        }
        let result = self.oracle.check(self.broker_time().as_micros());
        self.check(result);
        self.check_idle_calls();
        // Wills are taken whatever the memory, and what is retained on another shard is handed over in pages.
        let wills = self.nodes.iter().any(|node| node.options.config.will.is_some());
        let paged = self.brokers.len() > 1 && self.options.retained > 0;
        let options = &self.options.broker;
        let (queue, window) = (options.max_queued_messages as usize, usize::from(options.max_inflight));
        let most_bytes = options.max_message_bytes.saturating_add(self.options.payload + 1_000);
        let stored = options.durability != Durability::Off;
        let retained = self.options.retained > 0;
        let mut wrong = None;
        for stats in self.brokers.iter().map(Broker::stats) {
            if !wills && !paged && stats.message_bytes > most_bytes {
                wrong = Some(format!("{} bytes of messages are held", stats.message_bytes));
            }
            // Neither retained messages nor what waits for the store: all that is held is in a queue or under way.
            let most = stats.sessions * (queue + window) + SHARED.len() * queue;
            if !retained && !wills && !stored && stats.messages > most {
                wrong = Some(format!("{} messages are held, and {most} may be", stats.messages));
            }
        }
        // What a group's member did not acknowledge comes back to its queue.
        if !stored && self.next_event.is_multiple_of(32) {
            let now = self.broker_time();
            let clients = self.brokers.iter().flat_map(|broker| broker.clients(now, 0, 1_000, false).items);
            for client in clients.filter(|client| client.queued > queue + window) {
                wrong = Some(format!("{} waiting messages of {}", client.queued, client.client_id));
            }
        }
        if let Some(what) = wrong {
            self.fail(what);
        }
    }

    /// To be called early, or again, or with an older time, changes nothing.
    fn check_idle_calls(&mut self) {
        let now = self.broker_time();
        for shard in 0..self.brokers.len() {
            let broker = &mut self.brokers[shard];
            if broker.poll_timeout().is_none_or(|due| due > now) {
                for earlier in [0, 0, 1_000_000] {
                    broker.handle_timeout(Timestamp::from_micros(now.as_micros().saturating_sub(earlier)));
                }
                if let Some(output) = broker.poll_output() {
                    self.fail(format!("a call of handle_timeout before its time gave {output:?}"));
                }
            }
        }
        let now = self.time();
        for number in 0..self.nodes.len() {
            let Some(client) = &mut self.nodes[number].client else { continue };
            if client.poll_timeout().is_none_or(|due| due > now) {
                client.handle_timeout(now);
                client.handle_timeout(Timestamp::from_micros(self.now.saturating_sub(1_000_000)));
                if let Some(output) = client.poll_output() {
                    self.fail(format!("n{number}: handle_timeout before its time gave {output:?}"));
                }
            }
        }
    }

    /// Breaks or stalls a link, as far as this run does that.
    fn disturb(&mut self, link: usize) {
        let Self { random, wires, options, now, .. } = self;
        let wire = &mut wires[link];
        if random.chance(options.stalls) {
            let until = *now + random.range(0..options.stall);
            let both = random.chance(50);
            if both || random.chance(50) {
                wire.link.up.stall(until);
            }
            if both || random.chance(50) {
                wire.link.down.stall(until);
            }
            self.trace.line(self.now, || format!("link {link} stalls"));
        }
        if !self.random.chance(self.options.cuts) {
            return;
        }
        let wire = &mut self.wires[link];
        self.oracle.counts.faults += 1;
        let (up, down) = (wire.link.up.held(), wire.link.down.held());
        let (up, down) = (self.random.below(up + 1), self.random.below(down + 1));
        let wire = &mut self.wires[link];
        wire.link.up.cut(up);
        wire.link.down.cut(down);
        self.trace.line(self.now, || format!("link {link} is cut: {up} bytes still go up, {down} down"));
        let delays = self.random.pick(&[(0, 0), (1_000_000, 1_000_000), (0, 100_000_000), (100_000_000, 0)]);
        self.later(delays.0, Event::Broken { link, at_node: true });
        self.later(delays.1, Event::Broken { link, at_node: false });
    }

    /// The figures of all shards.
    fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        self.brokers.iter().for_each(|broker| stats += broker.stats());
        stats
    }

    fn new_wire(&mut self, node: usize, shard: usize, conn: ConnectionId) -> usize {
        let capacity = self.options.network.capacity;
        let version = self.nodes[node].version();
        let link = Link {
            node,
            conn,
            shard,
            moving: false,
            up: Pipe::new(capacity),
            down: Pipe::new(capacity),
            node_open: true,
            broker_open: true,
            paused: false,
            hanging_up: false,
        };
        self.wires.push(Wire {
            link,
            taps: [Tap::new(version), Tap::new(version), Tap::new(version), Tap::new(version)],
            heard_node: 0,
            heard_broker: 0,
            client: None,
            connect: None,
            present: false,
            live: true,
            greeted: false,
            farewell: false,
            owes_farewell: false,
            early: Vec::new(),
            requests: BTreeMap::new(),
            inbound: BTreeMap::new(),
        });
        let wire = self.wires.len() - 1;
        self.by_conn.insert((shard, conn), wire);
        wire
    }

    /// Switches the faults off; everything that is open has to come to its end.
    pub fn calm_down(&mut self) {
        self.calm = true;
        self.options.calm();
        for wire in &mut self.wires {
            wire.link.up.widen(self.options.network.capacity);
            wire.link.down.widen(self.options.network.capacity);
        }
        self.trace.line(self.now, || "--- faults are off ---".into());
    }

    /// Whether everything can come to an end with these settings. With very little memory, what is
    /// retained may leave no room for what is published; and a client whose queue is short may be pushed
    /// out again and again.
    #[must_use]
    pub fn can_settle(&self) -> bool {
        let config = &self.options.broker;
        let pushes_out = config.overflow == mqtt_session::broker::Overflow::Disconnect
            && (config.max_queued_messages < 10_000 || config.max_queued_bytes < 1 << 20);
        config.max_message_bytes >= 1 << 20 && !pushes_out
    }

    /// What must hold when all is calm and enough time has passed.
    pub fn check_settled(&mut self) {
        let stats = self.stats();
        let result = self.oracle.settle(self.dropped_before + stats.dropped);
        self.check(result);
        let mut twins = 0;
        let mut wills = 0;
        for number in 0..self.nodes.len() {
            let node = &self.nodes[number];
            let (name, kind) = (node.name().to_owned(), node.options.kind);
            let Some(client) = &node.client else { continue };
            if kind == Kind::Twin {
                twins += 1;
                continue;
            }
            wills += usize::from(node.options.config.will.is_some());
            // What a member of a group did not acknowledge may have gone to another.
            let shares = node.options.shares;
            let (connected, queued, in_flight) = (client.is_connected(), client.queued(), client.in_flight());
            if !connected || queued > 0 || in_flight > 0 {
                self.fail(format!(
                    "{name} did not settle: connected {connected}, queued {queued}, in flight {in_flight}"
                ));
            }
            let open = self.ends.get(&name).filter(|_| !shares).map_or(0, |(end, _)| end.open());
            if open > 0 {
                let config = &self.nodes[number].options.config;
                let (mode, durability) = (config.ack_mode, config.durability);
                self.fail(format!(
                    "the broker waits for {open} acknowledgements of {name} ({mode:?}, {durability:?})"
                ));
            }
        }
        if twins == 0 && stats.messages > stats.retained + wills {
            let (held, retained) = (stats.messages, stats.retained);
            self.fail(format!("{held} messages are held, {retained} retained, {wills} wills"));
        }
        if self.store.missing() > 0 {
            self.fail("groups were not emitted again after the store failed".into());
        }
        self.check_retained();
        if twins == 0 {
            self.check_leaks();
        }
    }
}

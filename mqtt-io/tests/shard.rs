//! The shard turn, with sockets that are plain memory and a clock that is a number.

use mqtt_io::{Command, Effect, Reading, Shard, ShardError, Stack, Taken, Wire};
use mqtt_proto::{
    ConnectRef, DisconnectRef, PacketId, PacketRef, PublishRef, QoS, ReasonCode, SubscribeFiltersBuf,
    SubscribeRef, Version,
};
use mqtt_session::broker::{
    Answer, Ask, AskFor, BrokerConfig, Closed, ConnectionId, Event, Overflow, Peer, Stats,
};
use mqtt_session::{Durability, Message, ShardId, ShardMessage, Timestamp};
use mqtt_testkit::brief_all;
use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind, IoSlice};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Wake, Waker};
use std::time::Duration;

/// A socket: what was written, and what it does with the next bytes.
#[derive(Clone)]
struct Memory {
    written: Rc<RefCell<Vec<u8>>>,
    /// Bytes that it still takes before it would block.
    room: Rc<Cell<usize>>,
    fails: Rc<Cell<Option<ErrorKind>>>,
    writes: Rc<Cell<usize>>,
}

impl Wire for Memory {
    fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.writes.set(self.writes.get() + 1);
        if let Some(kind) = self.fails.get() {
            return Err(kind.into());
        }
        let mut taken = 0;
        for slice in slices {
            let n = slice.len().min(self.room.get());
            self.room.set(self.room.get() - n);
            self.written.borrow_mut().extend_from_slice(&slice[..n]);
            taken += n;
        }
        if taken == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(taken) }
    }
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A shard with an adapter that does what it is told.
struct Bench {
    shard: Shard<Memory>,
    now: Timestamp,
    events: Vec<Event>,
    asks: Vec<Ask>,
    blocked: Vec<ConnectionId>,
    /// Links that were closed, and whether they linger.
    closed: Vec<bool>,
    wakes: Arc<Wakes>,
}

struct Client {
    conn: ConnectionId,
    socket: Memory,
    version: Version,
}

impl Bench {
    fn new(config: BrokerConfig) -> Self {
        let now = Timestamp::from_micros(1_000_000);
        Self {
            shard: Shard::new(config, now).unwrap_or_else(|e| panic!("{e:?}")),
            now,
            events: Vec::new(),
            asks: Vec::new(),
            blocked: Vec::new(),
            closed: Vec::new(),
            wakes: Arc::default(),
        }
    }

    fn open(&mut self, version: Version) -> Client {
        let socket = Memory {
            written: Rc::default(),
            room: Rc::new(Cell::new(usize::MAX)),
            fails: Rc::default(),
            writes: Rc::default(),
        };
        let wire = socket.clone();
        let peer = Peer { address: Some(([127, 0, 0, 1], 4711).into()), ..Peer::default() };
        let conn = self.shard.accept(self.now, peer, Stack::plain(), |_| wire);
        self.settle();
        Client { conn, socket, version }
    }

    fn connected(&mut self, version: Version, client_id: &str) -> Client {
        let client = self.open(version);
        let _ = self.send(&client, &connect(version, client_id));
        assert_eq!(client.got()[0].split('{').next(), Some(brief_connack(version)));
        client
    }

    fn subscriber(&mut self, version: Version, client_id: &str, filter: &str, qos: QoS) -> Client {
        let client = self.connected(version, client_id);
        let mut filters = SubscribeFiltersBuf::new();
        filters.push(filter, qos.into()).unwrap();
        let subscribe = SubscribeRef {
            packet_id: PacketId::MIN,
            properties: Default::default(),
            filters: filters.as_filters(),
        };
        let _ = self.send(&client, &PacketRef::Subscribe(subscribe));
        assert_eq!(client.got(), [format!("SUBACK #1 0{}", qos.as_u8())]);
        client
    }

    fn send(&mut self, client: &Client, packet: &PacketRef<'_>) -> Reading {
        let mut bytes = Vec::new();
        packet.encode(client.version, &mut bytes).unwrap();
        let waker = Waker::from(Arc::clone(&self.wakes));
        let reading = self.shard.read(self.now, client.conn, &bytes, &waker);
        self.settle();
        reading
    }

    fn command(&mut self, command: Command) {
        self.shard.command(self.now, command);
        self.settle();
    }

    /// Flushes and performs effects until nothing is left.
    fn settle(&mut self) {
        let mut effects = Vec::new();
        while self.shard.is_dirty() || self.shard.has_effects() {
            self.shard.flush(self.now);
            self.shard.take_effects(&mut effects);
            for effect in effects.drain(..) {
                match effect {
                    Effect::Close { linger, .. } => self.closed.push(linger),
                    Effect::AwaitWritable(conn) => self.blocked.push(conn),
                    Effect::Ask(ask) => self.asks.push(*ask),
                    Effect::Event(event, _) => self.events.push(*event),
                    Effect::Deliver { id, sink, message } => {
                        if sink(message) == Taken::Gone {
                            self.shard.command(self.now, Command::Unsubscribe(id));
                        }
                    }
                    Effect::Call(call) => call(),
                    _ => unreachable!("an effect that this adapter does not know"),
                }
            }
        }
    }

    /// Lets time pass up to the next deadline.
    fn sleep(&mut self) {
        self.now = self.shard.deadline().expect("a deadline").max(self.now);
        self.shard.tick(self.now);
        self.settle();
    }

    fn stats(&mut self) -> Stats {
        self.shard.stats()
    }

    fn wakes(&self) -> usize {
        self.wakes.0.load(Ordering::Relaxed)
    }
}

impl Client {
    fn got(&self) -> Vec<String> {
        brief_all(&std::mem::take(&mut *self.socket.written.borrow_mut()), self.version)
    }
}

fn connect(version: Version, client_id: &str) -> PacketRef<'_> {
    PacketRef::Connect(ConnectRef { version, client_id, clean_start: true, ..ConnectRef::default() })
}

fn brief_connack(version: Version) -> &'static str {
    if version.is_v5() { "CONNACK 00 " } else { "CONNACK 00" }
}

fn publish<'a>(topic: &'a str, payload: &'a [u8]) -> PacketRef<'a> {
    PacketRef::Publish(PublishRef { topic, payload, ..PublishRef::default() })
}

#[test]
fn a_message_goes_from_socket_to_socket() {
    let mut bench = Bench::new(BrokerConfig::default());
    let sub = bench.subscriber(Version::V311, "sub", "a/#", QoS::AtMostOnce);
    let from = bench.connected(Version::V5, "pub");
    assert_eq!(bench.send(&from, &publish("a/b", b"hi")), Reading::Go);
    assert_eq!(sub.got(), ["PUBLISH a/b q0 \"hi\""]);
}

#[test]
fn what_many_cause_is_written_once() {
    let mut bench = Bench::new(BrokerConfig::default());
    let sub = bench.subscriber(Version::V311, "sub", "#", QoS::AtMostOnce);
    let pubs = [bench.connected(Version::V311, "one"), bench.connected(Version::V311, "two")];
    let before = sub.socket.writes.get();
    let mut bytes = Vec::new();
    publish("t", b"x").encode(Version::V311, &mut bytes).unwrap();
    for client in &pubs {
        let _ = bench.shard.read(bench.now, client.conn, &bytes, Waker::noop());
    }
    bench.settle();
    assert_eq!(sub.got().len(), 2);
    assert_eq!(sub.socket.writes.get(), before + 1);
}

#[test]
fn much_input_is_flushed_without_being_asked() {
    let mut bench = Bench::new(BrokerConfig::default());
    let sub = bench.subscriber(Version::V311, "sub", "#", QoS::AtMostOnce);
    let from = bench.connected(Version::V311, "pub");
    let mut bytes = Vec::new();
    publish("t", &[0; 100_000]).encode(Version::V311, &mut bytes).unwrap();
    for _ in 0..3 {
        let _ = bench.shard.read(bench.now, from.conn, &bytes, Waker::noop());
    }
    assert!(!sub.socket.written.borrow().is_empty());
}

#[test]
fn a_full_socket_is_waited_for() {
    let mut bench = Bench::new(BrokerConfig::default());
    let sub = bench.subscriber(Version::V311, "sub", "#", QoS::AtMostOnce);
    let from = bench.connected(Version::V311, "pub");
    sub.socket.room.set(5);
    let _ = bench.send(&from, &publish("t", b"first"));
    assert_eq!(bench.blocked, [sub.conn]);
    assert_eq!(sub.socket.written.borrow().len(), 5);

    // Until it is writable nobody tries.
    let tries = sub.socket.writes.get();
    let _ = bench.send(&from, &publish("t", b"second"));
    assert_eq!(sub.socket.writes.get(), tries);

    sub.socket.room.set(usize::MAX);
    bench.shard.writable(bench.now, sub.conn);
    bench.settle();
    assert_eq!(sub.got(), ["PUBLISH t q0 \"first\"", "PUBLISH t q0 \"second\""]);
    assert_eq!(bench.blocked.len(), 1);
}

#[test]
fn a_socket_that_never_takes_bytes_is_cut() {
    let mut config = BrokerConfig::default();
    config.write_timeout = Duration::from_secs(7);
    let mut bench = Bench::new(config);
    let sub = bench.subscriber(Version::V311, "sub", "#", QoS::AtMostOnce);
    let from = bench.connected(Version::V311, "pub");
    sub.socket.room.set(0);
    let start = bench.now;
    let _ = bench.send(&from, &publish("t", b"x"));
    while bench.closed.is_empty() {
        bench.sleep();
    }
    assert_eq!(bench.closed, [false]);
    assert_eq!(bench.now.since(start), Duration::from_secs(7));
    assert_eq!(bench.stats().connections, 1);
}

#[test]
fn a_failed_write_leaves_the_end_to_the_reader() {
    let mut bench = Bench::new(BrokerConfig::default());
    let sub = bench.subscriber(Version::V311, "sub", "#", QoS::AtMostOnce);
    let from = bench.connected(Version::V311, "pub");
    sub.socket.fails.set(Some(ErrorKind::ConnectionReset));
    let _ = bench.send(&from, &publish("t", b"x"));
    assert!(bench.closed.is_empty(), "what the peer sent before the reset is still to be read");

    let _ = bench.send(&sub, &PacketRef::Disconnect(DisconnectRef::default()));
    assert_eq!(bench.closed, [false]);
    let goodbye = |e: &Event| matches!(e, Event::Disconnected { client_id: Some(id), reason: ReasonCode::Success, .. } if id == "sub");
    assert!(bench.events.iter().any(goodbye), "{:?}", bench.events);
}

#[test]
fn a_clean_goodbye_is_not_seen_off() {
    let mut bench = Bench::new(BrokerConfig::default());
    let client = bench.connected(Version::V5, "c");
    assert_eq!(bench.send(&client, &PacketRef::Disconnect(DisconnectRef::default())), Reading::Go);
    assert_eq!(bench.closed, [false]);
    assert_eq!(bench.shard.reading(client.conn), Reading::Gone);
}

#[test]
fn a_farewell_is_protected() {
    let mut bench = Bench::new(BrokerConfig::default());
    let old = bench.connected(Version::V5, "same");
    let _new = bench.connected(Version::V5, "same");
    assert_eq!(old.got(), ["DISCONNECT 8E"]);
    assert_eq!(bench.closed, [true]);
    assert_eq!(bench.stats().connections, 1);
}

#[test]
fn a_farewell_waits_for_the_socket() {
    let mut bench = Bench::new(BrokerConfig::default());
    let old = bench.connected(Version::V5, "same");
    old.socket.room.set(1);
    let _new = bench.connected(Version::V5, "same");
    assert!(bench.closed.is_empty());
    assert_eq!(bench.send(&old, &PacketRef::Pingreq), Reading::Go, "thrown away");
    old.socket.room.set(usize::MAX);
    bench.shard.writable(bench.now, old.conn);
    bench.settle();
    assert_eq!(old.got(), ["DISCONNECT 8E"]);
    assert_eq!(bench.closed, [true]);
}

#[test]
fn a_farewell_is_not_waited_for_for_ever() {
    let mut bench = Bench::new(BrokerConfig::default());
    let old = bench.connected(Version::V5, "same");
    old.socket.room.set(0);
    let start = bench.now;
    let _new = bench.connected(Version::V5, "same");
    while bench.closed.is_empty() {
        bench.sleep();
    }
    assert_eq!(bench.closed, [false]);
    assert_eq!(bench.now.since(start), BrokerConfig::default().close_timeout);
}

#[test]
fn an_end_counts_once() {
    let mut bench = Bench::new(BrokerConfig::default());
    let client = bench.connected(Version::V311, "c");
    for why in [Closed::Eof, Closed::Error, Closed::Eof] {
        bench.shard.closed(bench.now, client.conn, why);
        bench.settle();
    }
    assert_eq!(bench.closed, [false]);
    let gone = bench.events.iter().filter(|e| matches!(e, Event::Disconnected { .. })).count();
    assert_eq!(gone, 1);
    assert_eq!(bench.stats().connections, 0);
    assert_eq!(bench.send(&client, &PacketRef::Pingreq), Reading::Gone);
}

#[test]
fn a_place_is_given_again_and_the_old_number_is_dead() {
    let mut bench = Bench::new(BrokerConfig::default());
    let old = bench.open(Version::V311);
    bench.shard.closed(bench.now, old.conn, Closed::Eof);
    bench.settle();
    let new = bench.connected(Version::V311, "new");
    assert_eq!(old.conn.index(), new.conn.index());
    assert_eq!(bench.shard.reading(old.conn), Reading::Gone);
    bench.shard.closed(bench.now, old.conn, Closed::Eof);
    bench.shard.writable(bench.now, old.conn);
    assert_eq!(bench.shard.reading(new.conn), Reading::Go);
}

#[test]
fn a_question_stops_reading_until_it_is_answered() {
    let mut config = BrokerConfig::default();
    config.ask = AskFor { connect: true, ..AskFor::default() };
    let mut bench = Bench::new(config);
    let client = bench.open(Version::V311);
    let mut bytes = Vec::new();
    connect(Version::V311, "c").encode(Version::V311, &mut bytes).unwrap();
    PacketRef::Pingreq.encode(Version::V311, &mut bytes).unwrap();
    let waker = Waker::from(Arc::clone(&bench.wakes));
    assert_eq!(bench.shard.read(bench.now, client.conn, &bytes, &waker), Reading::Paused);
    bench.settle();
    assert_eq!(bench.shard.reading(client.conn), Reading::Paused);
    assert_eq!(bench.wakes(), 0);
    let id = bench.asks.pop().expect("a question").id;
    bench.command(Command::Answer(id, Answer::Allow));
    assert_eq!(bench.wakes(), 1);
    assert_eq!(bench.shard.reading(client.conn), Reading::Go);
    assert_eq!(client.got(), ["CONNACK 00", "PINGRESP"]);
}

#[test]
fn the_programs_own_subscription_ends_when_nobody_listens() {
    let mut bench = Bench::new(BrokerConfig::default());
    let got: Arc<Mutex<Vec<String>>> = Arc::default();
    let into = Arc::clone(&got);
    let subscribed = Arc::new(Mutex::new(None));
    let reply = Arc::clone(&subscribed);
    bench.command(Command::Subscribe {
        filter: "a/#".to_owned(),
        options: QoS::AtMostOnce.into(),
        sink: Arc::new(move |message| {
            let mut into = into.lock().unwrap();
            into.push(message.topic);
            if into.len() < 2 { Taken::Yes } else { Taken::Gone }
        }),
        reply: Box::new(move |result| *reply.lock().unwrap() = Some(result)),
    });
    assert!(matches!(*subscribed.lock().unwrap(), Some(Ok(_))));
    for topic in ["a/1", "a/2", "a/3"] {
        bench.command(Command::Publish(Message::new(topic, "x"), Box::new(|_| {})));
    }
    assert_eq!(*got.lock().unwrap(), ["a/1", "a/2"]);
    assert_eq!(bench.stats().subscriptions, 0);
}

#[test]
fn commands_answer() {
    let mut bench = Bench::new(BrokerConfig::default());
    let client = bench.connected(Version::V5, "c");
    let answers: Arc<Mutex<Vec<String>>> = Arc::default();
    let push = |text: &'static str| {
        let answers = Arc::clone(&answers);
        move |value: String| answers.lock().unwrap().push(format!("{text} {value}"))
    };
    let put = push("published");
    bench.command(Command::Publish(
        Message::new("a/+", "x"),
        Box::new(move |r| put(r.unwrap_err().into_message().topic)),
    ));
    let put = push("connections");
    bench.command(Command::Stats(Box::new(move |stats| put(stats.connections.to_string()))));
    let put = push("found");
    let reason = ReasonCode::AdministrativeAction;
    bench.command(Command::Disconnect("c".to_owned(), reason, Box::new(move |r| put(r.to_string()))));
    let put = push("found");
    bench.command(Command::Disconnect("c".to_owned(), reason, Box::new(move |r| put(r.to_string()))));
    assert_eq!(*answers.lock().unwrap(), ["published a/+", "connections 1", "found true", "found false"]);
    assert_eq!(client.got(), ["DISCONNECT 98"]);
}

#[test]
fn a_shut_down_shard_is_finished_when_all_took_leave() {
    let mut bench = Bench::new(BrokerConfig::default());
    let five = bench.connected(Version::V5, "five");
    let four = bench.connected(Version::V311, "four");
    assert!(!bench.shard.is_finished());
    five.socket.room.set(0);
    bench.command(Command::Shutdown);
    bench.command(Command::Shutdown);
    assert!(!bench.shard.is_finished());
    five.socket.room.set(usize::MAX);
    bench.shard.writable(bench.now, five.conn);
    bench.settle();
    assert!(bench.shard.is_finished());
    assert_eq!(five.got(), ["DISCONNECT 8B"]);
    assert!(four.got().is_empty());
}

#[test]
fn nothing_is_promised_without_a_store() {
    let mut config = BrokerConfig::default();
    config.durability = Durability::Written;
    assert_eq!(Shard::<Memory>::new(config, Timestamp::ZERO).err(), Some(ShardError::NoStore));
    let mut config = BrokerConfig::default();
    config.work_budget = 0;
    assert!(matches!(Shard::<Memory>::new(config, Timestamp::ZERO), Err(ShardError::Config(_))));
}

#[test]
fn work_over_the_budget_waits_for_the_tick() {
    let mut config = BrokerConfig::default();
    config.work_budget = 10;
    config.overflow = Overflow::DropOldest;
    let mut bench = Bench::new(config);
    let sub = bench.subscriber(Version::V311, "sub", "#", QoS::AtMostOnce);
    let from = bench.connected(Version::V311, "pub");
    let mut bytes = Vec::new();
    for _ in 0..35 {
        publish("t", b"x").encode(Version::V311, &mut bytes).unwrap();
    }
    let waker = Waker::from(Arc::clone(&bench.wakes));
    assert_eq!(bench.shard.read(bench.now, from.conn, &bytes, &waker), Reading::Paused);
    bench.settle();
    let mut ticks = 0;
    while bench.shard.reading(from.conn) == Reading::Paused {
        assert_eq!(bench.shard.deadline(), Some(bench.now), "at once");
        bench.sleep();
        ticks += 1;
    }
    assert_eq!(sub.got().len(), 35);
    assert_eq!((ticks, bench.wakes()), (3, 1));
}

/// What several reads of a turn have for another shard is carried at once, as one message.
#[test]
fn what_crosses_in_one_turn_is_carried_together() {
    let mut config = BrokerConfig::default();
    config.shards = 2;
    let mut bench = Bench::new(config);
    let from = bench.connected(Version::V5, "");
    let wanted = ShardMessage::Interest(vec![("t".to_owned(), true)]);
    bench.shard.letters(bench.now, ShardId(1), vec![wanted]);
    let mut bytes = Vec::new();
    publish("t", b"x").encode(Version::V5, &mut bytes).unwrap();
    for _ in 0..3 {
        let _ = bench.shard.read(bench.now, from.conn, &bytes, Waker::noop());
    }
    assert!(!bench.shard.has_effects(), "not before the turn ends");
    bench.shard.flush(bench.now);
    let mut effects = Vec::new();
    bench.shard.take_effects(&mut effects);
    let [Effect::Letters(ShardId(1), letters)] = effects.as_slice() else { panic!("{}", effects.len()) };
    assert_eq!(letters.iter().map(ShardMessage::deliveries).collect::<Vec<_>>(), [3]);
}

/// Who asks another shard after the reply came must find the message there.
#[test]
fn the_reply_to_a_publisher_comes_behind_what_crosses() {
    let mut config = BrokerConfig::default();
    config.shards = 2;
    let mut bench = Bench::new(config);
    let wanted = ShardMessage::Interest(vec![("t".to_owned(), true)]);
    bench.shard.letters(bench.now, ShardId(1), vec![wanted]);
    bench.shard.command(bench.now, Command::Publish(Message::new("t", "x"), Box::new(|_| {})));
    let mut effects = Vec::new();
    bench.shard.take_effects(&mut effects);
    assert!(
        matches!(effects.as_slice(), [Effect::Letters(ShardId(1), _), Effect::Call(_)]),
        "{} effects",
        effects.len()
    );
}

/// The machine hears of the wall clock within ten seconds after anything happened, and a broker where nothing happens sleeps.
#[test]
fn the_wall_clock_is_told_while_something_happens() {
    let mut config = BrokerConfig::default();
    config.sys_interval = None;
    let mut bench = Bench::new(config);
    assert_eq!(bench.shard.deadline(), None);
    // Of which no timer comes.
    bench.command(Command::RemoveRetained("t".to_owned(), Box::new(|_| {})));
    assert_eq!(bench.shard.deadline(), Some(bench.now + Duration::from_secs(10)));
    let client = bench.connected(Version::V5, "c");
    bench.shard.closed(bench.now, client.conn, Closed::Eof);
    while let Some(due) = bench.shard.deadline() {
        assert!(due < Timestamp::ZERO + Duration::from_secs(60), "it wakes for ever");
        bench.sleep();
    }
}

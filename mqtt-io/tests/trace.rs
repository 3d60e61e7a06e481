//! Traces that are cut off, damaged, full, or end in a panic. (That a trace of a busy broker plays to equal
//! outputs is a step of the script that drives every adapter.)

use mqtt_io::trace::{Ending, Player, Recorder, TraceError, TraceOptions};
use mqtt_io::{Command, Effect, Shard, Stack, Wire};
use mqtt_proto::{ConnectRef, PacketRef, PublishRef, SubscribeFiltersBuf, SubscribeRef, Version};
use mqtt_session::broker::{BrokerConfig, Closed, ConnectionId, Peer};
use mqtt_session::{Broker, Message, Timestamp};
use std::io::{self, IoSlice};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Waker;
use std::time::Duration;

/// A socket that takes everything.
struct Sink;

impl Wire for Sink {
    fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(slices.iter().map(|slice| slice.len()).sum())
    }
}

/// A file of this test's own, gone with it.
struct TempFile(PathBuf);

impl TempFile {
    fn new() -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        Self(std::env::temp_dir().join(format!("mqtt-io-trace-{}-{number}", std::process::id())))
    }

    fn old(&self) -> PathBuf {
        let mut path = self.0.clone().into_os_string();
        path.push(".old");
        path.into()
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
        let _ = std::fs::remove_file(self.old());
    }
}

fn shard(file: &TempFile, max_bytes: u64) -> Shard<Sink> {
    let mut options = TraceOptions::new(&file.0);
    options.max_bytes = max_bytes;
    let (config, now) = (BrokerConfig::default(), Timestamp::ZERO);
    let trace = Recorder::create(&options, &config, now, false).unwrap();
    Shard::recorded(Broker::new(config, now).unwrap(), now, None, Some(trace))
}

fn settle(shard: &mut Shard<Sink>, now: Timestamp) {
    let mut effects: Vec<Effect<Sink>> = Vec::new();
    while shard.is_dirty() {
        shard.flush(now);
        shard.take_effects(&mut effects);
        effects.clear();
    }
}

fn send(shard: &mut Shard<Sink>, now: Timestamp, conn: ConnectionId, packet: &PacketRef<'_>) {
    let mut bytes = Vec::new();
    packet.encode(Version::V5, &mut bytes).unwrap();
    let _ = shard.read(now, conn, &bytes, Waker::noop());
    settle(shard, now);
}

/// Two clients and the program itself say something to each other.
fn life(shard: &mut Shard<Sink>) {
    let mut filters = SubscribeFiltersBuf::new();
    filters.push("t/#", Default::default()).unwrap();
    let filters = filters.as_filters();
    let mut now = Timestamp::ZERO;
    for client_id in ["one", "two"] {
        now = now + Duration::from_secs(1);
        let conn = shard.accept(now, Peer::default(), Stack::plain(), |_| Sink);
        let connect = ConnectRef { client_id, keep_alive: 10, clean_start: true, ..ConnectRef::default() };
        send(shard, now, conn, &PacketRef::Connect(connect));
        let (packet_id, properties) = (mqtt_proto::PacketId::MIN, Default::default());
        send(shard, now, conn, &PacketRef::Subscribe(SubscribeRef { packet_id, properties, filters }));
        let publish = PublishRef { topic: "t/x", payload: b"payload", ..PublishRef::default() };
        send(shard, now, conn, &PacketRef::Publish(publish));
        shard.command(now, Command::Publish(Message::new("t/y", client_id), Box::new(|_| {})));
        settle(shard, now);
        if client_id == "one" {
            shard.closed(now, conn, Closed::Eof);
        }
    }
    shard.tick(now + Duration::from_secs(60));
    settle(shard, now + Duration::from_secs(60));
}

/// A trace of such a life.
fn recorded() -> Vec<u8> {
    let file = TempFile::new();
    let mut shard = shard(&file, u64::MAX);
    life(&mut shard);
    drop(shard);
    std::fs::read(&file.0).unwrap()
}

/// Plays to the end; how many inputs that were.
fn play(trace: &[u8]) -> Result<(u64, Ending), TraceError> {
    let mut player = Player::open(trace)?;
    let mut number = 0;
    while let Some(step) = player.step()? {
        number = step.number;
    }
    Ok((number, player.ending()))
}

#[test]
fn it_plays_to_its_end() {
    let (number, ending) = play(&recorded()).unwrap();
    assert!(number > 20, "{number}");
    assert_eq!(ending, Ending::Closed);
}

#[test]
fn one_that_is_cut_off_plays_as_far_as_it_goes() {
    let trace = recorded();
    let (all, _) = play(&trace).unwrap();
    let (mut before, mut opened) = (0, false);
    for len in 0..trace.len() {
        match play(&trace[..len]) {
            Ok((number, ending)) => {
                opened = true;
                assert_eq!(ending, Ending::Cut);
                assert!(number >= before && number <= all);
                before = number;
            }
            Err(e) => assert!(!opened, "{len}: {e}"),
        }
    }
    assert_eq!(before, all, "only the end was missing");
}

#[test]
fn what_is_damaged_is_noticed() {
    let trace = recorded();
    let mut differs = 0;
    for at in 0..trace.len() {
        let mut damaged = trace.clone();
        damaged[at] ^= 0x21;
        match play(&damaged) {
            Err(TraceError::Differs { .. }) => differs += 1,
            Err(_) => {}
            // The seed, a limit that was not reached, an address: it makes no difference to what happens.
            Ok(_) => {}
        }
    }
    assert!(differs > trace.len() / 3, "{differs} of {}", trace.len());
    assert!(matches!(play(b"something else"), Err(TraceError::Format)));
    assert!(matches!(play(b"MQTT trace\x02"), Err(TraceError::Format)));
}

#[test]
fn the_input_that_differs_is_named() {
    let mut trace = recorded();
    // A topic that arrives, and so what is sent.
    let at = trace.windows(3).position(|window| window == b"t/x").unwrap();
    trace[at + 2] = b'z';
    let mut player = Player::open(&trace[..]).unwrap();
    let error = loop {
        match player.step() {
            Ok(step) => assert!(step.is_some(), "it does not differ"),
            Err(error) => break error,
        }
    };
    let TraceError::Differs { number, .. } = error else { panic!("{error}") };
    let last = player.last().unwrap();
    assert_eq!(last.number, number);
    assert!(last.sent.windows(3).any(|window| window == b"t/z"), "{last:?}");
}

#[test]
fn a_full_trace_ends_and_the_broker_goes_on() {
    let file = TempFile::new();
    let mut shard = shard(&file, 600);
    life(&mut shard);
    assert_eq!(shard.stats().received, 2, "it went on");
    drop(shard);
    let trace = std::fs::read(&file.0).unwrap();
    assert!(trace.len() < 700);
    let (number, ending) = play(&trace).unwrap();
    assert!(number > 3);
    assert_eq!(ending, Ending::Full);
}

#[test]
fn what_came_before_a_panic_is_there() {
    let file = TempFile::new();
    let mut shard = shard(&file, u64::MAX);
    life(&mut shard);
    let all = play(&recorded()).unwrap().0;
    let panicked = catch_unwind(AssertUnwindSafe(move || {
        shard.command(Timestamp::ZERO, Command::Panic);
    }));
    assert!(panicked.is_err());
    let (number, ending) = play(&std::fs::read(&file.0).unwrap()).unwrap();
    assert_eq!((number, ending), (all, Ending::Cut));
}

#[test]
fn the_trace_before_is_kept() {
    let file = TempFile::new();
    life(&mut shard(&file, u64::MAX));
    drop(shard(&file, u64::MAX));
    assert!(play(&std::fs::read(file.old()).unwrap()).unwrap().0 > 20);
    assert_eq!(play(&std::fs::read(&file.0).unwrap()).unwrap().0, 0);
}

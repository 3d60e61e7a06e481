//! The shards of one broker, their store and raw peers. What goes on between shards, and what is on its way to the
//! store, is held back until a test lets it pass.

#![allow(dead_code, reason = "each test uses a part of it")]

use mqtt_proto::{ConnectRef, PacketRef, Version};
use mqtt_session::broker::{
    Answer, BrokerConfig, Closed, ConnectionId, Event, Moved, Outbox, Output, Peer, QuestionId, ReadStatus,
    Restoration, Restore, Restored, Stats,
};
use mqtt_session::store::Contents;
use mqtt_session::{Broker, ShardId, ShardMessage, StoreGroup, StoreSeq, Timestamp};
use mqtt_testkit::brief_all;
use std::collections::{BTreeMap, VecDeque};

pub(crate) enum Letter {
    Said(ShardMessage),
    Moved(Moved, usize),
}

pub(crate) struct Link {
    pub(crate) shard: usize,
    pub(crate) conn: ConnectionId,
    version: Version,
    inbox: Vec<u8>,
    pub(crate) paused: bool,
    pub(crate) closed: bool,
}

/// All shards, their mail, and raw peers.
pub(crate) struct Cluster {
    pub(crate) now: Timestamp,
    pub(crate) shards: Vec<Broker>,
    pub(crate) mail: BTreeMap<(usize, usize), VecDeque<Letter>>,
    pub(crate) links: Vec<Link>,
    pub(crate) events: Vec<(usize, Event)>,
    /// What is not stored yet, in the order in which it came.
    pub(crate) unstored: VecDeque<(usize, StoreSeq, StoreGroup)>,
    pub(crate) contents: Contents,
    asked: Vec<(usize, QuestionId)>,
    config: BrokerConfig,
}

impl Cluster {
    pub(crate) fn new(count: u16, set: impl Fn(&mut BrokerConfig)) -> Self {
        let now = Timestamp::from_micros(1_000_000);
        let mut config = BrokerConfig::default();
        config.shards = count;
        set(&mut config);
        let mut cluster = Self {
            now,
            shards: Vec::new(),
            mail: BTreeMap::new(),
            links: Vec::new(),
            events: Vec::new(),
            unstored: VecDeque::new(),
            contents: Contents::default(),
            asked: Vec::new(),
            config,
        };
        cluster.start();
        cluster
    }

    /// A client identifier that lives on a shard.
    pub(crate) fn name_on(&self, shard: u16, like: &str) -> String {
        let names = (0..).map(|n| format!("{like}{n}"));
        names.into_iter().find(|name| self.shards[0].home_of(name) == ShardId(shard)).unwrap()
    }

    /// Opens a connection at a shard and sends CONNECT.
    pub(crate) fn connect_at(
        &mut self,
        shard: usize,
        version: Version,
        client_id: &str,
        clean_start: bool,
    ) -> usize {
        let link = self.open_at(shard, version);
        self.send(
            link,
            &PacketRef::Connect(ConnectRef { version, client_id, clean_start, ..Default::default() }),
        );
        link
    }

    /// Opens a connection at a shard.
    pub(crate) fn open_at(&mut self, shard: usize, version: Version) -> usize {
        let conn = self.shards[shard].handle_accept(self.now);
        self.shards[shard].handle_identified(self.now, conn, Peer::default());
        self.links.push(Link { shard, conn, version, inbox: Vec::new(), paused: false, closed: false });
        self.links.len() - 1
    }

    /// Allows everything that was asked.
    pub(crate) fn answer_all(&mut self) {
        for (shard, question) in std::mem::take(&mut self.asked) {
            self.shards[shard].handle_answer(self.now, question, Answer::Allow);
            self.obey();
        }
    }

    /// A client that lives on a shard, connected there.
    pub(crate) fn client(&mut self, shard: u16, like: &str) -> usize {
        let name = self.name_on(shard, like);
        let link = self.connect_at(usize::from(shard), Version::V5, &name, true);
        self.pass_all();
        assert!(self.got(link)[0].starts_with("CONNACK 00"));
        link
    }

    pub(crate) fn send(&mut self, link: usize, packet: &PacketRef<'_>) {
        let mut bytes = Vec::new();
        packet.encode(self.links[link].version, &mut bytes).unwrap();
        self.read(link, &bytes);
        self.obey();
    }

    pub(crate) fn read(&mut self, link: usize, bytes: &[u8]) {
        let Link { shard, conn, .. } = self.links[link];
        let status = self.shards[shard].handle_read(self.now, conn, bytes);
        self.links[link].paused = status == ReadStatus::Paused;
    }

    pub(crate) fn got(&mut self, link: usize) -> Vec<String> {
        let bytes = std::mem::take(&mut self.links[link].inbox);
        brief_all(&bytes, self.links[link].version)
    }

    pub(crate) fn link_of(&self, shard: usize, conn: ConnectionId) -> Option<usize> {
        self.links.iter().position(|link| link.shard == shard && link.conn == conn)
    }

    pub(crate) fn obey(&mut self) {
        loop {
            let mut shards = self.shards.iter_mut().enumerate();
            let Some((shard, output)) = shards.find_map(|(n, shard)| Some((n, shard.poll_output()?))) else {
                return;
            };
            match output {
                Output::Flush(conn) => self.flush(shard, conn),
                Output::Resume(conn) => {
                    let link = self.link_of(shard, conn).unwrap();
                    self.read(link, &[]);
                }
                Output::Hangup { conn, .. } => {
                    self.flush(shard, conn);
                    let link = self.link_of(shard, conn).unwrap();
                    self.links[link].closed = true;
                    self.shards[shard].handle_close(self.now, conn, Closed::Hangup);
                }
                Output::Shard { to, message } => self.post(shard, to, Letter::Said(*message)),
                Output::Rehome { conn, to } => {
                    let link = self.link_of(shard, conn).unwrap();
                    let moved = self.shards[shard].take_moving(self.now, conn).unwrap();
                    self.post(shard, to, Letter::Moved(moved, link));
                }
                Output::Event(event) => self.events.push((shard, *event)),
                Output::Ask(ask) => self.asked.push((shard, ask.id)),
                Output::Store(seq, group) => self.unstored.push_back((shard, seq, group)),
            }
        }
    }

    pub(crate) fn flush(&mut self, shard: usize, conn: ConnectionId) {
        let outbox = self.shards[shard].outbox(self.now, conn, 1 << 20);
        let mut slices = [&[][..]; Outbox::MOST_SLICES];
        let used = outbox.fill_slices(&mut slices);
        let bytes = slices[..used].concat();
        outbox.consume(bytes.len());
        if let Some(link) = self.link_of(shard, conn) {
            self.links[link].inbox.extend_from_slice(&bytes);
        }
    }

    pub(crate) fn post(&mut self, from: usize, to: ShardId, letter: Letter) {
        self.mail.entry((from, usize::from(to.0))).or_default().push_back(letter);
    }

    /// Lets everything pass that waits from one shard to another.
    pub(crate) fn pass(&mut self, from: usize, to: usize) -> bool {
        let Some(letters) = self.mail.remove(&(from, to)) else { return false };
        for letter in letters {
            match letter {
                Letter::Said(message) => {
                    self.shards[to].handle_shard(self.now, ShardId(u16::try_from(from).unwrap()), message);
                }
                Letter::Moved(moved, link) => {
                    let conn = self.shards[to].handle_moved(self.now, moved);
                    (self.links[link].shard, self.links[link].conn) = (to, conn);
                }
            }
            self.obey();
        }
        true
    }

    pub(crate) fn pass_all(&mut self) {
        while let Some(&(from, to)) = self.mail.keys().next() {
            self.pass(from, to);
        }
    }

    /// The next group is stored, and its shard is told.
    pub(crate) fn store_one(&mut self) -> bool {
        let Some((shard, seq, group)) = self.unstored.pop_front() else { return false };
        self.contents.apply(&group);
        self.shards[shard].handle_stored(self.now, seq);
        self.obey();
        true
    }

    /// Lets everything be stored.
    pub(crate) fn store_all(&mut self) {
        while self.store_one() {}
    }

    /// Lets everything be stored and everything pass.
    pub(crate) fn settle(&mut self) {
        while !self.unstored.is_empty() || !self.mail.is_empty() {
            self.store_all();
            self.pass_all();
        }
    }

    /// The broker is killed: what is not stored is lost. It starts again with so many shards.
    pub(crate) fn restart(&mut self, shards: u16) -> Restored {
        self.mail.clear();
        self.unstored.clear();
        self.links.clear();
        self.events.clear();
        self.config.shards = shards;
        self.start()
    }

    fn start(&mut self) -> Restored {
        let mut restore = Restore::new(self.config.clone()).unwrap();
        self.contents.records().for_each(|record| restore.record(record));
        let Restoration { shards, first, restored, .. } = restore.finish(self.now.as_micros() / 1_000);
        first.iter().for_each(|group| self.contents.apply(group));
        (self.shards, self.now) = (shards, self.now.max(restored.now));
        self.obey();
        restored
    }

    pub(crate) fn stats(&self) -> Stats {
        let mut sum = Stats::default();
        self.shards.iter().for_each(|shard| sum += shard.stats());
        sum
    }
}

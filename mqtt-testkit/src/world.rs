mod shards;

pub use shards::Shards;

use crate::brief_all;
use mqtt_proto::{ConnectRef, PacketRef, Version};
use mqtt_session::broker::{
    Ask, BrokerConfig, Closed, ConnectionId, Event, Outbox, Output, Peer, ReadStatus, Restored,
};
use mqtt_session::store::{Contents, StoredClock};
use mqtt_session::{StoreGroup, StoreOp, StoreSeq, Timestamp};
use std::collections::BTreeMap;
use std::time::Duration;

/// One of the world's peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerId(usize);

#[derive(Debug)]
struct RawPeer {
    conn: ConnectionId,
    version: Version,
    /// What the broker sent and nobody looked at.
    inbox: Vec<u8>,
    hung_up: bool,
    closed: bool,
    paused: bool,
    /// Whether the peer's socket takes bytes.
    reads: bool,
}

/// A broker on virtual time, in as many shards as [`shards`](crate::shards) says, and its peers.
#[derive(Debug)]
pub struct World {
    /// The machine, or several that look like one.
    pub broker: Shards,
    /// The time.
    pub now: Timestamp,
    /// Events that nobody looked at.
    pub events: Vec<Event>,
    /// Questions that nobody answered.
    pub asks: Vec<Ask>,
    /// Groups that were not confirmed, of all shards in the order in which they came.
    pub stores: Vec<(StoreSeq, StoreGroup)>,
    /// What the confirmed groups left.
    pub contents: Contents,
    /// How many bytes one outbox may hold.
    pub outbox_max: usize,
    peers: Vec<RawPeer>,
}

impl World {
    /// A broker with these settings, but for the number of its shards.
    ///
    /// # Panics
    /// If the settings are refused.
    #[must_use]
    pub fn new(config: BrokerConfig) -> Self {
        Self::of(config, crate::shards())
    }

    /// A broker with these settings that is one machine, for what is said of one machine.
    ///
    /// # Panics
    /// If the settings are refused.
    #[must_use]
    pub fn of_one_shard(config: BrokerConfig) -> Self {
        Self::of(config, 1)
    }

    fn of(mut config: BrokerConfig, shards: u16) -> Self {
        config.shards = shards;
        let now = Timestamp::from_micros(1_000_000);
        Self {
            broker: Shards::new(&config, now),
            now,
            events: Vec::new(),
            asks: Vec::new(),
            stores: Vec::new(),
            contents: Contents::default(),
            outbox_max: 64 << 10,
            peers: Vec::new(),
        }
    }

    /// A TCP connection, without a CONNECT.
    pub fn open(&mut self, version: Version) -> PeerId {
        self.open_as(version, Peer::default())
    }

    /// The same of this peer.
    pub fn open_as(&mut self, version: Version, peer: Peer) -> PeerId {
        let conn = self.broker.handle_accept(self.now);
        self.broker.handle_identified(self.now, conn, peer);
        let peer = RawPeer {
            conn,
            version,
            inbox: Vec::new(),
            hung_up: false,
            closed: false,
            paused: false,
            reads: true,
        };
        self.peers.push(peer);
        self.settle();
        PeerId(self.peers.len() - 1)
    }

    /// A TCP connection and this CONNECT. What the broker answers waits in the inbox.
    pub fn connect(&mut self, packet: &ConnectRef<'_>) -> PeerId {
        let peer = self.open(packet.version);
        self.send(peer, &PacketRef::Connect(*packet));
        peer
    }

    /// A client that is connected: CONNECT was accepted and the CONNACK taken out of the inbox.
    ///
    /// # Panics
    /// If it is refused.
    pub fn client(&mut self, version: Version, client_id: &str) -> PeerId {
        let packet = ConnectRef { version, client_id, clean_start: true, ..ConnectRef::default() };
        let peer = self.connect(&packet);
        let answer = self.got(peer);
        assert!(answer.len() == 1 && answer[0].starts_with("CONNACK 00"), "{answer:?}");
        peer
    }

    /// Sends a packet.
    ///
    /// # Panics
    /// If its fields break a rule; send such packets with [`World::send_raw`].
    pub fn send(&mut self, peer: PeerId, packet: &PacketRef<'_>) {
        let mut bytes = Vec::new();
        packet.encode(self.peers[peer.0].version, &mut bytes).expect("a packet that can be encoded");
        self.send_raw(peer, &bytes);
    }

    /// Sends bytes.
    pub fn send_raw(&mut self, peer: PeerId, bytes: &[u8]) {
        let p = &mut self.peers[peer.0];
        if p.closed || p.hung_up {
            return;
        }
        p.paused = self.broker.handle_read(self.now, p.conn, bytes) == ReadStatus::Paused;
        self.settle();
    }

    /// The packets that the broker sent since the last look, in brief.
    pub fn got(&mut self, peer: PeerId) -> Vec<String> {
        let p = &mut self.peers[peer.0];
        brief_all(&std::mem::take(&mut p.inbox), p.version)
    }

    /// The bytes that the broker sent since the last look.
    pub fn got_raw(&mut self, peer: PeerId) -> Vec<u8> {
        std::mem::take(&mut self.peers[peer.0].inbox)
    }

    /// Whether the broker has hung up.
    #[must_use]
    pub fn is_hung_up(&self, peer: PeerId) -> bool {
        self.peers[peer.0].hung_up
    }

    /// Whether the broker does not want to read this peer at present.
    #[must_use]
    pub fn is_paused(&self, peer: PeerId) -> bool {
        self.peers[peer.0].paused
    }

    /// The connection of a peer.
    #[must_use]
    pub fn conn(&self, peer: PeerId) -> ConnectionId {
        self.peers[peer.0].conn
    }

    /// Cuts the connection without a word.
    pub fn cut(&mut self, peer: PeerId) {
        let p = &mut self.peers[peer.0];
        if !p.closed {
            p.closed = true;
            self.broker.handle_close(self.now, p.conn, Closed::Error);
        }
        self.settle();
    }

    /// Whether the peer's socket takes bytes from now on.
    pub fn set_reads(&mut self, peer: PeerId, reads: bool) {
        self.peers[peer.0].reads = reads;
        if reads {
            self.flush(peer.0);
        }
        self.settle();
    }

    /// Lets time pass, stopping at each deadline on the way.
    pub fn advance(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.broker.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.broker.handle_timeout(self.now);
            self.settle();
        }
        self.now = end;
        self.broker.handle_timeout(self.now);
        self.settle();
    }

    /// Confirms everything that was emitted, and what follows from that.
    pub fn confirm_stores(&mut self) {
        while !self.stores.is_empty() {
            self.confirm(self.stores.len());
        }
    }

    /// Confirms the first `count` groups that were emitted.
    pub fn confirm(&mut self, count: usize) {
        let mut last = BTreeMap::new();
        for (seq, group) in self.stores.drain(..count.min(self.stores.len())) {
            self.contents.apply(&group);
            last.insert(Shards::of_group(seq), seq);
        }
        if last.is_empty() {
            return;
        }
        for seq in last.into_values() {
            self.broker.handle_stored(self.now, seq);
        }
        self.settle();
    }

    /// Kills the broker and makes another, `down` later, from what was confirmed. All connections are
    /// gone.
    ///
    /// # Panics
    /// If the settings are refused.
    pub fn restart(&mut self, down: Duration) -> Restored {
        let unix_ms = self.now.as_micros() / 1000;
        let clock = StoreOp::PutClock(StoredClock { time: self.now, unix_ms });
        self.contents.apply(&StoreGroup { ops: [clock].into() });
        let config = self.broker.config().clone();
        let then = unix_ms + u64::try_from(down.as_millis()).expect("a short time");
        let (broker, restored) = Shards::restore(config, then, &mut self.contents);
        self.broker = broker;
        self.now = restored.now;
        self.peers.iter_mut().for_each(|peer| (peer.closed, peer.hung_up) = (true, true));
        self.stores.clear();
        self.events.clear();
        self.asks.clear();
        self.settle();
        restored
    }

    /// Obeys the broker until it wants nothing more.
    pub fn settle(&mut self) {
        loop {
            let mut flushes = Vec::new();
            let mut busy = false;
            while let Some(output) = self.broker.poll_output() {
                busy = true;
                match output {
                    Output::Flush(conn) => flushes.push(conn),
                    Output::Resume(conn) => {
                        if let Some(at) = self.peers.iter().rposition(|p| p.conn == conn) {
                            let status = self.broker.handle_read(self.now, conn, &[]);
                            self.peers[at].paused = status == ReadStatus::Paused;
                        }
                    }
                    Output::Hangup { conn, .. } => {
                        if let Some(at) = self.peers.iter().rposition(|p| p.conn == conn) {
                            self.flush(at);
                            self.peers[at].hung_up = true;
                            if !std::mem::replace(&mut self.peers[at].closed, true) {
                                self.broker.handle_close(self.now, conn, Closed::Hangup);
                            }
                        }
                    }
                    Output::Ask(ask) => self.asks.push(*ask),
                    Output::Store(seq, group) => self.stores.push((seq, group)),
                    Output::Event(event) => self.events.push(*event),
                    // The shards have seen to it.
                    Output::Shard { .. } | Output::Rehome { .. } => {}
                }
            }
            for conn in flushes {
                if let Some(at) = self.peers.iter().rposition(|p| p.conn == conn) {
                    self.flush(at);
                }
            }
            if self.broker.poll_timeout().is_some_and(|due| due <= self.now) {
                self.broker.handle_timeout(self.now);
                busy = true;
            }
            if !busy {
                return;
            }
        }
    }

    fn flush(&mut self, at: usize) {
        let p = &mut self.peers[at];
        if p.closed {
            return;
        }
        let outbox = self.broker.outbox(self.now, p.conn, self.outbox_max);
        let mut slices = [&[][..]; Outbox::MOST_SLICES];
        let used = outbox.fill_slices(&mut slices);
        if used == 0 {
            // As adapters do: there is nothing to be taken.
            return;
        }
        let mut taken = 0;
        if p.reads {
            for slice in &slices[..used] {
                p.inbox.extend_from_slice(slice);
                taken += slice.len();
            }
        }
        outbox.consume(taken);
    }
}

/// Packets that tests send all the time.
pub mod packets {
    use mqtt_proto::{
        AckRef, PacketId, PacketRef, PublishRef, QoS, SubscribeFiltersBuf, SubscribeRef, SubscriptionOptions,
        UnsubscribeFiltersBuf, UnsubscribeRef,
    };

    /// A packet identifier.
    ///
    /// # Panics
    /// If it is 0.
    #[must_use]
    pub fn id(id: u16) -> PacketId {
        PacketId::new(id).expect("an identifier is not 0")
    }

    /// PUBLISH; `packet_id` 0 at QoS 0.
    #[must_use]
    pub fn publish<'a>(topic: &'a str, qos: u8, packet_id: u16, payload: &'a str) -> PacketRef<'a> {
        PacketRef::Publish(PublishRef {
            topic,
            qos: QoS::from_u8(qos).expect("a QoS"),
            packet_id: PacketId::new(packet_id),
            payload: payload.as_bytes(),
            ..PublishRef::default()
        })
    }

    /// PUBLISH with the retain flag.
    #[must_use]
    pub fn retained<'a>(topic: &'a str, qos: u8, packet_id: u16, payload: &'a str) -> PacketRef<'a> {
        match publish(topic, qos, packet_id, payload) {
            PacketRef::Publish(p) => PacketRef::Publish(PublishRef { retain: true, ..p }),
            other => other,
        }
    }

    /// UNSUBSCRIBE from one filter.
    ///
    /// # Panics
    /// If it is no filter.
    pub fn unsubscribe(packet_id: u16, filter: &str, send: impl FnOnce(&PacketRef<'_>)) {
        let mut filters = UnsubscribeFiltersBuf::new();
        filters.push(filter).expect("a filter");
        let (packet_id, properties) = (id(packet_id), mqtt_proto::Properties::EMPTY);
        send(&PacketRef::Unsubscribe(UnsubscribeRef {
            packet_id,
            properties,
            filters: filters.as_filters(),
        }));
    }

    /// A list with one filter.
    ///
    /// # Panics
    /// If it is no filter.
    #[must_use]
    pub fn filter(filter: &str, options: impl Into<SubscriptionOptions>) -> SubscribeFiltersBuf {
        let mut list = SubscribeFiltersBuf::new();
        list.push(filter, options.into()).expect("a filter");
        list
    }

    /// SUBSCRIBE.
    #[must_use]
    pub fn subscribe(packet_id: u16, filters: &SubscribeFiltersBuf) -> PacketRef<'_> {
        PacketRef::Subscribe(SubscribeRef {
            packet_id: id(packet_id),
            properties: mqtt_proto::Properties::EMPTY,
            filters: filters.as_filters(),
        })
    }

    /// PUBACK.
    #[must_use]
    pub fn puback(packet_id: u16) -> PacketRef<'static> {
        PacketRef::Puback(AckRef::from(id(packet_id)))
    }

    /// PUBREC.
    #[must_use]
    pub fn pubrec(packet_id: u16) -> PacketRef<'static> {
        PacketRef::Pubrec(AckRef::from(id(packet_id)))
    }

    /// PUBREL.
    #[must_use]
    pub fn pubrel(packet_id: u16) -> PacketRef<'static> {
        PacketRef::Pubrel(AckRef::from(id(packet_id)))
    }

    /// PUBCOMP.
    #[must_use]
    pub fn pubcomp(packet_id: u16) -> PacketRef<'static> {
        PacketRef::Pubcomp(AckRef::from(id(packet_id)))
    }
}

//! What dies with a connection.

use super::count::{Counters, count};
use super::output::{Closed, Peer, QuestionId};
use super::rate::Meter;
use super::shrink::{Shrink, is_too_large};
use crate::Timestamp;
use crate::random::KeyedHash;
use crate::shared::alias::{InboundAliases, OutboundAliases};
use crate::shared::framer::Framer;
use crate::shared::keep_alive::KeepAlive;
use crate::shared::window::Window;
use crate::store::StoreSeq;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use mqtt_proto::{MAX_PACKET_SIZE, PacketId, PacketType, QoS, ReasonCode, Version};

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// No CONNECT was accepted yet.
    Connecting,
    /// CONNECT was accepted.
    Live,
    /// The machine has hung up; the adapter has not closed it yet.
    Closing,
}

/// An acknowledgement that may not leave before something is stored. They leave in order.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeldAck {
    pub(super) kind: PacketType,
    pub(super) id: PacketId,
    pub(super) reason: ReasonCode,
    pub(super) after: StoreSeq,
    /// What it waits for on other shards; 0 for nothing.
    pub(super) ticket: u64,
}

/// What is rarely needed and so lives elsewhere.
#[derive(Debug)]
pub(super) struct Extras {
    pub(super) inbound: InboundAliases,
    pub(super) outbound: OutboundAliases<KeyedHash>,
    /// The method named in CONNECT.
    pub(super) auth_method: Option<Box<str>>,
    /// The CONNECT whose authentication exchange goes on.
    pub(super) handshake: Option<Vec<u8>>,
    /// SUBACKs and the like that wait to be stored: encoded, with what they wait for.
    pub(super) held_packets: VecDeque<(StoreSeq, Vec<u8>)>,
}

/// A packet that waits for an answer. It is taken up again from its bytes.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) question: QuestionId,
    /// When it came.
    pub(super) since: Timestamp,
    pub(super) packet: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) generation: u32,
    pub(super) phase: Phase,
    pub(super) version: Version,
    pub(super) session: Option<u32>,
    pub(super) framer: Framer,
    /// Bytes on their way out, and how many of them the socket took.
    pub(super) out: Vec<u8>,
    pub(super) out_taken: usize,
    /// Packets of `out`, until it is taken as a whole.
    pub(super) packets: u32,
    /// Bytes of `out` that came straight from a packet since the adapter last asked.
    pub(super) through: u32,
    /// How many bytes the adapter took at once when it last asked. With so many, `out` is full.
    pub(super) room: u32,
    /// Bytes and packets of it that the broker's figures hold.
    pub(super) noted: (u32, u32),
    /// Nothing of `out` may leave before this much is stored.
    pub(super) gate: StoreSeq,
    pub(super) acks: VecDeque<HeldAck>,
    pub(super) window: Window,
    pub(super) keep_alive: KeepAlive,
    /// When the first of what waits to be read came.
    pub(super) held_since: Timestamp,
    /// When it is looked at next; the timer that is armed.
    pub(super) deadline: Timestamp,
    /// CONNECT, a closing link or a stalled write has to be done by then.
    pub(super) limit: Timestamp,
    pub(super) stalled: Timestamp,
    /// When what is not answered is sent again, if that is switched on.
    pub(super) resend: Timestamp,
    /// The largest packet that the client takes.
    pub(super) max_packet: u32,
    /// QoS 1 and 2 messages that the client has under way on this link.
    pub(super) inbound: u16,
    pub(super) flush_queued: bool,
    /// There is more to send than the last outbox could hold.
    pub(super) more: bool,
    /// It has input that a call's budget did not reach.
    pub(super) backlogged: bool,
    /// Reading has to wait.
    pub(super) paused: bool,
    /// It published more than another shard has room for.
    pub(super) starved: bool,
    /// Its session lives on this shard, or it is on its way to where that is.
    pub(super) is_home: bool,
    pub(super) moving: bool,
    /// The socket is gone; what it sent is still worked on.
    pub(super) gone: bool,
    /// Reason strings may be sent on every packet ([MQTT-3.1.2-29]).
    pub(super) problem_information: bool,
    /// Why it is being closed.
    pub(super) reason: ReasonCode,
    /// How the adapter saw it end, if it did.
    pub(super) closed: Option<Closed>,
    /// When CONNECT was accepted.
    pub(super) since: Timestamp,
    /// PUBLISH packets of both directions.
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) extras: Option<Box<Extras>>,
    pub(super) pending: Option<Box<Pending>>,
    pub(super) peer: Option<Box<Peer>>,
    /// How fast it sends, if that is limited.
    pub(super) meter: Option<Box<Meter>>,
    /// [`Peer::listener`], which is asked for as long as the connection lasts.
    pub(super) listener: u16,
}

/// What [`Connection::room`] is until the adapter has asked.
const ROOM: u32 = 64 << 10;

impl Connection {
    pub(super) fn new(generation: u32, now: Timestamp, limit: Timestamp) -> Self {
        Self {
            generation,
            phase: Phase::Connecting,
            version: Version::V5,
            session: None,
            framer: Framer::default(),
            out: Vec::new(),
            out_taken: 0,
            packets: 0,
            through: 0,
            room: ROOM,
            noted: (0, 0),
            gate: StoreSeq(0),
            acks: VecDeque::new(),
            window: Window::new(0),
            keep_alive: KeepAlive::new(0, now),
            held_since: Timestamp::MAX,
            deadline: limit,
            limit,
            stalled: Timestamp::MAX,
            resend: Timestamp::MAX,
            max_packet: MAX_PACKET_SIZE,
            inbound: 0,
            flush_queued: false,
            more: false,
            backlogged: false,
            paused: false,
            starved: false,
            is_home: false,
            moving: false,
            gone: false,
            problem_information: true,
            reason: ReasonCode::UnspecifiedError,
            closed: None,
            since: now,
            received: 0,
            sent: 0,
            extras: None,
            pending: None,
            peer: None,
            meter: None,
            listener: 0,
        }
    }

    pub(super) fn out_len(&self) -> usize {
        self.out.len() - self.out_taken.min(self.out.len())
    }

    /// A PUBLISH was put into `out`.
    pub(super) fn note_publish(&mut self, counters: &mut Counters, qos: QoS, payload: usize) {
        self.packets += 1;
        self.sent += 1;
        count(&mut counters.publish_sent, qos);
        counters.payload_sent += payload as u64;
    }

    /// When it has to be looked at, as things stand.
    pub(super) fn next_deadline(&self) -> Timestamp {
        let keep_alive = match self.phase {
            // Suspended while reading is paused: the client cannot be heard.
            Phase::Live if !self.paused && !self.backlogged => self.keep_alive.peer_deadline(),
            _ => None,
        };
        let metered = self.meter.as_ref().map_or(Timestamp::MAX, |meter| meter.until);
        self.limit.min(self.stalled).min(self.resend).min(metered).min(keep_alive.unwrap_or(Timestamp::MAX))
    }
}

/// Connections by number. The generation tells one from another that had the number before.
#[derive(Debug, Default)]
pub(super) struct Connections {
    places: Vec<Option<Connection>>,
    free: Vec<u32>,
    generation: u32,
}

impl Connections {
    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    pub(super) fn insert(&mut self, make: impl FnOnce(u32) -> Connection) -> (u32, u32) {
        // Wraps after 2^32 connections; an old identifier is long forgotten then.
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let connection = make(generation);
        let index = match self.free.pop() {
            Some(index) => {
                if let Some(place) = self.places.get_mut(index as usize) {
                    *place = Some(connection);
                }
                index
            }
            None => {
                self.places.push(Some(connection));
                u32::try_from(self.places.len() - 1).unwrap_or(u32::MAX)
            }
        };
        (index, generation)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut Connection> {
        self.places.get_mut(index as usize)?.as_mut()
    }

    pub(super) fn get(&self, index: u32) -> Option<&Connection> {
        self.places.get(index as usize)?.as_ref()
    }

    pub(super) fn remove(&mut self, index: u32) -> Option<Connection> {
        let connection = self.places.get_mut(index as usize)?.take()?;
        self.free.push(index);
        Some(connection)
    }

    /// Gives back the memory of the places at the end, if there are many more than connections.
    pub(super) fn shrink(&mut self) {
        if is_too_large(self.len(), self.places.capacity()) {
            let end = self.places.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
            self.places.truncate(end);
            self.places.shrink_to_fit();
            self.free.retain(|&index| (index as usize) < end);
            self.free.shrink();
        }
    }

    pub(super) fn indices(&self) -> impl Iterator<Item = u32> + use<> {
        let open: Vec<u32> =
            (0u32..).zip(&self.places).filter(|(_, c)| c.is_some()).map(|(i, _)| i).collect();
        open.into_iter()
    }
}

//! What dies with a connection: bytes under way, windows, aliases, keep alive, acknowledgements owed.

use super::event::{Limits, Token};
use crate::random::IdMap;
use crate::shared::alias::{InboundAliases, OutboundAliases};
use crate::shared::framer::Framer;
use crate::shared::keep_alive::KeepAlive;
use crate::shared::segments::Segments;
use crate::shared::window::Window;
use crate::{StoreSeq, Timestamp};
use alloc::collections::VecDeque;
use foldhash::fast::FixedState;
use mqtt_proto::{MAX_PACKET_SIZE, PacketId, QoS, ReasonCode};

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// CONNECT was sent.
    Connecting,
    /// CONNACK arrived.
    Online,
    /// The last packet is in the outbox; nothing is sent or read any more.
    Farewell,
}

/// Whose turn it is in enhanced authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AuthTurn {
    /// None is under way.
    Idle,
    /// The server's.
    Server,
    /// The application's.
    Application,
}

/// A packet that answers and has to wait for its turn or for the store.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reply {
    pub(super) kind: ReplyKind,
    pub(super) id: PacketId,
    pub(super) reason: ReasonCode,
    pub(super) after: StoreSeq,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReplyKind {
    Pubrel,
    Pubcomp,
}

/// More answers than a peer that reads them can cause.
pub(super) const MAX_REPLIES: usize = 1 << 17;

/// The acknowledgement owed for one PUBLISH above QoS 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct OwedAck {
    pub(super) id: PacketId,
    pub(super) qos: QoS,
    /// `None` while the application has not acknowledged.
    pub(super) reason: Option<ReasonCode>,
    pub(super) after: StoreSeq,
    pub(super) size: usize,
}

/// Acknowledgements in the order of the PUBLISH packets ([MQTT-4.6.0-2], [MQTT-4.6.0-3]), whatever
/// the order in which the application gives them.
#[derive(Debug, Default)]
pub(super) struct Acks {
    owed: VecDeque<OwedAck>,
    /// Number of the first.
    base: u64,
    bytes: usize,
}

impl Acks {
    /// Appends, and tells its number.
    pub(super) fn push(&mut self, ack: OwedAck) -> u64 {
        self.bytes += ack.size;
        self.owed.push_back(ack);
        self.base + self.owed.len() as u64 - 1
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut OwedAck> {
        let index = usize::try_from(number.checked_sub(self.base)?).ok()?;
        self.owed.get_mut(index)
    }

    /// Those for QoS 2 and `id`, oldest first: the first packet and its repetitions.
    pub(super) fn of_qos2(&mut self, id: PacketId) -> impl Iterator<Item = &mut OwedAck> {
        self.owed.iter_mut().filter(move |ack| ack.id == id && ack.qos == QoS::ExactlyOnce)
    }

    /// The first, if it may leave.
    pub(super) fn ready(&self, stored: StoreSeq) -> Option<(OwedAck, ReasonCode)> {
        let ack = self.owed.front().filter(|ack| ack.after <= stored)?;
        Some((*ack, ack.reason?))
    }

    pub(super) fn pop(&mut self) {
        if let Some(ack) = self.owed.pop_front() {
            self.base += 1;
            self.bytes -= ack.size;
        }
    }

    pub(super) fn len(&self) -> usize {
        self.owed.len()
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }
}

pub(super) struct Link {
    pub(super) stage: Stage,
    /// Counts links, so that acknowledgements of an old one are told apart.
    pub(super) epoch: u32,
    pub(super) framer: Framer,
    pub(super) out: Segments,
    /// QoS 0 messages in `out`: where each ends.
    pub(super) marks: VecDeque<(u64, Token)>,
    /// Filling stopped at its limit; there may be more to send.
    pub(super) more: bool,
    pub(super) replies: VecDeque<Reply>,
    pub(super) acks: Acks,
    /// QoS 1 and 2 messages that we may have under way.
    pub(super) window: Window,
    /// QoS 1 and 2 messages that the server may have under way.
    pub(super) inbound: Window,
    /// QoS 2 identifiers that hold a place in `inbound`.
    pub(super) counted: IdMap<u16, ()>,
    pub(super) inbound_aliases: InboundAliases,
    pub(super) aliases: OutboundAliases<FixedState>,
    pub(super) limits: Limits,
    pub(super) sent: KeepAlive,
    pub(super) received: KeepAlive,
    /// PINGREQ is unanswered since then.
    pub(super) ping: Option<Timestamp>,
    pub(super) auth: AuthTurn,
    pub(super) since: Timestamp,
    /// The last time that something was sent that has to be acknowledged, or an acknowledgement came.
    pub(super) progress: Timestamp,
    /// CONNECT said Clean Start.
    pub(super) clean_start: bool,
}

impl Link {
    pub(super) fn new(epoch: u32, clean_start: bool, now: Timestamp) -> Self {
        Self {
            stage: Stage::Connecting,
            epoch,
            framer: Framer::default(),
            out: Segments::default(),
            marks: VecDeque::new(),
            more: false,
            replies: VecDeque::new(),
            acks: Acks::default(),
            window: Window::new(0),
            inbound: Window::new(0),
            counted: IdMap::default(),
            inbound_aliases: InboundAliases::new(0),
            aliases: OutboundAliases::new(0, FixedState::default()),
            limits: Limits {
                in_flight: 0,
                max_packet_size: MAX_PACKET_SIZE,
                max_qos: QoS::ExactlyOnce,
                retain: true,
                wildcard_subscriptions: true,
                shared_subscriptions: true,
                subscription_ids: true,
                topic_aliases: 0,
                keep_alive_secs: 0,
                session_expiry_secs: 0,
            },
            sent: KeepAlive::new(0, now),
            received: KeepAlive::new(0, now),
            ping: None,
            auth: AuthTurn::Idle,
            since: now,
            progress: now,
            clean_start,
        }
    }

    pub(super) fn is_online(&self) -> bool {
        self.stage == Stage::Online
    }

    /// When PINGREQ is due: nothing was sent, or nothing arrived, for a keep alive [MQTT-3.1.2-20]
    /// ([MQTT-3.1.2-23] of 3.1.1). The latter finds links that swallow what is sent.
    pub(super) fn ping_due(&self) -> Option<Timestamp> {
        let received = self.received.own_deadline().filter(|_| self.ping.is_none());
        [self.sent.own_deadline(), received].into_iter().flatten().min()
    }

    /// Since when PINGREQ is unanswered and nothing else arrived either.
    pub(super) fn silent_since(&self) -> Option<Timestamp> {
        self.ping.map(|since| since.max(self.received.last()))
    }
}

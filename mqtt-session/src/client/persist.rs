//! Store operations of a client: what is emitted, what waits for them, and how a client is made from
//! what is stored.
//!
//! The store holds one session. Each message above QoS 0 is a body and an entry, both under the
//! number of its token. An entry that holds a packet identifier is an exchange. Orders that matter:
//!
//! * PUBLISH waits until its exchange is stored, else a restart would send it under a new identifier.
//! * PUBREL waits until the stage is stored, else a restart would send PUBLISH again.
//! * PUBREC waits until the identifier is stored, else a restart would deliver the message twice.
//! * PUBCOMP waits until the identifier is deleted, else it could suppress a new message.

use super::config::ClientConfig;
use super::event::Token;
use super::session::{Outgoing, Session};
use crate::shared::ledger::Stage;
use crate::shared::received::Receipt;
use crate::store::{
    Durability, EntryId, MessageId, SessionId, StoreGroup, StoreOp, StoreSeq, StoredDelivery, StoredMessage,
    StoredSession, StoredStage,
};
use crate::{Message, Timestamp};
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec;
use alloc::vec::Vec;
use bytes::{BufMut, Bytes, BytesMut};
use mqtt_proto::{PacketId, Properties, PropertiesBuf, PropertyContext, QoS};

/// Groups that are not confirmed, and how far the store is.
#[derive(Debug)]
pub(super) struct StoreLog {
    on: bool,
    last: StoreSeq,
    stored: StoreSeq,
    /// The unconfirmed groups, to be given to a store that was opened again.
    pending: VecDeque<(StoreSeq, StoreGroup)>,
    bytes: usize,
    failed: bool,
    pub(super) session: SessionId,
}

impl StoreLog {
    pub(super) fn new(durability: Durability) -> Self {
        Self {
            on: durability != Durability::Off,
            last: StoreSeq(0),
            stored: StoreSeq(0),
            pending: VecDeque::new(),
            bytes: 0,
            failed: false,
            session: SessionId(1),
        }
    }

    pub(super) const fn is_on(&self) -> bool {
        self.on
    }

    pub(super) const fn has_failed(&self) -> bool {
        self.failed
    }

    /// Everything up to here is stored.
    pub(super) const fn stored(&self) -> StoreSeq {
        self.stored
    }

    /// Everything that was emitted up to now.
    pub(super) const fn last(&self) -> StoreSeq {
        self.last
    }

    /// Bytes that wait for the store.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a group; what depends on it waits for the number. Without a store that is long confirmed.
    pub(super) fn emit(&mut self, ops: Vec<StoreOp>) -> Option<(StoreSeq, StoreGroup)> {
        if !self.on {
            return None;
        }
        let group = StoreGroup::new(ops);
        self.last = StoreSeq(self.last.0 + 1);
        self.bytes += group.size();
        self.pending.push_back((self.last, group.clone()));
        Some((self.last, group))
    }

    pub(super) fn confirm(&mut self, through: StoreSeq) {
        self.stored = self.stored.max(through.min(self.last));
        while let Some((seq, group)) = self.pending.front() {
            if *seq > self.stored {
                break;
            }
            self.bytes = self.bytes.saturating_sub(group.size());
            self.pending.pop_front();
        }
        if self.pending.is_empty() {
            self.failed = false;
        }
    }

    /// The store failed: everything unconfirmed is to be given to it again.
    pub(super) fn fail(&mut self) -> Vec<(StoreSeq, StoreGroup)> {
        self.failed = self.on;
        self.pending.iter().cloned().collect()
    }
}

pub(super) fn put_session(
    id: SessionId,
    session: &Session,
    config: &ClientConfig,
    expiry_secs: u32,
) -> StoreOp {
    StoreOp::PutSession(
        id,
        Box::new(StoredSession {
            client_id: session.client_id.clone(),
            user_name: config.user_name.clone(),
            acl: 0,
            expiry_secs,
            disconnected_at: None,
        }),
    )
}

pub(super) fn put_message(outgoing: &Outgoing) -> StoreOp {
    let Message { topic, payload, qos, retain, properties } = &outgoing.message;
    let list = properties.as_properties();
    let mut body = BytesMut::with_capacity(outgoing.message.size());
    body.put_slice(topic.as_bytes());
    body.put_slice(list.as_bytes());
    body.put_slice(payload);
    let stored = StoredMessage {
        body: body.freeze(),
        topic_len: u16::try_from(topic.len()).unwrap_or(u16::MAX),
        properties_len: u32::try_from(list.as_bytes().len()).unwrap_or(u32::MAX),
        qos: *qos,
        retain: *retain,
        expires_at: outgoing.expires_at.map(Timestamp::as_micros),
        author: None,
    };
    StoreOp::PutMessage(MessageId(outgoing.token.0), Box::new(stored))
}

pub(super) fn append(session: SessionId, outgoing: &Outgoing) -> StoreOp {
    let delivery = StoredDelivery {
        session,
        entry: EntryId(outgoing.token.0),
        qos: outgoing.message.qos,
        retain: outgoing.message.retain,
        subscription_ids: Box::default(),
    };
    StoreOp::Append(MessageId(outgoing.token.0), vec![delivery])
}

pub(super) fn put_exchange(session: SessionId, token: Token, id: PacketId, stage: StoredStage) -> StoreOp {
    StoreOp::PutExchange { session, entry: EntryId(token.0), packet_id: id, number: token.0, stage }
}

/// The message is done with.
pub(super) fn remove(session: SessionId, token: Token) -> Vec<StoreOp> {
    vec![StoreOp::RemoveEntry(session, EntryId(token.0)), StoreOp::DeleteMessage(MessageId(token.0))]
}

/// What one stored session holds.
#[derive(Default)]
struct Stored {
    record: Option<StoredSession>,
    /// In the order in which they were published, which is the order of their tokens.
    entries: BTreeMap<EntryId, MessageId>,
    exchanges: BTreeMap<EntryId, (PacketId, StoredStage)>,
    received: BTreeSet<PacketId>,
}

/// Makes a session from what is stored, and tells the highest token in it.
pub(super) fn restore(
    config: &ClientConfig,
    ops: impl IntoIterator<Item = StoreOp>,
) -> (Session, StoreLog, u64) {
    let mut messages: BTreeMap<MessageId, StoredMessage> = BTreeMap::new();
    let mut sessions: BTreeMap<SessionId, Stored> = BTreeMap::new();
    let mut last_token = 0;
    for op in ops {
        match op {
            StoreOp::PutSession(id, record) => sessions.entry(id).or_default().record = Some(*record),
            StoreOp::DeleteSession(id) => {
                sessions.remove(&id);
            }
            StoreOp::PutMessage(id, message) => {
                last_token = last_token.max(id.0);
                messages.insert(id, *message);
            }
            StoreOp::DeleteMessage(id) => {
                messages.remove(&id);
            }
            StoreOp::Append(id, deliveries) => {
                for delivery in deliveries {
                    sessions.entry(delivery.session).or_default().entries.insert(delivery.entry, id);
                }
            }
            StoreOp::RemoveEntry(id, entry) => {
                let stored = sessions.entry(id).or_default();
                stored.entries.remove(&entry);
                stored.exchanges.remove(&entry);
            }
            StoreOp::PutExchange { session, entry, packet_id, stage, .. } => {
                sessions.entry(session).or_default().exchanges.insert(entry, (packet_id, stage));
            }
            StoreOp::PutReceived(id, packet_id) => {
                sessions.entry(id).or_default().received.insert(packet_id);
            }
            StoreOp::DeleteReceived(id, packet_id) => {
                sessions.entry(id).or_default().received.remove(&packet_id);
            }
            _ => {}
        }
    }
    let mut log = StoreLog::new(config.durability);
    let mut session = Session { client_id: config.client_id.clone(), ..Session::default() };
    session.ledger.start_ids(config.first_packet_id);
    // Everything of a session without a record is void.
    let found =
        sessions.into_iter().rev().find_map(|(id, stored)| Some((id, stored.record.clone()?, stored)));
    if let Some((id, record, stored)) = found {
        log.session = id;
        session.established = record.expiry_secs > 0;
        if session.client_id.is_empty() {
            session.client_id = record.client_id;
        }
        for packet_id in stored.received {
            session.received.set(packet_id, Receipt::Acknowledged);
        }
        for (entry, message) in stored.entries {
            let Some(message) = messages.get(&message).and_then(load_message) else { continue };
            let outgoing = Outgoing { token: Token(entry.0), stored: true, ..message };
            match stored.exchanges.get(&entry) {
                Some((packet_id, stage)) => load_exchange(&mut session, *packet_id, *stage, outgoing),
                None => session.push(outgoing),
            }
        }
    }
    (session, log, last_token)
}

fn load_exchange(session: &mut Session, id: PacketId, stage: StoredStage, outgoing: Outgoing) {
    let qos = outgoing.message.qos;
    if session.ledger.contains(id) {
        return;
    }
    // Stored means that it may have been sent.
    match stage {
        StoredStage::Published => session.ledger.restore(id, qos, Stage::Publish, true, Some(outgoing)),
        StoredStage::Released => {
            session.released.insert(id.get(), (outgoing.token, true));
            session.ledger.restore(id, qos, Stage::Release, true, None);
        }
    }
    session.ledger.continue_after(id);
}

fn load_message(stored: &StoredMessage) -> Option<Outgoing> {
    let topic_len = usize::from(stored.topic_len);
    let properties_len = usize::try_from(stored.properties_len).ok()?;
    let (topic, rest) = stored.body.split_at_checked(topic_len)?;
    let (properties, _) = rest.split_at_checked(properties_len)?;
    let payload: Bytes = stored.body.slice(topic_len + properties_len..);
    let properties = Properties::parse(properties, PropertyContext::Publish).ok()?;
    let message = Message {
        topic: core::str::from_utf8(topic).ok()?.into(),
        payload,
        qos: if stored.qos == QoS::AtMostOnce { QoS::AtLeastOnce } else { stored.qos },
        retain: stored.retain,
        properties: PropertiesBuf::from(properties),
    };
    let expires_at = stored.expires_at.map(Timestamp::from_micros);
    Some(Outgoing { token: Token(0), message, expires_at, stored: true })
}

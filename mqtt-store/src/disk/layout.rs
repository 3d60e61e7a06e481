//! Keys and values: what a store operation is on disk.
//!
//! The table is in the first lines of the crate. Nothing here can fail on what this program wrote;
//! what does not decode is damage, and said so.

use bytes::Bytes;
use mqtt_proto::{PacketId, QoS, RetainHandling, SubscriptionOptions};
use mqtt_session::store::{
    EntryId, HandOver, MessageId, SessionId, StoredAuthor, StoredClock, StoredDelivery, StoredHandOver,
    StoredLimits, StoredMessage, StoredReplay, StoredSession, StoredShards, StoredStage, StoredWill,
};
use mqtt_session::{ShardId, StoreOp, Timestamp};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// The first byte of every value, but for replays.
const VERSION: u8 = 1;
/// That of a replay. Those of the first version had one last number for all shards.
const REPLAY_VERSION: u8 = 2;
/// Bytes of the checksum that ends every value.
const SUM: usize = 4;
/// A key may have 65,535 bytes. Of a longer text it has these first bytes and a hash of all; the text
/// is in the value then.
const TEXT_IN_KEY: usize = 60_000;
const HASH: usize = 16;

/// The first byte of a key. In the order in which records are loaded.
pub(super) mod tag {
    pub(crate) const MARK: u8 = 0;
    pub(crate) const LIMITS: u8 = 1;
    pub(crate) const CLOCK: u8 = 2;
    pub(crate) const SESSION: u8 = 3;
    pub(crate) const PACKET_ID: u8 = 4;
    pub(crate) const GROUP: u8 = 5;
    pub(crate) const SUBSCRIPTION: u8 = 6;
    pub(crate) const REPLAY: u8 = 7;
    pub(crate) const MESSAGE: u8 = 8;
    pub(crate) const RECEIVED: u8 = 9;
    pub(crate) const EXCHANGE: u8 = 10;
    pub(crate) const ENTRY: u8 = 11;
    pub(crate) const RETAINED: u8 = 12;
    pub(crate) const WILL: u8 = 13;
    pub(crate) const HAND_OVER: u8 = 14;
    pub(crate) const TAKEN: u8 = 15;
    /// Loaded before all others.
    pub(crate) const SHARDS: u8 = 16;

    /// What is void without a session or group, whose number follows the tag.
    pub(crate) const OWNED: [u8; 6] = [PACKET_ID, SUBSCRIPTION, REPLAY, RECEIVED, EXCHANGE, ENTRY];
}

/// What is to become of a message that is handed over.
const PUBLISH: u8 = 0;
const GROUP: u8 = 1;
const BACK: u8 = 2;

/// A change of one key: a value to put, or none to remove it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) key: Vec<u8>,
    pub(super) value: Option<Vec<u8>>,
}

impl Change {
    const fn remove(key: Vec<u8>) -> Self {
        Self { key, value: None }
    }
}

/// What is on the disk is no value of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Corrupt;

pub(super) fn key(tag: u8, ids: &[u64]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + ids.len() * 8);
    key.push(tag);
    ids.iter().for_each(|id| key.extend_from_slice(&id.to_be_bytes()));
    key
}

fn text_key(tag: u8, session: Option<SessionId>, text: &str) -> Vec<u8> {
    let ids = session.map(|id| id.0);
    let mut key = key(tag, ids.as_slice());
    match text.as_bytes().get(..TEXT_IN_KEY + 1) {
        None => key.extend_from_slice(text.as_bytes()),
        Some(long) => {
            key.extend_from_slice(long.get(..TEXT_IN_KEY).unwrap_or(long));
            key.extend_from_slice(&xxh3_128(text.as_bytes()).to_be_bytes());
        }
    }
    key
}

/// The key of how sessions are spread.
pub(super) fn shards_key() -> Vec<u8> {
    key(tag::SHARDS, &[])
}

/// The number of a shard but for the first, whose keys have none.
fn other_shard(shard: ShardId) -> Option<u64> {
    (shard.0 != 0).then_some(u64::from(shard.0))
}

/// The key of a hand-over (with its number) or of what was taken.
fn pair_key(tag: u8, first: ShardId, second: ShardId, number: Option<u64>) -> Vec<u8> {
    let mut key = key(tag, &[u64::from(first.0), u64::from(second.0)]);
    key.extend(number.into_iter().flat_map(u64::to_be_bytes));
    key
}

fn received_key(session: SessionId, id: PacketId) -> Vec<u8> {
    let mut key = key(tag::RECEIVED, &[session.0]);
    key.extend_from_slice(&id.get().to_be_bytes());
    key
}

fn sum(key: &[u8], value: &[u8]) -> [u8; SUM] {
    // The key is part of it: a value under another key is damage as well.
    let mut hasher = Xxh3::new();
    hasher.update(key);
    hasher.update(value);
    // The low half is as good as any.
    (hasher.digest() as u32).to_le_bytes()
}

/// Writes a value.
struct Value(Vec<u8>);

impl Value {
    fn new(capacity: usize) -> Self {
        Self::of_version(VERSION, capacity)
    }

    fn of_version(version: u8, capacity: usize) -> Self {
        let mut bytes = Vec::with_capacity(1 + capacity + SUM);
        bytes.push(version);
        Self(bytes)
    }

    fn u8(mut self, n: u8) -> Self {
        self.0.push(n);
        self
    }

    fn u16(self, n: u16) -> Self {
        self.raw(&n.to_le_bytes())
    }

    fn u32(self, n: u32) -> Self {
        self.raw(&n.to_le_bytes())
    }

    fn u64(self, n: u64) -> Self {
        self.raw(&n.to_le_bytes())
    }

    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn option(self, n: Option<u64>) -> Self {
        match n {
            None => self.u8(0),
            Some(n) => self.u8(1).u64(n),
        }
    }

    fn text(self, text: &str) -> Self {
        // Texts of the protocol are shorter than 2^16 bytes.
        self.u32(text.len() as u32).raw(text.as_bytes())
    }

    fn optional_text(self, text: Option<&str>) -> Self {
        match text {
            None => self.u8(0),
            Some(text) => self.u8(1).text(text),
        }
    }

    fn ids(self, ids: &[MessageId]) -> Self {
        // There are some hundreds at most.
        ids.iter().fold(self.u32(ids.len() as u32), |value, id| value.u64(id.0))
    }

    /// What of `text` its key does not hold.
    fn rest_of(self, text: &str) -> Self {
        self.optional_text((text.len() > TEXT_IN_KEY).then_some(text))
    }

    fn message(self, message: &StoredMessage) -> Self {
        let StoredMessage { body, topic_len, properties_len, qos, retain, expires_at, author } = message;
        self.u8(qos.as_u8() | u8::from(*retain) << 2)
            .option(*expires_at)
            .optional_author(author.as_deref())
            .u16(*topic_len)
            .u32(*properties_len)
            // Bodies of the protocol are shorter than 2^32 bytes.
            .u32(body.len() as u32)
            .raw(body)
    }

    fn author(self, author: &StoredAuthor) -> Self {
        let StoredAuthor { acl, client_id, user_name } = author;
        self.u16(*acl).text(client_id).optional_text(user_name.as_deref())
    }

    fn optional_author(self, author: Option<&StoredAuthor>) -> Self {
        match author {
            None => self.u8(0),
            Some(author) => self.u8(1).author(author),
        }
    }

    fn under(mut self, key: Vec<u8>) -> Change {
        let sum = sum(&key, &self.0);
        self.0.extend_from_slice(&sum);
        Change { key, value: Some(self.0) }
    }
}

/// Appends what `op` changes to `to`.
pub(super) fn encode(op: &StoreOp, to: &mut Vec<Change>) {
    let change = match op {
        StoreOp::PutShards(StoredShards { count, key: secret }) => {
            Value::new(18).u16(*count).raw(secret).under(shards_key())
        }
        StoreOp::PutLimits(shard, StoredLimits { sessions, messages, entries }) => {
            let key = key(tag::LIMITS, other_shard(*shard).as_slice());
            Value::new(24).u64(*sessions).u64(*messages).u64(*entries).under(key)
        }
        StoreOp::PutClock(StoredClock { time, unix_ms }) => {
            Value::new(16).u64(time.as_micros()).u64(*unix_ms).under(key(tag::CLOCK, &[]))
        }
        StoreOp::PutSession(id, session) => {
            let StoredSession { client_id, user_name, acl, expiry_secs, disconnected_at } = &**session;
            Value::new(64)
                .u32(*expiry_secs)
                .option(*disconnected_at)
                .u16(*acl)
                .text(client_id)
                .optional_text(user_name.as_deref())
                .under(key(tag::SESSION, &[id.0]))
        }
        StoreOp::DeleteSession(id) => Change::remove(key(tag::SESSION, &[id.0])),
        StoreOp::PutPacketId(session, id) => {
            Value::new(2).u16(id.get()).under(key(tag::PACKET_ID, &[session.0]))
        }
        StoreOp::PutGroup(id, filter) => {
            Value::new(4 + filter.len()).text(filter).under(key(tag::GROUP, &[id.0]))
        }
        StoreOp::DeleteGroup(id) => Change::remove(key(tag::GROUP, &[id.0])),
        StoreOp::PutSubscription { session, filter, options, id } => Value::new(16)
            .u8(options_byte(*options))
            .option(id.map(u64::from))
            .rest_of(filter)
            .under(text_key(tag::SUBSCRIPTION, Some(*session), filter)),
        StoreOp::DeleteSubscription { session, filter } => {
            Change::remove(text_key(tag::SUBSCRIPTION, Some(*session), filter))
        }
        StoreOp::PutReplay { session, filter, replay } => {
            let StoredReplay { after, until, except } = &**replay;
            Value::of_version(REPLAY_VERSION, 17 + (until.len() + except.len()) * 8)
                .u64(after.0)
                .ids(until)
                .ids(except)
                .rest_of(filter)
                .under(text_key(tag::REPLAY, Some(*session), filter))
        }
        StoreOp::DeleteReplay { session, filter } => {
            Change::remove(text_key(tag::REPLAY, Some(*session), filter))
        }
        StoreOp::PutMessage(id, message) => {
            Value::new(20 + message.body.len()).message(message).under(key(tag::MESSAGE, &[id.0]))
        }
        StoreOp::DeleteMessage(id) => Change::remove(key(tag::MESSAGE, &[id.0])),
        StoreOp::Append(message, deliveries) => {
            for StoredDelivery { session, entry, qos, retain, subscription_ids } in deliveries {
                let head = Value::new(9 + subscription_ids.len() * 4)
                    .u64(message.0)
                    .u8(qos.as_u8() | u8::from(*retain) << 2);
                let value = subscription_ids.iter().fold(head, |value, id| value.u32(*id));
                to.push(value.under(key(tag::ENTRY, &[session.0, entry.0])));
            }
            return;
        }
        StoreOp::RemoveEntry(session, entry) => {
            to.push(Change::remove(key(tag::EXCHANGE, &[session.0, entry.0])));
            Change::remove(key(tag::ENTRY, &[session.0, entry.0]))
        }
        StoreOp::PutExchange { session, entry, packet_id, number, stage } => Value::new(11)
            .u16(packet_id.get())
            .u64(*number)
            .u8(match stage {
                StoredStage::Published => 0,
                StoredStage::Released => 1,
            })
            .under(key(tag::EXCHANGE, &[session.0, entry.0])),
        StoreOp::PutReceived(session, id) => Value::new(0).under(received_key(*session, *id)),
        StoreOp::DeleteReceived(session, id) => Change::remove(received_key(*session, *id)),
        StoreOp::PutRetained(topic, message) => {
            Value::new(9).u64(message.0).rest_of(topic).under(text_key(tag::RETAINED, None, topic))
        }
        StoreOp::DeleteRetained(topic) => Change::remove(text_key(tag::RETAINED, None, topic)),
        StoreOp::PutWill(session, will) => {
            let StoredWill { message, delay_secs, author } = &**will;
            Value::new(64 + message.body.len())
                .u32(*delay_secs)
                .author(author)
                .message(message)
                .under(key(tag::WILL, &[session.0]))
        }
        StoreOp::DeleteWill(session) => Change::remove(key(tag::WILL, &[session.0])),
        StoreOp::PutHandOver(record) => {
            let StoredHandOver { from, to, number, message, purpose } = &**record;
            let key = pair_key(tag::HAND_OVER, *from, *to, Some(*number));
            let value = Value::new(16).u64(message.0);
            let value = match purpose {
                HandOver::Publish { deliver, retain } => {
                    value.u8(PUBLISH).u8(u8::from(*deliver) | u8::from(*retain) << 1)
                }
                HandOver::Group(filter) => value.u8(GROUP).text(filter),
                HandOver::Back(filter) => value.u8(BACK).text(filter),
            };
            value.under(key)
        }
        StoreOp::DeleteHandOver { from, to, number } => {
            Change::remove(pair_key(tag::HAND_OVER, *from, *to, Some(*number)))
        }
        StoreOp::PutTaken { by, from, number } => {
            Value::new(8).u64(*number).under(pair_key(tag::TAKEN, *by, *from, None))
        }
        StoreOp::DeleteTaken { by, from } => Change::remove(pair_key(tag::TAKEN, *by, *from, None)),
    };
    to.push(change);
}

fn options_byte(options: SubscriptionOptions) -> u8 {
    let SubscriptionOptions { qos, no_local, retain_as_published, retain_handling } = options;
    qos.as_u8() | u8::from(no_local) << 2 | u8::from(retain_as_published) << 3 | (retain_handling as u8) << 4
}

fn options(byte: u8) -> Result<SubscriptionOptions, Corrupt> {
    Ok(SubscriptionOptions {
        qos: QoS::from_u8(byte & 3).ok_or(Corrupt)?,
        no_local: byte & 4 != 0,
        retain_as_published: byte & 8 != 0,
        retain_handling: RetainHandling::from_u8(byte >> 4).ok_or(Corrupt)?,
    })
}

/// Reads a key or a value.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], Corrupt> {
        let (head, tail) = self.0.split_at_checked(n).ok_or(Corrupt)?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Corrupt> {
        self.take(N)?.try_into().map_err(|_| Corrupt)
    }

    fn u8(&mut self) -> Result<u8, Corrupt> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16, Corrupt> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, Corrupt> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Corrupt> {
        self.array().map(u64::from_le_bytes)
    }

    /// A number in a key.
    fn id(&mut self) -> Result<u64, Corrupt> {
        self.array().map(u64::from_be_bytes)
    }

    /// The number of a shard in a key.
    fn shard(&mut self) -> Result<ShardId, Corrupt> {
        u16::try_from(self.id()?).map(ShardId).map_err(|_| Corrupt)
    }

    fn flag(&mut self) -> Result<bool, Corrupt> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Corrupt),
        }
    }

    fn option(&mut self) -> Result<Option<u64>, Corrupt> {
        if self.flag()? { self.u64().map(Some) } else { Ok(None) }
    }

    fn ids(&mut self) -> Result<Vec<MessageId>, Corrupt> {
        let count = self.u32()?;
        // Grows with what is there.
        (0..count).map(|_| self.u64().map(MessageId)).collect()
    }

    fn text(&mut self) -> Result<String, Corrupt> {
        let len = self.u32()?;
        text(self.take(len as usize)?)
    }

    fn optional_text(&mut self) -> Result<Option<String>, Corrupt> {
        if self.flag()? { self.text().map(Some) } else { Ok(None) }
    }

    /// The text whose beginning is the rest of `key`.
    fn text_under(&mut self, key: Self) -> Result<String, Corrupt> {
        match self.optional_text()? {
            Some(text) => Ok(text),
            None => text(key.0),
        }
    }

    fn packet_id(&mut self) -> Result<PacketId, Corrupt> {
        PacketId::new(self.u16()?).ok_or(Corrupt)
    }

    fn author(&mut self) -> Result<StoredAuthor, Corrupt> {
        Ok(StoredAuthor { acl: self.u16()?, client_id: self.text()?, user_name: self.optional_text()? })
    }

    fn optional_author(&mut self) -> Result<Option<Box<StoredAuthor>>, Corrupt> {
        if self.flag()? { self.author().map(|author| Some(Box::new(author))) } else { Ok(None) }
    }

    fn message(&mut self) -> Result<StoredMessage, Corrupt> {
        let flags = self.u8()?;
        let expires_at = self.option()?;
        let author = self.optional_author()?;
        let (topic_len, properties_len, len) = (self.u16()?, self.u32()?, self.u32()?);
        if u64::from(topic_len) + u64::from(properties_len) > u64::from(len) {
            return Err(Corrupt);
        }
        Ok(StoredMessage {
            // A copy: what is read lies in a block with others, all of which it would keep.
            body: Bytes::copy_from_slice(self.take(len as usize)?),
            topic_len,
            properties_len,
            qos: QoS::from_u8(flags & 3).ok_or(Corrupt)?,
            retain: flags & 4 != 0,
            expires_at,
            author,
        })
    }
}

fn text(bytes: &[u8]) -> Result<String, Corrupt> {
    String::from_utf8(bytes.to_vec()).map_err(|_| Corrupt)
}

/// The payload of a value, whose checksum is right, and its version.
fn versioned<'a>(key: &[u8], value: &'a [u8]) -> Result<(u8, Reader<'a>), Corrupt> {
    let (body, stored) =
        value.len().checked_sub(SUM).and_then(|n| value.split_at_checked(n)).ok_or(Corrupt)?;
    if stored != sum(key, body) {
        return Err(Corrupt);
    }
    body.split_first().map(|(version, rest)| (*version, Reader(rest))).ok_or(Corrupt)
}

/// The payload of a value of the first version.
fn payload<'a>(key: &[u8], value: &'a [u8]) -> Result<Reader<'a>, Corrupt> {
    match versioned(key, value)? {
        (VERSION, payload) => Ok(payload),
        _ => Err(Corrupt),
    }
}

/// That of a replay.
fn replay(version: u8, v: &mut Reader<'_>) -> Result<StoredReplay, Corrupt> {
    let after = MessageId(v.u64()?);
    match version {
        VERSION => Ok(match v.u64()? {
            // With several shards, how far it was is not known.
            u64::MAX => StoredReplay::default(),
            until => StoredReplay { after, until: vec![MessageId(until)], except: Vec::new() },
        }),
        REPLAY_VERSION => Ok(StoredReplay { after, until: v.ids()?, except: v.ids()? }),
        _ => Err(Corrupt),
    }
}

/// The operation that put `value` under `key`; `None` for the mark.
pub(super) fn decode(key: &[u8], value: &[u8]) -> Result<Option<StoreOp>, Corrupt> {
    let (version, v) = &mut versioned(key, value)?;
    let k = &mut Reader(key);
    let tag = k.u8()?;
    if *version != VERSION && tag != tag::REPLAY {
        return Err(Corrupt);
    }
    let op = match tag {
        tag::MARK => return Ok(None),
        tag::LIMITS => {
            let shard = if k.0.is_empty() { ShardId(0) } else { k.shard()? };
            let limits = StoredLimits { sessions: v.u64()?, messages: v.u64()?, entries: v.u64()? };
            StoreOp::PutLimits(shard, limits)
        }
        tag::CLOCK => {
            StoreOp::PutClock(StoredClock { time: Timestamp::from_micros(v.u64()?), unix_ms: v.u64()? })
        }
        tag::SESSION => {
            let (expiry_secs, disconnected_at, acl) = (v.u32()?, v.option()?, v.u16()?);
            let (client_id, user_name) = (v.text()?, v.optional_text()?);
            let record = StoredSession { client_id, user_name, acl, expiry_secs, disconnected_at };
            StoreOp::PutSession(SessionId(k.id()?), Box::new(record))
        }
        tag::PACKET_ID => StoreOp::PutPacketId(SessionId(k.id()?), v.packet_id()?),
        tag::GROUP => StoreOp::PutGroup(SessionId(k.id()?), v.text()?),
        tag::SUBSCRIPTION => {
            let session = SessionId(k.id()?);
            let options = options(v.u8()?)?;
            let id = v.option()?.map(u32::try_from).transpose().map_err(|_| Corrupt)?;
            let filter = v.text_under(Reader(std::mem::take(&mut k.0)))?;
            StoreOp::PutSubscription { session, filter, options, id }
        }
        tag::REPLAY => {
            let session = SessionId(k.id()?);
            let replay = Box::new(replay(*version, v)?);
            let filter = v.text_under(Reader(std::mem::take(&mut k.0)))?;
            StoreOp::PutReplay { session, filter, replay }
        }
        tag::MESSAGE => StoreOp::PutMessage(MessageId(k.id()?), Box::new(v.message()?)),
        tag::RECEIVED => {
            let session = SessionId(k.id()?);
            let id = k.array().map(u16::from_be_bytes)?;
            StoreOp::PutReceived(session, PacketId::new(id).ok_or(Corrupt)?)
        }
        tag::EXCHANGE => StoreOp::PutExchange {
            session: SessionId(k.id()?),
            entry: EntryId(k.id()?),
            packet_id: v.packet_id()?,
            number: v.u64()?,
            stage: if v.flag()? { StoredStage::Released } else { StoredStage::Published },
        },
        tag::ENTRY => {
            let (session, entry) = (SessionId(k.id()?), EntryId(k.id()?));
            let (message, flags) = (MessageId(v.u64()?), v.u8()?);
            let mut subscription_ids = Vec::with_capacity(v.0.len() / 4);
            while !v.0.is_empty() {
                subscription_ids.push(v.u32()?);
            }
            let delivery = StoredDelivery {
                session,
                entry,
                qos: QoS::from_u8(flags & 3).ok_or(Corrupt)?,
                retain: flags & 4 != 0,
                subscription_ids: subscription_ids.into(),
            };
            StoreOp::Append(message, vec![delivery])
        }
        tag::RETAINED => {
            let message = MessageId(v.u64()?);
            StoreOp::PutRetained(v.text_under(Reader(std::mem::take(&mut k.0)))?, message)
        }
        tag::WILL => {
            let (delay_secs, author) = (v.u32()?, v.author()?);
            let will = StoredWill { message: v.message()?, delay_secs, author };
            StoreOp::PutWill(SessionId(k.id()?), Box::new(will))
        }
        tag::HAND_OVER => {
            let (from, to, number) = (k.shard()?, k.shard()?, k.id()?);
            let message = MessageId(v.u64()?);
            let purpose = match v.u8()? {
                PUBLISH => {
                    let flags = v.u8()?;
                    HandOver::Publish { deliver: flags & 1 != 0, retain: flags & 2 != 0 }
                }
                GROUP => HandOver::Group(v.text()?),
                BACK => HandOver::Back(v.text()?),
                _ => return Err(Corrupt),
            };
            StoreOp::PutHandOver(Box::new(StoredHandOver { from, to, number, message, purpose }))
        }
        tag::TAKEN => StoreOp::PutTaken { by: k.shard()?, from: k.shard()?, number: v.u64()? },
        tag::SHARDS => StoreOp::PutShards(StoredShards { count: v.u16()?, key: v.array()? }),
        _ => return Err(Corrupt),
    };
    if k.0.is_empty() && v.0.is_empty() { Ok(Some(op)) } else { Err(Corrupt) }
}

/// The number of the session or group that `key` belongs to, if it is void without one.
pub(super) fn owner(key: &[u8]) -> Option<u64> {
    let k = &mut Reader(key);
    k.u8().ok().filter(|tag| tag::OWNED.contains(tag)).and_then(|_| k.id().ok())
}

/// Stands first in every batch, so that what is a batch of this store can be told from what a peer
/// sent as a payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// Drawn when the store was made; nobody else knows it.
    pub(super) secret: [u8; 16],
    /// The number of the batch.
    pub(super) batch: u64,
    /// All batches up to this one were synced before this one was written.
    pub(super) synced: u64,
    /// fjall's sequence number of this batch is this one or a little above.
    pub(super) sequence: u64,
}

/// Where the secret stands in the value of a mark.
pub(super) const SECRET_AT: usize = 1;

impl Mark {
    pub(super) fn encode(&self) -> Change {
        let Self { secret, batch, synced, sequence } = self;
        Value::new(40).raw(secret).u64(*batch).u64(*synced).u64(*sequence).under(key(tag::MARK, &[]))
    }

    pub(super) fn decode(key: &[u8], value: &[u8]) -> Result<Self, Corrupt> {
        if key != [tag::MARK] {
            return Err(Corrupt);
        }
        let v = &mut payload(key, value)?;
        let mark = Self { secret: v.array()?, batch: v.u64()?, synced: v.u64()?, sequence: v.u64()? };
        if v.0.is_empty() { Ok(mark) } else { Err(Corrupt) }
    }
}

const _: () = assert!(1 + 8 + TEXT_IN_KEY + HASH <= u16::MAX as usize);

#[cfg(test)]
mod tests;

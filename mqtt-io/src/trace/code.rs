//! How values stand in a trace: numbers as varints of seven bits a byte (a byte as itself), texts and bytes behind their
//! length, options behind a flag, lists behind their count, variants behind a number.

use bytes::Bytes;
use mqtt_proto::{
    PacketId, PacketRef, PropertiesBuf, PublishRef, QoS, ReasonCode, RetainHandling, SubscriptionOptions,
    Version,
};
use mqtt_session::acl::{Access, Acl, Mode, Who};
use mqtt_session::broker::{
    Answer, AskFor, BrokerConfig, Closed, ConnectionId, Grant, LocalId, Overflow, Peer, QuestionId, Rates,
    RefusedFilter31,
};
use mqtt_session::store::{
    EntryId, HandOver, MessageId, SessionId, StoreOp, StoredAuthor, StoredClock, StoredDelivery,
    StoredHandOver, StoredLimits, StoredMessage, StoredReplay, StoredSession, StoredShards, StoredStage,
    StoredWill,
};
use mqtt_session::{Durability, Message, Seed, ShardCredit, ShardId, StoreSeq, Timestamp};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// A value that can stand in a trace. Reading gives `None` if the bytes are no such value.
pub(super) trait Code: Sized {
    fn put(&self, out: &mut Vec<u8>);
    fn get(from: &mut &[u8]) -> Option<Self>;
}

/// Takes so many bytes.
pub(super) fn take<'a>(from: &mut &'a [u8], n: usize) -> Option<&'a [u8]> {
    let (head, rest) = from.split_at_checked(n)?;
    *from = rest;
    Some(head)
}

impl Code for u64 {
    fn put(&self, out: &mut Vec<u8>) {
        let mut left = *self;
        while left > 0x7F {
            out.push(0x80 | (left & 0x7F) as u8);
            left >>= 7;
        }
        out.push(left as u8);
    }

    fn get(from: &mut &[u8]) -> Option<Self> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = take(from, 1)?.first()?;
            value |= Self::from(byte & 0x7F).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

/// Numbers that are written as `u64`.
macro_rules! numbers {
    ($($type:ty)*) => {
        $(impl Code for $type {
            fn put(&self, out: &mut Vec<u8>) {
                // Nothing here is wider than 64 bits.
                (*self as u64).put(out);
            }
            fn get(from: &mut &[u8]) -> Option<Self> {
                u64::get(from)?.try_into().ok()
            }
        })*
    };
}
numbers! { u16 u32 usize }

impl Code for u8 {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(*self);
    }

    fn get(from: &mut &[u8]) -> Option<Self> {
        take(from, 1)?.first().copied()
    }
}

/// Values with one number inside.
macro_rules! wrapped {
    ($($type:ty: $into:expr, $from:expr;)*) => {
        $(impl Code for $type {
            fn put(&self, out: &mut Vec<u8>) {
                let into: fn(&Self) -> _ = $into;
                into(self).put(out);
            }
            fn get(from: &mut &[u8]) -> Option<Self> {
                let make: fn(_) -> Option<Self> = $from;
                make(Code::get(from)?)
            }
        })*
    };
}
wrapped! {
    bool: |v| u8::from(*v), |n: u8| match n { 0 => Some(false), 1 => Some(true), _ => None };
    Timestamp: |v| v.as_micros(), |n: u64| Some(Self::from_micros(n));
    StoreSeq: |v| v.0, |n: u64| Some(Self(n));
    SessionId: |v| v.0, |n: u64| Some(Self(n));
    MessageId: |v| v.0, |n: u64| Some(Self(n));
    EntryId: |v| v.0, |n: u64| Some(Self(n));
    ShardId: |v| v.0, |n: u16| Some(Self(n));
    ConnectionId: |v| v.to_bits(), |n: u64| Some(Self::from_bits(n));
    QuestionId: |v| v.to_bits(), |n: u64| Some(Self::from_bits(n));
    LocalId: |v| v.to_bits(), |n: u32| Some(Self::from_bits(n));
    PacketId: |v| v.get(), |n: u16| Self::new(n);
    QoS: |v| v.as_u8(), |n: u8| Self::from_u8(n);
    ReasonCode: |v| v.as_u8(), |n: u8| Self::ALL.iter().copied().find(|code| code.as_u8() == n);
    Version: |v| v.level(), |n: u8| [Self::V31, Self::V311, Self::V5].into_iter().find(|v| v.level() == n);
    StoredShards: |v| (v.count, v.key.to_vec()), |(count, key): (u16, Vec<u8>)| {
        Some(Self { count, key: key.try_into().ok()? })
    };
    Seed: |v| v.0.to_vec(), |bytes: Vec<u8>| Some(Self(bytes.try_into().ok()?));
    SocketAddr: |v| v.to_string(), |text: String| text.parse().ok();
    Duration: |v| (v.as_secs(), v.subsec_nanos()), |(secs, nanos): (u64, u32)| {
        (nanos < 1_000_000_000).then(|| Self::new(secs, nanos))
    };
    String: |v| v.as_bytes().to_vec(), |bytes: Vec<u8>| Self::from_utf8(bytes).ok();
    Bytes: |v| v.to_vec(), |bytes: Vec<u8>| Some(bytes.into());
}

impl<A: Code, B: Code> Code for (A, B) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }

    fn get(from: &mut &[u8]) -> Option<Self> {
        Some((A::get(from)?, B::get(from)?))
    }
}

impl<T: Code> Code for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        if let Some(value) = self {
            value.put(out);
        }
    }

    fn get(from: &mut &[u8]) -> Option<Self> {
        Some(if bool::get(from)? { Some(T::get(from)?) } else { None })
    }
}

impl<T: Code> Code for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.len().put(out);
        self.iter().for_each(|item| item.put(out));
    }

    fn get(from: &mut &[u8]) -> Option<Self> {
        let count = usize::get(from)?;
        // Nothing is reserved on the file's word: each item has at least one byte.
        (0..count).map(|_| T::get(from)).collect()
    }
}

impl<T: Code> Code for Box<T> {
    fn put(&self, out: &mut Vec<u8>) {
        (**self).put(out);
    }

    fn get(from: &mut &[u8]) -> Option<Self> {
        T::get(from).map(Self::new)
    }
}

impl Code for Box<[u32]> {
    fn put(&self, out: &mut Vec<u8>) {
        self.to_vec().put(out);
    }

    fn get(from: &mut &[u8]) -> Option<Self> {
        Vec::get(from).map(Into::into)
    }
}

impl Code for Result<(), ReasonCode> {
    fn put(&self, out: &mut Vec<u8>) {
        self.err().put(out);
    }

    fn get(from: &mut &[u8]) -> Option<Self> {
        Some(Option::get(from)?.map_or(Ok(()), Err))
    }
}

/// A table of rights stands as its rules, each with whom it is about.
impl Code for Arc<Acl> {
    fn put(&self, out: &mut Vec<u8>) {
        (self.mode() == Mode::Mosquitto, self.is_open()).put(out);
        self.rules().count().put(out);
        for (who, rule) in self.rules() {
            match who {
                Who::Anonymous => out.push(0),
                Who::Pattern => out.push(1),
                Who::User(name) => {
                    out.push(2);
                    name.to_owned().put(out);
                }
            }
            (rule.access(), (rule.filter().to_owned(), rule.line())).put(out);
        }
    }

    fn get(from: &mut &[u8]) -> Option<Self> {
        let (mosquitto, open) = Code::get(from)?;
        let mode = if mosquitto { Mode::Mosquitto } else { Mode::Strict };
        let mut acl = if open { Acl::open() } else { Acl::new(mode) };
        for _ in 0..usize::get(from)? {
            let name: String;
            let who = match u8::get(from)? {
                0 => Who::Anonymous,
                1 => Who::Pattern,
                2 => {
                    name = Code::get(from)?;
                    Who::User(&name)
                }
                _ => return None,
            };
            let (access, (filter, line)): (_, (String, u32)) = Code::get(from)?;
            acl.add(who, access, &filter, line).ok()?;
        }
        Some(Self::new(acl))
    }
}

/// A list of properties stands as that of a PUBLISH, which a message's always can be.
impl Code for PropertiesBuf {
    fn put(&self, out: &mut Vec<u8>) {
        let mut packet = Vec::new();
        let publish = PublishRef { topic: "t", properties: self.as_properties(), ..PublishRef::default() };
        // What a broker took can be encoded.
        let _ = PacketRef::Publish(publish).encode(Version::V5, &mut packet);
        packet.put(out);
    }

    fn get(from: &mut &[u8]) -> Option<Self> {
        let packet = Vec::<u8>::get(from)?;
        let PacketRef::Publish(publish) = PacketRef::decode(&packet, Version::V5).ok()? else { return None };
        let mut list = Self::new();
        list.extend_except(publish.properties, &[]);
        Some(list)
    }
}

/// Structs, field by field. A field that is left out here keeps its default in a replay; a test
/// counts them.
macro_rules! fields {
    ($($type:ty { $($field:ident),* })*) => {
        $(impl Code for $type {
            fn put(&self, out: &mut Vec<u8>) {
                $(self.$field.put(out);)*
            }
            fn get(from: &mut &[u8]) -> Option<Self> {
                let mut value = Self::default();
                $(value.$field = Code::get(from)?;)*
                Some(value)
            }
        })*
    };
}
fields! {
    AskFor { connect, publish, subscribe, will }
    BrokerConfig {
        seed, shard, shards, shard_credit, durability, ask, answer_timeout, connect_timeout, close_timeout, write_timeout,
        max_connections, max_sessions, max_packet_size, max_connect_size, max_unauthenticated_bytes,
        max_keep_alive, receive_maximum, max_inflight, topic_alias_maximum, max_outbound_aliases, max_qos,
        retain_available, wildcards_available, shared_available, max_session_expiry, max_queued_messages,
        max_queued_bytes, max_message_bytes, max_unstored_bytes, max_downtime, overflow, queue_qos0, sys_interval,
        server_version,
        max_subscriptions, max_topic_levels, max_retained, max_outbox_bytes, work_budget, rates, resend_after,
        refused_filter_31, response_information, first_packet_id
    }
    Grant { user_name, session_expiry, keep_alive, authentication_data, acl, valid_for }
    Peer { address, tls_identity, listener, rates }
    Rates { messages, bytes }
    ShardCredit { messages, bytes }
    Message { topic, payload, qos, retain, properties }
    SubscriptionOptions { qos, no_local, retain_as_published, retain_handling }
    StoredLimits { sessions, messages, entries }
    StoredReplay { after, until, except }
    StoredClock { time, unix_ms }
    StoredAuthor { acl, client_id, user_name }
}

/// Structs without a default.
macro_rules! records {
    ($($type:ident { $($field:ident),* })*) => {
        $(impl Code for $type {
            fn put(&self, out: &mut Vec<u8>) {
                let Self { $($field),* } = self;
                $($field.put(out);)*
            }
            fn get(from: &mut &[u8]) -> Option<Self> {
                Some(Self { $($field: Code::get(from)?),* })
            }
        })*
    };
}
records! {
    StoredHandOver { from, to, number, message, purpose }
    StoredMessage { body, topic_len, properties_len, qos, retain, expires_at, author }
    StoredDelivery { session, entry, qos, retain, subscription_ids }
    StoredWill { message, delay_secs, author }
    StoredSession { client_id, user_name, acl, expiry_secs, disconnected_at }
}

/// Enums, each variant behind its number. Numbers are never given again.
macro_rules! variants {
    ($($type:ident { $($number:literal $variant:ident $(($($item:ident),*))? $({$($field:ident),*})?,)* })*) => {
        $(impl Code for $type {
            fn put(&self, out: &mut Vec<u8>) {
                match self {
                    $(Self::$variant $(($($item),*))? $({ $($field),* })? => {
                        out.push($number);
                        $($($item.put(out);)*)?
                        $($($field.put(out);)*)?
                    })*
                }
            }
            fn get(from: &mut &[u8]) -> Option<Self> {
                match u8::get(from)? {
                    $($number => {
                        $($(let $item = Code::get(from)?;)*)?
                        $($(let $field = Code::get(from)?;)*)?
                        Some(Self::$variant $(($($item),*))? $({ $($field),* })?)
                    })*
                    _ => None,
                }
            }
        })*
    };
}
pub(super) use variants;
variants! {
    HandOver { 0 Publish { deliver, retain }, 1 Group(filter), 2 Back(filter), }
    Durability { 0 Off, 1 Written, 2 Synced, }
    Overflow { 0 DropNewest, 1 DropOldest, 2 Disconnect, }
    RefusedFilter31 { 0 Hangup, 1 PretendGranted, }
    Access { 0 Read, 1 Write, 2 ReadWrite, 3 Subscribe, 4 Deny, }
    Closed { 0 Eof, 1 Error, 2 Hangup, }
    StoredStage { 0 Published, 1 Released, }
    RetainHandling { 0 Send, 1 SendIfNew, 2 DoNotSend, }
    Answer { 0 Allow, 1 Grant(grant), 2 Deny(reason), 3 Continue(data), 4 Filters(verdicts), }
    StoreOp {
        1 PutClock(clock),
        2 PutSession(id, session),
        3 DeleteSession(id),
        4 PutPacketId(session, id),
        5 PutGroup(id, filter),
        6 DeleteGroup(id),
        7 PutSubscription { session, filter, options, id },
        8 DeleteSubscription { session, filter },
        10 DeleteReplay { session, filter },
        11 PutMessage(id, message),
        12 DeleteMessage(id),
        13 Append(id, deliveries),
        14 RemoveEntry(session, entry),
        15 PutExchange { session, entry, packet_id, number, stage },
        16 PutReceived(session, id),
        17 DeleteReceived(session, id),
        18 PutRetained(topic, id),
        19 DeleteRetained(topic),
        20 PutWill(session, will),
        21 DeleteWill(session),
        22 PutShards(shards),
        23 PutHandOver(record),
        24 DeleteHandOver { from, to, number },
        25 PutTaken { by, from, number },
        26 DeleteTaken { by, from },
        27 PutLimits(shard, limits),
        28 PutReplay { session, filter, replay },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip<T: Code + PartialEq + std::fmt::Debug>(value: T) {
        let mut bytes = Vec::new();
        value.put(&mut bytes);
        let mut rest = &bytes[..];
        assert_eq!(T::get(&mut rest), Some(value));
        assert!(rest.is_empty());
        for len in 0..bytes.len() {
            // A part is no value, or a shorter one; it must only not panic.
            let _ = T::get(&mut &bytes[..len]);
        }
    }

    #[test]
    fn values_come_back() {
        for shift in 0..64 {
            round_trip(1u64 << shift);
            round_trip((1u64 << shift) - 1);
        }
        round_trip(u64::MAX);
        round_trip("Grüße".to_owned());
        round_trip(Some(vec![Duration::from_nanos(1_500_000_001), Duration::MAX]));
        round_trip::<SocketAddr>("[::1]:1883".parse().unwrap());
        round_trip(Answer::Filters(vec![Ok(()), Err(ReasonCode::NotAuthorized)]));
        let properties = PropertiesBuf::new()
            .with(mqtt_proto::Property::UserProperty("k", "v"))
            .unwrap()
            .with(mqtt_proto::Property::MessageExpiryInterval(7))
            .unwrap();
        round_trip(Message { properties, ..Message::new("a/b", vec![0xFF; 300]).retained() });
        let mut acl = Acl::new(Mode::Mosquitto);
        acl.add(Who::Anonymous, Access::Read, "a/#", 1).unwrap();
        acl.add(Who::User("u"), Access::ReadWrite, "u", 2).unwrap();
        acl.add(Who::User("u"), Access::Deny, "u/x", 3).unwrap();
        acl.add(Who::Pattern, Access::Write, "c/%c", 4).unwrap();
        round_trip(Arc::new(acl));
        round_trip(Arc::new(Acl::open()));
    }

    #[test]
    fn every_setting_is_there() {
        let mut config = BrokerConfig::default();
        config.seed = Seed([7; 16]);
        config.shard = ShardId(1);
        config.shards = 2;
        config.shard_credit = ShardCredit { messages: 1, bytes: 2 };
        config.durability = Durability::Synced;
        config.ask = AskFor { connect: true, publish: false, subscribe: true, will: false };
        for time in [
            &mut config.answer_timeout,
            &mut config.connect_timeout,
            &mut config.close_timeout,
            &mut config.write_timeout,
            &mut config.max_downtime,
        ] {
            *time += Duration::from_nanos(1);
        }
        for number in [
            &mut config.max_connections,
            &mut config.max_sessions,
            &mut config.max_packet_size,
            &mut config.max_connect_size,
            &mut config.max_queued_messages,
            &mut config.max_subscriptions,
            &mut config.max_retained,
            &mut config.work_budget,
        ] {
            *number += 1;
        }
        config.max_session_expiry -= 1;
        for number in [
            &mut config.max_unauthenticated_bytes,
            &mut config.max_queued_bytes,
            &mut config.max_message_bytes,
            &mut config.max_unstored_bytes,
            &mut config.max_outbox_bytes,
        ] {
            *number += 1;
        }
        for number in [
            &mut config.max_keep_alive,
            &mut config.receive_maximum,
            &mut config.max_inflight,
            &mut config.topic_alias_maximum,
            &mut config.max_outbound_aliases,
            &mut config.max_topic_levels,
        ] {
            *number += 1;
        }
        config.max_qos = QoS::AtMostOnce;
        config.retain_available = false;
        config.wildcards_available = false;
        config.shared_available = false;
        config.overflow = Overflow::Disconnect;
        config.queue_qos0 = true;
        config.sys_interval = Some(Duration::from_secs(1));
        config.server_version = Some("v".to_owned());
        config.rates = Rates { messages: 7, bytes: 8 };
        config.resend_after = Some(Duration::from_secs(1));
        config.refused_filter_31 = RefusedFilter31::PretendGranted;
        config.response_information = Some("r".to_owned());
        config.first_packet_id = PacketId::MAX;
        let default = BrokerConfig::default();
        // A setting that is new has to be added to `fields!`, and here.
        let settings = |config: &BrokerConfig| -> Vec<String> {
            let text = format!("{config:#?}");
            let lines = text.lines().filter(|line| line.starts_with("    ") && !line.starts_with("     "));
            lines.filter(|line| line.contains(": ")).map(str::to_owned).collect()
        };
        assert_eq!(settings(&config).len(), 44, "{config:#?}");
        for (mine, theirs) in settings(&config).iter().zip(settings(&default)) {
            // Structs go on in further lines.
            assert!(*mine != theirs || mine.ends_with('(') || mine.ends_with('{'), "{mine}");
        }
        round_trip(config);
    }
}

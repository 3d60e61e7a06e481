//! Looking into a broker: clients, subscriptions and retained messages, a page at a time.
//!
//! Looking changes nothing. A page costs no more than its limit and [`VISITS`], and a look at each group of
//! a filter with many, however much there is; what comes or goes between two pages may be missed or seen.

use super::router::SessionKey;
use super::session::Session;
use super::{Broker, ConnectionId};
use crate::{Message, Timestamp};
use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;
use mqtt_proto::{QoS, SubscriptionOptions, Version};

/// Places that one page looks at, at most; a page may therefore be short or empty and yet not the last.
pub const VISITS: usize = 4096;

/// A part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// What is there, in no particular order.
    pub items: Vec<T>,
    /// Where the next page begins; `None` if this was the last.
    pub next: Option<u64>,
}

/// A session and its connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientInfo {
    /// The client identifier.
    pub client_id: String,
    /// The user name.
    pub user_name: Option<String>,
    /// The connection, if there is one.
    pub link: Option<LinkInfo>,
    /// Seconds that the session outlives its connection; `u32::MAX`: for ever.
    pub expiry_secs: u32,
    /// Time until a session without a connection ends, if it ends.
    pub expires_in: Option<Duration>,
    /// It is kept in the store.
    pub stored: bool,
    /// It has a will.
    pub has_will: bool,
    /// Subscriptions, shared ones included.
    pub subscriptions: usize,
    /// Messages that wait.
    pub queued: usize,
    /// Their bytes.
    pub queued_bytes: usize,
    /// Messages under way and not acknowledged.
    pub in_flight: usize,
    /// Messages for it that were dropped.
    pub dropped: u64,
}

/// A connection of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LinkInfo {
    /// Which.
    pub conn: ConnectionId,
    /// The version that is spoken.
    pub version: Version,
    /// Where the client is. The machine does not keep it: whoever has its socket fills it in.
    pub address: Option<SocketAddr>,
    /// The listener that it came by.
    pub listener: u16,
    /// Keep alive in force, in seconds.
    pub keep_alive: u16,
    /// How long it lasts.
    pub connected_for: Duration,
    /// PUBLISH packets received on it.
    pub received: u64,
    /// PUBLISH packets sent on it.
    pub sent: u64,
    /// Bytes that wait for its socket.
    pub unsent_bytes: usize,
}

/// A subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubscriptionInfo {
    /// The filter, `$share/` included.
    pub filter: String,
    /// Whose; `None` if it is one of the program that the broker is part of.
    pub client_id: Option<String>,
    /// Its options.
    pub options: SubscriptionOptions,
    /// Its identifier.
    pub id: Option<u32>,
    /// Messages that wait in its group, if it is shared.
    pub waiting: usize,
}

/// A retained message, without its content.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetainedInfo {
    /// The topic.
    pub topic: String,
    /// The QoS of its publication.
    pub qos: QoS,
    /// Bytes of payload.
    pub payload_len: usize,
    /// Seconds until it expires, if it does.
    pub expires_in: Option<u32>,
    /// The client that published it, where that is known: it is kept where rights matter.
    pub publisher: Option<String>,
}

impl Broker {
    /// Sessions from the place `after` on (0: from the first), at most `limit`; with `connected` only those
    /// that have a connection.
    #[must_use]
    pub fn clients(&self, now: Timestamp, after: u64, limit: usize, connected: bool) -> Page<ClientInfo> {
        let end = self.sessions.capacity() as u64;
        page(after, end, limit, |at, items| {
            let Some(session) = usize::try_from(at).ok().and_then(|at| self.sessions.get(at)) else { return };
            if session.local.is_none() && (session.link.is_some() || !connected) {
                let key = SessionKey::try_from(at).unwrap_or(SessionKey::MAX);
                items.push(self.client_info(now, key, session));
            }
        })
    }

    /// The session of a client.
    #[must_use]
    pub fn client(&self, now: Timestamp, client_id: &str) -> Option<ClientInfo> {
        let &key = self.clients.get(client_id)?;
        Some(self.client_info(now, key, self.sessions.get(key as usize)?))
    }

    fn client_info(&self, now: Timestamp, key: SessionKey, session: &Session) -> ClientInfo {
        let now = now.max(self.now);
        let link = session.link.and_then(|index| {
            let c = self.connections.get(index)?;
            Some(LinkInfo {
                conn: ConnectionId { index, generation: c.generation },
                version: c.version,
                address: None,
                listener: c.listener,
                keep_alive: c.keep_alive.secs(),
                connected_for: now.since(c.since),
                received: c.received,
                sent: c.sent,
                unsent_bytes: c.out_len(),
            })
        });
        ClientInfo {
            client_id: session.client_id.as_ref().into(),
            user_name: session.user_name.as_deref().map(Into::into),
            expires_in: (link.is_none() && session.expires != Timestamp::MAX)
                .then(|| session.expires.since(now)),
            link,
            expiry_secs: session.expiry_secs,
            stored: session.stored,
            has_will: session.will.is_some(),
            subscriptions: self.router.subscriptions_of(key),
            queued: session.queue.len(),
            queued_bytes: session.queued_bytes,
            in_flight: session.ledger.len(),
            dropped: session.dropped,
        }
    }

    /// Subscriptions from the place `after` on (0: from the first), about `limit` of them: all, or those of
    /// one client. `None` if there is no such client.
    #[must_use]
    pub fn subscriptions(
        &self,
        of: Option<&str>,
        after: u64,
        limit: usize,
    ) -> Option<Page<SubscriptionInfo>> {
        let Some(client_id) = of else {
            // All of a node come together: what one filter's subscribers are is not torn apart unless they
            // are many.
            let end = self.router.subscription_places() << PLACE_BITS;
            return Some(nested(after, end, limit, |node, from, items| {
                for place in self.router.subscribers_at(node, from).take(VISITS) {
                    items.push(self.subscription_info(place));
                }
            }));
        };
        let &key = self.clients.get(client_id)?;
        let end = self.router.subscriptions_of(key) as u64;
        Some(page(after, end, limit, |at, items| {
            let place = usize::try_from(at).ok().and_then(|at| self.router.subscribed_by(key, at));
            items.extend(
                place.and_then(|place| self.router.subscriber(place)).map(|s| self.subscription_info(s)),
            );
        }))
    }

    fn subscription_info(&self, subscriber: super::router::Subscriber) -> SubscriptionInfo {
        let super::router::Subscriber { filter, session, options, id, waiting } = subscriber;
        let session = self.sessions.get(session as usize).filter(|session| session.local.is_none());
        let client_id = session.map(|session| session.client_id.as_ref().into());
        SubscriptionInfo { filter, client_id, options, id, waiting }
    }

    /// Retained messages from the place `after` on (0: from the first), at most `limit`.
    #[must_use]
    pub fn retained(&self, now: Timestamp, after: u64, limit: usize) -> Page<RetainedInfo> {
        let now = now.max(self.now);
        page(after, self.router.retained_places(), limit, |at, items| {
            let Some(key) = self.router.retained_in(at) else { return };
            let Some(held) = self.messages.get(key) else { return };
            if held.is_expired(now) {
                return;
            }
            items.push(RetainedInfo {
                topic: held.topic_str().into(),
                qos: held.qos,
                payload_len: held.payload().len(),
                expires_in: held.expiry_left(now),
                publisher: self.messages.author(key).map(|author| author.client_id.clone()),
            });
        })
    }

    /// The retained message of a topic.
    #[must_use]
    pub fn retained_message(&self, now: Timestamp, topic: &str) -> Option<Message> {
        let now = now.max(self.now);
        let held = self.router.retained_at(topic).and_then(|key| self.messages.get(key))?;
        (!held.is_expired(now)).then(|| held.to_message(now, held.qos, true, &[]))
    }

    /// Ends a session for good, and its connection, which 5.0 tells that an administrator did it (0x98).
    /// Its will is published. False if there is none.
    pub fn remove_session(&mut self, now: Timestamp, client_id: &str) -> bool {
        self.begin(now);
        let Some(&key) = self.clients.get(client_id) else { return false };
        if let Some(link) = self.sessions.get(key as usize).and_then(|session| session.link) {
            self.hang_up(link, mqtt_proto::ReasonCode::AdministrativeAction, true);
        }
        // It may have ended with its connection.
        if let Some(&key) = self.clients.get(client_id) {
            self.end_session(key);
        }
        self.finish();
        true
    }

    /// Removes the retained message of a topic, without telling subscribers. False if there is none.
    pub fn remove_retained(&mut self, now: Timestamp, topic: &str) -> bool {
        self.begin(now);
        let Some(key) = self.router.retained_at(topic) else { return false };
        self.forget_retained(key);
        self.finish();
        true
    }
}

/// The lower part of a place in a list of lists.
const PLACE_BITS: u32 = 32;

fn page<T>(after: u64, end: u64, limit: usize, mut look: impl FnMut(u64, &mut Vec<T>)) -> Page<T> {
    let mut items = Vec::new();
    let mut at = after;
    for _ in 0..VISITS {
        if at >= end || items.len() >= limit.max(1) {
            break;
        }
        look(at, &mut items);
        at += 1;
    }
    Page { items, next: (at < end).then_some(at) }
}

/// As [`page`], of lists that are themselves long: `look` adds at most [`VISITS`] from one.
fn nested<T>(after: u64, end: u64, limit: usize, mut look: impl FnMut(u64, usize, &mut Vec<T>)) -> Page<T> {
    let mut items = Vec::new();
    let mut at = after;
    for _ in 0..VISITS {
        if at >= end || items.len() >= limit.max(1) {
            break;
        }
        let (node, from) = (at >> PLACE_BITS, at & ((1 << PLACE_BITS) - 1));
        let before = items.len();
        look(node, usize::try_from(from).unwrap_or(usize::MAX), &mut items);
        let room = limit.max(1) - before;
        if items.len() - before > room {
            items.truncate(limit.max(1));
            at += room as u64;
        } else if items.len() - before == VISITS {
            at += VISITS as u64;
        } else {
            at = (node + 1) << PLACE_BITS;
        }
    }
    Page { items, next: (at < end).then_some(at) }
}

//! What outlives a connection: messages that wait or are unacknowledged, identifiers of QoS 2
//! messages that arrived, requests, subscriptions. A session that is lost is dropped as a whole, and
//! what the application still wants is carried over by name.

use super::event::{Outcome, Token};
use crate::defects::defect;
use crate::random::IdMap;
use crate::shared::ledger::{Exchange, Ledger, Stage};
use crate::shared::received::Received;
use crate::{Message, StoreSeq, Timestamp};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;
use mqtt_proto::{PacketId, PropertiesBuf, SubscribeFiltersBuf, SubscriptionOptions, UnsubscribeFiltersBuf};

/// A message on its way to the server.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    pub(super) token: Token,
    /// Checked. Its expiry is not among its properties but beside it.
    pub(super) message: Message,
    pub(super) expires_at: Option<Timestamp>,
    /// It is stored, under the number of its token.
    pub(super) stored: bool,
}

/// A SUBSCRIBE or UNSUBSCRIBE that is not answered.
#[derive(Debug)]
pub(super) struct Request {
    /// `None` if the machine asks by itself.
    pub(super) token: Option<Token>,
    /// Set once it was sent on this link.
    pub(super) id: Option<PacketId>,
    pub(super) properties: PropertiesBuf,
    pub(super) filters: Filters,
}

#[derive(Debug)]
pub(super) enum Filters {
    Subscribe(SubscribeFiltersBuf),
    Unsubscribe(UnsubscribeFiltersBuf),
}

/// A subscription that the server granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subscription {
    pub(super) options: SubscriptionOptions,
    pub(super) id: Option<u32>,
}

#[derive(Debug, Default)]
pub(super) struct Session {
    /// Counts sessions, so that what belongs to an old one is told apart.
    pub(super) epoch: u32,
    /// The server may still have it.
    pub(super) established: bool,
    /// The identifier in force; differs from the setting if the server assigned one.
    pub(super) client_id: String,
    /// QoS 1 and 2 messages that hold an identifier.
    pub(super) ledger: Ledger<Outgoing>,
    /// Exchanges whose message is released: what is left of them beside the identifier.
    pub(super) released: IdMap<u16, (Token, bool)>,
    /// No PUBREL leaves before this much is stored.
    pub(super) released_after: StoreSeq,
    pub(super) received: Received,
    /// Messages that wait, in the order in which they were published.
    pub(super) queue: VecDeque<Outgoing>,
    pub(super) queue_bytes: usize,
    /// No message in the queue expires before.
    pub(super) next_expiry: Option<Timestamp>,
    pub(super) requests: VecDeque<Request>,
    pub(super) subscriptions: BTreeMap<String, Subscription>,
}

impl Session {
    /// Appends to the queue.
    pub(super) fn push(&mut self, outgoing: Outgoing) {
        self.queue_bytes += outgoing.message.size();
        if let Some(at) = outgoing.expires_at {
            self.next_expiry = Some(self.next_expiry.map_or(at, |next| next.min(at)));
        }
        self.queue.push_back(outgoing);
    }

    fn push_front(&mut self, outgoing: Outgoing) {
        self.queue_bytes += outgoing.message.size();
        if let Some(at) = outgoing.expires_at {
            self.next_expiry = Some(self.next_expiry.map_or(at, |next| next.min(at)));
        }
        self.queue.push_front(outgoing);
    }

    /// Takes the first of the queue.
    pub(super) fn pop(&mut self) -> Option<Outgoing> {
        let outgoing = self.queue.pop_front()?;
        self.queue_bytes -= outgoing.message.size();
        if self.queue.is_empty() {
            self.next_expiry = None;
        }
        Some(outgoing)
    }

    /// Takes out of the queue what has expired.
    pub(super) fn purge(&mut self, now: Timestamp) -> Vec<Outgoing> {
        let mut expired = Vec::new();
        if self.next_expiry.is_none_or(|next| next > now) {
            return expired;
        }
        let mut next = None;
        for outgoing in core::mem::take(&mut self.queue) {
            match outgoing.expires_at {
                Some(at) if at <= now => {
                    self.queue_bytes -= outgoing.message.size();
                    expired.push(outgoing);
                }
                at => {
                    next = match (next, at) {
                        (Some(a), Some(b)) => Some(core::cmp::min(a, b)),
                        (a, b) => a.or(b),
                    };
                    self.queue.push_back(outgoing);
                }
            }
        }
        self.next_expiry = next;
        expired
    }

    /// An identifier that nothing holds: PUBLISH, SUBSCRIBE and UNSUBSCRIBE share them
    /// ([MQTT-2.2.1-3]).
    pub(super) fn free_id(&mut self) -> Option<PacketId> {
        let requests = &self.requests;
        self.ledger.free_id(|id| requests.iter().any(|request| request.id == Some(id)))
    }

    /// The link is gone: requests that were not answered are asked anew, with new identifiers.
    pub(super) fn forget_link(&mut self) {
        for request in &mut self.requests {
            request.id = None;
        }
        if defect!(ClientDropsQueue) {
            self.queue.clear();
            self.queue_bytes = 0;
        }
    }

    /// The server has lost the session [MQTT-3.2.2-5]. What it had not acknowledged is put in front of
    /// the queue again if `republish`; the rest is over.
    pub(super) fn lost(&mut self, republish: bool) -> Vec<(Token, bool, Outcome)> {
        self.epoch = self.epoch.wrapping_add(1);
        self.received = Received::default();
        let mut over = Vec::new();
        let mut again = Vec::new();
        let exchanges: Vec<Exchange<Outgoing>> = self.ledger.drain().collect();
        for exchange in exchanges {
            match exchange.message {
                Some(outgoing) if exchange.stage == Stage::Publish && (republish || !exchange.published) => {
                    again.push(outgoing);
                }
                Some(outgoing) => over.push((outgoing.token, outgoing.stored, Outcome::SessionLost)),
                None => {
                    if let Some((token, stored)) = self.released.remove(&exchange.id.get()) {
                        over.push((token, stored, Outcome::SessionLost));
                    }
                }
            }
        }
        self.released.clear();
        for outgoing in again.into_iter().rev() {
            self.push_front(outgoing);
        }
        over
    }

    /// Whether nothing is left to be sent or answered.
    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.ledger.is_empty() && self.requests.is_empty()
    }
}

//! A store that takes its time, confirms several groups at once, sometimes fails, and loses what it did
//! not confirm when its machine crashes; and what is known from its groups about what has to wait for
//! them.

use crate::disk::our_id;
use mqtt_session::store::{Contents, SessionId, StoredStage};
use mqtt_session::{StoreGroup, StoreOp, StoreSeq};
use std::collections::{BTreeMap, VecDeque};

use crate::wire::MessageId;

/// The store of one machine.
#[derive(Debug, Default)]
pub struct Store {
    pending: VecDeque<(StoreSeq, StoreGroup)>,
    /// Everything up to here was confirmed.
    pub confirmed: u64,
    /// What is safe.
    pub contents: Contents,
    last: u64,
    /// Groups that came before a failure and have to come again, as they were.
    again: BTreeMap<u64, StoreGroup>,
    sessions: BTreeMap<SessionId, String>,
    appended: BTreeMap<MessageId, u64>,
    exchanges: BTreeMap<(String, u16, bool), u64>,
    received: BTreeMap<(String, u16), u64>,
    subscribed: BTreeMap<(String, String), VecDeque<u64>>,
}

impl Store {
    /// A group comes.
    ///
    /// # Errors
    /// If its number is not the next.
    pub fn take(&mut self, seq: StoreSeq, group: StoreGroup) -> Result<(), String> {
        if let Some(before) = self.again.remove(&seq.0) {
            if before != group {
                return Err(format!("store group {} came again and is another", seq.0));
            }
        } else if seq.0 != self.last + 1 {
            return Err(format!("store group {} after {}", seq.0, self.last));
        } else {
            self.last = seq.0;
            self.learn(seq.0, &group);
        }
        // What comes again comes shard by shard, and takes its old place.
        let place = self.pending.partition_point(|(other, _)| *other < seq);
        if self.pending.get(place).is_some_and(|(other, _)| *other == seq) {
            return Err(format!("store group {} came twice", seq.0));
        }
        self.pending.insert(place, (seq, group));
        Ok(())
    }

    /// The newest group, if it is not confirmed.
    #[must_use]
    pub fn newest(&self) -> Option<StoreSeq> {
        self.pending.back().map(|(seq, _)| *seq)
    }

    /// Everything up to `through` is safe. False if it was before, or if the store failed meanwhile.
    pub fn confirm(&mut self, through: StoreSeq) -> bool {
        if self.pending.iter().all(|(seq, _)| *seq != through) {
            return false;
        }
        while self.pending.front().is_some_and(|(seq, _)| *seq <= through) {
            if let Some((_, group)) = self.pending.pop_front() {
                self.contents.apply(&group);
            }
        }
        self.confirmed = self.confirmed.max(through.0);
        true
    }

    /// Fails: what is not confirmed is lost, and has to come again. Tells the first of it.
    pub fn fail(&mut self) -> Option<StoreSeq> {
        let first = self.pending.front().map(|(seq, _)| *seq)?;
        for (seq, group) in self.pending.drain(..) {
            self.again.insert(seq.0, group);
        }
        Some(first)
    }

    /// A group that is written before the machine starts: it has no number.
    pub fn write_first(&mut self, group: &StoreGroup) {
        self.contents.apply(group);
    }

    /// The number of the last group.
    #[must_use]
    pub const fn last(&self) -> u64 {
        self.last
    }

    /// How many groups are not confirmed.
    #[must_use]
    pub fn unconfirmed(&self) -> usize {
        self.pending.len()
    }

    /// Its machine crashes. The first `more` of the groups that are not confirmed are there all the
    /// same, as on a disk that did not say so in time. Tells the last group that is there; the next
    /// machine counts from 1 again.
    pub fn crash(&mut self, more: usize) -> u64 {
        let mut committed = self.confirmed;
        for (seq, group) in self.pending.drain(..).take(more) {
            self.contents.apply(&group);
            committed = seq.0;
        }
        *self = Self { contents: std::mem::take(&mut self.contents), ..Self::default() };
        for record in self.contents.records() {
            if let StoreOp::PutSession(id, session) = record {
                self.sessions.insert(id, session.client_id);
            }
        }
        committed
    }

    /// What is there once everything is written.
    #[must_use]
    pub fn everything(&self) -> Contents {
        let mut contents = self.contents.clone();
        self.pending.iter().for_each(|(_, group)| contents.apply(group));
        contents
    }

    /// Messages whose appends are there up to `committed`.
    pub fn appended_by(&self, committed: u64) -> impl Iterator<Item = MessageId> {
        self.appended.iter().filter(move |(_, seq)| **seq <= committed).map(|(id, _)| *id)
    }

    /// How many groups have to come again.
    #[must_use]
    pub fn missing(&self) -> usize {
        self.again.len()
    }

    fn learn(&mut self, seq: u64, group: &StoreGroup) {
        // What one shard takes over from another was safe there.
        let taken_over = group.ops.iter().any(|op| matches!(op, StoreOp::PutTaken { .. }));
        for op in &*group.ops {
            match op {
                StoreOp::PutSession(id, session) => {
                    self.sessions.insert(*id, session.client_id.clone());
                }
                StoreOp::PutMessage(_, message) => {
                    if let Some(id) = our_id(message).filter(|_| !taken_over) {
                        self.appended.entry(id).or_insert(seq);
                    }
                }
                StoreOp::PutExchange { session, packet_id, stage, .. } => {
                    if let Some(client) = self.sessions.get(session) {
                        let released = *stage == StoredStage::Released;
                        self.exchanges.insert((client.clone(), packet_id.get(), released), seq);
                    }
                }
                StoreOp::PutReceived(session, packet_id) => {
                    if let Some(client) = self.sessions.get(session) {
                        self.received.insert((client.clone(), packet_id.get()), seq);
                    }
                }
                StoreOp::PutSubscription { session, filter, .. } => {
                    if let Some(client) = self.sessions.get(session) {
                        let key = (client.clone(), filter.clone());
                        self.subscribed.entry(key).or_default().push_back(seq);
                    }
                }
                _ => {}
            }
        }
    }

    fn check(&self, what: &str, seq: Option<&u64>) -> Result<(), String> {
        match seq {
            Some(&seq) if seq > self.confirmed => {
                Err(format!("{what} left before group {seq} was stored ({} is)", self.confirmed))
            }
            _ => Ok(()),
        }
    }

    /// PUBACK or PUBREC for this message leaves.
    ///
    /// # Errors
    /// If the message, or the identifier of a QoS 2 message, is not safe.
    pub fn acknowledges(&self, client: &str, id: u16, message: Option<MessageId>) -> Result<(), String> {
        self.check("acknowledgement", message.and_then(|message| self.appended.get(&message)))?;
        self.check("PUBREC", self.received.get(&(client.into(), id)))
    }

    /// A QoS 2 PUBLISH (or its PUBREL) with this identifier leaves.
    ///
    /// # Errors
    /// If its identifier (or its stage) is not safe.
    pub fn sends(&self, client: &str, id: u16, released: bool) -> Result<(), String> {
        self.check("QoS 2 packet", self.exchanges.get(&(client.into(), id, released)))
    }

    /// SUBACK for this filter leaves.
    ///
    /// # Errors
    /// If the subscription is not safe.
    pub fn grants(&mut self, client: &str, filter: &str) -> Result<(), String> {
        let list = self.subscribed.get_mut(&(client.into(), filter.into()));
        let seq = list.and_then(VecDeque::pop_front);
        self.check("SUBACK", seq.as_ref())
    }

    /// A new link: what was asked on the old one is not answered any more.
    pub fn new_link(&mut self, client: &str) {
        self.subscribed.retain(|(name, _), _| name != client);
    }

    /// A session begins anew: what was known about the identifiers of the old one is void.
    pub fn forget(&mut self, client: &str) {
        self.exchanges.retain(|(name, ..), _| name != client);
        self.received.retain(|(name, _), _| name != client);
        self.subscribed.retain(|(name, _), _| name != client);
    }
}

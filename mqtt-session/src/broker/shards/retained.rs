//! New subscriptions that ask all shards for what is retained. The side of those who ask; for that of the shards where
//! retained messages live see `owned.rs`.
//!
//! A subscription gets each message once: what a shard had sent to the owner when it heard of the subscription comes with
//! the answer, what it sent later comes live. What comes from all shards is merged by the messages' numbers, so that one
//! number tells how far it is, also after a crash.

use super::super::message::MessageKey;
use super::super::router::{SessionKey, bit};
use super::super::session::{Delivery, Replay};
use super::{Broker, each};
use crate::StoreOp;
use crate::store::{MessageId, SessionId, StoredMessage};
use crate::{RetainedQuestion, ShardId, ShardMessage};
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

/// So many numbers of messages that came live are remembered over a crash, for each subscription. Those beyond come again
/// after one.
pub(super) const MOST_EXCEPT: usize = 256;

/// Whose question it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asking {
    session: SessionKey,
    id: SessionId,
}

/// What came from one shard and was not sent yet. Never empty.
#[derive(Debug)]
struct Arrived {
    messages: VecDeque<(MessageId, MessageKey)>,
    /// With so many left the next page is asked for.
    low: usize,
}

/// The part of a replay that comes from other shards.
#[derive(Debug)]
pub(in crate::broker) struct FarReplay {
    /// By origin: the last retained write to this shard that counts; empty before that is known.
    marks: Arc<[u64]>,
    /// Shards that have not answered at all.
    silent: u64,
    /// Shards that have more, or may have.
    sources: u64,
    /// Of these, those that wait to be asked for it.
    more: u64,
    arrived: BTreeMap<ShardId, Arrived>,
    /// What the answers tell for the store, if it is to know; see `StoredReplay`.
    until: Vec<MessageId>,
    except: Vec<MessageId>,
}

/// Questions that all have answered while something that counts has not come here, by what counts: all questions of a
/// packet have the same.
#[derive(Debug, Default)]
pub(super) struct Unsettled(Vec<(Arc<[u64]>, Vec<u64>)>);

impl Unsettled {
    fn push(&mut self, query: u64, marks: Arc<[u64]>) {
        match self.0.last_mut().filter(|(last, _)| Arc::ptr_eq(last, &marks)) {
            Some((_, queries)) => queries.push(query),
            None => self.0.push((marks, alloc::vec![query])),
        }
    }
}

impl FarReplay {
    /// The lowest number of what is here, where that is known to be the next.
    pub(in crate::broker) fn next(&self) -> Option<Option<(MessageId, MessageKey, ShardId)>> {
        if each(self.sources).any(|shard| !self.arrived.contains_key(&shard)) {
            return None;
        }
        let first = |(&shard, arrived): (&ShardId, &Arrived)| {
            let (number, key) = *arrived.messages.front()?;
            Some((number, key, shard))
        };
        Some(self.arrived.iter().filter_map(first).min_by_key(|(number, _, shard)| (*number, *shard)))
    }

    /// The next of a shard is dealt with.
    pub(in crate::broker) fn pass(&mut self, from: ShardId) {
        if let Some(arrived) = self.arrived.get_mut(&from) {
            arrived.messages.pop_front();
            if arrived.messages.is_empty() {
                self.arrived.remove(&from);
            }
        }
    }

    /// The shards that are to be asked for more.
    fn low(&self) -> u64 {
        let is_low = |shard: &ShardId| self.arrived.get(shard).is_none_or(|a| a.messages.len() <= a.low);
        each(self.more).filter(is_low).fold(0, |low, shard| low | bit(shard))
    }

    /// Whether a shard is to be asked for more.
    pub(in crate::broker) fn is_low(&self) -> bool {
        self.low() != 0
    }

    /// A shard has answered: what came later than this number came live, and these.
    fn heard(&mut self, from: ShardId, until: MessageId, except: Vec<MessageId>) {
        self.silent &= !bit(from);
        if let Some(place) = self.until.get_mut(usize::from(from.0)) {
            *place = until;
        }
        self.except.extend(except);
    }
}

impl Broker {
    /// The far part of a new replay, if there are other shards.
    pub(in crate::broker) fn new_far_replay(
        &mut self,
        session: SessionKey,
        query: u64,
    ) -> Option<Box<FarReplay>> {
        let shards = self.shards.as_mut()?;
        let asking = self.sessions.get(session as usize)?;
        let until = if asking.stored { vec![MessageId(0); self.journal.stride()] } else { Vec::new() };
        shards.asking.insert(query, Asking { session, id: asking.id });
        let silent = shards.others();
        self.open_replay(query);
        Some(Box::new(FarReplay {
            marks: Arc::default(),
            silent,
            sources: 0,
            more: 0,
            arrived: BTreeMap::new(),
            until,
            except: Vec::new(),
        }))
    }

    fn replay_of(&mut self, query: u64) -> Option<(SessionKey, &mut Replay)> {
        let Asking { session, id } = *self.shards.as_ref()?.asking.get(&query)?;
        let found = self.sessions.get_mut(session as usize).filter(|s| s.id == id)?;
        Some((session, found.replays.get_mut(query)?))
    }

    /// All shards know of the subscriptions: now they can be asked.
    pub(super) fn ask_for_retained(&mut self, queries: &[u64], writes: &[Vec<u64>]) {
        let Some(shards) = &self.shards else { return };
        let (own, others) = (shards.own, shards.others());
        let marks_of = |owner: ShardId| -> Vec<u64> {
            let of = |writes: &Vec<u64>| writes.get(usize::from(owner.0)).copied().unwrap_or_default();
            writes.iter().map(of).collect()
        };
        let marks: Arc<[u64]> = marks_of(own).into();
        let mut questions = Vec::with_capacity(queries.len());
        for &query in queries {
            let Some((_, replay)) = self.replay_of(query) else { continue };
            let (filter, stored) = (String::from(&*replay.filter), replay.noted);
            let left = replay.left.is_settled().then(|| Box::new(replay.left.clone()));
            let Some(far) = &mut replay.far else { continue };
            far.marks = Arc::clone(&marks);
            far.sources = others;
            questions.push(RetainedQuestion { query, filter, stored, left });
        }
        if questions.is_empty() {
            return;
        }
        for shard in each(others) {
            let (questions, marks) = (questions.clone(), marks_of(shard));
            self.tell_shard(shard, ShardMessage::RetainedAsk { questions, marks });
        }
    }

    /// Sends what there is: to a client as its socket takes it, to the program itself at once.
    fn go_on_with(&mut self, session: SessionKey) {
        let Some(found) = self.sessions.get(session as usize) else { return };
        if found.local.is_some() {
            self.replay_far_locally(session);
        } else if let Some(link) = found.link {
            self.queue_flush(link);
        }
    }

    /// Some of what another shard has. Later ones than `until`, and those in `except`, come live.
    pub(super) fn retained_came(
        &mut self,
        from: ShardId,
        query: u64,
        messages: Vec<(MessageId, StoredMessage)>,
        more: bool,
        (until, except): (MessageId, Vec<MessageId>),
    ) {
        if self.replay_of(query).is_none() {
            return;
        }
        let adopt = |(number, message)| (number, self.messages.adopt(message));
        let came: Vec<_> = messages.into_iter().map(adopt).collect();
        let Some((session, replay)) = self.replay_of(query) else { return };
        let Some(far) = &mut replay.far else { return };
        if far.silent & bit(from) != 0 {
            far.heard(from, until, except);
        }
        if more {
            far.more |= bit(from);
        } else {
            far.sources &= !bit(from);
        }
        if !came.is_empty() {
            let low = came.len() / 2;
            let messages = far.arrived.remove(&from).map_or_else(VecDeque::new, |arrived| arrived.messages);
            let arrived = far.arrived.entry(from).or_insert(Arrived { messages, low });
            arrived.messages.extend(came);
        }
        self.settle_replay(query);
        self.go_on_with(session);
    }

    /// Another shard has nothing for these. Later ones than `until` come live.
    pub(super) fn no_retained_came(&mut self, from: ShardId, queries: &[u64], until: MessageId) {
        let mut sessions = Vec::new();
        for &query in queries {
            let Some((session, replay)) = self.replay_of(query) else { continue };
            if let Some(far) = &mut replay.far {
                far.sources &= !bit(from);
                far.heard(from, until, Vec::new());
            }
            self.settle_replay(query);
            if sessions.last() != Some(&session) {
                sessions.push(session);
            }
        }
        for session in sessions {
            self.go_on_with(session);
        }
    }

    /// Once all have answered, and what counts has come here, it is known what the subscription gets: the store is told, and
    /// sending may begin. Whether that is so now.
    fn settle_replay(&mut self, query: u64) -> bool {
        let Some((_, replay)) = self.replay_of(query).filter(|(_, replay)| replay.found.is_none()) else {
            return false;
        };
        let Some(far) = replay.far.as_ref().filter(|far| far.silent == 0) else { return false };
        let (filter, marks) = (replay.filter.clone(), Arc::clone(&far.marks));
        let left = replay.left.is_settled().then(|| replay.left.clone());
        let Some(shards) = &mut self.shards else { return false };
        if !shards.has_applied(&marks) {
            shards.unsettled.push(query, marks);
            return false;
        }
        let here = self.find_retained(&filter, &marks, left.as_ref());
        here.keys.iter().for_each(|&message| self.messages.hold(message));
        let Some(shards) = &mut self.shards else { return false };
        let (own, count) = (usize::from(shards.own.0), shards.neighbours.len());
        let Some(&Asking { id, .. }) = shards.asking.get(&query) else { return false };
        let Some((_, replay)) = self.replay_of(query) else { return false };
        let Some(far) = &mut replay.far else { return false };
        let is_nothing = here.keys.is_empty() && far.sources == 0 && far.arrived.is_empty();
        let (mut until, mut except) = (core::mem::take(&mut far.until), core::mem::take(&mut far.except));
        replay.found = Some(here.keys);
        if !replay.noted {
            return true;
        }
        // Also while nobody is connected: what comes live from now on must not come again after a crash.
        if is_nothing {
            replay.noted = false;
            let filter = filter.into();
            self.journal.op(StoreOp::DeleteReplay { session: id, filter });
        } else if left.is_none() {
            for (place, last) in until.iter_mut().enumerate() {
                // No shard gives the numbers beyond; old messages may have them.
                if place == own || place >= count {
                    *last = here.until;
                }
            }
            except.extend(here.except);
            except.sort_unstable();
            except.truncate(MOST_EXCEPT);
            (replay.left.until, replay.left.except) = (until, except);
            let op = replay.to_stored(id);
            self.journal.op(op);
        }
        true
    }

    /// A retained write arrived that some of our own may wait for.
    pub(super) fn settle_who_waits(&mut self) {
        let Some(shards) = &mut self.shards else { return };
        let unsettled = core::mem::take(&mut shards.unsettled.0);
        let (ready, still) = unsettled.into_iter().partition(|(marks, _)| shards.has_applied(marks));
        shards.unsettled.0 = still;
        let ready: Vec<(_, Vec<_>)> = ready;
        for query in ready.into_iter().flat_map(|(_, queries)| queries) {
            if self.settle_replay(query)
                && let Some((session, _)) = self.replay_of(query)
            {
                self.go_on_with(session);
            }
        }
    }

    /// Asks for more of what is sent but for a rest.
    pub(in crate::broker) fn ask_for_more(&mut self, query: u64) {
        let Some((_, replay)) = self.replay_of(query) else { return };
        let Some(far) = &mut replay.far else { return };
        let low = far.low();
        far.more &= !low;
        for shard in each(low) {
            self.tell_shard(shard, ShardMessage::RetainedMore { query });
        }
    }

    /// The program takes everything at once, in whatever order.
    fn replay_far_locally(&mut self, session: SessionKey) {
        let Some(found) = self.sessions.get_mut(session as usize) else { return };
        let Some(replay) = found.replays.front_mut() else { return };
        let (query, qos, ids) = (replay.number, replay.qos, replay.ids.clone());
        let (Some(here), Some(far)) = (&mut replay.found, &mut replay.far) else { return };
        let complete = far.sources == 0;
        let mut messages = core::mem::take(here);
        for arrived in core::mem::take(&mut far.arrived).into_values() {
            messages.extend(arrived.messages.into_iter().map(|(_, key)| key));
        }
        for message in messages {
            self.deliver_retained(session, message, qos, &ids);
            self.release_message(message);
        }
        self.ask_for_more(query);
        if complete {
            self.forget_question(query);
            if let Some(found) = self.sessions.get_mut(session as usize) {
                found.replays.pop_front();
            }
        }
    }

    fn deliver_retained(
        &mut self,
        session: SessionKey,
        message: MessageKey,
        granted: mqtt_proto::QoS,
        ids: &super::super::router::SubscriptionIds,
    ) {
        let Some(held) = self.messages.get(message).filter(|held| !held.is_expired(self.now)) else { return };
        let (qos, size) = (super::super::delivery_qos(held.qos, granted), held.size());
        let ids = ids.clone();
        let mut delivery = Delivery { message, group: None, qos, retain: true, entry: None, ids };
        self.enqueue(session, &mut delivery, size);
    }

    /// A replay is over, or is not wanted any more.
    pub(in crate::broker) fn forget_question(&mut self, query: u64) {
        if let Some(shards) = &mut self.shards {
            shards.asking.remove(&query);
        }
    }

    pub(in crate::broker) fn release_far_replay(&mut self, query: u64, far: FarReplay) {
        self.forget_question(query);
        for shard in each(far.sources) {
            self.tell_shard(shard, ShardMessage::RetainedCancel { query });
        }
        for (_, message) in far.arrived.into_values().flat_map(|arrived| arrived.messages) {
            self.release_message(message);
        }
    }
}

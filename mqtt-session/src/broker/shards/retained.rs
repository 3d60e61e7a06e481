//! Retained messages, each on the shard that its topic gives, and new subscriptions that ask all shards for them.
//!
//! A subscription gets each message once: what a shard had sent to the owner when it heard of the
//! subscription comes with the answer, what it sent later comes live.

use super::super::message::{Held, MessageKey};
use super::super::router::{SessionKey, bit};
use super::super::session::{Delivery, Replay};
use super::{Broker, each};
use crate::defects::defect;
use crate::store::{SessionId, StoredMessage};
use crate::{ShardId, ShardMessage};
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Messages of one page, and about how many bytes.
const PAGE: usize = 64;
const PAGE_BYTES: usize = 256 << 10;

/// Whose question it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asking {
    session: SessionKey,
    id: SessionId,
}

/// Another shard's question.
#[derive(Debug)]
pub(super) struct Answering {
    filter: String,
    marks: Arc<[u64]>,
    /// What it gets, once everything that it counts on is here.
    found: Option<VecDeque<MessageKey>>,
    /// The next of it is not stored yet.
    is_blocked: bool,
}

/// The part of a replay that comes from other shards.
#[derive(Debug)]
pub(in crate::broker) struct FarReplay {
    query: u64,
    /// By origin: the last retained write to this shard that counts; empty before that is known.
    pub(in crate::broker) marks: Arc<[u64]>,
    /// Shards that have more.
    sources: u64,
    /// Of these, those that wait to be asked for it.
    pub(in crate::broker) more: u64,
    /// What came and was not sent yet.
    pub(in crate::broker) arrived: VecDeque<MessageKey>,
}

impl FarReplay {
    /// Whether the other shards were asked.
    pub(in crate::broker) fn is_asked(&self) -> bool {
        !self.marks.is_empty()
    }

    /// Whether all that there is has arrived.
    pub(in crate::broker) const fn is_complete(&self) -> bool {
        self.sources == 0
    }

    pub(in crate::broker) const fn query(&self) -> u64 {
        self.query
    }
}

impl Broker {
    /// The far part of a new replay, if there are other shards.
    pub(in crate::broker) fn new_far_replay(&mut self, session: SessionKey) -> Option<Box<FarReplay>> {
        let id = self.sessions.get(session as usize)?.id;
        let shards = self.shards.as_mut()?;
        let query = shards.next();
        shards.asking.insert(query, Asking { session, id });
        self.open_replay(query);
        let far = FarReplay { query, marks: Arc::default(), sources: 0, more: 0, arrived: VecDeque::new() };
        Some(Box::new(far))
    }

    fn replay_of(&mut self, query: u64) -> Option<(SessionKey, &mut Replay)> {
        let Asking { session, id } = *self.shards.as_ref()?.asking.get(&query)?;
        let found = self.sessions.get_mut(session as usize).filter(|s| s.id == id)?;
        let query_of = |replay: &Replay| replay.far.as_ref().map_or(0, |far| far.query);
        // They stand in the order in which they were numbered; what asks nobody is older.
        let at = found.replays.partition_point(|replay| query_of(replay) < query);
        let replay = found.replays.get_mut(at).filter(|replay| query_of(replay) == query)?;
        Some((session, replay))
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
        let mut sessions = Vec::new();
        for &query in queries {
            let Some((session, replay)) = self.replay_of(query) else { continue };
            let Some(far) = &mut replay.far else { continue };
            far.marks = Arc::clone(&marks);
            far.sources = others;
            questions.push((query, String::from(&*replay.filter)));
            if sessions.last() != Some(&session) {
                sessions.push(session);
            }
        }
        if questions.is_empty() {
            return;
        }
        for shard in each(others) {
            let (questions, marks) = (questions.clone(), marks_of(shard));
            self.tell_shard(shard, ShardMessage::RetainedAsk { questions, marks });
        }
        for session in sessions {
            self.go_on_with(session);
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

    /// Some of what another shard has.
    pub(super) fn retained_came(
        &mut self,
        from: ShardId,
        query: u64,
        messages: Vec<StoredMessage>,
        more: bool,
    ) {
        if self.replay_of(query).is_none() {
            return;
        }
        let keys: Vec<MessageKey> = messages.into_iter().map(|m| self.messages.adopt(m)).collect();
        let Some((session, replay)) = self.replay_of(query) else { return };
        let Some(far) = &mut replay.far else { return };
        far.arrived.extend(keys);
        if more {
            far.more |= bit(from);
        } else {
            far.sources &= !bit(from);
        }
        self.go_on_with(session);
    }

    /// Another shard has nothing for these.
    pub(super) fn no_retained_came(&mut self, from: ShardId, queries: &[u64]) {
        let mut sessions = Vec::new();
        for &query in queries {
            let Some((session, replay)) = self.replay_of(query) else { continue };
            if let Some(far) = &mut replay.far {
                far.sources &= !bit(from);
            }
            if sessions.last() != Some(&session) {
                sessions.push(session);
            }
        }
        for session in sessions {
            self.go_on_with(session);
        }
    }

    /// Asks for more of what was all sent.
    pub(in crate::broker) fn ask_for_more(&mut self, query: u64) {
        let Some((_, replay)) = self.replay_of(query) else { return };
        let more = replay.far.as_mut().map_or(0, |far| core::mem::take(&mut far.more));
        for shard in each(more) {
            self.tell_shard(shard, ShardMessage::RetainedMore { query });
        }
    }

    fn replay_far_locally(&mut self, session: SessionKey) {
        let Some(found) = self.sessions.get_mut(session as usize) else { return };
        let Some(replay) = found.replays.front_mut() else { return };
        let (qos, ids, first) = (replay.qos, replay.ids.clone(), replay.found.is_none());
        let filter = replay.filter.clone();
        let shards = self.shards.as_deref();
        let is_ready = |far: &FarReplay| shards.is_some_and(|shards| shards.has_what_counts_for(far));
        let Some(far) = replay.far.as_mut().filter(|far| is_ready(far)) else { return };
        let (query, marks) = (far.query, far.marks.clone());
        let arrived = core::mem::take(&mut far.arrived);
        let (complete, more) = (far.is_complete(), far.more != 0);
        if first {
            replay.found = Some(Vec::new());
            let own = self.router.retained_matching(&filter);
            for message in
                own.into_iter().filter(|&message| self.is_marked(message, &marks)).collect::<Vec<_>>()
            {
                self.deliver_retained(session, message, qos, &ids);
            }
        }
        for message in arrived {
            self.deliver_retained(session, message, qos, &ids);
            self.release_message(message);
        }
        if complete {
            self.forget_question(query);
            if let Some(found) = self.sessions.get_mut(session as usize) {
                found.end_replay();
            }
        } else if more {
            self.ask_for_more(query);
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
        let delivery = Delivery { message, group: None, qos, retain: true, entry: None, ids: ids.clone() };
        self.enqueue(session, delivery, size);
    }

    /// Whether a retained message here is one that a subscription with these marks does not get live.
    fn is_marked(&self, message: MessageKey, marks: &[u64]) -> bool {
        let origin = self.shards.as_ref().and_then(|shards| shards.origin(message));
        is_marked(origin, marks)
    }

    /// A replay is over, or is not wanted any more.
    pub(in crate::broker) fn forget_question(&mut self, query: u64) {
        if let Some(shards) = &mut self.shards {
            shards.asking.remove(&query);
        }
    }

    pub(in crate::broker) fn release_far_replay(&mut self, far: FarReplay) {
        self.forget_question(far.query);
        for shard in each(far.sources) {
            self.tell_shard(shard, ShardMessage::RetainedCancel { query: far.query });
        }
        for message in far.arrived {
            self.release_message(message);
        }
    }

    // ---- the owner's side ----

    /// Keeps or removes what is retained under the topic of a message from another shard.
    pub(in crate::broker) fn retain_from(&mut self, key: MessageKey, from: ShardId, write: u64) {
        if self.retain_here(key)
            && let Some(shards) = &mut self.shards
        {
            shards.origins.insert(key, (from, write));
        }
    }

    /// The same for one of this shard's own.
    pub(in crate::broker) fn note_own_retained(&mut self, key: MessageKey, is_kept: bool) {
        let Some(shards) = &mut self.shards else { return };
        let own = shards.own;
        if let Some(write) = shards.writes.get_mut(usize::from(own.0)) {
            *write += 1;
            if is_kept {
                shards.origins.insert(key, (own, *write));
            }
        }
    }

    /// A message is not retained any more.
    pub(in crate::broker) fn forget_origin(&mut self, key: MessageKey) {
        if let Some(shards) = &mut self.shards {
            shards.origins.remove(&key);
        }
    }

    pub(super) fn retained_asked(&mut self, from: ShardId, questions: Vec<(u64, String)>, marks: Vec<u64>) {
        let marks: Arc<[u64]> = marks.into();
        let (mut nothing, mut queries) = (Vec::new(), Vec::new());
        let Some(shards) = &mut self.shards else { return };
        let is_all_here = shards.has_applied(&marks);
        for (query, filter) in questions {
            // Most find nothing, and are answered together.
            if is_all_here && self.router.retained_matching(&filter).is_empty() {
                nothing.push(query);
                continue;
            }
            queries.push(query);
            let marks = Arc::clone(&marks);
            let answering = Answering { filter, marks, found: None, is_blocked: false };
            shards.answering.insert((from, query), answering);
        }
        if !nothing.is_empty() {
            self.tell_shard(from, ShardMessage::RetainedNone(nothing));
        }
        self.look_up(from, queries);
    }

    /// A write arrived that a question may wait for.
    pub(super) fn answer_who_waits(&mut self) {
        let Some(shards) = &self.shards else { return };
        let mut waiting: BTreeMap<ShardId, Vec<u64>> = BTreeMap::new();
        for (&(from, query), answering) in &shards.answering {
            if answering.found.is_none() {
                waiting.entry(from).or_default().push(query);
            }
        }
        let mut asking: Vec<SessionKey> = shards.asking.values().map(|asking| asking.session).collect();
        for (from, queries) in waiting {
            self.look_up(from, queries);
        }
        // And those of our own that wait for it here.
        asking.sort_unstable();
        asking.dedup();
        for session in asking {
            self.go_on_with(session);
        }
    }

    /// Finds what questions are about, if all that they count on is here.
    fn look_up(&mut self, from: ShardId, queries: Vec<u64>) {
        let mut nothing = Vec::new();
        for query in queries {
            let Some(shards) = &mut self.shards else { return };
            let Some(answering) = shards.answering.get(&(from, query)) else { continue };
            if !shards.has_applied(&answering.marks) {
                continue;
            }
            let mut found = self.router.retained_matching(&answering.filter);
            found.retain(|message| is_marked(shards.origin(*message), &answering.marks));
            if found.is_empty() {
                shards.answering.remove(&(from, query));
                nothing.push(query);
                continue;
            }
            found.sort_unstable_by_key(|key| self.messages.get(*key).map_or(0, Held::retained_at));
            found.iter().for_each(|&message| self.messages.hold(message));
            if let Some(answering) = shards.answering.get_mut(&(from, query)) {
                answering.found = Some(found.into());
            }
            self.send_retained(from, query);
        }
        if !nothing.is_empty() {
            self.tell_shard(from, ShardMessage::RetainedNone(nothing));
        }
    }

    /// The next page.
    pub(super) fn send_retained(&mut self, to: ShardId, query: u64) {
        let (mut messages, mut bytes) = (Vec::new(), 0);
        while messages.len() < PAGE && bytes < PAGE_BYTES {
            let answering = self.shards.as_mut().and_then(|shards| shards.answering.get_mut(&(to, query)));
            let Some(answering) = answering else { return };
            let Some(found) = answering.found.as_mut() else { return };
            let Some(&message) = found.front() else { break };
            if self.unstored_retained.get(&message).is_some_and(|after| *after > self.journal.stored()) {
                if messages.is_empty() {
                    // When it is stored.
                    answering.is_blocked = true;
                    return;
                }
                break;
            }
            found.pop_front();
            if let Some(held) = self.messages.get(message) {
                let author = self.messages.author(message);
                let revoked = author.is_some_and(|s| !self.acls.may_keep(s, held.topic_str()));
                if revoked || held.is_expired(self.now) {
                    self.forget_retained(message);
                } else if held.retained_at() != 0 {
                    bytes += held.size();
                    messages.extend(self.messages.to_stored(message));
                }
            }
            self.release_message(message);
        }
        let Some(shards) = &mut self.shards else { return };
        let rest = shards.answering.get(&(to, query)).and_then(|answering| answering.found.as_ref());
        let more = rest.is_some_and(|found| !found.is_empty());
        if !more {
            shards.answering.remove(&(to, query));
        }
        self.tell_shard(to, ShardMessage::RetainedPage { query, messages, more });
    }

    /// More is stored: answers that waited for it go on.
    pub(super) fn go_on_answering(&mut self) {
        let Some(shards) = &mut self.shards else { return };
        let blocked = shards.answering.iter_mut().filter(|(_, answering)| answering.is_blocked);
        let blocked = blocked.map(|(&of, answering)| {
            answering.is_blocked = false;
            of
        });
        for (to, query) in blocked.collect::<Vec<_>>() {
            self.send_retained(to, query);
        }
    }

    pub(super) fn retained_cancelled(&mut self, from: ShardId, query: u64) {
        let answering = self.shards.as_mut().and_then(|shards| shards.answering.remove(&(from, query)));
        for message in answering.and_then(|answering| answering.found).into_iter().flatten() {
            self.release_message(message);
        }
    }
}

/// Whether a retained message of this origin was there by the marks.
pub(in crate::broker) fn is_marked(origin: Option<(ShardId, u64)>, marks: &[u64]) -> bool {
    defect!(ShardMarkIgnored)
        || origin
            .is_none_or(|(from, write)| marks.get(usize::from(from.0)).is_some_and(|last| write <= *last))
}

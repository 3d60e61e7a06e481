//! Retained messages, each on the shard that its topic gives, and the questions of other shards about them.

use super::super::message::{Held, MessageKey};
use super::retained::MOST_EXCEPT;
use super::{Broker, Shards};
use crate::defects::defect;
use crate::store::{MessageId, StoredReplay};
use crate::{RetainedQuestion, ShardId, ShardMessage, StoreSeq};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

/// Messages of one page, and about how many bytes.
const PAGE: usize = 64;
const PAGE_BYTES: usize = 256 << 10;

/// Another shard's questions that wait for retained writes that they count on.
#[derive(Debug)]
pub(super) struct Waiting {
    from: ShardId,
    /// By their numbers.
    questions: BTreeMap<u64, RetainedQuestion>,
    marks: Vec<u64>,
}

/// What another shard gets.
#[derive(Debug)]
pub(super) struct Answering {
    found: VecDeque<MessageKey>,
    until: MessageId,
    /// Told with the first page.
    except: Vec<MessageId>,
    /// That goes when this much is stored.
    after: StoreSeq,
    /// The next of it is not stored yet: it is among those that are blocked.
    is_blocked: bool,
}

/// What a subscription gets of the retained messages here.
#[derive(Debug)]
pub(super) struct Found {
    /// In the order of their numbers.
    pub(super) keys: Vec<MessageKey>,
    /// Those with higher numbers come live, and these.
    pub(super) until: MessageId,
    pub(super) except: Vec<MessageId>,
}

/// Questions to which there is nothing.
struct Nothing {
    queries: Vec<u64>,
    /// For all of them.
    until: MessageId,
}

impl Nothing {
    const fn new() -> Self {
        Self { queries: Vec::new(), until: MessageId(u64::MAX) }
    }
}

impl Shards {
    /// An answer goes on when more is stored.
    fn block(&mut self, to: ShardId, query: u64) {
        if let Some(answering) = self.answering.get_mut(&(to, query))
            && !core::mem::replace(&mut answering.is_blocked, true)
        {
            self.blocked.push((to, query));
        }
    }
}

impl Broker {
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

    /// Which retained messages here a new subscription gets: those that these marks count; or, if it was there before a
    /// restart, those that are left to it by their numbers.
    pub(super) fn find_retained(
        &mut self,
        filter: &str,
        marks: &[u64],
        left: Option<&StoredReplay>,
    ) -> Found {
        let mut keys = self.router.retained_matching(filter);
        let number = |key: &MessageKey| MessageId(self.messages.get(*key).map_or(0, Held::retained_at));
        let mut until = self.journal.last_message();
        let mut except = Vec::new();
        if let Some(left) = left {
            keys.retain(|key| left.wants(number(key)));
        } else {
            keys.retain(|key| {
                let origin = self.shards.as_ref().and_then(|shards| shards.origin(*key));
                let counts = is_marked(origin, marks);
                except.extend((!counts).then(|| number(key)));
                counts
            });
            // Below the first that comes live, but not below what counts.
            if let Some(live) = except.iter().min() {
                until = keys
                    .iter()
                    .map(number)
                    .max()
                    .unwrap_or_default()
                    .max(MessageId(live.0.saturating_sub(1)));
            }
            except.retain(|live| *live <= until);
            except.truncate(MOST_EXCEPT);
        }
        keys.sort_unstable_by_key(number);
        Found { keys, until, except }
    }

    pub(super) fn retained_asked(
        &mut self,
        from: ShardId,
        questions: Vec<RetainedQuestion>,
        marks: Vec<u64>,
    ) {
        let Some(shards) = &mut self.shards else { return };
        if shards.has_applied(&marks) {
            self.look_up(from, questions, &marks);
        } else {
            let questions = questions.into_iter().map(|question| (question.query, question)).collect();
            shards.waiting.push(Waiting { from, questions, marks });
        }
    }

    /// A write arrived that a question may wait for.
    pub(super) fn answer_who_waits(&mut self) {
        let Some(shards) = &mut self.shards else { return };
        let waiting = core::mem::take(&mut shards.waiting);
        let (ready, still) = waiting.into_iter().partition(|waiting| shards.has_applied(&waiting.marks));
        shards.waiting = still;
        let ready: Vec<Waiting> = ready;
        for Waiting { from, questions, marks } in ready {
            self.look_up(from, questions.into_values(), &marks);
        }
    }

    /// Finds what is asked for. Most find nothing, and are answered together.
    fn look_up(
        &mut self,
        from: ShardId,
        questions: impl IntoIterator<Item = RetainedQuestion>,
        marks: &[u64],
    ) {
        let mut nothing = Nothing::new();
        for question in questions {
            self.look_up_one(from, &question, marks, &mut nothing);
        }
        if !nothing.queries.is_empty() {
            let Nothing { queries, until } = nothing;
            self.tell_shard(from, ShardMessage::RetainedNone { queries, until });
        }
    }

    fn look_up_one(
        &mut self,
        from: ShardId,
        question: &RetainedQuestion,
        marks: &[u64],
        nothing: &mut Nothing,
    ) {
        let Found { keys, until, except } =
            self.find_retained(&question.filter, marks, question.left.as_deref());
        // The other shard remembers what it was told over a crash, so that must not undo what is retained here.
        let after = if question.stored { self.journal.so_far() } else { StoreSeq(0) };
        if keys.is_empty() && after <= self.journal.stored() {
            nothing.queries.push(question.query);
            nothing.until = nothing.until.min(until);
            return;
        }
        keys.iter().for_each(|&message| self.messages.hold(message));
        if let Some(shards) = &mut self.shards {
            let answering = Answering { found: keys.into(), until, except, after, is_blocked: false };
            shards.answering.insert((from, question.query), answering);
        }
        self.send_retained(from, question.query);
    }

    /// The next page.
    pub(super) fn send_retained(&mut self, to: ShardId, query: u64) {
        let stored = self.journal.stored();
        let (mut messages, mut bytes) = (Vec::new(), 0);
        while messages.len() < PAGE && bytes < PAGE_BYTES {
            let Some(shards) = &mut self.shards else { return };
            let Some(answering) = shards.answering.get_mut(&(to, query)) else { return };
            if answering.after > stored {
                shards.block(to, query);
                return;
            }
            let Some(&message) = answering.found.front() else { break };
            if self.unstored_retained.get(&message).is_some_and(|after| *after > stored) {
                if messages.is_empty() {
                    // When it is stored.
                    shards.block(to, query);
                    return;
                }
                break;
            }
            answering.found.pop_front();
            if let Some(held) = self.messages.get(message) {
                let number = MessageId(held.retained_at());
                let author = self.messages.author(message);
                let revoked = author.is_some_and(|s| !self.acls.may_keep(s, held.topic_str()));
                if revoked || held.is_expired(self.now) {
                    self.forget_retained(message);
                } else if number != MessageId(0) {
                    bytes += held.size();
                    messages.extend(self.messages.to_stored(message).map(|message| (number, message)));
                }
            }
            self.release_message(message);
        }
        let Some(shards) = &mut self.shards else { return };
        let Some(answering) = shards.answering.get_mut(&(to, query)) else { return };
        let (until, except) = (answering.until, core::mem::take(&mut answering.except));
        let more = !answering.found.is_empty();
        if !more {
            shards.answering.remove(&(to, query));
        }
        self.tell_shard(to, ShardMessage::RetainedPage { query, messages, more, until, except });
    }

    /// More is stored: answers that waited for it go on.
    pub(super) fn go_on_answering(&mut self) {
        let Some(shards) = &mut self.shards else { return };
        for (to, query) in core::mem::take(&mut shards.blocked) {
            let answering = self.shards.as_mut().and_then(|shards| shards.answering.get_mut(&(to, query)));
            if let Some(answering) = answering {
                answering.is_blocked = false;
                self.send_retained(to, query);
            }
        }
    }

    pub(super) fn retained_cancelled(&mut self, from: ShardId, query: u64) {
        let Some(shards) = &mut self.shards else { return };
        for waiting in shards.waiting.iter_mut().filter(|waiting| waiting.from == from) {
            waiting.questions.remove(&query);
        }
        let answering = shards.answering.remove(&(from, query));
        for message in answering.into_iter().flat_map(|answering| answering.found) {
            self.release_message(message);
        }
    }
}

/// Whether a retained message of this origin was there by the marks.
fn is_marked(origin: Option<(ShardId, u64)>, marks: &[u64]) -> bool {
    defect!(ShardMarkIgnored)
        || origin
            .is_none_or(|(from, write)| marks.get(usize::from(from.0)).is_some_and(|last| write <= *last))
}

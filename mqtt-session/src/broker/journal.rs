//! Groups of store operations on their way to the store.

use super::BrokerConfig;
use super::output::Output;
use super::shrink::Shrink;
use crate::ShardId;
use crate::store::{Durability, EntryId, MessageId, SessionId, StoreGroup, StoreOp, StoreSeq, StoredLimits};
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// Numbers that are reserved at once. The store learns of them by one operation for so many, and
/// what a restart skips of them does not matter: 64 bits are never used up.
const RESERVED: u64 = 1 << 20;

#[derive(Debug)]
pub(super) struct Journal {
    on: bool,
    /// What is committed stays in the open group.
    held_back: bool,
    shard: ShardId,
    /// From one number to the next: the numbers between are those of other shards. A power of two, so
    /// that numbers of two shards never agree in their low six bits.
    stride: u64,
    open: Vec<StoreOp>,
    last: StoreSeq,
    stored: StoreSeq,
    /// What is emitted and not confirmed, so that it can be emitted again after the store failed.
    unconfirmed: VecDeque<(StoreSeq, usize, StoreGroup)>,
    unconfirmed_bytes: usize,
    max_unconfirmed: usize,
    failed: bool,
    /// The last numbers given.
    given: StoredLimits,
    /// How far numbers are reserved in the store.
    limits: StoredLimits,
    /// The store was not told yet.
    limits_moved: bool,
}

impl Journal {
    pub(super) fn new(config: &BrokerConfig) -> Self {
        let shard = u64::from(config.shard.0);
        let given = StoredLimits { sessions: shard, messages: shard, entries: shard };
        Self {
            on: config.durability != Durability::Off,
            held_back: false,
            shard: config.shard,
            stride: u64::from(config.shards.max(1).next_power_of_two()),
            open: Vec::new(),
            last: StoreSeq(0),
            stored: StoreSeq(0),
            unconfirmed: VecDeque::new(),
            unconfirmed_bytes: 0,
            max_unconfirmed: config.max_unstored_bytes,
            failed: false,
            given,
            limits: given,
            limits_moved: false,
        }
    }

    pub(super) const fn is_on(&self) -> bool {
        self.on
    }

    pub(super) const fn has_failed(&self) -> bool {
        self.failed
    }

    /// Whether so much is under way that publishers have to wait. Not while the store is failed: then
    /// what would make more of it is refused instead.
    pub(super) const fn is_full(&self) -> bool {
        self.unconfirmed_bytes > self.max_unconfirmed && !self.failed
    }

    /// Whether the store is failed and no operation may be added that can be done without.
    pub(super) const fn is_overfull(&self) -> bool {
        self.unconfirmed_bytes > self.max_unconfirmed && self.failed
    }

    /// Numbers go on behind those that were ever given. Nobody ever gives 2^62; a damaged store that
    /// says so must not make counting overflow.
    pub(super) fn restore_limits(&mut self, limits: StoredLimits) {
        const MOST: u64 = 1 << 62;
        let (own, stride) = (u64::from(self.shard.0), self.stride);
        // Not below any that was given, whoever gave it.
        let behind = |limit: u64| limit.min(MOST).next_multiple_of(stride) + own;
        self.given = StoredLimits {
            sessions: behind(limits.sessions),
            messages: behind(limits.messages),
            entries: behind(limits.entries),
        };
        self.limits = self.given;
    }

    pub(super) fn new_session(&mut self) -> SessionId {
        self.given.sessions += self.stride;
        self.reserve();
        SessionId(self.given.sessions)
    }

    pub(super) fn new_message(&mut self) -> MessageId {
        self.given.messages += self.stride;
        self.reserve();
        MessageId(self.given.messages)
    }

    /// The last number that was given to a message; no other shard gives one with the same remainder by
    /// [`Journal::stride`].
    pub(super) const fn last_message(&self) -> MessageId {
        MessageId(self.given.messages)
    }

    /// How many numbers there are from one to the next.
    pub(super) fn stride(&self) -> usize {
        usize::try_from(self.stride).unwrap_or(1)
    }

    pub(super) fn new_entry(&mut self) -> EntryId {
        self.given.entries += self.stride;
        self.reserve();
        EntryId(self.given.entries)
    }

    #[inline]
    fn reserve(&mut self) {
        let (given, limits) = (&self.given, &self.limits);
        if given.sessions > limits.sessions
            || given.messages > limits.messages
            || given.entries > limits.entries
        {
            let stride = self.stride;
            let further =
                |given: u64, limit: u64| if given > limit { given + RESERVED * stride } else { limit };
            self.limits = StoredLimits {
                sessions: further(given.sessions, limits.sessions),
                messages: further(given.messages, limits.messages),
                entries: further(given.entries, limits.entries),
            };
            self.limits_moved = true;
        }
    }

    /// Adds an operation to the open group.
    #[inline]
    pub(super) fn op(&mut self, op: StoreOp) {
        if self.on {
            self.open.push(op);
        }
    }

    /// The number of the last group.
    pub(super) const fn last(&self) -> StoreSeq {
        self.last
    }

    /// Whether operations wait to be emitted.
    pub(super) fn is_open(&self) -> bool {
        !self.open.is_empty()
    }

    pub(super) fn shrink(&mut self) {
        self.open.shrink();
        self.unconfirmed.shrink();
    }

    /// Closes the open group, if it has operations, and gives the number that has to be stored
    /// before anything that depends on what was emitted so far.
    pub(super) fn commit(&mut self, outputs: &mut VecDeque<Output>) -> StoreSeq {
        if !self.held_back
            && let Some(group) = self.take_open()
        {
            self.last = self.last.next();
            let size = group.size();
            self.unconfirmed_bytes += size;
            // Also after a failure: it comes behind what was emitted again.
            outputs.push_back(Output::Store(self.last, group.clone()));
            self.unconfirmed.push_back((self.last, size, group));
        }
        self.last
    }

    /// From now on, or no longer, [`Journal::commit`] leaves the open group open.
    pub(super) const fn hold_back(&mut self, held_back: bool) {
        self.held_back = held_back;
    }

    /// The open group, for somebody who has it stored in another way.
    pub(super) fn take_open(&mut self) -> Option<StoreGroup> {
        if self.open.is_empty() {
            return None;
        }
        // Before the first operation with a number beyond the old limits. Numbers without operations
        // need no limits.
        if core::mem::take(&mut self.limits_moved) {
            self.open.insert(0, StoreOp::PutLimits(self.shard, self.limits));
        }
        // One allocation for the group; the list that it was made in is kept.
        Some(StoreGroup { ops: self.open.drain(..).collect() })
    }

    /// The number that the open group will have.
    pub(super) const fn next_seq(&self) -> StoreSeq {
        self.last.next()
    }

    /// What has to be stored for all that was done so far.
    pub(super) fn so_far(&self) -> StoreSeq {
        if self.is_open() { self.next_seq() } else { self.last }
    }

    pub(super) const fn stored(&self) -> StoreSeq {
        self.stored
    }

    /// Everything up to `through` is safe. Whether the store works again by that.
    pub(super) fn confirm(&mut self, through: StoreSeq) -> bool {
        // What was never emitted cannot be confirmed.
        let through = through.min(self.last);
        self.stored = self.stored.max(through);
        while let Some((seq, size, _)) = self.unconfirmed.front()
            && *seq <= through
        {
            self.unconfirmed_bytes -= size;
            self.unconfirmed.pop_front();
        }
        let recovered = self.failed && self.unconfirmed.is_empty();
        self.failed &= !recovered;
        recovered
    }

    /// Whether everything that was emitted is safe, or is not going to be soon.
    pub(super) const fn is_settled(&self) -> bool {
        self.failed || self.stored.0 >= self.last.0
    }

    /// The store lost `from` and all after it: they are emitted again. Whether that is news.
    pub(super) fn fail(&mut self, from: StoreSeq, outputs: &mut VecDeque<Output>) -> bool {
        let news = self.on && !self.failed;
        self.failed = self.on;
        for (seq, _, group) in &self.unconfirmed {
            if *seq >= from {
                outputs.push_back(Output::Store(*seq, group.clone()));
            }
        }
        news
    }
}

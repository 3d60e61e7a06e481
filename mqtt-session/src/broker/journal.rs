//! Groups of store operations on their way to the store.

use super::output::Output;
use crate::store::{Durability, EntryId, MessageId, SessionId, StoreGroup, StoreOp, StoreSeq};
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// What is emitted and not confirmed is kept, so that it can be written again after the store failed.
/// Beyond this many bytes, what causes operations waits.
const UNCONFIRMED_LIMIT: usize = 16 << 20;

#[derive(Debug)]
pub(super) struct Journal {
    on: bool,
    open: Vec<StoreOp>,
    last: StoreSeq,
    stored: StoreSeq,
    unconfirmed: VecDeque<(StoreSeq, usize, StoreGroup)>,
    unconfirmed_bytes: usize,
    failed: bool,
    next_session: u64,
    next_message: u64,
    next_entry: u64,
}

impl Journal {
    pub(super) fn new(durability: Durability) -> Self {
        Self {
            on: durability != Durability::Off,
            open: Vec::new(),
            last: StoreSeq(0),
            stored: StoreSeq(0),
            unconfirmed: VecDeque::new(),
            unconfirmed_bytes: 0,
            failed: false,
            next_session: 0,
            next_message: 0,
            next_entry: 0,
        }
    }

    pub(super) const fn is_on(&self) -> bool {
        self.on
    }

    pub(super) const fn has_failed(&self) -> bool {
        self.failed
    }

    /// Whether so much is under way that publishers have to wait.
    pub(super) const fn is_full(&self) -> bool {
        self.unconfirmed_bytes > UNCONFIRMED_LIMIT
    }

    pub(super) fn new_session(&mut self) -> SessionId {
        self.next_session += 1;
        SessionId(self.next_session)
    }

    pub(super) fn new_message(&mut self) -> MessageId {
        self.next_message += 1;
        MessageId(self.next_message)
    }

    pub(super) fn new_entry(&mut self) -> EntryId {
        self.next_entry += 1;
        EntryId(self.next_entry)
    }

    /// Adds an operation to the open group.
    pub(super) fn op(&mut self, op: StoreOp) {
        if self.on {
            self.open.push(op);
        }
    }

    /// Closes the open group, if it has operations, and gives the number that has to be stored
    /// before anything that depends on what was emitted so far.
    pub(super) fn commit(&mut self, outputs: &mut VecDeque<Output>) -> StoreSeq {
        if !self.open.is_empty() {
            self.last = self.last.next();
            let group = StoreGroup::new(core::mem::take(&mut self.open));
            let size = group.size();
            self.unconfirmed_bytes += size;
            // Also after a failure: it comes behind what was emitted again.
            outputs.push_back(Output::Store(self.last, group.clone()));
            self.unconfirmed.push_back((self.last, size, group));
        }
        self.last
    }

    /// The number that the open group will have.
    pub(super) const fn next_seq(&self) -> StoreSeq {
        self.last.next()
    }

    pub(super) const fn stored(&self) -> StoreSeq {
        self.stored
    }

    /// Everything up to `through` is safe.
    pub(super) fn confirm(&mut self, through: StoreSeq) {
        // What was never emitted cannot be confirmed.
        let through = through.min(self.last);
        self.stored = self.stored.max(through);
        while let Some((seq, size, _)) = self.unconfirmed.front()
            && *seq <= through
        {
            self.unconfirmed_bytes -= size;
            self.unconfirmed.pop_front();
        }
        if self.unconfirmed.is_empty() {
            self.failed = false;
        }
    }

    /// The store lost `from` and all after it: they are emitted again.
    pub(super) fn fail(&mut self, from: StoreSeq, outputs: &mut VecDeque<Output>) {
        self.failed = true;
        for (seq, _, group) in &self.unconfirmed {
            if *seq >= from {
                outputs.push_back(Output::Store(*seq, group.clone()));
            }
        }
    }
}

use super::router::SessionKey;
use super::shrink::is_too_large;
use crate::Timestamp;
use alloc::collections::BinaryHeap;
use core::cmp::Reverse;

/// What a deadline is about. The number behind it tells a reused place from the old one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    Connection { index: u32, generation: u32 },
    Session { key: SessionKey, incarnation: u64 },
}

/// Deadlines, soonest first. Lazy: a deadline that moved later is found out when the old one is due,
/// so that traffic costs no timer operation.
#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Timestamp, Timer)>>,
}

impl Timers {
    pub(super) fn at(&mut self, deadline: Timestamp, timer: Timer) {
        if deadline != Timestamp::MAX {
            self.heap.push(Reverse((deadline, timer)));
        }
    }

    pub(super) fn shrink(&mut self) {
        if is_too_large(self.heap.len(), self.heap.capacity()) {
            self.heap.shrink_to(2 * self.heap.len());
        }
    }

    pub(super) fn next(&self) -> Option<Timestamp> {
        self.heap.peek().map(|Reverse((deadline, _))| *deadline)
    }

    /// The next timer that is due.
    pub(super) fn pop(&mut self, now: Timestamp) -> Option<Timer> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse((_, timer))| timer)
    }
}

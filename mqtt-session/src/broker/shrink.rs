//! Memory that was needed once and is not any more goes back to the allocator: every now and then, with the wall clock, what has
//! room for four times as much as it holds is cut down. Growing is not slowed by it.

use super::Broker;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::hash::{BuildHasher, Hash};
use hashbrown::HashMap;
use slab::Slab;

/// Room for so many is not worth the trouble.
const LITTLE: usize = 16;

/// Whether to cut down to `len` or a little more.
pub(super) const fn is_too_large(len: usize, capacity: usize) -> bool {
    capacity > LITTLE && capacity / 4 > len
}

/// What can be cut down to what it holds. What is in it keeps its place and its number.
pub(super) trait Shrink {
    /// Does so, if it is much too large.
    fn shrink(&mut self);
}

impl<T> Shrink for VecDeque<T> {
    fn shrink(&mut self) {
        if is_too_large(self.len(), self.capacity()) {
            self.shrink_to(2 * self.len());
        }
    }
}

impl<T> Shrink for Vec<T> {
    fn shrink(&mut self) {
        if is_too_large(self.len(), self.capacity()) {
            self.shrink_to(2 * self.len());
        }
    }
}

impl<K: Eq + Hash, V, S: BuildHasher> Shrink for HashMap<K, V, S> {
    fn shrink(&mut self) {
        if is_too_large(self.len(), self.capacity()) {
            self.shrink_to(2 * self.len());
        }
    }
}

impl<T> Shrink for Slab<T> {
    fn shrink(&mut self) {
        if is_too_large(self.len(), self.capacity()) {
            self.shrink_to_fit();
        }
    }
}

/// Things that are kept to be used again. Those that were not since the last time go.
#[derive(Debug)]
pub(super) struct Pool<T> {
    items: Vec<T>,
    /// So many were never taken since then.
    unused: usize,
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self { items: Vec::new(), unused: 0 }
    }
}

impl<T> Pool<T> {
    #[inline]
    pub(super) const fn len(&self) -> usize {
        self.items.len()
    }

    #[inline]
    pub(super) fn take(&mut self) -> Option<T> {
        let item = self.items.pop();
        self.unused = self.unused.min(self.items.len());
        item
    }

    #[inline]
    pub(super) fn put(&mut self, item: T) {
        self.items.push(item);
    }

    /// Gives the ones that go.
    pub(super) fn cut(&mut self) -> impl Iterator<Item = T> {
        let gone: Vec<T> = self.items.drain(..self.unused).collect();
        self.items.shrink();
        self.unused = self.items.len();
        gone.into_iter()
    }
}

impl Broker {
    pub(super) fn shrink(&mut self) {
        self.connections.shrink();
        self.sessions.shrink();
        let sessions = self.sessions.iter().next_back().map_or(0, |(last, _)| last + 1);
        self.clients.shrink();
        self.router.shrink(sessions);
        self.messages.shrink();
        self.journal.shrink();
        self.timers.shrink();
        for queue in [&mut self.flushes, &mut self.condemned] {
            queue.shrink();
        }
        self.outputs.shrink();
        self.backlog.shrink();
        self.waiting.shrink();
        self.deferred.shrink();
        self.unstored_retained.shrink();
        self.questions.shrink();
        self.question_deadlines.shrink();
        self.wills.shrink();
        self.locals.shrink();
        self.matches.receivers.shrink();
        self.matches.groups.shrink();
        self.spare_deliveries.shrink();
        self.spares.shrink();
        if let Some(shards) = &mut self.shards {
            shards.shrink();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_stays() {
        let mut pool = Pool::default();
        (0..10).for_each(|n| pool.put(n));
        assert_eq!(pool.cut().count(), 0, "they are new");
        let taken: Vec<u32> = (0..3).filter_map(|_| pool.take()).collect();
        taken.into_iter().for_each(|n| pool.put(n));
        assert_eq!(pool.cut().collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(pool.cut().count(), 3);
        assert_eq!(pool.take(), None);
    }
}

//! The ways from nodes to their children, in one table: open addressing with linear probing, so that a search reads one
//! line of memory more often than two. A table that keeps its marks apart from what they stand for reads two at least.

use super::tree::NodeId;
use crate::broker::shrink::is_too_large;
use alloc::vec::Vec;

/// Places of the smallest table that has any.
const FIRST: usize = 8;

/// Of a level and the node above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EdgeHash(u32);

const MIX: u64 = 0x9E37_79B9_7F4A_7C15;

impl EdgeHash {
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the other half is folded in")]
    pub(super) const fn new(level: u64, parent: NodeId) -> Self {
        // An odd factor tells all parents apart.
        let both = level ^ (parent as u64).wrapping_mul(MIX);
        Self((both ^ both >> 32) as u32)
    }
}

/// The way to a node, with what a search and a larger table have to know, so that they look at no other nodes.
#[derive(Clone, Copy, Debug)]
struct Edge {
    hash: EdgeHash,
    /// [`NONE`] where nothing is.
    child: NodeId,
}

const NONE: NodeId = NodeId::MAX;
const EMPTY: Edge = Edge { hash: EdgeHash(0), child: NONE };

/// The place where a child may be, and what is there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Search {
    hash: EdgeHash,
    at: usize,
    first: Edge,
}

#[derive(Debug, Default)]
pub(super) struct Edges {
    /// None, or a power of two of them, of which a fifth is empty.
    places: Vec<Edge>,
    len: usize,
}

impl Edges {
    #[cfg(test)]
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Where an edge with this hash belongs.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "masked")]
    const fn home(&self, hash: EdgeHash) -> usize {
        let spread = (hash.0 as u64).wrapping_mul(MIX);
        (spread ^ spread >> 32) as usize & self.mask()
    }

    const fn mask(&self) -> usize {
        self.places.len().wrapping_sub(1)
    }

    /// Begins a search. Beginning some before the first goes on lets them wait for memory together.
    #[inline]
    pub(super) fn search(&self, hash: EdgeHash) -> Search {
        let at = self.home(hash);
        Search { hash, at, first: self.places.get(at).copied().unwrap_or(EMPTY) }
    }

    /// The child with the hash of the search that is wanted.
    #[inline]
    pub(super) fn find(&self, search: Search, mut is_wanted: impl FnMut(NodeId) -> bool) -> Option<NodeId> {
        let Search { hash, mut at, first: mut edge } = search;
        while edge.child != NONE {
            if edge.hash == hash && is_wanted(edge.child) {
                return Some(edge.child);
            }
            at = (at + 1) & self.mask();
            edge = *self.places.get(at)?;
        }
        None
    }

    /// Adds a child that is not there.
    pub(super) fn insert(&mut self, hash: EdgeHash, child: NodeId) {
        if (self.len + 1) * 5 > self.places.len() * 4 {
            self.resize((2 * self.places.len()).max(FIRST));
        }
        self.len += 1;
        self.put(Edge { hash, child });
    }

    fn put(&mut self, edge: Edge) {
        let mut at = self.home(edge.hash);
        while let Some(place) = self.places.get_mut(at) {
            if place.child == NONE {
                *place = edge;
                return;
            }
            at = (at + 1) & self.mask();
        }
    }

    /// Removes a child, if it is there.
    pub(super) fn remove(&mut self, hash: EdgeHash, child: NodeId) {
        let mut hole = self.home(hash);
        loop {
            match self.places.get(hole) {
                Some(edge) if edge.child == child => break,
                Some(edge) if edge.child != NONE => hole = (hole + 1) & self.mask(),
                _ => return,
            }
        }
        self.len -= 1;
        // What stands behind, and would not be found over the hole, moves up.
        let mut at = hole;
        loop {
            at = (at + 1) & self.mask();
            let Some(&edge) = self.places.get(at).filter(|edge| edge.child != NONE) else { break };
            let from_home = at.wrapping_sub(self.home(edge.hash)) & self.mask();
            if from_home >= at.wrapping_sub(hole) & self.mask() {
                self.set(hole, edge);
                hole = at;
            }
        }
        self.set(hole, EMPTY);
    }

    fn set(&mut self, at: usize, edge: Edge) {
        if let Some(place) = self.places.get_mut(at) {
            *place = edge;
        }
    }

    fn resize(&mut self, places: usize) {
        let old = core::mem::replace(&mut self.places, alloc::vec![EMPTY; places]);
        for edge in old.into_iter().filter(|edge| edge.child != NONE) {
            self.put(edge);
        }
    }

    /// Gives back what many more needed.
    pub(super) fn shrink(&mut self) {
        if !is_too_large(self.len, self.places.len()) {
            return;
        }
        match self.len {
            0 => self.places = Vec::new(),
            len => self.resize((2 * len).next_power_of_two().max(FIRST)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;
    use proptest::prelude::*;

    proptest! {
        /// Many share a hash or the place where they belong, and what is removed leaves no gap before what is behind.
        #[test]
        fn it_is_a_map(steps in prop::collection::vec((0u8..6, 0u32..40), 1..400)) {
            let mut edges = Edges::default();
            let mut model = BTreeMap::new();
            for (what, child) in steps {
                // Some hashes for several children each.
                let hash = EdgeHash(child % 13 * 0x1000_0001);
                match what {
                    0..3 => {
                        if model.insert(child, hash).is_none() {
                            edges.insert(hash, child);
                        }
                    }
                    3 | 4 => {
                        model.remove(&child);
                        edges.remove(hash, child);
                    }
                    _ => edges.shrink(),
                }
                prop_assert_eq!(edges.len(), model.len());
                for child in 0..40 {
                    let hash = EdgeHash(child % 13 * 0x1000_0001);
                    let found = edges.find(edges.search(hash), |found| found == child);
                    prop_assert_eq!(found, model.contains_key(&child).then_some(child));
                }
            }
        }
    }

    #[test]
    fn a_fifth_stays_empty_and_memory_is_given_back() {
        let mut edges = Edges::default();
        assert_eq!(edges.find(edges.search(EdgeHash::new(1, 2)), |_| true), None);
        edges.remove(EdgeHash::new(1, 2), 3);
        let hash = |child: u32| EdgeHash::new(u64::from(child).wrapping_mul(MIX), 7);
        for child in 0..10_000 {
            edges.insert(hash(child), child);
            assert!(edges.len * 5 <= edges.places.len() * 4);
        }
        assert!(
            (0..10_000)
                .all(|child| edges.find(edges.search(hash(child)), |found| found == child) == Some(child))
        );
        (10..10_000).for_each(|child| edges.remove(hash(child), child));
        edges.shrink();
        assert!(edges.places.len() <= 64, "{}", edges.places.len());
        assert!(
            (0..10_000).all(|child| edges.find(edges.search(hash(child)), |found| found == child).is_some()
                == (child < 10))
        );
        (0..10).for_each(|child| edges.remove(hash(child), child));
        edges.shrink();
        assert_eq!((edges.len(), edges.find(edges.search(hash(0)), |_| true)), (0, None));
    }
}

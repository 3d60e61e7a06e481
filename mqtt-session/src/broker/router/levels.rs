use alloc::boxed::Box;
use core::hash::BuildHasher;
use hashbrown::HashTable;
use slab::Slab;

use crate::random::KeyedHash;

/// The number of a topic level.
pub(super) type LevelId = u32;

/// `+` and `#` in the tree of filters.
pub(super) const PLUS: LevelId = 0;
pub(super) const HASH: LevelId = 1;

/// The distinct levels of all topics and filters held, each stored once. Peers choose them, so they
/// are hashed with a secret key.
#[derive(Debug)]
pub(super) struct Levels {
    table: HashTable<LevelId>,
    entries: Slab<(Box<[u8]>, u32)>,
    hasher: KeyedHash,
}

impl Levels {
    pub(super) fn new(hasher: KeyedHash) -> Self {
        let mut levels = Self { table: HashTable::new(), entries: Slab::new(), hasher };
        levels.acquire(b"+");
        levels.acquire(b"#");
        levels
    }

    /// The number of `level`, if it occurs anywhere.
    #[inline]
    pub(super) fn find(&self, level: &[u8]) -> Option<LevelId> {
        let hash = self.hasher.hash_one(level);
        self.table.find(hash, |&id| self.is(id, level)).copied()
    }

    fn is(&self, id: LevelId, level: &[u8]) -> bool {
        self.entries.get(id as usize).is_some_and(|(bytes, _)| &**bytes == level)
    }

    /// The number of `level`, which is used once more.
    pub(super) fn acquire(&mut self, level: &[u8]) -> LevelId {
        if let Some(id) = self.find(level) {
            if let Some((_, uses)) = self.entries.get_mut(id as usize) {
                *uses += 1;
            }
            return id;
        }
        let hash = self.hasher.hash_one(level);
        // Levels are bounded by the subscriptions and retained messages, which are counted in u32.
        let id = LevelId::try_from(self.entries.insert((level.into(), 1))).unwrap_or(LevelId::MAX);
        let (entries, hasher) = (&self.entries, &self.hasher);
        self.table.insert_unique(hash, id, |&id| {
            entries.get(id as usize).map_or(0, |(bytes, _)| hasher.hash_one(&**bytes))
        });
        id
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        debug_assert_eq!(self.entries.len(), self.table.len());
        self.entries.len()
    }

    /// `level` is used once less.
    pub(super) fn release(&mut self, id: LevelId) {
        let Some((bytes, uses)) = self.entries.get_mut(id as usize) else { return };
        *uses -= 1;
        if *uses > 0 {
            return;
        }
        let hash = self.hasher.hash_one(&**bytes);
        if let Ok(entry) = self.table.find_entry(hash, |&other| other == id) {
            entry.remove();
        }
        self.entries.remove(id as usize);
    }

    /// Its text.
    pub(super) fn text(&self, id: LevelId) -> &str {
        // Levels are parts of texts.
        self.entries
            .get(id as usize)
            .and_then(|(bytes, _)| core::str::from_utf8(bytes).ok())
            .unwrap_or_default()
    }

    /// Whether the level begins with `$`.
    pub(super) fn is_dollar(&self, id: LevelId) -> bool {
        self.entries.get(id as usize).is_some_and(|(bytes, _)| bytes.first() == Some(&b'$'))
    }
}

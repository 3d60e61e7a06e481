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
    entries: Slab<Level>,
    hasher: KeyedHash,
}

#[derive(Debug)]
struct Level {
    text: Text,
    uses: u32,
}

/// Most levels are short, and then found where their entry is.
#[derive(Debug)]
enum Text {
    Short(u8, [u8; SHORT]),
    Long(Box<[u8]>),
}

/// As many as fit beside what is there anyway.
const SHORT: usize = 22;

impl Text {
    fn new(text: &[u8]) -> Self {
        let mut short = [0; SHORT];
        match (short.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(place), Ok(len)) => {
                place.copy_from_slice(text);
                Self::Short(len, short)
            }
            _ => Self::Long(text.into()),
        }
    }

    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Short(len, text) => text.get(..usize::from(*len)).unwrap_or_default(),
            Self::Long(text) => text,
        }
    }
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
        self.entries.get(id as usize).is_some_and(|entry| entry.text.as_bytes() == level)
    }

    /// The number of `level`, which is used once more.
    pub(super) fn acquire(&mut self, level: &[u8]) -> LevelId {
        if let Some(id) = self.find(level) {
            if let Some(entry) = self.entries.get_mut(id as usize) {
                entry.uses += 1;
            }
            return id;
        }
        let hash = self.hasher.hash_one(level);
        // Levels are bounded by the subscriptions and retained messages, which are counted in u32.
        let id = LevelId::try_from(self.entries.insert(Level { text: Text::new(level), uses: 1 }))
            .unwrap_or(LevelId::MAX);
        let (entries, hasher) = (&self.entries, &self.hasher);
        self.table.insert_unique(hash, id, |&id| {
            entries.get(id as usize).map_or(0, |entry| hasher.hash_one(entry.text.as_bytes()))
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
        let Some(entry) = self.entries.get_mut(id as usize) else { return };
        entry.uses -= 1;
        if entry.uses > 0 {
            return;
        }
        let hash = self.hasher.hash_one(entry.text.as_bytes());
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
            .and_then(|entry| core::str::from_utf8(entry.text.as_bytes()).ok())
            .unwrap_or_default()
    }

    /// Whether the level begins with `$`.
    pub(super) fn is_dollar(&self, id: LevelId) -> bool {
        self.entries.get(id as usize).is_some_and(|entry| entry.text.as_bytes().first() == Some(&b'$'))
    }
}

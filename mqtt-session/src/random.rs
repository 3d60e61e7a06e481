//! Randomness without a source of its own: keyed streams derived from the seed that the adapter gave.

use core::hash::Hasher;
use siphasher::sip::SipHasher13;

/// 128 bits from which a machine derives all its randomness. The adapter takes them from the
/// operating system; a test takes any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Seed(pub [u8; 16]);

/// What a stream is for. Streams of different purposes are independent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum Purpose {
    /// Keys of the hash tables whose keys peers choose.
    Tables = 1,
    /// Assigned client identifiers.
    ClientIds = 2,
    /// Jitter of reconnecting.
    Backoff = 3,
    /// Which shard something belongs to.
    Homes = 4,
}

/// One stream.
#[derive(Clone, Debug)]
pub(crate) struct Random {
    key: [u8; 16],
    counter: u64,
}

impl Random {
    pub(crate) fn new(seed: Seed, shard: u16, purpose: Purpose) -> Self {
        let mut key = [0; 16];
        let half = |n: u8| {
            let mut hasher = SipHasher13::new_with_key(&seed.0);
            hasher.write(&[n, purpose as u8]);
            hasher.write_u16(shard);
            hasher.finish().to_le_bytes()
        };
        let (low, high) = key.split_at_mut(8);
        low.copy_from_slice(&half(0));
        high.copy_from_slice(&half(1));
        Self { key, counter: 0 }
    }

    pub(crate) fn next_u64(&mut self) -> u64 {
        // Wraps after 2^64 draws, which do not happen.
        self.counter = self.counter.wrapping_add(1);
        let mut hasher = SipHasher13::new_with_key(&self.key);
        hasher.write_u64(self.counter);
        hasher.finish()
    }

    pub(crate) const fn key(&self) -> &[u8; 16] {
        &self.key
    }
}

/// Builds SipHash-1-3 with a secret key, for tables whose keys peers choose.
#[derive(Clone, Debug)]
pub(crate) struct KeyedHash([u8; 16]);

impl KeyedHash {
    pub(crate) fn new(seed: Seed, shard: u16) -> Self {
        Self(*Random::new(seed, shard, Purpose::Tables).key())
    }

    /// By this key, which was another's.
    pub(crate) const fn from_key(key: [u8; 16]) -> Self {
        Self(key)
    }

    pub(crate) const fn key(&self) -> [u8; 16] {
        self.0
    }

    /// The hash of bytes by themselves, which takes half of what hashing them as a slice does.
    #[inline]
    pub(crate) fn of_bytes(&self, bytes: &[u8]) -> u64 {
        SipHasher13::new_with_key(&self.0).hash(bytes)
    }

    /// The one by which all shards of a broker find out what belongs to which of them.
    pub(crate) fn of_homes(seed: Seed) -> Self {
        Self(*Random::new(seed, 0, Purpose::Homes).key())
    }
}

impl core::hash::BuildHasher for KeyedHash {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_key(&self.0)
    }
}

/// A table from keys that peers choose.
pub(crate) type PeerMap<K, V> = hashbrown::HashMap<K, V, KeyedHash>;
/// A table from numbers that we choose, or of which there are only 65,535.
pub(crate) type IdMap<K, V> = hashbrown::HashMap<K, V, foldhash::fast::FixedState>;

//! Who got the last messages to a topic, so that the next one need not search.

use super::Matches;
use alloc::vec::Vec;
use core::hash::BuildHasher;
use foldhash::fast::FixedState;

/// Places at first and at most. Brokers with few topics use little memory.
const FIRST: usize = 64;
const MOST: usize = 1024;
/// Longer topics are not remembered.
const TOPIC: usize = 256;
/// Receivers that all places together remember, at most: with many at once, a search is a small part
/// of what a message costs.
const RECEIVERS: usize = 32 << 10;

/// A table of one place for each hash: whatever comes to a place takes it. So a peer that chooses its
/// topics by their hashes gains nothing but searches, which are what everybody had without the table.
#[derive(Debug, Default)]
pub(super) struct Cache {
    places: Vec<Place>,
    /// Changes of the subscriptions so far; what was found before the last one counts no more.
    changes: u64,
    /// Room for receivers in all places.
    receivers: usize,
    /// Places that were taken from a topic that still counted, since the table grew.
    evicted: usize,
}

#[derive(Debug, Default)]
struct Place {
    topic: Vec<u8>,
    /// [`Cache::changes`] when it was found, and one more; 0 if nothing is here.
    found_at: u64,
    matches: Matches,
}

/// Where what was lent belongs.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::broker) struct Origin {
    at: usize,
    /// [`Place::found_at`]; 0 if it belongs nowhere.
    found_at: u64,
}

impl Cache {
    /// Subscriptions have changed: everything that is remembered is void.
    pub(super) const fn void(&mut self) {
        // 2^64 changes do not happen.
        self.changes = self.changes.wrapping_add(1);
    }

    fn at(&self, topic: &[u8]) -> usize {
        // The table's length is a power of two; masked, the hash fits.
        usize::try_from(FixedState::default().hash_one(topic) & (self.places.len() as u64).wrapping_sub(1))
            .unwrap_or_default()
    }

    /// Lends what is known of `topic` in exchange for `matches`, if anything is.
    #[inline]
    pub(super) fn lend(&mut self, topic: &[u8], matches: &mut Matches) -> Option<Origin> {
        let at = self.at(topic);
        let place = self.places.get_mut(at)?;
        if place.found_at != self.changes.wrapping_add(1) || place.topic != topic {
            return None;
        }
        core::mem::swap(&mut place.matches, matches);
        // Whoever asks meanwhile has to search.
        let found_at = core::mem::take(&mut place.found_at);
        Some(Origin { at, found_at })
    }

    /// Takes back what was lent, as it was, and gives what was there before for it.
    #[inline]
    pub(super) fn give_back(&mut self, origin: Origin, matches: &mut Matches) {
        if let Some(place) = self.places.get_mut(origin.at)
            && origin.found_at != 0
            && place.found_at == 0
        {
            place.found_at = origin.found_at;
            core::mem::swap(&mut place.matches, matches);
        }
    }

    /// Remembers what a search found.
    pub(super) fn keep(&mut self, topic: &[u8], matches: &Matches) {
        if topic.len() > TOPIC || matches.receivers.len() > RECEIVERS / 2 {
            return;
        }
        if self.places.is_empty() || self.evicted > self.places.len() && self.places.len() < MOST {
            self.reset((2 * self.places.len()).max(FIRST));
        } else if self.receivers + matches.receivers.len() > RECEIVERS {
            self.reset(self.places.len());
        }
        let (at, now) = (self.at(topic), self.changes.wrapping_add(1));
        let Some(place) = self.places.get_mut(at) else { return };
        self.evicted += usize::from(place.found_at == now);
        let room = place.matches.receivers.capacity();
        place.found_at = now;
        place.matches.elsewhere = matches.elsewhere;
        place.topic.clear();
        place.topic.extend_from_slice(topic);
        place.matches.receivers.clear();
        place.matches.receivers.extend_from_slice(&matches.receivers);
        // Never less: clearing keeps the room.
        self.receivers += place.matches.receivers.capacity() - room;
        place.matches.groups.clear();
        place.matches.groups.extend_from_slice(&matches.groups);
    }

    /// Forgets everything, memory included, and begins with so many places.
    fn reset(&mut self, places: usize) {
        self.places = (0..places).map(|_| Place::default()).collect();
        self.receivers = 0;
        self.evicted = 0;
    }
}

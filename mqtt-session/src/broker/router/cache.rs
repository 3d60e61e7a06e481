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

/// A table of one place for each hash: what comes to a place that is taken gets it the second time in a row. So topics
/// that come once push out nothing and cost no copy, and a peer that chooses its topics by their hashes gains nothing
/// but searches, which are what everybody had without the table.
#[derive(Debug, Default)]
pub(super) struct Cache {
    places: Vec<Place>,
    /// Changes of the subscriptions so far; what was found before the last one counts no more.
    changes: u64,
    /// Room for receivers in all places.
    receivers: usize,
    /// How often a place was wanted for a topic that had one that still counted, since the table grew.
    contended: usize,
}

#[derive(Debug, Default)]
struct Place {
    topic: Vec<u8>,
    /// [`Cache::changes`] when it was found, and one more; 0 if nothing is here.
    found_at: u64,
    /// Of the hash of the last topic that wanted the place.
    wanted_by: u32,
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

    fn hash(topic: &[u8]) -> u64 {
        FixedState::default().hash_one(topic)
    }

    fn at(&self, hash: u64) -> usize {
        // The table's length is a power of two; masked, the hash fits.
        usize::try_from(hash & (self.places.len() as u64).wrapping_sub(1)).unwrap_or_default()
    }

    /// Lends what is known of `topic` in exchange for `matches`, if anything is.
    #[inline]
    pub(super) fn lend(&mut self, topic: &[u8], matches: &mut Matches) -> Option<Origin> {
        let at = self.at(Self::hash(topic));
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
        if self.places.is_empty() || self.contended > self.places.len() && self.places.len() < MOST {
            self.reset((2 * self.places.len()).max(FIRST));
        } else if self.receivers + matches.receivers.len() > RECEIVERS {
            self.reset(self.places.len());
        }
        let (hash, now) = (Self::hash(topic), self.changes.wrapping_add(1));
        let at = self.at(hash);
        let Some(place) = self.places.get_mut(at) else { return };
        if place.found_at == now {
            self.contended += 1;
            // The lower half is the same for all that want the place.
            let wanted_by = (hash >> 32) as u32;
            if core::mem::replace(&mut place.wanted_by, wanted_by) != wanted_by {
                return;
            }
        }
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
        self.contended = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::super::Receiver;
    use super::*;
    use alloc::format;
    use alloc::string::String;
    use mqtt_proto::QoS;

    fn matches_of(session: u32) -> Matches {
        let ids = super::super::SubscriptionIds::None;
        let receiver = Receiver { session, qos: QoS::AtMostOnce, retain_as_published: false, ids };
        Matches { receivers: [receiver].into(), ..Matches::default() }
    }

    /// Asks as a message does, and tells whether that was enough.
    fn is_known(cache: &mut Cache, topic: &str, session: u32) -> bool {
        let mut matches = Matches::default();
        let Some(origin) = cache.lend(topic.as_bytes(), &mut matches) else {
            cache.keep(topic.as_bytes(), &matches_of(session));
            return false;
        };
        assert_eq!(matches.receivers[0].session, session);
        cache.give_back(origin, &mut matches);
        true
    }

    #[test]
    fn topics_that_come_once_push_out_nothing() {
        let mut cache = Cache::default();
        let busy: [String; 50] = core::array::from_fn(|n| format!("busy/{n}"));
        // Grown as far as it grows.
        for n in 0..40 * MOST {
            is_known(&mut cache, &format!("first/{n}"), 7);
        }
        assert_eq!(cache.places.len(), MOST);
        let known =
            |cache: &mut Cache| (0..).zip(&busy).filter(|(n, topic)| is_known(cache, topic, *n)).count();
        known(&mut cache);
        known(&mut cache);
        let before = known(&mut cache);
        assert!(before >= 45, "{before}: only those that share a place are missing");
        for n in 0..20 * MOST {
            is_known(&mut cache, &format!("once/{n}"), 7);
        }
        assert!(known(&mut cache) >= before);
        cache.void();
        assert_eq!((known(&mut cache), known(&mut cache) >= before), (0, true));
    }
}

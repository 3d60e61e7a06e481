//! The replays of a session, in the order of their subscriptions.

use super::session::Replay;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// So many are searched for a filter, without an index.
const SEARCHED: usize = 16;

/// Each by its number. A client may have very many of them, and end them in any order.
#[derive(Debug, Default)]
pub(super) struct Replays {
    by_number: BTreeMap<u64, Box<Replay>>,
    /// Since one of many was looked for, until there are none: their numbers.
    #[expect(clippy::box_collection, reason = "one pointer in each session, where hardly any has it")]
    by_filter: Option<Box<BTreeMap<Box<str>, Vec<u64>>>>,
}

impl Replays {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.by_number.is_empty()
    }

    /// The one whose turn it is.
    #[inline]
    pub(super) fn front(&self) -> Option<&Replay> {
        self.by_number.first_key_value().map(|(_, replay)| &**replay)
    }

    pub(super) fn front_mut(&mut self) -> Option<&mut Replay> {
        self.by_number.first_entry().map(|entry| &mut **entry.into_mut())
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut Replay> {
        self.by_number.get_mut(&number).map(|replay| &mut **replay)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Replay> {
        self.by_number.values_mut().map(|replay| &mut **replay)
    }

    /// Its number has to be higher than those of all others.
    pub(super) fn push(&mut self, replay: Replay) {
        if let Some(index) = &mut self.by_filter {
            index.entry(replay.filter.clone()).or_default().push(replay.number);
        }
        self.by_number.insert(replay.number, Box::new(replay));
    }

    pub(super) fn pop_front(&mut self) -> Option<Replay> {
        let (number, replay) = self.by_number.pop_first()?;
        self.settle();
        if let Some(index) = &mut self.by_filter
            && let Some(numbers) = index.get_mut(&*replay.filter)
        {
            numbers.retain(|other| *other != number);
            if numbers.is_empty() {
                index.remove(&*replay.filter);
            }
        }
        Some(*replay)
    }

    /// Takes out those of a filter.
    pub(super) fn take(&mut self, filter: &str) -> Vec<Replay> {
        let found = if self.by_number.len() <= SEARCHED && self.by_filter.is_none() {
            let found = self.by_number.values().filter(|replay| &*replay.filter == filter);
            found.map(|replay| replay.number).collect()
        } else {
            let index = self.by_filter.get_or_insert_with(|| {
                let mut index: BTreeMap<_, Vec<_>> = BTreeMap::new();
                for replay in self.by_number.values() {
                    index.entry(replay.filter.clone()).or_default().push(replay.number);
                }
                Box::new(index)
            });
            index.remove(filter).unwrap_or_default()
        };
        let taken = found.into_iter().filter_map(|number| self.by_number.remove(&number));
        let taken = taken.map(|replay| *replay).collect();
        self.settle();
        taken
    }

    /// Keeps no memory for others: most sessions never have one again.
    fn settle(&mut self) {
        if self.by_number.is_empty() {
            *self = Self::default();
        }
    }

    /// All of them.
    pub(super) fn into_values(self) -> impl Iterator<Item = Replay> {
        self.by_number.into_values().map(|replay| *replay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::router::SubscriptionIds;
    use crate::store::StoredReplay;
    use mqtt_proto::QoS;
    use proptest::prelude::*;

    fn replay(number: u64, filter: &str) -> Replay {
        Replay {
            number,
            filter: filter.into(),
            left: StoredReplay::default(),
            noted: false,
            found: None,
            next: 0,
            qos: QoS::AtMostOnce,
            ids: SubscriptionIds::new(None),
            far: None,
        }
    }

    proptest! {
        /// Few and many, with an index and without, behave as a list that is searched.
        #[test]
        fn they_are_a_list(acts in proptest::collection::vec((0..4_u8, 0..30_u8), 1..200)) {
            let (mut replays, mut list) = (Replays::default(), Vec::new());
            for (number, (act, filter)) in (1..).zip(acts) {
                let filter = alloc::format!("f/{filter}");
                match act {
                    0 => {
                        let front = (!list.is_empty()).then(|| list.remove(0));
                        prop_assert_eq!(replays.pop_front().map(|r| (r.number, r.filter.into())), front);
                    }
                    1 => {
                        let taken: Vec<_> = replays.take(&filter).iter().map(|r| r.number).collect();
                        let wanted = list.extract_if(.., |(_, its)| *its == filter).map(|(n, _)| n);
                        prop_assert_eq!(taken, wanted.collect::<Vec<_>>());
                    }
                    _ => {
                        replays.push(replay(number, &filter));
                        list.push((number, filter));
                    }
                }
                prop_assert_eq!(replays.front().map(|r| r.number), list.first().map(|(n, _)| *n));
                prop_assert_eq!(replays.is_empty(), list.is_empty());
            }
            let rest: Vec<_> = replays.into_values().map(|r| r.number).collect();
            prop_assert_eq!(rest, list.into_iter().map(|(n, _)| n).collect::<Vec<_>>());
        }
    }
}

//! The replays of a session, in the order of their subscriptions.

use super::session::Replay;
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

/// So many are searched for a filter, without an index.
const SEARCHED: usize = 16;

/// A client may have very many of them, and end them in any order.
#[derive(Debug, Default)]
pub(super) struct Replays {
    /// By their numbers. The first one is always there; of many, others may have ended.
    list: VecDeque<(u64, Option<Replay>)>,
    /// Since one of many was looked for, until there are none.
    index: Option<Box<Index>>,
}

#[derive(Debug, Default)]
struct Index {
    /// The numbers of those that are there.
    by_filter: BTreeMap<Box<str>, Vec<u64>>,
    /// So many in the list have ended.
    ended: usize,
}

impl Replays {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The one whose turn it is.
    #[inline]
    pub(super) fn front(&self) -> Option<&Replay> {
        self.list.front()?.1.as_ref()
    }

    pub(super) fn front_mut(&mut self) -> Option<&mut Replay> {
        self.list.front_mut()?.1.as_mut()
    }

    fn place(&mut self, number: u64) -> Option<&mut Option<Replay>> {
        let at = self.list.binary_search_by_key(&number, |(its, _)| *its).ok()?;
        self.list.get_mut(at).map(|(_, replay)| replay)
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut Replay> {
        self.place(number)?.as_mut()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Replay> {
        self.list.iter_mut().filter_map(|(_, replay)| replay.as_mut())
    }

    /// Its number has to be higher than those of all others.
    pub(super) fn push(&mut self, replay: Replay) {
        if let Some(index) = &mut self.index {
            index.by_filter.entry(replay.filter.clone()).or_default().push(replay.number);
        }
        self.list.push_back((replay.number, Some(replay)));
    }

    pub(super) fn pop_front(&mut self) -> Option<Replay> {
        let (number, replay) = self.list.pop_front()?;
        let replay = replay?;
        if let Some(index) = &mut self.index
            && let Some(numbers) = index.by_filter.get_mut(&*replay.filter)
        {
            numbers.retain(|other| *other != number);
            if numbers.is_empty() {
                index.by_filter.remove(&*replay.filter);
            }
        }
        self.settle();
        Some(replay)
    }

    /// Takes out those of a filter.
    pub(super) fn take(&mut self, filter: &str) -> Vec<Replay> {
        let mut taken = Vec::new();
        if self.list.len() <= SEARCHED && self.index.is_none() {
            let is_its = |(_, replay): &mut (u64, Option<Replay>)| {
                taken.extend(replay.take_if(|replay| &*replay.filter == filter));
                replay.is_some()
            };
            self.list.retain_mut(is_its);
        } else {
            let index = self.index.get_or_insert_with(|| {
                let mut index = Index::default();
                for replay in self.list.iter().filter_map(|(_, replay)| replay.as_ref()) {
                    index.by_filter.entry(replay.filter.clone()).or_default().push(replay.number);
                }
                Box::new(index)
            });
            let numbers = index.by_filter.remove(filter).unwrap_or_default();
            index.ended += numbers.len();
            taken.extend(numbers.into_iter().filter_map(|number| self.place(number)?.take()));
        }
        self.settle();
        taken
    }

    /// Has one that is there at the front, and no more places of others than of such. Keeps no memory for others when there
    /// are none: most sessions never have one again.
    fn settle(&mut self) {
        if let Some(index) = &mut self.index {
            while self.list.pop_front_if(|(_, replay)| replay.is_none()).is_some() {
                index.ended -= 1;
            }
            if index.ended > self.list.len() / 2 {
                self.list.retain(|(_, replay)| replay.is_some());
                index.ended = 0;
            }
        }
        if self.list.is_empty() {
            *self = Self::default();
        }
    }

    /// All of them.
    pub(super) fn into_values(self) -> impl Iterator<Item = Replay> {
        self.list.into_iter().filter_map(|(_, replay)| replay)
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
                // Memory is in proportion to what is there.
                prop_assert!(replays.list.len() <= 2 * list.len());
                if let Some(index) = &replays.index {
                    prop_assert_eq!(index.by_filter.values().map(Vec::len).sum::<usize>(), list.len());
                    prop_assert!(index.by_filter.values().all(|numbers| !numbers.is_empty()));
                }
                prop_assert!(list.iter().all(|(n, _)| replays.get_mut(*n).is_some_and(|r| r.number == *n)));
            }
            let rest: Vec<_> = replays.into_values().map(|r| r.number).collect();
            prop_assert_eq!(rest, list.into_iter().map(|(n, _)| n).collect::<Vec<_>>());
        }
    }
}

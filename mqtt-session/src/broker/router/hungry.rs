//! Groups that may want something as soon as one of their members has room: most never do, and a session may be in very
//! many.

use super::subscriptions::Group;
use super::{GroupKey, Router, SessionKey};
use alloc::vec::Vec;

/// A session in at most so many groups looks at each of them.
const FEW: usize = 64;

/// Those groups, each once.
#[derive(Debug, Default)]
pub(super) struct Hungry(Vec<GroupKey>);

impl Router {
    /// Something waits in the group, or it may have to tell another shard of room; or not any more.
    pub(in crate::broker) fn set_hungry(&mut self, key: GroupKey, hungry: bool) {
        let Some(group) = self.groups.get_mut(&key) else { return };
        match (group.hungry, hungry) {
            (None, true) => {
                // Memory would end before.
                group.hungry = u32::try_from(self.hungry.0.len()).ok();
                self.hungry.0.push(key);
            }
            (Some(_), false) => {
                let place = group.hungry.take();
                self.forget_hungry(place);
            }
            _ => {}
        }
    }

    /// The group that had this place is none any more, or not hungry.
    pub(super) fn forget_hungry(&mut self, place: Option<u32>) {
        let Some(place) = place.filter(|&place| (place as usize) < self.hungry.0.len()) else { return };
        self.hungry.0.swap_remove(place as usize);
        // The last one is there now.
        let moved = self.hungry.0.get(place as usize).and_then(|moved| self.groups.get_mut(moved));
        if let Some(moved) = moved {
            moved.hungry = Some(place);
        }
    }

    /// Whether there is any such group.
    #[inline]
    pub(in crate::broker) fn has_hungry(&self) -> bool {
        !self.hungry.0.is_empty()
    }

    /// Adds those of a session.
    pub(in crate::broker) fn hungry_of(&self, session: SessionKey, found: &mut Vec<GroupKey>) {
        let (groups, hungry) = (self.groups_of(session), &self.hungry.0);
        if groups.len() <= FEW.max(hungry.len()) {
            let is_hungry = |key: &&GroupKey| self.group(**key).is_some_and(Group::is_hungry);
            found.extend(groups.iter().filter(is_hungry));
        } else {
            found.extend(hungry.iter().filter(|&&key| self.is_member(session, key)));
        }
    }

    pub(super) fn shrink_hungry(&mut self) {
        use crate::broker::shrink::Shrink;
        self.hungry.0.shrink();
    }
}

impl Group {
    pub(in crate::broker) const fn is_hungry(&self) -> bool {
        self.hungry.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Seed;
    use crate::broker::router::Left;
    use crate::random::KeyedHash;
    use alloc::collections::BTreeMap;
    use alloc::collections::BTreeSet;
    use alloc::format;
    use mqtt_proto::{SubscriptionOptions, TopicFilter};
    use proptest::prelude::*;

    const GROUPS: u32 = 200;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        /// By the session's groups or by the hungry ones: the same are found, whoever came and went.
        #[test]
        fn a_session_finds_its_own(acts in prop::collection::vec((0..3_u32, 0..GROUPS, 0..6_u8), 1..600)) {
            let mut router = Router::new(KeyedHash::new(Seed::default(), 0));
            // Of each group: its members, and whether it is hungry.
            let mut model: BTreeMap<u32, (BTreeSet<u32>, bool)> = BTreeMap::new();
            // The first is in all of them, which are too many to look at each.
            let acts = (0..GROUPS).map(|number| (0, number, 0)).chain(acts);
            for (at, (session, number, what)) in acts.enumerate() {
                let filter = format!("$share/g/{number}");
                let filter = TopicFilter::new(&filter).unwrap();
                match what {
                    0 | 1 => {
                        router.subscribe(session, filter, SubscriptionOptions::default(), None);
                        let (members, hungry) = model.entry(number).or_default();
                        members.insert(session);
                        *hungry = true;
                    }
                    2 => {
                        router.unsubscribe(session, filter, &mut Left::default());
                        if let Some((members, _)) = model.get_mut(&number) {
                            members.remove(&session);
                            if members.is_empty() {
                                model.remove(&number);
                            }
                        }
                    }
                    _ => if let Some(key) = router.group_of_filter(filter) {
                        router.set_hungry(key, what == 3);
                        model.get_mut(&number).unwrap().1 = what == 3;
                    }
                }
                if at < GROUPS as usize {
                    continue;
                }
                prop_assert_eq!(router.hungry.0.len(), model.values().filter(|(_, hungry)| *hungry).count());
                for session in 0..3 {
                    let mut found = Vec::new();
                    router.hungry_of(session, &mut found);
                    let mut names: Vec<_> = found.iter().filter_map(|&key| router.filter_of_group(key)).collect();
                    names.sort();
                    let its = model.iter().filter(|(_, (members, hungry))| *hungry && members.contains(&session));
                    let mut wanted: Vec<_> = its.map(|(number, _)| format!("$share/g/{number}")).collect();
                    wanted.sort();
                    prop_assert_eq!(names, wanted);
                }
            }
        }
    }
}

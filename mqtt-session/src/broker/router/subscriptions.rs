//! Adding and removing subscriptions, plain and shared.

use super::far::{Leaf, Share};
use super::tree::{NodeId, Value, Wildcards};
use super::{GroupKey, MessageKey, Router, SessionKey, Subscription};
use crate::Refused;
use crate::broker::queue::Queue;
use crate::broker::session::Delivery;
use crate::broker::shrink::Shrink;
use crate::store::SessionId;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::num::NonZeroU32;
use hashbrown::Equivalent;
use mqtt_proto::{SubscriptionOptions, TopicFilter};
use smallvec::SmallVec;

/// A node with more subscriptions than these notes where each stands.
const SEARCHED: usize = 8;

/// What a filter's node holds.
#[derive(Debug, Default)]
pub(super) struct SubscriptionNode {
    /// Most filters are one client's: that one is where a search finds the node.
    pub(super) subscriptions: SmallVec<[Subscription; 1]>,
    wildcards: Wildcards,
    /// Whether [`Router::groups_at`] has some.
    pub(super) has_groups: bool,
}

impl Value for SubscriptionNode {
    fn is_vacant(&self) -> bool {
        self.subscriptions.is_empty() && !self.has_groups
    }

    #[inline]
    fn wildcards(&self) -> Wildcards {
        self.wildcards
    }

    fn wildcards_mut(&mut self) -> Option<&mut Wildcards> {
        Some(&mut self.wildcards)
    }
}

/// A member of a group.
#[derive(Clone, Copy, Debug)]
pub(in crate::broker) struct Member {
    pub(in crate::broker) session: SessionKey,
    pub(in crate::broker) options: SubscriptionOptions,
    pub(in crate::broker) id: Option<u32>,
    /// Where the group stands among those of the session.
    place: u32,
}

/// How a group is found.
#[derive(Hash)]
struct Named<'a>(NodeId, &'a str);

impl Equivalent<(NodeId, Box<str>)> for Named<'_> {
    fn equivalent(&self, (node, name): &(NodeId, Box<str>)) -> bool {
        self.0 == *node && self.1 == &**name
    }
}

/// Of a list that gets one more.
fn place_of_last(len: usize) -> u32 {
    // Memory would end before.
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// The sessions that share a filter under a name. What nobody can take at present waits here: the
/// queue belongs to the group, not to a member that may never come back.
#[derive(Debug)]
pub(in crate::broker) struct Group {
    name: Box<str>,
    node: NodeId,
    /// Where it stands among those of the filter.
    place: u32,
    pub(in crate::broker) members: Vec<Member>,
    /// Whose turn it is.
    pub(in crate::broker) turn: usize,
    pub(in crate::broker) queue: Queue,
    pub(in crate::broker) queued_bytes: usize,
    /// Its number in the store, once a member's session is stored.
    pub(in crate::broker) stored: Option<SessionId>,
    /// It belongs to another shard, which has its queue; what is here came against a slot.
    pub(in crate::broker) leaf: Option<Box<Leaf>>,
    /// Other shards that have members of it.
    pub(in crate::broker) shares: Vec<Share>,
    /// Messages that shards sent back because of their members' rights, and which shards.
    pub(super) refused: Vec<(MessageKey, Refused)>,
    /// Shards that want what they passed over to be sent again, and have passed over nothing since.
    pub(super) again: u64,
    /// Its place among the hungry ones.
    pub(super) hungry: Option<u32>,
}

impl Group {
    pub(super) fn new(name: &str, node: NodeId) -> Self {
        Self {
            name: name.into(),
            node,
            place: 0,
            members: Vec::new(),
            turn: 0,
            queue: Queue::default(),
            queued_bytes: 0,
            stored: None,
            leaf: None,
            shares: Vec::new(),
            refused: Vec::new(),
            again: 0,
            hungry: None,
        }
    }

    pub(in crate::broker) fn name(&self) -> &str {
        &self.name
    }

    /// Whether somebody but one of the members may have what comes back.
    pub(in crate::broker) fn has_others(&self) -> bool {
        self.members.len() > 1 || self.leaf.is_some() || !self.shares.is_empty()
    }

    pub(super) const fn node(&self) -> NodeId {
        self.node
    }
}

/// What is left of groups that lost their last member.
#[derive(Debug, Default)]
pub(in crate::broker) struct Left {
    /// What waited there.
    pub(in crate::broker) deliveries: Vec<Delivery>,
    /// Their numbers in the store.
    pub(in crate::broker) stored: Vec<SessionId>,
    /// The same of groups of other shards, which get it back.
    pub(in crate::broker) leaves: Vec<(Box<Leaf>, Vec<Delivery>)>,
}

/// What subscribing did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broker) enum Added {
    New,
    Replaced,
}

impl Router {
    /// Adds a subscription, or replaces the options of the one with the same filter
    /// ([MQTT-3.8.4-3]).
    pub(in crate::broker) fn subscribe(
        &mut self,
        session: SessionKey,
        filter: TopicFilter<'_>,
        options: SubscriptionOptions,
        id: Option<u32>,
    ) -> Added {
        self.make_room_for(session);
        if let Some(shared) = filter.shared() {
            let key = match self.group_of_filter(filter) {
                Some(key) => key,
                None => match self.foreign_owner(filter.as_str()) {
                    Some(owner) => self.add_leaf(filter, owner),
                    None => self.add_group(shared.filter.as_str(), shared.share_name),
                },
            };
            return self.join(session, key, options, id);
        }
        self.cache.void();
        let node = self.filters.make(filter.as_str());
        let slot = self.slot(session, node);
        let Some(value) = self.filters.get_mut(node) else { return Added::New };
        let id = id.and_then(NonZeroU32::new);
        if let Some(old) = slot.and_then(|slot| value.subscriptions.get_mut(slot)) {
            *old = Subscription { options, id, ..*old };
            return Added::Replaced;
        }
        let is_first = value.is_vacant();
        if let Some(nodes) = self.of_session.get_mut(session as usize) {
            let place = place_of_last(nodes.len());
            nodes.push(node);
            value.subscriptions.push(Subscription { session, options, id, place });
            self.note_slot_of_last(node);
        }
        self.count += 1;
        if is_first {
            self.note_interest(node, true);
        }
        Added::New
    }

    /// Where in a node the session's subscription stands.
    fn slot(&self, session: SessionKey, node: NodeId) -> Option<usize> {
        let subscriptions = &self.filters.get(node)?.subscriptions;
        if subscriptions.len() > SEARCHED {
            return self.slots.get(&(session, node)).map(|&slot| slot as usize);
        }
        subscriptions.iter().position(|subscription| subscription.session == session)
    }

    /// The node has one more.
    fn note_slot_of_last(&mut self, node: NodeId) {
        let Some(value) = self.filters.get(node) else { return };
        // From here on it is not searched, so all of them are noted.
        let noted = match value.subscriptions.len() {
            0..=SEARCHED => return,
            len if len == SEARCHED + 1 => 0,
            len => len - 1,
        };
        for (slot, subscription) in (0..).zip(&value.subscriptions).skip(noted) {
            self.slots.insert((subscription.session, node), slot);
        }
    }

    pub(super) fn find_subscription(&self, session: SessionKey, node: NodeId) -> Option<&Subscription> {
        self.filters.get(node)?.subscriptions.get(self.slot(session, node)?)
    }

    /// A group without members.
    pub(super) fn add_group(&mut self, filter: &str, name: &str) -> GroupKey {
        self.cache.void();
        let node = self.filters.make(filter);
        let mut group = Group::new(name, node);
        group.place = place_of_last(self.groups_at(node).len());
        let key = self.insert_group(group);
        self.named.insert((node, name.into()), key);
        if let Some(value) = self.filters.get_mut(node) {
            let is_first = value.is_vacant();
            value.has_groups = true;
            self.groups_at.entry(node).or_default().push(key);
            if is_first {
                self.note_interest(node, true);
            }
        }
        key
    }

    pub(super) fn insert_group(&mut self, group: Group) -> GroupKey {
        // Wraps after 2^32 groups, when an old one is long forgotten.
        let key = self.next_group;
        self.next_group = self.next_group.wrapping_add(1);
        self.groups.insert(key, group);
        key
    }

    fn join(
        &mut self,
        session: SessionKey,
        key: GroupKey,
        options: SubscriptionOptions,
        id: Option<u32>,
    ) -> Added {
        // The member may have room.
        self.set_hungry(key, true);
        let Some(group) = self.groups.get_mut(&key) else { return Added::New };
        if let Some(old) = group.members.iter_mut().find(|m| m.session == session) {
            *old = Member { options, id, ..*old };
            return Added::Replaced;
        }
        if let Some(groups) = self.groups_of_session.get_mut(session as usize) {
            group.members.push(Member { session, options, id, place: place_of_last(groups.len()) });
            groups.push(key);
        }
        self.shared_count += 1;
        self.count += 1;
        Added::New
    }

    /// The group of a shared filter, if it has members.
    pub(in crate::broker) fn group_of_filter(&self, filter: TopicFilter<'_>) -> Option<GroupKey> {
        let shared = filter.shared()?;
        if let Some(leaf) = self.leaf_of_filter(filter.as_str()) {
            return Some(leaf);
        }
        let node = self.filters.find(shared.filter.as_str())?;
        self.find_group(node, shared.share_name)
    }

    fn find_group(&self, node: NodeId, name: &str) -> Option<GroupKey> {
        self.named.get(&Named(node, name)).copied()
    }

    /// Whether the session is in the group.
    pub(in crate::broker) fn is_member(&self, session: SessionKey, group: GroupKey) -> bool {
        self.group(group).is_some_and(|group| group.members.iter().any(|m| m.session == session))
    }

    /// Removes the subscription with exactly this filter ([MQTT-3.10.4-1], [MQTT-3.10.4-2]). False if there was
    /// none. `left` gets what waited in a group that has no members any more.
    pub(in crate::broker) fn unsubscribe(
        &mut self,
        session: SessionKey,
        filter: TopicFilter<'_>,
        left: &mut Left,
    ) -> bool {
        if filter.shared().is_some() {
            return match self.group_of_filter(filter) {
                Some(key) => self.leave(session, key, left),
                None => false,
            };
        }
        match self.filters.find(filter.as_str()) {
            Some(node) => self.remove(session, node),
            None => false,
        }
    }

    /// The subscription with exactly this filter, if it is no shared one.
    pub(in crate::broker) fn subscription(
        &self,
        session: SessionKey,
        filter: TopicFilter<'_>,
    ) -> Option<(SubscriptionOptions, Option<u32>)> {
        let node = self.filters.find(filter.as_str())?;
        let subscription = self.find_subscription(session, node)?;
        Some((subscription.options, subscription.id()))
    }

    fn remove(&mut self, session: SessionKey, node: NodeId) -> bool {
        let Some(slot) = self.slot(session, node) else { return false };
        let Some(value) = self.filters.get_mut(node) else { return false };
        self.cache.void();
        let Subscription { place, .. } = value.subscriptions.swap_remove(slot);
        let moved = value.subscriptions.get(slot).map(|moved| moved.session);
        let left = value.subscriptions.len();
        if left == 0 {
            value.subscriptions = SmallVec::new();
        }
        let is_vacant = value.is_vacant();
        if left >= SEARCHED {
            self.slots.remove(&(session, node));
        }
        if left == SEARCHED {
            for subscription in &value.subscriptions {
                self.slots.remove(&(subscription.session, node));
            }
        } else if left > SEARCHED
            && let Some(its) = moved.and_then(|moved| self.slots.get_mut(&(moved, node)))
        {
            *its = u32::try_from(slot).unwrap_or(u32::MAX);
        }
        if is_vacant {
            self.note_interest(node, false);
        }
        if let Some(nodes) = self.of_session.get_mut(session as usize) {
            nodes.swap_remove(place as usize);
            nodes.shrink();
            if let Some(&moved) = nodes.get(place as usize)
                && let Some(slot) = self.slot(session, moved)
                && let Some(its) =
                    self.filters.get_mut(moved).and_then(|value| value.subscriptions.get_mut(slot))
            {
                its.place = place;
            }
        }
        self.count -= 1;
        self.filters.prune(node);
        true
    }

    fn leave(&mut self, session: SessionKey, key: GroupKey, left: &mut Left) -> bool {
        let Some(group) = self.groups.get_mut(&key) else { return false };
        let Some(at) = group.members.iter().position(|m| m.session == session) else { return false };
        let place = group.members.remove(at).place;
        if let Some(groups) = self.groups_of_session.get_mut(session as usize) {
            groups.swap_remove(place as usize);
            groups.shrink();
            // The last one is there now.
            let moved = groups.get(place as usize).and_then(|moved| self.groups.get_mut(moved));
            if let Some(its) = moved.and_then(|m| m.members.iter_mut().find(|m| m.session == session)) {
                its.place = place;
            }
        }
        self.shared_count -= 1;
        self.count -= 1;
        self.drop_if_empty(key, left);
        true
    }

    /// Removes a group that has no members any more.
    pub(in crate::broker) fn drop_if_empty(&mut self, key: GroupKey, left: &mut Left) {
        if !self.group(key).is_some_and(|group| group.members.is_empty() && group.shares.is_empty()) {
            return;
        }
        let Some(group) = self.groups.remove(&key) else { return };
        self.forget_hungry(group.hungry);
        if let Some(leaf) = group.leaf {
            self.forget_leaf(&leaf);
            left.stored.extend(group.stored);
            left.leaves.push((leaf, group.queue.into_iter().collect()));
            return;
        }
        left.deliveries.extend(group.queue);
        left.stored.extend(group.stored);
        self.cache.void();
        self.named.remove(&Named(group.node, &group.name));
        let keys = self.groups_at.get_mut(&group.node).map_or(0, |keys| {
            keys.swap_remove(group.place as usize);
            keys.shrink();
            if let Some(moved) = keys.get(group.place as usize).and_then(|moved| self.groups.get_mut(moved)) {
                moved.place = group.place;
            }
            keys.len()
        });
        if keys == 0 {
            self.groups_at.remove(&group.node);
        }
        if let Some(value) = self.filters.get_mut(group.node) {
            value.has_groups = keys > 0;
            if value.is_vacant() {
                self.note_interest(group.node, false);
            }
        }
        self.filters.prune(group.node);
    }

    /// Removes all subscriptions of a session that ended.
    pub(in crate::broker) fn forget(&mut self, session: SessionKey, left: &mut Left) {
        while let Some(&node) = self.of_session.get(session as usize).and_then(|nodes| nodes.last()) {
            self.remove(session, node);
        }
        while let Some(&key) = self.groups_of(session).last() {
            if !self.leave(session, key, left) {
                break;
            }
        }
        if let Some(nodes) = self.of_session.get_mut(session as usize) {
            *nodes = Vec::new();
        }
        if let Some(groups) = self.groups_of_session.get_mut(session as usize) {
            *groups = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Seed;
    use crate::broker::router::Matches;
    use crate::random::KeyedHash;
    use alloc::collections::BTreeMap;
    use proptest::prelude::*;

    const FILTERS: [&str; 8] =
        ["a", "a/b", "+/b", "#", "$share/g/a/b", "$share/h/a/b", "$share/i/a/b", "$share/g/#"];

    /// The identifier of a session's subscription.
    fn id_of(router: &Router, session: SessionKey, filter: TopicFilter<'_>) -> Option<u32> {
        if filter.shared().is_none() {
            return router.subscription(session, filter)?.1;
        }
        let group = router.group(router.group_of_filter(filter)?)?;
        group.members.iter().find(|member| member.session == session)?.id
    }

    proptest! {
        /// Nodes with few subscriptions are searched, those with many are not: nobody sees which.
        #[test]
        fn who_subscribed_last_is_who_gets_it(
            acts in proptest::collection::vec((0..12_u32, 0..FILTERS.len(), 0..3_u32), 1..200),
        ) {
            let mut router = Router::new(KeyedHash::new(Seed::default(), 0));
            let mut model = BTreeMap::new();
            for (session, at, id) in acts {
                let filter = TopicFilter::new(FILTERS[at]).unwrap();
                if id == 0 {
                    let was_there = model.remove(&(session, at)).is_some();
                    prop_assert_eq!(router.unsubscribe(session, filter, &mut Left::default()), was_there);
                } else {
                    let added = router.subscribe(session, filter, SubscriptionOptions::default(), Some(id));
                    let was_there = model.insert((session, at), id).is_some();
                    prop_assert_eq!(added == Added::Replaced, was_there);
                }
                let its = (0..FILTERS.len()).filter(|&at| model.contains_key(&(session, at)));
                prop_assert_eq!(router.subscriptions_of(session), its.count());
                let listed = (0..router.subscriptions_of(session))
                    .filter_map(|number| router.subscriber(router.subscribed_by(session, number)?));
                prop_assert_eq!(listed.count(), router.subscriptions_of(session));
                // Others of the filter, and others of the session.
                let of_filter = (0..12).map(|session| (session, at));
                for (session, at) in of_filter.chain((0..FILTERS.len()).map(|at| (session, at))) {
                    let filter = TopicFilter::new(FILTERS[at]).unwrap();
                    prop_assert_eq!(id_of(&router, session, filter), model.get(&(session, at)).copied());
                }
            }
            let mut matches = Matches::default();
            router.matching(b"a/b", None, &mut matches);
            let mut got: Vec<u32> = matches.receivers.iter().map(|receiver| receiver.session).collect();
            got.sort_unstable();
            let mut wanted: Vec<u32> = model.keys().filter(|(_, at)| (1..4).contains(at)).map(|&(session, _)| session).collect();
            wanted.dedup();
            prop_assert_eq!(got, wanted);
            let groups: alloc::collections::BTreeSet<usize> = model.keys().map(|(_, at)| *at).filter(|at| *at > 3).collect();
            prop_assert_eq!(matches.groups.len(), groups.len());
            for session in 0..12 {
                router.forget(session, &mut Left::default());
            }
            prop_assert_eq!((router.subscriptions(), router.slots.len()), (0, 0));
            prop_assert_eq!((router.groups.len(), router.groups_at.len(), router.named.len()), (0, 0, 0));
        }
    }
}

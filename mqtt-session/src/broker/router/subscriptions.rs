//! Adding and removing subscriptions, plain and shared.

use super::far::{Leaf, Share};
use super::tree::{NodeId, Value};
use super::{GroupKey, MessageKey, Router, SessionKey, Subscription};
use crate::Refused;
use crate::broker::queue::Queue;
use crate::broker::session::Delivery;
use crate::store::SessionId;
use alloc::boxed::Box;
use alloc::vec::Vec;
use mqtt_proto::{SubscriptionOptions, TopicFilter};
use smallvec::SmallVec;

/// What a filter's node holds.
#[derive(Debug, Default)]
pub(super) struct SubscriptionNode {
    /// Most filters are one client's: that one is where a search finds the node.
    pub(super) subscriptions: SmallVec<[Subscription; 1]>,
    /// Whether [`Router::groups_at`] has some.
    pub(super) has_groups: bool,
}

impl Value for SubscriptionNode {
    fn is_vacant(&self) -> bool {
        self.subscriptions.is_empty() && !self.has_groups
    }
}

/// A member of a group.
#[derive(Clone, Copy, Debug)]
pub(in crate::broker) struct Member {
    pub(in crate::broker) session: SessionKey,
    pub(in crate::broker) options: SubscriptionOptions,
    pub(in crate::broker) id: Option<u32>,
}

/// The sessions that share a filter under a name. What nobody can take at present waits here: the
/// queue belongs to the group, not to a member that may never come back.
#[derive(Debug)]
pub(in crate::broker) struct Group {
    name: Box<str>,
    node: NodeId,
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
}

impl Group {
    pub(super) fn new(name: &str, node: NodeId) -> Self {
        Self {
            name: name.into(),
            node,
            members: Vec::new(),
            turn: 0,
            queue: Queue::default(),
            queued_bytes: 0,
            stored: None,
            leaf: None,
            shares: Vec::new(),
            refused: Vec::new(),
            again: 0,
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
        let Some(value) = self.filters.get_mut(node) else { return Added::New };
        let subscription = Subscription { session, options, id };
        if let Some(&(slot, _)) = self.places.get(&(session, node)) {
            if let Some(old) = value.subscriptions.get_mut(slot as usize) {
                *old = subscription;
            }
            return Added::Replaced;
        }
        let slot = u32::try_from(value.subscriptions.len()).unwrap_or(u32::MAX);
        let is_first = value.is_vacant();
        value.subscriptions.push(subscription);
        if let Some(nodes) = self.of_session.get_mut(session as usize) {
            let place = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
            nodes.push(node);
            self.places.insert((session, node), (slot, place));
        }
        self.count += 1;
        if is_first {
            self.note_interest(node, true);
        }
        Added::New
    }

    /// A group without members.
    pub(super) fn add_group(&mut self, filter: &str, name: &str) -> GroupKey {
        self.cache.void();
        let node = self.filters.make(filter);
        let key = self.insert_group(Group::new(name, node));
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
        let member = Member { session, options, id };
        let Some(group) = self.groups.get_mut(&key) else { return Added::New };
        if let Some(old) = group.members.iter_mut().find(|m| m.session == session) {
            *old = member;
            return Added::Replaced;
        }
        group.members.push(member);
        if let Some(groups) = self.groups_of_session.get_mut(session as usize) {
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
        let keys = self.groups_at.get(&node)?;
        keys.iter().copied().find(|&key| self.group(key).is_some_and(|group| &*group.name == name))
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
        let (slot, _) = self.places.get(&(session, node))?;
        let subscription = self.filters.get(node)?.subscriptions.get(*slot as usize)?;
        Some((subscription.options, subscription.id))
    }

    fn remove(&mut self, session: SessionKey, node: NodeId) -> bool {
        let Some((slot, place)) = self.places.remove(&(session, node)) else { return false };
        self.cache.void();
        if let Some(value) = self.filters.get_mut(node) {
            value.subscriptions.swap_remove(slot as usize);
            if let Some(moved) = value.subscriptions.get(slot as usize)
                && let Some(its) = self.places.get_mut(&(moved.session, node))
            {
                its.0 = slot;
            }
            let is_vacant = value.is_vacant();
            if value.subscriptions.is_empty() {
                value.subscriptions = SmallVec::new();
            }
            if is_vacant {
                self.note_interest(node, false);
            }
        }
        if let Some(nodes) = self.of_session.get_mut(session as usize) {
            nodes.swap_remove(place as usize);
            if let Some(&moved) = nodes.get(place as usize)
                && let Some(its) = self.places.get_mut(&(session, moved))
            {
                its.1 = place;
            }
        }
        self.count -= 1;
        self.filters.prune(node);
        true
    }

    fn leave(&mut self, session: SessionKey, key: GroupKey, left: &mut Left) -> bool {
        let Some(group) = self.groups.get_mut(&key) else { return false };
        let Some(at) = group.members.iter().position(|m| m.session == session) else { return false };
        group.members.remove(at);
        if let Some(groups) = self.groups_of_session.get_mut(session as usize) {
            groups.retain(|&other| other != key);
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
        if let Some(leaf) = group.leaf {
            self.forget_leaf(&leaf);
            left.stored.extend(group.stored);
            left.leaves.push((leaf, group.queue.into_iter().collect()));
            return;
        }
        left.deliveries.extend(group.queue);
        left.stored.extend(group.stored);
        self.cache.void();
        let keys = self.groups_at.get_mut(&group.node).map_or(0, |keys| {
            keys.retain(|&other| other != key);
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
    }
}

//! Who gets a message: subscriptions, groups of shared subscriptions, and retained messages.
//!
//! The router knows sessions and messages by number only. It never delivers.

mod arena;
mod cache;
mod edges;
mod far;
mod hungry;
mod look;
mod subscriptions;
mod text;
mod tree;

pub(super) use cache::Origin;
pub(super) use far::{Leaf, bit};
pub(super) use look::Subscriber;
pub(super) use subscriptions::{Added, Group, Left, Member};

use super::message::MessageKey;
use super::shrink::Shrink;
use crate::defects::defect;
use crate::random::{IdMap, KeyedHash, PeerMap};
use crate::store::SessionId;
use alloc::boxed::Box;
use alloc::vec::Vec;
use cache::Cache;
use core::num::NonZeroU32;
use far::Far;
use hungry::Hungry;
use mqtt_proto::{QoS, SubscriptionOptions};
use subscriptions::SubscriptionNode;
use tree::{NodeId, Tree, Value, Walk, Wildcards};

/// The number of a session in the broker's slab.
pub(super) type SessionKey = u32;
/// The number of a group. Never given again, so that what still names an old one finds nothing.
pub(super) type GroupKey = u32;

/// Identifiers of the subscriptions that matched; mostly none or one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum SubscriptionIds {
    #[default]
    None,
    One(u32),
    Many(Box<[u32]>),
}

impl SubscriptionIds {
    pub(super) const fn new(id: Option<u32>) -> Self {
        match id {
            Some(id) => Self::One(id),
            None => Self::None,
        }
    }

    pub(super) fn as_slice(&self) -> &[u32] {
        match self {
            Self::None => &[],
            Self::One(id) => core::slice::from_ref(id),
            Self::Many(ids) => ids,
        }
    }

    /// [MQTT-3.3.4-3] [MQTT-3.3.4-4]
    fn add(&mut self, id: Option<u32>) {
        let Some(id) = id else { return };
        *self = match core::mem::take(self) {
            Self::None => Self::One(id),
            Self::One(first) => Self::Many([first, id].into()),
            Self::Many(ids) => {
                let mut ids = ids.into_vec();
                ids.push(id);
                Self::Many(ids.into())
            }
        };
    }
}

impl From<&[u32]> for SubscriptionIds {
    fn from(ids: &[u32]) -> Self {
        match ids {
            [] => Self::None,
            [id] => Self::One(*id),
            ids => Self::Many(ids.into()),
        }
    }
}

/// A session that gets a message, by all its subscriptions that match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Receiver {
    pub(super) session: SessionKey,
    /// The highest granted QoS among them ([MQTT-3.3.4-2]; [MQTT-3.3.5-1] of 3.1.1).
    pub(super) qos: QoS,
    /// Whether one of them wants the retain flag as published.
    pub(super) retain_as_published: bool,
    pub(super) ids: SubscriptionIds,
}

/// What a message matched.
#[derive(Debug, Default)]
pub(super) struct Matches {
    pub(super) receivers: Vec<Receiver>,
    pub(super) groups: Vec<GroupKey>,
    /// Other shards that want it, a bit for each.
    pub(super) elsewhere: u64,
}

impl Matches {
    /// Sessions, groups and other shards.
    pub(super) fn len(&self) -> usize {
        self.receivers.len() + self.groups.len() + self.elsewhere.count_ones() as usize
    }
}

#[derive(Debug, Default)]
struct RetainedNode(Option<MessageKey>);

impl Value for RetainedNode {
    fn is_vacant(&self) -> bool {
        self.0.is_none()
    }

    fn wildcards(&self) -> Wildcards {
        Wildcards::NONE
    }

    fn wildcards_mut(&mut self) -> Option<&mut Wildcards> {
        None
    }
}

#[derive(Debug)]
pub(super) struct Router {
    filters: Tree<SubscriptionNode>,
    /// The slots of a session's subscriptions, in nodes that have too many to search them.
    slots: IdMap<(SessionKey, NodeId), u32>,
    of_session: Vec<Vec<NodeId>>,
    groups_of_session: Vec<Vec<GroupKey>>,
    groups: IdMap<GroupKey, Group>,
    hungry: Hungry,
    /// The groups of a filter, where there are any.
    groups_at: IdMap<NodeId, Vec<GroupKey>>,
    /// Those that are no other shard's, by their filters and names.
    named: PeerMap<(NodeId, Box<str>), GroupKey>,
    next_group: GroupKey,
    count: usize,
    shared_count: usize,
    retained: Tree<RetainedNode>,
    retained_count: usize,
    walk: Walk,
    cache: Cache,
    /// Per session: the number of the match that last met it, and where in the receivers.
    marks: Vec<(u64, u32)>,
    match_number: u64,
    /// What other shards are interested in, and what they are to hear; `None` if there are none.
    far: Option<Box<Far>>,
}

impl Router {
    pub(super) fn new(hasher: KeyedHash) -> Self {
        Self {
            far: None,
            filters: Tree::new(hasher.clone()),
            slots: IdMap::default(),
            of_session: Vec::new(),
            groups_of_session: Vec::new(),
            hungry: Hungry::default(),
            groups: IdMap::default(),
            groups_at: IdMap::default(),
            named: PeerMap::with_hasher(hasher.clone()),
            next_group: 0,
            count: 0,
            shared_count: 0,
            retained: Tree::new(hasher),
            retained_count: 0,
            walk: Walk::default(),
            cache: Cache::default(),
            marks: Vec::new(),
            match_number: 0,
        }
    }

    /// Subscriptions of all sessions.
    pub(super) const fn subscriptions(&self) -> usize {
        self.count
    }

    /// Of these, shared ones.
    pub(super) const fn shared_subscriptions(&self) -> usize {
        self.shared_count
    }

    pub(super) const fn retained(&self) -> usize {
        self.retained_count
    }

    /// Whether a retained message may match, which costs less than to find it.
    pub(super) fn may_match_retained(&self, filter: &str) -> bool {
        self.retained_count > 0 && self.retained.may_be_matched_by(filter)
    }

    /// Sets or removes the retained message of `topic`, and gives back the one that was there.
    pub(super) fn retain(&mut self, topic: &str, message: Option<MessageKey>) -> Option<MessageKey> {
        let old = match message {
            Some(message) => {
                let node = self.retained.make(topic);
                self.retained.get_mut(node).and_then(|value| value.0.replace(message))
            }
            None => {
                let node = self.retained.find(topic)?;
                let old = self.retained.get_mut(node).and_then(|value| value.0.take());
                self.retained.prune(node);
                old
            }
        };
        self.retained_count += usize::from(message.is_some());
        self.retained_count -= usize::from(old.is_some());
        old
    }

    /// The retained message of exactly `topic`.
    pub(super) fn retained_at(&self, topic: &str) -> Option<MessageKey> {
        self.retained.get(self.retained.find(topic)?)?.0
    }

    /// The retained messages that match `filter`.
    pub(super) fn retained_matching(&mut self, filter: &str) -> Vec<MessageKey> {
        let mut found = Vec::new();
        let retained = &self.retained;
        retained.matched_by(filter, &mut self.walk, |node| {
            found.extend(retained.get(node).and_then(|value| value.0));
        });
        debug_assert!(found.is_empty() || self.may_match_retained(filter), "what it rules out is not there");
        found
    }

    /// Finds who gets a message to `topic` from `publisher` ([MQTT-3.3.2-3]). Give `matches` back by
    /// [`Router::give_back`], if they stay as they are.
    pub(super) fn matching(
        &mut self,
        topic: &[u8],
        publisher: Option<SessionKey>,
        matches: &mut Matches,
    ) -> Origin {
        if let Some(origin) = self.cache.lend(topic, matches) {
            return origin;
        }
        matches.receivers.clear();
        matches.groups.clear();
        let mut depends_on_publisher = false;
        self.match_number += 1;
        let number = self.match_number;
        let (filters, marks) = (&self.filters, &mut self.marks);
        filters.matching(topic, &mut self.walk, |id| {
            let Some(node) = filters.get(id) else { return };
            if node.has_groups {
                matches.groups.extend(self.groups_at.get(&id).into_iter().flatten());
            }
            for subscription in &node.subscriptions {
                let options = subscription.options;
                // [MQTT-3.8.3-3]
                depends_on_publisher |= options.no_local;
                if options.no_local && publisher == Some(subscription.session) && !defect!(NoLocalIgnored) {
                    continue;
                }
                let Some(mark) = marks.get_mut(subscription.session as usize) else { continue };
                if mark.0 == number
                    && let Some(met) = matches.receivers.get_mut(mark.1 as usize)
                {
                    met.qos = met.qos.max(options.qos);
                    met.retain_as_published |= options.retain_as_published;
                    met.ids.add(subscription.id());
                    continue;
                }
                *mark = (number, u32::try_from(matches.receivers.len()).unwrap_or(u32::MAX));
                matches.receivers.push(Receiver {
                    session: subscription.session,
                    qos: options.qos,
                    retain_as_published: options.retain_as_published,
                    ids: SubscriptionIds::new(subscription.id()),
                });
            }
        });
        matches.elsewhere = self.wanting(topic);
        if !depends_on_publisher {
            self.cache.keep(topic, matches);
        }
        Origin::default()
    }

    /// The next message to the topic finds its receivers at once.
    pub(super) fn give_back(&mut self, origin: Origin, matches: &mut Matches) {
        self.cache.give_back(origin, matches);
    }

    pub(super) fn group(&self, key: GroupKey) -> Option<&Group> {
        self.groups.get(&key)
    }

    pub(super) fn group_mut(&mut self, key: GroupKey) -> Option<&mut Group> {
        self.groups.get_mut(&key)
    }

    /// Whose queue a stored entry is in: the group's through which the message came, as long as there
    /// is one, or the session's.
    pub(super) fn owner(&self, group: Option<GroupKey>, session: SessionId) -> Option<SessionId> {
        match group {
            Some(group) => self.group(group)?.stored,
            None => Some(session),
        }
    }

    fn groups_at(&self, filter: NodeId) -> &[GroupKey] {
        self.groups_at.get(&filter).map_or(&[], Vec::as_slice)
    }

    pub(super) fn groups_of(&self, session: SessionKey) -> &[GroupKey] {
        self.groups_of_session.get(session as usize).map_or(&[], Vec::as_slice)
    }

    /// How many subscriptions the session has, shared ones included.
    pub(super) fn subscriptions_of(&self, session: SessionKey) -> usize {
        self.of_session.get(session as usize).map_or(0, Vec::len) + self.groups_of(session).len()
    }

    /// Gives back memory; the keys of all sessions are below `sessions`.
    pub(super) fn shrink(&mut self, sessions: usize) {
        self.filters.shrink();
        self.retained.shrink();
        self.slots.shrink();
        self.groups.shrink();
        self.shrink_hungry();
        self.groups_at.shrink();
        self.named.shrink();
        self.walk.shrink();
        self.of_session.truncate(sessions);
        self.groups_of_session.truncate(sessions);
        self.marks.truncate(sessions);
        self.of_session.shrink();
        self.groups_of_session.shrink();
        self.marks.shrink();
        if let Some(far) = &mut self.far {
            far.shrink();
        }
    }

    fn make_room_for(&mut self, session: SessionKey) {
        let len = session as usize + 1;
        if self.marks.len() < len {
            self.marks.resize(len, (0, 0));
            self.of_session.resize_with(len, Vec::new);
            self.groups_of_session.resize_with(len, Vec::new);
        }
    }
}

/// One subscription at a node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subscription {
    session: SessionKey,
    options: SubscriptionOptions,
    /// Its identifier, which is never 0.
    id: Option<NonZeroU32>,
    /// Where its node stands among those of the session.
    place: u32,
}

impl Subscription {
    fn id(&self) -> Option<u32> {
        self.id.map(NonZeroU32::get)
    }
}

// One at a node takes no more room than what would point to it.
const _: () = assert!(size_of::<Subscription>() == 16);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Seed;
    use mqtt_proto::TopicFilter;

    /// Neither nodes nor edges stay behind, whatever was there on the way.
    #[test]
    fn what_is_taken_back_leaves_nothing_behind() {
        let mut router = Router::new(KeyedHash::new(Seed::default(), 0));
        let size = |r: &Router| (r.filters.len(), r.retained.len());
        let empty = size(&router);
        let filter = |text| TopicFilter::new(text).unwrap();
        let mut left = Left::default();
        for text in ["a", "a/b/c", "a/+/c", "a/#", "+", "b"] {
            router.subscribe(1, filter(text), SubscriptionOptions::default(), None);
        }
        router.retain("a/b", Some(3));
        let with_all = size(&router);
        router.subscribe(2, filter("a/b/c/d/e"), SubscriptionOptions::default(), None);
        assert!(router.unsubscribe(2, filter("a/b/c/d/e"), &mut left));
        assert!(!router.unsubscribe(2, filter("a/b/c"), &mut left), "it is another's");
        assert_eq!(size(&router), with_all);
        for text in ["a/b/c", "+", "a", "a/#", "b", "a/+/c"] {
            assert!(router.unsubscribe(1, filter(text), &mut left));
            assert!(!router.unsubscribe(1, filter(text), &mut left), "only once");
        }
        assert_eq!(router.retain("a/b", None), Some(3));
        assert_eq!(size(&router), empty);
    }
}

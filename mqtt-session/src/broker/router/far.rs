//! What the other shards of a broker are interested in, and what of ours they have to hear of.

use super::subscriptions::Group;
use super::tree::{NodeId, Tree, Value, Wildcards};
use super::{GroupKey, Left, MessageKey, Router};
use crate::broker::shrink::Shrink;
use crate::random::{KeyedHash, PeerMap};
use crate::shard::{Refused, ShardId};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::hash::BuildHasher;
use mqtt_proto::TopicFilter;

/// A group of another shard, as far as its members are here.
#[derive(Debug)]
pub(in crate::broker) struct Leaf {
    /// The filter, `$share/` included.
    pub(in crate::broker) filter: Box<str>,
    pub(in crate::broker) owner: ShardId,
    /// Slots that the owner may still use.
    pub(in crate::broker) slots: u32,
    /// Messages that have used up theirs, and are not stored yet.
    pub(in crate::broker) coming: u32,
    /// Something went back that waits there until members can have it.
    pub(in crate::broker) passed_over: bool,
}

/// Another shard that has members of a group of ours.
#[derive(Debug)]
pub(in crate::broker) struct Share {
    pub(in crate::broker) shard: ShardId,
    /// Messages that its members can have at once.
    pub(in crate::broker) slots: u32,
}

/// Which shards want what matches a filter, a bit for each.
#[derive(Debug, Default)]
struct Wanting {
    shards: u64,
    wildcards: Wildcards,
}

impl Value for Wanting {
    fn is_vacant(&self) -> bool {
        self.shards == 0
    }

    #[inline]
    fn wildcards(&self) -> Wildcards {
        self.wildcards
    }

    fn wildcards_mut(&mut self) -> Option<&mut Wildcards> {
        Some(&mut self.wildcards)
    }
}

#[derive(Debug)]
pub(super) struct Far {
    own: ShardId,
    count: u16,
    homes: KeyedHash,
    wanting: Tree<Wanting>,
    leaves: PeerMap<Box<str>, GroupKey>,
    /// Filters that this shard has a use for since, or has no longer.
    changes: Vec<(String, bool)>,
}

impl Far {
    pub(super) fn shrink(&mut self) {
        self.wanting.shrink();
        self.leaves.shrink();
        self.changes.shrink();
    }
}

impl Router {
    /// This is shard `own` of `count`.
    pub(in crate::broker) fn share_with(&mut self, own: ShardId, count: u16, homes: KeyedHash) {
        let leaves = PeerMap::with_hasher(homes.clone());
        let wanting = Tree::new(homes.clone());
        self.far = Some(Box::new(Far { own, count, homes, wanting, leaves, changes: Vec::new() }));
    }

    /// The shard to which something with this name belongs, if it is another one.
    pub(in crate::broker) fn foreign_owner(&self, name: &str) -> Option<ShardId> {
        let far = self.far.as_ref()?;
        // Below the number of shards, which is 64 at most.
        let place = far.homes.hash_one(name) % u64::from(far.count.max(1));
        let owner = ShardId(u16::try_from(place).unwrap_or_default());
        (owner != far.own).then_some(owner)
    }

    /// Another shard has, or has no longer, a use for what matches `filter`.
    pub(in crate::broker) fn set_wanting(&mut self, shard: ShardId, filter: &str, wanted: bool) {
        let Some(far) = &mut self.far else { return };
        let bit = bit(shard);
        self.cache.void();
        if wanted {
            let node = far.wanting.make(filter);
            if let Some(value) = far.wanting.get_mut(node) {
                value.shards |= bit;
            }
        } else if let Some(node) = far.wanting.find(filter) {
            if let Some(value) = far.wanting.get_mut(node) {
                value.shards &= !bit;
            }
            far.wanting.prune(node);
        }
    }

    /// Which other shards want a message to `topic`.
    pub(in crate::broker) fn wanting(&mut self, topic: &[u8]) -> u64 {
        let Some(far) = &self.far else { return 0 };
        let mut shards = 0;
        far.wanting.matching(topic, &mut self.walk, |node| {
            shards |= far.wanting.get(node).map_or(0, |value| value.shards);
        });
        shards
    }

    /// What the others have to hear.
    pub(in crate::broker) fn take_changes(&mut self) -> Vec<(String, bool)> {
        self.far.as_mut().map(|far| core::mem::take(&mut far.changes)).unwrap_or_default()
    }

    pub(super) fn note_interest(&mut self, node: NodeId, wanted: bool) {
        if let Some(far) = &mut self.far {
            far.changes.push((self.filters.path(node), wanted));
        }
    }

    /// The filter of a group, `$share/` included.
    pub(in crate::broker) fn filter_of_group(&self, key: GroupKey) -> Option<String> {
        let group = self.group(key)?;
        Some(match &group.leaf {
            Some(leaf) => leaf.filter.as_ref().into(),
            None => format!("$share/{}/{}", group.name(), self.filters.path(group.node())),
        })
    }

    pub(super) fn leaf_of_filter(&self, filter: &str) -> Option<GroupKey> {
        self.far.as_ref()?.leaves.get(filter).copied()
    }

    pub(super) fn add_leaf(&mut self, filter: TopicFilter<'_>, owner: ShardId) -> GroupKey {
        let name = filter.shared().map_or("", |shared| shared.share_name);
        let leaf = Leaf { filter: filter.as_str().into(), owner, slots: 0, coming: 0, passed_over: false };
        let mut group = Group::new(name, NodeId::MAX);
        group.leaf = Some(Box::new(leaf));
        let key = self.insert_group(group);
        if let Some(far) = &mut self.far {
            far.leaves.insert(filter.as_str().into(), key);
        }
        key
    }

    /// Rights have changed: what shards have refused they may take now.
    pub(in crate::broker) fn forget_refused(&mut self) {
        self.groups.values_mut().for_each(|group| group.refused.clear());
    }

    pub(super) fn forget_leaf(&mut self, leaf: &Leaf) {
        if let Some(far) = &mut self.far {
            far.leaves.remove(&leaf.filter);
        }
    }

    /// Another shard has members of the group of `filter`.
    pub(in crate::broker) fn add_share(&mut self, filter: TopicFilter<'_>, shard: ShardId) {
        let Some(shared) = filter.shared() else { return };
        let key = match self.group_of_filter(filter) {
            Some(key) => key,
            None => self.add_group(shared.filter.as_str(), shared.share_name),
        };
        if let Some(group) = self.group_mut(key)
            && group.shares.iter().all(|share| share.shard != shard)
        {
            group.shares.push(Share { shard, slots: 0 });
        }
    }

    /// It has none any more.
    pub(in crate::broker) fn remove_share(&mut self, key: GroupKey, shard: ShardId, left: &mut Left) {
        if let Some(group) = self.group_mut(key) {
            group.shares.retain(|share| share.shard != shard);
        }
        self.drop_if_empty(key, left);
    }
}

impl Group {
    /// Which shards have sent a message back because of rights.
    pub(in crate::broker) fn refused(&self, message: MessageKey) -> Refused {
        self.refused.iter().find(|(of, _)| *of == message).map_or(Refused::default(), |(_, refused)| *refused)
    }

    pub(in crate::broker) fn note_refused(&mut self, message: MessageKey, refused: Refused) {
        if refused != Refused::default() {
            self.refused.push((message, refused));
        }
    }

    /// A message comes back from a shard.
    pub(in crate::broker) fn came_back(&mut self, message: MessageKey, from: ShardId, mut refused: Refused) {
        if refused.passed_over & bit(from) != 0 {
            self.again &= !bit(from);
        }
        // While it was away, these may have told that they can have it now.
        refused.passed_over &= !self.again;
        self.note_refused(message, refused);
    }

    /// The members of a shard may be able to have what it has passed over.
    pub(in crate::broker) fn try_again(&mut self, shard: ShardId) {
        self.again |= bit(shard);
        self.refused.iter_mut().for_each(|(_, refused)| refused.passed_over &= !bit(shard));
    }

    /// A message leaves the queue.
    pub(in crate::broker) fn take_refused(&mut self, message: MessageKey) -> Refused {
        let refused = self.refused(message);
        self.refused.retain(|(of, _)| *of != message);
        refused
    }
}

/// The bit of a shard.
pub(in crate::broker) const fn bit(shard: ShardId) -> u64 {
    1 << (shard.0 & 63)
}

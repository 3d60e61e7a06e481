//! What all shards have to know before something is answered.

use super::super::output::{ConnectionId, Event, LocalId};
use super::super::router::bit;
use super::{Broker, each};
use crate::defects::defect;
use crate::{ShardId, ShardMessage, StoreSeq};
use alloc::string::String;
use alloc::vec::Vec;
use mqtt_proto::{PacketId, PacketRef, Properties, SubackRef};

/// What is done once everybody is in step.
#[derive(Debug)]
pub(in crate::broker) enum Then {
    /// SUBACK is sent.
    Suback {
        conn: ConnectionId,
        packet_id: PacketId,
        codes: Vec<u8>,
        /// And this much is stored.
        after: StoreSeq,
    },
    /// Another shard hears that a group is in force.
    Joined {
        to: ShardId,
        sync: u64,
    },
    /// The program hears that its subscription is in force.
    Local(LocalId),
    Nothing,
}

/// A round through all shards.
#[derive(Debug)]
pub(super) struct Sync {
    /// Those that have not answered.
    waiting: u64,
    /// Groups of other shards that are not in force yet.
    joins: usize,
    /// Questions for retained messages that can be asked then.
    replays: Vec<u64>,
    /// By shard: how many retained writes it had sent to each owner.
    writes: Vec<Vec<u64>>,
    then: Then,
}

/// What the present input began.
#[derive(Debug, Default)]
pub(super) struct Opened {
    replays: Vec<u64>,
    joins: Vec<(ShardId, String)>,
    local: Option<LocalId>,
}

impl Broker {
    /// Tells the others of filters that are new here, or gone.
    pub(super) fn tell_interest(&mut self) {
        let changes = self.router.take_changes();
        if changes.is_empty() || defect!(ShardInterestUntold) {
            return;
        }
        let others = self.shards.as_ref().map_or(0, |shards| shards.others());
        for shard in each(others) {
            self.tell_shard(shard, ShardMessage::Interest(changes.clone()));
        }
    }

    /// The present input made a subscription that has to get retained messages.
    pub(in crate::broker) fn open_replay(&mut self, query: u64) {
        if let Some(shards) = &mut self.shards {
            shards.opened.replays.push(query);
        }
    }

    /// The present input subscribed to this shared filter, if it is one of another shard.
    pub(in crate::broker) fn open_join(&mut self, filter: &str) {
        if let Some(owner) = self.router.foreign_owner(filter)
            && filter.starts_with("$share/")
            && let Some(shards) = &mut self.shards
        {
            shards.opened.joins.push((owner, filter.into()));
        }
    }

    /// The present input made a subscription of the program itself.
    pub(in crate::broker) fn open_local(&mut self, id: LocalId) {
        if let Some(shards) = &mut self.shards {
            shards.opened.local = Some(id);
        }
    }

    /// What was subscribed by others than clients.
    pub(super) fn sync_what_is_open(&mut self) {
        let Some(opened) = self.shards.as_ref().map(|shards| &shards.opened) else { return };
        if let Some(id) = opened.local {
            self.sync(Then::Local(id));
        } else if !(opened.replays.is_empty() && opened.joins.is_empty()) {
            self.sync(Then::Nothing);
        }
    }

    /// Does `then` once all shards know what this one has told them.
    pub(in crate::broker) fn sync(&mut self, then: Then) {
        self.tell_interest();
        let Some(shards) = &mut self.shards else { return };
        let number = shards.next();
        let Opened { replays, joins, local: _ } = core::mem::take(&mut shards.opened);
        let mut writes: Vec<Vec<u64>> = shards.neighbours.iter().map(|_| Vec::new()).collect();
        if let Some(own) = writes.get_mut(usize::from(shards.own.0)) {
            // What is published here from now on comes live.
            own.clone_from(&shards.writes);
        }
        let others = shards.others();
        if defect!(ShardSubackEarly)
            && let Then::Suback { conn, packet_id, codes, .. } = &then
            && let Some(index) = self.index_of(*conn)
        {
            let suback = SubackRef { packet_id: *packet_id, properties: Properties::EMPTY, codes };
            self.put(index, &PacketRef::Suback(suback));
        }
        let then = if defect!(ShardSubackEarly) { Then::Nothing } else { then };
        let Some(shards) = &mut self.shards else { return };
        shards.syncs.insert(number, Sync { waiting: others, joins: joins.len(), replays, writes, then });
        for shard in each(others) {
            self.tell_shard(shard, ShardMessage::Sync(number));
        }
        for (owner, filter) in joins {
            let stored = self.group_named(&filter).and_then(|key| self.router.group(key)?.stored).is_some();
            let join = ShardMessage::GroupJoin { filter: filter.clone(), sync: number, stored };
            self.tell_shard(owner, join);
            self.settle_leaf_of(&filter);
        }
    }

    pub(super) fn synced(&mut self, from: ShardId, number: u64, writes: Vec<u64>) {
        let Some(sync) = self.shards.as_mut().and_then(|shards| shards.syncs.get_mut(&number)) else {
            return;
        };
        sync.waiting &= !bit(from);
        if let Some(its) = sync.writes.get_mut(usize::from(from.0)) {
            *its = writes;
        }
        self.settle_sync(number);
    }

    pub(super) fn join_in_force(&mut self, number: u64) {
        if let Some(sync) = self.shards.as_mut().and_then(|shards| shards.syncs.get_mut(&number)) {
            sync.joins = sync.joins.saturating_sub(1);
            self.settle_sync(number);
        }
    }

    fn settle_sync(&mut self, number: u64) {
        let Some(shards) = &mut self.shards else { return };
        if !shards.syncs.get(&number).is_some_and(|sync| sync.waiting == 0 && sync.joins == 0) {
            return;
        }
        let Some(Sync { replays, writes, then, .. }) = shards.syncs.remove(&number) else { return };
        match then {
            Then::Suback { conn, packet_id, codes, after } => {
                if let Some(index) = self.index_of(conn) {
                    let suback = SubackRef { packet_id, properties: Properties::EMPTY, codes: &codes };
                    self.put_after(index, &PacketRef::Suback(suback), after);
                }
            }
            Then::Joined { to, sync } => self.tell_shard(to, ShardMessage::GroupJoined { sync }),
            Then::Local(subscriber) => self.event(Event::InForce { subscriber }),
            Then::Nothing => {}
        }
        self.ask_for_retained(&replays, &writes);
    }
}

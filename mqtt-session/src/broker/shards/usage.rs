//! What is limited for all shards together: each tells the others what it has of it, the less often the further the limit is.
//!
//! A shard tells when what it has differs from what it told by more than its part of half of what is left. So all together stay
//! below the limit as long as nothing is on its way between them, however the clients are spread; what several shards
//! take while they tell each other of it may be beyond.

use super::{Broker, each};
use crate::{ShardId, ShardMessage, Usage};

/// Of a broker with one shard.
const NOTHING: Usage =
    Usage { connections: 0, sessions: 0, retained: 0, message_bytes: 0, unauthenticated: 0 };

impl Usage {
    fn parts(&mut self) -> [&mut usize; 5] {
        let Self { connections, sessions, retained, message_bytes, unauthenticated } = self;
        [connections, sessions, retained, message_bytes, unauthenticated]
    }

    /// Puts `new` in place of `old` into a sum that has it.
    fn replace(&mut self, mut old: Self, mut new: Self) {
        for ((sum, old), new) in self.parts().into_iter().zip(old.parts()).zip(new.parts()) {
            *sum = sum.saturating_sub(*old).saturating_add(*new);
        }
    }
}

impl Broker {
    /// What the other shards have of what is limited for all, as far as they have told.
    pub(in crate::broker) fn used_elsewhere(&self) -> &Usage {
        self.shards.as_ref().map_or(&NOTHING, |shards| &shards.elsewhere)
    }

    /// Whether a message of this size may be held.
    pub(in crate::broker) fn has_memory_for(&self, len: usize) -> bool {
        self.messages.bytes() + self.used_elsewhere().message_bytes + len <= self.config.max_message_bytes
    }

    /// Another shard says what it has.
    pub(super) fn shard_uses(&mut self, from: ShardId, usage: Usage) {
        if let Some(shards) = &mut self.shards
            && let Some(there) = shards.neighbours.get_mut(usize::from(from.0))
        {
            let before = core::mem::replace(&mut there.usage, usage);
            shards.elsewhere.replace(before, usage);
        }
    }

    /// Tells the others what this one has, if it is time.
    pub(super) fn tell_usage(&mut self) {
        let Some(shards) = &self.shards else { return };
        let (mut told, mut elsewhere) = (shards.told, shards.elsewhere);
        let count = shards.neighbours.len();
        let config = &self.config;
        let at_most = |limit: u32| usize::try_from(limit).unwrap_or(usize::MAX);
        let mut limits = Usage {
            connections: at_most(config.max_connections),
            sessions: at_most(config.max_sessions),
            retained: at_most(config.max_retained),
            message_bytes: config.max_message_bytes,
            unauthenticated: config.max_unauthenticated_bytes,
        };
        let own = Usage {
            connections: self.connections.len(),
            sessions: self.sessions.len(),
            retained: self.router.retained(),
            message_bytes: self.messages.bytes(),
            unauthenticated: self.unauthenticated,
        };
        let mut now = own;
        let limits = limits.parts().into_iter().zip(elsewhere.parts());
        let mut parts = now.parts().into_iter().zip(told.parts()).zip(limits);
        let is_due = parts.any(|((own, told), (limit, elsewhere))| {
            let left = limit.saturating_sub(*own).saturating_sub(*elsewhere);
            own.abs_diff(*told) > left / (2 * count)
        });
        if !is_due {
            return;
        }
        let others = shards.others();
        if let Some(shards) = &mut self.shards {
            shards.told = own;
        }
        for shard in each(others) {
            self.tell_shard(shard, ShardMessage::Usage(own));
        }
    }
}

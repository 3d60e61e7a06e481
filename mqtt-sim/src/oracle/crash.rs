//! What a crash leaves of what the model knows: it is compared with the store, where it was stored, and
//! forgotten, where it was not.

use super::{Due, Oracle, SLACK, Session};
use crate::disk::Disk;
use crate::wire::MessageId;
use mqtt_session::{StoreGroup, StoreOp};

impl Oracle {
    /// Something about a client's session changed, as part of this store group at the latest.
    pub fn changed(&mut self, client: &str, group: u64) {
        if let Some(session) = self.sessions.get_mut(client) {
            session.changed = session.changed.max(group);
        }
    }

    /// The connection of a client, its will included, is part of this store group.
    pub fn connected_by(&mut self, client: &str, group: u64) {
        if let Some(session) = self.sessions.get_mut(client) {
            session.connected_by = group;
        }
    }

    /// The broker has started again at `now` of its time, from a store that has all groups up to
    /// `committed`.
    ///
    /// # Errors
    /// Names what the store lost, or has and must not have.
    pub fn crashed(&mut self, now: u64, before: u64, committed: u64, disk: &Disk) -> Result<(), String> {
        self.counts.broker_crashes += 1;
        self.crashes += 1;
        self.rewound = self.rewound.max(before.saturating_sub(now));
        let slack = SLACK + self.tick;
        let mut wrong = None;
        let clients: Vec<String> = self.sessions.keys().cloned().collect();
        for client in &clients {
            let Some(session) = self.sessions.get_mut(client) else { continue };
            let stored = disk.sessions.get(client);
            let was_connected = std::mem::replace(&mut session.connected, false);
            // A restart that was not stored has not begun to count.
            if was_connected || session.lost_by > committed {
                session.lost_at = now;
                session.lost_by = u64::MAX;
            } else {
                session.lost_by = 0;
            }
            session.lost_at = session.lost_at.min(now);
            session.goodbye = None;
            let will = session.will.take();
            if session.changed <= committed {
                session.exists &= session.expiry > 0;
                session.end_by_expiry();
                let near = session.ends_at != u64::MAX && session.ends_at <= now + slack;
                if session.exists && !near && stored.is_none() {
                    wrong = Some(format!("the session of {client} is not in the store"));
                }
                if !session.exists && stored.is_some() {
                    wrong = Some(format!("the session of {client} has ended and is in the store"));
                }
                if let Some(stored) = stored.filter(|_| session.exists && !near) {
                    if let Some(lost) = session.granted.keys().find(|f| !stored.filters.contains(*f)) {
                        wrong = Some(format!("the subscription of {client} to {lost} is not in the store"));
                    }
                    if stored.expiry != session.expiry {
                        let (has, due) = (stored.expiry, session.expiry);
                        wrong = Some(format!("{client} has expiry {has} in the store instead of {due}"));
                    }
                }
            } else {
                session.foggy = true;
                session.owed.clear();
                session.granted.clear();
                session.exists = stored.is_some();
                session.expiry = stored.map_or(0, |stored| stored.expiry);
                if stored.is_none_or(|stored| stored.lost_at.is_some()) {
                    session.lost_by = 0;
                }
                session.lost_at = stored.and_then(|stored| stored.lost_at).unwrap_or(now).min(now);
                session.end_by_expiry();
                let asked = session.asked.clone();
                self.owed_groups.retain(|(group, _), ()| !asked.contains(group));
            }
            (session.changed, session.dropped) = (0, {
                session.dropped_before += session.dropped.saturating_mul(2).saturating_sub(1);
                0
            });
            if let Some(delay) = will {
                let delay = u64::from(delay) * 1_000_000;
                let (at, client) = (now + delay, client.clone());
                let (node, set_by) = (session.will_node, session.connected_by);
                self.dues.push(Due { client, node, at, delay, set_by, maybe: false });
            }
            session.connected_by = 0;
            let node = session.will_node;
            wrong = wrong.or(self.wills_crashed(client, node, now, committed, disk));
        }
        self.fired.clear();
        self.gone_wills.clear();
        // What was on its way to be retained may be: nobody was told.
        for (topic, kept) in &disk.retained {
            let untold =
                |id: &MessageId| self.messages.get(id).is_some_and(|m| m.arrived.is_some() && !m.told);
            if kept.as_ref().is_some_and(untold) {
                self.retained.insert(topic.clone(), *kept);
            }
        }
        for message in self.messages.values_mut() {
            message.maybe_taken |= message.arrived.is_some() && message.routed == 0;
        }
        wrong.map_or(Ok(()), Err)
    }

    /// What a store group says of wills.
    pub fn wills_stored(&mut self, seq: u64, group: &StoreGroup) {
        for op in &*group.ops {
            match op {
                StoreOp::PutWill(session, will) => {
                    self.will_owners.insert(*session, will.author.client_id.clone());
                }
                StoreOp::DeleteWill(session) => {
                    let client = self.will_owners.get(session).cloned().unwrap_or_default();
                    self.gone_wills.push((client, seq));
                }
                _ => {}
            }
        }
    }

    /// The restart itself stores, in this group, that the client's connection is lost.
    pub fn restarted(&mut self, client: &str, group: u64) {
        if let Some(session) = self.sessions.get_mut(client) {
            session.lost_by = session.lost_by.min(group);
        }
    }

    /// What is known of a client's wills after a crash.
    fn wills_crashed(
        &mut self,
        client: &str,
        node: usize,
        now: u64,
        committed: u64,
        disk: &Disk,
    ) -> Option<String> {
        let mut wrong = None;
        let have = disk.wills.get(client).copied().unwrap_or(0);
        // A will that came and was not stored as gone may come again, over any number of crashes.
        let mut undone = self.dues.iter().any(|due| due.client == client && due.maybe);
        // One that left the store was published as far as anybody can tell who is still there: its
        // appends are in the same group, and who else would have got it has no connection any more.
        let gone = |due: &Due| {
            let left =
                |(name, group): &(String, u64)| name == client && (due.set_by..=committed).contains(group);
            self.gone_wills.iter().any(left)
        };
        undone |= self.dues.iter().any(|due| due.client == client && gone(due));
        let over: Vec<bool> = self.dues.iter().map(gone).collect();
        let mut over = over.into_iter();
        self.dues.retain(|due| {
            let over = over.next().unwrap_or_default();
            due.client != client || due.set_by <= committed && !due.maybe && !over
        });
        let sure = self.dues.iter().filter(|due| due.client == client).count();
        undone |= self.fired.iter().any(|(name, group)| name == client && *group > committed);
        let session = self.sessions.get(client)?;
        let (foggy, lost_now, ends_at) = (session.foggy, session.lost_by > 0, session.ends_at);
        let lost_at = session.lost_at;
        if !self.wills_may_fail && !foggy {
            if have < sure {
                wrong = Some(format!("the will of {client} is not in the store"));
            }
            if have > sure && !undone {
                wrong = Some(format!("the store has {have} wills of {client} instead of {sure}"));
            }
        }
        for due in self.dues.iter_mut().filter(|due| due.client == client) {
            // What was due meanwhile comes now, and a clock that went back makes nothing later.
            let at = if lost_now { now + due.delay } else { due.at.min(lost_at + due.delay) };
            due.at = at.min(ends_at).max(now);
            due.set_by = 0;
            due.maybe = have < sure || foggy;
        }
        for _ in sure..have {
            let client = client.to_owned();
            self.dues.push(Due { client, node, at: now, delay: 0, set_by: 0, maybe: true });
        }
        wrong
    }

    /// The broker has started again with nothing: it has no store.
    pub fn emptied(&mut self, now: u64) {
        self.counts.broker_crashes += 1;
        self.crashes += 1;
        self.dues.clear();
        self.fired.clear();
        self.gone_wills.clear();
        self.retained.clear();
        self.rivals.clear();
        self.owed_groups.clear();
        for session in self.sessions.values_mut() {
            (session.connected, session.exists, session.ends_at) = (false, false, now);
            (session.will, session.goodbye, session.lost_at) = (None, None, now);
            session.owed.clear();
            session.granted.clear();
            session.dropped_before += session.dropped.saturating_mul(2).saturating_sub(1);
            session.dropped = 0;
        }
        for message in self.messages.values_mut() {
            message.maybe_taken |= message.arrived.is_some() && message.routed == 0;
        }
    }

    /// The broker crashed; these are on the disk, whether it told anybody or not.
    pub fn taken(&mut self, messages: impl Iterator<Item = MessageId>) {
        for id in messages {
            if let Some(message) = self.messages.get_mut(&id) {
                message.routed = message.routed.max(1);
            }
        }
    }

    /// A subscriber crashed before it acknowledged this message for good: it comes once more.
    pub fn comes_again(&mut self, client: &str, id: MessageId) {
        let Some(session) = self.sessions.get_mut(client) else { return };
        let Some(got) = session.got.get_mut(&id) else { return };
        got.twice = got.twice.saturating_sub(1);
        got.replayed = got.replayed.saturating_sub(1);
        let wanted = self.messages.get(&id).is_some_and(|message| message.settled && !message.retain);
        if wanted && session.judged && !session.shares && !session.foggy {
            session.owed.insert(id);
        }
    }

    /// A publisher crashed and does not know that it was told about this message.
    pub fn undone(&mut self, id: MessageId, may_repeat: bool) {
        if let Some(message) = self.messages.get_mut(&id) {
            message.done = false;
            message.may_repeat |= may_repeat;
        }
    }
}

impl Session {
    fn end_by_expiry(&mut self) {
        let after = u64::from(self.expiry) * 1_000_000;
        self.ends_at = if self.expiry == u32::MAX { u64::MAX } else { self.lost_at + after };
    }
}

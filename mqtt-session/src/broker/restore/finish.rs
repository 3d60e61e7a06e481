//! The last steps with one shard: what had to wait until all records were there.

use super::super::router::SessionKey;
use super::super::session::{Session, Will};
use super::super::sys::is_own;
use super::super::timers::Timer;
use super::part::{Begun, Owner, Part};
use crate::shared::ledger::Stage;
use crate::store::{EntryId, SessionId};
use crate::{StoreOp, Timestamp};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;
use mqtt_proto::{PacketId, TopicFilter};

/// A restart keeps this distance from the last packet identifier that it knows of, so that a late
/// acknowledgement hits nothing that is sent now.
const DISTANCE: u16 = 32_767;
/// Between wills that are due at the start, so that they do not come all at once.
const PACE: Duration = Duration::from_millis(1);
/// Operations that the restart makes itself go in groups of about this many.
const GROUP: usize = 1_000;

impl Part {
    /// The rest of it: exchanges, groups, wills, sessions; and what nobody refers to goes.
    pub(super) fn finish(&mut self, now: Timestamp) -> usize {
        self.finish_exchanges();
        self.finish_groups();
        self.finish_void();
        let wills = self.finish_wills(now);
        self.finish_sessions(now);
        // Until here each message was held once for the restore itself.
        let mut messages: Vec<_> = self.messages.iter().map(|(&id, &key)| (id, key)).collect();
        messages.sort_unstable();
        for (at, (_, key)) in messages.into_iter().enumerate() {
            self.broker.release_message(key);
            self.commit_now_and_then(at);
        }
        wills
    }

    fn commit_now_and_then(&mut self, at: usize) {
        if at % GROUP == GROUP - 1 {
            self.broker.journal.commit(&mut self.broker.outputs);
        }
    }

    fn finish_exchanges(&mut self) {
        self.begun.sort_unstable_by_key(|begun| (begun.session, begun.number));
        for begun in core::mem::take(&mut self.begun) {
            let Begun { session, packet_id, qos, stage, entry, delivery, .. } = begun;
            let Some(session) = self.broker.sessions.get_mut(session as usize) else { continue };
            if session.ledger.contains(packet_id) {
                // Never the case in a store that is whole.
                self.dropped += 1;
                self.broker.journal.op(StoreOp::RemoveEntry(session.id, entry));
                if let Some(delivery) = delivery {
                    self.broker.release_message(delivery.message);
                }
                continue;
            }
            if stage == Stage::Release {
                session.releasing.get_or_insert_default().insert(packet_id.get(), entry);
            }
            // It may have been sent, so what is sent now is a repetition.
            session.ledger.restore(packet_id, qos, stage, true, delivery);
        }
        // Exchanges without an entry; else they would stay for ever.
        let mut left: Vec<_> = core::mem::take(&mut self.exchanges).into_keys().collect();
        left.sort_unstable();
        self.dropped += left.len();
        for (session, entry) in left {
            self.broker.journal.op(StoreOp::RemoveEntry(SessionId(session), EntryId(entry)));
        }
    }

    /// Deletes what sessions and groups left behind that have no record. The store may be at it already;
    /// saying it again is harmless.
    fn finish_void(&mut self) {
        for id in core::mem::take(&mut self.void) {
            self.broker.journal.op(StoreOp::DeleteSession(id));
        }
    }

    /// Groups that have no record get one.
    pub(super) fn keep_groups(&mut self) {
        for filter in core::mem::take(&mut self.unkept) {
            if let Ok(filter) = TopicFilter::new(&filter) {
                self.broker.store_group(filter);
            }
        }
    }

    /// Groups that no stored session is a member of go.
    fn finish_groups(&mut self) {
        for id in core::mem::take(&mut self.groups).into_values().flatten() {
            if !self.owners.contains_key(&id.0) {
                self.dropped += 1;
                self.broker.journal.op(StoreOp::DeleteGroup(id));
            }
        }
    }

    /// Gives wills back to their sessions. A session that was to end with its connection has no record
    /// and is there only until its will is published.
    fn finish_wills(&mut self, now: Timestamp) -> usize {
        let mut wills = 0;
        for (id, will) in core::mem::take(&mut self.wills) {
            let broker = &mut self.broker;
            // A will for a topic of the broker's own was never taken.
            let restored = broker.messages.restore(&will.message);
            let restored = restored.filter(|key| {
                let fits = broker.messages.get(*key).is_some_and(|held| !is_own(held.topic()));
                if !fits {
                    broker.messages.release(*key);
                }
                fits
            });
            let Some(message) = restored else {
                self.dropped += 1;
                broker.journal.op(StoreOp::DeleteWill(id));
                continue;
            };
            let key = match self.owners.get(&id.0) {
                Some(&Owner::Session(key)) => key,
                _ => {
                    let mut session = Session::new(&will.author.client_id, id);
                    session.user_name = will.author.user_name.as_deref().map(Into::into);
                    session.acl = will.author.acl;
                    let key =
                        SessionKey::try_from(broker.sessions.insert(session)).unwrap_or(SessionKey::MAX);
                    self.since.push((key, Some(now)));
                    key
                }
            };
            if let Some(session) = broker.sessions.get_mut(key as usize) {
                session.will = Some(Box::new(Will { message, delay_secs: will.delay_secs }));
                wills += 1;
            }
        }
        wills
    }

    fn finish_sessions(&mut self, now: Timestamp) {
        for key in &self.replaced {
            self.broker.end_session(*key);
        }
        let mut paced = now;
        for (at, (key, since)) in self.since.clone().into_iter().enumerate() {
            let broker = &mut self.broker;
            let Some(session) = broker.sessions.get_mut(key as usize) else { continue };
            let next = session.noted_id.wrapping_add(DISTANCE);
            session.ledger.continue_after(PacketId::new(next).unwrap_or(PacketId::MIN));
            // A clock that was set back must not make it live longer than it may.
            let lost = since.map_or(now, |since| since.min(now));
            let expiry = session.expiry_secs;
            session.expires =
                if expiry == u32::MAX { Timestamp::MAX } else { lost.plus_secs(session.expiry_secs) };
            let mut due = session.expires;
            if let Some(will) = &session.will {
                session.will_due = lost.plus_secs(will.delay_secs).min(session.expires);
                due = session.will_due;
                if due <= now {
                    // It stays due: a client that returns first does not cancel it.
                    due = paced;
                    session.expires = session.expires.max(paced);
                    paced = paced + PACE;
                }
            }
            let incarnation = session.id.0;
            session.armed = due;
            broker.timers.at(due, Timer::Session { key, incarnation });
            if since.is_none() {
                // From now on it counts as lost at this moment, also after the next restart.
                broker.store_session(key);
            }
            self.commit_now_and_then(at);
        }
    }
}

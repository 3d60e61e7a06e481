//! Retained messages for new subscriptions: a cursor in the session, outside the queue's limit.

use super::delivery_qos;
use super::message::{Held, MessageKey, Messages};
use super::router::{Added, SessionKey, SubscriptionIds};
use super::session::{Delivery, Replay};
use super::{Broker, defect};
use crate::store::{MessageId, SessionId, StoredReplay};
use crate::{ShardId, StoreOp};
use alloc::boxed::Box;
use mqtt_proto::{QoS, RetainHandling, SubscriptionOptions, TopicFilter};

/// What a replay goes on with.
pub(super) enum Next {
    /// A message with its number, and the shard that it came from if that is another one.
    Message(MessageId, MessageKey, Option<ShardId>),
    /// Another shard has to tell.
    Unknown,
    /// There is nothing more.
    Nothing,
}

impl Replay {
    /// The lowest number of all that is here.
    pub(super) fn next(&self, messages: &Messages) -> Next {
        let Some(found) = &self.found else { return Next::Unknown };
        // What was replaced or removed meanwhile has none.
        let number = |key| MessageId(messages.get(key).map_or(0, Held::retained_at));
        let here = found.get(self.next).map(|&key| (number(key), key));
        let there = match self.far.as_ref().map(|far| far.next()) {
            Some(None) => return Next::Unknown,
            Some(Some(there)) => there,
            None => None,
        };
        match (here, there) {
            (Some((number, key)), there) if there.is_none_or(|(other, ..)| number <= other) => {
                Next::Message(number, key, None)
            }
            (_, Some((number, key, from))) => Next::Message(number, key, Some(from)),
            (_, None) => Next::Nothing,
        }
    }

    /// That one is dealt with.
    pub(super) fn pass(&mut self, number: MessageId, from: Option<ShardId>) {
        self.left.after = number.max(self.left.after);
        match (from, &mut self.far) {
            (Some(from), Some(far)) => far.pass(from),
            _ => self.next += 1,
        }
    }

    /// What the store keeps of it.
    pub(super) fn to_stored(&self, session: SessionId) -> StoreOp {
        let mut replay = Box::new(self.left.clone());
        replay.except.retain(|id| *id > replay.after);
        StoreOp::PutReplay { session, filter: self.filter.as_ref().into(), replay }
    }
}

impl Broker {
    /// Has a new subscription get the retained messages ([MQTT-3.3.1-9], [MQTT-3.3.1-10],
    /// [MQTT-3.3.1-11]; [MQTT-3.3.1-6] of 3.1.1). Shared subscriptions get none.
    pub(super) fn replay_retained(
        &mut self,
        key: SessionKey,
        filter: TopicFilter<'_>,
        options: SubscriptionOptions,
        id: Option<u32>,
        added: Added,
    ) {
        let wanted = match options.retain_handling {
            RetainHandling::Send => true,
            RetainHandling::SendIfNew => added == Added::New || defect!(RetainedAgain),
            RetainHandling::DoNotSend => defect!(RetainedUnwanted),
        };
        if !wanted || defect!(RetainedMissing) || filter.shared().is_some() {
            return;
        }
        let number = self.next_replay();
        let far = self.new_far_replay(key, number);
        if far.is_none() && !self.router.may_match_retained(filter.as_str()) {
            return;
        }
        let ids = SubscriptionIds::new(id);
        let Some(session) = self.sessions.get_mut(key as usize) else { return };
        if session.local.is_some() && far.is_none() {
            self.replay_locally(key, filter, options.qos, &ids);
            return;
        }
        let mut left = StoredReplay::default();
        if far.is_none() {
            left.until.push(MessageId(self.retained_writes));
        }
        let (qos, noted) = (options.qos, session.stored);
        let filter = filter.as_str().into();
        let replay = Replay { number, filter, left, noted, found: None, next: 0, qos, ids, far };
        if noted {
            self.journal.op(replay.to_stored(session.id));
        }
        session.replays.push(replay);
        if let Some(link) = session.link {
            self.queue_flush(link);
        }
    }

    /// They are numbered for all sessions together.
    pub(super) const fn next_replay(&mut self) -> u64 {
        self.last_replay += 1;
        self.last_replay
    }

    fn replay_locally(&mut self, key: SessionKey, filter: TopicFilter<'_>, qos: QoS, ids: &SubscriptionIds) {
        for message in self.router.retained_matching(filter.as_str()) {
            if let Some(held) = self.messages.get(message)
                && !held.is_expired(self.now)
            {
                let (qos, size) = (delivery_qos(held.qos, qos), held.size());
                let ids = ids.clone();
                self.enqueue(
                    key,
                    &mut Delivery { message, group: None, qos, retain: true, entry: None, ids },
                    size,
                );
            }
        }
    }

    /// An expired retained message is none any more.
    pub(super) fn forget_retained(&mut self, key: MessageKey) {
        let Some(held) = self.messages.get_mut(key).filter(|held| held.retained_at() != 0) else { return };
        held.set_retained_at(0);
        self.forget_origin(key);
        let Some(held) = self.messages.get(key) else { return };
        let topic = held.topic_str();
        self.router.retain(topic, None);
        if self.journal.is_on() && !super::sys::is_own(topic.as_bytes()) {
            self.journal.op(StoreOp::DeleteRetained(topic.into()));
        }
        self.release_message(key);
    }

    /// Ends the replay for a subscription that was given back.
    pub(super) fn cancel_replay(&mut self, key: SessionKey, filter: TopicFilter<'_>) {
        let Some(session) = self.sessions.get_mut(key as usize) else { return };
        if session.replays.is_empty() {
            return;
        }
        let gone = session.replays.take(filter.as_str());
        if session.stored && !gone.is_empty() {
            let filter = filter.as_str().into();
            self.journal.op(StoreOp::DeleteReplay { session: session.id, filter });
        }
        gone.into_iter().for_each(|replay| self.release_replay(replay));
    }

    pub(super) fn release_replay(&mut self, replay: Replay) {
        for &message in replay.found.unwrap_or_default().get(replay.next..).unwrap_or_default() {
            self.release_message(message);
        }
        if let Some(far) = replay.far {
            self.release_far_replay(replay.number, *far);
        }
    }
}

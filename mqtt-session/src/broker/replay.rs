//! Retained messages for new subscriptions: a cursor in the session, outside the queue's limit.

use super::delivery_qos;
use super::message::MessageKey;
use super::router::{Added, SessionKey, SubscriptionIds};
use super::session::{Delivery, Replay};
use super::{Broker, defect};
use crate::StoreOp;
use crate::store::MessageId;
use alloc::vec::Vec;
use mqtt_proto::{QoS, RetainHandling, SubscriptionOptions, TopicFilter};

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
        let far = self.new_far_replay(key);
        if self.router.retained() == 0 && far.is_none() {
            return;
        }
        let ids = SubscriptionIds::new(id);
        let Some(session) = self.sessions.get_mut(key as usize) else { return };
        if session.local.is_some() && far.is_none() {
            self.replay_locally(key, filter, options.qos, &ids);
            return;
        }
        // With other shards, the marks tell what comes live.
        let until = if far.is_some() { u64::MAX } else { self.retained_writes };
        if session.stored {
            self.journal.op(StoreOp::PutReplay {
                session: session.id,
                filter: filter.as_str().into(),
                after: MessageId(0),
                until: MessageId(until),
            });
        }
        let filter = filter.as_str().into();
        let qos = options.qos;
        session.replays.push_back(Replay { filter, after: 0, until, found: None, next: 0, qos, ids, far });
        if let Some(link) = session.link {
            self.queue_flush(link);
        }
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
                    Delivery { message, group: None, qos, retain: true, entry: None, ids },
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
        let replays = core::mem::take(&mut session.replays);
        let (gone, kept): (Vec<_>, Vec<_>) = replays.into_iter().partition(|r| &*r.filter == filter.as_str());
        session.replays = kept.into();
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
            self.release_far_replay(*far);
        }
    }
}

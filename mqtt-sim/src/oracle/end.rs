//! What is to be true from time to time, and at the end.

use super::{Oracle, SLACK, matches, shared};
use crate::wire::MessageId;
use mqtt_proto::{QoS, RetainHandling};
use std::collections::BTreeMap;

impl Oracle {
    /// Whether anything is overdue.
    ///
    /// # Errors
    /// If a will did not come.
    pub fn check(&mut self, now: u64) -> Result<(), String> {
        if let Some(due) = self.early.first() {
            return Err(format!("the will of {} came {} us early", due.client, due.at.saturating_sub(now)));
        }
        if self.wills_may_fail {
            return Ok(());
        }
        match self.dues.iter().find(|due| !due.maybe && due.at + SLACK + self.tick < now) {
            Some(due) => Err(format!("the will of {} was due at {} us and did not come", due.client, due.at)),
            None => Ok(()),
        }
    }

    /// How many deliveries are owed.
    #[must_use]
    pub fn owed(&self) -> usize {
        self.sessions.values().map(|session| session.owed.len()).sum::<usize>() + self.owed_groups.len()
    }

    /// What must hold once everything has settled: what is owed and did not come was dropped and told.
    ///
    /// # Errors
    /// Names what was lost.
    pub fn settle(&self, dropped: u64) -> Result<(), String> {
        let mut missing = 0;
        for (client, session) in &self.sessions {
            let lost: Vec<&MessageId> = session.owed.iter().collect();
            missing += lost.len() as u64;
            // Drops are told at each power of two.
            let told = session.dropped_before + session.dropped.saturating_mul(2).saturating_sub(1);
            if lost.len() as u64 > told {
                return Err(format!(
                    "{client} lost {} messages of which {} were told: {}...",
                    lost.len(),
                    session.dropped,
                    lost[0]
                ));
            }
        }
        missing += self.owed_groups.len() as u64;
        self.settle_retained()?;
        if missing > dropped {
            let first = self.owed_groups.keys().next();
            return Err(format!("{missing} messages are lost, {dropped} were counted; {first:?}"));
        }
        Ok(())
    }

    /// Whoever subscribed and asked for what is retained has it, if it is retained still.
    fn settle_retained(&self) -> Result<(), String> {
        for (client, session) in self.sessions.iter().filter(|(_, s)| s.judged && !s.shares && !s.foggy) {
            if session.dropped + session.dropped_before > 0 {
                continue;
            }
            let wanting = session.granted.iter().filter(|(filter, subscription)| {
                let options = &subscription.options;
                let sends = options.retain_handling == RetainHandling::Send && !options.no_local;
                sends && options.qos > QoS::AtMostOnce && shared(filter).is_none()
            });
            for (filter, _) in wanting {
                let sure = self
                    .retained
                    .iter()
                    .filter(|(topic, _)| self.rivals.get(*topic).is_none_or(|rivals| rivals.len() < 2));
                let missing = sure.into_iter().find_map(|(topic, id)| {
                    let id = id.filter(|id| !session.got.contains_key(id) && matches(filter, topic))?;
                    let message = self.messages.get(&id)?;
                    let lasts = message.qos > QoS::AtMostOnce && message.expiry.is_none();
                    (lasts && message.settled).then_some(id)
                });
                if let Some(id) = missing {
                    return Err(format!("{client} has {filter} and not the retained {id} [MQTT-3.3.1-9]"));
                }
            }
        }
        Ok(())
    }

    /// The retained message of each topic that had one: the last that was routed.
    #[must_use]
    pub const fn retained(&self) -> &BTreeMap<String, Option<MessageId>> {
        &self.retained
    }

    /// Whether this can be what is retained under the topic.
    #[must_use]
    pub fn may_be_retained(&self, topic: &str, have: Option<MessageId>) -> bool {
        let expires = |id: MessageId| self.messages.get(&id).is_some_and(|message| message.expiry.is_some());
        self.retained.get(topic).copied().flatten() == have
            || self.rivals.get(topic).is_some_and(|rivals| {
                rivals.iter().any(|(_, id)| *id == have || have.is_none() && id.is_some_and(expires))
            })
    }
}

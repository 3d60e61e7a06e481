//! What reached subscribers: whether it was for them, and in the right way.

use super::{Got, Oracle, SLACK, matches, shared};
use crate::options::number_of;
use crate::wire::{MessageId, Seen};
use mqtt_proto::QoS;
use std::collections::BTreeSet;

impl Oracle {
    /// A PUBLISH with a lifetime left the broker for a subscriber.
    ///
    /// # Errors
    /// If the lifetime is not what is left of it.
    pub fn forwarded(&self, now: u64, seen: &Seen) -> Result<(), String> {
        let Some(message) = seen.message.and_then(|id| self.messages.get(&id)) else { return Ok(()) };
        let Some(given) = message.expiry else { return Ok(()) };
        let Some(left) = seen.expiry else { return Err("the lifetime was left out".into()) };
        // A clock that went back gives back what it went.
        let rewound = self.rewound.div_ceil(1_000_000);
        // It may have come again since a crash, with its lifetime as new.
        let once = message.routed == 1 && self.crashes == 0;
        if seen.qos == QoS::AtMostOnce && once && now > message.ends_at_last.saturating_add(SLACK) {
            let late = now - message.ends_at_last;
            return Err(format!("sent {late} us after its lifetime [MQTT-3.3.2-5]"));
        }
        if u64::from(left) > u64::from(given) + rewound {
            return Err(format!("a lifetime of {given} s grew to {left} s"));
        }
        if u64::from(left) * 1_000_000 + SLACK < message.ends.saturating_sub(now) {
            return Err(format!("of a lifetime of {given} s only {left} s are left too early"));
        }
        Ok(())
    }

    /// A subscriber's application got a message by a link that the broker has given up: nothing can be
    /// said against it, and it need not come again.
    pub fn delivered_late(&mut self, client: &str, payload: &[u8]) {
        let (Some(session), Some(id)) = (self.sessions.get_mut(client), MessageId::of(payload)) else {
            return;
        };
        session.owed.remove(&id);
        session.got.entry(id).or_default();
    }

    /// A subscriber's application got a message.
    ///
    /// # Errors
    /// If it must not have.
    pub fn delivered(
        &mut self,
        client: &str,
        topic: &str,
        payload: &[u8],
        qos: QoS,
        (dup, retain): (bool, bool),
        numbers: Option<&[u32]>,
    ) -> Result<(), String> {
        self.counts.delivered += 1;
        let Some(session) = self.sessions.get_mut(client) else { return Ok(()) };
        let wanted = session.asked.iter().any(|filter| matches(shared(filter).unwrap_or(filter), topic));
        if !wanted && !session.foggy {
            return Err(format!("{client} got {topic}, which it never asked for"));
        }
        let mut may_be_retained = session.replays.keys().chain(&session.flagged);
        if retain && !session.foggy && !may_be_retained.any(|f| matches(shared(f).unwrap_or(f), topic)) {
            return Err(format!("{client} got {topic} as retained and did not want it [MQTT-3.3.1-10]"));
        }
        // Retained messages have them as well.
        if let Some(numbers) = numbers.filter(|_| !session.foggy) {
            let asked = session.asked.iter().filter(|f| matches(shared(f).unwrap_or(f), topic));
            let asked: BTreeSet<u32> = asked.map(|filter| number_of(filter)).collect();
            if numbers.is_empty() || !numbers.iter().all(|number| asked.contains(number)) {
                return Err(format!("{client} got {topic} for {numbers:?} of {asked:?} [MQTT-3.3.4-3]"));
            }
        }
        let Some(id) = MessageId::of(payload) else { return Ok(()) };
        let Some(message) = self.messages.get(&id) else {
            return Err(format!("{client} got {id} from nowhere"));
        };
        if message.topic != topic {
            return Err(format!("{client} got {id} under {topic} instead of {}", message.topic));
        }
        if message.routed == 0 && !message.retain {
            return Err(format!("{client} got {id} before it was routed"));
        }
        if qos > message.qos {
            return Err(format!("{client} got {id} at QoS {}", qos.as_u8()));
        }
        session.owed.remove(&id);
        let first = !session.got.contains_key(&id);
        let Got { fresh, twice, replayed } = session.got.entry(id).or_default();
        if session.shares {
            let groups: Vec<String> = session
                .asked
                .iter()
                .filter(|filter| shared(filter).is_some_and(|inner| matches(inner, topic)))
                .cloned()
                .collect();
            for group in &groups {
                self.owed_groups.remove(&(group.clone(), id));
                self.takers.entry((group.clone(), id)).or_default().insert(client.into());
            }
            *twice += u32::from(qos == QoS::ExactlyOnce);
            if *twice > groups.len() as u32 && !message.may_repeat {
                return Err(format!("{client} got {id} at QoS 2 {twice} times from {} groups", groups.len()));
            }
            return Ok(());
        }
        // Its subscriptions are known, and were granted before the message came.
        let mut granted = session.granted.iter().filter(|(filter, _)| matches(filter, topic)).peekable();
        let since = session.granted.values().map(|subscription| subscription.since).max();
        let is_live = granted.peek().is_some()
            && session.asked.iter().all(|filter| session.granted.contains_key(filter))
            && !session.foggy
            && self.crashes == 0
            && message.arrived.zip(since).is_some_and(|(arrived, since)| arrived > since);
        if is_live {
            let granted: Vec<_> = granted.collect();
            if let Some(numbers) = numbers {
                let known = granted.iter().map(|(filter, _)| number_of(filter));
                let known: BTreeSet<u32> = known.collect();
                if numbers.is_empty() || !numbers.iter().all(|number| known.contains(number)) {
                    return Err(format!("{client} got {id} for {numbers:?} of {known:?} [MQTT-3.3.4-3]"));
                }
            }
            let options: Vec<_> = granted.into_iter().map(|(_, subscription)| subscription.options).collect();
            if retain && options.iter().all(|options| !options.retain_as_published) {
                return Err(format!("{client} got {id} live with the retain flag [MQTT-3.3.1-12]"));
            }
            if options.iter().all(|options| qos > options.qos) {
                return Err(format!("{client} got {id} at QoS {} and asked for less", qos.as_u8()));
            }
            let own = client == format!("c{}", id.node);
            if own && options.iter().all(|options| options.no_local) {
                return Err(format!("{client} got its own {id} against No Local [MQTT-3.8.3-3]"));
            }
        }
        // What is retained also comes with each new subscription, once with each, whatever crashes in between.
        if retain || message.retain {
            *replayed += u32::from(retain && qos == QoS::ExactlyOnce);
            // What arrived after SUBACK came live.
            let (arrived, answering) = (message.arrived.unwrap_or(0), self.answering);
            let requests = session.replays.iter().filter(|(filter, _)| matches(filter, topic));
            let requests = requests.flat_map(|(_, granted)| granted);
            let rights = requests.filter(|granted| granted.is_none_or(|at| at + answering >= arrived));
            let rights = u32::try_from(rights.count()).unwrap_or(u32::MAX);
            let is_flagged = session.flagged.iter().any(|filter| matches(filter, topic));
            if *replayed > rights && !is_flagged && !message.may_repeat {
                return Err(format!("{client} got the retained {id} {replayed} times for {rights} requests"));
            }
            return Ok(());
        }
        *fresh += u32::from(!dup);
        *twice += u32::from(qos == QoS::ExactlyOnce);
        if *twice > 1 && !message.may_repeat {
            return Err(format!("{client} got {id} at QoS 2 {twice} times [MQTT-4.3.3-2]"));
        }
        // A QoS 1 message whose identifier was not stored is new after a crash.
        if *fresh > message.routed + self.crashes {
            return Err(format!("{client} got {id} {fresh} times, it was routed {} times", message.routed));
        }
        // Refused or dropped the first time and taken the second, it comes behind later ones.
        let dropped = message.routed > 1 && session.dropped + session.dropped_before > 0;
        // So does one that it was not subscribed to when it came first.
        let missed = message.routed > 1
            && !session.granted.iter().any(|(filter, subscription)| {
                matches(filter, topic) && message.arrived.is_some_and(|arrived| subscription.since < arrived)
            });
        if first && !message.may_repeat && !session.foggy && !self.refusals && !dropped && !missed {
            let key = (id.node, message.topic.clone(), message.qos, qos);
            let newest = session.newest.entry(key).or_default();
            if *newest > id.number {
                return Err(format!("{client} got {id} after m{}.{newest} [MQTT-4.6.0-6]", id.node));
            }
            *newest = id.number;
        }
        Ok(())
    }
}

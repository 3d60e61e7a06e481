//! What was published, acknowledged, routed and delivered, and what the standard makes of it.
//!
//! The model knows nothing of how the broker works. It learns *when* things happened from the wire and
//! from the broker's events, and judges *whether* they were right. Where the moment matters and is not
//! known to the microsecond (a subscription that was asked for and not granted yet, a session about to
//! expire), nothing is demanded.

mod crash;
mod delivery;
mod end;

use crate::wire::{MessageId, Seen};
use mqtt_proto::{PacketType, QoS, RetainHandling, SubscriptionOptions, TopicFilter, TopicName};
use mqtt_session::store::SessionId;
use std::collections::{BTreeMap, BTreeSet};

/// How far the clocks of the model and the machine may be apart, beyond the timers' tick: inputs are
/// given times that are up to two seconds old.
const SLACK: u64 = 3_000_000;

/// A message.
#[derive(Clone, Debug)]
pub struct Message {
    /// Its topic.
    pub topic: String,
    /// At which it was published.
    pub qos: QoS,
    /// Whether it is retained.
    pub retain: bool,
    /// Its lifetime in seconds.
    pub expiry: Option<u32>,
    /// When it reached the broker first.
    pub arrived: Option<u64>,
    /// When it expires, by what it said of its lifetime when it arrived; the earliest if it came again: what came
    /// first may have been cut off before it was looked at.
    ends: u64,
    /// And the latest.
    ends_at_last: u64,
    /// How often the broker took it, and how often it had when it arrived last.
    pub routed: u32,
    routed_before: u32,
    /// Its publisher lost its session while the message was under way: it may come twice.
    pub may_repeat: bool,
    /// Its publisher was told what became of it.
    pub done: bool,
    /// Sessions that must get it if it is acknowledged: who, which incarnation, granted since.
    candidates: Vec<(String, u64, u64)>,
    groups: Vec<String>,
    settled: bool,
    settled_at: u64,
    /// The broker crashed while it was under way, and may have taken it before.
    maybe_taken: bool,
    /// The broker's own subscriber saw it.
    told: bool,
}

#[derive(Clone, Debug)]
struct Subscription {
    options: SubscriptionOptions,
    since: u64,
}

/// How often a session got a message.
#[derive(Debug, Default)]
struct Got {
    /// Without DUP.
    fresh: u32,
    /// At QoS 2.
    twice: u32,
    /// At QoS 2, as one that is retained.
    replayed: u32,
}

/// A client's session at the broker.
#[derive(Debug, Default)]
struct Session {
    incarnation: u64,
    /// The broker has it for a client machine that is checked.
    judged: bool,
    shares: bool,
    connected: bool,
    exists: bool,
    ends_at: u64,
    expiry: u32,
    /// The last `DISCONNECT`: reason and expiry.
    goodbye: Option<(u8, Option<u32>)>,
    will: Option<u32>,
    will_node: usize,
    granted: BTreeMap<String, Subscription>,
    asked: BTreeSet<String>,
    /// Filters that have had a right to what is retained: when the requests for it were granted. And those that keep the
    /// retain flag.
    replays: BTreeMap<String, Vec<Option<u64>>>,
    flagged: BTreeSet<String>,
    /// The identifier of the last request about a filter: an earlier answer says nothing.
    latest: BTreeMap<String, u16>,
    owed: BTreeSet<MessageId>,
    got: BTreeMap<MessageId, Got>,
    newest: BTreeMap<(usize, String, QoS, QoS), u64>,
    dropped: u64,
    /// What it may have lost before the last crash.
    dropped_before: u64,
    /// The store group that its last change is part of.
    changed: u64,
    /// The one that its present connection is part of.
    connected_by: u64,
    /// When it lost its connection.
    lost_at: u64,
    /// The store group that tells so, if it is one of a restart.
    lost_by: u64,
    /// A crash undid something about it: what it is like is not known.
    foggy: bool,
}

/// A will that is due at a time unless its client comes back.
#[derive(Clone, Debug)]
struct Due {
    client: String,
    node: usize,
    at: u64,
    delay: u64,
    /// It was set with this store group.
    set_by: u64,
    /// It may have come before a crash, or have been withdrawn.
    maybe: bool,
}

/// The model.
#[derive(Debug, Default)]
pub struct Oracle {
    messages: BTreeMap<MessageId, Message>,
    sessions: BTreeMap<String, Session>,
    owed_groups: BTreeMap<(String, MessageId), ()>,
    takers: BTreeMap<(String, MessageId), BTreeSet<String>>,
    dues: Vec<Due>,
    /// Wills that came before their time: right only if their session ended at this moment.
    early: Vec<Due>,
    /// Whose wills came, with which store groups.
    fired: Vec<(String, u64)>,
    /// Whose wills are whose in the store, and with which groups they left it.
    will_owners: BTreeMap<SessionId, String>,
    gone_wills: Vec<(String, u64)>,
    crashes: u32,
    /// How far the broker's clock went back over crashes.
    rewound: u64,
    retained: BTreeMap<String, Option<MessageId>>,
    /// Those before it that were under way at the same time, so that the order may have been another.
    rivals: BTreeMap<String, Vec<(u64, Option<MessageId>)>>,
    /// For how long a retained message may be under way, in microseconds.
    pub overlap: u64,
    /// So long after SUBACK a crash may make the broker forget what came live since, in microseconds.
    pub answering: u64,
    /// Wills are asked about, and may be refused.
    pub wills_may_fail: bool,
    /// Timers may be this late.
    pub tick: u64,
    /// Longest life of a session.
    pub max_expiry: u32,
    /// Publishes may be refused and, below 5.0, acknowledged all the same.
    pub refusals: bool,
    /// Deliveries made, acknowledged publishes, and wills: what the run was worth.
    pub counts: Counts,
}

/// What a run was worth.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Messages handed to subscribers.
    pub delivered: u64,
    /// Messages that publishers were told are safe.
    pub acknowledged: u64,
    /// Deliveries that were demanded.
    pub demanded: u64,
    /// Wills published.
    pub wills: u64,
    /// Sessions resumed.
    pub resumed: u64,
    /// Take-overs.
    pub taken_over: u64,
    /// Crashes of the broker.
    pub broker_crashes: u64,
    /// Messages that restarts delivered from shard to shard.
    pub handed_over: u64,
    /// Crashes of clients.
    pub client_crashes: u64,
    /// Links cut, store failures, dials that failed.
    pub faults: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.delivered += other.delivered;
        self.acknowledged += other.acknowledged;
        self.demanded += other.demanded;
        self.wills += other.wills;
        self.resumed += other.resumed;
        self.taken_over += other.taken_over;
        self.broker_crashes += other.broker_crashes;
        self.handed_over += other.handed_over;
        self.client_crashes += other.client_crashes;
        self.faults += other.faults;
    }
}

fn matches(filter: &str, topic: &str) -> bool {
    match (TopicFilter::new(filter), TopicName::new(topic)) {
        (Ok(filter), Ok(topic)) => filter.matches(topic),
        _ => false,
    }
}

fn shared(filter: &str) -> Option<&str> {
    filter.strip_prefix("$share/")?.split_once('/').map(|(_, rest)| rest)
}

impl Oracle {
    /// A client machine that is checked.
    pub fn add_client(&mut self, client: &str, node: usize, shares: bool) {
        let session = self.sessions.entry(client.into()).or_default();
        (session.judged, session.shares, session.will_node) = (true, shares, node);
    }

    /// A node published.
    pub fn published(
        &mut self,
        id: MessageId,
        topic: &str,
        qos: QoS,
        retain: bool,
        expiry: Option<u32>,
        twin: bool,
    ) {
        let message = Message {
            topic: topic.into(),
            qos,
            retain,
            expiry,
            arrived: None,
            ends: u64::MAX,
            ends_at_last: 0,
            routed: 0,
            routed_before: 0,
            may_repeat: twin,
            done: false,
            candidates: Vec::new(),
            groups: Vec::new(),
            settled: false,
            settled_at: 0,
            maybe_taken: false,
            told: false,
        };
        self.messages.insert(id, message);
    }

    /// Nothing is demanded for this client any more.
    pub fn unjudge(&mut self, client: &str) {
        if let Some(session) = self.sessions.get_mut(client) {
            session.judged = false;
            session.owed.clear();
            let asked = session.asked.clone();
            self.owed_groups.retain(|(group, _), ()| !asked.contains(group));
        }
    }

    /// A node heard what became of its message.
    ///
    /// # Errors
    /// If it heard that before, or was told that a message is safe that never arrived.
    pub fn done(&mut self, id: MessageId, safe: bool) -> Result<(), String> {
        let refusals = self.refusals;
        let Some(message) = self.messages.get_mut(&id) else { return Ok(()) };
        if std::mem::replace(&mut message.done, true) {
            return Err(format!("{id} is done twice"));
        }
        if safe {
            self.counts.acknowledged += 1;
            if message.routed == 0 && !refusals && !message.maybe_taken {
                return Err(format!("{id} is acknowledged and was never routed"));
            }
        }
        Ok(())
    }

    /// PUBLISH reached the broker.
    pub fn arrived(&mut self, now: u64, publisher: &str, seen: &Seen) {
        let Some(id) = seen.message else { return };
        let Some(message) = self.messages.get_mut(&id) else { return };
        let ends = seen.expiry.map_or(u64::MAX, |left| now + u64::from(left) * 1_000_000);
        message.ends = message.ends.min(ends);
        message.ends_at_last = message.ends_at_last.max(ends);
        // What came first is what a QoS 2 message was routed by.
        if message.settled || message.qos == QoS::ExactlyOnce && message.arrived.is_some() {
            return;
        }
        let (mut candidates, mut groups): (Vec<_>, BTreeSet<String>) = Default::default();
        let message = message.clone();
        if message.qos > QoS::AtMostOnce {
            for (client, session) in self.sessions.iter().filter(|(_, session)| session.judged) {
                let wanted = session.granted.iter().filter(|(_, subscription)| {
                    subscription.options.qos > QoS::AtMostOnce
                        && !(subscription.options.no_local && client == publisher)
                });
                for (filter, subscription) in wanted {
                    if let Some(inner) = shared(filter) {
                        if matches(inner, &message.topic) {
                            groups.insert(filter.clone());
                        }
                    } else if matches(filter, &message.topic) && session.is_safe(now) {
                        candidates.push((client.clone(), session.incarnation, subscription.since));
                    }
                }
            }
        }
        groups.retain(|group| self.is_safe_group(group, now));
        if let Some(message) = self.messages.get_mut(&id) {
            message.arrived = message.arrived.or(Some(now));
            message.candidates = candidates;
            message.groups = groups.into_iter().collect();
            message.routed_before = message.routed;
        }
    }

    /// Somebody has asked for it, and all who have are there to stay and take it above QoS 0.
    fn is_safe_group(&self, filter: &str, now: u64) -> bool {
        let mut members = self.sessions.values().filter(|session| session.asked.contains(filter)).peekable();
        // Of a group whose last session has ended nothing is left.
        members.peek().is_some()
            && members.all(|session| {
                session.judged
                    && session.is_safe(now)
                    && session.expiry > 3_600
                    && session.granted.get(filter).is_some_and(|s| s.options.qos > QoS::AtMostOnce)
            })
    }

    /// The broker acknowledged a PUBLISH with success: who was subscribed all the time is owed it.
    pub fn acknowledged(&mut self, now: u64, id: MessageId) {
        let Some(message) = self.messages.get_mut(&id) else { return };
        // Below 5.0 what is refused is acknowledged all the same, also if it was taken before.
        if message.settled || message.routed == 0 || self.refusals && message.routed == message.routed_before
        {
            return;
        }
        message.settled = true;
        message.settled_at = now;
        let message = message.clone();
        for (client, incarnation, since) in &message.candidates {
            let Some(session) = self.sessions.get_mut(client) else { continue };
            let still = session
                .granted
                .iter()
                .any(|(filter, s)| s.since == *since && matches(filter, &message.topic));
            let has = session.got.contains_key(&id);
            // Of one that lost track meanwhile, nothing can be demanded.
            if session.incarnation == *incarnation && session.is_safe(now) && still && session.judged {
                self.counts.demanded += 1;
                if !has {
                    session.owed.insert(id);
                }
            }
        }
        for group in &message.groups {
            let taken = self.takers.contains_key(&(group.clone(), id));
            if self.is_safe_group(group, now) {
                self.counts.demanded += 1;
                if !taken {
                    self.owed_groups.insert((group.clone(), id), ());
                }
            }
        }
    }

    /// The broker's own subscriber saw a message: it was routed at this moment.
    ///
    /// # Errors
    /// If it was routed too often, or a will was not due.
    pub fn routed(
        &mut self,
        now: u64,
        topic: &str,
        payload: &[u8],
        retain: bool,
        group: u64,
    ) -> Result<(), String> {
        if let Some(node) = topic.strip_prefix("will/n").and_then(|n| n.parse::<usize>().ok()) {
            self.counts.wills += 1;
            let due = |sure: bool, by: u64| {
                self.dues.iter().position(|due| due.node == node && due.maybe != sure && due.at <= by)
            };
            let found = due(true, now + SLACK).or(due(false, u64::MAX)).or(due(true, u64::MAX));
            let Some(found) = found else { return Err(format!("the will of c{node} is not due")) };
            let due = self.dues.remove(found);
            if due.maybe {
                // It may have been a later one as well, whose session ends at this moment.
                self.dues.iter_mut().filter(|other| other.node == node).for_each(|other| other.maybe = true);
            }
            self.fired.push((due.client.clone(), group));
            if due.at > now + SLACK && !due.maybe {
                self.early.push(due);
            }
            return Ok(());
        }
        let id = MessageId::of(payload);
        if retain {
            let kept = id.filter(|_| !payload.is_empty());
            self.retained.insert(topic.into(), kept);
            let rivals = self.rivals.entry(topic.into()).or_default();
            rivals.retain(|(at, _)| at + self.overlap > now);
            rivals.push((now, kept));
        }
        let Some(id) = id else { return Ok(()) };
        let Some(message) = self.messages.get_mut(&id) else {
            return Err(format!("{id} was routed and never published"));
        };
        message.routed += 1;
        message.told = true;
        if message.topic != topic {
            return Err(format!("{id} was published to {} and routed to {topic}", message.topic));
        }
        if message.routed > 1 && message.qos != QoS::AtLeastOnce && !message.may_repeat {
            return Err(format!("{id} at QoS {} was routed twice", message.qos.as_u8()));
        }
        Ok(())
    }

    /// CONNECT was accepted.
    ///
    /// # Errors
    /// If a session is told to be there that is not, or the reverse.
    pub fn connected(
        &mut self,
        now: u64,
        client: &str,
        connect: &Seen,
        present: bool,
        node: usize,
    ) -> Result<(), String> {
        let slack = SLACK + self.tick;
        let session = self.sessions.entry(client.into()).or_default();
        if session.connected {
            return Err(format!("{client} is connected twice"));
        }
        let near = session.ends_at != u64::MAX && session.ends_at.abs_diff(now) <= slack;
        let alive = session.exists && session.ends_at > now;
        if (!near && !session.foggy) || connect.flag {
            let expected = alive && !connect.flag;
            if present != expected {
                return Err(format!("{client}: session present is {present}, expected {expected}"));
            }
        }
        session.connected = true;
        session.lost_by = 0;
        session.exists = true;
        session.ends_at = u64::MAX;
        session.expiry = match (connect.version.is_v5(), connect.flag) {
            (true, _) => connect.session_expiry.unwrap_or(0),
            (false, true) => 0,
            (false, false) => u32::MAX,
        }
        .min(self.max_expiry);
        session.goodbye = None;
        session.will = connect.will;
        if present {
            self.counts.resumed += 1;
            // [MQTT-3.1.3-9], unless it was due already.
            if self.dues.iter().filter(|due| due.client == client).count() > 1 {
                // One may be that of an earlier session, which nothing takes back.
                self.dues.iter_mut().filter(|due| due.client == client).for_each(|due| due.maybe = true);
            } else {
                self.dues.retain(|due| due.client != client || due.at <= now);
            }
        } else {
            session.incarnation += 1;
            session.granted.clear();
            session.replays.clear();
            session.flagged.clear();
            session.owed.clear();
            session.got.clear();
            session.newest.clear();
            (session.dropped, session.dropped_before, session.foggy) = (0, 0, false);
            let asked = std::mem::take(&mut session.asked);
            self.owed_groups.retain(|(group, _), ()| !asked.contains(group));
            // The old session is gone: its will fires at the latest now.
            self.early.retain(|due| due.client != client);
            for due in self.dues.iter_mut().filter(|due| due.client == client) {
                due.at = due.at.min(now);
            }
            {
                for (_, message) in self
                    .messages
                    .range_mut(MessageId { node, number: 0 }..MessageId { node: node + 1, number: 0 })
                {
                    message.may_repeat |= !message.done;
                }
            }
        }
        Ok(())
    }

    /// DISCONNECT reached the broker.
    pub fn goodbye(&mut self, client: &str, seen: &Seen) {
        if let Some(session) = self.sessions.get_mut(client) {
            session.goodbye = Some((seen.reason, seen.session_expiry));
        }
    }

    /// A link ended at the broker; `by_client` tells that the broker took the client's DISCONNECT.
    pub fn disconnected(&mut self, now: u64, client: &str, by_client: bool, taken_over: bool) {
        let max = self.max_expiry;
        self.counts.taken_over += u64::from(taken_over);
        let Some(session) = self.sessions.get_mut(client) else { return };
        session.connected = false;
        session.lost_at = now;
        let mut will = session.will.take();
        if let (true, Some((reason, expiry))) = (by_client, session.goodbye) {
            if reason != 4 {
                will = None;
            }
            if let Some(expiry) = expiry {
                session.expiry = expiry.min(max);
            }
        }
        session.ends_at =
            if session.expiry == u32::MAX { u64::MAX } else { now + u64::from(session.expiry) * 1_000_000 };
        if session.expiry == 0 {
            session.exists = false;
        }
        if let Some(delay) = will {
            let delay = u64::from(delay) * 1_000_000;
            let at = (now + delay).min(session.ends_at);
            let (node, set_by) = (session.will_node, session.connected_by);
            self.dues.push(Due { client: client.into(), node, at, delay, set_by, maybe: false });
        }
    }

    /// SUBSCRIBE or UNSUBSCRIBE reached the broker: until it is answered nothing is demanded.
    pub fn asked(&mut self, now: u64, client: &str, seen: &Seen) {
        let Some(session) = self.sessions.get_mut(client) else { return };
        for (filter, options) in &seen.filters {
            // What is still on its way from another shard may find the subscription gone.
            session.owed.retain(|id| {
                self.messages.get(id).is_none_or(|message| {
                    message.settled_at + self.overlap <= now || !matches(filter, &message.topic)
                })
            });
            let there = session.granted.remove(filter).is_some() && !session.foggy;
            if seen.kind == PacketType::Subscribe {
                let replays = match options.retain_handling {
                    RetainHandling::Send => true,
                    RetainHandling::SendIfNew => !there,
                    RetainHandling::DoNotSend => false,
                };
                if replays && shared(filter).is_none() {
                    session.replays.entry(filter.clone()).or_default().push(None);
                }
                if options.retain_as_published {
                    session.flagged.insert(filter.clone());
                }
            }
            session.asked.insert(filter.clone());
            session.latest.insert(filter.clone(), seen.id);
            self.owed_groups.retain(|(group, _), ()| group != filter);
        }
    }

    /// SUBACK left the broker.
    pub fn granted(&mut self, now: u64, client: &str, request: &Seen, codes: &[u8]) {
        let Some(session) = self.sessions.get_mut(client) else { return };
        for ((filter, options), code) in request.filters.iter().zip(codes) {
            if let Some(qos) = QoS::from_u8(*code)
                && session.latest.get(filter) == Some(&request.id)
            {
                let options = SubscriptionOptions { qos, ..*options };
                if let Some(last) = session.replays.get_mut(filter).and_then(|times| times.last_mut()) {
                    last.get_or_insert(now);
                }
                session.granted.insert(filter.clone(), Subscription { options, since: now });
            }
        }
    }

    /// UNSUBACK left the broker.
    pub fn ungranted(&mut self, client: &str, request: &Seen) {
        let Some(session) = self.sessions.get_mut(client) else { return };
        for (filter, _) in &request.filters {
            session.granted.remove(filter);
        }
    }

    /// The broker told that it dropped messages of a session.
    pub fn dropped(&mut self, client: &str, count: u64) {
        if let Some(session) = self.sessions.get_mut(client) {
            session.dropped = session.dropped.max(count);
        }
    }

    /// The message, if it was published.
    #[must_use]
    pub fn message(&self, id: MessageId) -> Option<&Message> {
        self.messages.get(&id)
    }

    /// Shared QoS 2 messages that more than one member got.
    #[must_use]
    pub const fn takers(&self) -> &BTreeMap<(String, MessageId), BTreeSet<String>> {
        &self.takers
    }
}

impl Session {
    /// It is there, and not about to end.
    const fn is_safe(&self, now: u64) -> bool {
        self.exists && (self.connected || self.ends_at.saturating_sub(now) > SLACK)
    }
}

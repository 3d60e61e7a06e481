//! `$SYS`: the broker's figures as retained messages, with the names that Mosquitto gives them.
//!
//! They are the broker's own: clients may read them as far as their rights go, and publish none. They
//! are never stored, since what they tell is over with the broker.

use super::Broker;
use super::count::{Counters, total};
use super::message::Incoming;
use super::route::Source;
use crate::Timestamp;
use alloc::format;
use alloc::string::{String, ToString};
use core::time::Duration;
use mqtt_proto::{Properties, QoS};

/// A clock that nothing happens beside is stored so rarely.
const IDLE_CLOCK: Duration = Duration::from_secs(3600);

/// What `$SYS` needs beyond the counters.
#[derive(Debug)]
pub(super) struct Sys {
    /// When the topics are looked at next.
    pub(super) due: Timestamp,
    started: Timestamp,
    /// When the loads were last computed, and what was counted then.
    computed: Timestamp,
    counted: Counters,
    loads: [[f64; 3]; 9],
    /// Bytes of memory now, and the most that there ever were, as the adapter tells them.
    memory: Option<(u64, u64)>,
    /// What had been received and stored when the clock was last stored.
    clocked: (u64, u64),
}

/// The name of a load, and what it counts.
type Load = (&'static str, fn(&Counters) -> u64);

const LOADS: [Load; 9] = [
    ("messages/received", |c| c.packets_received),
    ("messages/sent", |c| c.packets_sent),
    ("publish/received", |c| total(&c.publish_received)),
    ("publish/sent", |c| total(&c.publish_sent)),
    ("publish/dropped", |c| c.dropped.total()),
    ("bytes/received", |c| c.bytes_received),
    ("bytes/sent", |c| c.bytes_sent),
    ("sockets", |c| c.connections),
    ("connections", |c| c.connects),
];

/// Over how many seconds they are averaged.
const SPANS: [(&str, f64); 3] = [("1min", 60.0), ("5min", 300.0), ("15min", 900.0)];

impl Sys {
    pub(super) fn new(interval: Option<Duration>, now: Timestamp) -> Self {
        Self {
            due: if interval.is_some() { now } else { Timestamp::MAX },
            started: now,
            computed: now,
            counted: Counters::default(),
            loads: [[0.0; 3]; 9],
            memory: None,
            clocked: (0, 0),
        }
    }

    /// Rates per minute, averaged exponentially.
    fn compute(&mut self, now: Timestamp, counters: Counters) {
        let elapsed = now.since(self.computed).as_secs_f64();
        if elapsed <= 0.0 {
            return;
        }
        for ((_, counted), loads) in LOADS.iter().zip(&mut self.loads) {
            // What is counted in one interval is far below 2^53.
            #[allow(clippy::cast_precision_loss)]
            let rate = counted(&counters).wrapping_sub(counted(&self.counted)) as f64 * 60.0 / elapsed;
            for ((_, span), load) in SPANS.iter().zip(loads) {
                let kept = exp_of_minus(elapsed / span);
                *load = (1.0 - kept) * rate + kept * *load;
            }
        }
        (self.computed, self.counted) = (now, counters);
    }
}

/// e to the power of -x, for x of 0 or more.
fn exp_of_minus(x: f64) -> f64 {
    // By the series for 1/1024 of it, which is then squared ten times. Beyond 64 it is nothing.
    let y = -x.min(64.0) / 1024.0;
    let mut power = 1.0 + y * (1.0 + y / 2.0 * (1.0 + y / 3.0 * (1.0 + y / 4.0 * (1.0 + y / 5.0))));
    for _ in 0..10 {
        power *= power;
    }
    power
}

/// Whether a topic is the broker's own.
pub(super) fn is_own(topic: &[u8]) -> bool {
    topic.strip_prefix(b"$SYS").is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

impl Broker {
    /// How much memory the program uses, in bytes, for `$SYS/broker/heap`: to be told now and then. Without
    /// it these topics are not there.
    pub fn handle_memory(&mut self, now: Timestamp, bytes: u64) {
        self.begin(now);
        let most = self.sys.memory.map_or(bytes, |(_, most)| most.max(bytes));
        self.sys.memory = Some((bytes, most));
        self.finish();
    }

    /// Whether the store is to hear of the clock again: something happened since, or a long time passed.
    pub(super) fn clock_is_news(&mut self) -> bool {
        let seen = (self.counters.bytes_received, self.journal.last().0);
        let Some(last) = self.wall_clock else { return true };
        let idle = seen == self.sys.clocked && self.now.since(last.time) < IDLE_CLOCK;
        last.time != self.now && !idle
    }

    /// The clock has been stored.
    pub(super) fn clock_noted(&mut self) {
        self.sys.clocked = (self.counters.bytes_received, self.journal.last().0);
    }

    /// Publishes what is due.
    pub(super) fn settle_sys(&mut self) {
        let Some(interval) = self.config.sys_interval else { return };
        if self.sys.due > self.now {
            return;
        }
        // At whole multiples, so that a late call does not shift what follows.
        let step = u64::try_from(interval.as_micros()).unwrap_or(u64::MAX).max(1);
        let past = self.now.as_micros() % step;
        self.sys.due = Timestamp::from_micros((self.now.as_micros() - past).saturating_add(step));
        if !self.shutting_down && !self.tells_figures() {
            self.publish_sys();
        }
    }

    fn publish_sys(&mut self) {
        self.counters.most_sessions = self.counters.most_sessions.max(self.clients.len() as u64);
        let stats = self.stats_of_all();
        let (sessions, counters) = (stats.sessions, stats.counters);
        let uptime = self.now.since(self.sys.started).as_secs();
        if let Some(version) = self.config.server_version.clone() {
            self.tell("version", &version);
        }
        self.tell("uptime", &format!("{uptime} seconds"));
        let away = sessions.saturating_sub(stats.connected);
        let figures = [
            ("clients/total", sessions as u64),
            ("clients/maximum", counters.most_sessions),
            ("clients/connected", stats.connected as u64),
            ("clients/active", stats.connected as u64),
            ("clients/disconnected", away as u64),
            ("clients/inactive", away as u64),
            ("clients/expired", counters.sessions_expired),
            ("connections/socket/count", stats.connections as u64),
            ("messages/received", counters.packets_received),
            ("messages/sent", counters.packets_sent),
            ("messages/stored", stats.messages as u64),
            ("store/messages/count", stats.messages as u64),
            ("store/messages/bytes", stats.message_bytes as u64),
            ("publish/messages/received", stats.received),
            ("publish/messages/sent", stats.sent),
            ("publish/messages/dropped", stats.dropped),
            ("publish/bytes/received", counters.payload_received),
            ("publish/bytes/sent", counters.payload_sent),
            ("bytes/received", counters.bytes_received),
            ("bytes/sent", counters.bytes_sent),
            ("packet/out/count", stats.unsent_packets as u64),
            ("packet/out/bytes", stats.unsent_bytes as u64),
            ("subscriptions/count", stats.subscriptions.saturating_sub(stats.shared_subscriptions) as u64),
            ("shared_subscriptions/count", stats.shared_subscriptions as u64),
            ("retained messages/count", stats.retained as u64),
        ];
        for (name, value) in figures {
            self.tell(name, &value.to_string());
        }
        if let Some((now, most)) = self.sys.memory {
            self.tell("heap/current", &now.to_string());
            self.tell("heap/maximum", &most.to_string());
        }
        self.sys.compute(self.now, counters);
        let loads = self.sys.loads;
        for ((name, _), values) in LOADS.iter().zip(loads) {
            for ((span, _), value) in SPANS.iter().zip(values) {
                self.tell(&format!("load/{name}/{span}"), &format!("{value:.2}"));
            }
        }
    }

    /// Publishes a value, if it is not the one that is known.
    fn tell(&mut self, name: &str, value: &str) {
        let topic: String = format!("$SYS/broker/{name}");
        let known = self.router.retained_at(&topic).and_then(|key| self.messages.get(key));
        if known.is_some_and(|held| held.payload() == value.as_bytes()) {
            return;
        }
        let message = Incoming {
            topic: topic.as_bytes(),
            properties: Properties::EMPTY,
            payload: value.as_bytes(),
            // Whoever is away gets the newest on its return, not all that there were.
            qos: QoS::AtMostOnce,
            retain: true,
        };
        let key = self.messages.insert(self.now, &message);
        self.route(key, Source::default());
        self.release_message(key);
    }
}

#[cfg(test)]
mod tests {
    use super::exp_of_minus;

    #[test]
    fn the_exponential_is_one() {
        for (x, expected) in [(0.0, 1.0), (10.0 / 60.0, 0.846_481_724_890_614), (1.0, 0.367_879_441_171_442)]
        {
            assert!((exp_of_minus(x) - expected).abs() < 1e-12, "{x}");
        }
        assert!(exp_of_minus(1e9) < 1e-20);
    }
}

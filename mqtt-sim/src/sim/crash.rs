//! Crashes, and what comes after them.

use super::broker::brief_ops;
use super::{Event, Sim, WATCHED};
use crate::disk::Disk;
use crate::options::Kind;
use mqtt_proto::{QoS, RetainHandling, SubscriptionOptions};
use mqtt_session::broker::{Event as Told, Output, Restoration, Restore};
use mqtt_session::{Client, Durability, StoreOp};

/// What the clock on the wall shows when the world begins, in milliseconds since 1970.
const EPOCH: u64 = 1_700_000_000_000;

impl Sim {
    pub(super) fn unix_ms(&self) -> u64 {
        (EPOCH + self.now / 1_000).saturating_add_signed(self.leapt)
    }

    /// The broker is told the wall clock.
    pub(super) fn look_at_clock(&mut self) {
        self.later(self.options.clock, Event::WallClock);
        if !self.down {
            let (now, unix_ms) = (self.broker_time(), self.unix_ms());
            self.brokers.iter_mut().for_each(|broker| broker.handle_wall_clock(now, unix_ms));
        }
    }

    /// Decides whether the broker crashes in this step, and after which output.
    pub(super) fn draw_crash(&mut self) {
        if !self.down
            && self.options.broker_crashes > 0
            && self.random.range(0..100_000) < self.options.broker_crashes
        {
            self.crash_after.get_or_insert(self.random.pick(&[0, 0, 1, 2, 5]));
        }
    }

    pub(super) fn is_time_to_crash(&mut self) -> bool {
        match &mut self.crash_after {
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        }
    }

    /// The broker is gone; `next` is the output that nobody obeys any more. Its machine knew of all that
    /// it wanted done, so the model hears of that; the store may have got some of it.
    pub(super) fn crash_broker(&mut self, mut next: Option<(usize, Output)>) {
        self.crash_after = None;
        for shard in 0..self.brokers.len() {
            let first = next.take_if(|(of, _)| *of == shard).map(|(_, output)| output);
            let rest: Vec<Output> = std::iter::from_fn(|| self.brokers[shard].poll_output()).collect();
            for output in first.into_iter().chain(rest) {
                match output {
                    Output::Store(seq, group) => self.broker_stores(shard, seq, group),
                    Output::Event(event) => self.told(shard, *event),
                    _ => {}
                }
            }
        }
        self.mail.clear();
        self.handed.clear();
        self.slots.clear();
        for client in std::mem::take(&mut self.changed) {
            self.oracle.changed(&client, self.store.last());
        }
        self.dropped_before += self.stats().dropped;
        self.down = true;
        self.life += 1;
        self.by_conn.clear();
        for link in 0..self.wires.len() {
            self.cut_by_crash(link);
        }
        self.trace.line(self.now, || "--- the broker crashes ---".into());
        let down = self.options.down;
        self.later(down, Event::Restart);
    }

    /// What the socket has taken may still arrive.
    fn cut_by_crash(&mut self, link: usize) {
        let wire = &mut self.wires[link];
        wire.live = false;
        if !std::mem::replace(&mut wire.link.broker_open, false) {
            return;
        }
        (wire.link.hanging_up, wire.link.paused, wire.link.moving) = (false, false, false);
        if self.random.chance(50) {
            wire.link.down.end(self.now, &self.options.network, &mut self.random);
            self.arm(link, false);
        } else {
            let keep = self.random.below(self.wires[link].link.down.held() + 1);
            self.wires[link].link.down.cut(keep);
            let delay = self.random.pick(&[1, 1_000_000, 100_000_000]);
            self.later(delay, Event::Broken { link, at_node: true });
        }
        self.arm(link, true);
    }

    /// The broker starts again, from its store.
    pub(super) fn restart_broker(&mut self) {
        let more = if self.random.chance(50) { self.random.below(self.store.unconfirmed() + 1) } else { 0 };
        let appended =
            |committed: u64, store: &crate::store::Store| store.appended_by(committed).collect::<Vec<_>>();
        let committed = self.store.confirmed + more as u64;
        let taken = appended(committed, &self.store);
        let done = self.store.crash(more);
        if done != committed {
            self.fail(format!("the store has {done} groups instead of {committed}"));
        }
        let leap = self.random.pick(&self.options.leaps);
        self.leapt += leap;
        let stored = self.options.broker.durability != Durability::Off;
        if stored && self.options.reshards && self.random.chance(50) {
            self.options.broker.shards = self.random.pick(&[1, 2, 3, 4]);
        }
        self.numbers.clear();
        self.places.clear();
        self.through = vec![0; usize::from(self.options.broker.shards)];
        let unix_ms = self.unix_ms();
        let (brokers, restored, disk) = loop {
            let disk = Disk::read(&self.store.contents);
            let mut restore =
                Restore::new(self.options.broker.clone()).expect("settings that were good before");
            self.store.contents.records().for_each(|record| restore.record(record));
            let Restoration { shards, first, restored, .. } = restore.finish(unix_ms);
            // It crashes in the middle of that and begins again, now and then.
            let written =
                if self.random.chance(30) { self.random.below(first.len() + 1) } else { first.len() };
            for group in first.iter().take(written) {
                self.trace.line(self.now, || format!("restart: {:?}", brief_ops(group)));
                self.store.write_first(group);
            }
            if written < first.len() {
                self.trace.line(self.now, || format!("--- a restart ends after {written} groups ---"));
                continue;
            }
            // What was handed over to be retained is, now.
            let retained = Disk::read(&self.store.contents).retained;
            break (shards, restored, Disk { retained, ..disk });
        };
        self.oracle.counts.handed_over += restored.handed_over as u64;
        let before = self.broker_time().as_micros();
        self.brokers = brokers;
        self.down = false;
        let now = restored.now.as_micros();
        self.ahead = i64::try_from(i128::from(now) - i128::from(self.now)).expect("short times");
        self.trace.line(self.now, || {
            format!("--- the broker starts with {committed} groups, wall clock +{leap} ms: {restored:?} ---")
        });
        let (dropped, orphans) = (restored.dropped, disk.orphans);
        if dropped < orphans || dropped > orphans + disk.lone_groups {
            let broken = &disk.broken;
            self.fail(format!(
                "{dropped} records were dropped at the restart, {orphans} are bodies: {broken:?}"
            ));
        }
        let steady = self.options.leaps.iter().all(|leap| *leap == 0);
        if steady && self.store.contents.clock().is_some() && now.abs_diff(before) > 2_000 {
            self.fail(format!("broker time went from {before} to {now} over a restart"));
        }
        self.oracle.taken(taken.into_iter());
        if stored {
            let result = self.oracle.crashed(now, before, committed, &disk);
            self.check(result);
        } else {
            self.oracle.emptied(now);
        }
        for (client, (end, _)) in &mut self.ends {
            end.crashed(disk.sessions.get(client).map_or(&[], |session| &session.exchanges));
        }
        // What was on its way to be retained is, now.
        self.subscribe_again(&disk, restored.handed_over == 0);
        if !self.calm && self.random.chance(self.options.restart_crashes) {
            self.crash_after = Some(self.random.pick(&[0, 1, 2, 5]));
        }
    }

    /// The broker's own subscriber is new: it gets the retained messages, which have to be those of the
    /// store.
    fn subscribe_again(&mut self, disk: &Disk, compares: bool) {
        let now = self.broker_time();
        let everything =
            SubscriptionOptions { retain_as_published: true, ..SubscriptionOptions::from(QoS::ExactlyOnce) };
        let mut found = std::collections::BTreeMap::new();
        let mut rest = Vec::new();
        let alone = self.brokers.len() == 1;
        let options = if alone {
            everything
        } else {
            // They would come later, from all shards.
            SubscriptionOptions { retain_handling: RetainHandling::DoNotSend, ..everything }
        };
        for (shard, broker) in self.brokers.iter_mut().enumerate() {
            broker.subscribe(now, WATCHED, options).expect("a filter");
            while let Some(output) = broker.poll_output() {
                match output {
                    Output::Event(event) => match *event {
                        Told::Message { message, .. } if message.retain => {
                            found.insert(message.topic.clone(), crate::wire::MessageId::of(&message.payload));
                        }
                        event => rest.push((shard, Output::Event(Box::new(event)))),
                    },
                    output => rest.push((shard, output)),
                }
            }
        }
        for (topic, stored) in disk.retained.iter().filter(|_| alone && compares) {
            let have = found.get(topic);
            if have != Some(stored) {
                self.fail(format!("the retained message of {topic} is {have:?}, in the store {stored:?}"));
            }
        }
        for (shard, output) in rest {
            match output {
                Output::Store(seq, group) => {
                    // It tells what a restart itself changes.
                    let number = self.store.last() + 1;
                    for op in &*group.ops {
                        if let StoreOp::PutSession(_, session) = op {
                            self.oracle.restarted(&session.client_id, number);
                        }
                    }
                    self.broker_stores(shard, seq, group);
                }
                Output::Event(event) => self.told(shard, *event),
                Output::Shard { to, message } => self.say(shard, to, *message),
                other => self.fail(format!("a broker that starts wants {other:?}")),
            }
        }
    }

    /// A client with a store crashes and is made again; its application connects it when it comes to
    /// that.
    pub(super) fn crash_node(&mut self, number: usize) {
        self.oracle.counts.client_crashes += 1;
        if let Some(link) = self.nodes[number].link.take() {
            let wire = &mut self.wires[link];
            wire.link.node_open = false;
            wire.link.up.end(self.now, &self.options.network, &mut self.random);
            self.arm(link, true);
        }
        let now = self.time();
        let Self { nodes, random, oracle, .. } = self;
        let node = &mut nodes[number];
        node.life += 1;
        node.dial += 1;
        node.greeted = false;
        let more = if random.chance(50) { random.below(node.store.unconfirmed() + 1) } else { 0 };
        let committed = node.store.crash(more);
        let disk = Disk::read(&node.store.contents);
        let name = node.name().to_owned();
        if node.new_session.take().is_some_and(|group| group.is_none_or(|group| group > committed)) {
            node.unaware = true;
        }
        for (id, group) in std::mem::take(&mut node.shown) {
            if group.is_none_or(|group| group > committed) {
                oracle.comes_again(&name, id);
            }
        }
        node.unacknowledged.clear();
        let session = disk.sessions.get(&name);
        node.end.crashed(session.map_or(&[], |session| &session.exchanges));
        node.tokens.clear();
        for entry in session.into_iter().flat_map(|session| &session.entries) {
            if let Some((token, id)) = node.names.get(entry) {
                node.tokens.insert(*token, Some(*id));
                oracle.undone(*id, node.unaware);
            }
        }
        let config = node.options.config.clone();
        let client = Client::restore(config, now, node.store.contents.records());
        node.client = Some(client.expect("settings that were good before"));
        self.trace.line(self.now, || {
            format!(
                "--- n{number} crashes and starts with {committed} groups, {more} of them unconfirmed ---"
            )
        });
    }

    /// Everything was delivered, so the stores hold nothing that is under way.
    pub(super) fn check_leaks(&mut self) {
        let stores = self
            .nodes
            .iter()
            .filter(|node| node.options.kind == Kind::Machine && !node.lost_track)
            .map(|node| (node.name().to_owned(), &node.store))
            .chain([("the broker".to_owned(), &self.store)]);
        let mut wrong = None;
        for (name, store) in stores {
            let disk = Disk::read(&store.everything());
            if let Some(first) = disk.left.first() {
                let count = disk.left.len();
                wrong = Some(format!("{count} records are left in the store of {name}: {first}"));
            }
            let unstored = |node: &crate::node::Node| {
                let config = &node.options.config;
                node.options.shares && config.session_expiry_secs == 0
            };
            if disk.lone_groups > 0 && !self.nodes.iter().any(unstored) {
                wrong = Some(format!("a group without members is left in the store of {name}"));
            }
            for (client, count) in &disk.wills {
                let node = self.nodes.iter().find(|node| node.name() == client);
                let has = usize::from(node.is_some_and(|node| node.options.config.will.is_some()));
                if *count > has {
                    wrong = Some(format!("{count} wills of {client} are in the store of {name}"));
                }
            }
        }
        if let Some(what) = wrong {
            self.fail(what);
        }
    }
}

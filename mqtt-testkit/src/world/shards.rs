use mqtt_proto::{EncodeError, ReasonCode, SubscriptionOptions};
use mqtt_session::acl::Acl;
use mqtt_session::broker::{
    Answer, BrokerConfig, ClientInfo, Closed, ConnectionId, Event, LocalId, Outbox, Output, Page, Peer,
    QuestionId, ReadStatus, Restoration, Restore, Restored, RetainedInfo, Stats, SubscriptionInfo,
};
use mqtt_session::store::Contents;
use mqtt_session::{Broker, Message, PublishError, ShardId, StoreSeq, Timestamp};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// The bits of a number of 64 bits below those that tell the shard.
const PLACE_BITS: u32 = 56;

/// All shards of a broker, to be used as if they were one machine.
///
/// Whatever a machine numbers carries its shard's number in the uppermost byte out here. That of the first is 0, so with one
/// shard everything is as the machine gives it. What one shard has for another is carried at once, and connections
/// move to their homes, but keep the identifiers under which they were accepted.
#[derive(Debug)]
pub struct Shards {
    machines: Vec<Broker>,
    /// What they want done that is not between them.
    outputs: VecDeque<Output>,
    now: Timestamp,
    /// How many connections were accepted: each by the next shard.
    accepted: usize,
    /// Where connections are that have moved, by the identifiers that they keep; and the other way round.
    moved: BTreeMap<ConnectionId, ConnectionId>,
    came_as: BTreeMap<ConnectionId, ConnectionId>,
    /// The last group of each that was confirmed.
    stored: Vec<StoreSeq>,
    /// The store failed and has confirmed nothing since.
    failed: bool,
}

/// Their numbers, as they are used out here.
impl Shards {
    const fn tagged(shard: usize, number: u64) -> u64 {
        (shard as u64) << PLACE_BITS | number
    }

    fn untagged(number: u64) -> (usize, u64) {
        let shard = usize::try_from(number >> PLACE_BITS).unwrap_or(usize::MAX);
        (shard, number & ((1 << PLACE_BITS) - 1))
    }

    const fn conn_of(shard: usize, conn: ConnectionId) -> ConnectionId {
        ConnectionId::from_bits(Self::tagged(shard, conn.to_bits()))
    }

    fn local_of(shard: usize, id: LocalId) -> LocalId {
        LocalId::from_bits(u32::try_from(shard).unwrap_or_default() << 24 | id.to_bits())
    }

    /// Which shard a group comes from.
    #[must_use]
    pub fn of_group(seq: StoreSeq) -> usize {
        Self::untagged(seq.0).0
    }

    /// Where a connection is now.
    fn place(&self, conn: ConnectionId) -> (usize, ConnectionId) {
        let (shard, bits) = Self::untagged(self.moved.get(&conn).unwrap_or(&conn).to_bits());
        (shard, ConnectionId::from_bits(bits))
    }

    /// The identifier that a connection of a machine keeps.
    fn name(&self, shard: usize, conn: ConnectionId) -> ConnectionId {
        let conn = Self::conn_of(shard, conn);
        *self.came_as.get(&conn).unwrap_or(&conn)
    }
}

/// The machines and what they say.
impl Shards {
    /// The shards of a broker with these settings.
    ///
    /// # Panics
    /// If the settings are refused.
    #[must_use]
    pub fn new(config: &BrokerConfig, now: Timestamp) -> Self {
        let machines = (0..config.shards).map(|shard| {
            let mut config = config.clone();
            config.shard = ShardId(shard);
            Broker::new(config, now).expect("settings")
        });
        Self::of(machines.collect(), now)
    }

    /// The shards of a broker that was killed, made of what its store has.
    ///
    /// # Panics
    /// If the settings are refused.
    #[must_use]
    pub fn restore(config: BrokerConfig, unix_ms: u64, contents: &mut Contents) -> (Self, Restored) {
        let mut restore = Restore::new(config).expect("settings that were good before");
        contents.records().for_each(|record| restore.record(record));
        let Restoration { shards, first, restored, .. } = restore.finish(unix_ms);
        first.iter().for_each(|group| contents.apply(group));
        (Self::of(shards, restored.now), restored)
    }

    fn of(machines: Vec<Broker>, now: Timestamp) -> Self {
        Self {
            outputs: VecDeque::new(),
            now,
            accepted: 0,
            moved: BTreeMap::new(),
            came_as: BTreeMap::new(),
            stored: machines.iter().map(|_| StoreSeq(0)).collect(),
            failed: false,
            machines,
        }
    }

    /// The machine that a number belongs to, at this time; the first for one that is none of ours.
    fn at(&mut self, now: Timestamp, shard: usize) -> &mut Broker {
        self.now = self.now.max(now);
        let shard = if shard < self.machines.len() { shard } else { 0 };
        &mut self.machines[shard]
    }

    fn all(&mut self, now: Timestamp) -> impl Iterator<Item = &mut Broker> {
        self.now = self.now.max(now);
        self.machines.iter_mut()
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &BrokerConfig {
        self.machines[0].config()
    }

    /// Figures of all.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut sum = Stats::default();
        self.machines.iter().for_each(|machine| sum += machine.stats());
        sum
    }

    /// The next thing to do. What concerns the shards alone is done by that.
    pub fn poll_output(&mut self) -> Option<Output> {
        if self.outputs.is_empty() {
            self.carry();
        }
        self.outputs.pop_front()
    }

    /// Carries what the shards have for each other, until there is nothing more.
    fn carry(&mut self) {
        loop {
            let mut machines = self.machines.iter_mut().enumerate();
            let Some((shard, output)) = machines.find_map(|(shard, m)| Some((shard, m.poll_output()?)))
            else {
                return;
            };
            match output {
                Output::Shard { to, message } => {
                    let from = self.machines[shard].config().shard;
                    self.machines[usize::from(to.0)].handle_shard(self.now, from, *message);
                }
                Output::Rehome { conn, to } => self.rehome(shard, conn, usize::from(to.0)),
                output => {
                    let output = self.told(shard, output);
                    self.outputs.push_back(output);
                }
            }
        }
    }

    fn rehome(&mut self, from: usize, conn: ConnectionId, to: usize) {
        // It may have been closed in the meantime.
        let Some(moved) = self.machines[from].take_moving(self.now, conn) else { return };
        let kept = self.name(from, conn);
        let conn = Self::conn_of(to, self.machines[to].handle_moved(self.now, moved));
        self.moved.insert(kept, conn);
        self.came_as.insert(conn, kept);
    }

    /// What a machine says, in the numbers that are used out here.
    fn told(&self, shard: usize, output: Output) -> Output {
        match output {
            Output::Flush(conn) => Output::Flush(self.name(shard, conn)),
            Output::Resume(conn) => Output::Resume(self.name(shard, conn)),
            Output::Hangup { conn, after_flush } => {
                Output::Hangup { conn: self.name(shard, conn), after_flush }
            }
            Output::Ask(mut ask) => {
                ask.id = QuestionId::from_bits(Self::tagged(shard, ask.id.to_bits()));
                ask.conn = ask.conn.map(|conn| self.name(shard, conn));
                Output::Ask(ask)
            }
            Output::Store(seq, group) => Output::Store(StoreSeq(Self::tagged(shard, seq.0)), group),
            Output::Event(mut event) => {
                match &mut *event {
                    Event::Connected { conn, .. }
                    | Event::Refused { conn, .. }
                    | Event::Malformed { conn, .. }
                    | Event::Disconnected { conn, .. } => *conn = self.name(shard, *conn),
                    Event::InForce { subscriber } | Event::Message { subscriber, .. } => {
                        *subscriber = Self::local_of(shard, *subscriber);
                    }
                    _ => {}
                }
                Output::Event(event)
            }
            Output::Shard { .. } | Output::Rehome { .. } => output,
        }
    }

    /// When the first of them has to be called again.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.machines.iter().filter_map(Broker::poll_timeout).min()
    }

    /// See [`Broker::handle_timeout`]. The first shard is the last, as it publishes what the others tell it of themselves.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        for shard in (0..self.machines.len()).rev() {
            self.at(now, shard).handle_timeout(now);
            if shard > 0 {
                self.carry();
            }
        }
    }

    /// See [`Broker::handle_wall_clock`].
    pub fn handle_wall_clock(&mut self, now: Timestamp, unix_ms: u64) {
        self.all(now).for_each(|machine| machine.handle_wall_clock(now, unix_ms));
        self.outputs.shrink_to_fit();
    }
}

/// Connections and the store.
impl Shards {
    /// See [`Broker::handle_accept`]. The next shard does it.
    pub fn handle_accept(&mut self, now: Timestamp) -> ConnectionId {
        let shard = self.accepted % self.machines.len();
        self.accepted += 1;
        Self::conn_of(shard, self.at(now, shard).handle_accept(now))
    }

    /// See [`Broker::handle_identified`].
    pub fn handle_identified(&mut self, now: Timestamp, conn: ConnectionId, peer: Peer) {
        let (shard, conn) = self.place(conn);
        self.at(now, shard).handle_identified(now, conn, peer);
    }

    /// See [`Broker::handle_read`].
    pub fn handle_read(&mut self, now: Timestamp, conn: ConnectionId, data: &[u8]) -> ReadStatus {
        let (shard, conn) = self.place(conn);
        self.at(now, shard).handle_read(now, conn, data)
    }

    /// See [`Broker::handle_close`].
    pub fn handle_close(&mut self, now: Timestamp, conn: ConnectionId, why: Closed) {
        let (shard, conn) = self.place(conn);
        self.at(now, shard).handle_close(now, conn, why);
    }

    /// See [`Broker::outbox`].
    pub fn outbox(&mut self, now: Timestamp, conn: ConnectionId, max: usize) -> Outbox<'_> {
        let (shard, conn) = self.place(conn);
        self.at(now, shard).outbox(now, conn, max)
    }

    /// See [`Broker::handle_answer`].
    pub fn handle_answer(&mut self, now: Timestamp, id: QuestionId, answer: Answer) {
        let (shard, bits) = Self::untagged(id.to_bits());
        self.at(now, shard).handle_answer(now, QuestionId::from_bits(bits), answer);
    }

    /// See [`Broker::handle_stored`]: confirms what the shard of this group has emitted so far. If the store had failed, all
    /// shards hear that it works again.
    pub fn handle_stored(&mut self, now: Timestamp, through: StoreSeq) {
        let (shard, seq) = Self::untagged(through.0);
        if let Some(stored) = self.stored.get_mut(shard) {
            *stored = StoreSeq(seq).max(*stored);
        }
        self.at(now, shard).handle_stored(now, StoreSeq(seq));
        if std::mem::take(&mut self.failed) {
            for other in (0..self.machines.len()).filter(|&other| other != shard) {
                self.machines[other].handle_stored(now, self.stored[other]);
            }
        }
    }

    /// See [`Broker::handle_store_failed`]. They have one store: all other shards hear of it, too, and have lost what was not
    /// confirmed.
    pub fn handle_store_failed(&mut self, now: Timestamp, from: StoreSeq) {
        let (shard, seq) = Self::untagged(from.0);
        self.failed = true;
        self.at(now, shard).handle_store_failed(now, StoreSeq(seq));
        for other in (0..self.machines.len()).filter(|&other| other != shard) {
            self.machines[other].handle_store_failed(now, StoreSeq(self.stored[other].0 + 1));
        }
    }
}

/// Commands.
impl Shards {
    /// See [`Broker::publish`]. The first shard does it.
    ///
    /// # Errors
    /// As there.
    pub fn publish(&mut self, now: Timestamp, message: Message) -> Result<usize, PublishError> {
        self.at(now, 0).publish(now, message)
    }

    /// See [`Broker::subscribe`]. The first shard does it.
    ///
    /// # Errors
    /// As there.
    pub fn subscribe(
        &mut self,
        now: Timestamp,
        filter: &str,
        options: SubscriptionOptions,
    ) -> Result<LocalId, EncodeError> {
        self.at(now, 0).subscribe(now, filter, options)
    }

    /// See [`Broker::unsubscribe`].
    pub fn unsubscribe(&mut self, now: Timestamp, id: LocalId) -> bool {
        self.at(now, 0).unsubscribe(now, id)
    }

    /// See [`Broker::disconnect`].
    pub fn disconnect(&mut self, now: Timestamp, client_id: &str, reason: ReasonCode) -> bool {
        self.all(now).any(|machine| machine.disconnect(now, client_id, reason))
    }

    /// See [`Broker::disconnect_user`].
    pub fn disconnect_user(&mut self, now: Timestamp, user_name: Option<&str>, reason: ReasonCode) -> usize {
        self.all(now).map(|machine| machine.disconnect_user(now, user_name, reason)).sum()
    }

    /// See [`Broker::remove_session`].
    pub fn remove_session(&mut self, now: Timestamp, client_id: &str) -> bool {
        self.all(now).any(|machine| machine.remove_session(now, client_id))
    }

    /// See [`Broker::remove_retained`].
    pub fn remove_retained(&mut self, now: Timestamp, topic: &str) -> bool {
        self.all(now).any(|machine| machine.remove_retained(now, topic))
    }

    /// See [`Broker::set_acls`].
    // Not a slice: it is the machine's method.
    #[allow(clippy::needless_pass_by_value, reason = "it is called as the machine's")]
    pub fn set_acls(&mut self, now: Timestamp, acls: Vec<Arc<Acl>>) {
        self.all(now).for_each(|machine| machine.set_acls(now, acls.clone()));
    }

    /// See [`Broker::shutdown`].
    pub fn shutdown(&mut self, now: Timestamp) {
        self.all(now).for_each(|machine| machine.shutdown(now));
    }
}

/// Looks.
impl Shards {
    /// See [`Broker::clients`].
    #[must_use]
    pub fn clients(&self, now: Timestamp, after: u64, limit: usize, connected: bool) -> Page<ClientInfo> {
        self.page(after, limit, |shard, place, limit| {
            let mut page = self.machines[shard].clients(now, place, limit, connected);
            for link in page.items.iter_mut().filter_map(|client| client.link.as_mut()) {
                link.conn = self.name(shard, link.conn);
            }
            page
        })
    }

    /// See [`Broker::subscriptions`].
    #[must_use]
    pub fn subscriptions(
        &self,
        of: Option<&str>,
        after: u64,
        limit: usize,
    ) -> Option<Page<SubscriptionInfo>> {
        if of.is_some() {
            return self.machines.iter().find_map(|machine| machine.subscriptions(of, after, limit));
        }
        Some(self.page(after, limit, |shard, place, limit| {
            let all = self.machines[shard].subscriptions(None, place, limit);
            all.expect("those of no client in particular")
        }))
    }

    /// See [`Broker::retained`].
    #[must_use]
    pub fn retained(&self, now: Timestamp, after: u64, limit: usize) -> Page<RetainedInfo> {
        self.page(after, limit, |shard, place, limit| self.machines[shard].retained(now, place, limit))
    }

    /// See [`Broker::retained_message`].
    #[must_use]
    pub fn retained_message(&self, now: Timestamp, topic: &str) -> Option<Message> {
        self.machines.iter().find_map(|machine| machine.retained_message(now, topic))
    }

    /// A page that goes on with the next shard where one ends.
    fn page<T>(&self, after: u64, limit: usize, look: impl Fn(usize, u64, usize) -> Page<T>) -> Page<T> {
        let (mut shard, mut place) = Self::untagged(after);
        let mut items = Vec::new();
        while shard < self.machines.len() {
            let page = look(shard, place, limit.saturating_sub(items.len()));
            items.extend(page.items);
            if let Some(next) = page.next {
                return Page { items, next: Some(Self::tagged(shard, next)) };
            }
            (shard, place) = (shard + 1, 0);
            if items.len() >= limit.max(1) && shard < self.machines.len() {
                return Page { items, next: Some(Self::tagged(shard, 0)) };
            }
        }
        Page { items, next: None }
    }
}

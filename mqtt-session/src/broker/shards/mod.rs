//! One broker in several shards: what this one knows of the others, and what they say.
//!
//! - A session lives on the shard that its client identifier gives (`home.rs`).
//! - Every shard knows which filters the others have a use for, and hands over each message that
//!   matches once; SUBACK waits until all know (`sync.rs`, `deliver.rs`).
//! - A retained message lives on the shard that its topic gives (`owned.rs`); a new subscription asks them
//!   all (`retained.rs`).
//! - What must not be lost on the way waits for the other shard's store, or is stored as handed over (`care.rs`).
//! - A group of shared subscriptions lives on the shard that its filter gives, which hands messages to
//!   the shards of the members as far as these have room (`groups.rs`).
//! - What is limited is limited for all together (`usage.rs`).
//!
//! Shards talk through channels that lose nothing and keep the order of each pair.

mod care;
mod deliver;
mod groups;
mod home;
mod owned;
mod retained;
mod sync;
mod usage;

pub(super) use care::Passed;
pub(super) use deliver::{Arrival, Onward};
pub use home::Moved;
pub(super) use retained::FarReplay;
pub(super) use sync::Then;

use super::message::MessageKey;
use super::output::{ConnectionId, Output};
use super::router::bit;
use super::shrink::Shrink;
use super::{Broker, BrokerConfig, Stats};
use crate::random::IdMap;
use crate::{Run, ShardCredit, ShardId, ShardMessage, StoreSeq, Timestamp, Usage};
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use care::{Ticket, Watched};
use owned::{Answering, Waiting};
use retained::{Asking, Unsettled};
use sync::{Opened, Sync};

/// What is known of another shard.
#[derive(Debug)]
struct Neighbour {
    /// Room for deliveries there. Below zero by what was on its way when it was used up.
    messages: i64,
    bytes: i64,
    /// Publishers that wait until there is room again.
    waiting: VecDeque<ConnectionId>,
    /// What was handled of its deliveries, and not given back yet.
    handled: ShardCredit,
    /// Retained writes of its that are done here: all up to this one, and these. What waits for the store is overtaken.
    applied: u64,
    applied_too: BTreeSet<u64>,
    figures: Stats,
    usage: Usage,
    /// What it is told at the end of this input: small messages, unless something else has to be told behind them;
    run: Run,
    /// how large the last run was;
    last_run: usize,
    /// and how many of its messages are safe.
    safe: u32,
    /// The number of the last hand-over to it.
    handed_over: u64,
    /// What was sent to it and is not known to be safe.
    watched: VecDeque<Watched>,
    /// What came from it and is to be told safe when this much is stored.
    owed: VecDeque<StoreSeq>,
    /// What comes from it waits behind this.
    barrier: StoreSeq,
}

impl Neighbour {
    /// A retained write of its is done.
    fn apply(&mut self, write: u64) {
        self.applied_too.insert(write);
        while self.applied_too.remove(&(self.applied + 1)) {
            self.applied += 1;
        }
    }
}

#[derive(Debug)]
pub(super) struct Shards {
    own: ShardId,
    credit: ShardCredit,
    /// By number, this shard included.
    neighbours: Vec<Neighbour>,
    /// Numbers syncs and questions.
    last: u64,
    syncs: BTreeMap<u64, Sync>,
    /// What the present input began.
    opened: Opened,
    /// Questions of ours for retained messages.
    asking: BTreeMap<u64, Asking>,
    unsettled: Unsettled,
    /// Those of others, before it is known what is to be answered and then.
    waiting: Vec<Waiting>,
    answering: BTreeMap<(ShardId, u64), Answering>,
    /// Answers that go on when more is stored.
    blocked: Vec<(ShardId, u64)>,
    /// Acknowledgements that wait for other shards.
    tickets: IdMap<u64, Ticket>,
    /// How many retained writes each owner was sent.
    writes: Vec<u64>,
    /// What all others have of what is limited, and what they were told that this one has.
    elsewhere: Usage,
    told: Usage,
    /// Those that are told something at the end of this input.
    untold: u64,
    /// From where the retained messages here came, and as which write.
    origins: IdMap<MessageKey, (ShardId, u64)>,
    /// Those that hand over nothing more.
    left: u64,
    /// The others were told that this one is leaving.
    leaving: bool,
}

impl Shards {
    pub(super) fn new(config: &BrokerConfig) -> Option<Box<Self>> {
        if config.shards < 2 {
            return None;
        }
        let credit = config.shard_credit;
        let neighbours = (0..config.shards).map(|_| Neighbour {
            messages: i64::from(credit.messages),
            bytes: i64::try_from(credit.bytes).unwrap_or(i64::MAX),
            waiting: VecDeque::new(),
            handled: ShardCredit { messages: 0, bytes: 0 },
            applied: 0,
            applied_too: BTreeSet::new(),
            figures: Stats::default(),
            usage: Usage::default(),
            run: Run::default(),
            last_run: 0,
            safe: 0,
            handed_over: 0,
            watched: VecDeque::new(),
            owed: VecDeque::new(),
            barrier: StoreSeq(0),
        });
        Some(Box::new(Self {
            own: config.shard,
            credit,
            neighbours: neighbours.collect(),
            last: 0,
            syncs: BTreeMap::new(),
            opened: Opened::default(),
            asking: BTreeMap::new(),
            unsettled: Unsettled::default(),
            waiting: Vec::new(),
            answering: BTreeMap::new(),
            blocked: Vec::new(),
            tickets: IdMap::default(),
            writes: (0..config.shards).map(|_| 0).collect(),
            elsewhere: Usage::default(),
            told: Usage::default(),
            untold: 0,
            origins: IdMap::default(),
            left: 0,
            leaving: false,
        }))
    }

    pub(super) fn shrink(&mut self) {
        self.tickets.shrink();
        self.origins.shrink();
        self.blocked.shrink();
        for neighbour in &mut self.neighbours {
            neighbour.waiting.shrink();
            neighbour.watched.shrink();
            neighbour.owed.shrink();
        }
    }

    /// The bits of all others.
    fn others(&self) -> u64 {
        let all = u64::MAX >> (64 - self.neighbours.len().clamp(1, 64));
        all & !bit(self.own)
    }

    /// From where a retained message came, and as which write.
    pub(super) fn origin(&self, message: MessageKey) -> Option<(ShardId, u64)> {
        self.origins.get(&message).copied()
    }

    /// Whether all retained writes are done here that these marks count. Those of this shard are done at once.
    fn has_applied(&self, marks: &[u64]) -> bool {
        let mut neighbours = (0..).map(ShardId).zip(&self.neighbours).zip(marks);
        neighbours.all(|((shard, neighbour), mark)| shard == self.own || neighbour.applied >= *mark)
    }

    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}

/// The shards whose bits are set.
fn each(mut bits: u64) -> impl Iterator<Item = ShardId> {
    core::iter::from_fn(move || {
        let place = u16::try_from(bits.trailing_zeros()).ok().filter(|_| bits != 0)?;
        bits &= bits - 1;
        Some(ShardId(place))
    })
}

impl Broker {
    /// What another shard says. Give it everything that shard `from` emitted for this one, in its order.
    pub fn handle_shard(&mut self, now: Timestamp, from: ShardId, message: ShardMessage) {
        self.begin(now);
        if self.shards.as_ref().is_some_and(|s| from != s.own && usize::from(from.0) < s.neighbours.len()) {
            self.shard_says(from, message);
        }
        self.finish();
    }

    fn shard_says(&mut self, from: ShardId, message: ShardMessage) {
        match message {
            ShardMessage::Interest(changes) => {
                for (filter, wanted) in changes {
                    self.router.set_wanting(from, &filter, wanted);
                }
            }
            ShardMessage::Sync(sync) => {
                let writes = self.shards.as_ref().map(|s| s.writes.clone()).unwrap_or_default();
                self.tell_shard(from, ShardMessage::Synced { sync, writes });
            }
            ShardMessage::Synced { sync, writes } => self.synced(from, sync, writes),
            ShardMessage::Deliver { message, deliver, retain, care } => {
                self.arrived(from, message, deliver, retain, care);
            }
            ShardMessage::DeliverRun(run) => self.run_arrived(from, run),
            ShardMessage::Safe(messages) => self.told_safe(from, messages),
            ShardMessage::Credit(credit) => self.credited(from, credit),
            ShardMessage::RetainedAsk { questions, marks } => self.retained_asked(from, questions, marks),
            ShardMessage::RetainedNone { queries, until } => self.no_retained_came(from, &queries, until),
            ShardMessage::RetainedMore { query } => self.send_retained(from, query),
            ShardMessage::RetainedCancel { query } => self.retained_cancelled(from, query),
            ShardMessage::RetainedPage { query, messages, more, until, except } => {
                self.retained_came(from, query, messages, more, (until, except));
            }
            ShardMessage::GroupJoin { filter, sync, stored } => {
                self.group_joined(from, &filter, sync, stored)
            }
            ShardMessage::GroupJoined { sync } => self.join_in_force(sync),
            ShardMessage::GroupLeave { filter } => self.group_left(from, &filter),
            ShardMessage::GroupSlots { filter, more } => self.group_has_room(from, &filter, more),
            ShardMessage::GroupClosed { filter } => self.group_closed(from, &filter),
            ShardMessage::GroupDeliver { filter, message, number, refused } => {
                self.group_gets(from, filter, message, number, refused);
            }
            ShardMessage::GroupReturn { filter, messages, refused } => {
                self.group_gets_back(from, &filter, &messages, refused);
            }
            ShardMessage::GroupAgain { filter } => self.group_tries_again(from, &filter),
            ShardMessage::Usage(usage) => self.shard_uses(from, usage),
            ShardMessage::Leaving => self.shard_leaves(from),
            ShardMessage::Figures(stats) => {
                if let Some(neighbour) = self.neighbour(from) {
                    neighbour.figures = *stats;
                }
            }
        }
    }

    /// Shard `lost` is gone, with all that it had. Nothing more comes from there.
    pub fn handle_shard_lost(&mut self, now: Timestamp, lost: ShardId) {
        self.begin(now);
        if let Some(neighbour) = self.neighbour(lost) {
            // Nobody is going to tell.
            neighbour.watched.clear();
        }
        self.shard_uses(lost, Usage::default());
        self.shard_leaves(lost);
        self.finish();
    }

    fn shard_leaves(&mut self, shard: ShardId) {
        if let Some(shards) = &mut self.shards {
            shards.left |= bit(shard);
        }
        self.take_leave();
    }

    /// Tells the others that this shard is shutting down. Whether all that they had for it has come.
    pub(super) fn all_shards_leave(&mut self) -> bool {
        let Some(shards) = &mut self.shards else { return true };
        let (others, left) = (shards.others(), shards.left);
        if !core::mem::replace(&mut shards.leaving, true) {
            for shard in each(others) {
                self.tell_shard(shard, ShardMessage::Leaving);
            }
        }
        left & others == others
    }

    fn neighbour(&mut self, shard: ShardId) -> Option<&mut Neighbour> {
        self.shards.as_mut()?.neighbours.get_mut(usize::from(shard.0))
    }

    fn tell_shard(&mut self, to: ShardId, message: ShardMessage) {
        self.tell_run(to);
        self.outputs.push_back(Output::Shard { to, message: Box::new(message) });
    }

    /// Sends the run that is open.
    fn tell_run(&mut self, to: ShardId) {
        let Some(there) = self.neighbour(to).filter(|there| there.run.messages() > 0) else { return };
        there.last_run = there.run.size();
        let message = Box::new(ShardMessage::DeliverRun(core::mem::take(&mut there.run)));
        self.outputs.push_back(Output::Shard { to, message });
    }

    fn tell_what_is_untold(&mut self) {
        let untold = self.shards.as_mut().map_or(0, |shards| core::mem::take(&mut shards.untold));
        for shard in each(untold) {
            self.tell_run(shard);
            let Some(there) = self.neighbour(shard) else { continue };
            let safe = core::mem::take(&mut there.safe);
            if safe > 0 {
                self.tell_shard(shard, ShardMessage::Safe(safe));
            }
        }
    }

    /// The figures of all shards, as far as they are known here.
    pub(super) fn stats_of_all(&self) -> Stats {
        let mut stats = Stats { sessions: self.clients.len(), ..self.stats() };
        for neighbour in self.shards.iter().flat_map(|shards| &shards.neighbours) {
            stats += neighbour.figures;
        }
        stats
    }

    /// Whether the shard that publishes `$SYS` is another one, which is told the figures then.
    pub(super) fn tells_figures(&mut self) -> bool {
        let first = ShardId(0);
        if self.shards.as_ref().is_none_or(|shards| shards.own == first) {
            return false;
        }
        let stats = Box::new(Stats { sessions: self.clients.len(), ..self.stats() });
        self.tell_shard(first, ShardMessage::Figures(stats));
        true
    }

    /// At the end of each input.
    pub(super) fn finish_shards(&mut self) {
        if self.shards.is_some() {
            self.tell_interest();
            self.sync_what_is_open();
            self.tell_what_is_untold();
            self.tell_usage();
        }
    }
}

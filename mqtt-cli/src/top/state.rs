//! What is shown.

use super::ask::{Answer, Client, Listed, Retained, Status, Subscription};
use std::cmp::Reverse;
use std::collections::VecDeque;

/// Values of a curve.
const HISTORY: usize = 240;

/// What the screen shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tab {
    Overview,
    Clients,
    Subscriptions,
    Retained,
}

impl Tab {
    pub(super) const ALL: [Self; 4] = [Self::Overview, Self::Clients, Self::Subscriptions, Self::Retained];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Overview => "Overview",
            Self::Clients => "Clients",
            Self::Subscriptions => "Subscriptions",
            Self::Retained => "Retained",
        }
    }

    /// The one so many places further, round and round.
    pub(super) fn neighbour(self, places: usize) -> Self {
        let at = Self::ALL.iter().position(|tab| *tab == self).unwrap_or_default();
        Self::ALL.iter().cycle().nth(at + places).copied().unwrap_or(self)
    }
}

/// What is asked before it is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Question {
    Disconnect(String),
    Delete(String),
    Remove(String),
}

/// Values over time, the newest last.
#[derive(Debug, Default)]
pub(super) struct Curve(VecDeque<u64>);

impl Curve {
    fn push(&mut self, value: u64) {
        if self.0.len() == HISTORY {
            self.0.pop_front();
        }
        self.0.push_back(value);
    }

    pub(super) fn last(&self) -> u64 {
        self.0.back().copied().unwrap_or_default()
    }

    /// The newest values, as many as there is room for.
    pub(super) fn newest(&self, room: usize) -> Vec<u64> {
        self.0.iter().skip(self.0.len().saturating_sub(room)).copied().collect()
    }
}

/// Everything on the screen.
#[derive(Debug)]
pub(super) struct State {
    pub(super) url: String,
    pub(super) tab: Tab,
    pub(super) status: Option<Status>,
    /// What went wrong when it was last asked.
    pub(super) problem: Option<String>,
    pub(super) question: Option<Question>,
    pub(super) messages_in: Curve,
    pub(super) messages_out: Curve,
    pub(super) bytes_in: Curve,
    pub(super) bytes_out: Curve,
    pub(super) answers: Curve,
    pub(super) commits: Curve,
    pub(super) clients: Clients,
    pub(super) subscriptions: List<Subscription>,
    pub(super) retained: List<Retained>,
}

impl State {
    pub(super) fn new(url: String) -> Self {
        Self {
            // A token has no place on a screen.
            url: url.split("/#").next().unwrap_or_default().to_owned(),
            tab: Tab::Overview,
            status: None,
            problem: None,
            question: None,
            messages_in: Curve::default(),
            messages_out: Curve::default(),
            bytes_in: Curve::default(),
            bytes_out: Curve::default(),
            answers: Curve::default(),
            commits: Curve::default(),
            clients: Clients::default(),
            subscriptions: List::default(),
            retained: List::default(),
        }
    }

    /// Chooses another line of the list that is shown.
    pub(super) fn move_by(&mut self, by: isize) {
        match self.tab {
            Tab::Overview => {}
            Tab::Clients => self.clients.list.move_by(by),
            Tab::Subscriptions => self.subscriptions.move_by(by),
            Tab::Retained => self.retained.move_by(by),
        }
    }

    pub(super) fn take(&mut self, answer: Answer) {
        let (status, listed) = match answer {
            Answer::Failed(problem) => {
                self.problem = Some(problem);
                return;
            }
            Answer::Seen(status, listed) => (*status, listed),
        };
        self.problem = None;
        match listed {
            Listed::Nothing => {}
            Listed::Clients(list, more) => self.clients.replace(list, more),
            Listed::Subscriptions(list, more) => {
                self.subscriptions.replace(list, more);
                self.subscriptions.lines.sort_by_cached_key(Line::key);
            }
            Listed::Retained(list, more) => {
                self.retained.replace(list, more);
                self.retained.lines.sort_by_cached_key(Line::key);
            }
        }
        // A broker that began anew counts from zero.
        if let Some(before) = self.status.take().filter(|before| before.uptime < status.uptime) {
            let seconds = status.uptime - before.uptime;
            #[allow(
                clippy::cast_precision_loss,
                clippy::cast_sign_loss,
                clippy::cast_possible_truncation,
                reason = "a rate for people"
            )]
            let rate = |now: u64, before: u64| (now.saturating_sub(before) as f64 / seconds).round() as u64;
            let sum = |by_qos: [u64; 3]| by_qos.iter().sum::<u64>();
            let (now, old) = (&status.counters, &before.counters);
            self.messages_in.push(rate(sum(now.publish_received), sum(old.publish_received)));
            self.messages_out.push(rate(sum(now.publish_sent), sum(old.publish_sent)));
            self.bytes_in.push(rate(now.bytes_received, old.bytes_received));
            self.bytes_out.push(rate(now.bytes_sent, old.bytes_sent));
            if let (Some(now), Some(old)) = (&status.store, &before.store) {
                let commits = now.commits.saturating_sub(old.commits);
                let spent = now.commit_micros_sum.saturating_sub(old.commit_micros_sum);
                self.commits.push(spent.checked_div(commits).unwrap_or_default());
            }
        }
        self.answers.push(status.answered_in_micros);
        self.status = Some(status);
    }
}

/// By what clients are sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Order {
    #[default]
    Name,
    Queued,
    InFlight,
    Dropped,
    Received,
    Sent,
}

impl Order {
    const ALL: [Self; 6] =
        [Self::Name, Self::Queued, Self::InFlight, Self::Dropped, Self::Received, Self::Sent];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Queued => "queued",
            Self::InFlight => "under way",
            Self::Dropped => "dropped",
            Self::Received => "in",
            Self::Sent => "out",
        }
    }
}

impl Client {
    pub(super) const fn connected(&self) -> bool {
        self.connection.is_some()
    }

    fn measure(&self, order: Order) -> u64 {
        let link = self.connection.as_ref();
        match order {
            Order::Name => 0,
            Order::Queued => self.queued,
            Order::InFlight => self.in_flight,
            Order::Dropped => self.dropped,
            Order::Received => link.map_or(0, |link| link.messages_received),
            Order::Sent => link.map_or(0, |link| link.messages_sent),
        }
    }
}

/// Something in a list.
pub(super) trait Line {
    /// What it is known by, so that it stays chosen when the list changes.
    fn key(&self) -> String;
}

impl Line for Client {
    fn key(&self) -> String {
        self.id.clone()
    }
}

impl Line for Subscription {
    fn key(&self) -> String {
        // Neither has a NUL.
        format!("{}\0{}", self.filter, self.client)
    }
}

impl Line for Retained {
    fn key(&self) -> String {
        self.topic.clone()
    }
}

/// Lines, and which of them is chosen.
#[derive(Debug)]
pub(super) struct List<T> {
    pub(super) lines: Vec<T>,
    pub(super) more: bool,
    chosen: Option<String>,
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self { lines: Vec::new(), more: false, chosen: None }
    }
}

impl<T: Line> List<T> {
    fn replace(&mut self, lines: Vec<T>, more: bool) {
        (self.lines, self.more) = (lines, more);
    }

    pub(super) fn place(&self) -> Option<usize> {
        let chosen = self.chosen.as_ref()?;
        self.lines.iter().position(|line| line.key() == *chosen)
    }

    pub(super) fn chosen(&self) -> Option<&T> {
        self.lines.get(self.place()?)
    }

    pub(super) fn move_by(&mut self, by: isize) {
        let Some(last) = self.lines.len().checked_sub(1) else { return };
        let to = self.place().map_or(0, |place| place.saturating_add_signed(by).min(last));
        self.chosen = self.lines.get(to).map(Line::key);
    }
}

/// The list of clients, and how it is sorted.
#[derive(Debug, Default)]
pub(super) struct Clients {
    pub(super) list: List<Client>,
    pub(super) order: Order,
}

impl Clients {
    fn replace(&mut self, list: Vec<Client>, more: bool) {
        self.list.replace(list, more);
        self.sort();
    }

    fn sort(&mut self) {
        let order = self.order;
        let by = |a: &Client, b: &Client| {
            (Reverse(a.measure(order)), &a.id).cmp(&(Reverse(b.measure(order)), &b.id))
        };
        self.list.lines.sort_by(by);
    }

    pub(super) fn sort_by_next(&mut self) {
        let at = Order::ALL.iter().position(|order| *order == self.order).unwrap_or_default();
        self.order = Order::ALL.iter().cycle().nth(at + 1).copied().unwrap_or_default();
        self.sort();
    }
}

//! What is shown.

use super::ask::{Answer, Client, Status};
use std::cmp::Reverse;
use std::collections::VecDeque;

/// Values of a curve.
const HISTORY: usize = 240;

/// One half of the screen's doings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tab {
    Overview,
    Clients,
}

impl Tab {
    pub(super) const fn other(self) -> Self {
        match self {
            Self::Overview => Self::Clients,
            Self::Clients => Self::Overview,
        }
    }
}

/// What is asked before it is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Question {
    Disconnect(String),
    Delete(String),
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
        }
    }

    pub(super) fn take(&mut self, answer: Answer) {
        let (status, clients, more) = match answer {
            Answer::Failed(problem) => {
                self.problem = Some(problem);
                return;
            }
            Answer::Seen(status, clients, more) => (*status, clients, more),
        };
        self.problem = None;
        self.clients.replace(clients, more);
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

/// The list of clients, and which of them is chosen.
#[derive(Debug, Default)]
pub(super) struct Clients {
    pub(super) list: Vec<Client>,
    pub(super) more: bool,
    pub(super) order: Order,
    /// By name, so that it stays when the list changes.
    chosen: Option<String>,
}

impl Clients {
    fn replace(&mut self, list: Vec<Client>, more: bool) {
        (self.list, self.more) = (list, more);
        self.sort();
    }

    fn sort(&mut self) {
        let order = self.order;
        self.list.sort_by(|a, b| (Reverse(a.measure(order)), &a.id).cmp(&(Reverse(b.measure(order)), &b.id)));
    }

    pub(super) fn sort_by_next(&mut self) {
        let at = Order::ALL.iter().position(|order| *order == self.order).unwrap_or_default();
        self.order = Order::ALL.iter().cycle().nth(at + 1).copied().unwrap_or_default();
        self.sort();
    }

    pub(super) fn place(&self) -> Option<usize> {
        let chosen = self.chosen.as_ref()?;
        self.list.iter().position(|client| client.id == *chosen)
    }

    pub(super) fn chosen(&self) -> Option<&Client> {
        self.list.get(self.place()?)
    }

    pub(super) fn move_by(&mut self, by: isize) {
        let Some(last) = self.list.len().checked_sub(1) else { return };
        let to = self.place().map_or(0, |place| place.saturating_add_signed(by).min(last));
        self.chosen = self.list.get(to).map(|client| client.id.clone());
    }
}

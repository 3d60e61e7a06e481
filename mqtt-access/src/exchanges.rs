//! Authentication exchanges that have begun.

use crate::scram::Exchange;
use mqtt_session::broker::ConnectionId;
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Exchanges that are kept at most. One that is forgotten fails.
const MOST: usize = 16_384;
/// A step that takes longer is not waited for.
const LONGEST: Duration = Duration::from_secs(60);

/// An exchange that waits for the client's next step.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) exchange: Exchange,
    pub(crate) address: Option<IpAddr>,
    began: Instant,
    number: u64,
}

/// By connection. Nobody says when a connection ends in between, so what is old goes by itself.
#[derive(Debug, Default)]
pub(crate) struct Exchanges {
    waiting: HashMap<ConnectionId, Waiting>,
    order: VecDeque<(ConnectionId, u64)>,
    count: u64,
}

impl Exchanges {
    pub(crate) fn put(
        &mut self,
        now: Instant,
        conn: ConnectionId,
        exchange: Exchange,
        address: Option<IpAddr>,
    ) {
        self.count += 1;
        let number = self.count;
        self.order.push_back((conn, number));
        self.waiting.insert(conn, Waiting { exchange, address, began: now, number });
        while let Some(&(oldest, number)) = self.order.front() {
            match self.waiting.get(&oldest).filter(|waiting| waiting.number == number) {
                Some(waiting)
                    if self.waiting.len() <= MOST
                        && now.saturating_duration_since(waiting.began) < LONGEST =>
                {
                    break;
                }
                Some(_) => {
                    self.waiting.remove(&oldest);
                }
                None => {}
            }
            self.order.pop_front();
        }
    }

    /// The exchange of this connection, if its next step came in time.
    pub(crate) fn take(&mut self, now: Instant, conn: ConnectionId) -> Option<Waiting> {
        self.waiting.remove(&conn).filter(|waiting| now.saturating_duration_since(waiting.began) < LONGEST)
    }
}

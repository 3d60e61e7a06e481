//! What the handles and the driver share: the machine, who waits for what, and the streams.
//!
//! One lock guards it. It is held for short, never while waiting, and never while user code runs.
//! A stream's own lock may be taken within it, never the other way round.

use super::options::Limits;
use super::queue::{Arrived, Batch, Queue};
use super::routes::{Ack, Routes, Settled, lock};
use super::{Error, State};
use crate::Clock;
use bytes::Bytes;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use mqtt_proto::{PropertyId, ReasonCode};
use mqtt_session::client::{Cause, Client as Machine, ClientConfig, Outcome, Token};
use mqtt_session::{StoreOp, StoreSeq, Timestamp};
use mqtt_store::{Report, Storage, StorageHandle, Store};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, OnceCell, oneshot, watch};

/// How long a client believes to have been down at most, by the wall clock.
const MAX_DOWNTIME: Duration = Duration::from_secs(30 * 86_400);

#[derive(Debug)]
pub(super) struct Shared {
    inner: Mutex<Inner>,
    clock: fn() -> Instant,
    epoch: Instant,
    /// What the machine's time was then: that of a stored session goes on.
    at_epoch: Timestamp,
    pub(super) storage: OnceLock<StorageHandle>,
    pub(super) limits: Limits,
    /// Publishers that wait for room in the queue.
    pub(super) room: Notify,
    pub(super) waiting_for_room: AtomicUsize,
    pub(super) state: watch::Sender<State>,
    /// Where responses are sent to.
    pub(super) inbox: OnceCell<String>,
    /// Makes the response topic unlike any other.
    pub(super) inbox_name: String,
    max_queued: usize,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) machine: Machine,
    /// Wakes the driver; `None` while it runs or is about to.
    pub(super) driver: Option<Waker>,
    waiters: HashMap<Token, Waiter, FixedState>,
    pub(super) routes: Routes,
    pub(super) reauth: Vec<oneshot::Sender<()>>,
    /// Set once the driver has ended.
    pub(super) closed: Option<(Cause, Option<Arc<io::Error>>)>,
}

#[derive(Debug, Default)]
struct Waiter {
    waker: Option<Waker>,
    outcome: Option<Outcome>,
}

impl Shared {
    pub(super) fn start(
        config: ClientConfig,
        store: Option<Box<dyn Store>>,
        limits: Limits,
        inbox_name: &str,
        clock: fn() -> Instant,
    ) -> Result<Arc<Self>, Error> {
        let max_queued = config.max_queued_messages;
        let durability = config.durability;
        let (machine, at_epoch, store) = match store {
            None => (Machine::new(config, Timestamp::ZERO)?, Timestamp::ZERO, None),
            Some(mut store) => {
                let (machine, now) = restore(config, &mut *store)?;
                (machine, now, Some(store))
            }
        };
        let shared = Arc::new(Self {
            inner: Mutex::new(Inner {
                machine,
                driver: None,
                waiters: HashMap::default(),
                routes: Routes::new(limits.unclaimed),
                reauth: Vec::new(),
                closed: None,
            }),
            clock,
            epoch: clock(),
            at_epoch,
            storage: OnceLock::new(),
            limits,
            room: Notify::new(),
            waiting_for_room: AtomicUsize::new(0),
            state: watch::Sender::new(State::Connecting),
            inbox: OnceCell::new(),
            inbox_name: inbox_name.to_owned(),
            max_queued,
        });
        if let Some(store) = store {
            let storage = Storage::default().start(store, durability, 1, reports(&shared));
            let _ = shared.storage.set(storage);
        }
        shared.lock().machine.connect(at_epoch);
        Ok(shared)
    }

    pub(super) fn now(&self) -> Timestamp {
        self.at_epoch + self.instant().saturating_duration_since(self.epoch)
    }

    /// What the runtime's clock shows.
    pub(super) fn instant(&self) -> Instant {
        (self.clock)()
    }

    pub(super) fn at(&self, time: Timestamp) -> Instant {
        self.epoch + time.since(self.at_epoch)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }

    /// Gives a command to the machine, and wakes the driver for what it has to do.
    pub(super) fn command<T>(&self, command: impl FnOnce(&mut Inner, Timestamp) -> T) -> T {
        self.command_at(self.now(), command)
    }

    fn command_at<T>(&self, now: Timestamp, command: impl FnOnce(&mut Inner, Timestamp) -> T) -> T {
        let mut inner = self.lock();
        let result = command(&mut inner, now);
        let driver = inner.driver.take();
        drop(inner);
        if let Some(driver) = driver {
            driver.wake();
        }
        result
    }

    // ---- waiting for outcomes ----

    /// Gives a command that is answered later.
    pub(super) fn request<E: Into<Error>>(
        self: &Arc<Self>,
        command: impl FnOnce(&mut Machine, Timestamp) -> Result<Token, E>,
    ) -> Result<Pending, Error> {
        let token = self.command(|inner, now| {
            if let Some((cause, _)) = inner.closed {
                return Err(Error::Closed(cause));
            }
            let token = command(&mut inner.machine, now).map_err(Into::into)?;
            inner.waiters.insert(token, Waiter::default());
            Ok(token)
        })?;
        Ok(Pending { shared: self.clone(), token, over: false })
    }

    /// Lets publishers go on that wait for room, once there is some worth waking for.
    pub(super) fn offer_room(&self, inner: &Inner) {
        if self.waiting_for_room.load(Ordering::Acquire) > 0 && inner.machine.queued() <= self.max_queued / 2
        {
            self.room.notify_waiters();
        }
    }

    // ---- acknowledging ----

    pub(super) fn ack(&self, ack: Ack, reason: ReasonCode) {
        let settled = ack.settle(reason);
        if settled.is_some() {
            // What comes of it does not depend on the time, so an old one will do, and nobody asks the clock.
            self.command_at(self.at_epoch, |inner, now| inner.settled(now, settled));
        }
    }

    // ---- streams ----

    /// Adds a stream for messages that match one of `filters`.
    pub(super) fn add_stream(&self, filters: &[String]) -> (u64, Arc<Queue>) {
        let queue = Queue::new(self.limits.stream);
        let mut inner = self.lock();
        let id = inner.routes.add(filters, &queue);
        if inner.closed.is_some() {
            queue.close(&mut Vec::new());
        }
        (id, queue)
    }

    /// Messages that a stream held when it was dropped: they are unclaimed from now on.
    pub(super) fn give_back(&self, mut rest: Batch) {
        if rest.is_empty() {
            return;
        }
        let mut wakers = Vec::new();
        self.command(|inner, now| {
            while let Some(taken) = rest.pop() {
                let settled = inner.routes.give_back(taken, &mut wakers);
                inner.settled(now, settled);
            }
        });
        wakers.into_iter().for_each(Waker::wake);
    }

    /// The driver has ended: nobody is to wait any longer.
    pub(super) fn close(&self, cause: Cause, io: Option<Arc<io::Error>>) {
        let mut wakers = Vec::new();
        let mut inner = self.lock();
        if inner.closed.is_some() {
            return;
        }
        inner.closed = Some((cause, io.clone()));
        // Outcomes that are there can still be fetched.
        inner.waiters.retain(|_, waiter| {
            wakers.extend(waiter.waker.take());
            waiter.outcome.is_some()
        });
        inner.reauth.clear();
        inner.routes.close(&mut wakers);
        drop(inner);
        self.state.send_replace(State::Closed { cause, io });
        self.room.notify_waiters();
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// A machine made from what its store has, and the time at which it goes on.
fn restore(config: ClientConfig, store: &mut dyn Store) -> Result<(Machine, Timestamp), Error> {
    let mut records = Vec::new();
    store.load(&mut |record| records.push(record))?;
    let clock = records.iter().find_map(|record| match record {
        StoreOp::PutClock(clock) => Some(*clock),
        _ => None,
    });
    let now = clock.map_or(Timestamp::ZERO, |clock| clock.resume(Clock::unix_ms(), MAX_DOWNTIME));
    let mut machine = Machine::restore(config, now, records)?;
    machine.handle_wall_clock(now, Clock::unix_ms());
    Ok((machine, now))
}

/// Tells the machine what the storage thread reports.
fn reports(shared: &Arc<Shared>) -> impl Fn(usize, Report) + Send + use<> {
    // The storage thread ends with the last that has to do with the client.
    let shared = Arc::downgrade(shared);
    move |_, report| {
        let Some(shared) = shared.upgrade() else { return };
        shared.command(|inner, now| match report {
            Report::Stored { through } => inner.machine.handle_stored(now, through),
            Report::Failed { .. } => inner.machine.handle_store_failed(now),
            Report::Recovered => inner.machine.handle_stored(now, StoreSeq(0)),
        });
    }
}

impl Inner {
    /// A command is finished.
    pub(super) fn done(&mut self, token: Token, outcome: Outcome, wakers: &mut Vec<Waker>) {
        if let Some(waiter) = self.waiters.get_mut(&token) {
            waiter.outcome = Some(outcome);
            wakers.extend(waiter.waker.take());
        }
    }

    /// Routes the messages that are next, as far as they lie in the machine.
    pub(super) fn route_small(&mut self, now: Timestamp, inbox: Option<&String>, wakers: &mut Vec<Waker>) {
        if self.routes.route_all(&mut self.machine, inbox) {
            return;
        }
        while let Some(received) = self.machine.poll_message() {
            let settled = self.routes.route(Arrived::Small(received), inbox, wakers);
            self.settled(now, settled);
        }
    }

    /// Acknowledges what nobody is going to.
    pub(super) fn settled(&mut self, now: Timestamp, settled: Settled) {
        if let Some((right, reason)) = settled {
            // Stale if the connection is another one by now: the server sends the message again.
            let _ = self.machine.ack(now, right, reason);
        }
    }
}

/// Waits for the outcome of a command.
#[derive(Debug)]
pub(super) struct Pending {
    shared: Arc<Shared>,
    token: Token,
    over: bool,
}

impl Future for Pending {
    type Output = Result<Outcome, Error>;

    fn poll(mut self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let token = self.token;
        let mut inner = self.shared.lock();
        let Some(waiter) = inner.waiters.get_mut(&token) else {
            let cause = inner.closed.as_ref().map_or(Cause::Requested, |(cause, _)| *cause);
            drop(inner);
            self.over = true;
            return Poll::Ready(Err(Error::Closed(cause)));
        };
        if let Some(outcome) = waiter.outcome.take() {
            inner.waiters.remove(&token);
            drop(inner);
            self.over = true;
            return Poll::Ready(Ok(outcome));
        }
        waiter.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.over {
            self.shared.lock().waiters.remove(&self.token);
        }
    }
}

/// Correlation data of a request.
pub(super) fn correlation(id: u64) -> Bytes {
    Bytes::copy_from_slice(&id.to_be_bytes())
}

/// Properties that a request sets itself.
pub(super) const REQUEST_PROPERTIES: [PropertyId; 2] =
    [PropertyId::ResponseTopic, PropertyId::CorrelationData];

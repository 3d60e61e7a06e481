//! What the handles and the driver share: the machine, who waits for what, and the streams.
//!
//! One lock guards it. It is held for short, never while waiting, and never while user code runs.
//! A stream's own lock may be taken within it, never the other way round.

use super::options::Limits;
use super::stream::{Entry, Held, Queue};
use super::{Error, State};
use crate::Clock;
use bytes::Bytes;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use mqtt_proto::{PropertyId, ReasonCode, TopicFilter, TopicName};
use mqtt_session::client::Delivery as Right;
use mqtt_session::client::{Cause, Client as Machine, ClientConfig, Outcome, Received, Token};
use mqtt_session::{Message, StoreOp, StoreSeq, Timestamp};
use mqtt_store::{Report, Storage, StorageHandle, Store};
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, OnceCell, oneshot, watch};

/// How long a client believes to have been down at most, by the wall clock.
const MAX_DOWNTIME: Duration = Duration::from_secs(30 * 86_400);

/// A lock that a panic elsewhere does not make unusable: what it guards is changed in whole steps.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

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
    routes: Vec<Route>,
    last_route: u64,
    /// The routes of the last topic: messages often come in runs.
    cached: (String, Vec<usize>),
    unclaimed: Arc<Queue>,
    pub(super) unclaimed_taken: bool,
    responses: HashMap<u64, oneshot::Sender<Message>, FixedState>,
    last_response: u64,
    pub(super) reauth: Vec<oneshot::Sender<()>>,
    /// Set once the driver has ended.
    pub(super) closed: Option<(Cause, Option<Arc<io::Error>>)>,
}

#[derive(Debug, Default)]
struct Waiter {
    waker: Option<Waker>,
    outcome: Option<Outcome>,
}

#[derive(Debug)]
struct Route {
    id: u64,
    filters: Vec<String>,
    queue: Arc<Queue>,
}

/// The right to acknowledge a message.
#[derive(Debug)]
pub(super) enum Ack {
    One(Right),
    /// Of a message that several streams got.
    Several(Arc<Mutex<Several>>),
}

#[derive(Debug)]
pub(super) struct Several {
    left: usize,
    reason: ReasonCode,
    right: Option<Right>,
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
                routes: Vec::new(),
                last_route: 0,
                cached: Default::default(),
                unclaimed: Queue::new(limits.unclaimed),
                unclaimed_taken: false,
                responses: HashMap::default(),
                last_response: 0,
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
        let now = self.now();
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
        let Some((right, reason)) = ack.settle(reason) else { return };
        self.command(|inner, now| {
            // Stale if the connection is another one by now: the server sends the message again.
            let _ = inner.machine.ack(now, right, reason);
        });
    }

    // ---- streams ----

    /// Adds a stream for messages that match one of `filters`.
    pub(super) fn add_stream(&self, filters: &[String]) -> (u64, Arc<Queue>) {
        let queue = Queue::new(self.limits.stream);
        let mut inner = self.lock();
        inner.last_route += 1;
        let id = inner.last_route;
        inner.routes.push(Route { id, filters: filters.to_vec(), queue: queue.clone() });
        inner.cached.0.clear();
        if inner.closed.is_some() {
            queue.close(&mut Vec::new());
        }
        (id, queue)
    }

    /// Removes a stream; `None` is the one of unclaimed messages.
    pub(super) fn remove_stream(&self, id: Option<u64>) {
        let mut inner = self.lock();
        match id {
            Some(id) => inner.routes.retain(|route| route.id != id),
            None => inner.unclaimed_taken = false,
        }
        inner.cached.0.clear();
    }

    /// Messages that a stream held when it was dropped: they are unclaimed from now on.
    pub(super) fn give_back(&self, rest: VecDeque<Entry>) {
        if rest.is_empty() {
            return;
        }
        let mut wakers = Vec::new();
        self.command(|inner, now| {
            for entry in rest {
                if let Entry::Message(held) = entry {
                    inner.unclaimed(now, held, &mut wakers);
                }
            }
        });
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Those of `filters` that no other stream than `id` has.
    pub(super) fn sole_filters(&self, id: Option<u64>, filters: &[String]) -> Vec<String> {
        let inner = self.lock();
        let others = || inner.routes.iter().filter(|route| Some(route.id) != id);
        filters
            .iter()
            .filter(|filter| !others().any(|route| route.filters.contains(filter)))
            .cloned()
            .collect()
    }

    /// The stream of unclaimed messages, unless somebody has it.
    pub(super) fn take_unclaimed(&self) -> Option<Arc<Queue>> {
        let mut inner = self.lock();
        if inner.unclaimed_taken {
            return None;
        }
        inner.unclaimed_taken = true;
        Some(inner.unclaimed.clone())
    }

    // ---- responses ----

    /// A number that ties a response to its request, and where the response will arrive.
    pub(super) fn expect_response(&self) -> (u64, oneshot::Receiver<Message>) {
        let (sender, receiver) = oneshot::channel();
        let mut inner = self.lock();
        inner.last_response += 1;
        let id = inner.last_response;
        inner.responses.insert(id, sender);
        (id, receiver)
    }

    pub(super) fn forget_response(&self, id: u64) {
        self.lock().responses.remove(&id);
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
        inner.responses.clear();
        inner.reauth.clear();
        inner.unclaimed.close(&mut wakers);
        for route in &inner.routes {
            route.queue.close(&mut wakers);
        }
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

    /// A message goes once to every stream whose filter matches.
    pub(super) fn route(
        &mut self,
        now: Timestamp,
        mut received: Box<Received>,
        inbox: Option<&String>,
        wakers: &mut Vec<Waker>,
    ) {
        if inbox.is_some_and(|inbox| *inbox == received.message.topic) {
            if let Some(right) = received.delivery.take() {
                let _ = self.machine.ack(now, right, ReasonCode::Success);
            }
            self.respond(received.message);
            return;
        }
        if self.cached.0 != received.message.topic {
            self.find_routes(&received.message.topic);
        }
        match self.cached.1[..] {
            [] => self.unclaimed(now, Held { received, several: None }, wakers),
            [index] => {
                if let Some(route) = self.routes.get(index) {
                    route.queue.push(Held { received, several: None }, wakers);
                }
            }
            ref indexes => {
                let (left, reason) = (indexes.len(), ReasonCode::Success);
                let right = received.delivery.take();
                let several =
                    right.map(|right| Arc::new(Mutex::new(Several { left, reason, right: Some(right) })));
                for route in indexes.iter().filter_map(|&index| self.routes.get(index)) {
                    let (message, dup) = (received.message.clone(), received.dup);
                    let received = Box::new(Received { message, dup, delivery: None });
                    route.queue.push(Held { received, several: several.clone() }, wakers);
                }
            }
        }
    }

    fn find_routes(&mut self, topic: &str) {
        let Ok(name) = TopicName::new(topic) else { return };
        let matches = |filter: &String| TopicFilter::new(filter).is_ok_and(|filter| filter.matches(name));
        let found = self.routes.iter().enumerate().filter(|(_, route)| route.filters.iter().any(matches));
        self.cached = (topic.to_owned(), found.map(|(index, _)| index).collect());
    }

    /// A message that no stream claims. While nobody takes such messages, a few are kept; others are
    /// acknowledged [MQTT-4.5.0-2] and dropped, else they would fill the window for all.
    fn unclaimed(&mut self, now: Timestamp, held: Held, wakers: &mut Vec<Waker>) {
        if self.unclaimed_taken {
            self.unclaimed.push(held, wakers);
        } else if let Some((right, reason)) =
            self.unclaimed.push_unheard(held).and_then(|ack| ack.settle(ReasonCode::Success))
        {
            let _ = self.machine.ack(now, right, reason);
        }
    }

    fn respond(&mut self, message: Message) {
        let properties = message.properties.as_properties();
        let id = properties.correlation_data().and_then(|data| data.try_into().ok()).map(u64::from_be_bytes);
        if let Some(sender) = id.and_then(|id| self.responses.remove(&id)) {
            // Nobody waits any more: then nobody wants it.
            let _ = sender.send(message);
        }
    }

    pub(super) fn subscription_lost(&self, filter: &str, reason: ReasonCode, wakers: &mut Vec<Waker>) {
        for route in self.routes.iter().filter(|route| route.filters.iter().any(|f| f == filter)) {
            route.queue.refused(filter, reason, wakers);
        }
    }
}

impl Ack {
    /// The right, once all that share it have acknowledged, and with which code: the worst.
    fn settle(self, reason: ReasonCode) -> Option<(Right, ReasonCode)> {
        match self {
            Self::One(right) => Some((right, reason)),
            Self::Several(several) => {
                let mut several = lock(&several);
                several.left -= 1;
                several.reason = several.reason.max(reason);
                if several.left > 0 {
                    return None;
                }
                let reason = several.reason;
                several.right.take().map(|right| (right, reason))
            }
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

//! Which stream gets a message, and who acknowledges it.
//!
//! The driver collects what arrives for a stream, and hands it over at the end of its turn.

use super::queue::{Arrived, Batch, Queue, Taken};
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use mqtt_proto::{ReasonCode, TopicFilter, TopicName};
use mqtt_session::Message;
use mqtt_session::client::{Client as Machine, Delivery as Right};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use tokio::sync::oneshot;

/// A lock that a panic elsewhere does not make unusable: what it guards is changed in whole steps.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The right to acknowledge a message.
#[derive(Debug)]
pub(super) enum Ack {
    One(Right),
    /// Of a message that several streams got.
    Several(Arc<Mutex<Several>>),
}

#[derive(Debug, Default)]
pub(super) struct Several {
    left: usize,
    reason: ReasonCode,
    right: Option<Right>,
}

/// What the machine is to be told of a message.
pub(super) type Settled = Option<(Right, ReasonCode)>;

impl Several {
    /// A right that so many streams share.
    pub(super) fn shared(left: usize, right: Right) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self { left, reason: ReasonCode::Success, right: Some(right) }))
    }
}

impl Ack {
    /// The right, once all that share it have acknowledged, and with which code: the worst.
    pub(super) fn settle(self, reason: ReasonCode) -> Settled {
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

#[derive(Debug)]
struct Route {
    id: u64,
    filters: Vec<String>,
    queue: Arc<Queue>,
    /// What the driver has for it in this turn.
    collected: Batch,
}

#[derive(Debug)]
pub(super) struct Routes {
    routes: Vec<Route>,
    last_id: u64,
    /// The routes of the last topic: messages often come in runs.
    cached: (String, Vec<usize>),
    unclaimed: Arc<Queue>,
    unclaimed_taken: bool,
    responses: HashMap<u64, oneshot::Sender<Message>, FixedState>,
    last_response: u64,
}

impl Routes {
    pub(super) fn new(unclaimed: usize) -> Self {
        Self {
            routes: Vec::new(),
            last_id: 0,
            cached: Default::default(),
            unclaimed: Queue::new(unclaimed),
            unclaimed_taken: false,
            responses: HashMap::default(),
            last_response: 0,
        }
    }

    /// Adds a stream for messages that match one of `filters`, and tells its number.
    pub(super) fn add(&mut self, filters: &[String], queue: &Arc<Queue>) -> u64 {
        self.last_id += 1;
        let (id, filters, queue) = (self.last_id, filters.to_vec(), queue.clone());
        self.routes.push(Route { id, filters, queue, collected: Batch::default() });
        self.cached.0.clear();
        id
    }

    /// Removes a stream; `None` is the one of unclaimed messages.
    pub(super) fn remove(&mut self, id: Option<u64>) {
        match id {
            Some(id) => self.routes.retain(|route| route.id != id),
            None => self.unclaimed_taken = false,
        }
        self.cached.0.clear();
    }

    /// Those of `filters` that no other stream than `id` has.
    pub(super) fn sole_filters(&self, id: Option<u64>, filters: &[String]) -> Vec<String> {
        let others = || self.routes.iter().filter(|route| Some(route.id) != id);
        filters
            .iter()
            .filter(|filter| !others().any(|route| route.filters.contains(filter)))
            .cloned()
            .collect()
    }

    /// The stream of unclaimed messages, unless somebody has it.
    pub(super) fn take_unclaimed(&mut self) -> Option<Arc<Queue>> {
        if self.unclaimed_taken {
            return None;
        }
        self.unclaimed_taken = true;
        Some(self.unclaimed.clone())
    }

    /// A number that ties a response to its request, and where the response will arrive.
    pub(super) fn expect_response(&mut self) -> (u64, oneshot::Receiver<Message>) {
        let (sender, receiver) = oneshot::channel();
        self.last_response += 1;
        self.responses.insert(self.last_response, sender);
        (self.last_response, receiver)
    }

    pub(super) fn forget_response(&mut self, id: u64) {
        self.responses.remove(&id);
    }

    /// A message goes once to every stream whose filter matches.
    #[inline]
    pub(super) fn route(
        &mut self,
        mut arrived: Arrived<'_>,
        inbox: Option<&String>,
        wakers: &mut Vec<Waker>,
    ) -> Settled {
        let right = match &mut arrived {
            Arrived::Small(received) => received.head.delivery.take(),
            Arrived::Large(received) => received.delivery.take(),
        };
        if inbox.is_some_and(|inbox| inbox == arrived.topic()) {
            self.respond(arrived.into_message());
            return right.map(|right| (right, ReasonCode::Success));
        }
        if self.cached.0 != arrived.topic() {
            self.find_routes(arrived.topic());
        }
        match self.cached.1[..] {
            [] => return self.unclaimed(arrived, right.map(Ack::One), wakers),
            [index] => {
                if let Some(route) = self.routes.get_mut(index) {
                    route.collected.push(arrived, right.map(Ack::One), route.queue.capacity());
                }
            }
            ref indexes => {
                let shared = right.map(|right| Several::shared(indexes.len(), right));
                for &index in indexes {
                    if let Some(route) = self.routes.get_mut(index) {
                        let ack = shared.clone().map(Ack::Several);
                        route.collected.push(arrived.share(), ack, route.queue.capacity());
                    }
                }
            }
        }
        None
    }

    /// Gives the machine's messages as a whole to the stream that gets all of them, if there is one and it gets nobody
    /// else's. False if they have to be looked at one by one.
    pub(super) fn route_all(&mut self, machine: &mut Machine, inbox: Option<&String>) -> bool {
        let Some(messages) = machine.messages() else { return false };
        let mut only = None;
        for topic in messages.topics() {
            if inbox.is_some_and(|inbox| inbox == topic) {
                return false;
            }
            if self.cached.0 != topic {
                self.find_routes(topic);
            }
            match self.cached.1[..] {
                [index] if only.is_none_or(|only| only == index) => only = Some(index),
                _ => return false,
            }
        }
        let Some(route) = only.and_then(|index| self.routes.get_mut(index)) else { return false };
        route.collected.push_swapped(|bundle| machine.swap_messages(bundle));
        true
    }

    /// Hands over to the streams what was collected for them.
    pub(super) fn hand_over(&mut self, wakers: &mut Vec<Waker>) {
        for route in self.routes.iter_mut().filter(|route| !route.collected.is_empty()) {
            route.queue.append(&mut route.collected, wakers);
        }
    }

    fn find_routes(&mut self, topic: &str) {
        let Ok(name) = TopicName::new(topic) else { return };
        let matches = |filter: &String| TopicFilter::new(filter).is_ok_and(|filter| filter.matches(name));
        let found = self.routes.iter().enumerate().filter(|(_, route)| route.filters.iter().any(matches));
        let (cached, indexes) = &mut self.cached;
        cached.clear();
        cached.push_str(topic);
        indexes.clear();
        indexes.extend(found.map(|(index, _)| index));
    }

    /// A message that no stream claims. While nobody takes such messages, a few are kept; others are
    /// acknowledged [MQTT-4.5.0-2] and dropped, else they would fill the window for all.
    fn unclaimed(&mut self, arrived: Arrived<'_>, ack: Option<Ack>, wakers: &mut Vec<Waker>) -> Settled {
        if self.unclaimed_taken {
            self.unclaimed.push(arrived, ack, wakers);
            return None;
        }
        self.unclaimed.push_unheard(arrived, ack)?.settle(ReasonCode::Success)
    }

    /// The first of what a stream held when it was dropped: it is unclaimed from now on.
    pub(super) fn give_back(&mut self, mut taken: Taken<'_>, wakers: &mut Vec<Waker>) -> Settled {
        let ack = taken.take_ack();
        let arrived = match taken {
            Taken::Small(received) => Arrived::Small(received),
            Taken::Large(received, _) => Arrived::Large(received),
            Taken::Lagged(_) | Taken::Refused(..) => return None,
        };
        self.unclaimed(arrived, ack, wakers)
    }

    fn respond(&mut self, message: Message) {
        let properties = message.properties.as_properties();
        let id = properties.correlation_data().and_then(|data| data.try_into().ok()).map(u64::from_be_bytes);
        if let Some(sender) = id.and_then(|id| self.responses.remove(&id)) {
            // Nobody waits any more: then nobody wants it.
            let _ = sender.send(message);
        }
    }

    pub(super) fn subscription_lost(&mut self, filter: &str, reason: ReasonCode) {
        for route in self.routes.iter_mut().filter(|route| route.filters.iter().any(|f| f == filter)) {
            route.collected.refused(filter, reason);
        }
    }

    /// Nothing more will come.
    pub(super) fn close(&mut self, wakers: &mut Vec<Waker>) {
        self.responses.clear();
        self.unclaimed.close(wakers);
        for route in &self.routes {
            route.queue.close(wakers);
        }
    }
}

//! What waits in a stream, between the driver and its receiver.

use super::routes::{Ack, lock};
use mqtt_proto::ReasonCode;
use mqtt_session::Message;
use mqtt_session::client::{Bundle, Head, Received, ReceivedRef};
use std::collections::VecDeque;
use std::mem::{swap, take};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

/// Above this, room for parts is given back as soon as there are none.
const KEEP: usize = 1024;
/// Empty bundles that are kept for what comes.
const KEEP_BUNDLES: usize = 4;
/// Up to so many messages are copied behind others; more stay in the bundle in which they came.
const FEW: usize = 16;
/// A bundle with so many bytes gets no more.
const FULL: usize = 16 << 10;

/// A message that arrived, without the right to acknowledge it.
pub(super) enum Arrived<'a> {
    Small(ReceivedRef<'a>),
    Large(Box<Received>),
}

impl Arrived<'_> {
    pub(super) fn topic(&self) -> &str {
        match self {
            Self::Small(received) => received.topic,
            Self::Large(received) => &received.message.topic,
        }
    }

    /// The same for another stream.
    pub(super) fn share(&self) -> Arrived<'_> {
        match self {
            Self::Small(ReceivedRef { topic, payload, properties, head }) => {
                let &Head { qos, retain, dup, .. } = head;
                let head = Head { qos, retain, dup, delivery: None };
                Arrived::Small(ReceivedRef { topic, payload, properties: properties.clone(), head })
            }
            Self::Large(received) => {
                let (message, dup) = (received.message.clone(), received.dup);
                Arrived::Large(Box::new(Received { message, dup, delivery: None }))
            }
        }
    }

    pub(super) fn into_message(self) -> Message {
        match self {
            Self::Small(received) => Received::from(received).message,
            Self::Large(received) => received.message,
        }
    }
}

#[derive(Debug)]
enum Part {
    /// Messages, with the rights to acknowledge them. When all are taken it stays until the next part is wanted.
    Small(Bundle),
    Large(Box<Received>, Option<Ack>),
    Lagged(u64),
    Refused(String, ReasonCode),
}

/// What is taken out of a batch.
#[derive(Debug)]
pub(super) enum Taken<'a> {
    /// With the right to acknowledge it.
    Small(ReceivedRef<'a>),
    Large(Box<Received>, Option<Ack>),
    Lagged(u64),
    Refused(String, ReasonCode),
}

impl Taken<'_> {
    /// The right to acknowledge it.
    pub(super) fn take_ack(&mut self) -> Option<Ack> {
        match self {
            Self::Small(received) => received.head.delivery.take().map(Ack::One),
            Self::Large(_, ack) => ack.take(),
            Self::Lagged(_) | Self::Refused(..) => None,
        }
    }
}

/// Messages and what else a stream yields, in order. Small messages lie in bundles, so that waiting takes no memory
/// for each; the application's own is made when it gets the message.
#[derive(Debug, Default)]
pub(super) struct Batch {
    parts: VecDeque<Part>,
    /// Messages and others.
    len: usize,
    /// Empty ones.
    spare: Vec<Bundle>,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends. With `capacity` entries or more, it drops what need not be acknowledged, and counts it.
    #[inline]
    pub(super) fn push(&mut self, arrived: Arrived<'_>, ack: Option<Ack>, capacity: usize) {
        if ack.is_none() && self.len >= capacity {
            self.lag(1);
            return;
        }
        self.len += 1;
        let large = match (arrived, ack) {
            (Arrived::Small(received), None) => self.push_small(received),
            (Arrived::Small(mut received), Some(Ack::One(right))) => {
                received.head.delivery = Some(right);
                self.push_small(received)
            }
            (Arrived::Small(received), ack) => Some((Box::new(received.into()), ack)),
            (Arrived::Large(received), ack) => Some((received, ack)),
        };
        if let Some((received, ack)) = large {
            self.parts.push_back(Part::Large(received, ack));
        }
    }

    /// Appends a message to a bundle; gives it back if it is too large for one.
    fn push_small(&mut self, received: ReceivedRef<'_>) -> Option<(Box<Received>, Option<Ack>)> {
        let pushed = match self.parts.back_mut() {
            Some(Part::Small(bundle)) if bundle.size() < FULL => bundle.push(received),
            _ => {
                let mut bundle = self.spare.pop().unwrap_or_default();
                let pushed = bundle.push(received);
                if pushed.is_ok() {
                    self.parts.push_back(Part::Small(bundle));
                } else {
                    self.keep(bundle);
                }
                pushed
            }
        };
        let mut received = pushed.err()?;
        let ack = received.head.delivery.take().map(Ack::One);
        Some((Box::new(received.into()), ack))
    }

    /// Appends all messages of a bundle, as if each of them came now.
    fn push_bundle(&mut self, mut bundle: Bundle, capacity: usize) {
        if bundle.len() > FEW && self.len + bundle.len() <= capacity {
            self.len += bundle.len();
            self.parts.push_back(Part::Small(bundle));
            return;
        }
        while let Some(mut received) = bundle.pop() {
            let ack = received.head.delivery.take().map(Ack::One);
            self.push(Arrived::Small(received), ack, capacity);
        }
        self.keep(bundle);
    }

    /// Lets `fill` swap a bundle with messages for an empty one, and appends them.
    pub(super) fn push_swapped(&mut self, fill: impl FnOnce(&mut Bundle) -> bool) {
        let mut bundle = self.spare.pop().unwrap_or_default();
        if !fill(&mut bundle) || bundle.is_empty() {
            self.keep(bundle);
            return;
        }
        self.len += bundle.len();
        self.parts.push_back(Part::Small(bundle));
    }

    fn keep(&mut self, mut bundle: Bundle) {
        if self.spare.len() < KEEP_BUNDLES {
            bundle.clear();
            self.spare.push(bundle);
        }
    }

    fn lag(&mut self, more: u64) {
        match self.parts.back_mut() {
            // Counts up to 2^64.
            Some(Part::Lagged(n)) => *n += more,
            _ => self.push_other(Part::Lagged(more)),
        }
    }

    pub(super) fn refused(&mut self, filter: &str, reason: ReasonCode) {
        self.push_other(Part::Refused(filter.to_owned(), reason));
    }

    fn push_other(&mut self, part: Part) {
        self.len += 1;
        self.parts.push_back(part);
    }

    /// Appends all of `other`, as if each of it came now.
    fn append(&mut self, other: &mut Self, capacity: usize) {
        self.retire();
        if self.is_empty() && other.len <= capacity {
            swap(self, other);
            return;
        }
        for part in other.parts.drain(..) {
            match part {
                Part::Small(bundle) => self.push_bundle(bundle, capacity),
                Part::Large(received, ack) => self.push(Arrived::Large(received), ack, capacity),
                Part::Lagged(n) => self.lag(n),
                refused @ Part::Refused(..) => self.push_other(refused),
            }
        }
        other.len = 0;
        while other.spare.len() < KEEP_BUNDLES
            && let Some(bundle) = self.spare.pop()
        {
            other.spare.push(bundle);
        }
    }

    /// Takes the first. What the application gets of it is made by who has it, at the place where it is wanted: it is large
    /// enough for its moves to cost more than making it.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<Taken<'_>> {
        if self.len == 0 {
            return None;
        }
        if self.parts.front().is_some_and(Part::is_over) {
            self.retire();
        }
        // Each part has at least one.
        self.len -= 1;
        if let Some(Part::Small(_)) = self.parts.front() {
            let Some(Part::Small(bundle)) = self.parts.front_mut() else { return None };
            return bundle.pop().map(Taken::Small);
        }
        match self.parts.pop_front()? {
            // It is taken above.
            Part::Small(_) => None,
            Part::Large(received, ack) => Some(Taken::Large(received, ack)),
            Part::Lagged(n) => Some(Taken::Lagged(n)),
            Part::Refused(filter, reason) => Some(Taken::Refused(filter, reason)),
        }
    }

    /// Keeps bundles of which everything was taken for what comes.
    fn retire(&mut self) {
        while self.parts.front().is_some_and(Part::is_over) {
            if let Some(Part::Small(bundle)) = self.parts.pop_front() {
                self.keep(bundle);
            }
        }
        if self.parts.is_empty() && self.parts.capacity() > KEEP {
            self.parts = VecDeque::new();
        }
    }
}

impl Part {
    #[inline]
    fn is_over(&self) -> bool {
        matches!(self, Self::Small(bundle) if bundle.is_empty())
    }
}

/// What a stream holds.
#[derive(Debug)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    capacity: usize,
}

#[derive(Debug, Default)]
struct Inner {
    batch: Batch,
    waker: Option<Waker>,
    closed: bool,
}

impl Queue {
    pub(super) fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self { inner: Mutex::default(), capacity })
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Appends all of `batch`, with one lock and one waking. A full stream drops what need not be acknowledged, and
    /// counts it.
    pub(super) fn append(&self, batch: &mut Batch, wakers: &mut Vec<Waker>) {
        let mut inner = lock(&self.inner);
        inner.batch.append(batch, self.capacity);
        wakers.extend(inner.waker.take());
    }

    /// Appends one.
    pub(super) fn push(&self, arrived: Arrived<'_>, ack: Option<Ack>, wakers: &mut Vec<Waker>) {
        let mut inner = lock(&self.inner);
        inner.batch.push(arrived, ack, self.capacity);
        wakers.extend(inner.waker.take());
    }

    /// Appends to a backlog that nobody takes. Gives back the right to acknowledge what it drops.
    pub(super) fn push_unheard(&self, arrived: Arrived<'_>, ack: Option<Ack>) -> Option<Ack> {
        let mut inner = lock(&self.inner);
        if inner.batch.len >= self.capacity {
            inner.batch.lag(1);
            return ack;
        }
        inner.batch.push(arrived, ack, self.capacity);
        None
    }

    /// Nothing more will come.
    pub(super) fn close(&self, wakers: &mut Vec<Waker>) {
        let mut inner = lock(&self.inner);
        inner.closed = true;
        wakers.extend(inner.waker.take());
    }

    /// All that waits.
    pub(super) fn take(&self) -> Batch {
        take(&mut lock(&self.inner).batch)
    }

    /// Swaps what waits for `empty`, so that the receiver locks once for many.
    pub(super) fn swap(&self, empty: &mut Batch) {
        swap(&mut lock(&self.inner).batch, empty);
    }

    /// As `swap`, once there is something or the stream is closed.
    pub(super) fn poll_swap(&self, cx: &mut Context<'_>, empty: &mut Batch) -> Poll<()> {
        let mut inner = lock(&self.inner);
        if inner.batch.is_empty() && !inner.closed {
            inner.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        swap(&mut inner.batch, empty);
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use mqtt_proto::{PropertiesBuf, Property, QoS};

    /// The same numbers each time.
    fn numbers(seed: u64) -> impl FnMut(u64) -> u64 {
        let mut state = seed;
        move |below| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        }
    }

    /// A right, whatever it is for.
    fn some_ack() -> Ack {
        Ack::Several(Default::default())
    }

    /// What a stream yields, as text.
    fn text(taken: Option<Taken<'_>>) -> Option<String> {
        let mut taken = taken?;
        let ack = taken.take_ack();
        let (message, dup) = match taken {
            Taken::Small(received) => {
                let Received { message, dup, .. } = received.into();
                (message, dup)
            }
            Taken::Large(received, _) => (received.message, received.dup),
            Taken::Lagged(n) => return Some(format!("lagged {n}")),
            Taken::Refused(filter, _) => return Some(filter),
        };
        let Message { topic, payload, qos, retain, properties } = message;
        let (len, of, properties) = (payload.len(), payload[0], properties.len());
        Some(format!("{topic} {len} {of} {properties} {qos:?} {retain} {dup} {}", ack.is_some()))
    }

    /// A stream that gets each message by itself yields what one yields that gets them in batches, one by one or as whole
    /// bundles, however its receiver takes them.
    #[test]
    fn batches_change_nothing() {
        for seed in 0..300 {
            let mut number = numbers(seed);
            let capacity = 1 + usize::try_from(number(if seed % 2 == 0 { 12 } else { 200 })).unwrap();
            let (single, batched) = (Queue::new(capacity), Queue::new(capacity));
            let (mut ready, mut other_ready) = (Batch::default(), Batch::default());
            let mut wakers = Vec::new();
            let mut collected = Batch::default();
            for _ in 0..30 {
                let as_a_whole = number(2) == 0;
                let mut bundle = Bundle::default();
                for _ in 0..number(60) {
                    let topic = ["a", "a/b", "c"][usize::try_from(number(3)).unwrap()];
                    let size = if number(30) == 0 { 1025 } else { 1 + usize::try_from(number(40)).unwrap() };
                    let payload = vec![u8::try_from(number(256)).unwrap(); size];
                    let (dup, retain) = (number(2) == 0, number(2) == 0);
                    let ack = (number(3) == 0 && !as_a_whole).then(some_ack);
                    let other_ack = ack.is_some().then(some_ack);
                    match number(12) {
                        0 if !as_a_whole => {
                            single.append(&mut refusal("r"), &mut wakers);
                            collected.refused("r", ReasonCode::NotAuthorized);
                        }
                        1 if !as_a_whole => {
                            let message = Message {
                                topic: topic.into(),
                                payload: Bytes::from(payload),
                                qos: QoS::AtLeastOnce,
                                retain,
                                properties: PropertiesBuf::new(),
                            };
                            let received =
                                || Box::new(Received { message: message.clone(), dup, delivery: None });
                            single.push(Arrived::Large(received()), ack, &mut wakers);
                            collected.push(Arrived::Large(received()), other_ack, capacity);
                        }
                        _ => {
                            let mut properties = PropertiesBuf::new();
                            if number(5) == 0 {
                                properties.push(Property::ContentType("text")).unwrap();
                            }
                            let small = || {
                                let head = Head { qos: QoS::AtMostOnce, retain, dup, delivery: None };
                                ReceivedRef { topic, payload: &payload, properties: properties.clone(), head }
                            };
                            if !as_a_whole {
                                collected.push(Arrived::Small(small()), other_ack, capacity);
                            } else if bundle.push(small()).is_err() {
                                continue;
                            }
                            single.push(Arrived::Small(small()), ack, &mut wakers);
                        }
                    }
                }
                collected.push_swapped(|empty| {
                    swap(empty, &mut bundle);
                    as_a_whole
                });
                batched.append(&mut collected, &mut wakers);
                assert!(collected.is_empty() && collected.parts.is_empty(), "seed {seed}");
                assert!(collected.spare.len() <= KEEP_BUNDLES);
                for _ in 0..number(90) {
                    if ready.is_empty() {
                        single.swap(&mut ready);
                        batched.swap(&mut other_ready);
                    }
                    assert_eq!(ready.len, other_ready.len, "seed {seed}");
                    assert_eq!(text(ready.pop()), text(other_ready.pop()), "seed {seed}");
                }
            }
        }
    }

    /// Who takes many small messages and one large one is left without the memory of either.
    #[test]
    fn memory_is_kept_for_a_few_bundles_only() {
        let (queue, mut ready) = (Queue::new(1_000_000), Batch::default());
        let payload = [0; 1000];
        for _ in 0..KEEP_BUNDLES * 200 {
            let head = Head::default();
            let small = ReceivedRef { topic: "a", payload: &payload, properties: PropertiesBuf::new(), head };
            queue.push(Arrived::Small(small), None, &mut Vec::new());
        }
        queue.swap(&mut ready);
        assert!(ready.parts.len() > 2 * KEEP_BUNDLES, "{}", ready.parts.len());
        while ready.pop().is_some() {}
        ready.retire();
        assert!(ready.is_empty() && ready.parts.is_empty() && ready.spare.len() == KEEP_BUNDLES);
    }

    fn refusal(filter: &str) -> Batch {
        let mut batch = Batch::default();
        batch.refused(filter, ReasonCode::NotAuthorized);
        batch
    }
}

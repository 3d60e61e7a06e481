//! What waits in a stream, between the driver and its receiver.

use super::routes::{Ack, lock};
use mqtt_proto::{QoS, ReasonCode};
use mqtt_session::Message;
use mqtt_session::client::{Bundle, Head, Place, Received, ReceivedRef};
use std::collections::VecDeque;
use std::mem::{swap, take};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

/// Above this, room for entries is given back as soon as there are none.
const KEEP: usize = 4096;

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
            Self::Small(ReceivedRef { topic, payload, place, head }) => {
                let &Head { qos, retain, dup, .. } = head;
                let head = Head { qos, retain, dup, delivery: None };
                Arrived::Small(ReceivedRef { topic, payload, place: *place, head })
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
enum Entry {
    /// A message of the bundle.
    Small(Small),
    Large(Box<Received>, Option<Ack>),
    Lagged(u64),
    Refused(String, ReasonCode),
}

#[derive(Debug)]
struct Small {
    place: Place,
    qos: QoS,
    retain: bool,
    dup: bool,
    ack: Option<Ack>,
}

/// What is taken out of a batch.
#[derive(Debug)]
pub(super) enum Taken {
    Message { message: Message, dup: bool, ack: Option<Ack> },
    Lagged(u64),
    Refused(String, ReasonCode),
}

/// Messages and what else a stream yields, in order. Small messages lie in a bundle, so that waiting takes no memory
/// for each; the application's own is made when it gets the message.
#[derive(Debug, Default)]
pub(super) struct Batch {
    entries: VecDeque<Entry>,
    bundle: Bundle,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Appends. With `capacity` entries or more, it drops what need not be acknowledged, and counts it.
    #[inline]
    pub(super) fn push(&mut self, arrived: Arrived<'_>, ack: Option<Ack>, capacity: usize) {
        if ack.is_none() && self.entries.len() >= capacity {
            self.lag(1);
            return;
        }
        self.entries.push_back(match arrived {
            Arrived::Small(received) => match self.bundle.push(received.topic, received.payload) {
                Some(place) => {
                    let Head { qos, retain, dup, .. } = received.head;
                    Entry::Small(Small { place, qos, retain, dup, ack })
                }
                None => Entry::Large(Box::new(received.into()), ack),
            },
            Arrived::Large(received) => Entry::Large(received, ack),
        });
    }

    /// As `push`, for a message whose bundle comes later, by `bundle_mut`.
    #[inline]
    pub(super) fn push_in_place(&mut self, received: ReceivedRef<'_>, ack: Option<Ack>, capacity: usize) {
        if ack.is_none() && self.entries.len() >= capacity {
            self.lag(1);
            return;
        }
        let (place, Head { qos, retain, dup, .. }) = (received.place, received.head);
        self.entries.push_back(Entry::Small(Small { place, qos, retain, dup, ack }));
    }

    /// Whether nothing is in the bundle: then messages may be pushed in place, all or none.
    pub(super) fn bundle_is_empty(&self) -> bool {
        self.bundle.is_empty()
    }

    /// The bundle of all that was pushed in place.
    pub(super) fn bundle_mut(&mut self) -> &mut Bundle {
        &mut self.bundle
    }

    fn lag(&mut self, more: u64) {
        match self.entries.back_mut() {
            // Counts up to 2^64.
            Some(Entry::Lagged(n)) => *n += more,
            _ => self.entries.push_back(Entry::Lagged(more)),
        }
    }

    pub(super) fn refused(&mut self, filter: &str, reason: ReasonCode) {
        self.entries.push_back(Entry::Refused(filter.to_owned(), reason));
    }

    /// Appends all of `other`, as if each of it came now.
    fn append(&mut self, other: &mut Self, capacity: usize) {
        if self.is_empty() {
            swap(self, other);
            return;
        }
        for entry in other.entries.drain(..) {
            match entry {
                Entry::Small(Small { place, qos, retain, dup, ack }) => {
                    let (topic, payload) = other.bundle.get(place);
                    let head = Head { qos, retain, dup, delivery: None };
                    self.push(Arrived::Small(ReceivedRef { topic, payload, place, head }), ack, capacity);
                }
                Entry::Large(received, ack) => self.push(Arrived::Large(received), ack, capacity),
                Entry::Lagged(n) => self.lag(n),
                refused @ Entry::Refused(..) => self.entries.push_back(refused),
            }
        }
        other.bundle.clear();
    }

    #[inline]
    pub(super) fn pop(&mut self) -> Option<Taken> {
        let taken = match self.entries.pop_front()? {
            Entry::Small(Small { place, qos, retain, dup, ack }) => {
                let (topic, payload) = self.bundle.get(place);
                let head = Head { qos, retain, dup, delivery: None };
                let Received { message, .. } = ReceivedRef { topic, payload, place, head }.into();
                Taken::Message { message, dup, ack }
            }
            Entry::Large(received, ack) => {
                Taken::Message { message: received.message, dup: received.dup, ack }
            }
            Entry::Lagged(n) => Taken::Lagged(n),
            Entry::Refused(filter, reason) => Taken::Refused(filter, reason),
        };
        if self.entries.is_empty() {
            self.bundle.clear();
            if self.entries.capacity() > KEEP {
                self.entries = VecDeque::new();
            }
        }
        Some(taken)
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
        if inner.batch.entries.len() >= self.capacity {
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
    use mqtt_proto::PropertiesBuf;

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
    fn text(taken: Option<Taken>) -> Option<String> {
        Some(match taken? {
            Taken::Message { message, dup, ack } => {
                let Message { topic, payload, qos, retain, .. } = message;
                format!("{topic} {} {} {qos:?} {retain} {dup} {}", payload.len(), payload[0], ack.is_some())
            }
            Taken::Lagged(n) => format!("lagged {n}"),
            Taken::Refused(filter, _) => filter,
        })
    }

    /// A stream that gets each message by itself yields what one yields that gets them in batches, copied or in place,
    /// however its receiver takes them.
    #[test]
    fn batches_change_nothing() {
        for seed in 0..300 {
            let mut number = numbers(seed);
            let capacity = 1 + usize::try_from(number(12)).unwrap();
            let (single, batched) = (Queue::new(capacity), Queue::new(capacity));
            let (mut ready, mut other_ready) = (Batch::default(), Batch::default());
            let mut wakers = Vec::new();
            for _ in 0..30 {
                let mut collected = Batch::default();
                let mut bundle = Bundle::default();
                let in_place = number(2) == 0;
                for _ in 0..number(20) {
                    let topic = ["a", "a/b", "c"][usize::try_from(number(3)).unwrap()];
                    let payload =
                        vec![u8::try_from(number(256)).unwrap(); 1 + usize::try_from(number(40)).unwrap()];
                    let (dup, retain) = (number(2) == 0, number(2) == 0);
                    let ack = (number(3) == 0).then(some_ack);
                    let other_ack = ack.is_some().then(some_ack);
                    match number(12) {
                        0 => {
                            single.append(&mut refusal("r"), &mut wakers);
                            collected.refused("r", ReasonCode::NotAuthorized);
                        }
                        1 => {
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
                            let place = bundle.push(topic, &payload).unwrap();
                            let small = || {
                                let head = Head { qos: QoS::AtMostOnce, retain, dup, delivery: None };
                                ReceivedRef { topic, payload: &payload, place, head }
                            };
                            single.push(Arrived::Small(small()), ack, &mut wakers);
                            if in_place {
                                collected.push_in_place(small(), other_ack, capacity);
                            } else {
                                collected.push(Arrived::Small(small()), other_ack, capacity);
                            }
                        }
                    }
                }
                if in_place {
                    *collected.bundle_mut() = bundle;
                }
                batched.append(&mut collected, &mut wakers);
                assert!(collected.is_empty() && collected.bundle_is_empty());
                for _ in 0..number(30) {
                    if ready.is_empty() {
                        single.swap(&mut ready);
                        batched.swap(&mut other_ready);
                    }
                    assert_eq!(text(ready.pop()), text(other_ready.pop()), "seed {seed}");
                }
            }
        }
    }

    fn refusal(filter: &str) -> Batch {
        let mut batch = Batch::default();
        batch.refused(filter, ReasonCode::NotAuthorized);
        batch
    }
}

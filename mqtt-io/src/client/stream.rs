//! Streams of messages.

use super::shared::{Ack, Several, Shared, lock};
use super::{Error, Handle};
use mqtt_proto::ReasonCode;
use mqtt_session::Message;
use mqtt_session::client::Received;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::ops::Deref;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

/// What a stream yields.
#[derive(Debug)]
#[non_exhaustive]
pub enum Item {
    /// A message.
    Message(Delivery),
    /// This many messages were dropped here because the stream was full.
    Lagged(u64),
    /// The server had lost the session, and refused to make the subscription again: nothing more will
    /// come for this filter.
    Refused {
        /// The filter.
        filter: String,
        /// Why.
        reason: ReasonCode,
    },
}

/// A message that arrived. It dereferences to the [`Message`].
#[derive(Debug)]
pub struct Delivery {
    received: Box<Received>,
    ack: Option<(Arc<Shared>, Ack)>,
}

impl Delivery {
    /// Whether the server may have sent it before.
    #[must_use]
    pub fn is_dup(&self) -> bool {
        self.received.dup
    }

    /// The message, without acknowledging it.
    #[must_use]
    pub fn into_message(self) -> Message {
        self.received.message
    }

    /// Acknowledges the message, if that is up to the application ([`Options::manual_ack`]) and its
    /// QoS is above 0. Messages may be acknowledged in any order; a message that several streams got is
    /// acknowledged when all have. Without it, the server sends the message again after reconnecting.
    ///
    /// [`Options::manual_ack`]: super::Options::manual_ack
    pub fn ack(self) -> Message {
        self.answer(ReasonCode::Success)
    }

    /// Refuses the message with a code from 0x80 on (5.0; below, it acknowledges).
    pub fn refuse(self, reason: ReasonCode) -> Message {
        self.answer(reason)
    }

    fn answer(mut self, reason: ReasonCode) -> Message {
        if let Some((shared, ack)) = self.ack.take() {
            shared.ack(ack, reason);
        }
        self.received.message
    }
}

impl Deref for Delivery {
    type Target = Message;

    fn deref(&self) -> &Message {
        &self.received.message
    }
}

/// A message that waits in a stream, with the right to acknowledge it.
#[derive(Debug)]
pub(super) struct Held {
    /// The right to acknowledge it is in here if this is the only stream that got it ...
    pub(super) received: Box<Received>,
    /// ... and here if there are several.
    pub(super) several: Option<Arc<Mutex<Several>>>,
}

impl Held {
    fn has_ack(&self) -> bool {
        self.received.delivery.is_some() || self.several.is_some()
    }

    /// Takes the right to acknowledge the message.
    pub(super) fn take_ack(&mut self) -> Option<Ack> {
        match self.several.take() {
            Some(several) => Some(Ack::Several(several)),
            None => self.received.delivery.take().map(Ack::One),
        }
    }
}

#[derive(Debug)]
pub(super) enum Entry {
    Message(Held),
    Lagged(u64),
    Refused(String, ReasonCode),
}

/// What a stream holds, between the driver and its receiver.
#[derive(Debug)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    capacity: usize,
}

#[derive(Debug, Default)]
struct Inner {
    entries: VecDeque<Entry>,
    waker: Option<Waker>,
    closed: bool,
}

impl Queue {
    pub(super) fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self { inner: Mutex::default(), capacity })
    }

    /// Appends. A full stream drops what need not be acknowledged, and counts it.
    pub(super) fn push(&self, held: Held, wakers: &mut Vec<Waker>) {
        let mut inner = lock(&self.inner);
        if !held.has_ack() && inner.entries.len() >= self.capacity {
            inner.lag();
            return;
        }
        inner.entries.push_back(Entry::Message(held));
        wakers.extend(inner.waker.take());
    }

    /// Appends to a backlog that nobody takes. Gives back the right to acknowledge what it drops.
    pub(super) fn push_unheard(&self, mut held: Held) -> Option<Ack> {
        let mut inner = lock(&self.inner);
        if inner.entries.len() >= self.capacity {
            inner.lag();
            return held.take_ack();
        }
        inner.entries.push_back(Entry::Message(held));
        None
    }

    pub(super) fn refused(&self, filter: &str, reason: ReasonCode, wakers: &mut Vec<Waker>) {
        let mut inner = lock(&self.inner);
        inner.entries.push_back(Entry::Refused(filter.to_owned(), reason));
        wakers.extend(inner.waker.take());
    }

    /// Nothing more will come.
    pub(super) fn close(&self, wakers: &mut Vec<Waker>) {
        let mut inner = lock(&self.inner);
        inner.closed = true;
        wakers.extend(inner.waker.take());
    }

    /// All that waits.
    pub(super) fn take(&self) -> VecDeque<Entry> {
        std::mem::take(&mut lock(&self.inner).entries)
    }

    /// Swaps what waits for `empty`, so that the receiver locks once for many.
    fn poll_swap(&self, cx: &mut Context<'_>, empty: &mut VecDeque<Entry>) -> Poll<()> {
        let mut inner = lock(&self.inner);
        if inner.entries.is_empty() && !inner.closed {
            inner.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        std::mem::swap(&mut inner.entries, empty);
        Poll::Ready(())
    }
}

impl Inner {
    fn lag(&mut self) {
        match self.entries.back_mut() {
            // Counts up to 2^64.
            Some(Entry::Lagged(n)) => *n += 1,
            _ => self.entries.push_back(Entry::Lagged(1)),
        }
    }
}

/// The messages that match the filters of one subscribe, or that match no stream's filter
/// ([`Client::unclaimed`](super::Client::unclaimed)).
///
/// A stream that is not read never stops the client: when it is full it drops messages of QoS 0 and
/// says so by [`Item::Lagged`]; others stay unacknowledged, so that the server holds back.
///
/// Dropping a stream neither unsubscribes nor acknowledges. What it held goes to
/// [`Client::unclaimed`](super::Client::unclaimed), and so does what still comes.
#[derive(Debug)]
pub struct Subscription {
    handle: Arc<Handle>,
    queue: Arc<Queue>,
    /// Taken out of the queue at once, given out one by one.
    ready: VecDeque<Entry>,
    /// Number among the streams; `None` for unclaimed messages.
    id: Option<u64>,
    filters: Vec<String>,
    pub(super) granted: Vec<ReasonCode>,
    manual: bool,
}

impl Subscription {
    pub(super) fn new(handle: Arc<Handle>, queue: Arc<Queue>, id: Option<u64>, filters: Vec<String>) -> Self {
        let manual = handle.shared.limits.manual_ack;
        Self { handle, queue, ready: VecDeque::new(), id, filters, granted: Vec::new(), manual }
    }

    /// The next message; `None` once the client is closed and everything was given out.
    ///
    /// Unless acknowledging is up to the application, the message is acknowledged by this.
    ///
    /// Cancel safety: dropping the future before it is ready takes nothing.
    pub async fn recv(&mut self) -> Option<Item> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// As [`Subscription::recv`], for those who poll.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Item>> {
        if self.ready.is_empty() && self.queue.poll_swap(cx, &mut self.ready).is_pending() {
            return Poll::Pending;
        }
        Poll::Ready(self.ready.pop_front().map(|entry| self.hand_out(entry)))
    }

    /// The next message, if there is one.
    pub fn try_recv(&mut self) -> Option<Item> {
        if self.ready.is_empty() {
            self.ready = self.queue.take();
        }
        self.ready.pop_front().map(|entry| self.hand_out(entry))
    }

    fn hand_out(&self, entry: Entry) -> Item {
        match entry {
            Entry::Message(mut held) => {
                let shared = &self.handle.shared;
                let ack = match held.take_ack() {
                    Some(ack) if self.manual => Some((shared.clone(), ack)),
                    Some(ack) => {
                        shared.ack(ack, ReasonCode::Success);
                        None
                    }
                    None => None,
                };
                Item::Message(Delivery { received: held.received, ack })
            }
            Entry::Lagged(n) => Item::Lagged(n),
            Entry::Refused(filter, reason) => Item::Refused { filter, reason },
        }
    }

    /// The server's answer for each filter, in order: the granted QoS, or from 0x80 on a refusal.
    #[must_use]
    pub fn granted(&self) -> &[ReasonCode] {
        &self.granted
    }

    /// The filters.
    #[must_use]
    pub fn filters(&self) -> &[String] {
        &self.filters
    }

    /// Gives the subscription back, except filters that another stream has as well, and acknowledges
    /// what was not received.
    ///
    /// Cancel safety: once polled, the request is made, and dropping the future does not take it back.
    ///
    /// # Errors
    /// If the request is not taken, or the client closes before the server answers.
    pub async fn unsubscribe(mut self) -> Result<(), Error> {
        let shared = self.handle.shared.clone();
        let filters = shared.sole_filters(self.id, &self.filters);
        let answered = match filters.is_empty() {
            true => Ok(()),
            false => {
                let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
                self.handle.unsubscribe(&filters).await
            }
        };
        for entry in self.close() {
            if let Entry::Message(mut held) = entry
                && let Some(ack) = held.take_ack()
            {
                shared.ack(ack, ReasonCode::Success);
            }
        }
        answered
    }

    /// Ends the stream, and gives back what was not received.
    fn close(&mut self) -> VecDeque<Entry> {
        self.handle.shared.remove_stream(self.id);
        let mut rest = std::mem::take(&mut self.ready);
        rest.append(&mut self.queue.take());
        rest
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let rest = self.close();
        self.handle.shared.give_back(rest);
    }
}

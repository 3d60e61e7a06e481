//! Streams of messages.

use super::queue::{Batch, Queue, Taken};
use super::routes::Ack;
use super::shared::Shared;
use super::{Error, Handle};
use bytes::Bytes;
use mqtt_proto::ReasonCode;
use mqtt_session::Message;
use mqtt_session::client::{Head, ReceivedRef};
use std::future::poll_fn;
use std::mem::take;
use std::ops::Deref;
use std::sync::Arc;
use std::task::{Context, Poll};

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
    message: Message,
    dup: bool,
    ack: Option<(Arc<Shared>, Ack)>,
}

impl Delivery {
    /// Whether the server may have sent it before.
    #[must_use]
    pub fn is_dup(&self) -> bool {
        self.dup
    }

    /// The message, without acknowledging it.
    #[must_use]
    pub fn into_message(self) -> Message {
        self.message
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
        self.message
    }
}

impl Deref for Delivery {
    type Target = Message;

    fn deref(&self) -> &Message {
        &self.message
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
    ready: Batch,
    /// Number among the streams; `None` for unclaimed messages.
    id: Option<u64>,
    filters: Vec<String>,
    pub(super) granted: Vec<ReasonCode>,
    manual: bool,
}

impl Subscription {
    pub(super) fn new(handle: Arc<Handle>, queue: Arc<Queue>, id: Option<u64>, filters: Vec<String>) -> Self {
        let manual = handle.shared.limits.manual_ack;
        Self { handle, queue, ready: Batch::default(), id, filters, granted: Vec::new(), manual }
    }

    /// The next message; `None` once the client is closed and everything was given out.
    ///
    /// Unless acknowledging is up to the application, the message is acknowledged by this.
    ///
    /// Cancel safety: dropping the future before it is ready takes nothing.
    pub fn recv(&mut self) -> impl Future<Output = Option<Item>> + Send {
        poll_fn(|cx| self.poll_recv(cx))
    }

    /// As [`Subscription::recv`], for those who poll.
    #[inline]
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Item>> {
        if self.ready.is_empty() && self.queue.poll_swap(cx, &mut self.ready).is_pending() {
            return Poll::Pending;
        }
        Poll::Ready(self.take())
    }

    /// The next message, if there is one.
    pub fn try_recv(&mut self) -> Option<Item> {
        if self.ready.is_empty() {
            self.queue.swap(&mut self.ready);
        }
        self.take()
    }

    #[inline]
    fn take(&mut self) -> Option<Item> {
        let mut taken = self.ready.pop()?;
        let ack = match taken.take_ack() {
            Some(ack) if self.manual => Some((self.handle.shared.clone(), ack)),
            Some(ack) => {
                self.handle.shared.ack(ack, ReasonCode::Success);
                None
            }
            None => None,
        };
        Some(match taken {
            Taken::Small(ReceivedRef { topic, payload, properties, head }) => {
                // In this order: what was written a moment ago is slow to move.
                let payload = Bytes::copy_from_slice(payload);
                let topic = topic.to_owned();
                let Head { qos, retain, dup, .. } = head;
                let message = Message { topic, payload, qos, retain, properties };
                Item::Message(Delivery { message, dup, ack })
            }
            Taken::Large(received, _) => {
                Item::Message(Delivery { message: received.message, dup: received.dup, ack })
            }
            Taken::Lagged(n) => Item::Lagged(n),
            Taken::Refused(filter, reason) => Item::Refused { filter, reason },
        })
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
        let filters = shared.lock().routes.sole_filters(self.id, &self.filters);
        let answered = match filters.is_empty() {
            true => Ok(()),
            false => {
                let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
                self.handle.unsubscribe(&filters).await
            }
        };
        for mut batch in self.close() {
            while let Some(mut taken) = batch.pop() {
                if let Some(ack) = taken.take_ack() {
                    shared.ack(ack, ReasonCode::Success);
                }
            }
        }
        answered
    }

    /// Ends the stream, and gives back what was not received, the older part first.
    fn close(&mut self) -> [Batch; 2] {
        self.handle.shared.lock().routes.remove(self.id);
        [take(&mut self.ready), self.queue.take()]
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        for rest in self.close() {
            self.handle.shared.give_back(rest);
        }
    }
}

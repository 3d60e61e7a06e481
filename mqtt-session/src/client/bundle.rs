//! Small messages that wait, without memory of their own for each.

use super::event::{Delivery, Received};
use crate::Message;
use alloc::string::String;
use alloc::vec::Vec;
use bytes::Bytes;
use mqtt_proto::{PropertiesBuf, QoS, RawPublish};

/// A larger payload waits in memory of its own, and is not copied again.
const MAX_PAYLOAD: usize = 1024;
/// Above this a buffer is given back as soon as it is empty.
const KEEP: usize = 64 << 10;

/// Topics and payloads of small messages, one behind the other. A topic that comes again and again is kept once.
///
/// It is for those who keep messages until the application takes them: what the machine has received in one read fits
/// into two pieces of memory. [`Place`] tells where a message is.
///
/// ```
/// use mqtt_session::client::Bundle;
///
/// let mut bundle = Bundle::default();
/// let place = bundle.push("a/b", b"hi").expect("room");
/// assert_eq!(bundle.get(place), ("a/b", &b"hi"[..]));
/// ```
#[derive(Debug, Default)]
pub struct Bundle {
    topics: String,
    /// Where the last topic begins.
    last: usize,
    payloads: Vec<u8>,
}

/// Where a message is in a [`Bundle`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    topic: u32,
    payload: u32,
    topic_len: u16,
    payload_len: u16,
}

impl Bundle {
    /// Copies a message; `None` if it is too large for this, or the bundle is.
    #[inline]
    pub fn push(&mut self, topic: &str, payload: &[u8]) -> Option<Place> {
        self.push_with(topic.as_bytes(), payload, |_| Some(topic))
    }

    /// As `push`, with a topic that is only made text of if it is another one than the last.
    #[inline]
    pub(super) fn push_raw(&mut self, topic: &[u8], payload: &[u8]) -> Option<Place> {
        self.push_with(topic, payload, |topic| core::str::from_utf8(topic).ok())
    }

    #[inline]
    fn push_with<'t>(
        &mut self,
        topic: &'t [u8],
        payload: &[u8],
        text: impl FnOnce(&'t [u8]) -> Option<&'t str>,
    ) -> Option<Place> {
        if payload.len() > MAX_PAYLOAD {
            return None;
        }
        let is_new = self.last_topic().as_bytes() != topic;
        let at = if is_new { self.topics.len() } else { self.last };
        let place = Place {
            topic: u32::try_from(at).ok()?,
            payload: u32::try_from(self.payloads.len()).ok()?,
            topic_len: u16::try_from(topic.len()).ok()?,
            payload_len: u16::try_from(payload.len()).ok()?,
        };
        if is_new {
            self.topics.push_str(text(topic)?);
            self.last = at;
        }
        self.payloads.extend_from_slice(payload);
        Some(place)
    }

    /// The topic of the last message; empty if there is none.
    #[inline]
    #[must_use]
    pub fn last_topic(&self) -> &str {
        self.topics.get(self.last..).unwrap_or_default()
    }

    /// Topic and payload of a message; empty if it is not in here.
    #[inline]
    #[must_use]
    pub fn get(&self, place: Place) -> (&str, &[u8]) {
        let (topic, payload) = (place.topic as usize, place.payload as usize);
        let topic = self.topics.get(topic..topic + usize::from(place.topic_len));
        let payload = self.payloads.get(payload..payload + usize::from(place.payload_len));
        (topic.unwrap_or_default(), payload.unwrap_or_default())
    }

    /// Bytes that are held.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.topics.len() + self.payloads.len()
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets all messages. What it needed for many is given back.
    #[inline]
    pub fn clear(&mut self) {
        self.topics.clear();
        self.payloads.clear();
        self.last = 0;
        if self.topics.capacity() + self.payloads.capacity() > KEEP {
            *self = Self::default();
        }
    }
}

/// A received message that lies in the machine; see [`Received`].
#[derive(Debug, PartialEq, Eq)]
pub struct ReceivedRef<'a> {
    /// The topic, complete.
    pub topic: &'a str,
    /// The application's bytes.
    pub payload: &'a [u8],
    /// Where it is in the bundle that [`Client::swap_bundle`](super::Client::swap_bundle) gives.
    pub place: Place,
    /// What there is besides.
    pub head: Head,
}

/// What a received message without properties has besides topic and payload.
#[derive(Debug, PartialEq, Eq)]
pub struct Head {
    /// As in [`Message::qos`].
    pub qos: QoS,
    /// As in [`Message::retain`].
    pub retain: bool,
    /// As in [`Received::dup`].
    pub dup: bool,
    /// As in [`Received::delivery`].
    pub delivery: Option<Delivery>,
}

impl Head {
    #[inline]
    pub(super) fn of(publish: &RawPublish<'_>) -> Self {
        Self { qos: publish.qos, retain: publish.retain, dup: publish.dup, delivery: None }
    }
}

impl From<ReceivedRef<'_>> for Received {
    #[inline]
    fn from(received: ReceivedRef<'_>) -> Self {
        let ReceivedRef { topic, payload, head, .. } = received;
        let message = Message {
            topic: topic.into(),
            payload: Bytes::copy_from_slice(payload),
            qos: head.qos,
            retain: head.retain,
            properties: PropertiesBuf::new(),
        };
        Self { message, dup: head.dup, delivery: head.delivery }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn what_was_pushed_is_there_and_a_topic_that_comes_again_only_once() {
        let mut bundle = Bundle::default();
        let messages = [("a/b", "1"), ("a/b", ""), ("a/c", "2"), ("a/b", "3"), ("a/b", "4"), ("é", "5")];
        let places = messages.map(|(topic, payload)| bundle.push(topic, payload.as_bytes()).unwrap());
        for (place, (topic, payload)) in places.into_iter().zip(messages) {
            assert_eq!(bundle.get(place), (topic, payload.as_bytes()));
        }
        assert_eq!(bundle.len(), "a/ba/ca/bé".len() + 5);
        assert_eq!(bundle.last_topic(), "é");
        bundle.clear();
        assert_eq!((bundle.is_empty(), bundle.get(places[0])), (true, ("", &b""[..])));
    }

    #[test]
    fn large_payloads_are_not_taken_and_large_buffers_not_kept() {
        let mut bundle = Bundle::default();
        assert_eq!(bundle.push("a", &[0; MAX_PAYLOAD + 1]), None);
        assert!(bundle.is_empty());
        let payload = vec![0; MAX_PAYLOAD];
        (0..=KEEP / MAX_PAYLOAD).for_each(|_| assert!(bundle.push("a", &payload).is_some()));
        bundle.clear();
        assert_eq!(bundle.payloads.capacity(), 0);
    }
}

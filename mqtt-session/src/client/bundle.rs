//! Small messages that wait, without memory of their own for each.

use super::event::{Delivery, Received};
use crate::Message;
use alloc::string::String;
use alloc::vec::Vec;
use bytes::Bytes;
use core::mem::take;
use mqtt_proto::{PropertiesBuf, QoS, RawPublish};

/// A larger payload, or a longer list of properties, waits in memory of its own, and is not copied again.
const MAX_LEN: usize = 1024;
/// Above so many bytes a buffer is given back as soon as it is empty.
const KEEP: usize = 64 << 10;
/// The same for so many messages.
const KEEP_ENTRIES: usize = 4096;

/// Small messages in their order, with topics and payloads one behind the other. A topic that comes again and again is
/// kept once.
///
/// It is for those who keep messages until the application takes them: what the machine has received in one read lies in
/// a few pieces of memory, which [`Client::swap_messages`](super::Client::swap_messages) gives away as a whole.
///
/// ```
/// use mqtt_session::client::{Bundle, ReceivedRef};
///
/// let mut bundle = Bundle::default();
/// let message = ReceivedRef { topic: "a/b", payload: b"hi", ..ReceivedRef::default() };
/// assert!(bundle.push(message).is_ok());
/// let first = bundle.pop().expect("it is there");
/// assert_eq!((first.topic, first.payload), ("a/b", &b"hi"[..]));
/// ```
#[derive(Debug, Default)]
pub struct Bundle {
    entries: Vec<Entry>,
    /// The first that was not taken.
    next: usize,
    topics: String,
    /// Where the last topic begins.
    last: usize,
    payloads: Vec<u8>,
    /// Of those that have any.
    properties: Properties,
}

#[derive(Debug)]
struct Entry {
    place: Place,
    head: Head,
}

/// Where a message is in a bundle.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    topic: u32,
    payload: u32,
    topic_len: u16,
    payload_len: u16,
    has_properties: bool,
}

#[derive(Debug, Default)]
struct Properties {
    lists: Vec<PropertiesBuf>,
    /// The first that was not taken.
    next: usize,
    size: usize,
}

impl Bundle {
    /// Appends a message.
    ///
    /// # Errors
    /// Gives it back if it is too large for this, with more than 1,024 bytes of payload or of properties, or if the
    /// bundle is: with more than 4 GiB.
    #[inline]
    pub fn push<'m>(&mut self, message: ReceivedRef<'m>) -> Result<(), ReceivedRef<'m>> {
        let (topic, properties) = (message.topic, message.properties.len());
        match self.place(topic.as_bytes(), message.payload, properties, |_| Some(topic)) {
            Some(place) => {
                self.push_at(place, message.properties, message.head);
                Ok(())
            }
            None => Err(message),
        }
    }

    /// Copies topic and payload of a message that is going to be appended next, by `push_at`. The topic is only made text
    /// of if it is another one than the last.
    #[inline(always)]
    pub(super) fn place_raw(&mut self, topic: &[u8], payload: &[u8], properties: usize) -> Option<Place> {
        self.place(topic, payload, properties, |topic| core::str::from_utf8(topic).ok())
    }

    #[inline(always)]
    fn place<'t>(
        &mut self,
        topic: &'t [u8],
        payload: &[u8],
        properties: usize,
        text: impl FnOnce(&'t [u8]) -> Option<&'t str>,
    ) -> Option<Place> {
        if payload.len() > MAX_LEN || properties > MAX_LEN {
            return None;
        }
        if self.next > 0 && self.is_empty() {
            self.clear();
        }
        let last = self.topics.get(self.last..).unwrap_or_default();
        let is_new = last.as_bytes() != topic;
        let at = if is_new { self.topics.len() } else { self.last };
        let place = Place {
            topic: u32::try_from(at).ok()?,
            payload: u32::try_from(self.payloads.len()).ok()?,
            topic_len: u16::try_from(topic.len()).ok()?,
            payload_len: u16::try_from(payload.len()).ok()?,
            has_properties: properties > 0,
        };
        if is_new {
            self.topics.push_str(text(topic)?);
            self.last = at;
        }
        self.payloads.extend_from_slice(payload);
        Some(place)
    }

    #[inline]
    pub(super) fn push_at(&mut self, place: Place, properties: PropertiesBuf, head: Head) {
        if place.has_properties {
            self.properties.size += properties.len();
            self.properties.lists.push(properties);
        }
        self.push_plain(place, head);
    }

    /// As `push_at`, without properties.
    #[inline]
    pub(super) fn push_plain(&mut self, place: Place, head: Head) {
        self.entries.push(Entry { place, head });
    }

    /// Takes the first message.
    #[inline]
    pub fn pop(&mut self) -> Option<ReceivedRef<'_>> {
        let Entry { place, head } = self.entries.get_mut(self.next)?;
        // Counts up to the number of messages.
        self.next += 1;
        let head = Head { delivery: head.delivery.take(), ..*head };
        let payload = place.payload as usize;
        Some(ReceivedRef {
            topic: topic_at(&self.topics, *place),
            payload: self.payloads.get(payload..payload + usize::from(place.payload_len)).unwrap_or_default(),
            properties: if place.has_properties { self.properties.take() } else { PropertiesBuf::new() },
            head,
        })
    }

    /// The topics of its messages, in their order; once for messages in a row that have the same.
    #[inline]
    pub fn topics(&self) -> impl Iterator<Item = &str> {
        let mut last = None;
        self.entries.get(self.next..).unwrap_or_default().iter().filter_map(move |Entry { place, .. }| {
            let is_new = last.replace((place.topic, place.topic_len)) != Some((place.topic, place.topic_len));
            is_new.then(|| topic_at(&self.topics, *place))
        })
    }

    /// How many messages it has.
    #[inline]
    #[must_use]
    pub const fn len(&self) -> usize {
        self.entries.len().saturating_sub(self.next)
    }

    /// Whether it has none.
    #[inline]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that are held, also of messages that were taken since it was empty.
    #[inline]
    #[must_use]
    pub const fn size(&self) -> usize {
        self.topics.len() + self.payloads.len() + self.properties.size
    }

    /// Forgets all messages. What it needed for many is given back.
    #[inline]
    pub fn clear(&mut self) {
        if self.topics.capacity() + self.payloads.capacity() > KEEP || self.entries.capacity() > KEEP_ENTRIES
        {
            *self = Self::default();
            return;
        }
        self.entries.clear();
        self.next = 0;
        self.topics.clear();
        self.payloads.clear();
        self.last = 0;
        if !self.properties.lists.is_empty() {
            self.properties = Properties::default();
        }
    }
}

impl Properties {
    fn take(&mut self) -> PropertiesBuf {
        let list = self.lists.get_mut(self.next).map(take);
        // Counts up to their number.
        self.next += 1;
        list.unwrap_or_default()
    }
}

#[inline]
fn topic_at(topics: &str, place: Place) -> &str {
    let at = place.topic as usize;
    topics.get(at..at + usize::from(place.topic_len)).unwrap_or_default()
}

/// A received message whose topic and payload lie elsewhere; see [`Received`].
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ReceivedRef<'a> {
    /// The topic, complete.
    pub topic: &'a str,
    /// The application's bytes.
    pub payload: &'a [u8],
    /// As in [`Message::properties`].
    pub properties: PropertiesBuf,
    /// What there is besides.
    pub head: Head,
}

/// What a received message has besides topic, payload and properties.
#[derive(Debug, Default, PartialEq, Eq)]
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
        let ReceivedRef { topic, payload, properties, head } = received;
        let message = Message {
            topic: topic.into(),
            payload: Bytes::copy_from_slice(payload),
            qos: head.qos,
            retain: head.retain,
            properties,
        };
        Self { message, dup: head.dup, delivery: head.delivery }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use mqtt_proto::Property;

    fn message<'m>(topic: &'m str, payload: &'m [u8]) -> ReceivedRef<'m> {
        ReceivedRef { topic, payload, ..ReceivedRef::default() }
    }

    fn with_type<'m>(topic: &'m str, text: &'m str) -> ReceivedRef<'m> {
        let properties = PropertiesBuf::new().with(Property::ContentType(text)).unwrap();
        ReceivedRef { properties, ..message(topic, b"") }
    }

    #[test]
    fn what_was_pushed_comes_out_and_a_topic_that_comes_again_is_kept_once() {
        let mut bundle = Bundle::default();
        for round in 0..3 {
            let messages = || {
                let plain = [("a/b", "1"), ("a/b", ""), ("a/c", "2"), ("a/b", "3"), ("a/b", "4"), ("é", "5")];
                let plain = plain.into_iter().map(|(topic, payload)| message(topic, payload.as_bytes()));
                let kind = ["x", "y", "z"][round];
                plain.chain([with_type("é", kind), message("é", b""), with_type("b", "end")])
            };
            messages().for_each(|message| bundle.push(message).unwrap());
            assert_eq!(bundle.len(), 9);
            assert!(bundle.size() >= "a/ba/ca/béb".len() + 5 + 4);
            assert_eq!(bundle.topics().collect::<Vec<_>>(), ["a/b", "a/c", "a/b", "é", "b"]);
            // Forgotten half way, or when all are taken.
            let taken = [9, 4, 9][round];
            for wanted in messages().take(taken) {
                assert_eq!(bundle.pop().unwrap(), wanted);
            }
            if taken < 9 {
                assert_eq!(bundle.topics().collect::<Vec<_>>(), ["a/b", "é", "b"]);
                bundle.clear();
            }
            assert_eq!((bundle.len(), bundle.pop()), (0, None));
        }
    }

    #[test]
    fn what_is_large_is_not_taken_and_large_buffers_are_not_kept() {
        let mut bundle = Bundle::default();
        let (payload, text) = (vec![0; MAX_LEN + 1], "x".repeat(MAX_LEN));
        assert_eq!(bundle.push(message("a", &payload)), Err(message("a", &payload)));
        assert_eq!(bundle.push(with_type("a", &text)), Err(with_type("a", &text)));
        assert!(bundle.is_empty() && bundle.size() == 0);
        (0..=KEEP / MAX_LEN).for_each(|_| bundle.push(message("a", &payload[1..])).unwrap());
        bundle.clear();
        assert_eq!(bundle.payloads.capacity(), 0);
        (0..=KEEP_ENTRIES).for_each(|_| bundle.push(message("a", b"")).unwrap());
        bundle.clear();
        assert_eq!(bundle.entries.capacity(), 0);
    }
}

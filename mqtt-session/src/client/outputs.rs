//! What is to be told, in order. Small messages lie together, so that who takes them by
//! [`Client::poll_message`](super::Client::poll_message) or as a whole needs no memory for each.

use super::bundle::{Bundle, Head, Place, ReceivedRef};
use super::event::{Event, Output, Received};
use crate::Message;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use bytes::Bytes;
use mqtt_proto::{PropertiesBuf, PropertyId, RawPublish};

/// With so many bytes in the bundle, messages get memory of their own: else who never takes the last one would have
/// all of them kept.
const MAX_BUNDLE: usize = 64 << 10;

#[derive(Debug, Default)]
pub(super) struct Outputs {
    queue: VecDeque<Next>,
    bundle: Bundle,
}

#[derive(Debug)]
enum Next {
    Output(Output),
    /// So many messages of the bundle.
    Messages(usize),
}

/// What the application gets of a message, until it is known whether it gets it.
pub(super) enum Content {
    Small(Place, PropertiesBuf),
    Large(Box<Received>),
}

impl Outputs {
    pub(super) fn push(&mut self, output: Output) {
        self.queue.push_back(Next::Output(output));
    }

    /// Appends a message without properties and identifier, which is what comes most. False if it is too large for that.
    #[inline(always)]
    pub(super) fn push_plain(&mut self, publish: &RawPublish<'_>) -> bool {
        if !self.has_room() {
            return false;
        }
        let Some(place) = self.bundle.place_raw(publish.topic, publish.payload, 0) else { return false };
        self.bundle.push_plain(place, Head::of(publish));
        self.count_message();
        true
    }

    #[inline]
    fn has_room(&self) -> bool {
        self.bundle.is_empty() || self.bundle.size() < MAX_BUNDLE
    }

    #[inline]
    fn count_message(&mut self) {
        match self.queue.back_mut() {
            // At most as many as there are bytes in the bundle.
            Some(Next::Messages(n)) => *n += 1,
            _ => self.queue.push_back(Next::Messages(1)),
        }
    }

    /// Copies a message: the topic in full, and without the alias, which means nothing to the application.
    pub(super) fn copy(&mut self, publish: &RawPublish<'_>, topic: &[u8]) -> Content {
        let properties = properties_of(publish);
        let has_room = self.has_room();
        let place = |bundle: &mut Bundle| bundle.place_raw(topic, publish.payload, properties.len());
        match has_room.then_some(&mut self.bundle).and_then(place) {
            Some(place) => Content::Small(place, properties),
            None => Content::Large(Box::new(received(publish, topic, properties))),
        }
    }

    /// Appends the message that was copied last.
    #[inline]
    pub(super) fn push_message(&mut self, content: Content, head: Head) {
        match content {
            Content::Small(place, properties) => {
                self.bundle.push_at(place, properties, head);
                self.count_message();
            }
            Content::Large(mut received) => {
                (received.dup, received.delivery) = (head.dup, head.delivery);
                self.push(Output::Event(Event::Message(received)));
            }
        }
    }

    #[inline]
    pub(super) fn pop(&mut self) -> Option<Output> {
        if let Some(Next::Messages(_)) = self.queue.front() {
            let received = self.pop_message()?;
            return Some(Output::Event(Event::Message(Box::new(received.into()))));
        }
        match self.queue.pop_front()? {
            Next::Output(output) => Some(output),
            // They are taken above.
            Next::Messages(_) => None,
        }
    }

    /// The next output, if it is a message of the bundle.
    #[inline]
    pub(super) fn pop_message(&mut self) -> Option<ReceivedRef<'_>> {
        let Some(Next::Messages(left)) = self.queue.front_mut() else { return None };
        *left = left.saturating_sub(1);
        if *left == 0 {
            self.queue.pop_front();
        }
        self.bundle.pop()
    }

    /// The bundle, if all its messages are next.
    #[inline]
    pub(super) fn messages(&self) -> Option<&Bundle> {
        match self.queue.front()? {
            Next::Messages(n) if *n == self.bundle.len() => Some(&self.bundle),
            _ => None,
        }
    }

    pub(super) fn swap_messages(&mut self, with: &mut Bundle) -> bool {
        if self.messages().is_none() || !with.is_empty() {
            return false;
        }
        self.queue.pop_front();
        core::mem::swap(&mut self.bundle, with);
        self.bundle.clear();
        true
    }
}

#[inline]
fn properties_of(publish: &RawPublish<'_>) -> PropertiesBuf {
    let mut properties = PropertiesBuf::new();
    if publish.properties.contains(PropertyId::TopicAlias) {
        properties.extend_except(publish.properties, &[PropertyId::TopicAlias]);
    } else if !publish.properties.is_empty() {
        properties = publish.properties.into();
    }
    properties
}

#[cold]
fn received(publish: &RawPublish<'_>, topic: &[u8], properties: PropertiesBuf) -> Received {
    let message = Message {
        // It was checked when the packet was decoded.
        topic: core::str::from_utf8(topic).unwrap_or_default().into(),
        payload: Bytes::copy_from_slice(publish.payload),
        qos: publish.qos,
        retain: publish.retain,
        properties,
    };
    Received { message, dup: false, delivery: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mqtt_proto::Version;

    fn push(outputs: &mut Outputs, payload: &[u8]) {
        let mut packet = alloc::vec::Vec::new();
        let publish = mqtt_proto::PublishRef { topic: "a", payload, ..Default::default() };
        mqtt_proto::PacketRef::Publish(publish).encode(Version::V311, &mut packet).unwrap();
        let publish = RawPublish::decode(&packet, Version::V311).unwrap();
        let content = outputs.copy(&publish, publish.topic);
        outputs.push_message(content, Head::of(&publish));
    }

    fn text(output: Option<Output>) -> Option<Bytes> {
        match output? {
            Output::Event(Event::Message(received)) => Some(received.message.payload),
            other => Some(alloc::format!("{other:?}").into()),
        }
    }

    #[test]
    fn the_order_is_kept_however_messages_are_taken() {
        for in_place in 0..8 {
            let mut outputs = Outputs::default();
            push(&mut outputs, b"1");
            push(&mut outputs, b"2");
            outputs.push(Output::Flush);
            push(&mut outputs, &[b'3'; 2000]);
            push(&mut outputs, b"4");
            for (n, wanted) in ["1", "2", "Flush", &"3".repeat(2000), "4"].into_iter().enumerate() {
                let small = n != 2 && n != 3;
                if in_place >> n & 1 == 1 {
                    let found =
                        outputs.pop_message().map(|received| Bytes::copy_from_slice(received.payload));
                    assert_eq!(found.is_some(), small, "{wanted}");
                    if let Some(found) = found {
                        assert_eq!(found, wanted);
                        continue;
                    }
                }
                assert_eq!(text(outputs.pop()).unwrap(), wanted);
            }
            assert_eq!(outputs.pop(), None);
        }
    }

    #[test]
    fn who_never_takes_the_last_message_has_not_all_of_them_kept() {
        let mut outputs = Outputs::default();
        push(&mut outputs, &[0; 1000]);
        for _ in 0..1000 {
            push(&mut outputs, &[0; 1000]);
            assert!(outputs.pop().is_some());
            assert!(outputs.bundle.size() <= MAX_BUNDLE + 1001);
        }
        let mut bundle = Bundle::default();
        push(&mut outputs, b"1");
        outputs.push(Output::Flush);
        push(&mut outputs, b"2");
        assert!(!outputs.swap_messages(&mut bundle), "something is between them");
        assert_eq!(outputs.pop_message().map(|received| received.payload.len()), Some(1000));
        assert!(outputs.pop_message().is_some());
        assert!(!outputs.swap_messages(&mut bundle), "something else is next");
        assert_eq!(outputs.pop(), Some(Output::Flush));
        let mut full = Bundle::default();
        full.push(ReceivedRef { topic: "a", ..ReceivedRef::default() }).unwrap();
        assert!(!outputs.swap_messages(&mut full) && outputs.swap_messages(&mut bundle));
        assert_eq!(bundle.pop().map(|received| (received.topic, received.payload)), Some(("a", &b"2"[..])));
        assert_eq!((bundle.pop(), outputs.pop()), (None, None));
        push(&mut outputs, b"3");
        assert_eq!(text(outputs.pop()).unwrap(), "3");
    }
}

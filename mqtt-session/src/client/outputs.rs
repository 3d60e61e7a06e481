//! What is to be told, in order. Small messages lie together, so that who takes them by
//! [`Client::poll_message`](super::Client::poll_message) needs no memory for each.

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
    /// The messages of the bundle that were not taken.
    messages: VecDeque<(Place, Head)>,
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
    Small(Place),
    Large(Box<Received>),
}

impl Outputs {
    pub(super) fn push(&mut self, output: Output) {
        self.queue.push_back(Next::Output(output));
    }

    /// Copies a message: the topic in full, and without the alias, which means nothing to the application.
    #[inline(always)]
    pub(super) fn copy(&mut self, publish: &RawPublish<'_>, topic: &[u8]) -> Content {
        if self.messages.is_empty() {
            self.bundle.clear();
        }
        let is_plain = publish.properties.is_empty() && self.bundle.len() < MAX_BUNDLE;
        match is_plain.then(|| self.bundle.push_raw(topic, publish.payload)).flatten() {
            Some(place) => Content::Small(place),
            None => Content::Large(Box::new(received(publish, topic))),
        }
    }

    /// Appends a message that was copied.
    #[inline]
    pub(super) fn push_message(&mut self, content: Content, head: Head) {
        match content {
            Content::Small(place) => {
                self.messages.push_back((place, head));
                match self.queue.back_mut() {
                    // At most as many as there are bytes in the bundle.
                    Some(Next::Messages(n)) => *n += 1,
                    _ => self.queue.push_back(Next::Messages(1)),
                }
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
        let (place, head) = self.messages.pop_front()?;
        let (topic, payload) = self.bundle.get(place);
        Some(ReceivedRef { topic, payload, place, head })
    }

    pub(super) fn swap_bundle(&mut self, empty: &mut Bundle) -> bool {
        if self.messages.is_empty() {
            core::mem::swap(&mut self.bundle, empty);
        }
        self.messages.is_empty()
    }
}

fn received(publish: &RawPublish<'_>, topic: &[u8]) -> Received {
    let mut properties = PropertiesBuf::new();
    if publish.properties.contains(PropertyId::TopicAlias) {
        properties.extend_except(publish.properties, &[PropertyId::TopicAlias]);
    } else if !publish.properties.is_empty() {
        properties = publish.properties.into();
    }
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
    use mqtt_proto::{QoS, Version};

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
            assert!(outputs.bundle.len() <= MAX_BUNDLE + 1001);
        }
        let mut bundle = Bundle::default();
        assert!(!outputs.swap_bundle(&mut bundle), "a message waits");
        assert!(outputs.pop().is_some() && outputs.pop().is_none());
        push(&mut outputs, b"1");
        let place = outputs.pop_message().map(|received| (received.place, received.head.qos));
        assert!(outputs.swap_bundle(&mut bundle));
        assert_eq!(
            place.map(|(place, qos)| (bundle.get(place), qos)),
            Some((("a", &b"1"[..]), QoS::AtMostOnce))
        );
    }
}

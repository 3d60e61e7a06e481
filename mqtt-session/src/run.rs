//! Small messages one behind the other in one piece of memory, on their way from one shard to another.

use crate::Timestamp;
use crate::broker::Content;
use alloc::vec::Vec;
use core::fmt;
use mqtt_proto::{QoS, SharedPublish};

/// What topic, properties and payload of a message may have together. Larger ones are better shared than copied for each shard.
const MOST: usize = 1 << 10;
/// Runs grow no further by being joined.
const JOINED: usize = 64 << 10;
/// Lengths of topic, properties and payload, and flags.
const HEAD: usize = 7;

const QOS: u8 = 0x03;
const RETAIN: u8 = 0x04;
const CARE: u8 = 0x08;
const EXPIRES: u8 = 0x10;

/// Messages that one shard hands over to another, in their order.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Run {
    bytes: Vec<u8>,
    messages: u32,
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl Run {
    /// In memory that was used before.
    pub(crate) fn within(mut bytes: Vec<u8>) -> Self {
        bytes.clear();
        Self { bytes, messages: 0 }
    }

    /// The memory, to be used again.
    pub(crate) fn into_memory(self) -> Vec<u8> {
        self.bytes
    }

    /// Makes room for so many bytes.
    pub(crate) fn reserve(&mut self, bytes: usize) {
        self.bytes.reserve(bytes);
    }

    /// Whether a message of this size has a place in a run.
    pub(crate) const fn takes(len: usize) -> bool {
        len <= MOST
    }

    /// How many messages it has.
    #[must_use]
    pub const fn messages(&self) -> u32 {
        self.messages
    }

    /// How many bytes it has.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Adds what `next` has behind its own, if both together are not too large to be handled at once. Otherwise gives it back.
    pub(crate) fn join(&mut self, next: Self) -> Option<Self> {
        if self.bytes.len() + next.bytes.len() > JOINED {
            return Some(next);
        }
        self.bytes.extend_from_slice(&next.bytes);
        self.messages = self.messages.saturating_add(next.messages);
        None
    }

    /// Adds a message of a size that it [takes](Self::takes); and whether its publisher gets the acknowledgement when it is safe.
    pub(crate) fn push(&mut self, content: &Content<'_>, is_awaited: bool) {
        let SharedPublish { topic, properties, payload } = content.shared;
        let mut flags = content.qos.as_u8();
        for (flag, is_set) in
            [(RETAIN, content.retain), (CARE, is_awaited), (EXPIRES, content.expires != Timestamp::MAX)]
        {
            flags |= if is_set { flag } else { 0 };
        }
        let expires = (content.expires != Timestamp::MAX).then(|| content.expires.as_micros().to_le_bytes());
        let expires = expires.as_ref().map_or(&[][..], |bytes| bytes);
        self.bytes.reserve(HEAD + expires.len() + content.len());
        let mut head = [0; HEAD];
        for (place, part) in head.chunks_exact_mut(2).zip([topic, properties, payload]) {
            // None is longer than all together may be.
            place.copy_from_slice(&u16::try_from(part.len()).unwrap_or(u16::MAX).to_le_bytes());
        }
        if let Some(last) = head.last_mut() {
            *last = flags;
        }
        self.bytes.extend_from_slice(&head);
        self.bytes.extend_from_slice(expires);
        self.bytes.extend_from_slice(topic);
        self.bytes.extend_from_slice(properties);
        self.bytes.extend_from_slice(payload);
        self.messages = self.messages.saturating_add(1);
    }

    /// The messages, and whether an acknowledgement waits for each.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Content<'_>, bool)> {
        let mut rest = self.bytes.as_slice();
        core::iter::from_fn(move || next(&mut rest))
    }
}

fn next<'a>(rest: &mut &'a [u8]) -> Option<(Content<'a>, bool)> {
    let (&[t0, t1, p0, p1, b0, b1, flags], mut bytes) = rest.split_first_chunk::<HEAD>()?;
    let mut expires = Timestamp::MAX;
    if flags & EXPIRES != 0 {
        let (micros, behind) = bytes.split_first_chunk()?;
        (expires, bytes) = (Timestamp::from_micros(u64::from_le_bytes(*micros)), behind);
    }
    let mut part = |len: [u8; 2]| {
        let (part, behind) = bytes.split_at_checked(usize::from(u16::from_le_bytes(len)))?;
        bytes = behind;
        Some(part)
    };
    let shared =
        SharedPublish { topic: part([t0, t1])?, properties: part([p0, p1])?, payload: part([b0, b1])? };
    *rest = bytes;
    let qos = QoS::from_u8(flags & QOS)?;
    Some((Content { shared, qos, retain: flags & RETAIN != 0, expires }, flags & CARE != 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    fn content<'a>(topic: &'a str, payload: &'a [u8], expires: Timestamp) -> Content<'a> {
        let shared = SharedPublish { topic: topic.as_bytes(), properties: b"\x01\x01", payload };
        Content { shared, qos: QoS::AtLeastOnce, retain: payload.is_empty(), expires }
    }

    #[test]
    fn what_is_put_in_comes_out_in_the_same_order() {
        let large = [7; MOST - 6];
        let messages = [
            (content("a", b"x", Timestamp::MAX), true),
            (content("b/c", b"", Timestamp::from_micros(5)), false),
            (content("lots", &large, Timestamp::ZERO), true),
        ];
        let (mut run, mut behind) = (Run::default(), Run::default());
        let [first, second, third] = &messages;
        run.push(&first.0, first.1);
        for (content, care) in [second, third] {
            assert!(Run::takes(content.len()));
            behind.push(content, *care);
        }
        assert_eq!(run.join(behind), None);
        assert_eq!(run.messages(), 3);
        let came: Vec<_> = run.iter().map(|one| format!("{one:?}")).collect();
        assert_eq!(came, messages.map(|one| format!("{one:?}")));
    }

    #[test]
    fn runs_are_joined_up_to_a_size_and_lose_nothing() {
        let payload = [1; 1000];
        let (mut run, mut one) = (Run::default(), Run::default());
        one.push(&content("t", &payload, Timestamp::MAX), false);
        let mut joined = 0;
        while run.join(one.clone()).is_none() {
            joined += 1;
        }
        assert_eq!((run.messages(), run.iter().count()), (joined, joined as usize));
        assert!(run.size() <= JOINED && run.size() + one.size() > JOINED);
    }

    #[test]
    fn a_run_that_was_cut_off_ends_before_the_cut() {
        let mut run = Run::default();
        run.push(&content("t", b"1", Timestamp::ZERO), false);
        run.push(&content("t", b"2", Timestamp::ZERO), false);
        let whole = run.bytes.clone();
        for len in 0..whole.len() {
            run.bytes.truncate(0);
            run.bytes.extend_from_slice(&whole[..len]);
            assert!(run.iter().count() < 2);
        }
    }
}

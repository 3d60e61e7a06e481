//! Blanks what is nobody's business in a stream of packets, however it is cut: passwords always, payloads
//! if so wished. Lengths stay, so that a machine does the same with it.

use std::ops::Range;

/// What stands for a blanked byte. It is valid in texts, too.
pub(super) const BLANK: u8 = b'*';

/// One direction of one connection.
#[derive(Debug, Default)]
pub(super) struct Mask {
    /// Payloads are blanked.
    payloads: bool,
    /// Properties stand before payloads.
    pub(super) v5: bool,
    /// The head of the present packet, as far as it was seen: all of CONNECT, and what stands before
    /// the payload of PUBLISH.
    head: Vec<u8>,
    /// Bytes that follow the head, and whether they are blanked.
    left: usize,
    blank: bool,
}

/// A head of more than this is given back.
const KEEP: usize = 256;

const CONNECT: u8 = 1;
const PUBLISH: u8 = 3;

/// What the first bytes of a packet tell.
enum Head {
    /// Too little.
    More,
    /// So much is left, and it is a payload or not.
    Rest { left: usize, payload: bool },
}

impl Mask {
    pub(super) const fn new(payloads: bool) -> Self {
        Self { payloads, v5: false, head: Vec::new(), left: 0, blank: false }
    }

    /// Blanks what is to be blanked in the next bytes of the stream.
    pub(super) fn apply(&mut self, bytes: &mut [u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.left > 0 {
                let (now, later) = rest.split_at_mut(self.left.min(rest.len()));
                if self.blank {
                    now.fill(BLANK);
                }
                self.left -= now.len();
                rest = later;
                continue;
            }
            let Some((byte, later)) = rest.split_first_mut() else { return };
            rest = later;
            self.head.push(*byte);
            if self.is_secret() {
                *byte = BLANK;
            }
            match self.judge() {
                Head::More => {}
                Head::Rest { left, payload } => {
                    self.left = left;
                    self.blank = payload && self.payloads;
                    self.head.clear();
                    self.head.shrink_to(KEEP);
                }
            }
        }
    }

    fn kind(&self) -> u8 {
        self.head.first().map_or(0, |byte| byte >> 4)
    }

    /// Whether the last byte of the head is one that is blanked.
    fn is_secret(&self) -> bool {
        let at = self.head.len() - 1;
        self.kind() == CONNECT
            && secrets(&self.head)
                .is_some_and(|(will, password)| password.contains(&at) || self.payloads && will.contains(&at))
    }

    fn judge(&mut self) -> Head {
        let (remaining, start) = match varint(&self.head, 1) {
            Varint::Cut => return Head::More,
            // No packet, and so nothing that anybody reads.
            Varint::Bad => return Head::Rest { left: usize::MAX, payload: true },
            Varint::Is(remaining, start) => (remaining, start),
        };
        let total = start + remaining;
        let left = total.saturating_sub(self.head.len());
        match self.kind() {
            CONNECT if left > 0 => Head::More,
            CONNECT => {
                // Name, then the level.
                let level = text(&self.head, start).and_then(|at| self.head.get(at));
                self.v5 = level == Some(&5);
                Head::Rest { left, payload: false }
            }
            PUBLISH => match self.payload(start) {
                // A PUBLISH whose head does not fit into it is none.
                Some(at) if at <= self.head.len() || left == 0 => Head::Rest { left, payload: true },
                _ if left == 0 => Head::Rest { left, payload: true },
                _ => Head::More,
            },
            _ => Head::Rest { left, payload: false },
        }
    }

    /// Where the payload of PUBLISH begins, if that is known.
    fn payload(&self, start: usize) -> Option<usize> {
        let has_id = self.head.first()? & 6 != 0;
        let at = text(&self.head, start)? + if has_id { 2 } else { 0 };
        if self.v5 { list(&self.head, at) } else { Some(at) }
    }
}

enum Varint {
    Cut,
    Bad,
    /// The number, and where it ends.
    Is(usize, usize),
}

fn varint(bytes: &[u8], at: usize) -> Varint {
    let mut value = 0;
    for (n, shift) in [0, 7, 14, 21].into_iter().enumerate() {
        let Some(byte) = bytes.get(at + n) else { return Varint::Cut };
        value |= usize::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Varint::Is(value, at + n + 1);
        }
    }
    Varint::Bad
}

/// Where what begins at `at` with two bytes of length ends.
fn text(bytes: &[u8], at: usize) -> Option<usize> {
    let length = bytes.get(at..at + 2)?;
    Some(at + 2 + usize::from(u16::from_be_bytes(length.try_into().ok()?)))
}

/// Where the properties that begin at `at` end.
fn list(bytes: &[u8], at: usize) -> Option<usize> {
    match varint(bytes, at) {
        Varint::Is(len, start) => Some(start + len),
        _ => None,
    }
}

/// Where the will's payload and the password stand in CONNECT, as far as it was seen; empty if there is
/// none. `None` as long as that is not known.
fn secrets(head: &[u8]) -> Option<(Range<usize>, Range<usize>)> {
    const PASSWORD: u8 = 0x40;
    const USER_NAME: u8 = 0x80;
    const WILL: u8 = 0x04;
    let Varint::Is(_, at) = varint(head, 1) else { return None };
    let at = text(head, at)?;
    let (&level, &flags) = (head.get(at)?, head.get(at + 1)?);
    let properties = |at| if level == 5 { list(head, at) } else { Some(at) };
    // Level, flags and keep alive; then the client identifier.
    let mut at = text(head, properties(at + 4)?)?;
    let mut will = 0..0;
    if flags & WILL != 0 {
        let topic = properties(at)?;
        let payload = text(head, topic)?;
        at = text(head, payload)?;
        will = payload + 2..at;
    }
    // From here on the will is known, whatever follows.
    let password = || {
        let at = if flags & USER_NAME != 0 { text(head, at)? } else { at };
        (flags & PASSWORD != 0).then_some(())?;
        text(head, at).map(|end| at + 2..end)
    };
    Some((will, password().unwrap_or(0..0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mqtt_proto::{
        ConnectRef, PacketId, PacketRef, PropertiesBuf, Property, PublishRef, QoS, Version, WillRef,
    };

    fn stream(version: Version) -> (Vec<u8>, Vec<Range<usize>>, Vec<Range<usize>>) {
        let list = PropertiesBuf::new().with(Property::UserProperty("secret", "no")).unwrap();
        let properties = if version.is_v5() { list.as_properties() } else { Default::default() };
        let will = Some(WillRef { topic: "w", payload: b"will", ..WillRef::default() });
        let connect = ConnectRef {
            version,
            properties,
            client_id: "c",
            will,
            user_name: Some("user"),
            password: Some(b"password"),
            ..ConnectRef::default()
        };
        let mut bytes = Vec::new();
        let (mut passwords, mut payloads) = (Vec::new(), Vec::new());
        PacketRef::Connect(connect).encode(version, &mut bytes).unwrap();
        passwords.push(bytes.len() - 8..bytes.len());
        let will = bytes.len() - 8 - 2 - 4 - 2 - 4;
        payloads.push(will..will + 4);
        for (qos, id) in [(QoS::AtMostOnce, None), (QoS::AtLeastOnce, PacketId::new(7))] {
            let payload = b"a payload that is longer than its head";
            let publish =
                PublishRef { topic: "a/b", payload, properties, qos, packet_id: id, ..PublishRef::default() };
            PacketRef::Publish(publish).encode(version, &mut bytes).unwrap();
            payloads.push(bytes.len() - payload.len()..bytes.len());
            PacketRef::Pingreq.encode(version, &mut bytes).unwrap();
            let empty = PublishRef { topic: "a/b", properties, ..PublishRef::default() };
            PacketRef::Publish(empty).encode(version, &mut bytes).unwrap();
        }
        (bytes, passwords, payloads)
    }

    #[test]
    fn secrets_are_blanked_wherever_the_stream_is_cut() {
        for version in [Version::V31, Version::V311, Version::V5] {
            let (bytes, passwords, payloads) = stream(version);
            for with_payloads in [false, true] {
                let mut wanted = bytes.clone();
                let secret = passwords.iter().chain(payloads.iter().filter(|_| with_payloads));
                secret.for_each(|range| wanted[range.clone()].fill(BLANK));
                for step in 1..bytes.len() {
                    let mut got = bytes.clone();
                    let mut mask = Mask::new(with_payloads);
                    got.chunks_mut(step).for_each(|chunk| mask.apply(chunk));
                    assert_eq!(got, wanted, "{version} {with_payloads} in pieces of {step}");
                    assert_eq!(mask.v5, version.is_v5());
                }
            }
        }
    }

    #[test]
    fn nonsense_is_survived() {
        for first in 0..=255 {
            let mut bytes: Vec<u8> = (0..200).map(|n: u8| n.wrapping_mul(first) | first).collect();
            bytes[0] = first;
            let mut mask = Mask::new(true);
            bytes.chunks_mut(3).for_each(|chunk| mask.apply(chunk));
        }
    }
}

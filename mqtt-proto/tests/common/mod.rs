//! What several test files share.

#![allow(dead_code, reason = "no test file needs all of it")]

pub(crate) mod packets;

use mqtt_proto::{AckRef, PacketRef, PacketType, PublishRef, RawPublish, Version};

/// Whoever decodes in one of the short ways finds what [`PacketRef::decode`] does, the same error included.
pub(crate) fn short_ways_agree(bytes: &[u8], version: Version) {
    let packet = PacketRef::decode(bytes, version);
    if bytes.first().is_some_and(|first| first >> 4 == 3) {
        let raw = RawPublish::decode(bytes, version);
        assert_eq!(raw.map(PublishRef::from).map(PacketRef::Publish), packet);
    } else {
        assert!(RawPublish::decode(bytes, version).is_err());
    }
    let ack = AckRef::from_short(bytes).map(|(kind, ack)| match kind {
        PacketType::Puback => PacketRef::Puback(ack),
        PacketType::Pubrec => PacketRef::Pubrec(ack),
        PacketType::Pubrel => PacketRef::Pubrel(ack),
        PacketType::Pubcomp => PacketRef::Pubcomp(ack),
        other => panic!("{other}"),
    });
    // 3.1 allows DUP on PUBREL, which is rare enough for the long way.
    let is_short = bytes.len() == 4 && matches!(bytes[0], 0x40 | 0x50 | 0x62 | 0x70);
    assert_eq!(ack, packet.ok().filter(|_| is_short));
}

/// The bytes that `text` spells, two digits each; blanks between them are for the reader.
pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| u8::try_from(c.to_digit(16).expect("a hex digit")).unwrap())
        .collect();
    assert!(digits.len().is_multiple_of(2), "odd number of digits: {text}");
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

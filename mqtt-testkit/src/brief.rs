use mqtt_proto::{PacketRef, Version};

/// A packet in a few characters, as [`PacketRef`] shows itself.
#[must_use]
pub fn brief(packet: &PacketRef<'_>) -> String {
    packet.to_string()
}

/// All whole packets in `bytes`, in brief.
///
/// # Panics
/// If they are no packets of this version.
#[must_use]
pub fn brief_all(bytes: &[u8], version: Version) -> Vec<String> {
    let mut all = Vec::new();
    let mut rest = bytes;
    while let Some((packet, len)) = PacketRef::decode_next(rest, version, mqtt_proto::MAX_PACKET_SIZE)
        .expect("the machine sends valid packets")
    {
        all.push(brief(&packet));
        rest = &rest[len..];
    }
    assert!(rest.is_empty(), "the machine sent half a packet: {rest:02X?}");
    all
}

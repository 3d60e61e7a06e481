//! How much memory decoding and encoding take: a peer can make us keep what it sent, and no more.

mod common;

use allocation_counter::measure;
use bytes::Bytes;
use common::packets::packet;
use mqtt_proto::{Packet, PacketRef, Publish, Version};
use proptest::prelude::*;

/// Calls `f` and tells how many allocations it made, and how many bytes they had.
fn allocated<T>(f: impl FnOnce() -> T) -> (T, u64, u64) {
    let mut result = None;
    let info = measure(|| result = Some(f()));
    (result.unwrap(), info.count_total, info.bytes_total)
}

/// Reads all there is to read in a packet.
fn visit(packet: &PacketRef<'_>) -> usize {
    let properties = match packet {
        PacketRef::Publish(p) => p.properties,
        PacketRef::Connect(p) => p.properties,
        PacketRef::Subscribe(p) => {
            return p.filters.into_iter().map(|(filter, _)| filter.as_str().len()).sum();
        }
        PacketRef::Unsubscribe(p) => return p.filters.into_iter().map(|filter| filter.as_str().len()).sum(),
        _ => return 0,
    };
    properties.iter().count() + properties.user_properties().map(|(name, _)| name.len()).sum::<usize>()
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocated(|| vec![0u8; 100]).1, 1);
    assert_eq!(allocated(|| ()).1, 0);
}

proptest! {
    #[test]
    fn decoding_a_view_allocates_nothing(model in packet()) {
        let mut wire = Vec::new();
        model.packet().encode(model.version, &mut wire).unwrap();
        let (_, count, _) = allocated(|| visit(&PacketRef::decode(&wire, model.version).unwrap()));
        prop_assert_eq!(count, 0);
    }

    #[test]
    fn keeping_a_packet_takes_one_reference_to_its_bytes(model in packet()) {
        let mut wire = Vec::new();
        model.packet().encode(model.version, &mut wire).unwrap();
        let (n, bytes) = (wire.len() as u64, Bytes::from(wire));
        let (owned, count, size) = allocated(|| Packet::decode(bytes.clone(), model.version).unwrap());
        prop_assert!(count <= 1 && size <= n.max(64), "{count} allocations of {size} bytes for {n}");
        prop_assert_eq!(allocated(|| owned.clone()).1, 0);
        if let PacketRef::Publish(_) = model.packet() {
            let (publish, count, _) = allocated(|| Publish::decode(bytes.clone(), model.version).unwrap());
            prop_assert_eq!(count, 0);
            prop_assert_eq!(allocated(|| visit(&PacketRef::Publish(publish.view()))).1, 0);
        }
    }

    #[test]
    fn encoding_grows_the_buffer_at_most_once(model in packet()) {
        let packet = model.packet();
        let (wire, count, size) = allocated(|| {
            let mut wire = Vec::new();
            packet.encode(model.version, &mut wire).unwrap();
            wire
        });
        prop_assert_eq!(count, 1);
        prop_assert!(size <= (wire.len() as u64).max(8));
        let (_, count, _) = allocated(|| packet.encoded_len(model.version).unwrap());
        prop_assert_eq!(count, 0);
    }

    #[test]
    fn refusing_allocates_nothing(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for version in [Version::V31, Version::V311, Version::V5] {
            prop_assert_eq!(allocated(|| PacketRef::decode(&bytes, version).map(|packet| visit(&packet))).1, 0);
        }
    }
}

//! What holds for every packet and for every input.

mod common;

use common::packets::{Model, packet, packet_of, properties};
use common::short_ways_agree;
use mqtt_proto::{
    Frame, MAX_PACKET_SIZE, Packet, PacketRef, PropertiesBuf, PropertyContext, Publish, Version, frame_header,
};
use proptest::prelude::*;

const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];

fn version() -> impl Strategy<Value = Version> {
    prop::sample::select(&VERSIONS[..])
}

fn encode(model: &Model) -> Vec<u8> {
    let mut wire = Vec::new();
    model.packet().encode(model.version, &mut wire).unwrap();
    wire
}

/// Packets of one connection, laid end to end.
fn stream() -> impl Strategy<Value = (Version, Vec<Model>)> {
    version().prop_flat_map(|version| (Just(version), prop::collection::vec(packet_of(version), 1..5)))
}

/// Bytes that begin like a packet, so that decoding gets beyond the header.
fn plausible() -> impl Strategy<Value = Vec<u8>> {
    (any::<u8>(), prop::collection::vec(prop_oneof![0u8..8, any::<u8>()], 0..60)).prop_map(|(first, body)| {
        let mut bytes = vec![first, u8::try_from(body.len()).unwrap()];
        bytes.extend(body);
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn packets_survive_the_wire(model in packet()) {
        let packet = model.packet();
        let mut wire = vec![0xAA; 3];
        let len = packet.encode(model.version, &mut wire).unwrap();
        prop_assert_eq!(wire.len(), 3 + len);
        prop_assert_eq!(packet.encoded_len(model.version), Ok(len));
        prop_assert_eq!(PacketRef::decode(&wire[3..], model.version), Ok(packet));
        let owned = Packet::decode(wire[3..].to_vec().into(), model.version).unwrap();
        prop_assert_eq!(owned.view(), Ok(packet));
        if let PacketRef::Publish(publish) = packet {
            let owned = Publish::decode(wire[3..].to_vec().into(), model.version).unwrap();
            prop_assert_eq!(owned.view(), publish);
        }
    }

    #[test]
    fn encoding_reserves_what_it_needs_and_no_more(model in packet()) {
        let len = model.packet().encoded_len(model.version).unwrap();
        let mut wire = Vec::with_capacity(len);
        let (room, at) = (wire.capacity(), wire.as_ptr());
        model.packet().encode(model.version, &mut wire).unwrap();
        prop_assert_eq!((wire.capacity(), wire.as_ptr()), (room, at));
    }

    #[test]
    fn a_stream_gives_the_same_packets_however_it_is_cut((version, models) in stream(), cuts in prop::collection::vec(1..40usize, 1..8)) {
        let wire: Vec<u8> = models.iter().flat_map(encode).collect();
        let mut cuts = cuts.into_iter().cycle();
        let (mut arrived, mut at, mut found) = (0, 0, 0);
        while found < models.len() {
            match PacketRef::decode_next(&wire[at..arrived], version, MAX_PACKET_SIZE).unwrap() {
                Some((packet, len)) => {
                    prop_assert_eq!(packet, models[found].packet());
                    at += len;
                    found += 1;
                }
                None => {
                    prop_assert!(arrived < wire.len(), "all bytes are there");
                    arrived = wire.len().min(arrived + cuts.next().unwrap());
                }
            }
        }
        prop_assert_eq!(at, wire.len());
    }

    #[test]
    fn no_part_of_a_packet_is_a_packet(model in packet(), cut in any::<prop::sample::Index>()) {
        let wire = encode(&model);
        let part = &wire[..cut.index(wire.len())];
        prop_assert_eq!(PacketRef::decode_next(part, model.version, MAX_PACKET_SIZE), Ok(None));
        prop_assert!(PacketRef::decode(part, model.version).is_err());
        match frame_header(part, MAX_PACKET_SIZE).unwrap() {
            Frame::Incomplete { at_least } => {
                prop_assert!(part.len() < at_least && at_least <= wire.len());
            }
            Frame::Header { total, .. } => prop_assert_eq!(total, wire.len()),
        }
    }

    #[test]
    fn limits_act_on_the_header_alone(model in packet(), over in 1..100u32) {
        let wire = encode(&model);
        let len = u32::try_from(wire.len()).unwrap();
        prop_assert!(PacketRef::decode_next(&wire, model.version, len).unwrap().is_some());
        let header = &wire[..5.min(wire.len())];
        prop_assert!(PacketRef::decode_next(header, model.version, len.saturating_sub(over)).is_err());
    }

    #[test]
    fn any_bytes_are_decoded_or_refused(bytes in prop_oneof![plausible(), prop::collection::vec(any::<u8>(), 0..80)], version in version()) {
        short_ways_agree(&bytes, version);
        match PacketRef::decode(&bytes, version) {
            Err(error) => {
                prop_assert!(error.offset() as usize <= bytes.len());
                prop_assert!(!error.to_string().is_empty());
            }
            Ok(packet) => {
                // Whatever is accepted can be written, and means the same then.
                let mut wire = Vec::new();
                packet.encode(version, &mut wire).unwrap();
                prop_assert!(wire.len() <= bytes.len());
                prop_assert_eq!(PacketRef::decode(&wire, version), Ok(packet));
                prop_assert_ne!(format!("{:?}", packet), "");
            }
        }
    }

    #[test]
    fn one_flipped_bit_never_panics(model in packet(), at in any::<prop::sample::Index>(), bit in 0..8u8) {
        let mut wire = encode(&model);
        let at = at.index(wire.len());
        wire[at] ^= 1 << bit;
        for version in VERSIONS {
            short_ways_agree(&wire, version);
            if let Ok(packet) = PacketRef::decode(&wire, version) {
                prop_assert!(packet.encode(version, &mut Vec::new()).is_ok());
            }
        }
    }

    #[test]
    fn properties_are_read_as_they_were_pushed(list in properties(PropertyContext::Publish)) {
        let mut again = PropertiesBuf::new();
        for property in list.as_properties() {
            again.push(property).unwrap();
        }
        prop_assert_eq!(&again, &list);
        prop_assert_eq!(PropertiesBuf::from(list.as_properties()), list);
    }
}

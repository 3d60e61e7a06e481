//! The bodies of the fuzz targets: ordinary functions that panic if something is wrong.

use mqtt_proto::{
    DecodeError, Frame, MAX_PACKET_SIZE, PacketRef, Properties, TopicFilter, TopicName, Version, frame_header,
};

type Body = fn(&[u8]);

/// The targets by their names, which are also the names of the folders of the corpus.
#[allow(dead_code, reason = "only the replay goes through all of them")]
pub const ALL: [(&str, Body); 6] = [
    ("decode_v31", decode_v31),
    ("decode_v311", decode_v311),
    ("decode_v5", decode_v5),
    ("roundtrip", roundtrip),
    ("split", split),
    ("topic_match", topic_match),
];

pub fn decode_v31(data: &[u8]) {
    decode(data, Version::V31);
}

pub fn decode_v311(data: &[u8]) {
    decode(data, Version::V311);
}

pub fn decode_v5(data: &[u8]) {
    decode(data, Version::V5);
}

/// What is accepted can be read without surprise and written again, in no more bytes than it had.
fn decode(data: &[u8], version: Version) {
    let packet = match PacketRef::decode(data, version) {
        Ok(packet) => packet,
        Err(error) => {
            assert!(error.offset() as usize <= data.len(), "{error}");
            return;
        }
    };
    visit(&packet);
    let wire = encode(&packet, version).expect("what was decoded can be encoded");
    assert!(wire.len() <= data.len());
    assert_eq!(PacketRef::decode(&wire, version), Ok(packet));
    assert_eq!(encode(&packet, version), Some(wire));
}

/// A packet of one version, written in another: it either cannot be said there, or it settles after
/// the first time. The first byte chooses the versions.
pub fn roundtrip(data: &[u8]) {
    let Some((&choice, data)) = data.split_first() else { return };
    let (from, to) = (version(choice), version(choice >> 2));
    let Ok(packet) = PacketRef::decode(data, from) else { return };
    let Some(wire) = encode(&packet, to) else { return };
    let to = if let PacketRef::Connect(connect) = packet { connect.version } else { to };
    let again = PacketRef::decode(&wire, to).expect("what was encoded can be decoded");
    assert_eq!(again.packet_type(), packet.packet_type());
    assert_eq!(encode(&again, to), Some(wire.clone()));
    if from == to {
        assert_eq!(again, packet);
    }
}

/// A stream gives the same packets and the same error in one piece and in any number of pieces. The
/// first byte chooses the version and a limit, the second the size of the pieces.
pub fn split(data: &[u8]) {
    let [choice, piece, stream @ ..] = data else { return };
    let version = version(*choice);
    let max = if choice & 0x80 != 0 { 64 } else { MAX_PACKET_SIZE };
    let piece = usize::from(*piece % 32) + 1;
    let whole = packets(stream, stream.len(), version, max);
    let pieces = packets(stream, piece, version, max);
    assert_eq!(pieces, whole);
}

type Decoded<'a> = (Vec<PacketRef<'a>>, Option<DecodeError>);

/// The packets of a stream that arrives in pieces, and the error that ends it.
fn packets(stream: &[u8], piece: usize, version: Version, max: u32) -> Decoded<'_> {
    let (mut found, mut at, mut arrived) = (Vec::new(), 0, 0);
    loop {
        let buffer = &stream[at..arrived];
        match PacketRef::decode_next(buffer, version, max) {
            Ok(Some((packet, len))) => {
                let header = frame_header(buffer, max).expect("it was accepted");
                assert!(matches!(header, Frame::Header { total, .. } if total == len));
                found.push(packet);
                at += len;
            }
            Ok(None) if arrived == stream.len() => return (found, None),
            Ok(None) => arrived = stream.len().min(arrived + piece),
            Err(error) => return (found, Some(error)),
        }
    }
}

/// Matching agrees with a matcher that is too simple to be wrong. A line feed parts filter and topic.
pub fn topic_match(data: &[u8]) {
    let Ok(text) = core::str::from_utf8(data) else { return };
    let Some((filter, topic)) = text.split_once('\n') else { return };
    let name = TopicName::new(topic);
    assert_eq!(name.is_ok(), !topic.is_empty() && topic.len() <= 65_535 && !topic.contains(['+', '#', '\0']));
    let (Ok(filter), Ok(topic)) = (TopicFilter::new(filter), name) else { return };
    let inner = filter.shared().map_or(filter.as_str(), |shared| shared.filter.as_str());
    let hidden = topic.as_str().starts_with('$') && inner.starts_with(['+', '#']);
    let (wanted, levels): (Vec<_>, Vec<_>) =
        (inner.split('/').collect(), topic.as_str().split('/').collect());
    assert_eq!(filter.matches(topic), !hidden && naive(&wanted, &levels), "{filter} {topic}");
    assert_eq!(filter.has_wildcard(), inner.contains(['+', '#']));
}

fn naive(filter: &[&str], topic: &[&str]) -> bool {
    let open = filter.last() == Some(&"#");
    let fixed = if open { &filter[..filter.len() - 1] } else { filter };
    let long_enough = if open { topic.len() >= fixed.len() } else { topic.len() == fixed.len() };
    long_enough && fixed.iter().zip(topic).all(|(wanted, level)| *wanted == "+" || wanted == level)
}

fn version(choice: u8) -> Version {
    match choice & 3 {
        0 => Version::V31,
        1 => Version::V311,
        _ => Version::V5,
    }
}

fn encode(packet: &PacketRef<'_>, version: Version) -> Option<Vec<u8>> {
    let mut wire = vec![0x55];
    let encoded = packet.encode(version, &mut wire);
    assert_eq!(encoded, packet.encoded_len(version));
    match encoded {
        Ok(len) => {
            assert_eq!(wire.len(), 1 + len);
            Some(wire.split_off(1))
        }
        Err(_) => {
            assert_eq!(wire, [0x55]);
            None
        }
    }
}

/// Reads all there is to read in a packet.
fn visit(packet: &PacketRef<'_>) {
    let walk = |list: Properties<'_>| {
        let all = list.iter().inspect(|property| assert!(list.contains(property.id()))).count();
        assert!(list.user_properties().count() + list.subscription_identifiers().count() <= all);
        assert_eq!(all == 0, list.is_empty());
    };
    match packet {
        PacketRef::Connect(p) => {
            walk(p.properties);
            walk(p.will.unwrap_or_default().properties);
        }
        PacketRef::Connack(p) => walk(p.properties),
        PacketRef::Publish(p) => walk(p.properties),
        PacketRef::Puback(p) | PacketRef::Pubrec(p) | PacketRef::Pubrel(p) | PacketRef::Pubcomp(p) => {
            walk(p.properties);
        }
        PacketRef::Subscribe(p) => {
            walk(p.properties);
            let checked = |filter: TopicFilter<'_>| TopicFilter::new(filter.as_str()) == Ok(filter);
            assert!(p.filters.into_iter().all(|(filter, _)| checked(filter)));
            assert_ne!(p.filters.into_iter().count(), 0);
        }
        PacketRef::Unsubscribe(p) => {
            walk(p.properties);
            assert!(p.filters.into_iter().all(|filter| TopicFilter::new(filter.as_str()) == Ok(filter)));
            assert_ne!(p.filters.into_iter().count(), 0);
        }
        PacketRef::Suback(p) => walk(p.properties),
        PacketRef::Unsuback(p) => walk(p.properties),
        PacketRef::Pingreq | PacketRef::Pingresp => {}
        PacketRef::Disconnect(p) => walk(p.properties),
        PacketRef::Auth(p) => walk(p.properties),
    }
    assert!(!format!("{packet:?}").is_empty());
}

//! One adapter for each codec: how it decodes from a stream of packets, and how it encodes.
//!
//! Filling the buffer that a codec consumes is not timed; what it allocates per packet is. Results
//! are looked at where they are: moving them is no part of decoding.

use crate::cases::Case;
use bytes::{Bytes, BytesMut};
use mqtt_proto::{PacketRef, Publish, Version};
use std::hint::black_box;
use std::time::{Duration, Instant};

const MAX: usize = 1 << 20;

type Decode = dyn FnMut(&[u8], usize) -> Duration;
type Encode = dyn FnMut(usize) -> Duration;

/// A codec made ready for one case. Both functions tell how long `n` packets took.
pub struct Contender {
    pub codec: &'static str,
    /// Takes a stream of `n` copies of the packet.
    pub decode: Box<Decode>,
    pub encode: Box<Encode>,
}

fn contender(
    codec: &'static str,
    decode: impl FnMut(&[u8], usize) -> Duration + 'static,
    encode: impl FnMut(usize) -> Duration + 'static,
) -> Contender {
    Contender { codec, decode: Box::new(decode), encode: Box::new(encode) }
}

#[inline]
fn timed(n: usize, mut step: impl FnMut()) -> Duration {
    let begin = Instant::now();
    for _ in 0..n {
        step();
    }
    begin.elapsed()
}

#[inline(always)]
fn valid<T, E>(result: &Result<T, E>) {
    assert!(black_box(result).is_ok());
}

pub fn all(case: &Case) -> Vec<Contender> {
    let mut all = vec![ours(case)];
    if case.wire[0] >> 4 == 3 {
        all.push(ours_owned(case));
    }
    if case.version == Version::V5 {
        all.extend([rumqttc_v5(case), mqttbytes_v5(case), akasamq_v5(case), ntex_v5(case)]);
    } else {
        all.extend([rumqttc_v4(case), mqttbytes_v4(case), akasamq_v3(case), ntex_v3(case), mqttrs(case)]);
    }
    all.push(protocol_core(case));
    all
}

fn ours(case: &Case) -> Contender {
    let (version, wire) = (case.version, &*case.wire.clone().leak());
    let packet = PacketRef::decode(wire, version).expect("valid");
    let mut out = Vec::with_capacity(wire.len());
    contender(
        "this crate",
        move |stream, n| {
            let mut rest = stream;
            timed(n, || {
                let next = PacketRef::decode_next(black_box(rest), version, MAX as u32);
                let Ok(Some((_, len))) = black_box(&next) else { panic!("it is valid and complete") };
                rest = &rest[*len..];
            })
        },
        move |n| {
            timed(n, || {
                out.clear();
                black_box(&packet).encode(version, &mut out).expect("valid");
                black_box(&out);
            })
        },
    )
}

/// The packet that keeps its bytes, from a buffer as the others use it.
fn ours_owned(case: &Case) -> Contender {
    let (version, len) = (case.version, case.wire.len());
    let packet = Publish::decode(Bytes::from(case.wire.clone()), version).expect("valid");
    let mut out = Vec::with_capacity(len);
    contender(
        "this crate, owned",
        move |stream, n| {
            let mut buffer = BytesMut::from(stream);
            timed(n, || {
                let packet = buffer.split_to(len).freeze();
                valid(&Publish::decode(packet, version));
            })
        },
        move |n| {
            timed(n, || {
                out.clear();
                black_box(&packet).view().encode(version, &mut out).expect("valid");
                black_box(&out);
            })
        },
    )
}

macro_rules! consuming {
    ($codec:literal, $case:expr, $read:expr, $write:expr) => {{
        let (read, write) = ($read, $write);
        let packet = read(&mut BytesMut::from(&$case.wire[..])).expect("valid");
        let mut out = BytesMut::with_capacity(2 * $case.wire.len());
        contender(
            $codec,
            move |stream, n| {
                let mut buffer = BytesMut::from(stream);
                timed(n, || valid(&read(&mut buffer)))
            },
            move |n| {
                timed(n, || {
                    out.clear();
                    write(black_box(&packet), &mut out);
                    black_box(&out);
                })
            },
        )
    }};
}

fn rumqttc_v4(case: &Case) -> Contender {
    use rumqttc::mqttbytes::v4::Packet;
    let read = |buffer: &mut BytesMut| Packet::read(buffer, MAX);
    let write = |packet: &Packet, out: &mut BytesMut| packet.write(out, MAX).map(drop).expect("valid");
    consuming!("rumqttc 0.25", case, read, write)
}

fn rumqttc_v5(case: &Case) -> Contender {
    use rumqttc::v5::mqttbytes::v5::Packet;
    let read = |buffer: &mut BytesMut| Packet::read(buffer, None);
    let write = |packet: &Packet, out: &mut BytesMut| packet.write(out, None).map(drop).expect("valid");
    consuming!("rumqttc 0.25", case, read, write)
}

fn mqttbytes_v4(case: &Case) -> Contender {
    use mqttbytes::v4::{Packet, read};
    let read = |buffer: &mut BytesMut| read(buffer, MAX);
    let write = |packet: &Packet, out: &mut BytesMut| {
        match packet {
            Packet::Connect(p) => p.write(out),
            Packet::Publish(p) => p.write(out),
            Packet::Subscribe(p) => p.write(out),
            Packet::PubAck(p) => p.write(out),
            other => unreachable!("{other:?}"),
        }
        .map(drop)
        .expect("valid");
    };
    consuming!("mqttbytes 0.6", case, read, write)
}

fn mqttbytes_v5(case: &Case) -> Contender {
    use mqttbytes::v5::{Packet, read};
    let read = |buffer: &mut BytesMut| read(buffer, MAX);
    let write = |packet: &Packet, out: &mut BytesMut| match packet {
        Packet::Publish(p) => p.write(out).map(drop).expect("valid"),
        other => unreachable!("{other:?}"),
    };
    consuming!("mqttbytes 0.6", case, read, write)
}

macro_rules! akasamq {
    ($case:expr, $packet:ty) => {{
        let len = $case.wire.len();
        let packet = <$packet>::decode(&$case.wire).expect("valid").expect("complete");
        contender(
            "mqtt-proto 0.4 (akasamq)",
            move |stream, n| {
                let mut rest = stream;
                timed(n, || {
                    valid(&<$packet>::decode(black_box(rest)));
                    rest = &rest[len..];
                })
            },
            move |n| {
                timed(n, || {
                    black_box(black_box(&packet).encode().expect("valid"));
                })
            },
        )
    }};
}

fn akasamq_v3(case: &Case) -> Contender {
    akasamq!(case, mqtt_proto_akasamq::v3::Packet)
}

fn akasamq_v5(case: &Case) -> Contender {
    akasamq!(case, mqtt_proto_akasamq::v5::Packet)
}

macro_rules! ntex {
    ($case:expr, $version:ident) => {{
        use ntex_codec::{Decoder, Encoder};
        use ntex_mqtt::$version::codec::{Codec, Decoded, Encoded};
        let mut buffer = ntex_bytes::BytesMut::from(&$case.wire[..]);
        let packet = match Codec::new().decode(&mut buffer).expect("valid").expect("complete") {
            Decoded::Packet(packet, _) => Encoded::Packet(packet),
            Decoded::Publish(publish, payload, _) => Encoded::Publish(publish, Some(payload)),
            Decoded::PayloadChunk(..) => unreachable!("the packet is whole"),
        };
        let (decoder, encoder) = (Codec::new(), Codec::new());
        let mut out = ntex_bytes::BytePages::new(ntex_bytes::BytePageSize::Size16);
        contender(
            "ntex-mqtt 8",
            move |stream, n| {
                let mut buffer = ntex_bytes::BytesMut::from(stream);
                timed(n, || valid(&decoder.decode(&mut buffer)))
            },
            // The encoder takes the packet, so a clone is part of the price.
            move |n| {
                timed(n, || {
                    encoder.encodev(black_box(&packet).clone(), &mut out).expect("valid");
                    black_box(&out);
                    out.clear();
                })
            },
        )
    }};
}

fn ntex_v3(case: &Case) -> Contender {
    ntex!(case, v3)
}

fn ntex_v5(case: &Case) -> Contender {
    ntex!(case, v5)
}

fn mqttrs(case: &Case) -> Contender {
    let wire: &'static [u8] = case.wire.clone().leak();
    let packet = mqttrs::decode_slice(wire).expect("valid").expect("complete");
    let mut out = vec![0; wire.len() + 64];
    contender(
        "mqttrs 0.4",
        move |stream, n| {
            let mut rest = stream;
            timed(n, || {
                valid(&mqttrs::decode_slice(black_box(rest)));
                rest = &rest[wire.len()..];
            })
        },
        move |n| {
            timed(n, || {
                black_box(mqttrs::encode_slice(black_box(&packet), &mut out).expect("valid"));
            })
        },
    )
}

/// It parses bodies, PUBLISH from a shared slice; the fixed header is read by its own function first.
fn protocol_core(case: &Case) -> Contender {
    use mqtt_protocol_core::mqtt::packet::{DecodeResult, VariableByteInteger, v3_1_1, v5_0};
    use std::sync::Arc;
    let (len, flags) = (case.wire.len(), case.wire[0] & 15);
    let body_of = move |packet: &[u8]| match VariableByteInteger::decode_stream(&packet[1..]) {
        DecodeResult::Ok(body, width) => 1 + width..1 + width + body.to_u32() as usize,
        _ => panic!("it is valid"),
    };
    let header = body_of(&case.wire).start;
    macro_rules! parsed {
        ($parse:expr) => {{
            let parse = $parse;
            let packet = parse(&case.wire[header..]).expect("valid").0;
            contender(
                "mqtt-protocol-core 0.7",
                move |stream, n| {
                    let mut rest = stream;
                    timed(n, || {
                        let packet = black_box(rest);
                        valid(&parse(&packet[body_of(packet)]));
                        rest = &rest[len..];
                    })
                },
                move |n| {
                    timed(n, || {
                        black_box(black_box(&packet).to_continuous_buffer());
                    })
                },
            )
        }};
    }
    match (case.wire[0] >> 4, case.version) {
        (1, _) => parsed!(|body: &[u8]| v3_1_1::Connect::parse(body)),
        (3, Version::V5) => {
            parsed!(move |body: &[u8]| v5_0::Publish::parse(flags, Arc::from(body)))
        }
        (3, _) => {
            parsed!(move |body: &[u8]| v3_1_1::Publish::parse(flags, Arc::from(body)))
        }
        (4, _) => parsed!(|body: &[u8]| v3_1_1::Puback::parse(body)),
        _ => parsed!(|body: &[u8]| v3_1_1::Subscribe::parse(body)),
    }
}

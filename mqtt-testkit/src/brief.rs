use mqtt_proto::{AckRef, PacketRef, Properties, ReasonCode, Version};
use std::fmt::Write;

/// A packet in a few characters: `CONNACK sp 00`, `PUBLISH a/b q1 #1 dup "hi"`, `PUBACK #1`,
/// `SUBACK #1 01 80`, `DISCONNECT 8E`. Properties follow in braces.
#[must_use]
pub fn brief(packet: &PacketRef<'_>) -> String {
    let mut s = packet.packet_type().to_string();
    let mut put = |text: &dyn std::fmt::Display| {
        let _ = write!(s, " {text}");
    };
    let properties = match packet {
        PacketRef::Connect(p) => {
            put(&format_args!("{} {:?} keep={}", p.version, p.client_id, p.keep_alive));
            if p.clean_start {
                put(&"clean");
            }
            if let Some(will) = &p.will {
                put(&format_args!("will={}", will.topic));
            }
            p.properties
        }
        PacketRef::Connack(p) => {
            if p.session_present {
                put(&"sp");
            }
            put(&hex(p.reason));
            p.properties
        }
        PacketRef::Publish(p) => {
            put(&format_args!("{:?} q{}", Plain(p.topic), p.qos.as_u8()));
            if let Some(id) = p.packet_id {
                put(&format_args!("#{id}"));
            }
            if p.dup {
                put(&"dup");
            }
            if p.retain {
                put(&"retain");
            }
            put(&format_args!("{:?}", String::from_utf8_lossy(p.payload)));
            p.properties
        }
        PacketRef::Puback(p) | PacketRef::Pubrec(p) | PacketRef::Pubrel(p) | PacketRef::Pubcomp(p) => {
            let AckRef { packet_id, reason, properties } = *p;
            put(&format_args!("#{packet_id}"));
            if reason != ReasonCode::Success {
                put(&hex(reason));
            }
            properties
        }
        PacketRef::Subscribe(p) => {
            put(&format_args!("#{}", p.packet_id));
            for (filter, options) in p.filters {
                put(&format_args!("{filter} q{}", options.qos.as_u8()));
            }
            p.properties
        }
        PacketRef::Suback(p) => {
            put(&format_args!("#{}", p.packet_id));
            p.codes.iter().for_each(|code| put(&format_args!("{code:02X}")));
            p.properties
        }
        PacketRef::Unsubscribe(p) => {
            put(&format_args!("#{}", p.packet_id));
            p.filters.into_iter().for_each(|filter| put(&filter));
            p.properties
        }
        PacketRef::Unsuback(p) => {
            put(&format_args!("#{}", p.packet_id));
            p.codes.iter().for_each(|code| put(&format_args!("{code:02X}")));
            p.properties
        }
        PacketRef::Pingreq | PacketRef::Pingresp => Properties::EMPTY,
        PacketRef::Disconnect(p) => {
            put(&hex(p.reason));
            p.properties
        }
        PacketRef::Auth(p) => {
            put(&hex(p.reason));
            p.properties
        }
    };
    if !properties.is_empty() {
        let list: Vec<String> = properties.iter().map(|property| format!("{property:?}")).collect();
        put(&format_args!("{{{}}}", list.join(", ")));
    }
    s
}

fn hex(reason: ReasonCode) -> String {
    format!("{:02X}", reason.as_u8())
}

struct Plain<'a>(&'a str);

impl std::fmt::Debug for Plain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() { f.write_str("\"\"") } else { f.write_str(self.0) }
    }
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

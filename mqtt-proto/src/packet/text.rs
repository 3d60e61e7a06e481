//! Packets as people read them.

use super::{AckRef, PacketRef};
use crate::ReasonCode;
use crate::property::Properties;
use alloc::string::String;
use core::fmt;

/// A packet in one line: `CONNACK sp 00`, `PUBLISH a/b q1 #1 dup "hi"`, `PUBACK #1`, `SUBACK #1 01 80`,
/// `DISCONNECT 8E`. Properties follow in braces, and no password is shown. With `#` reason codes have
/// their names, success aside; a precision is the number of payload bytes that are shown: `{packet:#.40}`.
impl fmt::Display for PacketRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.packet_type())?;
        let properties = match self {
            Self::Connect(p) => {
                write!(f, " {} {:?} keep={}", p.version, p.client_id, p.keep_alive)?;
                if p.clean_start {
                    f.write_str(" clean")?;
                }
                if let Some(will) = &p.will {
                    write!(f, " will={}", will.topic)?;
                }
                p.properties
            }
            Self::Connack(p) => {
                if p.session_present {
                    f.write_str(" sp")?;
                }
                reason(f, p.reason)?;
                p.properties
            }
            Self::Publish(p) => {
                write!(f, " {} q{}", if p.topic.is_empty() { "\"\"" } else { p.topic }, p.qos.as_u8())?;
                if let Some(id) = p.packet_id {
                    write!(f, " #{id}")?;
                }
                if p.dup {
                    f.write_str(" dup")?;
                }
                if p.retain {
                    f.write_str(" retain")?;
                }
                payload(f, p.payload)?;
                p.properties
            }
            Self::Puback(p) | Self::Pubrec(p) | Self::Pubrel(p) | Self::Pubcomp(p) => {
                let AckRef { packet_id, reason: code, properties } = *p;
                write!(f, " #{packet_id}")?;
                if code != ReasonCode::Success {
                    reason(f, code)?;
                }
                properties
            }
            Self::Subscribe(p) => {
                write!(f, " #{}", p.packet_id)?;
                for (filter, options) in p.filters {
                    write!(f, " {filter} q{}", options.qos.as_u8())?;
                }
                p.properties
            }
            Self::Suback(p) => {
                write!(f, " #{}", p.packet_id)?;
                p.codes.iter().try_for_each(|code| write!(f, " {code:02X}"))?;
                p.properties
            }
            Self::Unsubscribe(p) => {
                write!(f, " #{}", p.packet_id)?;
                p.filters.into_iter().try_for_each(|filter| write!(f, " {filter}"))?;
                p.properties
            }
            Self::Unsuback(p) => {
                write!(f, " #{}", p.packet_id)?;
                p.codes.iter().try_for_each(|code| write!(f, " {code:02X}"))?;
                p.properties
            }
            Self::Pingreq | Self::Pingresp => Properties::EMPTY,
            Self::Disconnect(p) => {
                reason(f, p.reason)?;
                p.properties
            }
            Self::Auth(p) => {
                reason(f, p.reason)?;
                p.properties
            }
        };
        if properties.is_empty() {
            return Ok(());
        }
        f.write_str(" {")?;
        for (n, property) in properties.iter().enumerate() {
            write!(f, "{}{property:?}", if n > 0 { ", " } else { "" })?;
        }
        f.write_str("}")
    }
}

fn reason(f: &mut fmt::Formatter<'_>, code: ReasonCode) -> fmt::Result {
    if f.alternate() && code != ReasonCode::Success {
        return write!(f, " {code}");
    }
    write!(f, " {:02X}", code.as_u8())
}

fn payload(f: &mut fmt::Formatter<'_>, payload: &[u8]) -> fmt::Result {
    let shown = f.precision().and_then(|max| payload.get(..max)).unwrap_or(payload);
    write!(f, " {:?}", String::from_utf8_lossy(shown))?;
    if shown.len() < payload.len() {
        write!(f, "... ({} bytes)", payload.len())?;
    }
    Ok(())
}

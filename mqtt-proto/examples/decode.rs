//! Decodes packets that are given in hex and prints them, or says what is wrong with them.
//!
//! ```text
//! cargo run --example decode -- --3.1.1 30 05 00 03 61 2f 2b
//! ```
//!
//! Without arguments it decodes a built-in stream of 5.0 whose last packet breaks a rule.

use mqtt_proto::{DecodeError, MAX_PACKET_SIZE, PacketRef, Version};
use std::process::ExitCode;

/// CONNECT, PUBLISH with two properties, PINGREQ, and a SUBSCRIBE whose filter misplaces `#`.
const SAMPLE: &str = "10 10 0004 4d515454 05 02 003c 00 0003 646576
    32 1f 0003 612f62 0001 12 0200000e10 03000a 746578742f706c61696e 68656c6c6f
    c0 00
    82 0a 0002 00 0004 612f2362 01";

fn main() -> ExitCode {
    let mut version = Version::V5;
    let mut digits = String::new();
    for arg in std::env::args().skip(1) {
        match &*arg {
            "--3.1" => version = Version::V31,
            "--3.1.1" => version = Version::V311,
            "--5.0" => version = Version::V5,
            _ => digits.push_str(&arg),
        }
    }
    let Some(bytes) = hex(if digits.is_empty() { SAMPLE } else { &digits }) else {
        eprintln!("usage: decode [--3.1 | --3.1.1 | --5.0] [HEX]...");
        return ExitCode::FAILURE;
    };
    match decode(&bytes, version) {
        Ok(()) => ExitCode::SUCCESS,
        Err((at, error)) => {
            println!("byte {}: {}", at + error.offset() as usize, error.rule().text());
            println!("  rule    {} of MQTT {}", error.rule().id(), error.version());
            println!("  offset  {} in the packet", error.offset());
            println!("  remedy  {}", error.rule().remedy());
            println!("  answer  {}", error.reason());
            ExitCode::FAILURE
        }
    }
}

/// Prints each packet; an error comes with the place where its packet begins.
fn decode(bytes: &[u8], mut version: Version) -> Result<(), (usize, DecodeError)> {
    let mut at = 0;
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        match PacketRef::decode_next(rest, version, MAX_PACKET_SIZE).map_err(|error| (at, error))? {
            Some((packet, len)) => {
                // The version that CONNECT names holds for all that follows.
                if let PacketRef::Connect(connect) = packet {
                    version = connect.version;
                }
                println!("byte {at}: {} of {len} bytes\n{packet:#?}", packet.packet_type());
                at += len;
            }
            None => {
                println!("byte {at}: {} bytes of a packet that is not complete", rest.len());
                break;
            }
        }
    }
    Ok(())
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u32> =
        text.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_digit(16)).collect::<Option<_>>()?;
    let (pairs, odd) = digits.as_chunks();
    let byte = |&[high, low]: &[u32; 2]| u8::try_from(high << 4 | low).ok();
    if odd.is_empty() { pairs.iter().map(byte).collect() } else { None }
}

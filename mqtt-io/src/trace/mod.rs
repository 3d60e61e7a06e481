//! Traces: every input that changed a broker's state, so that its machine can be run again, without
//! sockets and without waiting, to the same outputs.
//!
//! [`TraceOptions`] has a broker write one; [`Player`] runs it again. Because the machine is a pure
//! function of its inputs, a failure in the field can be looked at where it is convenient, as often as
//! it takes.
//!
//! # What a trace holds
//!
//! Settings, the seed of all randomness, what was restored from a store, and then, with their times:
//! bytes that arrived, how many bytes sockets took, connections that came and went, deadlines, answers to
//! questions, confirmations of the store, tables of rights, and commands. Outputs are not in it, but
//! for a checksum after each input, by which a replay notices the first that differs.
//!
//! So a trace holds **what clients sent: topics, client identifiers, user names, addresses, and messages**.
//! Passwords in CONNECT are blanked. With [`TraceOptions::payloads`] off, so are the payloads of messages
//! and wills. Data of authentication exchanges (AUTH, 5.0) is in it as it was sent. The seed is in it,
//! which must not be known to those who could choose topics by it: do not publish the trace of a broker
//! that goes on with the same seed. On Unix only its owner may read the file.
//!
//! # The file
//!
//! `MQTT trace`, a byte with the version of the format (1), then records. A record is its length, so many
//! bytes, how many outputs were taken after it, and the checksum of these (four bytes, little endian;
//! FNV-1a of 64 bits, folded). Numbers are varints. The bytes are those of an entry: the header, a record
//! of the store, the end of these, an input behind the microseconds since the one before, or the end.
//! A record that is cut off, by a crash for one, ends the trace.
//!
//! A trace is replayed by the program that wrote it: another version may rightly do something else. The
//! header names the version.

mod code;
mod digest;
mod entry;
mod machine;
mod mask;
mod play;
mod record;

pub use entry::{Header, Input};
pub use play::{Ending, Player, Step, TraceError};
pub use record::{Recorder, TraceOptions};

pub(crate) use machine::{Drain, Machine};

/// What a trace begins with: the name and the version of the format.
const MAGIC: &[u8] = b"MQTT trace\x01";

//! The checksum of what a machine gave after an input.

use super::entry::Input;
use super::mask::{BLANK, Mask};
use bytes::{Bytes, BytesMut};
use mqtt_session::broker::{Ask, ConnectionId, Event, Output, Question};
use mqtt_session::store::StoredMessage;
use mqtt_session::{StoreGroup, StoreOp};
use std::collections::HashMap;
use std::fmt::{self, Debug, Write};

/// FNV-1a of 64 bits.
#[derive(Clone, Copy, Debug)]
struct Hash(u64);

impl Default for Hash {
    fn default() -> Self {
        Self(0xCBF2_9CE4_8422_2325)
    }
}

impl Hash {
    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3);
        }
    }
}

impl Write for Hash {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.bytes(text.as_bytes());
        Ok(())
    }
}

/// The checksum, and what blanks streams: equally for who records and who plays.
#[derive(Debug)]
pub(super) struct Digest {
    hash: Hash,
    outputs: u64,
    /// Payloads are blanked.
    blank: bool,
    streams: HashMap<ConnectionId, Streams>,
}

/// Both directions of a connection.
#[derive(Debug)]
struct Streams {
    read: Mask,
    written: Mask,
}

impl Digest {
    pub(super) fn new(blank: bool) -> Self {
        Self { hash: Hash::default(), outputs: 0, blank, streams: HashMap::new() }
    }

    /// How many outputs there were since the last call, and their checksum.
    pub(super) fn finish(&mut self) -> (u64, u32) {
        let Hash(hash) = std::mem::take(&mut self.hash);
        // Folded: both halves count.
        (std::mem::take(&mut self.outputs), (hash >> 32) as u32 ^ hash as u32)
    }

    /// What a call returned.
    pub(super) fn note(&mut self, value: &dyn Debug) {
        // A hash takes everything.
        let _ = write!(self.hash, "{value:?}");
    }

    pub(super) fn output(&mut self, output: &Output) {
        self.outputs += 1;
        match output {
            Output::Ask(ask) => self.note(&without_password(ask)),
            Output::Event(event) if self.blank => match &**event {
                Event::Message { subscriber, message } => {
                    let mut message = message.clone();
                    message.payload = blanked(message.payload.len());
                    self.note(&(subscriber, message));
                }
                event => self.note(event),
            },
            Output::Store(seq, group) if self.blank => {
                let ops = group.ops.iter().map(|op| self.stored(op)).collect();
                self.note(&(seq, StoreGroup { ops }));
            }
            output => self.note(output),
        }
    }

    /// Bytes arrived: as a trace holds them.
    pub(super) fn read(&mut self, conn: ConnectionId, bytes: &[u8]) -> Bytes {
        let mut bytes = BytesMut::from(bytes);
        let Streams { read, written } = self.streams(conn);
        read.apply(&mut bytes);
        written.v5 = read.v5;
        bytes.freeze()
    }

    /// An operation of the store as a trace holds it.
    pub(super) fn stored(&self, op: &StoreOp) -> StoreOp {
        let mut op = op.clone();
        match &mut op {
            StoreOp::PutMessage(_, message) if self.blank => blank_body(message),
            StoreOp::PutWill(_, will) if self.blank => blank_body(&mut will.message),
            _ => {}
        }
        op
    }

    /// An input as a trace holds it. (Bytes that arrived pass [`Digest::read`].)
    pub(super) fn input(&self, mut input: Input) -> Input {
        if let Input::Publish(message) = &mut input
            && self.blank
        {
            message.payload = blanked(message.payload.len());
        }
        input
    }

    /// A socket took bytes of the machine.
    pub(super) fn sent(&mut self, conn: ConnectionId, bytes: &[u8]) {
        if self.blank {
            let mut bytes = bytes.to_vec();
            self.streams(conn).written.apply(&mut bytes);
            self.hash.bytes(&bytes);
        } else {
            self.hash.bytes(bytes);
        }
    }

    pub(super) fn closed(&mut self, conn: ConnectionId) {
        self.streams.remove(&conn);
    }

    fn streams(&mut self, conn: ConnectionId) -> &mut Streams {
        let mask = || Mask::new(self.blank);
        self.streams.entry(conn).or_insert_with(|| Streams { read: mask(), written: mask() })
    }
}

fn blanked(len: usize) -> Bytes {
    vec![BLANK; len].into()
}

/// Blanks the payload in a stored body.
fn blank_body(message: &mut StoredMessage) {
    let start = usize::from(message.topic_len) + message.properties_len as usize;
    let mut body = BytesMut::from(&message.body[..]);
    if let Some(payload) = body.get_mut(start..) {
        payload.fill(BLANK);
    }
    message.body = body.freeze();
}

/// The trace has no passwords, so the checksum must not depend on them.
fn without_password(ask: &Ask) -> Ask {
    let mut ask = ask.clone();
    if let Question::Connect { password: Some(password), .. } = &mut ask.question {
        *password = blanked(password.len());
    }
    ask
}

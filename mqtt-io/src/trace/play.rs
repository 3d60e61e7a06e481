//! Running a trace again.

use super::MAGIC;
use super::code::Code;
use super::digest::Digest;
use super::entry::{Entry, Header, Input};
use super::machine::{Machine, Trace};
use bytes::Bytes;
use mqtt_session::broker::{ConfigError, ConnectionId, Output, Restore, Stats};
use mqtt_session::{Broker, Timestamp};
use std::cell::RefCell;
use std::fmt::Debug;
use std::io::{self, Read};
use std::rc::Rc;
use std::time::Duration;

/// The longest record: a packet of the largest size, and more than a little.
const MAX_RECORD: u64 = 1 << 29;

/// Why a trace cannot be played, or not further.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is no trace, or one of a format that this program does not know.
    #[error("this is no trace in the format of this program")]
    Format,
    /// What stands there is no record.
    #[error("the trace is damaged: there is no record at byte {0}")]
    Damaged(u64),
    /// No machine has such settings.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The machine did something else than when it was recorded. What it did is in [`Player::last`].
    #[error(
        "the replay differs at input {number}, after {:.6} s: it was written by version {program}, this is \
         version {this}",
        at.as_secs_f64(), this = env!("CARGO_PKG_VERSION")
    )]
    Differs {
        /// The number of the input, from 1.
        number: u64,
        /// When it happened, since the trace was begun.
        at: Duration,
        /// The version of the program that recorded it.
        program: String,
    },
}

/// One input and what came of it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Step {
    /// The number of the input, from 1. 0 is the start of a broker that was restored.
    pub number: u64,
    /// When it happened, since the trace was begun.
    pub at: Duration,
    /// What happened; `None` for the start of a broker that was restored.
    pub input: Option<Input>,
    /// The connection that was accepted.
    pub accepted: Option<ConnectionId>,
    /// What the machine said, in order.
    pub outputs: Vec<Output>,
    /// Bytes that a socket took, if the input was an outbox.
    pub sent: Bytes,
}

/// Runs a trace again, input by input, in the machine alone.
pub struct Player<R> {
    from: R,
    /// How many bytes were read.
    read: u64,
    header: Header,
    machine: Machine,
    digest: Rc<RefCell<Digest>>,
    start: Timestamp,
    now: Timestamp,
    number: u64,
    /// The start of a broker that was restored, to be given first.
    first: Option<Step>,
    last: Option<Step>,
    ending: Ending,
}

/// How a trace ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ending {
    /// In order.
    Closed,
    /// It had reached its limit.
    Full,
    /// In the middle: the broker was killed, or its machine panicked; or the end was not reached yet.
    Cut,
}

/// Tells the checksum what happens; nothing is written.
struct Check(Rc<RefCell<Digest>>);

impl Trace for Check {
    fn input(&mut self, _: Timestamp, input: Input) {
        if let Input::Close(conn, _) = input {
            self.0.borrow_mut().closed(conn);
        }
    }

    fn read(&mut self, _: Timestamp, conn: ConnectionId, bytes: &[u8]) {
        // For the version that it may hold.
        self.0.borrow_mut().read(conn, bytes);
    }

    fn output(&mut self, output: &Output) {
        self.0.borrow_mut().output(output);
    }

    fn note(&mut self, value: &dyn Debug) {
        self.0.borrow_mut().note(value);
    }

    fn sent(&mut self, conn: ConnectionId, bytes: &[u8]) {
        self.0.borrow_mut().sent(conn, bytes);
    }
}

/// A record as it stands in the file.
struct Record {
    entry: Entry,
    outputs: u64,
    checksum: u32,
}

impl<R: Read> Player<R> {
    /// Reads how the trace begins, and makes the machine.
    ///
    /// # Errors
    /// If it is no trace, or cannot be read.
    pub fn open(mut from: R) -> Result<Self, TraceError> {
        let mut magic = [0; MAGIC.len()];
        match from.read_exact(&mut magic) {
            Err(e) if e.kind() != io::ErrorKind::UnexpectedEof => return Err(e.into()),
            _ if magic != MAGIC => return Err(TraceError::Format),
            _ => {}
        }
        let mut read = MAGIC.len() as u64;
        let Some(Record { entry: Entry::Header(header), .. }) = record(&mut from, &mut read)? else {
            return Err(TraceError::Damaged(read));
        };
        let digest = Rc::new(RefCell::new(Digest::new(!header.payloads)));
        let (broker, now, after) = if header.restored {
            let mut restore = Restore::new(header.config.clone())?;
            loop {
                let at = read;
                match record(&mut from, &mut read)? {
                    Some(Record { entry: Entry::Stored(op), .. }) => restore.record(*op),
                    Some(Record { entry: Entry::Restored(unix_ms), outputs, checksum }) => {
                        let mut restoration = restore.finish(unix_ms);
                        // A trace is of a broker with one shard.
                        let broker = restoration.shards.pop().ok_or(TraceError::Damaged(at))?;
                        break (broker, restoration.restored.now, Some((outputs, checksum)));
                    }
                    _ => return Err(TraceError::Damaged(at)),
                }
            }
        } else {
            (Broker::new(header.config.clone(), header.now)?, header.now, None)
        };
        let machine = Machine::watched(broker, Check(Rc::clone(&digest)));
        let mut player = Self {
            from,
            read,
            header: *header,
            machine,
            digest,
            start: now,
            now,
            number: 0,
            first: None,
            last: None,
            ending: Ending::Cut,
        };
        if let Some((outputs, checksum)) = after {
            let step = player.new_step(None);
            player.first = Some(player.check(step, outputs, checksum)?);
        }
        Ok(player)
    }

    /// What the trace begins with.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// How the trace ended, once [`Player::step`] gave `None`.
    #[must_use]
    pub const fn ending(&self) -> Ending {
        self.ending
    }

    /// The machine's figures as they are now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.machine.stats()
    }

    /// What the machine did at the input at which it differed.
    #[must_use]
    pub const fn last(&self) -> Option<&Step> {
        self.last.as_ref()
    }

    /// Plays one input. `None` at the end.
    ///
    /// # Errors
    /// If the trace cannot be read further, or the machine does something else than was recorded.
    pub fn step(&mut self) -> Result<Option<Step>, TraceError> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        let at = self.read;
        let Some(Record { entry, outputs, checksum }) = record(&mut self.from, &mut self.read)? else {
            return Ok(None);
        };
        let (after, input) = match entry {
            Entry::Input(after, input) => (after, *input),
            Entry::End(full) => {
                self.ending = if full { Ending::Full } else { Ending::Closed };
                return Ok(None);
            }
            _ => return Err(TraceError::Damaged(at)),
        };
        self.now = self.now + Duration::from_micros(after);
        self.number += 1;
        let mut step = self.new_step(Some(input.clone()));
        self.apply(input, &mut step);
        self.check(step, outputs, checksum).map(Some)
    }

    fn new_step(&self, input: Option<Input>) -> Step {
        let (number, at) = (self.number, self.now.since(self.start));
        Step { number, at, input, accepted: None, outputs: Vec::new(), sent: Bytes::new() }
    }

    fn apply(&mut self, input: Input, step: &mut Step) {
        let (machine, now) = (&mut self.machine, self.now);
        match input {
            Input::Accept => step.accepted = Some(machine.handle_accept(now)),
            Input::Identified(conn, peer) => machine.handle_identified(now, conn, peer),
            Input::Read(conn, bytes) => drop(machine.handle_read(now, conn, &bytes)),
            Input::Close(conn, why) => machine.handle_close(now, conn, why),
            Input::Timeout => machine.handle_timeout(now),
            Input::WallClock(unix_ms) => machine.handle_wall_clock(now, unix_ms),
            Input::Stored(through) => machine.handle_stored(now, through),
            Input::StoreFailed(from) => machine.handle_store_failed(now, from),
            Input::Answer(id, answer) => machine.handle_answer(now, id, answer),
            Input::Publish(message) => drop(machine.publish(now, message)),
            Input::Subscribe(filter, options) => drop(machine.subscribe(now, &filter, options)),
            Input::Unsubscribe(id) => machine.unsubscribe(now, id),
            Input::Disconnect(client_id, reason) => {
                machine.disconnect(now, &client_id, reason);
            }
            Input::DisconnectUser(user_name, reason) => {
                machine.disconnect_user(now, user_name.as_deref(), reason);
            }
            Input::RemoveSession(client_id) => {
                machine.remove_session(now, &client_id);
            }
            Input::RemoveRetained(topic) => {
                machine.remove_retained(now, &topic);
            }
            Input::Memory(bytes) => machine.handle_memory(now, bytes),
            Input::SetAcls(acls) => machine.set_acls(now, acls),
            Input::Shutdown => machine.shutdown(now),
            Input::Outbox { conn, max, taken } => {
                let drain = machine.outbox(now, conn, max);
                if let Some(taken) = taken {
                    let mut bytes = drain.bytes();
                    bytes.truncate(taken);
                    step.sent = bytes.into();
                    drain.consume(taken);
                }
            }
        }
    }

    /// Takes as many outputs as were taken then, and compares.
    fn check(&mut self, mut step: Step, outputs: u64, checksum: u32) -> Result<Step, TraceError> {
        let taken = (0..outputs).map_while(|_| self.machine.poll_output());
        step.outputs.extend(taken);
        if self.digest.borrow_mut().finish() == (outputs, checksum) {
            return Ok(step);
        }
        let (number, at, program) = (step.number, step.at, self.header.program.clone());
        self.last = Some(step);
        Err(TraceError::Differs { number, at, program })
    }
}

/// The next record; `None` at the end, also if the file ends within it.
fn record(from: &mut impl Read, read: &mut u64) -> Result<Option<Record>, TraceError> {
    let start = *read;
    let Some(len) = varint(from, read)? else { return Ok(None) };
    if len > MAX_RECORD {
        return Err(TraceError::Damaged(start));
    }
    // Nothing is reserved on the file's word.
    let mut body = Vec::new();
    if from.take(len).read_to_end(&mut body)? as u64 != len {
        return Ok(None);
    }
    *read += len;
    let Some(outputs) = varint(from, read)? else { return Ok(None) };
    let mut checksum = [0; 4];
    match from.read_exact(&mut checksum) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        result => result?,
    }
    *read += 4;
    let mut rest = &body[..];
    match Entry::get(&mut rest) {
        Some(entry) if rest.is_empty() => {
            Ok(Some(Record { entry, outputs, checksum: u32::from_le_bytes(checksum) }))
        }
        _ => Err(TraceError::Damaged(start)),
    }
}

fn varint(from: &mut impl Read, read: &mut u64) -> Result<Option<u64>, TraceError> {
    let mut bytes = Vec::new();
    loop {
        let mut byte = [0];
        if from.read(&mut byte)? == 0 {
            return Ok(None);
        }
        *read += 1;
        bytes.extend(byte);
        if byte[0] & 0x80 == 0 {
            let mut all = &bytes[..];
            return u64::get(&mut all).map(Some).ok_or(TraceError::Damaged(*read - bytes.len() as u64));
        }
        if bytes.len() > 10 {
            return Err(TraceError::Damaged(*read - bytes.len() as u64));
        }
    }
}

impl<R> Debug for Player<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Player")
            .field("header", &self.header)
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

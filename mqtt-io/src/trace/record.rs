//! Writing a trace. Whatever goes wrong with it is told and ends the trace, and never the broker.

use super::MAGIC;
use super::code::Code;
use super::digest::Digest;
use super::entry::{Entry, Header, Input};
use super::machine::Trace;
use crate::Clock;
use mqtt_session::broker::{BrokerConfig, ConnectionId, Output};
use mqtt_session::{StoreOp, Timestamp};
use std::fmt::Debug;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Where and how a broker writes a trace of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TraceOptions {
    /// The file. One that is there is renamed first, to the same name with `.old` behind it, so that
    /// a broker that is started again after a crash leaves the trace of the crash alone.
    pub path: PathBuf,
    /// The trace ends when it has this size in bytes. Default 1 GiB.
    pub max_bytes: u64,
    /// Whether payloads are in it as they were sent, or blanked. Default true.
    pub payloads: bool,
}

impl TraceOptions {
    /// A trace in this file.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), max_bytes: 1 << 30, payloads: true }
    }

    fn create(&self) -> io::Result<File> {
        if self.path.exists() {
            let mut old = self.path.clone().into_os_string();
            old.push(".old");
            std::fs::rename(&self.path, Path::new(&old))?;
        }
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(&self.path)
    }
}

/// Writes a trace. Hand it to [`Shard::recorded`](crate::Shard::recorded); dropping it ends the trace.
#[derive(Debug)]
pub struct Recorder {
    file: BufWriter<File>,
    /// The record whose outputs are not all known.
    pending: Vec<u8>,
    digest: Digest,
    at: Timestamp,
    written: u64,
    max_bytes: u64,
    /// Nothing is written any more.
    ended: bool,
}

impl Recorder {
    /// Begins a trace of a machine with these settings, made at `now`. One that is restored has
    /// [`Recorder::stored`] called for each record of the store, and then [`Recorder::restored`].
    ///
    /// # Errors
    /// If the file cannot be made.
    pub fn create(
        options: &TraceOptions,
        config: &BrokerConfig,
        now: Timestamp,
        restored: bool,
    ) -> io::Result<Self> {
        let mut file = BufWriter::with_capacity(64 << 10, options.create()?);
        file.write_all(MAGIC)?;
        let mut recorder = Self {
            file,
            pending: Vec::new(),
            digest: Digest::new(!options.payloads),
            at: now,
            written: 0,
            max_bytes: options.max_bytes,
            ended: false,
        };
        let (payloads, config) = (options.payloads, config.clone());
        let program = env!("CARGO_PKG_VERSION").to_owned();
        let header = Header { program, unix_ms: Clock::unix_ms(), now, restored, payloads, config };
        recorder.entry(&Entry::Header(Box::new(header)));
        Ok(recorder)
    }

    /// What the store has, record by record, while a machine is made of it.
    pub fn stored(&mut self, op: &StoreOp) {
        self.entry(&Entry::Stored(Box::new(self.digest.stored(op))));
    }

    /// That was all of it; machine time goes on at `now`.
    pub fn restored(&mut self, now: Timestamp, unix_ms: u64) {
        self.entry(&Entry::Restored(unix_ms));
        self.at = now;
    }

    /// Writes the record before, and keeps this one until its outputs are known.
    fn entry(&mut self, entry: &Entry) {
        self.finish();
        if self.ended {
            return;
        }
        let mut body = Vec::new();
        entry.put(&mut body);
        self.pending.clear();
        body.len().put(&mut self.pending);
        self.pending.append(&mut body);
        if self.written + self.pending.len() as u64 > self.max_bytes && !matches!(entry, Entry::End(_)) {
            tracing::warn!("The trace has reached its limit of {} bytes and ends.", self.max_bytes);
            self.pending.clear();
            self.end(true);
        }
    }

    fn finish(&mut self) {
        let (outputs, checksum) = self.digest.finish();
        if self.ended || self.pending.is_empty() {
            return;
        }
        outputs.put(&mut self.pending);
        self.pending.extend_from_slice(&checksum.to_le_bytes());
        self.written += self.pending.len() as u64;
        self.attempt(|recorder| recorder.file.write_all(&recorder.pending));
        self.pending.clear();
    }

    fn end(&mut self, full: bool) {
        self.entry(&Entry::End(full));
        self.finish();
        self.attempt(|recorder| recorder.file.flush());
        self.ended = true;
    }

    fn attempt(&mut self, write: impl FnOnce(&mut Self) -> io::Result<()>) {
        if !self.ended
            && let Err(e) = write(self)
        {
            tracing::error!("The trace cannot be written and ends: {e}.");
            self.ended = true;
        }
    }
}

impl Trace for Recorder {
    fn input(&mut self, now: Timestamp, input: Input) {
        let closed = match input {
            Input::Close(conn, _) => Some(conn),
            _ => None,
        };
        // A machine's time does not go back.
        let now = now.max(self.at);
        let after = now.since(self.at).as_micros() as u64;
        self.at = now;
        self.entry(&Entry::Input(after, Box::new(self.digest.input(input))));
        if let Some(conn) = closed {
            self.digest.closed(conn);
        }
    }

    fn read(&mut self, now: Timestamp, conn: ConnectionId, bytes: &[u8]) {
        let bytes = self.digest.read(conn, bytes);
        self.input(now, Input::Read(conn, bytes));
    }

    fn output(&mut self, output: &Output) {
        self.digest.output(output);
    }

    fn note(&mut self, value: &dyn Debug) {
        self.digest.note(value);
    }

    fn sent(&mut self, conn: ConnectionId, bytes: &[u8]) {
        self.digest.sent(conn, bytes);
    }

    /// What happened in this turn is the system's now: a broker that is killed has left it.
    fn settled(&mut self) {
        self.finish();
        self.attempt(|recorder| recorder.file.flush());
    }
}

impl Drop for Recorder {
    /// Also when a turn panicked: the input that made it panic is the last one, and there is no end.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.finish();
            self.attempt(|recorder| recorder.file.flush());
        } else {
            self.end(false);
        }
    }
}

//! A TCP that keeps its promises and nothing more: bytes arrive in order, in pieces of any size, late,
//! and up to any byte.

use crate::random::Random;
use mqtt_session::broker::ConnectionId;
use std::collections::VecDeque;

/// What a link may do to its bytes.
#[derive(Clone, Debug)]
pub struct NetworkOptions {
    /// Shortest way, in microseconds.
    pub latency_min: u64,
    /// Longest way.
    pub latency_max: u64,
    /// Largest piece that arrives at once.
    pub piece: usize,
    /// How many bytes one direction holds before the sender's socket is full.
    pub capacity: usize,
}

/// Bytes under way that arrive together; without bytes it is the end of the stream.
#[derive(Debug)]
pub struct Piece {
    at: u64,
    /// The bytes; none at the end.
    pub bytes: Vec<u8>,
}

/// One direction of a link.
#[derive(Debug)]
pub struct Pipe {
    pieces: VecDeque<Piece>,
    held: usize,
    capacity: usize,
    last_at: u64,
    stalled_until: u64,
    broken: bool,
    armed: bool,
}

impl Pipe {
    /// An empty one.
    #[must_use]
    pub const fn new(capacity: usize) -> Self {
        Self {
            pieces: VecDeque::new(),
            held: 0,
            capacity,
            last_at: 0,
            stalled_until: 0,
            broken: false,
            armed: false,
        }
    }

    /// How many bytes the sender's socket takes now.
    #[must_use]
    pub const fn room(&self) -> usize {
        if self.broken { self.capacity } else { self.capacity.saturating_sub(self.held) }
    }

    /// Makes more room.
    pub const fn widen(&mut self, capacity: usize) {
        self.capacity = capacity;
    }

    /// Takes bytes. What is sent into a broken pipe is lost.
    pub fn send(&mut self, now: u64, bytes: &[u8], options: &NetworkOptions, random: &mut Random) {
        let mut rest = bytes;
        while !rest.is_empty() && !self.broken {
            let len = 1 + random.below(options.piece.min(rest.len()));
            let (piece, behind) = rest.split_at(len);
            rest = behind;
            self.push(now, piece.to_vec(), options, random);
        }
    }

    /// Ends the stream behind what was sent.
    pub fn end(&mut self, now: u64, options: &NetworkOptions, random: &mut Random) {
        if !self.broken {
            self.push(now, Vec::new(), options, random);
        }
    }

    fn push(&mut self, now: u64, bytes: Vec<u8>, options: &NetworkOptions, random: &mut Random) {
        let way = random.range(options.latency_min..options.latency_max + 1);
        let at = (now + way).max(self.last_at).max(self.stalled_until);
        self.last_at = at;
        self.held += bytes.len();
        self.pieces.push_back(Piece { at, bytes });
    }

    /// When to look for the next piece, if nobody is going to look yet.
    pub fn arm(&mut self) -> Option<u64> {
        let at = self.pieces.front().filter(|_| !self.armed)?.at.max(self.stalled_until);
        self.armed = true;
        Some(at)
    }

    /// Nobody looks until it is armed again.
    pub const fn disarm(&mut self) {
        self.armed = false;
    }

    /// The piece that has arrived by now. Arm again behind it.
    pub fn arrived(&mut self, now: u64) -> Option<Piece> {
        self.armed = false;
        self.pieces.front().filter(|front| front.at.max(self.stalled_until) <= now)?;
        let piece = self.pieces.pop_front()?;
        self.held -= piece.bytes.len();
        Some(piece)
    }

    /// Nothing arrives before `until`.
    pub fn stall(&mut self, until: u64) {
        self.stalled_until = self.stalled_until.max(until);
    }

    /// Cuts the stream after `keep` of the bytes that are under way.
    pub fn cut(&mut self, mut keep: usize) {
        self.broken = true;
        self.pieces.retain_mut(|piece| {
            let had = !piece.bytes.is_empty();
            piece.bytes.truncate(keep);
            keep -= piece.bytes.len();
            had && !piece.bytes.is_empty()
        });
        self.held = self.pieces.iter().map(|piece| piece.bytes.len()).sum();
    }

    /// Bytes under way.
    #[must_use]
    pub const fn held(&self) -> usize {
        self.held
    }
}

/// A connection between a node and the broker. Either end may know that it is over while the other does
/// not.
#[derive(Debug)]
pub struct Link {
    /// Whose it is.
    pub node: usize,
    /// Its name at the broker.
    pub conn: ConnectionId,
    /// The shard that has it.
    pub shard: usize,
    /// It is on its way to another one.
    pub moving: bool,
    /// To the broker.
    pub up: Pipe,
    /// From the broker.
    pub down: Pipe,
    /// The node has it open.
    pub node_open: bool,
    /// The broker has it open.
    pub broker_open: bool,
    /// The broker does not read it.
    pub paused: bool,
    /// The broker hangs up once its outbox is empty.
    pub hanging_up: bool,
}

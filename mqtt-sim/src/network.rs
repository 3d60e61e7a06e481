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
}

impl Pipe {
    /// An empty one.
    #[must_use]
    pub const fn new(capacity: usize) -> Self {
        Self { pieces: VecDeque::new(), held: 0, capacity, last_at: 0, stalled_until: 0, broken: false }
    }

    /// How many bytes the sender's socket takes now.
    #[must_use]
    pub const fn room(&self) -> usize {
        if self.broken { self.capacity } else { self.capacity.saturating_sub(self.held) }
    }

    /// Takes bytes and gives the times at which they arrive. What is sent into a broken pipe is lost.
    pub fn send(
        &mut self,
        now: u64,
        bytes: &[u8],
        options: &NetworkOptions,
        random: &mut Random,
    ) -> Vec<u64> {
        let mut times = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() && !self.broken {
            let len = 1 + random.below(options.piece.min(rest.len()));
            let (piece, behind) = rest.split_at(len);
            rest = behind;
            times.push(self.push(now, piece.to_vec(), options, random));
        }
        times
    }

    /// Ends the stream behind what was sent.
    pub fn end(&mut self, now: u64, options: &NetworkOptions, random: &mut Random) -> Option<u64> {
        (!self.broken).then(|| self.push(now, Vec::new(), options, random))
    }

    fn push(&mut self, now: u64, bytes: Vec<u8>, options: &NetworkOptions, random: &mut Random) -> u64 {
        let way = random.range(options.latency_min..options.latency_max + 1);
        let at = (now + way).max(self.last_at).max(self.stalled_until);
        self.last_at = at;
        self.held += bytes.len();
        self.pieces.push_back(Piece { at, bytes });
        at
    }

    /// The piece that has arrived by now, or when to look again.
    pub fn arrived(&mut self, now: u64) -> Result<Option<Piece>, u64> {
        let Some(front) = self.pieces.front() else { return Ok(None) };
        let at = front.at.max(self.stalled_until);
        if at > now {
            return Err(at);
        }
        let piece = self.pieces.pop_front();
        if let Some(piece) = &piece {
            self.held -= piece.bytes.len();
        }
        Ok(piece)
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

    /// Pieces under way.
    #[must_use]
    pub fn pieces(&self) -> usize {
        self.pieces.len()
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

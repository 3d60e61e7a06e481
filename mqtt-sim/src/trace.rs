//! What a person reads after a failure, and the hash that tells whether two runs were the same.

use std::collections::VecDeque;
use std::fmt;

/// How many lines are kept.
const KEPT: usize = 4_000;

/// Lines about what happened. Nothing is formatted unless somebody wants to read it.
#[derive(Debug, Default)]
pub struct Trace {
    on: bool,
    lines: VecDeque<String>,
}

impl Trace {
    /// A trace that keeps lines, or one that does not.
    #[must_use]
    pub const fn new(on: bool) -> Self {
        Self { on, lines: VecDeque::new() }
    }

    /// Whether lines are kept.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.on
    }

    /// Adds a line at a time in microseconds.
    pub fn line(&mut self, now: u64, text: impl FnOnce() -> String) {
        if !self.on {
            return;
        }
        if self.lines.len() == KEPT {
            self.lines.pop_front();
        }
        self.lines.push_back(format!("{:>6}.{:06} {}", now / 1_000_000, now % 1_000_000, text()));
    }

    /// The last lines, oldest first.
    pub fn last(&self, count: usize) -> impl Iterator<Item = &str> {
        self.lines.iter().skip(self.lines.len().saturating_sub(count)).map(String::as_str)
    }
}

/// FNV-1a over everything that a machine gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hash(u64);

impl Default for Hash {
    fn default() -> Self {
        Self(0xCBF2_9CE4_8422_2325)
    }
}

impl Hash {
    /// Adds bytes.
    pub fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3);
        }
    }

    /// Adds whatever can be written.
    pub fn add_text(&mut self, value: &dyn fmt::Debug) {
        // A hash cannot fail to take text.
        let _ = fmt::Write::write_fmt(self, format_args!("{value:?};"));
    }

    /// The number.
    #[must_use]
    pub const fn value(self) -> u64 {
        self.0
    }
}

impl fmt::Write for Hash {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.add(text.as_bytes());
        Ok(())
    }
}

//! `[sys]`: what the broker tells of itself by MQTT; `[shards]`: on how many threads it works.

use super::Span;
use mqtt_session::MAX_SHARDS;
use serde::{Deserialize, Serialize};

/// `[sys]`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sys {
    /// How often the topics below `$SYS` are brought up to date; never: they are not there.
    pub interval: Span,
}

impl Default for Sys {
    fn default() -> Self {
        Self { interval: Span::secs(10) }
    }
}

/// `[shards]`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shards {
    /// Threads, each with its own part of the connections; 0: as many as there are cores that the process may use, at most 64. It
    /// may change from start to start.
    pub count: u16,
}

impl Shards {
    /// How many there are.
    pub(crate) fn number(self) -> u16 {
        match self.count {
            0 => {
                let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
                u16::try_from(cores).unwrap_or(MAX_SHARDS).min(MAX_SHARDS)
            }
            count => count,
        }
    }
}

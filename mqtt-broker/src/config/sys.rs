//! `[sys]`: what the broker tells of itself by MQTT; `[shards]`: on how many threads it works.

use super::Span;
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shards {
    /// Threads, each with its own part of the connections. It may change from start to start.
    pub count: u16,
}

impl Default for Shards {
    fn default() -> Self {
        Self { count: 1 }
    }
}

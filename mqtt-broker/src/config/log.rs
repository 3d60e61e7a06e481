//! `[log]`: what is told, how and where.

use serde::{Deserialize, Serialize};

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// How much is told.
    pub level: LogLevel,
    /// What a line looks like.
    pub format: LogFormat,
    /// Where lines go: `stderr`, `stdout`, `topic`, or paths of files.
    pub to: Vec<String>,
    /// Whether it is told who connects, who is refused and who leaves.
    pub connections: bool,
    /// Whether it is told who subscribes, at every level.
    pub subscriptions: bool,
    /// The time in a line of text: `rfc3339`, `unix`, `none`, or what strftime takes. Not set: as the format
    /// has it.
    pub timestamp: Option<String>,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: LogLevel::Info,
            format: LogFormat::Text,
            to: vec!["stderr".to_owned()],
            connections: true,
            subscriptions: false,
            timestamp: None,
        }
    }
}

/// What a line of the log looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// An object of JSON, with the client, its address and reasons as fields.
    Json,
    /// As Mosquitto 2.0 writes about clients.
    Mosquitto,
}

/// How much is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogLevel {
    /// Nothing.
    Off,
    /// What failed.
    Error,
    /// What needs attention.
    Warn,
    /// Who connects and who leaves, too.
    #[default]
    Info,
    /// Subscriptions and denials, too.
    Debug,
}

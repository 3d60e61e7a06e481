//! `[http]`: figures, health and administration by HTTP.

use super::{Security, Tls};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// `[http]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// Where to listen, as in [`Bind`](crate::Bind); the port is 18083 if none is named. Not set: nowhere.
    pub address: Option<String>,
    /// What who wants more than health has to show, one token on each line.
    pub token_file: Option<PathBuf>,
    /// Whether `/metrics` is for everybody. Not set: only where no other machine can ask.
    pub open_metrics: Option<bool>,
    /// Whether the page for people is served.
    pub dashboard: bool,
    /// Whether pages may connect as MQTT clients, by WebSocket at `/mqtt`.
    pub console: bool,
    /// Names by which this listener is known; none: every name, but on this machine's own addresses only these.
    pub hosts: Vec<String>,
    /// Connections at once.
    pub max_connections: u32,
    /// TLS.
    pub tls: Option<Tls>,
    /// Whom the console lets in, in the place of `[security]`.
    pub security: Option<Security>,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            address: None,
            token_file: None,
            open_metrics: None,
            dashboard: true,
            console: true,
            hosts: Vec::new(),
            max_connections: 256,
            tls: None,
            security: None,
        }
    }
}

//! What a listener speaks below MQTT.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What is spoken on a listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// MQTT over TCP.
    #[default]
    Mqtt,
    /// MQTT over TLS.
    Mqtts,
    /// MQTT over WebSocket.
    Ws,
    /// MQTT over WebSocket and TLS.
    Wss,
    /// MQTT over a Unix socket.
    Unix,
}

impl Protocol {
    /// Whether it has TLS in it.
    #[must_use]
    pub const fn has_tls(self) -> bool {
        matches!(self, Self::Mqtts | Self::Wss)
    }

    /// Whether it has WebSocket in it.
    #[must_use]
    pub const fn has_websocket(self) -> bool {
        matches!(self, Self::Ws | Self::Wss)
    }

    /// The port where none is named.
    #[must_use]
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Mqtt | Self::Unix => crate::DEFAULT_PORT,
            Self::Mqtts => 8883,
            Self::Ws => 8083,
            Self::Wss => 8084,
        }
    }
}

/// `[listener.tls]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// The certificate and those behind it.
    pub cert_file: Option<PathBuf>,
    /// Its key.
    pub key_file: Option<PathBuf>,
    /// The authorities of clients: a file or a directory. If set, clients are asked for certificates.
    pub ca_file: Option<PathBuf>,
    /// Whether those without one are turned away.
    pub require_certificate: bool,
    /// Certificates that are not believed any more.
    pub crl_file: Option<PathBuf>,
    /// The oldest version.
    pub min_version: TlsVersion,
    /// Only these cipher suites, if there are any.
    pub ciphers: Vec<String>,
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            cert_file: None,
            key_file: None,
            ca_file: None,
            require_certificate: true,
            crl_file: None,
            min_version: TlsVersion::V12,
            ciphers: Vec::new(),
        }
    }
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TlsVersion {
    /// 1.2
    #[default]
    #[serde(rename = "1.2")]
    V12,
    /// 1.3
    #[serde(rename = "1.3")]
    V13,
}

/// `[listener.websocket]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebSocket {
    /// The path that is served; `*` for every path.
    pub path: String,
    /// The origins whose pages may connect; none for all.
    pub origins: Vec<String>,
    /// Whether clients are let in that offer no subprotocol.
    pub lenient: bool,
}

impl Default for WebSocket {
    fn default() -> Self {
        Self { path: "/mqtt".to_owned(), origins: Vec::new(), lenient: false }
    }
}

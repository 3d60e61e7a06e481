//! What is spoken on a listener below MQTT.

use crate::Stack;
use crate::stack::StackError;
#[cfg(feature = "websocket")]
use crate::stack::WebSocketServer;
#[cfg(feature = "tls")]
use crate::tls::TlsServer;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::{Arc, PoisonError, RwLock};

/// What is spoken on a listener below MQTT. By default nothing: plain MQTT.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Transport {
    /// Proxies that say by the PROXY protocol where clients connect from. If set, each connection has
    /// to come from one of these networks (or over a Unix socket) and to begin with such a header.
    pub proxies: Option<Vec<Network>>,
    /// TLS.
    #[cfg(feature = "tls")]
    pub tls: Option<TlsServer>,
    /// WebSocket, above TLS if there is that.
    #[cfg(feature = "websocket")]
    pub websocket: Option<Arc<WebSocketServer>>,
}

impl Transport {
    /// Whether a connection from there may speak for others, if it has to.
    pub(super) fn believes(&self, address: Option<SocketAddr>) -> bool {
        match (&self.proxies, address) {
            (Some(proxies), Some(address)) => proxies.iter().any(|network| network.contains(address.ip())),
            // Who may open the socket is a matter of its rights.
            (Some(_), None) | (None, _) => true,
        }
    }

    /// The layers of a connection that comes now.
    pub(crate) fn stack(&self) -> Result<Stack, StackError> {
        let stack = Stack::plain();
        #[cfg(feature = "tls")]
        let stack = match &self.tls {
            Some(tls) => stack.tls_server(tls.config())?,
            None => stack,
        };
        #[cfg(feature = "websocket")]
        let stack = match &self.websocket {
            Some(settings) => stack.websocket_server(Arc::clone(settings)),
            None => stack,
        };
        Ok(if self.proxies.is_some() { stack.behind_proxy() } else { stack })
    }
}

/// What is spoken on a listener that runs. Clones are the same; what is put in its place counts for
/// connections that come after, and open ones keep what they have.
#[derive(Clone, Debug, Default)]
pub struct SharedTransport(Arc<RwLock<Arc<Transport>>>);

impl SharedTransport {
    /// What connections get that come now.
    #[must_use]
    pub fn get(&self) -> Arc<Transport> {
        // Nothing panics while it is held.
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another in its place.
    pub fn replace(&self, transport: Arc<Transport>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = transport;
    }
}

impl From<Transport> for SharedTransport {
    fn from(transport: Transport) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(transport))))
    }
}

impl PartialEq for SharedTransport {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.get() == other.get()
    }
}

impl Eq for SharedTransport {}

/// Addresses that begin with the same bits: `10.0.0.0/8`, `2001:db8::/32`, or a single one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// Whether this address is one of them. IPv4 addresses count as such also where they are written
    /// as IPv6 (`::ffff:10.0.0.1`).
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let differ = match (self.address, address.to_canonical()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
            (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
            _ => return false,
        };
        differ >= u32::from(self.bits)
    }
}

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        let address = address.to_canonical();
        Self { address, bits: if address.is_ipv4() { 32 } else { 128 } }
    }
}

/// This text is no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no network: write an IP address, or one with the number of bits that count, as 10.0.0.0/8")]
pub struct NetworkError(String);

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let fail = || NetworkError(text.to_owned());
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let single = Self::from(address.parse::<IpAddr>().map_err(|_| fail())?);
        match bits {
            None => Ok(single),
            Some(bits) => {
                let bits = bits.parse().ok().filter(|&bits| bits <= single.bits).ok_or_else(fail)?;
                Ok(Self { bits, ..single })
            }
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read_and_contain_addresses() {
        let is_in = |network: &str, address: &str| {
            network.parse::<Network>().unwrap().contains(address.parse().unwrap())
        };
        for (network, address) in [
            ("10.0.0.0/8", "10.1.2.3"),
            ("10.0.0.0/8", "::ffff:10.1.2.3"),
            ("0.0.0.0/0", "203.0.113.1"),
            ("127.0.0.1", "127.0.0.1"),
            ("2001:db8::/32", "2001:db8:1::1"),
            ("::1", "::1"),
        ] {
            assert!(is_in(network, address), "{network} {address}");
        }
        for (network, address) in
            [("10.0.0.0/8", "11.1.2.3"), ("127.0.0.1", "127.0.0.2"), ("::/0", "1.2.3.4"), ("::1", "::2")]
        {
            assert!(!is_in(network, address), "{network} {address}");
        }
        for text in ["", "10.0.0.0/33", "::/129", "host", "10.0.0.0/", "10.0.0.0/x"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }
}

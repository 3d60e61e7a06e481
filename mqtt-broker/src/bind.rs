//! Where to listen: from what people write to addresses.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::str::FromStr;

/// Where to listen, as people write it: `0.0.0.0`, `0.0.0.0:1884`, `::`, `[::]:1884`, `myhost`,
/// `myhost:1884`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    host: Host,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Ip(IpAddr),
    Name(String),
}

/// An address that is none.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// It is not written like one.
    #[error("{0:?} is no address: write an IP address or a host name, with :PORT behind it if you like")]
    Syntax(String),
    /// The name is not known.
    #[error("the name {name:?} has no address: {source}")]
    Unknown {
        /// The name.
        name: String,
        /// What the system says.
        source: io::Error,
    },
}

impl FromStr for Bind {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self { host: Host::Ip(address.ip()), port: Some(address.port()) });
        }
        let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
        if let Ok(ip) = bare.parse() {
            return Ok(Self { host: Host::Ip(ip), port: None });
        }
        let syntax = || AddressError::Syntax(text.to_owned());
        let (name, port) = match text.rsplit_once(':') {
            Some((name, port)) => (name, Some(port.parse().map_err(|_| syntax())?)),
            None => (text, None),
        };
        let is_name = |c: char| c.is_alphanumeric() || matches!(c, '-' | '.' | '_');
        // Digits and dots that are no address are a mistyped address, not a name.
        let is_number = name.chars().all(|c| c.is_ascii_digit() || c == '.');
        if name.is_empty() || is_number || !name.chars().all(is_name) {
            return Err(syntax());
        }
        Ok(Self { host: Host::Name(name.to_owned()), port })
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.host, self.port) {
            (Host::Ip(ip), Some(port)) => SocketAddr::new(*ip, port).fmt(f),
            (Host::Ip(ip), None) => ip.fmt(f),
            (Host::Name(name), Some(port)) => write!(f, "{name}:{port}"),
            (Host::Name(name), None) => name.fmt(f),
        }
    }
}

impl Bind {
    /// The same, with a port if it has none.
    pub(crate) fn with_port(&self, port: u16) -> Self {
        Self { host: self.host.clone(), port: Some(self.port.unwrap_or(port)) }
    }

    /// The addresses that it stands for; `port` is for one that names none.
    pub(crate) fn resolve(&self, port: u16) -> Result<Vec<SocketAddr>, AddressError> {
        let port = self.port.unwrap_or(port);
        match &self.host {
            Host::Ip(ip) => Ok(vec![SocketAddr::new(*ip, port)]),
            Host::Name(name) => {
                let found = (name.as_str(), port).to_socket_addrs();
                Ok(found.map_err(|source| AddressError::Unknown { name: name.clone(), source })?.collect())
            }
        }
    }
}

/// The addresses that only this machine reaches.
pub(crate) fn loopback(port: u16) -> impl Iterator<Item = SocketAddr> {
    let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
    [v4].into_iter().chain(has_ipv6_loopback().then_some(v6))
}

/// Machines without IPv6 exist, containers above all; there the default is IPv4 alone.
pub(crate) fn has_ipv6_loopback() -> bool {
    TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_write_addresses_in_many_ways() {
        for (text, expected) in [
            ("0.0.0.0", "0.0.0.0:1883"),
            ("127.0.0.1:1884", "127.0.0.1:1884"),
            ("::", "[::]:1883"),
            ("[::1]", "[::1]:1883"),
            ("[::1]:99", "[::1]:99"),
        ] {
            let bind: Bind = text.parse().unwrap();
            assert_eq!(bind.resolve(1883).unwrap(), [expected.parse().unwrap()], "{text}");
        }
    }

    #[test]
    fn mistakes_are_told() {
        for text in
            ["", ":1883", "300.0.0.1", "1.2.3", "host:port", "host:70000", "a b", "http://host", "[::1"]
        {
            let error = text.parse::<Bind>().unwrap_err().to_string();
            assert!(error.contains("is no address"), "{text}: {error}");
        }
    }

    #[test]
    fn without_a_wish_only_this_machine_is_reached() {
        let addresses: Vec<_> = loopback(1883).collect();
        assert!(addresses.iter().all(|a| a.ip().is_loopback() && a.port() == 1883), "{addresses:?}");
        assert!(addresses.contains(&"127.0.0.1:1883".parse().unwrap()));
    }

    #[test]
    fn what_was_read_is_written_the_same() {
        for text in ["0.0.0.0", "127.0.0.1:1884", "::1", "[::1]:99", "myhost", "myhost:1"] {
            assert_eq!(text.parse::<Bind>().unwrap().to_string(), text);
        }
    }
}

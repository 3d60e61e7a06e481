//! The PROXY protocol, versions 1 and 2: a proxy's word on where a client connected from.

use super::StackError;
use proxy_header::{ParseConfig, Protocol, ProxyHeader};
use std::net::SocketAddr;

/// The longest header of version 2 that is taken: it has 16 bytes, addresses, and as much else as the proxy
/// likes to tell.
const MAX_HEADER: usize = 4096;
/// The longest header of version 1, with its line end.
const MAX_V1: usize = 107;
/// How every header of version 2 begins.
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// How every header of version 1 begins.
const V1: &[u8] = b"PROXY ";

/// A header that has not come whole.
#[derive(Default)]
pub(crate) struct Proxy {
    header: Vec<u8>,
}

impl Proxy {
    /// Takes of `wire` what belongs to the header. `None`: there is more to come. `Some(None)`: the
    /// proxy speaks for itself, or does not know.
    pub(super) fn take(&mut self, wire: &mut &[u8]) -> Result<Option<Option<SocketAddr>>, StackError> {
        let before = self.header.len();
        let (taken, _) = wire.split_at_checked(MAX_HEADER - before).unwrap_or((wire, &[]));
        self.header.extend_from_slice(taken);
        let begins = |signature: &[u8]| {
            let n = signature.len().min(self.header.len());
            self.header.get(..n) == signature.get(..n)
        };
        if !begins(V1) && !begins(V2) {
            return Err(StackError::Proxy(
                "the connection does not begin with a PROXY header; a proxy has to send one on this listener",
            ));
        }
        // Only a whole header is parsed, so that it means the same however it comes.
        let len = if begins(V2) {
            let len = match self.header.get(14..16) {
                Some(&[high, low]) => Some(16 + usize::from(u16::from_be_bytes([high, low]))),
                _ => None,
            };
            if len.is_some_and(|len| len > MAX_HEADER) {
                return Err(StackError::Proxy("the header is longer than 4,096 bytes"));
            }
            len.filter(|&len| self.header.len() >= len)
        } else {
            let line = self.header.get(..MAX_V1).unwrap_or(&self.header);
            let end = line.windows(2).position(|two| two == b"\r\n");
            if end.is_none() && line.len() == MAX_V1 {
                return Err(StackError::Proxy("the header is longer than 107 bytes"));
            }
            end.map(|at| at + 2)
        };
        let Some(header) = len.and_then(|len| self.header.get(..len)) else {
            *wire = &[];
            return Ok(None);
        };
        let config = ParseConfig { include_tlvs: false, allow_v1: true, allow_v2: true };
        match ProxyHeader::parse(header, config) {
            Ok((header, len)) => {
                let source = header.proxied_address().filter(|address| address.protocol == Protocol::Stream);
                let source = source.map(|address| address.source);
                // Bytes from before this call all belong to the header.
                *wire = wire.get(len.saturating_sub(before)..).unwrap_or_default();
                Ok(Some(source))
            }
            Err(_) => Err(StackError::Proxy("the header is malformed")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of a header followed by `rest`, however it is split.
    fn take(bytes: &[u8]) -> Result<(Option<SocketAddr>, usize), StackError> {
        let mut all = None;
        for split in 0..=bytes.len() {
            let mut proxy = Proxy::default();
            let (mut first, mut second) = bytes.split_at(split);
            let result = match proxy.take(&mut first) {
                Ok(None) => {
                    assert!(first.is_empty());
                    proxy.take(&mut second)
                }
                other => other,
            };
            let result =
                result.map(|address| (address.expect("the header is there"), first.len() + second.len()));
            let expected = all.get_or_insert_with(|| result.clone());
            assert_eq!(*expected, result, "split at {split}");
        }
        all.unwrap()
    }

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let len = u16::try_from(body.len()).unwrap().to_be_bytes();
        [V2, &[command, family], &len, body].concat()
    }

    #[test]
    fn both_versions_say_where_the_client_is() {
        let client: SocketAddr = "203.0.113.7:4711".parse().unwrap();
        let v1 = b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 1883\r\n\x10\x00";
        assert_eq!(take(v1), Ok((Some(client), 2)));
        let v6 = b"PROXY TCP6 2001:db8::1 2001:db8::2 99 1883\r\n\x10";
        assert_eq!(take(v6), Ok((Some("[2001:db8::1]:99".parse().unwrap()), 1)));
        let mut body = vec![203, 0, 113, 7, 10, 0, 0, 1, 0x12, 0x67, 7, 0x5B];
        // What else the proxy tells is passed over.
        body.extend([4, 0, 2, 0, 0]);
        assert_eq!(take(&[v2(0x21, 0x11, &body), vec![0x10, 0, 1]].concat()), Ok((Some(client), 3)));
    }

    #[test]
    fn a_proxy_may_speak_for_itself() {
        assert_eq!(take(b"PROXY UNKNOWN\r\nx"), Ok((None, 1)));
        assert_eq!(take(&[v2(0x20, 0, &[]), b"xy".to_vec()].concat()), Ok((None, 2)));
    }

    #[test]
    fn what_is_no_header_is_refused_at_once() {
        let refused = |bytes: &[u8]| {
            let mut proxy = Proxy::default();
            let mut wire = bytes;
            match proxy.take(&mut wire) {
                Err(StackError::Proxy(why)) => why,
                other => panic!("{bytes:?}: {other:?}"),
            }
        };
        // A CONNECT, a ClientHello, HTTP, a wrong second byte.
        for bytes in [&b"\x10\x0d\x00\x04MQTT"[..], b"\x16\x03\x01", b"GET / HTTP/1.1\r\n", b"PX", b"\r\n\n"]
        {
            assert!(refused(bytes).contains("does not begin"), "{bytes:?}");
        }
        for bytes in [&b"PROXY TCP9 203.0.113.7 10.0.0.1 4711 1883\r\n"[..], b"PROXY TCP4 x 10.0.0.1 1 2\r\n"]
        {
            assert!(refused(bytes).contains("malformed"), "{bytes:?}");
        }
        assert!(refused(&[b"PROXY TCP4 ".to_vec(), vec![b'1'; 200]].concat()).contains("longer than 107"));
        assert!(refused(&v2(0x21, 0x11, &[0; 5000])).contains("longer"));
        assert!(refused(&v2(0x21, 0x11, &[0; 3])).contains("malformed"));
        assert!(refused(&v2(0x41, 0x11, &[0; 12])).contains("malformed"));
    }
}

//! Who may ask for what.

use ctutils::CtEq;
use hyper::header::{self, HeaderMap};
use std::fmt;
use std::io;
use std::net::IpAddr;

/// The tokens that open the interface.
#[derive(Clone)]
pub(super) struct Door {
    tokens: Vec<String>,
    hosts: Vec<String>,
    local: bool,
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").field("hosts", &self.hosts).field("local", &self.local).finish_non_exhaustive()
    }
}

impl Door {
    pub(super) const fn new(tokens: Vec<String>, hosts: Vec<String>, local: bool) -> Self {
        Self { tokens, hosts, local }
    }

    /// Whether a request shows a token. How long the answer takes tells nothing but how long the tokens are.
    pub(super) fn opens(&self, headers: &HeaderMap) -> bool {
        let Some(shown) =
            headers.get(header::AUTHORIZATION).and_then(|value| value.as_bytes().split_at_checked(7))
        else {
            return false;
        };
        let (scheme, token) = shown;
        scheme.eq_ignore_ascii_case(b"bearer ")
            && self.tokens.iter().fold(false, |opens, own| opens | own.as_bytes().ct_eq(token).to_bool())
    }

    /// Whether a request is meant for this listener. A page of somebody else can have a name of its own
    /// mean this machine, and then its requests come here with that name.
    pub(super) fn is_meant(&self, headers: &HeaderMap) -> bool {
        let Some(host) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) else { return false };
        let name = name_of(host).to_ascii_lowercase();
        if self.hosts.contains(&name) {
            return true;
        }
        let is_address = name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
        if self.local {
            return is_address || name == "localhost" || name.ends_with(".localhost");
        }
        self.hosts.is_empty() || is_address
    }

    /// Whether a page may connect from where it comes: from this listener itself. Programs that are no
    /// browsers do not say where they come from.
    pub(super) fn is_own_page(headers: &HeaderMap) -> bool {
        let Some(origin) = headers.get(header::ORIGIN) else { return true };
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        matches!((origin, host), (Some((_, origin)), Some(host)) if origin.eq_ignore_ascii_case(host))
    }
}

/// A name or an address without its port.
fn name_of(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

/// A token that nobody can guess.
pub(super) fn new_token() -> io::Result<String> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|e| io::Error::other(e.to_string()))?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn only_a_whole_token_opens() {
        let door =
            Door::new(vec!["0123456789abcdef".into(), "another-one-of-24-letters".into()], vec![], true);
        for (shown, opens) in [
            ("Bearer 0123456789abcdef", true),
            ("bearer another-one-of-24-letters", true),
            ("Bearer 0123456789abcde", false),
            ("Bearer 0123456789abcdef0", false),
            ("Bearer ", false),
            ("Basic 0123456789abcdef", false),
            ("0123456789abcdef", false),
        ] {
            assert_eq!(door.opens(&headers(&[("authorization", shown)])), opens, "{shown}");
        }
        assert!(!door.opens(&HeaderMap::new()));
        assert!(!Door::new(Vec::new(), Vec::new(), true).opens(&headers(&[("authorization", "Bearer ")])));
        assert!(!format!("{door:?}").contains("0123"));
    }

    #[test]
    fn on_this_machine_a_foreign_name_is_turned_away() {
        let local = Door::new(Vec::new(), vec!["known.example".into()], true);
        let open = Door::new(Vec::new(), Vec::new(), false);
        let named = Door::new(Vec::new(), vec!["known.example".into()], false);
        for (host, expected) in [
            ("127.0.0.1:18083", [true, true, true]),
            ("[::1]:18083", [true, true, true]),
            ("localhost", [true, true, false]),
            ("LOCALHOST:1", [true, true, false]),
            ("known.example:18083", [true, true, true]),
            ("evil.example", [false, true, false]),
            ("localhost.evil.example", [false, true, false]),
        ] {
            let headers = headers(&[("host", host)]);
            assert_eq!([&local, &open, &named].map(|door| door.is_meant(&headers)), expected, "{host}");
        }
        assert!(!open.is_meant(&HeaderMap::new()));
    }

    #[test]
    fn pages_of_others_do_not_connect() {
        for (origin, expected) in [
            ("http://127.0.0.1:18083", true),
            ("https://127.0.0.1:18083", true),
            ("http://127.0.0.1", false),
            ("http://evil.example", false),
            ("null", false),
        ] {
            let headers = headers(&[("host", "127.0.0.1:18083"), ("origin", origin)]);
            assert_eq!(Door::is_own_page(&headers), expected, "{origin}");
        }
        assert!(Door::is_own_page(&headers(&[("host", "h")])));
    }

    #[test]
    fn tokens_are_long_and_differ() {
        let (a, b) = (new_token().unwrap(), new_token().unwrap());
        assert_eq!((a.len(), a == b), (32, false));
    }
}

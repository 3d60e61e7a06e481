//! From `[http]` to what is served: reads every file that it names.

use crate::bind::Bind;
use crate::config::FileConfig;
use crate::settings::Origin;
use mqtt_access::FileError;
use std::net::SocketAddr;

/// The port of HTTP, where none is named.
const PORT: u16 = 18083;
/// The shortest token that is taken.
#[cfg(feature = "http")]
const MIN_TOKEN: usize = 16;

/// What is served by HTTP, and to whom.
#[derive(Clone, Debug)]
#[cfg_attr(not(feature = "http"), allow(dead_code, reason = "there is nothing to serve it"))]
pub(crate) struct HttpSettings {
    pub(crate) addresses: Vec<SocketAddr>,
    /// Whether only this machine reaches them.
    pub(crate) local: bool,
    /// What opens the interface. None: a token is to be made.
    pub(crate) tokens: Vec<String>,
    pub(crate) open_metrics: bool,
    pub(crate) dashboard: bool,
    /// The number of the listener as which MQTT clients of the console come.
    pub(crate) console: Option<u16>,
    pub(crate) hosts: Vec<String>,
    pub(crate) max_connections: usize,
    /// The largest message of the console, and the largest body of a request.
    pub(crate) max_packet_size: u64,
    #[cfg(feature = "http")]
    pub(crate) tls: Option<mqtt_io::tls::TlsServer>,
}

impl HttpSettings {
    /// `None` if nothing is to be served.
    #[cfg(feature = "http")]
    pub(crate) fn read(config: &FileConfig, origin: &Origin) -> Result<Option<Self>, FileError> {
        let http = &config.http;
        let Some(address) = &http.address else { return Ok(None) };
        let wrong =
            |e: crate::AddressError| origin.error("http.address", &e.to_string(), "correct the address");
        let addresses = address.parse::<Bind>().and_then(|bind| bind.resolve(PORT)).map_err(wrong)?;
        let local = addresses.iter().all(|address| address.ip().is_loopback());
        let tokens = match &http.token_file {
            Some(file) => tokens(&origin.path(file))?,
            None if local => Vec::new(),
            None => {
                return Err(origin.error(
                    "http.address",
                    "other machines reach this address, and there is no token that they would have to show",
                    "set http.token_file, a file with a line of 16 characters or more that nobody can guess",
                ));
            }
        };
        let tls = http.tls.as_ref().map(|tls| crate::transport::tls_of(tls, "http", origin)).transpose()?;
        // Behind those of MQTT, of which there is one if none is named.
        let console = u16::try_from(config.listeners.len().max(1)).unwrap_or(u16::MAX);
        Ok(Some(Self {
            addresses,
            local,
            tokens,
            open_metrics: http.open_metrics.unwrap_or(local),
            dashboard: http.dashboard,
            console: http.console.then_some(console),
            hosts: http.hosts.iter().map(|host| host.to_ascii_lowercase()).collect(),
            max_connections: usize::try_from(http.max_connections).unwrap_or(usize::MAX).max(1),
            max_packet_size: config.limits.max_packet_size.0.max(64 << 10),
            tls,
        }))
    }

    /// It cannot be served.
    #[cfg(not(feature = "http"))]
    pub(crate) fn read(config: &FileConfig, origin: &Origin) -> Result<Option<Self>, FileError> {
        let _ = (PORT, std::any::type_name::<Bind>());
        match config.http.address {
            None => Ok(None),
            Some(_) => Err(origin.error(
                "http.address",
                "this program was built without it",
                "build with the feature http",
            )),
        }
    }
}

impl HttpSettings {
    /// Where it is to be had and for whom, in words.
    #[cfg_attr(not(feature = "http"), allow(clippy::unused_self, reason = "it is never made"))]
    pub(crate) fn summary(&self) -> String {
        let addresses: Vec<_> = self.addresses.iter().map(ToString::to_string).collect();
        let tokens = match self.tokens.len() {
            0 => "a token that is made at the start".to_owned(),
            1 => "1 token".to_owned(),
            n => format!("{n} tokens"),
        };
        let metrics = if self.open_metrics { "figures for everybody" } else { "figures by token" };
        let page = match (self.dashboard, self.console) {
            (true, Some(_)) => "page and console",
            (true, None) => "page without a console",
            (false, Some(_)) => "no page",
            (false, None) => "no page and no console",
        };
        format!("HTTP on {}: {tokens}; {metrics}; {page}", addresses.join(", "))
    }
}

/// The tokens of a file, one on each line; what begins with # is a word about them.
#[cfg(feature = "http")]
fn tokens(file: &std::path::Path) -> Result<Vec<String>, FileError> {
    let text = mqtt_access::read_text(file)?;
    let mut tokens = Vec::new();
    for (line, number) in text.lines().map(str::trim).zip(1..) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line.len() < MIN_TOKEN || !line.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(FileError::new(
                file,
                Some(number),
                format!("a token has at least {MIN_TOKEN} characters, without spaces"),
                "make one that nobody can guess: openssl rand -hex 24",
            ));
        }
        tokens.push(line.to_owned());
    }
    if tokens.is_empty() {
        let remedy = "write one token on each line, made with: openssl rand -hex 24";
        return Err(FileError::new(file, None, "there is no token in this file", remedy));
    }
    Ok(tokens)
}

//! The handshake: one HTTP request, one answer.

use super::{StackError, WebSocketError};
use std::fmt::Write;
use std::sync::Arc;
use tungstenite::error::{Error, ProtocolError};
use tungstenite::handshake::client::generate_key;
use tungstenite::handshake::derive_accept_key;
use tungstenite::handshake::machine::TryParse;
use tungstenite::handshake::server::{self, create_response};
use tungstenite::http::{HeaderMap, HeaderValue, Request, Response};

/// The longest request or answer.
const MAX_HTTP: usize = 8 << 10;
/// The subprotocols that are MQTT ([MQTT-6.0.0-3], [MQTT-6.0.0-4]); the second is what clients of MQTT
/// 3.1 say.
const SUBPROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];

/// What a server takes for MQTT over WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WebSocketServer {
    /// The path that is served, as `/mqtt`. `None`: every path.
    pub path: Option<String>,
    /// The origins whose pages may connect, as `https://example.org`; programs that are no browsers
    /// name none and are let in. `None`: every origin.
    pub origins: Option<Vec<String>>,
    /// Whether clients are let in that offer no subprotocol. (Those that offer others only are not.)
    pub lenient: bool,
    /// The largest message in bytes, all its frames together. Should be no less than the largest MQTT
    /// packet.
    pub max_message: u64,
}

impl Default for WebSocketServer {
    fn default() -> Self {
        Self { path: Some("/mqtt".to_owned()), origins: None, lenient: false, max_message: 2 << 20 }
    }
}

/// How a client asks for MQTT over WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WebSocketClient {
    /// The server's name, and its port if that is not the usual one.
    pub host: String,
    /// Path and query, as `/mqtt`.
    pub path: String,
    /// The largest message in bytes that is taken.
    pub max_message: u64,
}

impl WebSocketClient {
    /// A request to this server, for this path.
    ///
    /// # Errors
    /// If one of them cannot stand in a request.
    pub fn new(host: impl Into<String>, path: impl Into<String>) -> Result<Self, StackError> {
        let (host, path) = (host.into(), path.into());
        let fits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        if !fits(&host) || !fits(&path) || !path.starts_with('/') || path.contains('#') {
            let why = format!(
                "{host:?} and {path:?} cannot stand in a request: a path begins with / and has no spaces"
            );
            return Err(WebSocketError::Http(why).into());
        }
        Ok(Self { host, path, max_message: u64::from(mqtt_proto::MAX_PACKET_SIZE) })
    }

    pub(super) fn ask(&self) -> Asked {
        let key = generate_key();
        let Self { host, path, .. } = self;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
        );
        let answer = Answer { accept: derive_accept_key(key.as_bytes()), head: Vec::new() };
        Asked { request: request.into_bytes(), answer }
    }
}

/// A request, and what the answer to it has to be.
pub(super) struct Asked {
    pub(super) request: Vec<u8>,
    pub(super) answer: Answer,
}

/// Collects a head, up to and with the empty line. `None`: there is more to come.
fn collect(head: &mut Vec<u8>, input: &mut &[u8]) -> Result<Option<()>, WebSocketError> {
    // An empty line may lie across pieces.
    let before = head.len();
    let (taken, _) = input.split_at_checked(MAX_HTTP - before.min(MAX_HTTP)).unwrap_or((input, &[]));
    head.extend_from_slice(taken);
    let from = before.saturating_sub(3);
    let end = head.get(from..).unwrap_or_default().windows(4).position(|four| four == b"\r\n\r\n");
    match end {
        Some(at) => {
            let len = from + at + 4;
            *input = input.get(len - before..).unwrap_or_default();
            head.truncate(len);
            Ok(Some(()))
        }
        None if head.len() >= MAX_HTTP => {
            Err(WebSocketError::Refused { status: 431, why: "the headers are more than 8 KiB".to_owned() })
        }
        None => {
            *input = &[];
            Ok(None)
        }
    }
}

/// The request, as far as it has come.
#[derive(Default)]
pub(super) struct Asking {
    head: Vec<u8>,
}

/// A whole request.
pub(super) struct Taken {
    /// What is to be answered.
    pub(super) answer: Vec<u8>,
    /// Whether that is a yes.
    pub(super) is_ours: Result<(), WebSocketError>,
}

impl Asking {
    /// Takes of `input` what belongs to the request. `None`: there is more to come.
    pub(super) fn take(
        &mut self,
        input: &mut &[u8],
        settings: &Arc<WebSocketServer>,
    ) -> Result<Option<Taken>, WebSocketError> {
        let collected = collect(&mut self.head, input);
        if matches!(collected, Ok(None)) {
            // What is no HTTP need not come to its end.
            return match server::Request::try_parse(&self.head) {
                Ok(_) => Ok(None),
                Err(error) => Ok(Some(refuse(refused(&error)))),
            };
        }
        let head = std::mem::take(&mut self.head);
        let answer = collected.and_then(|_| accept(&head, settings));
        Ok(Some(match answer {
            Ok(answer) => Taken { answer: answer.into_bytes(), is_ours: Ok(()) },
            Err(error) => refuse(error),
        }))
    }
}

fn refuse(error: WebSocketError) -> Taken {
    let (status, why) = match &error {
        WebSocketError::Refused { status, why } => (*status, why.clone()),
        other => (400, other.to_string()),
    };
    let (reason, more) = match status {
        403 => ("Forbidden", ""),
        404 => ("Not Found", ""),
        405 => ("Method Not Allowed", "Allow: GET\r\n"),
        426 => ("Upgrade Required", "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"),
        431 => ("Request Header Fields Too Large", ""),
        _ => ("Bad Request", ""),
    };
    let body = format!("This is MQTT over WebSocket: {why}.\n");
    let connection = if status == 426 { "Upgrade, close" } else { "close" };
    let answer = format!(
        "HTTP/1.1 {status} {reason}\r\n{more}Connection: {connection}\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    Taken { answer: answer.into_bytes(), is_ours: Err(error) }
}

/// What is answered for this.
fn refused(error: &Error) -> WebSocketError {
    let (status, why) = match error {
        Error::Protocol(ProtocolError::WrongHttpMethod) => (405, "a handshake is a GET".to_owned()),
        Error::Protocol(
            ProtocolError::MissingConnectionUpgradeHeader
            | ProtocolError::MissingUpgradeWebSocketHeader
            | ProtocolError::MissingSecWebSocketVersionHeader,
        ) => (426, "connect with a WebSocket of version 13, subprotocol mqtt".to_owned()),
        other => (400, other.to_string()),
    };
    WebSocketError::Refused { status, why }
}

/// The answer to a request that is right.
fn accept(head: &[u8], settings: &WebSocketServer) -> Result<String, WebSocketError> {
    let request = match server::Request::try_parse(head) {
        Ok(Some((_, request))) => request,
        Ok(None) => {
            return Err(WebSocketError::Refused { status: 400, why: "the request is not whole".to_owned() });
        }
        Err(error) => return Err(refused(&error)),
    };
    let response = settings.answer(&request)?;
    let mut answer = "HTTP/1.1 101 Switching Protocols\r\n".to_owned();
    // Written as they are in the standard: not every client knows that it does not matter.
    for name in ["Connection", "Upgrade", "Sec-WebSocket-Accept", "Sec-WebSocket-Protocol"] {
        if let Some(value) = response.headers().get(name).and_then(|value| value.to_str().ok()) {
            // Writing to a string does not fail.
            let _ = write!(answer, "{name}: {value}\r\n");
        }
    }
    answer.push_str("\r\n");
    Ok(answer)
}

impl WebSocketServer {
    /// The answer to a request for a WebSocket, for who has an HTTP server of its own: after it the
    /// connection is one of [`Stack::websocket_accepted`](crate::Stack::websocket_accepted).
    ///
    /// # Errors
    /// [`WebSocketError::Refused`] with the status that is to be answered.
    pub fn answer(&self, request: &Request<()>) -> Result<Response<()>, WebSocketError> {
        answer(request, self)
    }
}

fn answer(request: &Request<()>, settings: &WebSocketServer) -> Result<Response<()>, WebSocketError> {
    let refused = |status, why: &str| WebSocketError::Refused { status, why: why.to_owned() };
    let headers = request.headers();
    // A body, or a header that could be read in two ways, is how requests are smuggled past proxies.
    for name in ["content-length", "transfer-encoding"] {
        if headers.contains_key(name) {
            return Err(refused(400, "a handshake has no body"));
        }
    }
    for name in ["host", "sec-websocket-key", "sec-websocket-version", "upgrade", "origin"] {
        if headers.get_all(name).iter().nth(1).is_some() {
            return Err(refused(400, &format!("there are several headers {name}")));
        }
    }
    if !headers.contains_key("host") {
        return Err(refused(400, "there is no header host"));
    }
    if let Some(path) = &settings.path
        && request.uri().path() != path
    {
        return Err(refused(404, &format!("there is nothing but {path}")));
    }
    let mut response = create_response(request).map_err(|error| self::refused(&error))?;
    if let (Some(origin), Some(allowed)) = (headers.get("origin"), &settings.origins)
        && !allowed.iter().any(|allowed| origin.as_bytes().eq_ignore_ascii_case(allowed.as_bytes()))
    {
        let origin = String::from_utf8_lossy(origin.as_bytes());
        return Err(refused(403, &format!("pages of {origin} may not connect")));
    }
    let subprotocol = match offered(headers) {
        Some(subprotocol) => Some(subprotocol),
        None if settings.lenient && !headers.contains_key("sec-websocket-protocol") => None,
        None => return Err(refused(400, "the subprotocol mqtt has to be offered")),
    };
    if let Some(subprotocol) = subprotocol {
        let value = HeaderValue::from_static(subprotocol);
        response.headers_mut().insert("sec-websocket-protocol", value);
    }
    Ok(response)
}

/// The subprotocol that is taken of those that are offered.
fn offered(headers: &HeaderMap) -> Option<&'static str> {
    let offered = headers.get_all("sec-websocket-protocol").iter();
    let offered: Vec<&str> = offered
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(','))
        .map(str::trim)
        .collect();
    SUBPROTOCOLS.into_iter().find(|ours| offered.contains(ours))
}

/// The answer, as far as it has come.
pub(super) struct Answer {
    accept: String,
    head: Vec<u8>,
}

impl Answer {
    /// Takes of `input` what belongs to the answer; true if it is a yes.
    pub(super) fn take(&mut self, input: &mut &[u8]) -> Result<bool, WebSocketError> {
        let wrong = |why: &str| Err(WebSocketError::Answer(why.to_owned()));
        match collect(&mut self.head, input) {
            Ok(None) => return Ok(false),
            Ok(Some(())) => {}
            Err(_) => return wrong("its answer has no end"),
        }
        let response = match tungstenite::handshake::client::Response::try_parse(&self.head) {
            Ok(Some((_, response))) => response,
            Ok(None) => return wrong("its answer is not whole"),
            Err(error) => return wrong(&error.to_string()),
        };
        if response.status().as_u16() != 101 {
            return wrong(&format!("it answered {}", response.status()));
        }
        let headers = response.headers();
        let is = |name: &str, value: &str| {
            headers.get(name).is_some_and(|given| given.as_bytes().eq_ignore_ascii_case(value.as_bytes()))
        };
        if !is("upgrade", "websocket") || !is("connection", "upgrade") {
            return wrong("it agreed to something else");
        }
        if headers.get("sec-websocket-accept").is_none_or(|given| given.as_bytes() != self.accept.as_bytes())
        {
            return wrong("it answered another request");
        }
        if headers.contains_key("sec-websocket-extensions") {
            return wrong("it wants an extension that was not offered");
        }
        if headers.get("sec-websocket-protocol").is_none_or(|given| given.as_bytes() != b"mqtt") {
            return wrong("it did not agree to the subprotocol mqtt");
        }
        self.head = Vec::new();
        Ok(true)
    }
}

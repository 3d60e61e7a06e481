//! Both sides of a stack in memory, and peers that mean no good.

use super::*;
use crate::broker::{SharedTransport, Transport};
use crate::tls::{TlsClient, TlsSettings};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::ServerName;
use std::io::IoSlice;
use std::path::PathBuf;
use std::sync::Arc;

/// Certificates of an authority of our own, in files.
pub(super) struct Pki {
    dir: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "the authority");
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let this = Self { dir: tempfile::tempdir().unwrap(), issuer };
        std::fs::write(this.file("ca.pem"), this.issuer.pem()).unwrap();
        this
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A certificate and its key, in files.
    pub(super) fn issue(&self, name: &str, host: &str, subject: &[(DnType, &str)]) -> (PathBuf, PathBuf) {
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in subject {
            params.distinguished_name.push(kind.clone(), *value);
        }
        params.serial_number = Some(rcgen::SerialNumber::from(name.as_bytes().to_vec()));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let files = (self.file(&format!("{name}.pem")), self.file(&format!("{name}.key")));
        std::fs::write(&files.0, certificate.pem()).unwrap();
        std::fs::write(&files.1, key.serialize_pem()).unwrap();
        files
    }

    /// A list of what is not believed any more.
    fn revoke(&self, names: &[&str]) -> PathBuf {
        self.revoke_until(names, 2099)
    }

    /// A list that is followed by another in this year.
    fn revoke_until(&self, names: &[&str], year: i32) -> PathBuf {
        let now = rcgen::date_time_ymd(2020, 1, 1);
        let revoked_certs = names
            .iter()
            .map(|name| rcgen::RevokedCertParams {
                serial_number: rcgen::SerialNumber::from(name.as_bytes().to_vec()),
                revocation_time: now,
                reason_code: None,
                invalidity_date: None,
            })
            .collect();
        let params = rcgen::CertificateRevocationListParams {
            this_update: now,
            next_update: rcgen::date_time_ymd(year, 1, 1),
            crl_number: rcgen::SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        let path = self.file("crl.pem");
        std::fs::write(&path, params.signed_by(&self.issuer).unwrap().pem().unwrap()).unwrap();
        path
    }

    fn settings(&self) -> TlsSettings {
        let (cert_file, key_file) = self.issue("server", "localhost", &[]);
        TlsSettings::new(cert_file, key_file)
    }

    fn client(&self) -> TlsClient {
        TlsClient { ca_file: Some(self.file("ca.pem")), ..TlsClient::default() }
    }
}

/// One side, and what came through it.
struct Side {
    stack: Stack,
    opened: Option<Opened>,
    bytes: Vec<u8>,
}

impl Side {
    fn new(stack: Stack) -> Self {
        Self { stack, opened: None, bytes: Vec::new() }
    }

    fn read(&mut self, wire: &[u8]) {
        let mut incoming = self.stack.handle_wire(wire);
        while let Some(received) = incoming.next() {
            match received {
                Received::Open(opened) => {
                    assert!(self.opened.replace(*opened).is_none() && self.bytes.is_empty());
                }
                Received::Bytes(bytes) => self.bytes.extend_from_slice(bytes),
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> usize {
        self.stack.layers_mut().unwrap().write_plain(&[IoSlice::new(bytes)])
    }

    /// Everything for the wire, in pieces.
    fn out(&mut self) -> Vec<u8> {
        let Some(layers) = self.stack.layers_mut() else { return Vec::new() };
        let out = layers.wire_out().to_vec();
        let half = out.len() / 2;
        layers.consume(half);
        assert_eq!(layers.wire_out(), &out[half..]);
        layers.consume(out.len() - half);
        assert!(layers.wire_out().is_empty());
        out
    }

    fn failure(&mut self) -> Option<StackError> {
        let layers = self.stack.layers_mut()?;
        let failure = layers.take_failure();
        assert_eq!(layers.take_failure(), None, "it is told once");
        failure
    }

    fn has_ended(&mut self) -> bool {
        self.stack.layers_mut().is_some_and(|layers| layers.has_ended())
    }
}

/// Carries bytes both ways, `size` at once, until there are none.
fn carry(client: &mut Side, server: &mut Side, size: usize) {
    loop {
        let (up, down) = (client.out(), server.out());
        if up.is_empty() && down.is_empty() {
            return;
        }
        up.chunks(size).for_each(|piece| server.read(piece));
        down.chunks(size).for_each(|piece| client.read(piece));
    }
}

/// Bytes both ways, then goodbyes.
fn talk(client: Stack, server: Stack, size: usize) -> (Side, Side) {
    let (mut client, mut server) = (Side::new(client), Side::new(server));
    carry(&mut client, &mut server, size);
    assert_eq!((client.failure(), server.failure()), (None, None));
    assert!(client.opened.is_some() && server.opened.is_some());
    let long: Vec<u8> = (0..60_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    for (text, back) in [(b"hello".as_slice(), b"hi".as_slice()), (&long, b"x"), (b"y", &long)] {
        let (mut up, mut down) = (text, back);
        while !up.is_empty() || !down.is_empty() {
            let (n, m) = (client.write(up), server.write(down));
            (up, down) = (&up[n..], &down[m..]);
            carry(&mut client, &mut server, size);
        }
        assert!(std::mem::take(&mut server.bytes) == text && std::mem::take(&mut client.bytes) == back);
    }
    client.stack.layers_mut().unwrap().close();
    carry(&mut client, &mut server, size);
    assert!(server.has_ended() && server.failure().is_none());
    assert_eq!(server.write(b"more"), 0, "it said goodbye");
    (client, server)
}

fn websocket() -> (WebSocketClient, Arc<WebSocketServer>) {
    (WebSocketClient::new("localhost", "/mqtt").unwrap(), Arc::default())
}

fn localhost() -> ServerName<'static> {
    "localhost".try_into().unwrap()
}

#[test]
fn every_combination_carries_bytes_however_they_are_split() {
    let pki = Pki::new();
    let (tls, client) = (pki.settings().read().unwrap(), pki.client().read().unwrap());
    let (request, settings) = websocket();
    let tls_pair = || {
        let client = Stack::plain().tls_client(client.clone(), localhost()).unwrap();
        (client, Stack::plain().tls_server(tls.config()).unwrap())
    };
    for size in [1, 7, 1000, usize::MAX] {
        let (client, server) = tls_pair();
        let (_, server) = talk(client, server, size);
        let secured = server.opened.unwrap().tls.unwrap();
        assert_eq!(secured.version, "TLSv1_3");
        assert_eq!(secured.server_name.as_deref(), Some("localhost"));
        assert_eq!(secured.subject, None);

        let server = Stack::plain().websocket_server(settings.clone());
        talk(Stack::plain().websocket_client(&request), server, size);

        let (client, server) = tls_pair();
        talk(client.websocket_client(&request), server.websocket_server(settings.clone()), size);

        let (client, server) = tls_pair();
        let mut server = Side::new(server.websocket_server(settings.clone()).behind_proxy());
        b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 1883\r\n".chunks(size).for_each(|piece| server.read(piece));
        let (_, server) = talk(client.websocket_client(&request), server.stack, size);
        let opened = server.opened.unwrap();
        assert_eq!(opened.proxied, Some("203.0.113.7:4711".parse().unwrap()));
        assert!(opened.tls.is_some());
    }
}

#[test]
fn behind_a_proxy_alone_the_connection_becomes_plain() {
    let mut server = Side::new(Stack::plain().behind_proxy());
    server.read(b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 1883\r\nfirst");
    assert_eq!(server.opened.as_ref().unwrap().proxied, Some("203.0.113.7:4711".parse().unwrap()));
    assert_eq!(server.bytes, b"first");
    assert!(server.stack.is_plain());
    let mut server = Side::new(Stack::plain().behind_proxy());
    server.read(b"\x10\x0d\x00\x04MQTT");
    assert!(matches!(server.failure(), Some(StackError::Proxy(_))));
    assert!(server.bytes.is_empty() && server.opened.is_none());
}

#[test]
fn certificates_of_clients_are_checked() {
    let pki = Pki::new();
    let other = Pki::new();
    let crl = pki.revoke(&["mallory"]);
    let asking = |required| {
        pki.settings().asking_clients(pki.file("ca.pem"), required, Some(crl.clone())).read().unwrap()
    };
    let name = [(DnType::OrganizationName, "Example, Inc."), (DnType::CommonName, "alice")];
    let alice = pki.issue("alice", "alice", &name);
    let mallory = pki.issue("mallory", "mallory", &name);
    let stranger = other.issue("stranger", "stranger", &name);
    let attempt = |required, identity: Option<&(PathBuf, PathBuf)>| {
        let client = TlsClient { identity: identity.cloned(), ..pki.client() }.read().unwrap();
        let mut client = Side::new(Stack::plain().tls_client(client, localhost()).unwrap());
        let mut server = Side::new(Stack::plain().tls_server(asking(required).config()).unwrap());
        carry(&mut client, &mut server, usize::MAX);
        match server.failure() {
            Some(error) => {
                assert!(server.opened.is_none() && client.failure().is_some(), "an alert tells the client");
                Err(error.to_string())
            }
            None => Ok(server.opened.unwrap().tls.unwrap().subject),
        }
    };
    let subject = "CN=alice,O=Example\\, Inc.";
    assert_eq!(attempt(true, Some(&alice)), Ok(Some(subject.to_owned())));
    assert_eq!(attempt(false, Some(&alice)), Ok(Some(subject.to_owned())));
    assert_eq!(attempt(false, None), Ok(None));
    assert_eq!(attempt(true, None), Err("TLS: peer sent no certificates".to_owned()));
    // A list that should have been followed by another proves nothing.
    pki.revoke_until(&["mallory"], 2021);
    let error = attempt(true, Some(&alice)).unwrap_err();
    assert!(error.contains("revocation list expired"), "{error}");
    pki.revoke(&["mallory"]);
    for required in [true, false] {
        let error = attempt(required, Some(&mallory)).unwrap_err();
        assert!(error.contains("Revoked"), "{error}");
        let error = attempt(required, Some(&stranger)).unwrap_err();
        assert!(error.contains("UnknownIssuer") || error.contains("BadSignature"), "{error}");
    }
}

#[test]
fn clients_check_servers() {
    let (pki, other) = (Pki::new(), Pki::new());
    let server = pki.settings().read().unwrap();
    let attempt = |client: TlsClient, name: &str| {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut client = Side::new(Stack::plain().tls_client(client.read().unwrap(), name).unwrap());
        let mut server = Side::new(Stack::plain().tls_server(server.config()).unwrap());
        carry(&mut client, &mut server, usize::MAX);
        client.failure().map(|error| error.to_string())
    };
    assert_eq!(attempt(pki.client(), "localhost"), None);
    assert!(attempt(pki.client(), "example.org").unwrap().contains("not valid for name"));
    assert!(attempt(other.client(), "localhost").is_some());
    let insecure = TlsClient { insecure: true, ..TlsClient::default() };
    assert_eq!(attempt(insecure, "example.org"), None);
}

#[test]
fn settings_that_cannot_work_are_named() {
    let pki = Pki::new();
    let other = pki.issue("other", "other", &[]);
    let wrong = |change: &dyn Fn(&mut TlsSettings)| {
        let mut settings = pki.settings();
        change(&mut settings);
        settings.read().unwrap_err().to_string()
    };
    assert!(wrong(&|s| s.cert_file = pki.file("none")).contains("none: cannot open it"));
    assert!(wrong(&|s| s.cert_file.clone_from(&s.key_file)).contains("there is no certificate in it"));
    assert!(wrong(&|s| s.key_file.clone_from(&s.cert_file)).contains("there is no private key in it"));
    assert!(wrong(&|s| s.key_file.clone_from(&other.1)).contains("give the key that belongs"));
    assert!(wrong(&|s| s.ciphers = vec!["HIGH:!aNULL".to_owned()]).contains("no cipher suite"));
    let ok = TlsSettings { ciphers: vec!["TLS_AES_128_GCM_SHA256".to_owned()], ..pki.settings() };
    assert!(ok.read().unwrap().not_after().unwrap() > std::time::SystemTime::now());
}

#[test]
fn new_settings_count_for_new_connections_only() {
    let (pki, next) = (Pki::new(), Pki::new());
    let transport =
        |pki: &Pki| Transport { tls: Some(pki.settings().read().unwrap()), ..Transport::default() };
    let (server, client) = (SharedTransport::from(transport(&pki)), pki.client().read().unwrap());
    let connect = |client: Arc<rustls::ClientConfig>| {
        let mut client = Side::new(Stack::plain().tls_client(client, localhost()).unwrap());
        let mut side = Side::new(server.get().stack().unwrap());
        carry(&mut client, &mut side, usize::MAX);
        (client, side)
    };
    let (mut old_client, mut old) = connect(client.clone());
    server.replace(Arc::new(transport(&next)));
    assert_eq!(old_client.write(b"still here"), 10);
    carry(&mut old_client, &mut old, usize::MAX);
    assert_eq!(old.bytes, b"still here");
    assert!(connect(client).0.failure().is_some());
    assert!(connect(next.client().read().unwrap()).0.failure().is_none());
}

#[test]
fn what_waits_for_the_socket_is_bounded() {
    let pki = Pki::new();
    let (request, settings) = websocket();
    let client = Stack::plain().tls_client(pki.client().read().unwrap(), localhost()).unwrap();
    let server = Stack::plain().tls_server(pki.settings().read().unwrap().config()).unwrap();
    let mut client = Side::new(client.websocket_client(&request));
    let mut server = Side::new(server.websocket_server(settings));
    assert_eq!(server.write(b"early"), 0, "nothing goes before it is open");
    carry(&mut client, &mut server, usize::MAX);
    let long = vec![0; 1 << 20];
    let mut written = 0;
    loop {
        match server.write(&long) {
            0 => break,
            n => written += n,
        }
    }
    assert!((16 << 10..=34 << 10).contains(&written), "{written}");
    assert_eq!(server.stack.layers_mut().unwrap().room(), 0);
    carry(&mut client, &mut server, usize::MAX);
    assert_eq!(client.bytes.len(), written);
    assert!(server.stack.layers_mut().unwrap().room() > 0);
}

#[test]
fn noise_in_the_place_of_tls_ends_it_with_an_alert() {
    let pki = Pki::new();
    let config = pki.settings().read().unwrap().config();
    for noise in [
        b"GET / HTTP/1.1\r\n\r\n".as_slice(),
        b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01a",
        b"\x16\x03\x01\xff\xff",
        b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
        &[0xFF; 20_000],
    ] {
        let mut server = Side::new(Stack::plain().tls_server(config.clone()).unwrap());
        server.read(noise);
        server.read(&[0; 20_000]);
        assert!(matches!(server.failure(), Some(StackError::Tls(_))), "{noise:?}");
        assert!(server.bytes.is_empty() && server.opened.is_none());
        assert!(server.out().len() < 100);
    }
}

const REQUEST: &str = "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";

/// What a server answers: the status, or what it gave up for.
fn ask(settings: &WebSocketServer, request: &str) -> (String, Option<StackError>) {
    let mut all = None;
    for size in [1, 50, usize::MAX] {
        let mut server = Side::new(Stack::plain().websocket_server(Arc::new(settings.clone())));
        request.as_bytes().chunks(size).for_each(|piece| server.read(piece));
        let answer = (String::from_utf8(server.out()).unwrap(), server.failure());
        assert_eq!(*all.get_or_insert_with(|| answer.clone()), answer);
    }
    all.unwrap()
}

#[test]
fn a_handshake_is_answered_as_the_standard_says() {
    let settings = WebSocketServer::default();
    let (answer, failure) = ask(&settings, REQUEST);
    assert_eq!(failure, None);
    assert!(answer.starts_with("HTTP/1.1 101 "));
    // The example of RFC 6455, section 1.3.
    assert!(answer.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
    assert!(answer.contains("\r\nSec-WebSocket-Protocol: mqtt\r\n"));
    let old = REQUEST.replace("Protocol: mqtt", "Protocol: other,mqttv3.1");
    assert!(ask(&settings, &old).0.contains("\r\nSec-WebSocket-Protocol: mqttv3.1\r\n"));
    let both = REQUEST.replace("Protocol: mqtt", "Protocol: mqttv3.1\r\nSec-WebSocket-Protocol: mqtt");
    assert!(ask(&settings, &both).0.contains("\r\nSec-WebSocket-Protocol: mqtt\r\n"));
    let with_compression =
        REQUEST.replace("\r\nUpgrade", "\r\nSec-WebSocket-Extensions: permessage-deflate\r\nUpgrade");
    assert!(!ask(&settings, &with_compression).0.contains("Extensions"));
}

#[test]
fn requests_that_are_wrong_are_refused_with_a_status() {
    let settings = WebSocketServer {
        origins: Some(vec!["https://example.org".to_owned()]),
        ..WebSocketServer::default()
    };
    assert_eq!(ask(&settings, REQUEST).1, None, "programs name no origin");
    let ours = REQUEST.replace("\r\nUpgrade", "\r\nOrigin: https://example.org\r\nUpgrade");
    assert_eq!(ask(&settings, &ours).1, None);
    let change = |from: &str, to: &str| {
        assert!(REQUEST.contains(from));
        REQUEST.replacen(from, to, 1)
    };
    let add = |header: &str| change("\r\nUpgrade", &format!("\r\n{header}\r\nUpgrade"));
    let many = "X: y\r\n".repeat(200);
    for (request, status) in [
        ("GET /mqtt HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), 426),
        ("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), 404),
        (change("GET /mqtt", "GET /other"), 404),
        (change("GET", "POST"), 405),
        (change("Version: 13", "Version: 8"), 426),
        (change("HTTP/1.1", "HTTP/1.0"), 400),
        (change("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ="), 400),
        (change("dGhlIHNhbXBsZSBub25jZQ==", "!!!!!!!!!!!!!!!!!!!!!!!!"), 400),
        (change("Protocol: mqtt", "Protocol: other"), 400),
        (change("Sec-WebSocket-Protocol: mqtt\r\n", ""), 400),
        (change("Host: localhost\r\n", ""), 400),
        (add("Origin: https://evil.example"), 403),
        (add("Origin: null"), 403),
        (add("Content-Length: 5"), 400),
        (add("Transfer-Encoding: chunked"), 400),
        (add("Host: other"), 400),
        (add("Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="), 400),
        (add(&many), 400),
        (add(&format!("X: {}", "y".repeat(9000))), 431),
        ("\x16\x03\x01 is no HTTP".to_owned(), 400),
        ("\x10\x0d\0\x04MQTT".to_owned(), 400),
    ] {
        let mut server = Side::new(Stack::plain().websocket_server(Arc::new(settings.clone())));
        server.read(request.as_bytes());
        let answer = String::from_utf8(server.out()).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
        assert!(answer.contains("\r\nContent-Length: ") && answer.contains("close\r\n"));
        assert!(server.failure().is_some() && server.bytes.is_empty() && server.opened.is_none());
    }
    let lenient = WebSocketServer { lenient: true, path: None, ..WebSocketServer::default() };
    let bare = change("Sec-WebSocket-Protocol: mqtt\r\n", "").replace("/mqtt", "/anywhere?x=1");
    let (answer, failure) = ask(&lenient, &bare);
    assert_eq!(failure, None);
    assert!(!answer.contains("Sec-WebSocket-Protocol"));
    assert!(ask(&lenient, &change("Protocol: mqtt", "Protocol: other")).1.is_some());
}

/// A frame from a client, masked with zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let len = u8::try_from(payload.len()).unwrap();
    assert!(len < 126);
    [&[first, 0x80 | len, 0, 0, 0, 0], payload].concat()
}

fn open_websocket() -> Side {
    let mut server = Side::new(Stack::plain().websocket_server(websocket().1));
    server.read(REQUEST.as_bytes());
    server.out();
    server
}

#[test]
fn pings_are_answered_as_long_as_the_answers_are_taken() {
    let mut server = open_websocket();
    server.read(&frame(0x89, b"are you there"));
    assert_eq!(server.out(), [&[0x8A, 13], b"are you there".as_slice()].concat());
    let flood = frame(0x89, &[7; 125]).repeat(10_000);
    flood.chunks(64 << 10).for_each(|piece| server.read(piece));
    let waiting = server.out().len();
    assert!(waiting < 200 << 10, "{waiting}");
    server.read(&frame(0x82, b"data"));
    assert_eq!(server.failure(), None);
    assert_eq!(server.bytes, b"data");
}

#[test]
fn closing_is_answered_and_mistakes_have_codes() {
    let mut server = open_websocket();
    server.read(&[frame(0x82, b"last"), frame(0x88, b"\x03\xe9"), frame(0x82, b"ignored")].concat());
    assert_eq!((server.out(), server.bytes.as_slice()), (vec![0x88, 2, 3, 0xE9], b"last".as_slice()));
    assert!(server.has_ended() && server.failure().is_none());
    for (wrong, code) in [
        (frame(0x81, b"text"), 1003_u16),
        (vec![0x82, 1, 7], 1002),
        (frame(0x09, b""), 1002),
        (frame(0x80, b""), 1002),
        ([&[0x82, 0xFF], (3_u64 << 20).to_be_bytes().as_slice(), &[0; 4]].concat(), 1009),
    ] {
        let mut server = open_websocket();
        server.read(&frame(0x82, b"good"));
        server.read(&wrong);
        let [high, low] = code.to_be_bytes();
        assert_eq!(server.out(), [0x88, 2, high, low]);
        assert!(server.failure().is_some());
        assert_eq!(server.bytes, b"good");
    }
}

#[test]
fn an_answer_that_is_no_websocket_is_told() {
    let (request, _) = websocket();
    for (answer, why) in [
        ("HTTP/1.1 404 Not Found\r\n\r\n", "it answered 404"),
        (
            "HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n",
            "another request",
        ),
        ("SSH-2.0-OpenSSH_9\r\n\r\n", "does not speak"),
    ] {
        let mut client = Side::new(Stack::plain().websocket_client(&request));
        client.out();
        client.read(answer.as_bytes());
        let failure = client.failure().unwrap().to_string();
        assert!(failure.contains(why), "{failure}");
    }
    for (host, path) in [("a b", "/"), ("a", "mqtt"), ("a", "/x y"), ("a\r\nX: y", "/"), ("", "/")] {
        assert!(WebSocketClient::new(host, path).is_err());
    }
}

#[test]
fn what_came_before_a_broken_frame_is_taken() {
    let frame =
        |op: u8, payload: &[u8]| [&[0x80 | op, 0x80 | payload.len() as u8, 0, 0, 0, 0], payload].concat();
    // Data, and then a frame that MQTT does not have.
    let bytes = [frame(2, b"data"), frame(1, b"text")].concat();
    for size in [1, 3, usize::MAX] {
        let mut server = Side::new(Stack::plain().websocket_accepted(1 << 20));
        bytes.chunks(size.min(bytes.len())).for_each(|piece| server.read(piece));
        assert_eq!(server.bytes, b"data", "pieces of {size}");
        assert!(matches!(server.failure(), Some(StackError::WebSocket(WebSocketError::Text))));
    }
}

//! Requests over real sockets.

use crate::run::{Running, start};
use crate::{FileError, Source};
use mqtt_proto::QoS;
use mqtt_session::Message;
use mqtt_tokio::Client;
use mqtt_tokio::client::Options;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const TOKEN: &str = "0123456789abcdef-for-tests";

/// A broker with HTTP, and where that is.
struct Site {
    running: Running,
    http: SocketAddr,
    _files: tempfile::TempDir,
}

/// What was answered.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }
}

fn source(lines: &[&str]) -> (Source, tempfile::TempDir) {
    let files = tempfile::tempdir().unwrap();
    let tokens = files.path().join("tokens");
    std::fs::write(&tokens, format!("# the first\nanother-token-of-somebody\n{TOKEN}\n")).unwrap();
    let mut source = Source { bind: vec!["127.0.0.1:0".parse().unwrap()], ..Source::default() };
    source.overrides.set("http.address=127.0.0.1:0").unwrap();
    source.overrides.set(&format!("http.token_file={}", tokens.display())).unwrap();
    lines.iter().for_each(|line| source.overrides.set(line).unwrap());
    (source, files)
}

async fn site(lines: &[&str]) -> Site {
    let (source, files) = source(lines);
    let running = start(&source, source.read().unwrap()).await.unwrap();
    let http = running.http().unwrap();
    Site { running, http, _files: files }
}

impl Site {
    async fn send(&self, request: String) -> Answer {
        let mut stream = TcpStream::connect(self.http).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
        Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    /// Asks as somebody without a token.
    async fn open(&self, what: &str) -> Answer {
        self.send(format!("{what} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")).await
    }

    async fn ask(&self, what: &str, body: &str) -> Answer {
        self.send(format!(
            "{what} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {TOKEN}\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        ))
        .await
    }

    async fn get(&self, path: &str) -> Value {
        let answer = self.ask(&format!("GET /api/v1{path}"), "").await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.json()
    }

    fn client(&self, id: &str) -> Client {
        client(&format!("mqtt://{}", self.running.broker().local_addrs()[0]), id)
    }
}

fn client(url: &str, id: &str) -> Client {
    Options::from_url(url).unwrap().client_id(id).start().unwrap()
}

#[tokio::test]
async fn health_is_for_everybody_and_the_rest_is_not() {
    let site = site(&["http.open_metrics=false"]).await;
    for (what, status) in [
        ("GET /healthz", 200),
        ("HEAD /healthz", 200),
        ("POST /healthz", 405),
        ("GET /readyz", 200),
        ("GET /metrics", 401),
        ("GET /api/v1", 401),
        ("GET /api", 401),
        ("DELETE /api/v1/clients/c", 401),
        ("POST /api/v1/publish", 401),
        ("GET /", 200),
        ("GET /dashboard.js", 200),
        ("POST /", 405),
        ("GET /nothing", 404),
        ("GET /../Cargo.toml", 404),
    ] {
        let answer = site.open(what).await;
        assert_eq!(answer.status, status, "{what}: {}", answer.body);
    }
    let refused = site.open("GET /metrics").await;
    assert!(refused.head.contains("www-authenticate: bearer"), "{}", refused.head);
    assert_eq!(site.ask("GET /metrics", "").await.status, 200);
}

#[tokio::test]
async fn the_page_lets_nothing_in_from_elsewhere() {
    let site = site(&[]).await;
    let page = site.open("GET /").await;
    assert!(page.head.contains("content-security-policy: default-src 'none'"), "{}", page.head);
    assert!(page.head.contains("x-content-type-options: nosniff"));
    // The policy would stop them.
    for forbidden in ["<style", "style=", "onclick", "<script>", "http://", "https://"] {
        assert!(!page.body.contains(forbidden), "{forbidden}");
    }
    for file in ["dashboard.css", "dashboard.js", "plot.js", "mqtt.js"] {
        assert_eq!(site.open(&format!("GET /{file}")).await.status, 200, "{file}");
    }
    let without = self::site(&["http.dashboard=false", "http.console=false"]).await;
    assert_eq!(without.open("GET /").await.status, 404);
    assert_eq!(without.open("GET /mqtt").await.status, 404);
}

#[tokio::test]
async fn figures_are_what_happened() {
    let site = site(&[]).await;
    let client = site.client("c");
    client.publish(Message::new("a", "12345").with_qos(QoS::AtLeastOnce).retained()).await.unwrap();
    let answer = site.open("GET /metrics").await;
    assert_eq!(answer.status, 200);
    assert!(answer.body.ends_with("# EOF\n"));
    for line in [
        "mqtt_clients_connected 1",
        "mqtt_sessions 1",
        "mqtt_connects_total{outcome=\"accepted\"} 1",
        "mqtt_connects_total{outcome=\"credentials\"} 0",
        "mqtt_publishes_total{direction=\"received\",qos=\"1\"} 1",
        "mqtt_payload_bytes_total{direction=\"received\"} 5",
        "mqtt_layered_connections_total{outcome=\"opened\"} 0",
    ] {
        assert!(answer.body.lines().any(|got| got == line), "{line} is not in {}", answer.body);
    }
    // Every figure has a help text and a type, once.
    for line in answer.body.lines().filter(|line| line.starts_with("# TYPE ")) {
        let name = line.split(' ').nth(2).unwrap();
        let helps = answer.body.lines().filter(|other| other.starts_with(&format!("# HELP {name} "))).count();
        assert_eq!(helps, 1, "{line}");
    }
}

#[tokio::test]
async fn clients_are_seen_and_sent_away() {
    let site = site(&[]).await;
    let client = site.client("a/b c");
    client.subscribe("x/+", QoS::AtLeastOnce).await.unwrap();
    let listed = site.get("/clients?connected=true&limit=1").await;
    assert_eq!(listed["items"][0]["client"], "a/b c");
    assert_eq!(listed["items"][0]["connection"]["version"], "5.0");
    assert!(listed["items"][0]["connection"]["address"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert_eq!(site.get("/clients/a%2Fb%20c").await["subscriptions"], 1);
    let own = site.get("/clients/a%2Fb%20c/subscriptions").await;
    assert_eq!(own["items"][0]["filter"], "x/+");
    assert_eq!(site.get("/subscriptions").await["items"], own["items"]);
    for (what, status) in [
        ("GET /api/v1/clients/nobody", 404),
        ("GET /api/v1/clients/nobody/subscriptions", 404),
        ("POST /api/v1/clients/nobody/disconnect", 404),
        ("DELETE /api/v1/clients/nobody", 404),
        ("GET /api/v1/clients/%FF", 400),
        ("PUT /api/v1/clients/a%2Fb%20c", 405),
        ("POST /api/v1/clients", 405),
        ("GET /api/v1/clients?limit=0", 400),
        ("GET /api/v1/clients?limit=1001", 400),
        ("GET /api/v1/clients?after=x", 400),
        ("GET /api/v1/clients?connected=maybe", 400),
        ("GET /api/v1/clients?other=1", 400),
        ("GET /api/v1/clients/a/b/c", 404),
        ("GET /api/v2/clients", 404),
    ] {
        let answer = site.ask(what, "").await;
        assert_eq!(answer.status, status, "{what}: {}", answer.body);
        assert!(answer.json()["error"].is_string());
    }
    let removed = site.ask("DELETE /api/v1/clients/a%2Fb%20c", "").await;
    assert_eq!((removed.status, removed.json()), (200, json!({ "removed": true })));
    assert_eq!(site.get("/clients").await["items"], json!([]));
}

#[tokio::test]
async fn messages_are_published_seen_and_removed() {
    let site = site(&[]).await;
    for (body, status) in [
        (r#"{"topic":"r/text","payload":"Grüße","retain":true,"qos":1,"expires_in":1000}"#, 200),
        (r#"{"topic":"r/bytes","payload_base64":"/wA=","retain":true}"#, 200),
        (r#"{"topic":"r/#","payload":"x"}"#, 400),
        (r#"{"topic":"r","payload":"x","payload_base64":"/wA="}"#, 400),
        (r#"{"topic":"r","payload_base64":"?"}"#, 400),
        (r#"{"topic":"r","qos":3}"#, 400),
        (r#"{"topic":"r","Qos":1}"#, 400),
        (r#"{"payload":"x"}"#, 400),
        ("", 400),
    ] {
        let answer = site.ask("POST /api/v1/publish", body).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.body);
    }
    let text = site.get("/retained/r/text").await;
    assert_eq!((&text["payload"], &text["qos"]), (&json!("Grüße"), &json!(1)));
    assert!(text["expires_in"].as_u64().unwrap() > 990);
    assert_eq!(site.get("/retained/r%2Fbytes").await["payload_base64"], "/wA=");
    let topics = |listed: &Value| {
        let items = listed["items"].as_array().unwrap().iter();
        items.map(|item| item["topic"].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>()
    };
    let both = ["r/text", "r/bytes"].map(str::to_owned);
    assert_eq!(topics(&site.get("/retained").await), both.into());
    assert!(topics(&site.get("/retained?sys=true").await).contains("$SYS/broker/version"));
    assert_eq!(site.ask("DELETE /api/v1/retained/r/text", "").await.status, 200);
    assert_eq!(site.ask("DELETE /api/v1/retained/r/text", "").await.status, 404);
    let large = format!(r#"{{"topic":"r","payload":"{}"}}"#, "x".repeat(5 << 20));
    assert_eq!(site.ask("POST /api/v1/publish", &large).await.status, 413);
}

#[tokio::test]
async fn the_console_is_a_client_like_others() {
    let site = site(&[]).await;
    let page = client(&format!("ws://{}/mqtt", site.http), "page");
    page.subscribe("a", QoS::AtLeastOnce).await.unwrap();
    let seen = site.get("/clients/page").await;
    // Behind the one listener of MQTT.
    assert_eq!(seen["connection"]["listener"], 1);
    let published = site.ask("POST /api/v1/publish", r#"{"topic":"a","payload":"x"}"#).await;
    assert_eq!(published.json(), json!({ "receivers": 1 }));
    let handshake = |origin: &str| {
        format!(
            "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade, close\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Protocol: mqtt\r\nOrigin: {origin}\r\n\r\n"
        )
    };
    assert_eq!(site.send(handshake("http://evil.example")).await.status, 403);
    let without = handshake("http://localhost").replace("Protocol: mqtt", "Protocol: other");
    assert_eq!(site.send(without).await.status, 400);
}

#[tokio::test]
async fn the_console_has_its_own_rights_and_a_name_of_others_gets_nothing() {
    let site = site(&["http.security.anonymous=false", "http.console=false"]).await;
    let foreign = "GET /healthz HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    assert_eq!(site.send(foreign.to_owned()).await.status, 421);
    drop(site);
    let (source, _files) = source(&["http.security.anonymous=false"]);
    let error = source.read().unwrap_err();
    assert!(error.to_string().contains("http.security.anonymous"), "{error}");
}

#[tokio::test]
async fn what_is_open_to_others_needs_a_token() {
    let refused = |lines: &[&str]| -> FileError {
        let mut source = Source { bind: vec!["127.0.0.1:0".parse().unwrap()], ..Source::default() };
        lines.iter().for_each(|line| source.overrides.set(line).unwrap());
        source.read().unwrap_err()
    };
    let error = refused(&["http.address=0.0.0.0"]).to_string();
    assert!(error.contains("there is no token") && error.contains("http.token_file"), "{error}");
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("tokens");
    for (content, problem) in
        [("# nothing\n", "there is no token"), ("short\n", ":1: a token has at least 16")]
    {
        std::fs::write(&file, content).unwrap();
        let error =
            refused(&["http.address=::1", &format!("http.token_file={}", file.display())]).to_string();
        assert!(error.contains(problem), "{error}");
    }
    // A token that is made is not asked for twice, and is not one that can be guessed.
    let mut source = Source { bind: vec!["127.0.0.1:0".parse().unwrap()], ..Source::default() };
    source.overrides.set("http.address=127.0.0.1:0").unwrap();
    let running = start(&source, source.read().unwrap()).await.unwrap();
    assert!(running.http().is_some());
}

#[tokio::test]
async fn a_head_that_does_not_come_is_not_waited_for() {
    let site = site(&["http.max_connections=1"]).await;
    let mut slow = TcpStream::connect(site.http).await.unwrap();
    slow.write_all(b"GET /healthz HT").await.unwrap();
    let mut huge = TcpStream::connect(site.http).await.unwrap();
    // The one place is taken: this waits, and is served when the other is gone.
    let line = format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(64 << 10));
    let sent = huge.write_all(line.as_bytes());
    drop(slow);
    let _ = sent.await;
    let mut answer = Vec::new();
    let _ = huge.read_to_end(&mut answer).await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"), "{answer:?}");
}

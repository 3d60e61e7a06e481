//! A web service that decides, on 127.0.0.1.

use mqtt_access::webhook::{Deed, Login, Said, Webhook, WebhookConfig};
use mqtt_access::{Access, Policy, ThrottleConfig, Work};
use mqtt_proto::{ConnectRef, QoS, ReasonCode};
use mqtt_session::broker::{Answer, BrokerConfig};
use mqtt_testkit::World;
use mqtt_testkit::packets::{filter, subscribe};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Answers each request with what `answer` says to its body, and keeps the bodies.
fn service(answer: impl Fn(&str) -> String + Send + 'static) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/ask", listener.local_addr().unwrap());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&seen);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            let mut reader = BufReader::new(stream);
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if reader.read_line(&mut head).unwrap_or(0) == 0 {
                    break;
                }
            }
            let lower = head.to_ascii_lowercase();
            let len =
                lower.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
            let mut body = vec![0; len.unwrap_or(0)];
            if reader.read_exact(&mut body).is_err() {
                continue;
            }
            let body = String::from_utf8(body).unwrap();
            let reply = answer(&body);
            keep.lock().unwrap().push(if lower.contains("authorization: bearer t0ken") {
                body + " (token)"
            } else {
                body
            });
            let _ = reader.get_mut().write_all(reply.as_bytes());
        }
    });
    (url, seen)
}

fn ok(json: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{json}", json.len())
}

fn status(line: &str) -> String {
    format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}

fn login<'a>(user: &'a str, password: &'a [u8]) -> Login<'a> {
    Login { client_id: "c", user_name: Some(user), password: Some(password), address: None, protocol: "5.0" }
}

fn hook(url: &str) -> Webhook {
    let config = WebhookConfig {
        connect_url: Some(url.to_owned()),
        acl_url: Some(url.to_owned()),
        token: Some("t0ken".to_owned()),
        ..WebhookConfig::default()
    };
    Webhook::new(config).unwrap()
}

const YES: Said = Said::Allow { user_name: None, valid_for: None };

#[test]
fn what_the_service_says_is_done() {
    let (url, seen) = service(|body| match body {
        _ if body.contains("\"ann\"") => ok(r#"{"result": "allow", "user_name": "Ann", "valid_for": 60}"#),
        _ if body.contains("\"bob\"") => ok(r#"{"result": "deny"}"#),
        _ if body.contains("\"carl\"") => ok(r#"{"result": "ignore"}"#),
        _ if body.contains("\"dora\"") => status("204 No Content"),
        _ if body.contains("\"eve\"") => status("403 Forbidden"),
        _ if body.contains("\"fay\"") => ok("nonsense"),
        _ if body.contains("\"gus\"") => ok(r#"{"result": "maybe"}"#),
        _ if body.contains("\"hal\"") => status("302 Found\r\nLocation: http://127.0.0.1:1/"),
        _ => status("500 Internal Server Error"),
    });
    let hook = hook(&url);
    let said = |user| hook.connect(&login(user, b"p"));
    assert_eq!(
        said("ann"),
        Said::Allow { user_name: Some("Ann".into()), valid_for: Some(Duration::from_secs(60)) }
    );
    assert_eq!(
        (said("bob"), said("carl"), said("dora"), said("eve")),
        (Said::Deny, Said::Ignore, YES, Said::Deny)
    );
    for user in ["fay", "gus", "hal", "ivo"] {
        assert!(matches!(said(user), Said::Failed(_)), "{user}");
    }
    let first = seen.lock().unwrap()[0].clone();
    assert_eq!(
        first,
        r#"{"action":"connect","client_id":"c","user_name":"ann","password":"p","protocol":"5.0"} (token)"#
    );
    hook.connect(&login("bob", &[0xFF, 0]));
    assert!(seen.lock().unwrap().last().unwrap().contains(r#""password_base64":"/wA=""#));
}

#[test]
fn answers_are_remembered_for_a_while_and_failures_are_not() {
    let (url, seen) = service(|body| match body {
        _ if body.contains("\"ann\"") => ok(r#"{"result": "allow"}"#),
        _ if body.contains("\"bob\"") => ok(r#"{"result": "deny"}"#),
        _ => status("500 Oops"),
    });
    let hook = hook(&url);
    let asked = |user, password: &[u8]| {
        let before = seen.lock().unwrap().len();
        hook.connect(&login(user, password));
        seen.lock().unwrap().len() - before
    };
    assert_eq!(
        [asked("ann", b"p"), asked("ann", b"p"), asked("ann", b"q")],
        [1, 0, 1],
        "each password is a question"
    );
    assert_eq!([asked("bob", b"p"), asked("bob", b"p")], [1, 0]);
    assert_eq!([asked("eve", b"p"), asked("eve", b"p")], [1, 1]);
    let deed = |topic| Deed {
        action: "publish",
        client_id: "c",
        user_name: Some("ann"),
        topic,
        qos: 1,
        retain: false,
    };
    assert_eq!(
        [hook.authorize(&deed("a")), hook.authorize(&deed("a")), hook.authorize(&deed("b"))],
        [YES; 3]
    );
    assert_eq!(seen.lock().unwrap().iter().filter(|body| body.contains("publish")).count(), 2);
}

#[test]
fn a_service_that_is_silent_or_away_fails_in_time() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = |address: std::net::SocketAddr| WebhookConfig {
        connect_url: Some(format!("http://{address}/")),
        timeout: Duration::from_millis(100),
        ..WebhookConfig::default()
    };
    let hook = Webhook::new(config(silent.local_addr().unwrap())).unwrap();
    assert!(matches!(hook.connect(&login("ann", b"p")), Said::Failed(_)));
    let address = silent.local_addr().unwrap();
    drop(silent);
    assert!(matches!(Webhook::new(config(address)).unwrap().connect(&login("ann", b"p")), Said::Failed(_)));
}

#[test]
fn addresses_that_cannot_be_asked_are_told() {
    for (url, problem) in
        [("https://host/", "https"), ("host/path", "http://"), ("ftp://host/", "http://"), ("", "http://")]
    {
        let config = WebhookConfig { acl_url: Some(url.into()), ..WebhookConfig::default() };
        let error = Webhook::new(config).unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
    }
}

#[test]
fn the_broker_asks_about_connections_and_topics() {
    let (url, _) = service(|body| match body {
        _ if body.contains("\"away\"") => status("500 Oops"),
        _ if body.contains("\"bad\"") => ok(r#"{"result": "deny"}"#),
        _ => ok(r#"{"result": "allow"}"#),
    });
    let policy = Policy { webhook: Some(Arc::new(hook(&url))), ..Policy::default() };
    assert!(policy.asks_about_topics() && policy.knows_users());
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = Arc::clone(&told);
    let access = Access::new(vec![policy], ThrottleConfig::default())
        .reporting_to(move |text| tell.lock().unwrap().push(text.to_owned()));
    let mut config = BrokerConfig::default();
    (config.ask.connect, config.ask.subscribe) = (true, true);
    let mut w = World::new(config);
    let answer = |w: &mut World| {
        let ask = w.asks.pop().unwrap();
        let id = ask.id;
        let mut work = access.decide(ask).work;
        let answer = loop {
            match work {
                Work::Done(answer) => break answer,
                Work::Job(job) => work = job.run(),
            }
        };
        w.broker.handle_answer(w.now, id, answer.clone());
        w.settle();
        answer
    };
    let connect = |w: &mut World, user_name| {
        let peer =
            w.connect(&ConnectRef { client_id: "c", user_name: Some(user_name), ..ConnectRef::default() });
        (peer, answer(w))
    };
    assert_eq!(connect(&mut w, "bad").1, Answer::Deny(ReasonCode::BadUserNameOrPassword));
    assert_eq!(connect(&mut w, "away").1, Answer::Deny(ReasonCode::ServerUnavailable));
    assert!(told.lock().unwrap()[0].contains("status 500"));
    let (peer, granted) = connect(&mut w, "good");
    assert!(matches!(granted, Answer::Grant(_)));
    w.got(peer);
    let mut filters = filter("good", QoS::AtMostOnce);
    for more in ["bad", "away", "good2"] {
        filters.push(more, QoS::AtMostOnce.into()).unwrap();
    }
    w.send(peer, &subscribe(1, &filters));
    let no = Err(ReasonCode::NotAuthorized);
    let failed = Err(ReasonCode::UnspecifiedError);
    assert_eq!(answer(&mut w), Answer::Filters(vec![Ok(()), no, failed, failed]));
    assert_eq!(w.got(peer), ["SUBACK #1 00 87 80 80"]);
}

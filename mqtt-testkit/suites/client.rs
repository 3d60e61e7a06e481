//! The client against a server made of packets, one test for each thing that it promises. Connections
//! are pipes inside the process, and where time matters it is virtual if the runtime can do that.

#[path = "client_auth.rs"]
mod auth;
#[path = "client_streams.rs"]
mod streams;

use crate::adapter::client::*;
use crate::rt;
use futures_lite::future::{or, poll_once, yield_now, zip};
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use mqtt_proto::*;
use mqtt_session::client::{Cause, CleanStart, DisconnectOptions};
use mqtt_session::{Message, PublishErrorKind};
use mqtt_testkit::adapters::{Duplex, duplex};
use mqtt_testkit::brief;
use std::io::{Read, Write};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

pub(crate) type Failure = Box<dyn std::error::Error>;
pub(crate) type Result<T = ()> = std::result::Result<T, Failure>;

/// Where connections arrive.
pub(crate) struct Server {
    links: async_channel::Receiver<Duplex>,
    version: Version,
}

/// One connection, seen from the server.
pub(crate) struct Link {
    stream: Duplex,
    read: Vec<u8>,
    version: Version,
}

/// A server, and settings for a client that connects to it by pipes of `size` bytes.
fn server_with(size: usize) -> (Server, Options<impl Connector>) {
    let (sender, links) = async_channel::unbounded();
    let connector = move || {
        let (client, server) = duplex(size);
        let sent = sender.try_send(server);
        async move { sent.map(|()| rt::native(client)).map_err(|_| std::io::ErrorKind::ConnectionRefused.into()) }
    };
    let options = Options::new("unused", 0).client_id("c").connector(connector);
    (Server { links, version: Version::V5 }, options)
}

fn server() -> (Server, Options<impl Connector>) {
    server_with(1 << 20)
}

/// A connected client, and the server's end.
pub(crate) async fn connected(
    server: &mut Server,
    options: Options<impl Connector>,
) -> Result<(Client, Link)> {
    let (client, link) = zip(options.connect(), server.accept()).await;
    Ok((client?, link))
}

pub(crate) async fn pair() -> Result<(Client, Link)> {
    let (mut server, options) = server();
    connected(&mut server, options).await
}

impl Server {
    async fn link(&mut self) -> Link {
        let stream = self.links.recv().await.expect("the client dials");
        Link { stream, read: Vec::new(), version: self.version }
    }

    async fn accept(&mut self) -> Link {
        let mut link = self.link().await;
        assert!(link.next().await.starts_with("CONNECT"));
        link.connack(false).await;
        link
    }
}

impl Link {
    /// The next packet of the client, in brief; empty when it has closed the connection.
    async fn next(&mut self) -> String {
        loop {
            let whole = PacketRef::decode_next(&self.read, self.version, u32::MAX).expect("a valid packet");
            if let Some((packet, len)) = whole {
                let text = brief(&packet);
                self.read.drain(..len);
                return text;
            }
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk).await {
                Ok(0) | Err(_) => return String::new(),
                Ok(n) => self.read.extend_from_slice(&chunk[..n]),
            }
        }
    }

    async fn expect(&mut self, wanted: &str) {
        assert_eq!(self.next().await, wanted);
    }

    async fn send(&mut self, packet: PacketRef<'_>) {
        let mut bytes = Vec::new();
        packet.encode(self.version, &mut bytes).unwrap();
        // The client may have hung up.
        let _ = self.stream.write_all(&bytes).await;
    }

    async fn connack(&mut self, session_present: bool) {
        self.send(PacketRef::Connack(ConnackRef { session_present, ..ConnackRef::default() })).await;
    }

    async fn publish(&mut self, topic: &str, payload: &str, qos: QoS, id: u16) {
        let packet_id = PacketId::new(id);
        let payload = payload.as_bytes();
        self.send(PacketRef::Publish(PublishRef { topic, payload, qos, packet_id, ..PublishRef::default() }))
            .await;
    }

    async fn puback(&mut self, id: u16) {
        self.send(PacketRef::Puback(PacketId::new(id).unwrap().into())).await;
    }

    async fn suback(&mut self, id: u16, codes: &[u8]) {
        let (packet_id, properties) = (PacketId::new(id).unwrap(), Properties::EMPTY);
        self.send(PacketRef::Suback(SubackRef { packet_id, properties, codes })).await;
    }

    async fn unsuback(&mut self, id: u16) {
        let (packet_id, properties) = (PacketId::new(id).unwrap(), Properties::EMPTY);
        self.send(PacketRef::Unsuback(UnsubackRef { packet_id, properties, codes: &[0] })).await;
    }

    /// Answers the client's SUBSCRIBE, which has to come next.
    async fn grant(&mut self) {
        let line = self.next().await;
        let id = line.strip_prefix("SUBSCRIBE #").and_then(|rest| rest.split(' ').next()).expect(&line);
        self.suback(id.parse().unwrap(), &[1]).await;
    }

    /// Everything sent before has been handled by the client once this has.
    pub(crate) async fn settle(&mut self, client: &Client) {
        let published = client.publish(at_least_once("settle", ""));
        let answer = async {
            let line = self.next().await;
            let id = line.split(['#', ' ']).nth(4).expect(&line).parse().unwrap();
            self.puback(id).await;
        };
        let (published, ()) = zip(published, answer).await;
        published.unwrap();
    }
}

pub(crate) fn at_least_once(topic: &str, payload: &str) -> Message {
    Message::new(topic, payload.to_owned()).with_qos(QoS::AtLeastOnce)
}

async fn subscribe(client: &Client, link: &mut Link, filter: &str) -> Subscription {
    let (stream, ()) = zip(client.subscribe(filter, QoS::AtLeastOnce), link.grant()).await;
    stream.unwrap()
}

/// The payload of the next message, or what else comes.
async fn next(stream: &mut Subscription) -> String {
    match stream.recv().await {
        Some(Item::Message(message)) => String::from_utf8_lossy(&message.payload).into_owned(),
        Some(Item::Lagged(n)) => format!("lagged {n}"),
        other => format!("{other:?}"),
    }
}

// ---- the handle and the driver ----

#[rt::test]
async fn handles_are_clones_of_one_client() -> Result {
    let (client, mut link) = pair().await?;
    let other = client.clone();
    drop(client.try_publish(Message::new("a", "1"))?);
    drop(other.try_publish(Message::new("a", "2"))?);
    link.expect("PUBLISH a q0 \"1\"").await;
    link.expect("PUBLISH a q0 \"2\"").await;
    drop(client);
    drop(other.try_publish(Message::new("a", "3"))?);
    link.expect("PUBLISH a q0 \"3\"").await;
    Ok(())
}

#[rt::test]
async fn the_driver_runs_though_nothing_is_polled() -> Result {
    rt::pause();
    let (mut server, options) = server();
    let (client, mut link) = connected(&mut server, options.keep_alive(Duration::from_secs(1))).await?;
    let stream = subscribe(&client, &mut link, "a").await;
    link.publish("a", "1", QoS::AtMostOnce, 0).await;
    link.expect("PINGREQ").await;
    link.send(PacketRef::Pingresp).await;
    link.expect("PINGREQ").await;
    drop(stream);
    Ok(())
}

#[rt::test]
async fn publish_resolves_when_the_server_has_it() -> Result {
    let (client, mut link) = pair().await?;
    let mut published = pin!(client.publish(at_least_once("a", "1")));
    let early = async {
        let _ = published.as_mut().await;
        panic!("too early");
    };
    or(early, link.expect("PUBLISH a q1 #1 \"1\"")).await;
    link.send(PacketRef::Puback(AckRef {
        reason: ReasonCode::NoMatchingSubscribers,
        ..PacketId::MIN.into()
    }))
    .await;
    assert_eq!(published.await?.reason, ReasonCode::NoMatchingSubscribers);
    Ok(())
}

#[rt::test]
async fn publish_at_qos_0_resolves_when_the_connection_took_it() -> Result {
    let (mut server, options) = server_with(64);
    let (client, mut link) = connected(&mut server, options).await?;
    let large = "x".repeat(1000);
    let mut published = client.try_publish(Message::new("a", large.clone()))?;
    yield_now().await;
    assert!(poll_once(&mut published).await.is_none(), "the pipe takes 64 bytes");
    let wanted = format!("PUBLISH a q0 \"{large}\"");
    let (published, ()) = zip(published, link.expect(&wanted)).await;
    published?;
    Ok(())
}

#[rt::test]
async fn publish_tells_that_the_server_refused() -> Result {
    let (client, mut link) = pair().await?;
    let answer = async {
        link.next().await;
        let reason = ReasonCode::QuotaExceeded;
        link.send(PacketRef::Puback(AckRef { reason, ..PacketId::MIN.into() })).await;
    };
    let (published, ()) = zip(client.publish(at_least_once("a", "")), answer).await;
    assert!(matches!(published, Err(Error::Refused(ReasonCode::QuotaExceeded))));
    Ok(())
}

#[rt::test]
async fn a_full_queue_makes_publish_wait_and_try_publish_hands_back() -> Result {
    let (mut server, options) = server();
    let options = options.configure(|config| {
        config.max_queued_messages = 2;
        config.max_in_flight = 1;
    });
    let (client, mut link) = connected(&mut server, options).await?;
    let first = client.try_publish(at_least_once("a", "1"))?;
    link.expect("PUBLISH a q1 #1 \"1\"").await;
    let waiting =
        [client.try_publish(at_least_once("a", "2"))?, client.try_publish(at_least_once("a", "3"))?];
    let Err(Error::Publish(error)) = client.try_publish(at_least_once("a", "4")) else { panic!() };
    assert_eq!(error.kind, PublishErrorKind::QueueFull);
    let message = error.into_message();
    let mut fourth = pin!(client.publish(message));
    assert!(poll_once(&mut fourth).await.is_none(), "there is no room");
    let serve = async {
        for n in 1..=4 {
            link.puback(n).await;
            if n < 4 {
                link.expect(&format!("PUBLISH a q1 #{} \"{}\"", n + 1, n + 1)).await;
            }
        }
    };
    let (fourth, ()) = zip(fourth, serve).await;
    fourth?;
    first.await?;
    for completion in waiting {
        completion.await?;
    }
    Ok(())
}

#[rt::test]
async fn many_publishers_wait_for_room_and_all_get_it() -> Result {
    let (mut server, options) = server();
    let options = options.configure(|config| config.max_queued_messages = 3);
    let (client, mut link) = connected(&mut server, options).await?;
    let mut tasks = Vec::new();
    for _ in 0..100 {
        let client = client.clone();
        tasks.push(rt::spawn(async move { client.publish(at_least_once("a", "")).await }));
    }
    for id in 1..=100 {
        link.expect(&format!("PUBLISH a q1 #{id} \"\"")).await;
        link.puback(id).await;
    }
    for published in tasks {
        published.await?;
    }
    Ok(())
}

#[rt::test]
async fn state_tells_how_the_client_is() -> Result {
    rt::pause();
    let (mut server, options) = server();
    let client = options.start()?;
    let mut state = client.state();
    assert!(matches!(*state.borrow_and_update(), State::Connecting));
    let link = server.accept().await;
    state.changed().await?;
    assert!(matches!(*state.borrow_and_update(), State::Connected(_)));
    drop(link);
    state.changed().await?;
    assert!(matches!(*state.borrow_and_update(), State::Disconnected { .. }));
    let _link = server.accept().await;
    state.changed().await?;
    assert!(matches!(*state.borrow_and_update(), State::Connected(_)));
    client.disconnect().await?;
    assert!(matches!(*state.borrow_and_update(), State::Closed { cause: Cause::Requested, .. }));
    Ok(())
}

#[rt::test]
async fn a_refused_connection_is_an_error_of_connect() -> Result {
    let (mut server, options) = server();
    let refuse = async {
        let mut link = server.link().await;
        link.next().await;
        let reason = ReasonCode::BadUserNameOrPassword;
        link.send(PacketRef::Connack(ConnackRef { reason, ..ConnackRef::default() })).await;
    };
    let (client, ()) = zip(options.connect(), refuse).await;
    let Err(Error::Connect { cause, .. }) = client else { panic!() };
    assert_eq!(cause, Cause::Refused(ReasonCode::BadUserNameOrPassword));
    Ok(())
}

#[rt::test]
async fn a_server_that_is_not_there_is_an_error_of_connect() -> Result {
    let options = Options::new("unused", 0)
        .connector(|| async { Err::<rt::Native<Duplex>, _>(std::io::ErrorKind::ConnectionRefused.into()) });
    let Err(Error::Connect { io: Some(io), .. }) = options.connect().await else { panic!() };
    assert_eq!(io.kind(), std::io::ErrorKind::ConnectionRefused);
    Ok(())
}

/// [MQTT-4.2-1] [MQTT-7.1.2-1] of 3.1.1
#[rt::test]
async fn it_speaks_tcp() -> Result {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let url = format!("mqtt://us%40er:p%3Aw@{}", listener.local_addr()?);
    let serve = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = [0; 1024];
        let n = stream.read(&mut buffer).unwrap();
        let PacketRef::Connect(connect) = PacketRef::decode(&buffer[..n], Version::V5).unwrap() else {
            panic!()
        };
        assert_eq!((connect.user_name, connect.password), (Some("us@er"), Some(&b"p:w"[..])));
        stream.write_all(&[0x20, 3, 0, 0, 0]).unwrap();
        let n = stream.read(&mut buffer).unwrap();
        assert_eq!(brief(&PacketRef::decode(&buffer[..n], Version::V5).unwrap()), "DISCONNECT 00");
        assert_eq!(stream.read(&mut buffer).unwrap(), 0);
    });
    let client = Client::connect(&url).await?;
    client.disconnect().await?;
    serve.join().unwrap();
    Ok(())
}

#[test]
fn addresses_are_checked() {
    for good in ["mqtt://h", "mqtt://h:1/", "tcp://u@[::1]:5", "mqtt://u:p@h"] {
        assert!(Options::from_url(good).is_ok(), "{good}");
    }
    for bad in
        ["h", "http://h", "unix://s", "mqtt://", "mqtt://h:x", "mqtt://h/p", "mqtt://[::1", "mqtt://%zz@h"]
    {
        assert!(matches!(Options::from_url(bad), Err(Error::Address(_))), "{bad}");
    }
}

// ---- requests, authentication ----

#[rt::test]
async fn request_waits_for_its_response() -> Result {
    let (client, mut link) = pair().await?;
    let serve = async {
        link.grant().await;
        for answer in ["pong 1", "pong 2"] {
            let mut bytes = vec![0; 4096];
            let n = link.stream.read(&mut bytes).await.unwrap();
            let PacketRef::Publish(request) = PacketRef::decode(&bytes[..n], Version::V5).unwrap() else {
                panic!()
            };
            let topic = request.properties.response_topic().unwrap();
            let data = request.properties.correlation_data().unwrap();
            let mut list = PropertiesBuf::new();
            list.push(Property::CorrelationData(data)).unwrap();
            link.puback(request.packet_id.unwrap().get()).await;
            let (payload, properties) = (answer.as_bytes(), list.as_properties());
            link.send(PacketRef::Publish(PublishRef { topic, payload, properties, ..PublishRef::default() }))
                .await;
        }
    };
    let ask = async {
        let first = client.request("service", "ping").await.unwrap();
        let second = client.request("service", "ping").await.unwrap();
        (first.payload, second.payload)
    };
    let ((first, second), ()) = zip(ask, serve).await;
    assert_eq!((&first[..], &second[..]), (&b"pong 1"[..], &b"pong 2"[..]));
    Ok(())
}

#[rt::test]
async fn a_request_without_a_response_times_out() -> Result {
    rt::pause();
    let (mut server, options) = server();
    let options = options.request_timeout(Duration::from_millis(10));
    let (client, mut link) = connected(&mut server, options).await?;
    let serve = async {
        link.grant().await;
        link.next().await;
    };
    let (response, ()) = zip(client.request("service", "ping"), serve).await;
    assert!(matches!(response, Err(Error::Timeout)));
    Ok(())
}

// ---- cancelling and ending ----

#[rt::test]
async fn a_future_that_was_never_polled_did_nothing() -> Result {
    let (client, mut link) = pair().await?;
    drop(client.publish(at_least_once("a", "never")));
    drop(client.subscribe("never", QoS::AtMostOnce));
    drop(client.disconnect());
    link.settle(&client).await;
    Ok(())
}

#[rt::test]
async fn dropping_a_future_neither_withdraws_nor_repeats() -> Result {
    let (client, mut link) = pair().await?;
    {
        let mut published = pin!(client.publish(at_least_once("a", "once")));
        assert!(poll_once(&mut published).await.is_none(), "there is no answer");
    }
    link.expect("PUBLISH a q1 #1 \"once\"").await;
    link.puback(1).await;
    link.settle(&client).await;
    Ok(())
}

#[rt::test]
async fn disconnect_flushes_then_sends_disconnect_and_closes() -> Result {
    let (client, mut link) = pair().await?;
    let completion = client.try_publish(at_least_once("a", "1"))?;
    let serve = async {
        link.expect("PUBLISH a q1 #1 \"1\"").await;
        link.puback(1).await;
        link.expect("DISCONNECT 00").await;
        link.expect("").await;
    };
    let (result, ()) = zip(client.disconnect(), serve).await;
    result?;
    completion.await?;
    let error = client.publish(at_least_once("a", "2")).await.unwrap_err();
    assert!(matches!(error, Error::Closed(Cause::Requested)));
    Ok(())
}

#[rt::test]
async fn closing_ends_streams_after_what_they_hold() -> Result {
    let (client, mut link) = pair().await?;
    let mut stream = subscribe(&client, &mut link, "a").await;
    link.publish("a", "last", QoS::AtMostOnce, 0).await;
    link.settle(&client).await;
    client.disconnect().await?;
    assert_eq!(next(&mut stream).await, "last");
    assert!(stream.recv().await.is_none());
    Ok(())
}

#[rt::test]
async fn dropping_all_handles_disconnects() -> Result {
    let (client, mut link) = pair().await?;
    drop(client.try_publish(Message::new("a", "1"))?);
    drop(client);
    link.expect("PUBLISH a q0 \"1\"").await;
    link.expect("DISCONNECT 00").await;
    link.expect("").await;
    Ok(())
}

#[rt::test]
async fn a_server_that_takes_nothing_cannot_keep_disconnect() -> Result {
    rt::pause();
    let (mut server, options) = server_with(16);
    let (client, _link) = connected(&mut server, options.close_timeout(Duration::from_millis(10))).await?;
    let completion = client.try_publish(Message::new("a", "x".repeat(100)))?;
    let drain = Duration::from_millis(10);
    client.disconnect_with(DisconnectOptions { drain, ..DisconnectOptions::default() }).await?;
    assert!(completion.await.is_err());
    Ok(())
}

#[rt::test]
async fn timeouts_are_settings_down_to_ten_milliseconds() -> Result {
    rt::pause();
    let (mut server, options) = server();
    let options = options.configure(|config| config.connect_timeout = Duration::from_millis(10));
    let begin = rt::now();
    let (client, _link) = zip(options.connect(), server.link()).await;
    let Err(Error::Connect { cause, .. }) = client else { panic!() };
    assert_eq!(cause, Cause::ConnectTimeout);
    assert!(rt::now() - begin < rt::SHORT);
    Ok(())
}

#[rt::test]
async fn a_dead_connection_is_noticed_and_replaced() -> Result {
    rt::pause();
    let (mut server, options) = server();
    let options = options
        .keep_alive(Duration::from_secs(1))
        .configure(|config| config.ping_timeout = Duration::from_millis(10));
    let (client, mut link) = connected(&mut server, options).await?;
    link.expect("PINGREQ").await;
    let mut new = server.accept().await;
    new.settle(&client).await;
    Ok(())
}

#[rt::test]
async fn a_panic_in_user_code_ends_the_client_and_nobody_waits_for_ever() -> Result {
    struct Panics;
    impl AuthHandler for Panics {
        fn start(&mut self) -> Option<bytes::Bytes> {
            panic!("as the test wants it")
        }
        fn answer(&mut self, _: &[u8]) -> std::result::Result<bytes::Bytes, AuthFailed> {
            Err(AuthFailed)
        }
    }
    let (_server, options) = server();
    let client = options.authentication("M", Panics).connect().await;
    assert!(client.is_err());
    Ok(())
}

//! The client against a server made of packets, one test for each thing that it promises. Connections
//! are pipes inside the process, and where time matters it is virtual if the runtime can do that.

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
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
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

struct Parrot(Arc<AtomicUsize>);

impl AuthHandler for Parrot {
    fn start(&mut self) -> Option<bytes::Bytes> {
        Some("start".into())
    }

    fn answer(&mut self, data: &[u8]) -> std::result::Result<bytes::Bytes, AuthFailed> {
        if data == b"bad" { Err(AuthFailed) } else { Ok(data.to_vec().into()) }
    }

    fn finish(&mut self, _: Option<&[u8]>) -> std::result::Result<(), AuthFailed> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

async fn auth(link: &mut Link, reason: ReasonCode, data: &[u8]) {
    let mut list = PropertiesBuf::new();
    list.push(Property::AuthenticationMethod("M")).unwrap();
    list.push(Property::AuthenticationData(data)).unwrap();
    link.send(PacketRef::Auth(AuthRef { reason, properties: list.as_properties() })).await;
}

#[rt::test]
async fn the_auth_handler_answers_auth() -> Result {
    let (mut server, options) = server();
    let finished = Arc::new(AtomicUsize::new(0));
    let options = options.authentication("M", Parrot(finished.clone()));
    let serve = async {
        let mut link = server.link().await;
        assert!(link.next().await.contains("AuthenticationData([115, 116, 97, 114, 116])"));
        auth(&mut link, ReasonCode::ContinueAuthentication, b"1").await;
        link.expect("AUTH 18 {AuthenticationMethod(\"M\"), AuthenticationData([49])}").await;
        let mut list = PropertiesBuf::new();
        list.push(Property::AuthenticationMethod("M")).unwrap();
        let properties = list.as_properties();
        link.send(PacketRef::Connack(ConnackRef { properties, ..ConnackRef::default() })).await;
        link
    };
    let (client, mut link) = zip(options.connect(), serve).await;
    let client = client?;
    let serve = async {
        link.expect("AUTH 19 {AuthenticationMethod(\"M\"), AuthenticationData([97])}").await;
        auth(&mut link, ReasonCode::ContinueAuthentication, b"2").await;
        link.expect("AUTH 18 {AuthenticationMethod(\"M\"), AuthenticationData([50])}").await;
        auth(&mut link, ReasonCode::Success, b"").await;
    };
    let (again, ()) = zip(client.reauthenticate(b"a"), serve).await;
    again?;
    assert_eq!(finished.load(Ordering::Relaxed), 2);
    auth(&mut link, ReasonCode::Success, b"").await;
    link.expect("DISCONNECT 82").await;
    Ok(())
}

/// Begins another exchange as soon as it hears that the first one is over.
struct Eager {
    client: Arc<Mutex<Option<Client>>>,
    again: Arc<Mutex<Option<Again>>>,
}

type Again = Pin<Box<dyn Future<Output = std::result::Result<(), Error>> + Send>>;

impl AuthHandler for Eager {
    fn start(&mut self) -> Option<bytes::Bytes> {
        Some("start".into())
    }

    fn answer(&mut self, data: &[u8]) -> std::result::Result<bytes::Bytes, AuthFailed> {
        Ok(data.to_vec().into())
    }

    fn finish(&mut self, _: Option<&[u8]>) -> std::result::Result<(), AuthFailed> {
        if let Some(client) = self.client.lock().unwrap().take() {
            let mut again: Again = Box::pin(async move { client.reauthenticate(b"a").await });
            assert!(again.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            *self.again.lock().unwrap() = Some(again);
        }
        Ok(())
    }
}

/// What CONNACK ends is not the exchange that was begun meanwhile.
#[rt::test]
async fn an_exchange_is_over_when_the_server_says_so() -> Result {
    let (mut server, options) = server();
    let (client, again) = (Arc::new(Mutex::new(None)), Arc::new(Mutex::new(None)));
    let handler = Eager { client: client.clone(), again: again.clone() };
    *client.lock().unwrap() = Some(options.authentication("M", handler).start()?);
    let mut link = server.link().await;
    link.next().await;
    let mut list = PropertiesBuf::new();
    list.push(Property::AuthenticationMethod("M")).unwrap();
    let properties = list.as_properties();
    link.send(PacketRef::Connack(ConnackRef { properties, ..ConnackRef::default() })).await;
    link.expect("AUTH 19 {AuthenticationMethod(\"M\"), AuthenticationData([97])}").await;
    let mut again = again.lock().unwrap().take().expect("it was begun");
    assert!(again.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    auth(&mut link, ReasonCode::Success, b"").await;
    again.await?;
    Ok(())
}

// ---- streams ----

#[rt::test]
async fn a_full_stream_stops_nothing_and_yields_lagged() -> Result {
    let (mut server, options) = server();
    let (client, mut link) = connected(&mut server, options.stream_capacity(10)).await?;
    let mut stream = subscribe(&client, &mut link, "a").await;
    for n in 0..1000 {
        link.publish("a", &n.to_string(), QoS::AtMostOnce, 0).await;
    }
    link.settle(&client).await;
    for n in 0..10 {
        assert_eq!(next(&mut stream).await, n.to_string());
    }
    assert_eq!(next(&mut stream).await, "lagged 990");
    link.publish("a", "on", QoS::AtMostOnce, 0).await;
    assert_eq!(next(&mut stream).await, "on");
    Ok(())
}

#[rt::test]
async fn above_qos_0_nothing_is_dropped_and_receiving_acknowledges() -> Result {
    let (mut server, options) = server();
    let (client, mut link) = connected(&mut server, options.stream_capacity(1)).await?;
    let mut stream = subscribe(&client, &mut link, "a").await;
    for id in 1..=5 {
        link.publish("a", &id.to_string(), QoS::AtLeastOnce, id).await;
    }
    link.settle(&client).await;
    for id in 1..=5 {
        assert_eq!(next(&mut stream).await, id.to_string());
        link.expect(&format!("PUBACK #{id}")).await;
    }
    Ok(())
}

#[rt::test]
async fn the_receive_maximum_bounds_what_is_unacknowledged() -> Result {
    let (mut server, options) = server();
    let options = options.configure(|config| config.receive_maximum = 3);
    let (client, mut link) = connected(&mut server, options).await?;
    let _stream = subscribe(&client, &mut link, "a").await;
    for id in 1..=4 {
        link.publish("a", "", QoS::AtLeastOnce, id).await;
    }
    link.expect("DISCONNECT 93").await;
    Ok(())
}

#[rt::test]
async fn below_5_a_limit_closes_with_a_reason() -> Result {
    let (mut server, options) = server();
    server.version = Version::V311;
    let options = options.version(Version::V311).clean_start(CleanStart::Always).configure(|config| {
        config.max_unacknowledged = 3;
        config.receive_maximum = 1;
    });
    let (client, mut link) = connected(&mut server, options).await?;
    let _stream = subscribe(&client, &mut link, "a").await;
    let mut state = client.state();
    for id in 1..=4 {
        link.publish("a", "", QoS::AtLeastOnce, id).await;
    }
    let wait = state
        .wait_for(|state| matches!(state, State::Disconnected { cause: Cause::TooManyUnacknowledged, .. }));
    wait.await?;
    Ok(())
}

#[rt::test]
async fn publishing_from_a_receive_loop_cannot_deadlock() -> Result {
    let (mut server, options) = server_with(256);
    let options = options.stream_capacity(1).configure(|config| {
        config.max_queued_messages = 1;
        config.max_in_flight = 1;
    });
    let (client, mut link) = connected(&mut server, options).await?;
    let mut stream = subscribe(&client, &mut link, "in").await;
    let echo = async {
        for _ in 0..50 {
            let text = next(&mut stream).await;
            client.publish(at_least_once("out", &text)).await.unwrap();
        }
    };
    let serve = async {
        let (mut given, mut echoed) = (0u16, 0u16);
        while echoed < 50 {
            if given < 50 && given < echoed + 5 {
                given += 1;
                link.publish("in", &given.to_string(), QoS::AtLeastOnce, given).await;
                continue;
            }
            let line = link.next().await;
            if let Some(rest) = line.strip_prefix("PUBLISH out q1 #") {
                echoed += 1;
                link.puback(rest.split(' ').next().unwrap().parse().unwrap()).await;
            }
        }
    };
    zip(echo, serve).await;
    Ok(())
}

#[rt::test]
async fn a_message_goes_once_to_every_stream_that_matches() -> Result {
    let (client, mut link) = pair().await?;
    let mut one = subscribe(&client, &mut link, "a/+").await;
    let mut two = subscribe(&client, &mut link, "a/#").await;
    let mut other = subscribe(&client, &mut link, "b").await;
    link.publish("a/x", "1", QoS::AtLeastOnce, 1).await;
    link.publish("a/x/y", "2", QoS::AtMostOnce, 0).await;
    link.settle(&client).await;
    assert_eq!(next(&mut one).await, "1");
    // Both have it now, so it is acknowledged.
    assert_eq!(next(&mut two).await, "1");
    link.expect("PUBACK #1").await;
    assert_eq!(next(&mut two).await, "2");
    assert!(one.try_recv().is_none() && other.try_recv().is_none());
    Ok(())
}

#[rt::test]
async fn what_matches_no_stream_is_unclaimed_and_kept_from_the_start() -> Result {
    let (client, mut link) = pair().await?;
    link.publish("old", "1", QoS::AtMostOnce, 0).await;
    link.publish("old", "2", QoS::AtLeastOnce, 1).await;
    link.settle(&client).await;
    let mut unclaimed = client.unclaimed().expect("nobody has it");
    assert!(client.unclaimed().is_none());
    assert_eq!(next(&mut unclaimed).await, "1");
    assert_eq!(next(&mut unclaimed).await, "2");
    link.expect("PUBACK #1").await;
    drop(unclaimed);
    assert!(client.unclaimed().is_some());
    Ok(())
}

#[rt::test]
async fn the_backlog_of_unclaimed_messages_is_bounded_and_fills_no_window() -> Result {
    let (mut server, options) = server();
    let (client, mut link) = connected(&mut server, options.unclaimed_capacity(2)).await?;
    for id in 1..=5 {
        link.publish("old", &id.to_string(), QoS::AtLeastOnce, id).await;
    }
    link.settle(&client).await;
    let mut unclaimed = client.unclaimed().expect("nobody has it");
    assert_eq!(next(&mut unclaimed).await, "1");
    assert_eq!(next(&mut unclaimed).await, "2");
    assert_eq!(next(&mut unclaimed).await, "lagged 3");
    for id in 1..=5 {
        link.expect(&format!("PUBACK #{id}")).await;
    }
    Ok(())
}

#[rt::test]
async fn dropping_a_stream_neither_unsubscribes_nor_acknowledges() -> Result {
    let (client, mut link) = pair().await?;
    let stream = subscribe(&client, &mut link, "a").await;
    link.publish("a", "1", QoS::AtLeastOnce, 1).await;
    link.settle(&client).await;
    drop(stream);
    link.publish("a", "2", QoS::AtLeastOnce, 2).await;
    // Neither UNSUBSCRIBE nor PUBACK comes before the next publish.
    link.settle(&client).await;
    let mut unclaimed = client.unclaimed().expect("nobody has it");
    assert_eq!(next(&mut unclaimed).await, "1");
    assert_eq!(next(&mut unclaimed).await, "2");
    Ok(())
}

#[rt::test]
async fn unsubscribe_unsubscribes_and_acknowledges() -> Result {
    let (client, mut link) = pair().await?;
    let stream = subscribe(&client, &mut link, "a").await;
    let twin = subscribe(&client, &mut link, "a").await;
    link.publish("a", "1", QoS::AtLeastOnce, 1).await;
    link.settle(&client).await;
    // The other stream has the same filter: it stays subscribed.
    twin.unsubscribe().await?;
    link.settle(&client).await;
    let serve = async {
        link.expect("UNSUBSCRIBE #5 a").await;
        link.unsuback(5).await;
        link.expect("PUBACK #1").await;
    };
    let (result, ()) = zip(stream.unsubscribe(), serve).await;
    result?;
    Ok(())
}

#[rt::test]
async fn messages_before_suback_are_not_missed() -> Result {
    let (client, mut link) = pair().await?;
    let serve = async {
        link.expect("SUBSCRIBE #1 a q1").await;
        link.publish("a", "retained", QoS::AtMostOnce, 0).await;
        link.suback(1, &[1]).await;
    };
    let (stream, ()) = zip(client.subscribe("a", QoS::AtLeastOnce), serve).await;
    assert_eq!(next(&mut stream?).await, "retained");
    Ok(())
}

#[rt::test]
async fn a_refused_subscription_is_an_error() -> Result {
    let (client, mut link) = pair().await?;
    let serve = async {
        link.next().await;
        link.suback(1, &[0x87]).await;
    };
    let (stream, ()) = zip(client.subscribe("a", QoS::AtLeastOnce), serve).await;
    assert!(matches!(stream, Err(Error::Refused(ReasonCode::NotAuthorized))));
    let bad = client.subscribe("a#", QoS::AtLeastOnce).await;
    assert!(matches!(bad, Err(Error::Request(_))));
    Ok(())
}

#[rt::test]
async fn manual_acknowledgements_may_come_in_any_order() -> Result {
    let (mut server, options) = server();
    let (client, mut link) = connected(&mut server, options.manual_ack()).await?;
    let mut stream = subscribe(&client, &mut link, "a").await;
    link.publish("a", "1", QoS::AtLeastOnce, 1).await;
    link.publish("a", "2", QoS::AtLeastOnce, 2).await;
    let (Some(Item::Message(first)), Some(Item::Message(second))) =
        (stream.recv().await, stream.recv().await)
    else {
        panic!()
    };
    second.refuse(ReasonCode::QuotaExceeded);
    link.settle(&client).await;
    assert_eq!(&first.ack().payload[..], b"1");
    link.expect("PUBACK #1").await;
    link.expect("PUBACK #2 97").await;
    Ok(())
}

#[rt::test]
async fn subscriptions_outlive_connections_and_lost_sessions() -> Result {
    rt::pause();
    let (mut server, options) = server();
    let (client, mut link) = connected(&mut server, options).await?;
    let mut stream = subscribe(&client, &mut link, "a").await;
    drop(link);
    let mut link = server.accept().await;
    link.expect("SUBSCRIBE #2 a q1").await;
    link.suback(2, &[1]).await;
    link.publish("a", "again", QoS::AtMostOnce, 0).await;
    assert_eq!(next(&mut stream).await, "again");
    drop(link);
    let mut link = server.accept().await;
    link.next().await;
    link.suback(3, &[0x87]).await;
    let Some(Item::Refused { filter, reason }) = stream.recv().await else { panic!() };
    assert_eq!((&filter[..], reason), ("a", ReasonCode::NotAuthorized));
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

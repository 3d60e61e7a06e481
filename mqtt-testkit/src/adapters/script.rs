//! The steps.

use super::Harness;
use super::server::{Relay, mute_server, slow_server};
use futures_lite::future::{poll_once, zip};
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use mqtt_io::broker::{BrokerHandle, Config, Event};
use mqtt_io::client::{Client, Item, Options, State, Subscription, Tcp};
use mqtt_io::runtime::Connect;
use mqtt_proto::{ConnectRef, PacketRef, QoS, ReasonCode, Version, WillRef};
use mqtt_session::Message;
use mqtt_session::client::{Backoff, Cause, CleanStart, Connected};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

pub(super) const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];
pub(super) const EVERY_QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

async fn broker<H: Harness>() -> BrokerHandle<H::Runtime> {
    let mut config = Config::listening_on(["127.0.0.1:0".parse().unwrap()]);
    config.broker.shards = crate::shards();
    H::bind(config).await.unwrap()
}

/// Settings of a client that does not hesitate to connect again.
pub(super) fn client_options<H: Harness>(server: SocketAddr, id: &str) -> Options<H::Runtime> {
    let (min, max) = (Duration::from_millis(10), Duration::from_millis(100));
    Options::new(server.ip().to_string(), server.port())
        .runtime(H::runtime())
        .client_id(id)
        .configure(|config| config.reconnect = Some(Backoff { min, max }))
}

async fn client<H: Harness>(broker: &BrokerHandle<H::Runtime>, id: &str) -> Client<H::Runtime> {
    client_options::<H>(broker.local_addrs()[0], id).connect().await.unwrap()
}

/// The payload of the next message.
pub(super) async fn next(stream: &mut Subscription) -> String {
    match stream.recv().await {
        Some(Item::Message(message)) => String::from_utf8_lossy(&message.payload).into_owned(),
        other => panic!("no message: {other:?}"),
    }
}

/// Waits until the client is connected.
async fn connected<H: Harness>(client: &Client<H::Runtime>) -> Arc<Connected> {
    let mut state = client.state();
    let state = state.wait_for(|state| matches!(state, State::Connected(_))).await.unwrap();
    let State::Connected(connected) = &*state else { unreachable!() };
    Arc::clone(connected)
}

/// Waits until the client has lost its connection.
async fn lost<H: Harness>(client: &Client<H::Runtime>) -> Cause {
    let mut state = client.state();
    let state = state.wait_for(|state| matches!(state, State::Disconnected { .. })).await.unwrap();
    let State::Disconnected { cause, .. } = *state else { unreachable!() };
    cause
}

/// A client connects in every version, says goodbye, and the broker knows the difference; what cannot
/// be connected to says why.
pub async fn connect<H: Harness>() {
    let broker = broker::<H>().await;
    let mut events = broker.events();
    let server = broker.local_addrs()[0];
    for version in VERSIONS {
        let options = client_options::<H>(server, "c").version(version).clean_start(CleanStart::Always);
        let client = options.connect().await.unwrap();
        let event = events.recv().await.unwrap().unwrap();
        assert!(matches!(&*event, Event::Connected { version: v, .. } if *v == version), "{event:?}");
        client.disconnect().await.unwrap();
        loop {
            let event = events.recv().await.unwrap().unwrap();
            if let Event::Disconnected { reason, .. } = &*event {
                assert_eq!(*reason, ReasonCode::Success);
                break;
            }
        }
        while poll_once(events.recv()).await.is_some() {}
    }
    let taken = H::bind(Config::listening_on([server])).await;
    assert!(taken.is_err(), "the port is taken");
    broker.shutdown().await.unwrap();
    // Nobody listens there any more.
    client_options::<H>(server, "c").connect().await.unwrap_err();
}

/// Messages of every QoS go through in order, between clients of different versions and the program.
pub async fn every_qos<H: Harness>() {
    let broker = broker::<H>().await;
    let mut own = broker.subscribe("t/#", QoS::ExactlyOnce.into()).await.unwrap();
    let from = client::<H>(&broker, "from").await;
    for version in VERSIONS {
        let to = client_options::<H>(broker.local_addrs()[0], "to").version(version);
        let to = to.clean_start(CleanStart::Always).connect().await.unwrap();
        for qos in EVERY_QOS {
            let mut stream = to.subscribe("t/+", qos).await.unwrap();
            for sent_at in EVERY_QOS {
                for n in 0..20 {
                    let text = format!("{version} {sent_at:?} {n}");
                    from.publish(Message::new("t/x", text).with_qos(sent_at)).await.unwrap();
                }
                for n in 0..20 {
                    let wanted = format!("{version} {sent_at:?} {n}");
                    assert_eq!(next(&mut stream).await, wanted);
                    assert_eq!(own.recv().await.unwrap().unwrap().payload, wanted.as_bytes());
                }
            }
            stream.unsubscribe().await.unwrap();
        }
        to.disconnect().await.unwrap();
    }
    // A large message, as one.
    let mut stream = from.subscribe("t/large", QoS::ExactlyOnce).await.unwrap();
    let large = "x".repeat(1 << 20);
    from.publish(Message::new("t/large", large.clone()).with_qos(QoS::ExactlyOnce)).await.unwrap();
    assert_eq!(next(&mut stream).await, large);
    broker.shutdown().await.unwrap();
}

/// A connection that is cut loses neither what waits at the client nor what waits at the broker, nor
/// is anything delivered twice at QoS 2.
pub async fn resumed_session<H: Harness>() {
    let broker = broker::<H>().await;
    let relay = Relay::to(broker.local_addrs()[0]);
    let options =
        client_options::<H>(relay.address, "away").configure(|config| config.session_expiry_secs = 3600);
    let away = options.connect().await.unwrap();
    let mut stream = away.subscribe("to/away", QoS::ExactlyOnce).await.unwrap();
    let home = client::<H>(&broker, "home").await;
    let mut others = home.subscribe("from/away", QoS::ExactlyOnce).await.unwrap();
    for round in 0..3 {
        relay.cut();
        lost::<H>(&away).await;
        let mut waiting = Vec::new();
        for n in 0..10 {
            let text = format!("{round} {n}");
            let message = Message::new("to/away", text.clone()).with_qos(QoS::ExactlyOnce);
            home.publish(message).await.unwrap();
            let message = Message::new("from/away", text).with_qos(QoS::ExactlyOnce);
            waiting.push(away.enqueue(message).await.unwrap());
        }
        relay.mend();
        assert!(connected::<H>(&away).await.session_present);
        for completion in waiting {
            completion.await.unwrap();
        }
        for n in 0..10 {
            assert_eq!(next(&mut stream).await, format!("{round} {n}"));
            assert_eq!(next(&mut others).await, format!("{round} {n}"));
        }
    }
    assert!(stream.try_recv().is_none() && others.try_recv().is_none(), "nothing comes twice");
    broker.shutdown().await.unwrap();
}

/// The broker notices a client that fell silent, and publishes its will.
pub async fn keep_alive_of_the_broker<H: Harness>() {
    let broker = broker::<H>().await;
    let watcher = client::<H>(&broker, "watcher").await;
    let mut wills = watcher.subscribe("will", QoS::AtLeastOnce).await.unwrap();
    let server = broker.local_addrs()[0];
    let silent = Tcp::new(server.ip().to_string(), server.port());
    let mut silent = <H::Runtime as Connect<Tcp>>::connect(&silent).await.unwrap();
    let connect = PacketRef::Connect(ConnectRef {
        version: Version::V311,
        client_id: "silent",
        clean_start: true,
        keep_alive: 1,
        will: Some(WillRef { topic: "will", payload: b"gone", ..WillRef::default() }),
        ..ConnectRef::default()
    });
    let mut bytes = Vec::new();
    connect.encode(Version::V311, &mut bytes).unwrap();
    silent.write_all(&bytes).await.unwrap();
    assert_eq!(next(&mut wills).await, "gone");
    let mut all = Vec::new();
    silent.read_to_end(&mut all).await.unwrap();
    assert_eq!(all, [0x20, 2, 0, 0], "CONNACK, and the end");
    broker.shutdown().await.unwrap();
}

/// The client notices a server that fell silent, and connects again.
pub async fn keep_alive_of_the_client<H: Harness>() {
    let options = client_options::<H>(mute_server(), "c")
        .keep_alive(Duration::from_secs(1))
        .close_timeout(Duration::from_millis(10))
        .configure(|config| config.ping_timeout = Duration::from_millis(100));
    let client = options.connect().await.unwrap();
    assert_eq!(lost::<H>(&client).await, Cause::PingTimeout);
    connected::<H>(&client).await;
    client.disconnect().await.unwrap();
}

/// Who does not read holds up nobody but itself, and in the end gets everything in order.
pub async fn back_pressure<H: Harness>() {
    const COUNT: usize = 3_000;
    let filling = "x".repeat(4_000);
    let payload = |n: usize| format!("{n} {filling}");

    // The broker and a subscriber that does not take its messages: others go on.
    let broker = broker::<H>().await;
    let slow =
        client_options::<H>(broker.local_addrs()[0], "slow").configure(|config| config.receive_maximum = 10);
    let slow = slow.connect().await.unwrap();
    let mut held = slow.subscribe("t", QoS::AtLeastOnce).await.unwrap();
    let quick = client::<H>(&broker, "quick").await;
    let mut taken = quick.subscribe("t", QoS::AtLeastOnce).await.unwrap();
    for n in 0..200 {
        quick.publish(Message::new("t", payload(n)).with_qos(QoS::AtLeastOnce)).await.unwrap();
        assert_eq!(next(&mut taken).await, payload(n));
    }
    for n in 0..200 {
        assert_eq!(next(&mut held).await, payload(n));
    }
    broker.shutdown().await.unwrap();

    // The client and a server that does not read: publishing waits, and loses nothing.
    let (open, gate) = std::sync::mpsc::channel();
    let (address, server) = slow_server(gate);
    let options = client_options::<H>(address, "c").configure(|config| config.max_queued_messages = 10);
    let client = options.connect().await.unwrap();
    let publish = async {
        let mut completions = Vec::new();
        for n in 0..COUNT {
            completions.push(client.enqueue(Message::new("t", payload(n))).await.unwrap());
        }
        for completion in completions {
            completion.await.unwrap();
        }
    };
    let mut publish = pin!(publish);
    // 12 MB are more than the sockets between us hold.
    let full = async {
        loop {
            match client.try_publish(Message::new("probe", "")) {
                Err(error) => break assert!(error.is_full(), "{error}"),
                Ok(probe) => drop(probe),
            }
            assert!(poll_once(&mut publish).await.is_none(), "nobody reads");
            futures_lite::future::yield_now().await;
        }
    };
    full.await;
    open.send(()).unwrap();
    zip(publish, async {}).await;
    client.disconnect().await.unwrap();
    let mut payloads = server.join().unwrap();
    payloads.retain(|payload| !payload.is_empty());
    assert_eq!(payloads.len(), COUNT);
    for (n, got) in payloads.iter().enumerate() {
        assert_eq!(got, payload(n).as_bytes());
    }
}

/// A broker that is shut down takes leave of its clients, and ends; a client that disconnects does so.
pub async fn shutdown<H: Harness>() {
    let broker = broker::<H>().await;
    let mut events = broker.events();
    let staying = client::<H>(&broker, "staying").await;
    let mut stream = staying.subscribe("t", QoS::AtLeastOnce).await.unwrap();
    let leaving = client::<H>(&broker, "leaving").await;
    leaving.publish(Message::new("t", "last").with_qos(QoS::AtLeastOnce)).await.unwrap();
    leaving.disconnect().await.unwrap();
    leaving.publish(Message::new("t", "too late")).await.unwrap_err();
    let (ended, cause) = zip(broker.shutdown(), lost::<H>(&staying)).await;
    ended.unwrap();
    assert_eq!(cause, Cause::ByServer(ReasonCode::ServerShuttingDown));
    assert!(broker.stats().await.is_err());
    while events.recv().await.unwrap().is_some() {}
    // What the client has, it still gives out; then it ends.
    assert_eq!(next(&mut stream).await, "last");
    staying.disconnect().await.unwrap();
    assert!(stream.recv().await.is_none());
}

//! Native and foreign links.

use super::peer::{Peer, connect};
use super::{broker, broker_with};
use crate::rt;
use futures_lite::future::yield_now;
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use mqtt_proto::{ConnectRef, DisconnectRef, PacketRef, Version, WillRef};
use mqtt_testkit::adapters::duplex;
use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// [MQTT-4.2-1] [MQTT-7.1.1-1] of 3.1.1
#[rt::test]
async fn messages_go_through() {
    messages_do_go_through().await;
}

pub(crate) async fn messages_do_go_through() {
    let broker = broker().await;
    let mut sub = Peer::subscriber(&broker, "sub", "a/+").await;
    let mut five = Peer::connect(&broker, Version::V5, "five").await;
    five.publish("a/b", b"hi").await;
    assert_eq!(sub.recv().await, "PUBLISH a/b q0 \"hi\"");
    sub.publish("a/c", b"myself").await;
    assert_eq!(sub.recv().await, "PUBLISH a/c q0 \"myself\"");
    broker.shutdown().await.unwrap();
}

#[rt::test]
async fn a_packet_may_come_byte_by_byte() {
    let broker = broker().await;
    let mut peer = Peer::open(&broker, Version::V311).await;
    let mut bytes = Vec::new();
    connect(Version::V311, "slow").encode(Version::V311, &mut bytes).unwrap();
    for byte in bytes {
        peer.stream.write_all(&[byte]).await.unwrap();
        yield_now().await;
    }
    assert_eq!(peer.recv().await, "CONNACK 00");
}

#[rt::test]
async fn a_packet_may_be_larger_than_the_read_buffer() {
    let broker = broker_with(|config| config.read_buffer = 1000).await;
    let mut sub = Peer::subscriber(&broker, "sub", "#").await;
    let mut from = Peer::connect(&broker, Version::V311, "pub").await;
    let large = vec![b'x'; 1_000_000];
    from.publish("t", &large).await;
    let got = sub.recv().await;
    assert_eq!(got.len(), "PUBLISH t q0 \"\"".len() + large.len());
}

#[rt::test]
async fn a_reader_that_falls_behind_gets_everything_in_order() {
    const COUNT: usize = 6_000;
    let broker = broker().await;
    let mut sub = Peer::subscriber(&broker, "sub", "#").await;
    let mut from = Peer::connect(&broker, Version::V311, "pub").await;
    // More than the sockets between us hold.
    let filling = "x".repeat(2_000);
    for n in 0..COUNT {
        from.publish("t", format!("{n} {filling}").as_bytes()).await;
    }
    // The broker has taken everything when it answers.
    from.send(&PacketRef::Pingreq).await;
    assert_eq!(from.recv().await, "PINGRESP");
    for n in 0..COUNT {
        let got = sub.recv().await;
        assert!(got.starts_with(&format!("PUBLISH t q0 \"{n} x")), "{n}: {got}");
    }
}

#[rt::test]
async fn a_lost_connection_is_a_lost_connection_and_a_goodbye_a_goodbye() {
    let broker = broker().await;
    let mut sub = Peer::subscriber(&broker, "sub", "will/#").await;
    for (client_id, topic, says_goodbye) in [("polite", "will/polite", true), ("rude", "will/rude", false)] {
        let mut peer = Peer::open(&broker, Version::V311).await;
        let will = Some(WillRef { topic, payload: b"gone", ..WillRef::default() });
        let version = Version::V311;
        let hello = ConnectRef { version, client_id, clean_start: true, will, ..ConnectRef::default() };
        peer.send(&PacketRef::Connect(hello)).await;
        assert_eq!(peer.recv().await, "CONNACK 00");
        if says_goodbye {
            peer.send(&PacketRef::Disconnect(DisconnectRef::default())).await;
        }
    }
    assert_eq!(sub.recv().await, "PUBLISH will/rude q0 \"gone\"");
}

#[rt::test]
async fn an_end_right_behind_the_last_packet_is_seen() {
    let broker = broker().await;
    let mut sub = Peer::subscriber(&broker, "sub", "will/#").await;
    for n in 0..20 {
        let (client_id, topic) = (format!("c{n}"), format!("will/{n}"));
        let will = Some(WillRef { topic: &topic, payload: b"gone", ..WillRef::default() });
        let version = Version::V311;
        let client_id = &*client_id;
        let hello = ConnectRef { version, client_id, clean_start: true, will, ..ConnectRef::default() };
        let mut bytes = Vec::new();
        PacketRef::Connect(hello).encode(Version::V311, &mut bytes).unwrap();
        // One who does not wait for the broker, so that it nearly always finds both at once.
        let mut stream = std::net::TcpStream::connect(broker.local_addrs()[0]).unwrap();
        stream.write_all(&bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(sub.recv().await, format!("PUBLISH {topic} q0 \"gone\""));
    }
}

#[rt::test]
async fn the_broker_closes_after_a_goodbye() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker, Version::V5, "c").await;
    peer.send(&PacketRef::Disconnect(DisconnectRef::default())).await;
    assert_eq!(peer.recv().await, "EOF");
}

#[rt::test]
async fn a_farewell_survives_what_the_peer_still_sends() {
    let broker = broker().await;
    let peer = Peer::connect(&broker, Version::V5, "c").await;
    // A reserved packet type, and much behind it that nobody will read.
    let mut bytes = vec![0; 4_000_000];
    bytes[1] = 0;
    let (mut read, mut write) = futures_lite::io::split(peer.stream);
    let send = rt::spawn(async move {
        // The broker may have closed meanwhile.
        let _ = write.write_all(&bytes).await;
        write
    });
    let mut farewell = Vec::new();
    while farewell.len() < 3 {
        let mut chunk = [0; 16];
        let n = read.read(&mut chunk).await.unwrap();
        assert_ne!(n, 0, "closed before the farewell");
        farewell.extend_from_slice(&chunk[..n]);
    }
    assert_eq!(farewell[..3], [0xE0, 1, 0x81]);
    send.await;
}

#[rt::test]
async fn who_says_nothing_is_cut() {
    let broker = broker_with(|config| config.broker.connect_timeout = Duration::from_millis(50)).await;
    let mut peer = Peer::open(&broker, Version::V311).await;
    assert_eq!(peer.recv().await, "EOF");
    assert_eq!(broker.stats().await.unwrap().connections, 0);
}

#[rt::test]
async fn who_stays_silent_too_long_is_told() {
    let broker = broker().await;
    let mut peer = Peer::open(&broker, Version::V5).await;
    let hello = ConnectRef { client_id: "c", keep_alive: 1, clean_start: true, ..ConnectRef::default() };
    peer.send(&PacketRef::Connect(hello)).await;
    assert!(peer.recv().await.starts_with("CONNACK 00"));
    assert_eq!(peer.recv().await, "DISCONNECT 8D");
    assert_eq!(peer.recv().await, "EOF");
}

#[rt::test]
async fn one_too_many_is_turned_away() {
    // Each shard has a limit of its own.
    let broker = broker_with(|config| {
        config.broker.max_connections = 1;
        config.broker.shards = 1;
    })
    .await;
    let _one = Peer::connect(&broker, Version::V311, "one").await;
    let mut two = Peer::open(&broker, Version::V311).await;
    assert_eq!(two.recv().await, "EOF");
}

#[rt::test]
async fn any_stream_can_be_served() {
    let broker = broker().await;
    let mut sub = Peer::subscriber(&broker, "sub", "a").await;
    let (ours, theirs) = duplex(64);
    broker.serve_stream(rt::native(theirs), Default::default()).await.unwrap();
    let mut foreign = Peer::over(ours, Version::V311);
    foreign.introduce("foreign").await;
    foreign.subscribe("b").await;
    foreign.publish("a", b"from foreign").await;
    assert_eq!(sub.recv().await, "PUBLISH a q0 \"from foreign\"");
    sub.publish("b", b"to foreign").await;
    assert_eq!(foreign.recv().await, "PUBLISH b q0 \"to foreign\"");
    foreign.send(&PacketRef::Disconnect(DisconnectRef::default())).await;
    assert_eq!(foreign.recv().await, "EOF");
}

#[rt::test]
async fn a_slow_stream_gets_everything_in_order() {
    let broker = broker().await;
    let (ours, theirs) = duplex(1_000);
    broker.serve_stream(rt::native(theirs), Default::default()).await.unwrap();
    let mut sub = Peer::over(ours, Version::V311);
    sub.introduce("sub").await;
    sub.subscribe("#").await;
    let mut from = Peer::connect(&broker, Version::V311, "pub").await;
    for n in 0..2_000 {
        from.publish("t", format!("{n} {}", "x".repeat(100)).as_bytes()).await;
    }
    from.send(&PacketRef::Pingreq).await;
    assert_eq!(from.recv().await, "PINGRESP");
    for n in 0..2_000 {
        let got = sub.recv().await;
        assert!(got.starts_with(&format!("PUBLISH t q0 \"{n} x")), "{n}: {got}");
    }
}

#[rt::test]
async fn a_foreign_peer_is_taken_leave_of() {
    let broker = broker().await;
    let (ours, theirs) = duplex(64);
    broker.serve_stream(rt::native(theirs), Default::default()).await.unwrap();
    let mut old = Peer::over(ours, Version::V5);
    old.introduce("same").await;
    let _new = Peer::connect(&broker, Version::V311, "same").await;
    assert_eq!(old.recv().await, "DISCONNECT 8E");
    assert_eq!(old.recv().await, "EOF");
}

/// A stream whose code panics.
struct Bad;

impl futures_lite::AsyncRead for Bad {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut [u8]) -> Poll<io::Result<usize>> {
        panic!("a stream of the user's panics")
    }
}

impl futures_lite::AsyncWrite for Bad {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Pending
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[rt::test]
async fn a_stream_that_panics_ends_only_its_own_link() {
    let broker = broker().await;
    broker.serve_stream(rt::native(Bad), Default::default()).await.unwrap();
    while broker.stats().await.unwrap().connections > 0 {}
    let _works = Peer::connect(&broker, Version::V311, "c").await;
}

use crate::adapter::broker::BrokerHandle;
use crate::rt::Runtime;
use futures_lite::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use mqtt_io::client::Tcp;
use mqtt_io::runtime::Connect;
use mqtt_proto::{
    ConnectRef, MAX_PACKET_SIZE, PacketId, PacketRef, PublishRef, QoS, SubscribeFiltersBuf, SubscribeRef,
    Version,
};
use mqtt_testkit::adapters::within;
use mqtt_testkit::brief;
use std::io;
use std::net::SocketAddr;

pub(crate) type TcpStream = <Runtime as Connect<Tcp>>::Stream;

pub(crate) async fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    Runtime::connect(&Tcp::new(address.ip().to_string(), address.port())).await
}

/// A client that sends whatever it is told.
pub(crate) struct Peer<S> {
    pub(crate) stream: S,
    version: Version,
    inbox: Vec<u8>,
}

impl Peer<TcpStream> {
    pub(crate) async fn open(broker: &BrokerHandle, version: Version) -> Self {
        Self::over(dial(broker.local_addrs()[0]).await.unwrap(), version)
    }

    pub(crate) async fn connect(broker: &BrokerHandle, version: Version, client_id: &str) -> Self {
        let mut peer = Self::open(broker, version).await;
        peer.introduce(client_id).await;
        peer
    }

    pub(crate) async fn subscriber(broker: &BrokerHandle, client_id: &str, filter: &str) -> Self {
        let mut peer = Self::connect(broker, Version::V311, client_id).await;
        peer.subscribe(filter).await;
        peer
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    pub(crate) fn over(stream: S, version: Version) -> Self {
        Self { stream, version, inbox: Vec::new() }
    }

    pub(crate) async fn introduce(&mut self, client_id: &str) {
        self.send(&connect(self.version, client_id)).await;
        let connack = self.recv().await;
        assert!(connack.starts_with("CONNACK 00"), "{connack}");
    }

    pub(crate) async fn subscribe(&mut self, filter: &str) {
        let mut filters = SubscribeFiltersBuf::new();
        filters.push(filter, QoS::AtMostOnce.into()).unwrap();
        let filters = filters.as_filters();
        let subscribe = SubscribeRef { packet_id: PacketId::MIN, properties: Default::default(), filters };
        self.send(&PacketRef::Subscribe(subscribe)).await;
        assert_eq!(self.recv().await, "SUBACK #1 00");
    }

    pub(crate) async fn send(&mut self, packet: &PacketRef<'_>) {
        let mut bytes = Vec::new();
        packet.encode(self.version, &mut bytes).unwrap();
        // Who has been cut off will read so.
        let _ = self.stream.write_all(&bytes).await;
    }

    pub(crate) async fn publish(&mut self, topic: &str, payload: &[u8]) {
        self.send(&PacketRef::Publish(PublishRef { topic, payload, ..PublishRef::default() })).await;
    }

    /// The next packet in brief, or `EOF`.
    pub(crate) async fn recv(&mut self) -> String {
        within::<Runtime, _>(self.next()).await
    }

    /// The next packet in brief, or `None` if the connection has ended in whatever way.
    #[cfg(feature = "access")]
    pub(crate) async fn try_recv(&mut self) -> Option<String> {
        let mut byte = [0];
        match within::<Runtime, _>(self.stream.read(&mut byte)).await {
            Ok(1) => self.inbox.extend_from_slice(&byte),
            _ => return None,
        }
        Some(self.recv().await)
    }

    async fn next(&mut self) -> String {
        loop {
            if let Some((packet, len)) =
                PacketRef::decode_next(&self.inbox, self.version, MAX_PACKET_SIZE).unwrap()
            {
                let text = brief(&packet);
                self.inbox.drain(..len);
                return text;
            }
            let mut chunk = [0; 8192];
            match self.stream.read(&mut chunk).await.unwrap() {
                0 => {
                    assert!(self.inbox.is_empty(), "half a packet");
                    return "EOF".to_owned();
                }
                n => self.inbox.extend_from_slice(&chunk[..n]),
            }
        }
    }
}

pub(crate) fn connect(version: Version, client_id: &str) -> PacketRef<'_> {
    PacketRef::Connect(ConnectRef { version, client_id, clean_start: true, ..ConnectRef::default() })
}

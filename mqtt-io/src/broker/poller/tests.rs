//! What goes wrong between a shard and its poller, in a runtime that does what a test says.

use super::super::auth::{Authorizer, Decision, Office};
use super::super::bind::Listener;
use super::super::link::Socket;
use super::super::listen::Place;
use super::super::node::Post;
use super::super::sockets::{self, Inherited, ListeningSocket, MovingSocket};
use super::*;
use crate::runtime::{LocalTask, StreamSocket, Timer};
use crate::{Clock, Shard, Stack};
use futures_lite::future::{block_on, poll_once};
use mqtt_proto::{
    ConnectRef, PacketId, PacketRef, Properties, PublishRef, QoS, SubscribeFiltersBuf, SubscribeRef, Version,
};
use mqtt_session::ShardId;
use mqtt_session::broker::{Answer, Ask, BrokerConfig, Peer};
use std::cell::Cell;
use std::io::IoSlice;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicU32;
use std::time::Instant;
use tokio::sync::{broadcast, mpsc};

/// Does nothing by itself; says what `WATCH` and `READY` say.
#[derive(Clone)]
struct Fake;

thread_local! {
    static WATCH: Cell<Option<ErrorKind>> = const { Cell::new(None) };
    /// The system has something to say.
    static READY: Cell<bool> = const { Cell::new(false) };
}

#[derive(Default)]
struct Never;

impl Timer for Never {
    fn poll_until(&mut self, _: &mut Context<'_>, _: Instant) -> Poll<()> {
        Poll::Pending
    }
}

impl LocalTask for Never {
    fn detach(self) {}
}

impl StreamSocket for Never {
    fn poll_read(&self, _: &mut Context<'_>, _: &mut [u8]) -> Poll<io::Result<usize>> {
        Poll::Pending
    }

    fn try_write(&self, _: &[IoSlice<'_>]) -> io::Result<usize> {
        Err(ErrorKind::WouldBlock.into())
    }

    fn poll_writable(&self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }

    fn shutdown_write(&self) {}
}

impl Watch for Never {
    fn poll_readable(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match WATCH.get() {
            Some(kind) => Poll::Ready(Err(kind.into())),
            None if READY.take() => Poll::Ready(Ok(())),
            None => Poll::Pending,
        }
    }
}

impl LocalRuntime for Fake {
    type Timer = Never;
    type Task = Never;
    type Listener = Never;
    type Stream = Never;
    type Watch = Never;

    fn watch(_: OwnedFd) -> Option<io::Result<Never>> {
        Some(Ok(Never))
    }

    fn spawn_local(&self, _: impl Future<Output = ()> + 'static) -> Never {
        Never
    }

    async fn yield_now() {}

    fn listener(_: ListeningSocket) -> io::Result<Never> {
        Ok(Never)
    }

    fn port(_: &Never) -> u16 {
        0
    }

    async fn accept(_: &Never) -> io::Result<(Never, Option<SocketAddr>)> {
        std::future::pending().await
    }

    fn leave(_: Never) -> io::Result<MovingSocket> {
        Err(ErrorKind::Unsupported.into())
    }

    fn enter(_: MovingSocket) -> io::Result<Never> {
        Ok(Never)
    }
}

struct Setting {
    node: Rc<Node<Fake>>,
    poller: Rc<Poller>,
    pump: Pin<Box<dyn Future<Output = ()>>>,
}

impl Setting {
    fn new() -> Self {
        Self::with(BrokerConfig::default(), None)
    }

    fn with(config: BrokerConfig, office: Option<Office>) -> Self {
        WATCH.set(None);
        let clock = Clock::start();
        let shard = Shard::new(config, clock.now()).unwrap();
        let (poller, watch) = Poller::new::<Fake>().unwrap().unwrap();
        let poller = Rc::new(poller);
        let post = Post { own: ShardId(0), boxes: Vec::new().into() };
        let node = Node::new(shard, clock, Fake, 4_096, office, broadcast::channel(1).0, post);
        let node = Rc::new(node.polled_by(Some(Rc::clone(&poller))));
        let pump = Box::pin(Poller::run(Rc::clone(&node), Rc::clone(&poller), watch));
        Self { node, poller, pump }
    }

    fn pump(&mut self) {
        let _ = block_on(poll_once(&mut self.pump));
    }

    /// A connection of the shard, and its client's side. `prepare` is given its socket first.
    fn connect(&self, prepare: impl FnOnce(&Poller, ConnectionId, &mut Polled)) -> (ConnectionId, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        let mut stream = Polled::try_from(MovingSocket::Tcp(stream)).unwrap();
        let place = Place::take(&Arc::new(AtomicU32::new(0)), None).unwrap();
        let conn = self.node.turn(|shard, now| {
            shard.accept(now, Peer::default(), Stack::plain(), |conn| {
                prepare(&self.poller, conn, &mut stream);
                self.poller.watch(conn, &mut stream);
                Socket::Polled { stream, place }
            })
        });
        (conn.unwrap(), client)
    }

    /// A client that is connected, and subscribed if it wants something.
    fn client(&mut self, client_id: &str, filter: Option<(&str, QoS)>) -> TcpStream {
        let (_, client) = self.connect(|_, _, _| {});
        let mut bytes = Vec::new();
        let connect =
            ConnectRef { version: Version::V311, client_id, clean_start: true, ..Default::default() };
        PacketRef::Connect(connect).encode(Version::V311, &mut bytes).unwrap();
        if let Some((filter, qos)) = filter {
            let mut filters = SubscribeFiltersBuf::new();
            filters.push(filter, qos.into()).unwrap();
            let (packet_id, properties) = (PacketId::MIN, Properties::EMPTY);
            let subscribe = SubscribeRef { packet_id, properties, filters: filters.as_filters() };
            PacketRef::Subscribe(subscribe).encode(Version::V311, &mut bytes).unwrap();
        }
        io::Write::write_all(&mut &client, &bytes).unwrap();
        self.turn();
        client
    }

    /// One turn of the shard: all that can be read, then all that is to be written.
    fn turn(&mut self) {
        READY.set(true);
        self.pump();
        self.node.turn(|shard, now| shard.flush(now));
    }

    /// Lets each publisher send so many messages at once. Tells what was delivered in one turn, and how often sockets were
    /// read and written for it.
    fn calls(&mut self, publishers: &[(TcpStream, String)], qos: QoS, messages: u16) -> (u64, usize, usize) {
        for (client, topic) in publishers {
            let mut bytes = Vec::new();
            for n in 1..=messages {
                let packet_id = PacketId::new(n).filter(|_| qos > QoS::AtMostOnce);
                let publish = PublishRef { qos, topic, packet_id, payload: &[0; 64], ..Default::default() };
                PacketRef::Publish(publish).encode(Version::V311, &mut bytes).unwrap();
            }
            io::Write::write_all(&mut &*client, &bytes).unwrap();
        }
        let sent = |s: &Self| s.node.look(|shard| shard.stats().counters.publish_sent.iter().sum::<u64>());
        let before = sent(self);
        socket::CALLS.set((0, 0));
        self.turn();
        let (reads, writes) = socket::CALLS.get();
        (sent(self) - before, reads, writes)
    }

    fn connections(&self) -> usize {
        self.node.look(|shard| shard.stats().connections)
    }
}

/// A shard that hears of its sockets no more ends with an error, instead of keeping connections that nobody reads.
#[test]
fn a_shard_that_is_told_nothing_more_fails() {
    let mut s = Setting::new();
    let _client = s.connect(|_, _, _| {});
    s.pump();
    assert!(block_on(poll_once(s.node.ended())).is_none(), "all is well");
    WATCH.set(Some(ErrorKind::OutOfMemory));
    s.pump();
    let Some(Err(ServeError::Watch(why))) = block_on(poll_once(s.node.ended())) else { panic!("it goes on") };
    assert!(why.starts_with("the runtime: "), "{why}");
    assert!(s.node.turn(|_, _| ()).is_none(), "the machine is not touched again");
}

/// A connection that the system refuses to watch is closed, and the others stay.
#[test]
fn who_is_not_watched_is_closed() {
    let mut s = Setting::new();
    let (_, _stays) = s.connect(|_, _, _| {});
    // A second time is once too often.
    let (_, _goes) = s.connect(|poller, conn, stream| poller.watch(conn, stream));
    assert_eq!(s.connections(), 2);
    s.pump();
    assert_eq!(s.connections(), 1);
}

#[test]
fn what_is_accepted_writes_without_delay() {
    // One of ours, and one that somebody else opened.
    for settings in [Listener::from(SocketAddr::from(([127, 0, 0, 1], 0))), inherited()] {
        let open = sockets::open(&settings).unwrap();
        let address = open.socket.address().and_then(|address| address.tcp()).unwrap();
        let _client = TcpStream::connect(address).unwrap();
        let entrance = Entrance::<Fake>::new(open.socket).unwrap();
        let Ok((Polled::Tcp(stream), _)) = block_on(entrance.accept()) else { panic!("nobody came") };
        assert!(stream.nodelay().unwrap(), "{settings:?}");
    }
}

fn inherited() -> Listener {
    let socket = ListeningSocket::Tcp(TcpListener::bind("127.0.0.1:0").unwrap());
    Listener {
        inherited: Some(Inherited::new(socket)),
        ..Listener::from(SocketAddr::from(([127, 0, 0, 1], 0)))
    }
}

/// A link that is noted several times in a turn is read once in it, and to its end if anybody said so.
#[test]
fn a_link_that_is_noted_twice_is_read_once_and_to_its_end() {
    let mut s = Setting::new();
    let (conn, client) = s.connect(|_, _, _| {});
    s.pump();
    io::Write::write_all(&mut &client, &[0x10, 0x7F]).unwrap();
    drop(client);
    s.poller.more.borrow_mut().extend([(conn, false), (conn, true), (conn, false)]);
    s.pump();
    assert_eq!(s.connections(), 1, "its bytes were read, and not its end in the same turn");
    assert_eq!(*s.poller.more.borrow(), [(conn, true)]);
    s.pump();
    assert_eq!(s.connections(), 0, "its end was");
}

/// A turn reads each socket that has something once, and writes once for each that gets something, however many
/// messages that are.
#[test]
fn a_turn_costs_one_call_for_each_socket() {
    for (qos, own_writes) in [(QoS::AtMostOnce, 0), (QoS::AtLeastOnce, 1)] {
        let mut s = Setting::new();
        let subscribers: Vec<_> =
            (0..20).map(|n| s.client(&format!("s{n}"), Some((&format!("t/{n}"), qos)))).collect();
        let publishers: Vec<_> =
            (0..20).map(|n| (s.client(&format!("p{n}"), None), format!("t/{n}"))).collect();
        assert_eq!(s.calls(&publishers, qos, 50), (20 * 50, 20, 20 + 20 * own_writes), "pairs");
        drop(subscribers);

        let mut s = Setting::new();
        let _subscriber = s.client("s", Some(("t/+", qos)));
        let publishers: Vec<_> =
            (0..20).map(|n| (s.client(&format!("p{n}"), None), format!("t/{n}"))).collect();
        assert_eq!(s.calls(&publishers, qos, 25), (20 * 25, 20, 1 + 20 * own_writes), "fan-in");

        let mut s = Setting::new();
        let subscribers: Vec<_> = (0..100).map(|n| s.client(&format!("s{n}"), Some(("t", qos)))).collect();
        let publisher = [(s.client("p", None), "t".to_owned())];
        assert_eq!(s.calls(&publisher, qos, 50), (100 * 50, 1, 100 + own_writes), "fan-out");
        drop(subscribers);
    }
}

/// Lets everybody in without a look at anything.
struct AtOnce;

impl Authorizer for AtOnce {
    fn decide(self: Arc<Self>, _: Ask) -> Decision {
        Answer::Allow.into()
    }
}

#[test]
fn an_answer_at_once_costs_no_call() {
    let spawn = Box::new(|_| panic!("nothing runs elsewhere"));
    let answers = mpsc::unbounded_channel().0;
    let office = Office { authorizer: Arc::new(AtOnce), spawn, answers };
    let mut config = BrokerConfig::default();
    (config.ask.connect, config.ask.publish, config.ask.subscribe) = (true, true, true);
    let mut s = Setting::with(config, Some(office));
    socket::CALLS.set((0, 0));
    let _subscriber = s.client("s", Some(("t", QoS::AtMostOnce)));
    assert_eq!(socket::CALLS.get(), (1, 1), "CONNECT and SUBSCRIBE in a read, both answers in a write");
    let publisher = [(s.client("p", None), "t".to_owned())];
    assert_eq!(s.calls(&publisher, QoS::AtMostOnce, 40), (40, 1, 1));
    s.pump();
    assert_eq!(socket::CALLS.get(), (1, 1), "nobody was paused");
}

//! Native links: TCP and Unix sockets, read when they are readable and written without waiting.

use super::foreign::{self, BoxedStream, Pipe};
use super::listen::Place;
use super::node::Node;
use super::poller::Polled;
use super::sockets::MovingSocket;
use crate::runtime::{LocalRuntime, LocalTask, StreamSocket, until};
use crate::{Reading, Stack, Travelling, Wire};
use mqtt_session::broker::{Closed, ConnectionId, Peer};
use mqtt_session::{ShardId, ShardMessage};
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

/// How long a peer is seen off: until it has read the farewell and closed its side.
pub(super) const LINGER: Duration = Duration::from_secs(2);

/// What the shard holds of a connection.
pub(super) enum Socket<L: LocalRuntime> {
    Native {
        stream: Rc<L::Stream>,
        reader: L::Task,
        /// Waits until the socket takes bytes again.
        writer: Option<L::Task>,
        /// Counts the connection as long as the socket is open.
        place: Place,
    },
    /// The shard's poller watches it.
    Polled {
        stream: Polled,
        place: Place,
    },
    Foreign(Rc<Pipe>),
}

impl<L: LocalRuntime> Wire for Socket<L> {
    #[inline]
    fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Native { stream, .. } => stream.try_write(slices),
            Self::Polled { stream, .. } => stream.write(slices),
            Self::Foreign(pipe) => pipe.write(slices),
        }
    }
}

/// The socket of a connection that is in no shard.
pub(super) enum Accepted<L: LocalRuntime> {
    /// It is going to have a task.
    Task(L::Stream),
    /// A poller is going to watch it.
    Polled(Polled),
}

impl<L: LocalRuntime> Accepted<L> {
    fn enter(node: &Node<L>, socket: MovingSocket) -> io::Result<Self> {
        match node.poller() {
            Some(_) => Polled::try_from(socket).map(Self::Polled),
            None => L::enter(socket).map(Self::Task),
        }
    }

    fn leave(self) -> io::Result<MovingSocket> {
        match self {
            Self::Task(stream) => L::leave(stream),
            Self::Polled(stream) => Ok(stream.into()),
        }
    }
}

/// Takes a connection into the shard.
pub(super) fn open<L: LocalRuntime>(
    node: &Rc<Node<L>>,
    stream: Accepted<L>,
    peer: Peer,
    stack: Stack,
    place: Place,
) {
    node.turn(|shard, now| shard.accept(now, peer, stack, |conn| start(node, stream, place, conn)));
}

/// Takes a connection into the shard whose turn it is.
pub(super) fn open_somewhere<L: LocalRuntime>(
    node: &Rc<Node<L>>,
    stream: Accepted<L>,
    peer: Peer,
    stack: Stack,
    place: Place,
) {
    let Some(to) = node.next_shard() else { return open(node, stream, peer, stack, place) };
    match stream.leave() {
        Ok(socket) => node.carry(to, Carried::Accepted { socket, peer: Box::new(peer), stack, place }),
        Err(e) => tracing::error!("A connection was lost between two shards: {e}."),
    }
}

fn start<L: LocalRuntime>(
    node: &Rc<Node<L>>,
    stream: Accepted<L>,
    place: Place,
    conn: ConnectionId,
) -> Socket<L> {
    let stream = match stream {
        Accepted::Task(stream) => Rc::new(stream),
        Accepted::Polled(mut stream) => {
            if let Some(poller) = node.poller() {
                poller.watch(conn, &mut stream);
            }
            return Socket::Polled { stream, place };
        }
    };
    let reader = Reader { stream: Rc::clone(&stream), node: Rc::clone(node), conn, paused: false };
    Socket::Native { reader: node.spawn(reader), writer: None, stream, place }
}

/// What one shard's thread gives to another's.
pub(super) enum Carried {
    /// What its machine says.
    Letters(ShardId, Vec<ShardMessage>),
    /// A connection that was accepted.
    Accepted { socket: MovingSocket, peer: Box<Peer>, stack: Stack, place: Place },
    /// A connection whose session lives there.
    Link { link: Box<Travelling>, vehicle: Vehicle },
}

/// The socket of a connection that moves.
pub(super) enum Vehicle {
    Native(MovingSocket, Place),
    Foreign(BoxedStream),
}

/// Sends a link, which is out of the shard, to the shard where it belongs.
pub(super) fn depart<L: LocalRuntime>(
    node: &Rc<Node<L>>,
    to: ShardId,
    link: Box<Travelling>,
    socket: Socket<L>,
) {
    let departing = Rc::clone(node);
    match socket {
        Socket::Foreign(pipe) => pipe.leave(move |stream| {
            departing.carry(to, Carried::Link { link, vehicle: Vehicle::Foreign(stream) });
        }),
        Socket::Polled { stream, place } => {
            let vehicle = Vehicle::Native(release(node, stream), place);
            departing.carry(to, Carried::Link { link, vehicle });
        }
        Socket::Native { stream, reader, writer, place } => {
            drop((reader, writer));
            node.spawn(async move {
                let mut stream = stream;
                loop {
                    // The reader, which is perhaps the one who caused this, lets go of it when it is over.
                    match Rc::try_unwrap(stream) {
                        Ok(alone) => match L::leave(alone) {
                            Ok(socket) => {
                                let vehicle = Vehicle::Native(socket, place);
                                return departing.carry(to, Carried::Link { link, vehicle });
                            }
                            Err(e) => {
                                return tracing::error!("A connection was lost between two shards: {e}.");
                            }
                        },
                        Err(shared) => stream = shared,
                    }
                    L::yield_now().await;
                }
            })
            .detach();
        }
    }
}

/// Takes in what comes from another shard's thread.
pub(super) fn arrive<L: LocalRuntime>(node: &Rc<Node<L>>, carried: Carried) {
    let lost = |e: io::Error| tracing::error!("A connection was lost between two shards: {e}.");
    match carried {
        Carried::Letters(from, letters) => {
            node.turn(|shard, now| shard.letters(now, from, letters));
        }
        Carried::Accepted { socket, peer, stack, place } => match Accepted::enter(node, socket) {
            Ok(stream) => open(node, stream, *peer, stack, place),
            Err(e) => lost(e),
        },
        Carried::Link { link, vehicle: Vehicle::Foreign(stream) } => foreign::arrive(node, stream, *link),
        Carried::Link { link, vehicle: Vehicle::Native(socket, place) } => {
            match Accepted::enter(node, socket) {
                Ok(stream) => {
                    node.turn(|shard, now| shard.arrive(now, *link, |conn| start(node, stream, place, conn)));
                }
                Err(e) => lost(e),
            }
        }
    }
}

/// Takes a socket from the poller.
fn release<L: LocalRuntime>(node: &Node<L>, mut stream: Polled) -> MovingSocket {
    if let Some(poller) = node.poller()
        && let Err(e) = poller.forget(&mut stream)
    {
        // What it says of the socket from now on finds no connection.
        tracing::debug!("The system's poller does not let go of a socket: {e}.");
    }
    stream.into()
}

/// Reads one socket. This is all the task that a connection has where there is no poller.
struct Reader<L: LocalRuntime> {
    stream: Rc<L::Stream>,
    node: Rc<Node<L>>,
    conn: ConnectionId,
    paused: bool,
}

impl<L: LocalRuntime> Future for Reader<L> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { stream, node, conn, paused } = self.get_mut();
        let conn = *conn;
        if *paused && node.look(|shard| shard.reading(conn)) == Reading::Paused {
            return Poll::Pending;
        }
        *paused = false;
        let mut buffer = node.buffer.borrow_mut();
        loop {
            let why = match ready!(stream.poll_read(cx, &mut buffer)) {
                Ok(0) => Closed::Eof,
                Ok(n) => {
                    let full = n == buffer.len();
                    let bytes = &buffer[..n];
                    match node.turn(|shard, now| shard.read(now, conn, bytes, cx.waker())) {
                        Some(Reading::Paused) => {
                            *paused = true;
                            return Poll::Pending;
                        }
                        Some(Reading::Go) if full => {
                            // Others come first.
                            cx.waker().wake_by_ref();
                            return Poll::Pending;
                        }
                        Some(Reading::Go) => continue,
                        // Who sees the peer off reads on.
                        Some(Reading::Gone) | None => return Poll::Ready(()),
                    }
                }
                Err(_) => Closed::Error,
            };
            node.turn(|shard, now| shard.closed(now, conn, why));
            return Poll::Ready(());
        }
    }
}

/// Closes a socket whose connection is gone.
pub(super) fn close<L: LocalRuntime>(node: &Rc<Node<L>>, socket: Socket<L>, linger: bool) {
    match socket {
        Socket::Foreign(pipe) => pipe.close(linger),
        Socket::Native { stream, reader, writer, place } => {
            // With the tasks go their shares of the socket.
            drop((reader, writer));
            if linger {
                linger_on(node, stream, place);
            }
        }
        Socket::Polled { stream, place } => {
            if linger {
                match L::enter(release(node, stream)) {
                    Ok(stream) => linger_on(node, Rc::new(stream), place),
                    Err(e) => tracing::debug!("A connection was closed at once: {e}."),
                }
            }
        }
    }
}

fn linger_on<L: LocalRuntime>(node: &Rc<Node<L>>, stream: Rc<L::Stream>, place: Place) {
    stream.shutdown_write();
    node.linger();
    node.spawn(see_off(Rc::clone(node), stream, place)).detach();
}

/// Throws away what comes until the peer's end, for a limited time.
async fn see_off<L: LocalRuntime>(node: Rc<Node<L>>, stream: Rc<L::Stream>, place: Place) {
    let end = poll_fn(|cx| match ready!(stream.poll_read(cx, &mut node.buffer.borrow_mut())) {
        Ok(0) | Err(_) => Poll::Ready(()),
        Ok(_) => {
            // Others come first.
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    });
    // A peer that does not close its side is cut.
    let _ = until::<L::Timer, _>(Instant::now() + LINGER, end).await;
    drop((stream, place));
    node.lingered();
}

/// Has the link written when its socket takes bytes again.
pub(super) fn await_writable<L: LocalRuntime>(node: &Rc<Node<L>>, conn: ConnectionId) {
    node.look(|shard| match shard.wire(conn) {
        None => {}
        Some(Socket::Foreign(pipe)) => pipe.await_room(),
        // The poller tells without being asked.
        Some(Socket::Polled { .. }) => {}
        Some(Socket::Native { stream, writer, .. }) => {
            let (stream, waiting) = (Rc::clone(stream), Rc::clone(node));
            *writer = Some(node.spawn(async move {
                poll_fn(|cx| stream.poll_writable(cx)).await;
                waiting.turn(|shard, now| shard.writable(now, conn));
            }));
        }
    });
}

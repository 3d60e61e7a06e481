//! Native links: TCP and Unix sockets, read when they are readable and written without waiting.

use super::foreign::Pipe;
use super::listen::Place;
use super::node::Node;
use crate::runtime::{LocalRuntime, LocalTask, StreamSocket, until};
use crate::{Reading, Stack, Wire};
use mqtt_session::broker::{Closed, ConnectionId, Peer};
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
    Foreign(Rc<Pipe>),
}

impl<L: LocalRuntime> Wire for Socket<L> {
    #[inline]
    fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Native { stream, .. } => stream.try_write(slices),
            Self::Foreign(pipe) => pipe.write(slices),
        }
    }
}

/// Takes a connection into the shard.
pub(super) fn open<L: LocalRuntime>(
    node: &Rc<Node<L>>,
    stream: L::Stream,
    peer: Peer,
    stack: Stack,
    place: Place,
) {
    let stream = Rc::new(stream);
    node.turn(|shard, now| {
        shard.accept(now, peer, stack, |conn| {
            let reader = Reader { stream: Rc::clone(&stream), node: Rc::clone(node), conn, paused: false };
            Socket::Native { reader: node.spawn(reader), writer: None, stream, place }
        })
    });
}

/// Reads one socket. This is all the task that a connection has.
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
                stream.shutdown_write();
                node.linger();
                node.spawn(see_off(Rc::clone(node), stream, place)).detach();
            }
        }
    }
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
        Some(Socket::Native { stream, writer, .. }) => {
            let (stream, waiting) = (Rc::clone(stream), Rc::clone(node));
            *writer = Some(node.spawn(async move {
                poll_fn(|cx| stream.poll_writable(cx)).await;
                waiting.turn(|shard, now| shard.writable(now, conn));
            }));
        }
    });
}

//! Native links: TCP sockets, read when they are readable and written without waiting.

use super::foreign::Pipe;
use super::listen::Place;
use super::node::Node;
use mqtt_io::{Reading, Stack, Wire};
use mqtt_session::broker::{Closed, ConnectionId, Peer};
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::timeout;

/// How long a peer is seen off: until it has read the farewell and closed its side.
pub(super) const LINGER: Duration = Duration::from_secs(2);

/// What the shard holds of a connection.
pub(super) enum Socket {
    Tcp { half: OwnedWriteHalf, reader: JoinHandle<()> },
    Foreign(Rc<Pipe>),
}

impl Wire for Socket {
    #[inline]
    fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match (self, slices) {
            (Self::Tcp { half, .. }, [one]) => half.try_write(one),
            (Self::Tcp { half, .. }, _) => half.try_write_vectored(slices),
            (Self::Foreign(pipe), _) => pipe.write(slices),
        }
    }
}

/// Takes a connection into the shard.
pub(super) fn open(node: &Rc<Node>, stream: TcpStream, peer: Peer, place: Place) {
    let (read, half) = stream.into_split();
    node.turn(|shard, now| {
        shard.accept(now, peer, Stack::plain(), |conn| {
            let reader = Reader { half: read, node: Rc::clone(node), conn, paused: false, _place: place };
            Socket::Tcp { half, reader: spawn_local(reader) }
        })
    });
}

/// Reads one socket. This is all the task that a connection has.
struct Reader {
    half: OwnedReadHalf,
    node: Rc<Node>,
    conn: ConnectionId,
    paused: bool,
    /// Counts the connection as long as the socket is open.
    _place: Place,
}

impl Future for Reader {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { half, node, conn, paused, .. } = self.get_mut();
        let conn = *conn;
        if *paused && node.look(|shard| shard.reading(conn)) == Reading::Paused {
            return Poll::Pending;
        }
        *paused = false;
        let mut buffer = node.buffer.borrow_mut();
        loop {
            let mut into = ReadBuf::new(&mut buffer);
            let why = match ready!(Pin::new(&mut *half).poll_read(cx, &mut into)) {
                Ok(()) if into.filled().is_empty() => Closed::Eof,
                Ok(()) => {
                    let full = into.remaining() == 0;
                    let bytes = into.filled();
                    match node.turn(|shard, now| shard.read(now, conn, bytes, cx.waker())) {
                        Some(Reading::Paused) => {
                            *paused = true;
                            return Poll::Pending;
                        }
                        // When the connection is gone, what comes is thrown away until the end.
                        Some(Reading::Go | Reading::Gone) if full => {
                            // Others come first.
                            cx.waker().wake_by_ref();
                            return Poll::Pending;
                        }
                        Some(Reading::Go | Reading::Gone) => continue,
                        None => return Poll::Ready(()),
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
pub(super) fn close(node: &Rc<Node>, socket: Socket, linger: bool) {
    match socket {
        Socket::Foreign(pipe) => pipe.close(linger),
        Socket::Tcp { half, reader } if !linger => {
            // The reading half goes with its task, and the socket with it.
            reader.abort();
            half.forget();
        }
        Socket::Tcp { half, mut reader } => {
            // Ends the writing side.
            drop(half);
            node.linger();
            let node = Rc::clone(node);
            spawn_local(async move {
                if timeout(LINGER, &mut reader).await.is_err() {
                    reader.abort();
                }
                node.lingered();
            });
        }
    }
}

/// Has the link written when its socket takes bytes again.
pub(super) fn await_writable(node: &Rc<Node>, conn: ConnectionId) {
    let node = Rc::clone(node);
    if node.look(|shard| match shard.wire(conn) {
        Some(Socket::Foreign(pipe)) => {
            pipe.await_room();
            true
        }
        other => other.is_none(),
    }) {
        return;
    }
    spawn_local(async move {
        poll_fn(|cx| {
            node.look(|shard| match shard.wire(conn) {
                Some(Socket::Tcp { half, .. }) => half.as_ref().poll_write_ready(cx).map(|_| ()),
                _ => Poll::Ready(()),
            })
        })
        .await;
        node.turn(|shard, now| shard.writable(now, conn));
    });
}

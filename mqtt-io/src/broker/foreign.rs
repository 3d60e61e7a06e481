//! Foreign links: any stream of the program's own. Its task owns it and is the only one to poll it;
//! between task and shard is a short pipe.

use super::link::{LINGER, Socket};
use super::node::Node;
use crate::runtime::{LocalRuntime, LocalTask, until};
use crate::{Reading, Stack, Travelling};
use futures_io::{AsyncRead, AsyncWrite};
use mqtt_session::broker::{Closed, ConnectionId, Peer};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, ErrorKind, IoSlice};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

/// Bytes that wait in a pipe at most: what is in it can no longer expire.
const PIPE_BYTES: usize = 16 << 10;
/// Bytes read at once.
const READ_BYTES: usize = 8 << 10;

/// A stream in both directions.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send {}

impl<S: AsyncRead + AsyncWrite + Send> Duplex for S {}

pub(super) type BoxedStream = Pin<Box<dyn Duplex>>;

/// What the shard has written and the stream has not taken.
#[derive(Default)]
pub(super) struct Pipe {
    bytes: RefCell<VecDeque<u8>>,
    /// The shard waits for room.
    wanted: Cell<bool>,
    /// The connection is gone; whether to see the peer off.
    closed: Cell<Option<bool>>,
    task: RefCell<Option<Waker>>,
    /// Who gets the stream, once it has to leave this thread.
    heir: RefCell<Option<Heir>>,
}

type Heir = Box<dyn FnOnce(BoxedStream)>;

impl Pipe {
    pub(super) fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut bytes = self.bytes.borrow_mut();
        let before = bytes.len();
        for slice in slices {
            let room = PIPE_BYTES.saturating_sub(bytes.len());
            bytes.extend(&slice[..room.min(slice.len())]);
        }
        match bytes.len() - before {
            0 => Err(ErrorKind::WouldBlock.into()),
            taken => {
                self.wake();
                Ok(taken)
            }
        }
    }

    pub(super) fn await_room(&self) {
        self.wanted.set(true);
        self.wake();
    }

    pub(super) fn close(&self, linger: bool) {
        self.closed.set(Some(linger));
        self.wake();
    }

    /// Has the task end and give its stream to `heir`.
    pub(super) fn leave(&self, heir: impl FnOnce(BoxedStream) + 'static) {
        *self.heir.borrow_mut() = Some(Box::new(heir));
        self.wake();
    }

    fn wake(&self) {
        if let Some(task) = &*self.task.borrow() {
            task.wake_by_ref();
        }
    }
}

/// Takes a stream into the shard.
pub(super) fn open<L: LocalRuntime>(node: &Rc<Node<L>>, stream: BoxedStream, stack: Stack, peer: Peer) {
    node.turn(|shard, now| shard.accept(now, peer, stack, |conn| start(node, stream, conn)));
}

/// Takes one in that another shard accepted.
pub(super) fn arrive<L: LocalRuntime>(node: &Rc<Node<L>>, stream: BoxedStream, link: Travelling) {
    node.turn(|shard, now| shard.arrive(now, link, |conn| start(node, stream, conn)));
}

fn start<L: LocalRuntime>(node: &Rc<Node<L>>, stream: BoxedStream, conn: ConnectionId) -> Socket<L> {
    let pipe = Rc::new(Pipe::default());
    let link = Link {
        stream,
        buffer: vec![0; READ_BYTES].into(),
        unsent: Unsent::default(),
        pipe: Rc::clone(&pipe),
        node: Rc::clone(node),
        conn,
        paused: false,
    };
    node.spawn(link.run()).detach();
    Socket::Foreign(pipe)
}

/// What stands in the place of a stream that has left.
struct Left;

impl AsyncRead for Left {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut [u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(0))
    }
}

impl AsyncWrite for Left {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(0))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A panic in the stream's code ends its link, and goes no further: `None`.
fn caught<T>(poll: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(poll)).ok()
}

/// The task of a foreign link.
struct Link<L: LocalRuntime> {
    stream: BoxedStream,
    buffer: Box<[u8]>,
    unsent: Unsent,
    pipe: Rc<Pipe>,
    node: Rc<Node<L>>,
    conn: ConnectionId,
    paused: bool,
}

/// Bytes taken out of the pipe, so that the stream's own code runs while nothing is borrowed.
#[derive(Default)]
struct Unsent {
    bytes: VecDeque<u8>,
    flushed: bool,
}

impl<L: LocalRuntime> Drop for Link<L> {
    /// However the task ended, by a panic in the stream's code for one, the machine hears of it.
    fn drop(&mut self) {
        self.closed(Closed::Error);
    }
}

impl<L: LocalRuntime> Link<L> {
    fn closed(&self, why: Closed) {
        self.node.turn(|shard, now| shard.closed(now, self.conn, why));
    }

    async fn run(mut self) {
        let why = poll_fn(|cx| caught(|| self.poll(cx)).unwrap_or(Poll::Ready(Closed::Error))).await;
        let heir = self.pipe.heir.take();
        if let Some(heir) = heir {
            return heir(std::mem::replace(&mut self.stream, Box::pin(Left)));
        }
        self.closed(why);
        if self.pipe.closed.get() == Some(true) {
            self.node.linger();
            // A peer that does not close its side is cut.
            let farewell = poll_fn(|cx| caught(|| self.poll_farewell(cx)).unwrap_or(Poll::Ready(Ok(()))));
            let _ = until::<L::Timer, _>(Instant::now() + LINGER, farewell).await;
            self.node.lingered();
        }
    }

    /// Moves bytes both ways until the connection is gone or the stream ends.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Closed> {
        if !self.pipe.task.borrow().as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            *self.pipe.task.borrow_mut() = Some(cx.waker().clone());
        }
        if self.pipe.heir.borrow().is_some() {
            return Poll::Ready(Closed::Hangup);
        }
        if let Poll::Ready(Err(_)) = self.poll_write(cx) {
            return Poll::Ready(Closed::Error);
        }
        if self.pipe.closed.get().is_some() {
            return Poll::Ready(Closed::Hangup);
        }
        if self.paused && self.node.look(|shard| shard.reading(self.conn)) == Reading::Paused {
            return Poll::Pending;
        }
        self.paused = false;
        let read = match ready!(self.stream.as_mut().poll_read(cx, &mut self.buffer)) {
            Err(_) => return Poll::Ready(Closed::Error),
            Ok(0) => return Poll::Ready(Closed::Eof),
            Ok(n) => n,
        };
        // A stream of the program's own may claim what it likes.
        let (conn, bytes) = (self.conn, self.buffer.get(..read).unwrap_or_default());
        match self.node.turn(|shard, now| shard.read(now, conn, bytes, cx.waker())) {
            Some(Reading::Paused) => self.paused = true,
            Some(Reading::Go) => cx.waker().wake_by_ref(),
            Some(Reading::Gone) | None => return Poll::Ready(Closed::Hangup),
        }
        Poll::Pending
    }

    /// Ready when everything that the shard has written was taken.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.unsent.bytes.is_empty() {
                std::mem::swap(&mut self.unsent.bytes, &mut self.pipe.bytes.borrow_mut());
                if self.pipe.wanted.take() {
                    self.node.turn(|shard, now| shard.writable(now, self.conn));
                }
            }
            let (bytes, _) = self.unsent.bytes.as_slices();
            if bytes.is_empty() {
                if !self.unsent.flushed {
                    ready!(self.stream.as_mut().poll_flush(cx))?;
                    self.unsent.flushed = true;
                }
                return Poll::Ready(Ok(()));
            }
            self.unsent.flushed = false;
            match ready!(self.stream.as_mut().poll_write(cx, bytes))? {
                0 => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                n => drop(self.unsent.bytes.drain(..n.min(bytes.len()))),
            }
        }
    }

    /// Writes the rest, ends the writing side, and throws away what comes until the peer's end.
    fn poll_farewell(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write(cx))?;
        ready!(self.stream.as_mut().poll_close(cx))?;
        loop {
            if ready!(self.stream.as_mut().poll_read(cx, &mut self.buffer))? == 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

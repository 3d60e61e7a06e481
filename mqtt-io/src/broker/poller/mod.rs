//! All native connections of a shard in one task, over one poller that the runtime watches like a socket.
//!
//! A task and a registration with the runtime for each connection cost about a kilobyte that an idle one does not
//! need. Here a connection is a descriptor in the shard's table, known to the system's poller by its number. A
//! runtime that cannot watch a descriptor gives each connection a task, and so do systems whose pollers do not nest.

mod socket;
#[cfg(test)]
mod tests;

pub(super) use socket::{Entrance, Polled};

use super::handle::ServeError;
use super::link::Socket;
use super::node::Node;
use crate::Reading;
use crate::runtime::{LocalRuntime, Watch};
use mio::{Events, Interest, Poll as System, Token};
use mqtt_session::broker::{Closed, ConnectionId};
use std::cell::RefCell;
use std::future::Future;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

/// Events taken from the system in one turn.
const EVENTS: usize = 1024;

/// The system's poller of a shard, and who has to be read although it says nothing.
pub(super) struct Poller {
    system: RefCell<System>,
    /// Links that may have more to read, and whether to the end.
    more: RefCell<Vec<(ConnectionId, bool)>>,
    /// Links that the system refused to watch.
    refused: RefCell<Vec<ConnectionId>>,
    resumed: Arc<Resumed>,
}

/// Paused links that may be read again, from any thread.
#[derive(Default)]
struct Resumed {
    conns: Mutex<Vec<ConnectionId>>,
    /// Wakes the task.
    task: Mutex<Option<Waker>>,
}

/// Wakes one paused link.
struct Resume {
    conn: ConnectionId,
    all: Arc<Resumed>,
}

impl Wake for Resume {
    fn wake(self: Arc<Self>) {
        self.all.conns.lock().unwrap_or_else(PoisonError::into_inner).push(self.conn);
        if let Some(task) = &*self.all.task.lock().unwrap_or_else(PoisonError::into_inner) {
            task.wake_by_ref();
        }
    }
}

const fn token(conn: ConnectionId) -> Option<Token> {
    // A token has as many bits as an address.
    if usize::BITS < u64::BITS { None } else { Some(Token(conn.to_bits() as usize)) }
}

impl Poller {
    /// A poller and what watches it, if the runtime can do that.
    ///
    /// # Errors
    /// If the system gives none.
    pub(super) fn new<L: LocalRuntime>() -> io::Result<Option<(Self, L::Watch)>> {
        if token(ConnectionId::from_bits(0)).is_none() {
            return Ok(None);
        }
        let system = System::new()?;
        let descriptor = system.registry().as_fd().try_clone_to_owned()?;
        let Some(watch) = L::watch(descriptor) else { return Ok(None) };
        let poller = Self {
            system: RefCell::new(system),
            more: RefCell::default(),
            refused: RefCell::default(),
            resumed: Arc::default(),
        };
        Ok(Some((poller, watch?)))
    }

    /// Reads and writes all links that it watches, for ever.
    pub(super) async fn run<L: LocalRuntime>(node: Rc<Node<L>>, poller: Rc<Self>, watch: L::Watch) {
        let has_more = true;
        Pump { node, poller, watch, events: Events::with_capacity(EVENTS), has_more }.await;
    }

    /// Watches a socket from now on. If the system refuses, the link is closed soon.
    pub(super) fn watch(&self, conn: ConnectionId, socket: &mut Polled) {
        let Some(token) = token(conn) else { return };
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(e) = self.system.borrow().registry().register(socket, token, interest) {
            tracing::error!("Connection closed: the system refuses to watch it: {e}.");
            self.refused.borrow_mut().push(conn);
            self.wake();
        }
    }

    /// Watches it no more.
    pub(super) fn forget(&self, socket: &mut Polled) -> io::Result<()> {
        self.system.borrow().registry().deregister(socket)
    }

    fn wake(&self) {
        if let Some(task) = &*self.resumed.task.lock().unwrap_or_else(PoisonError::into_inner) {
            task.wake_by_ref();
        }
    }

    fn waker(&self, conn: ConnectionId) -> Waker {
        Arc::new(Resume { conn, all: Arc::clone(&self.resumed) }).into()
    }

    fn take_resumed(&self) -> Vec<ConnectionId> {
        std::mem::take(&mut *self.resumed.conns.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads a link once. With `to_the_end` it is read again, after others, until the socket has nothing more: the
    /// system may have told of its end already, and does not tell twice.
    fn read<L: LocalRuntime>(&self, node: &Rc<Node<L>>, conn: ConnectionId, to_the_end: bool) {
        let mut buffer = node.buffer.borrow_mut();
        let got = loop {
            let got = node.look(|shard| match (shard.reading(conn), shard.wire(conn)?) {
                (Reading::Go, Socket::Polled { stream, .. }) => Some(stream.read(&mut buffer)),
                _ => None,
            });
            match got {
                Some(Err(e)) if e.kind() == ErrorKind::Interrupted => {}
                got => break got,
            }
        };
        let why = match got {
            None => return,
            Some(Ok(0)) => Closed::Eof,
            Some(Ok(n)) => {
                let mut read = node.turn(|shard, now| shard.read(now, conn, &buffer[..n], Waker::noop()));
                if read == Some(Reading::Paused) {
                    // What it waited for may have come within the turn.
                    let reading = node.look(|shard| {
                        let reading = shard.reading(conn);
                        if reading == Reading::Paused {
                            shard.resume_by(conn, self.waker(conn));
                        }
                        reading
                    });
                    read = Some(reading);
                }
                if read == Some(Reading::Go) && (to_the_end || n == buffer.len()) {
                    self.more.borrow_mut().push((conn, to_the_end));
                }
                return;
            }
            Some(Err(e)) if e.kind() == ErrorKind::WouldBlock => return,
            Some(Err(_)) => Closed::Error,
        };
        node.turn(|shard, now| shard.closed(now, conn, why));
    }
}

/// Reads and writes whatever the system says is ready: the task of all connections.
struct Pump<L: LocalRuntime> {
    node: Rc<Node<L>>,
    poller: Rc<Poller>,
    watch: L::Watch,
    events: Events,
    /// The system may have had more events than were taken.
    has_more: bool,
}

impl<L: LocalRuntime> Pump<L> {
    /// What the system has to say.
    fn events(&mut self) {
        let polled = self.poller.system.borrow_mut().poll(&mut self.events, Some(Duration::ZERO));
        if let Err(e) = polled {
            self.has_more = e.kind() == ErrorKind::Interrupted;
            if !self.has_more {
                self.node.fail(ServeError::Watch(format!("the system: {e}")));
            }
            return;
        }
        let mut count = 0;
        for event in &self.events {
            count += 1;
            // As wide as it was.
            let conn = ConnectionId::from_bits(event.token().0 as u64);
            if event.is_writable() && self.node.look(|shard| shard.is_blocked(conn)) {
                self.node.turn(|shard, now| shard.writable(now, conn));
            }
            let ends = event.is_read_closed() || event.is_error();
            if event.is_readable() || ends {
                self.poller.read(&self.node, conn, ends);
            }
        }
        self.has_more = count == EVENTS;
    }
}

impl<L: LocalRuntime> Future for Pump<L> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        {
            let mut task = this.poller.resumed.task.lock().unwrap_or_else(PoisonError::into_inner);
            if !task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
                *task = Some(cx.waker().clone());
            }
        }
        // It is waited for again before anything is taken, so nothing is missed.
        loop {
            match this.watch.poll_readable(cx) {
                Poll::Ready(Ok(())) => this.has_more = true,
                Poll::Ready(Err(e)) => {
                    this.node.fail(ServeError::Watch(format!("the runtime: {e}")));
                    return Poll::Ready(());
                }
                Poll::Pending => break,
            }
        }
        for conn in this.poller.refused.take() {
            this.node.turn(|shard, now| shard.closed(now, conn, Closed::Error));
        }
        let mut more = this.poller.more.take();
        // Once each, and to the end if anybody said so.
        more.sort_unstable_by(|a, b| b.cmp(a));
        more.dedup_by_key(|(conn, _)| *conn);
        for (conn, to_the_end) in more {
            this.poller.read(&this.node, conn, to_the_end);
        }
        // What the system said of them meanwhile is forgotten.
        for conn in this.poller.take_resumed() {
            this.poller.read(&this.node, conn, true);
        }
        if this.has_more {
            this.events();
        }
        if this.has_more || !this.poller.more.borrow().is_empty() {
            // Others come first.
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

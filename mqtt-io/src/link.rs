use crate::Stack;
use mqtt_session::broker::{ConnectionId, Peer};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::task::Waker;

/// A socket, as far as a shard has to do with it: the writing half.
pub trait Wire {
    /// Writes what the socket takes now, without waiting.
    ///
    /// # Errors
    /// `WouldBlock` if it takes nothing now; then [`Effect::AwaitWritable`](crate::Effect) asks for
    /// a call of [`Shard::writable`](crate::Shard::writable). Any other error: nothing is written
    /// any more, and the reading side is expected to notice the end, which comes after the bytes
    /// that the peer sent before it.
    fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize>;
}

/// One connection.
pub(crate) struct Link<W> {
    pub(crate) conn: ConnectionId,
    pub(crate) wire: W,
    pub(crate) stack: Stack,
    pub(crate) address: Option<SocketAddr>,
    /// Who the peer is, until its layers are open.
    pub(crate) peer: Option<Box<Peer>>,
    pub(crate) state: State,
    /// Who reads the socket, while it must not.
    pub(crate) paused: Option<Waker>,
}

/// How far writing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// The socket takes bytes.
    Open,
    /// The socket took less than it was given: it is waited for.
    Blocked,
    /// The machine hung up; what the outbox holds is still to be written.
    Closing,
    /// As `Closing`, and the socket is waited for.
    ClosingBlocked,
    /// Writing failed: the reading side will come upon the end.
    Broken,
}

/// Places of a table that are made at once.
const CHUNK: usize = 256;

/// All connections of a shard, in the places that the machine numbers. The table grows by chunks: it
/// never moves what is in it, and never holds twice what it needs.
pub(crate) struct Links<W> {
    chunks: Vec<Box<[Option<Link<W>>]>>,
    open: usize,
}

impl<W> Links<W> {
    pub(crate) const fn new() -> Self {
        Self { chunks: Vec::new(), open: 0 }
    }

    pub(crate) const fn len(&self) -> usize {
        self.open
    }

    pub(crate) fn insert(&mut self, link: Link<W>) {
        let (chunk, place) = (link.conn.index() / CHUNK, link.conn.index() % CHUNK);
        while chunk >= self.chunks.len() {
            self.chunks.push((0..CHUNK).map(|_| None).collect());
        }
        let before = self.chunks[chunk][place].replace(link);
        assert!(before.is_none(), "the machine gave the number of an open connection again");
        self.open += 1;
    }

    fn slot(&mut self, conn: ConnectionId) -> Option<&mut Option<Link<W>>> {
        self.chunks.get_mut(conn.index() / CHUNK)?.get_mut(conn.index() % CHUNK)
    }

    pub(crate) fn get(&self, conn: ConnectionId) -> Option<&Link<W>> {
        let link = self.chunks.get(conn.index() / CHUNK)?.get(conn.index() % CHUNK)?.as_ref()?;
        (link.conn == conn).then_some(link)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, conn: ConnectionId) -> Option<&mut Link<W>> {
        self.slot(conn)?.as_mut().filter(|link| link.conn == conn)
    }

    pub(crate) fn remove(&mut self, conn: ConnectionId) -> Option<Link<W>> {
        let link = self.slot(conn)?.take_if(|link| link.conn == conn)?;
        self.open -= 1;
        Some(link)
    }
}

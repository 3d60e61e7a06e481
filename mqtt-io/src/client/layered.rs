//! A stream with layers in between.

use crate::Stack;
use crate::stack::Received;
use futures_io::{AsyncRead, AsyncWrite};
use std::future::poll_fn;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// Bytes read at once from below.
const READ: usize = 16 << 10;

/// A stream of MQTT's bytes over a stream of the wire's, with a [`Stack`] between them. Without layers
/// it is the stream itself.
#[derive(Debug)]
pub struct Layered<S> {
    stream: S,
    stack: Stack,
    wire: Box<[u8]>,
    /// What came and was not taken; what is before `at` was.
    plain: Vec<u8>,
    at: usize,
    open: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Layered<S> {
    /// Opens all layers.
    ///
    /// # Errors
    /// What the system says, or why a layer does not open.
    pub async fn open(stream: S, stack: Stack) -> io::Result<Self> {
        let open = stack.is_plain();
        let wire = if open { Box::default() } else { vec![0; READ].into() };
        let mut this = Self { stream, stack, wire, plain: Vec::new(), at: 0, open };
        poll_fn(|cx| this.poll_open(cx)).await?;
        Ok(this)
    }

    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.open {
            // What cannot be written now is written when there is something to read, or room.
            if let Poll::Ready(Err(e)) = self.poll_out(cx) {
                return Poll::Ready(Err(e));
            }
            if !ready!(self.poll_wire(cx))? {
                let text = "the server closed the connection before it was open";
                return Poll::Ready(Err(io::Error::new(ErrorKind::UnexpectedEof, text)));
            }
        }
        self.poll_out(cx)
    }

    /// Reads from below once; false at the end.
    fn poll_wire(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let n = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut self.wire))?;
        let mut incoming = self.stack.handle_wire(self.wire.get(..n).unwrap_or_default());
        while let Some(received) = incoming.next() {
            match received {
                Received::Open(_) => self.open = true,
                Received::Bytes(bytes) => self.plain.extend_from_slice(bytes),
            }
        }
        let failure = self.stack.layers_mut().and_then(|layers| layers.take_failure());
        if let Some(error) = failure {
            // The peer may want to know why.
            let _ = self.poll_out(cx);
            return Poll::Ready(Err(io::Error::new(ErrorKind::InvalidData, error)));
        }
        Poll::Ready(Ok(n > 0))
    }

    /// Writes what the layers have to say, until there is nothing left.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(layers) = self.stack.layers_mut() else { return Poll::Ready(Ok(())) };
        while !layers.wire_out().is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, layers.wire_out()))? {
                0 => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                n => layers.consume(n),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Layered<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.stack.is_plain() {
            return Pin::new(&mut this.stream).poll_read(cx, into);
        }
        loop {
            let waiting = this.plain.get(this.at..).unwrap_or_default();
            if !waiting.is_empty() {
                let n = waiting.len().min(into.len());
                into.iter_mut().zip(waiting).for_each(|(to, from)| *to = *from);
                this.at += n;
                if this.at == this.plain.len() {
                    this.plain = Vec::new();
                    this.at = 0;
                }
                return Poll::Ready(Ok(n));
            }
            if this.stack.layers_mut().is_some_and(|layers| layers.has_ended()) {
                // The goodbye is answered.
                let _ = this.poll_out(cx);
                return Poll::Ready(Ok(0));
            }
            if !ready!(this.poll_wire(cx))? {
                return Poll::Ready(Ok(0));
            }
            // A layer may have to answer; the rest of that goes with the next write.
            if let Poll::Ready(Err(e)) = this.poll_out(cx) {
                return Poll::Ready(Err(e));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Layered<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let Some(layers) = this.stack.layers_mut() else {
            return Pin::new(&mut this.stream).poll_write_vectored(cx, slices);
        };
        let mut taken = layers.write_plain(slices);
        // With less than this waiting, more is taken.
        match this.poll_out(cx) {
            Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
            Poll::Pending if taken == 0 => return Poll::Pending,
            Poll::Ready(Ok(())) if taken == 0 => {
                taken = this.stack.layers_mut().map_or(0, |layers| layers.write_plain(slices));
                if taken == 0 && slices.iter().any(|slice| !slice.is_empty()) {
                    return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
                }
            }
            _ => {}
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_out(cx))?;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(layers) = this.stack.layers_mut() {
            layers.close();
        }
        ready!(this.poll_out(cx))?;
        Pin::new(&mut this.stream).poll_close(cx)
    }
}

/// One of two kinds of stream.
#[derive(Debug)]
pub enum Dialed<T, U> {
    /// TCP.
    Tcp(T),
    /// A Unix socket.
    Unix(U),
}

macro_rules! either {
    ($self:ident, $method:ident($($argument:expr),*)) => {
        match $self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).$method($($argument),*),
            Self::Unix(stream) => Pin::new(stream).$method($($argument),*),
        }
    };
}

impl<T: AsyncRead + Unpin, U: AsyncRead + Unpin> AsyncRead for Dialed<T, U> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        either!(self, poll_read(cx, into))
    }
}

impl<T: AsyncWrite + Unpin, U: AsyncWrite + Unpin> AsyncWrite for Dialed<T, U> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        either!(self, poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, poll_write_vectored(cx, slices))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, poll_flush(cx))
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, poll_close(cx))
    }
}

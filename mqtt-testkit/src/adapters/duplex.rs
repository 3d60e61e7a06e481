use futures_lite::{AsyncRead, AsyncWrite};
use piper::{Reader, Writer};
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll};

/// One end of a pipe in both directions, inside the process. Dropping it closes both.
pub struct Duplex {
    reader: Reader,
    /// `None` once this side is closed.
    writer: Option<Writer>,
}

/// Both ends of a pipe that holds so many bytes in each direction.
#[must_use]
pub fn duplex(size: usize) -> (Duplex, Duplex) {
    let (here, there) = (piper::pipe(size), piper::pipe(size));
    (Duplex { reader: here.0, writer: Some(there.1) }, Duplex { reader: there.0, writer: Some(here.1) })
}

impl AsyncRead for Duplex {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.reader).poll_read(cx, into)
    }
}

impl AsyncWrite for Duplex {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.writer {
            Some(writer) => Pin::new(writer).poll_write(cx, bytes),
            None => Poll::Ready(Err(ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer = None;
        Poll::Ready(Ok(()))
    }
}

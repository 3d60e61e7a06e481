//! From Tokio's traits to those of `futures-io`.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream of Tokio's, seen by the traits of `futures-io`. (The one of `tokio-util` has no vectored
/// writes.)
#[derive(Debug)]
pub struct Compat<S>(pub(crate) S);

/// The stream within. It is never moved out of a pinned one.
fn inner<S: Unpin>(stream: Pin<&mut Compat<S>>) -> Pin<&mut S> {
    Pin::new(&mut stream.get_mut().0)
}

impl<S: AsyncRead + Unpin> futures_io::AsyncRead for Compat<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut into = ReadBuf::new(into);
        ready!(inner(self).poll_read(cx, &mut into))?;
        Poll::Ready(Ok(into.filled().len()))
    }
}

impl<S: AsyncWrite + Unpin> futures_io::AsyncWrite for Compat<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        inner(self).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        inner(self).poll_write_vectored(cx, slices)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        inner(self).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        inner(self).poll_shutdown(cx)
    }
}

//! What the suites need of Tokio.
#![allow(dead_code, reason = "each suite needs its share")]

use futures_lite::{AsyncRead, AsyncWrite};
pub(crate) type Runtime = mqtt_tokio::Tokio;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::ReadBuf;
pub(crate) use tokio::test;

/// Longer than something that takes 10 ms.
pub(crate) const SHORT: Duration = Duration::from_millis(20);

/// From now on time is virtual.
pub(crate) fn pause() {
    tokio::time::pause();
}

pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

pub(crate) async fn spawn_and_wait<T>(task: tokio::task::JoinHandle<T>) -> T {
    task.await.unwrap()
}

/// Starts a task; what it gives, if it is waited for.
pub(crate) fn spawn<T: Send + 'static>(
    task: impl Future<Output = T> + Send + 'static,
) -> impl Future<Output = T> {
    spawn_and_wait(tokio::spawn(task))
}

/// A stream with Tokio's traits.
pub(crate) struct Native<S>(S);

pub(crate) fn native<S>(stream: S) -> Native<S> {
    Native(stream)
}

impl<S: AsyncRead + Unpin> tokio::io::AsyncRead for Native<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let n = ready!(Pin::new(&mut self.0).poll_read(cx, into.initialize_unfilled()))?;
        into.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> tokio::io::AsyncWrite for Native<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_close(cx)
    }
}

use mqtt_io::runtime::{Runtime, Timer};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;
use tokio::runtime::Handle;
use tokio::time::Sleep;

/// Tokio, as clients and brokers see it: the runtime that is current when one is started, unless a
/// handle of another one is given.
#[derive(Clone, Debug, Default)]
pub struct Tokio(Option<Handle>);

impl From<Handle> for Tokio {
    fn from(handle: Handle) -> Self {
        Self(Some(handle))
    }
}

impl Runtime for Tokio {
    type Timer = TokioTimer;

    fn now() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        match &self.0 {
            Some(handle) => handle.spawn(task),
            None => tokio::spawn(task),
        };
    }

    fn spawn_blocking(&self, job: impl FnOnce() + Send + 'static) -> io::Result<()> {
        match &self.0 {
            Some(handle) => handle.spawn_blocking(job),
            None => tokio::task::spawn_blocking(job),
        };
        Ok(())
    }
}

/// Tokio's timer. It is made when it is first needed.
#[derive(Debug, Default)]
pub struct TokioTimer(Option<Pin<Box<Sleep>>>);

impl Timer for TokioTimer {
    fn poll_until(&mut self, cx: &mut Context<'_>, at: Instant) -> Poll<()> {
        let at = at.into();
        let sleep = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if sleep.deadline() != at {
            sleep.as_mut().reset(at);
        }
        sleep.as_mut().poll(cx)
    }
}

//! What the suites need of this crate. Time is the system's here.
#![allow(dead_code, reason = "each suite needs its share")]

pub(crate) use async_std::test;
use std::future::Future;
use std::time::{Duration, Instant};

pub(crate) type Runtime = mqtt_async_std::AsyncIo;

/// Longer than something that takes 10 ms, on a busy machine too.
pub(crate) const SHORT: Duration = Duration::from_secs(5);

/// There is no virtual time.
pub(crate) fn pause() {}

pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Starts a task; what it gives, if it is waited for.
pub(crate) fn spawn<T: Send + 'static>(
    task: impl Future<Output = T> + Send + 'static,
) -> impl Future<Output = T> {
    async_std::task::spawn(task)
}

pub(crate) type Native<S> = S;

pub(crate) fn native<S>(stream: S) -> Native<S> {
    stream
}

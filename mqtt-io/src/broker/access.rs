//! `mqtt-access` on any runtime: its jobs where blocking is allowed, a few at a time.

use super::auth::{Authorizer, Decision};
use crate::runtime::{Runtime, sleep};
use mqtt_access::{Access, Job, JobKind, Work};
use mqtt_proto::ReasonCode;
use mqtt_session::broker::{Answer, Ask};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, oneshot};

/// How much work is done at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GateConfig {
    /// Passwords that are hashed at once; each may need 46 MiB or what the password file says.
    /// Default: as many as there are cores.
    pub hashing: usize,
    /// Questions to a web service that are open at once. Default 64.
    pub network: usize,
    /// Clients that wait for an answer at once; further ones are told that the server is busy (0x89).
    /// Default 4,096.
    pub waiting: usize,
}

impl Default for GateConfig {
    fn default() -> Self {
        let hashing = std::thread::available_parallelism().map_or(1, usize::from);
        Self { hashing, network: 64, waiting: 4096 }
    }
}

/// An [`Authorizer`] that decides by an [`Access`].
#[derive(Clone, Debug)]
pub struct Gate<R> {
    runtime: R,
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    access: Arc<Access>,
    hashing: Semaphore,
    network: Semaphore,
    most: usize,
    waiting: AtomicUsize,
}

impl<R: Runtime> Gate<R> {
    /// Decides by `access`, which can be given other policies at any time. What is slow is done where
    /// `runtime` lets it block.
    #[must_use]
    pub fn new(runtime: R, access: Arc<Access>, config: GateConfig) -> Self {
        let inner = Inner {
            access,
            hashing: Semaphore::new(config.hashing.clamp(1, Semaphore::MAX_PERMITS)),
            network: Semaphore::new(config.network.clamp(1, Semaphore::MAX_PERMITS)),
            most: config.waiting,
            waiting: AtomicUsize::new(0),
        };
        Self { runtime, inner: Arc::new(inner) }
    }

    async fn answer(&self, wait: Duration, work: Work) -> Answer {
        let before = self.inner.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.inner.waiting);
        if before >= self.inner.most {
            return Answer::Deny(ReasonCode::ServerBusy);
        }
        if !wait.is_zero() {
            sleep::<R::Timer>(wait).await;
        }
        self.work(work).await
    }

    async fn work(&self, mut work: Work) -> Answer {
        loop {
            work = match work {
                Work::Done(answer) => return answer,
                Work::Job(job) => match self.run(job).await {
                    Some(next) => next,
                    // It panicked, or there is no thread for it.
                    None => return Answer::Deny(ReasonCode::UnspecifiedError),
                },
            };
        }
    }

    async fn run(&self, job: Job) -> Option<Work> {
        let pool = match job.kind() {
            JobKind::Hashing => &self.inner.hashing,
            JobKind::Network => &self.inner.network,
        };
        // Neither is ever closed.
        let _permit = pool.acquire().await.ok()?;
        let (done, result) = oneshot::channel();
        self.runtime
            .spawn_blocking(move || {
                // Whoever asked may have given up.
                let _ = done.send(job.run());
            })
            .ok()?;
        result.await.ok()
    }
}

/// Counts one who waits.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<R: Runtime> Authorizer for Gate<R> {
    fn decide(self: Arc<Self>, ask: Ask) -> Decision {
        let decision = self.inner.access.decide(ask);
        match decision.work {
            Work::Done(answer) if decision.wait.is_zero() => answer.into(),
            work => Decision::later(async move { self.answer(decision.wait, work).await }),
        }
    }
}

//! `mqtt-access` on Tokio: its jobs on the blocking pool, a few at a time.

use super::auth::{Authorizer, Decision};
use mqtt_access::{Access, JobKind, Work};
use mqtt_proto::ReasonCode;
use mqtt_session::broker::{Answer, Ask};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

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
pub struct Gate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    access: Arc<Access>,
    hashing: Semaphore,
    network: Semaphore,
    most: usize,
    waiting: AtomicUsize,
}

impl Gate {
    /// Decides by `access`, which can be given other policies at any time.
    #[must_use]
    pub fn new(access: Arc<Access>, config: GateConfig) -> Self {
        Self(Arc::new(Inner {
            access,
            hashing: Semaphore::new(config.hashing.clamp(1, Semaphore::MAX_PERMITS)),
            network: Semaphore::new(config.network.clamp(1, Semaphore::MAX_PERMITS)),
            most: config.waiting,
            waiting: AtomicUsize::new(0),
        }))
    }
}

/// Counts one who waits.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Inner {
    async fn decide(&self, ask: Ask) -> Answer {
        let decision = self.access.decide(ask);
        if let (true, Work::Done(_)) = (decision.wait.is_zero(), &decision.work) {
            return self.work(decision.work).await;
        }
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        if before >= self.most {
            return Answer::Deny(ReasonCode::ServerBusy);
        }
        if !decision.wait.is_zero() {
            sleep(decision.wait).await;
        }
        self.work(decision.work).await
    }

    async fn work(&self, mut work: Work) -> Answer {
        loop {
            let job = match work {
                Work::Done(answer) => return answer,
                Work::Job(job) => job,
            };
            let pool = match job.kind() {
                JobKind::Hashing => &self.hashing,
                JobKind::Network => &self.network,
            };
            // Neither is ever closed, and a job that panics says no.
            let Ok(_permit) = pool.acquire().await else { return Answer::Deny(ReasonCode::UnspecifiedError) };
            let Ok(next) = spawn_blocking(move || job.run()).await else {
                return Answer::Deny(ReasonCode::UnspecifiedError);
            };
            work = next;
        }
    }
}

impl Authorizer for Gate {
    fn decide(&self, ask: Ask) -> Decision<'_> {
        Box::pin(self.0.decide(ask))
    }
}

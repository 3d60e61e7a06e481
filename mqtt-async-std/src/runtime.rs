use async_executor::Executor;
use mqtt_io::runtime::{Runtime, Timer};
use std::fmt;
use std::future::{Future, pending};
use std::panic::catch_unwind;
use std::pin::Pin;
use std::sync::{Arc, Once};
use std::task::{Context, Poll, ready};
use std::thread;
use std::time::Instant;

/// What is to run: the driver of a client, or a decision of an authorizer.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Sockets and timers of `async-io`, and an executor.
///
/// The default executor is async-std's or smol's, as the features say (async-std's if both are there);
/// with neither, a thread of this crate's own. [`AsyncIo::on`] takes any other.
#[derive(Clone)]
pub struct AsyncIo {
    spawn: Arc<dyn Fn(Task) + Send + Sync>,
}

impl AsyncIo {
    /// Tasks run on an executor of your own: `spawn` starts them.
    ///
    /// ```
    /// # use mqtt_async_std::AsyncIo;
    /// static EXECUTOR: async_executor::Executor<'static> = async_executor::Executor::new();
    /// let runtime = AsyncIo::on(|task| EXECUTOR.spawn(task).detach());
    /// ```
    pub fn on(spawn: impl Fn(Task) + Send + Sync + 'static) -> Self {
        Self { spawn: Arc::new(spawn) }
    }

    /// Tasks run on async-std's executor.
    #[cfg(feature = "async-std")]
    #[must_use]
    pub fn async_std() -> Self {
        Self::on(|task| drop(async_std::task::spawn(task)))
    }

    /// Tasks run on smol's executor.
    #[cfg(feature = "smol")]
    #[must_use]
    pub fn smol() -> Self {
        Self::on(|task| smol::spawn(task).detach())
    }

    /// Tasks run on one thread of this crate's own, which is started with the first.
    ///
    /// # Panics
    /// Starting a task panics if the system gives no thread.
    #[must_use]
    pub fn own_thread() -> Self {
        static EXECUTOR: Executor<'static> = Executor::new();
        static THREAD: Once = Once::new();
        Self::on(|task| {
            THREAD.call_once(|| {
                // A task that panics ends by itself, and takes no other with it.
                let run =
                    || while catch_unwind(|| async_io::block_on(EXECUTOR.run(pending::<()>()))).is_err() {};
                thread::Builder::new().name("mqtt-tasks".to_owned()).spawn(run).expect("a thread");
            });
            EXECUTOR.spawn(task).detach();
        })
    }
}

impl Default for AsyncIo {
    #[allow(unreachable_code, reason = "the first executor that the features give")]
    fn default() -> Self {
        #[cfg(feature = "async-std")]
        return Self::async_std();
        #[cfg(feature = "smol")]
        return Self::smol();
        Self::own_thread()
    }
}

impl fmt::Debug for AsyncIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncIo").finish_non_exhaustive()
    }
}

impl Runtime for AsyncIo {
    type Timer = IoTimer;

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        (self.spawn)(Box::pin(task));
    }
}

/// The timer of `async-io`. It is made when it is first needed.
#[derive(Debug, Default)]
pub struct IoTimer {
    timer: Option<async_io::Timer>,
    at: Option<Instant>,
}

impl Timer for IoTimer {
    fn poll_until(&mut self, cx: &mut Context<'_>, at: Instant) -> Poll<()> {
        if at <= Instant::now() {
            return Poll::Ready(());
        }
        let timer = self.timer.get_or_insert_with(async_io::Timer::never);
        if self.at != Some(at) {
            self.at = Some(at);
            timer.set_at(at);
        }
        ready!(Pin::new(timer).poll(cx));
        // It fires once.
        self.at = None;
        Poll::Ready(())
    }
}

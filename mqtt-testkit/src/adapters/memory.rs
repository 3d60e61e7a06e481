//! A runtime without threads, clock or sockets: tasks run while [`Memory::run`] does, time stands still, and streams
//! are memory. What a client does under it is the same each time, so it can be counted.

use futures_lite::{AsyncRead, AsyncWrite};
use mqtt_io::runtime::{Connect, Runtime, Timer};
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

/// The runtime. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Mutex<Vec<Task>>>);

struct Task {
    future: Pin<Box<dyn Future<Output = ()> + Send>>,
    flag: Arc<Flag>,
}

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Task").finish_non_exhaustive()
    }
}

/// Set when a task was woken.
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

impl Flag {
    fn new() -> Arc<Self> {
        Arc::new(Self(AtomicBool::new(true)))
    }

    fn take(&self) -> bool {
        self.0.swap(false, Ordering::AcqRel)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Memory {
    /// Runs a future to its end, and the tasks beside it.
    ///
    /// # Panics
    /// If all wait, which would be for ever.
    pub fn run<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        let flag = Flag::new();
        let waker = Waker::from(flag.clone());
        loop {
            let mut ran = self.run_tasks();
            if flag.take() {
                ran = true;
                if let Poll::Ready(done) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                    return done;
                }
            }
            assert!(ran, "everybody waits");
        }
    }

    /// Polls each task that was woken, once. Whether there was one.
    fn run_tasks(&self) -> bool {
        // Tasks may start others.
        let mut tasks = std::mem::take(&mut *lock(&self.0));
        let mut ran = false;
        tasks.retain_mut(|task| {
            if !task.flag.take() {
                return true;
            }
            ran = true;
            let waker = Waker::from(task.flag.clone());
            task.future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending()
        });
        lock(&self.0).extend(tasks);
        ran
    }
}

impl Runtime for Memory {
    type Timer = Never;

    fn now() -> Instant {
        static START: OnceLock<Instant> = OnceLock::new();
        *START.get_or_init(Instant::now)
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        lock(&self.0).push(Task { future: Box::pin(task), flag: Flag::new() });
    }
}

/// A timer whose time never comes.
#[derive(Debug, Default)]
pub struct Never;

impl Timer for Never {
    fn poll_until(&mut self, _: &mut Context<'_>, _: Instant) -> Poll<()> {
        Poll::Pending
    }
}

/// What lies between a client on [`Memory`] and a server that is the test itself: a connector that gives the same
/// stream each time. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct Wire(Arc<Mutex<Bytes>>);

#[derive(Debug, Default)]
struct Bytes {
    to_client: Vec<u8>,
    /// The client has taken so many of them.
    taken: usize,
    from_client: Vec<u8>,
    reader: Option<Waker>,
}

impl Wire {
    /// Sends to the client.
    pub fn send(&self, bytes: &[u8]) {
        let mut wire = lock(&self.0);
        wire.to_client.extend_from_slice(bytes);
        if let Some(reader) = wire.reader.take() {
            reader.wake();
        }
    }

    /// What the client has sent since the last time, swapped for `empty`.
    pub fn swap_sent(&self, empty: &mut Vec<u8>) {
        std::mem::swap(&mut lock(&self.0).from_client, empty);
    }
}

impl Connect<Wire> for Memory {
    type Stream = Wire;

    fn connect(wire: &Wire) -> impl Future<Output = io::Result<Wire>> + Send + 'static {
        std::future::ready(Ok(wire.clone()))
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut wire = lock(&self.0);
        let waiting = wire.to_client.get(wire.taken..).unwrap_or_default();
        let n = waiting.len().min(into.len());
        if n == 0 {
            wire.to_client.clear();
            wire.taken = 0;
            wire.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        into[..n].copy_from_slice(&waiting[..n]);
        wire.taken += n;
        Poll::Ready(Ok(n))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        lock(&self.0).from_client.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

//! The driver: one task that opens connections, moves bytes, keeps one timer, and obeys.
//!
//! In each turn it reads what there is, lets the machine work, and writes once for all that came of
//! it. It never waits for a stream of messages or for a handle.

use super::State;
use super::auth::AuthHandler;
use super::queue::Arrived;
use super::shared::{Inner, Shared};
use crate::Clock;
use crate::runtime::{Connect, Timer};
use futures_io::{AsyncRead, AsyncWrite};
use mqtt_session::Timestamp;
use mqtt_session::client::{AuthStep, Cause, DisconnectOptions, Event, LinkDown, Output};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// Bytes read at once: so many that a system call costs little for each message, so few that they
/// are still in the cache when the application gets them.
const READ: usize = 16 * 1024;
/// Bytes written at once.
const WRITE: usize = 64 * 1024;
const SLICES: usize = 32;
/// Turns before other tasks get theirs.
const TURNS: usize = 8;

type Dial<S> = Pin<Box<dyn Future<Output = io::Result<S>> + Send>>;

pub(super) struct Driver<R: Connect<C>, C> {
    shared: Arc<Shared>,
    connector: C,
    auth: Option<Box<dyn AuthHandler>>,
    /// A connection that is being opened.
    dial: Option<Dial<R::Stream>>,
    stream: Option<R::Stream>,
    /// Set while a connection is being closed: until when.
    closing: Option<Instant>,
    /// The stream has not taken everything.
    blocked: bool,
    buffer: Box<[u8]>,
    timer: R::Timer,
    /// When the timer is going to fire; `None` once it has.
    armed: Option<Instant>,
    io: Option<Arc<io::Error>>,
    steps: Vec<Step>,
    wakers: Vec<Waker>,
    /// The client has stopped, and why.
    stopped: Option<Cause>,
}

/// What the server said in an authentication exchange, and nobody has answered.
struct Step {
    auth: AuthStep,
    /// With CONNACK: the end of the exchange that CONNECT began, and of none that was begun since.
    of_connack: bool,
}

/// Whoever waits is told when the driver ends, however it ends.
struct CloseOnDrop(Arc<Shared>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close(Cause::Requested, None);
    }
}

impl<R: Connect<C>, C> Driver<R, C> {
    pub(super) fn new(shared: Arc<Shared>, connector: C, auth: Option<Box<dyn AuthHandler>>) -> Self {
        Self {
            shared,
            connector,
            auth,
            dial: None,
            stream: None,
            closing: None,
            blocked: false,
            buffer: vec![0; READ].into(),
            timer: R::Timer::default(),
            armed: None,
            io: None,
            steps: Vec::new(),
            wakers: Vec::new(),
            stopped: None,
        }
    }

    pub(super) async fn run(mut self) {
        let guard = CloseOnDrop(self.shared.clone());
        let cause = poll_fn(|cx| self.poll(cx)).await;
        if let Some(storage) = self.shared.storage.get() {
            // Waits for the last commit, so that who saw the end finds everything stored.
            let _ = storage.close();
        }
        self.shared.close(cause, self.io.take());
        drop(guard);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Cause> {
        for _ in 0..TURNS {
            let busy = self.poll_dial(cx) | self.poll_read(cx) | self.answer_auth() | self.turn(cx);
            let woken = !self.wakers.is_empty();
            self.wakers.drain(..).for_each(Waker::wake);
            if let (Some(cause), None, None) = (self.stopped, &self.stream, &self.dial) {
                return Poll::Ready(cause);
            }
            // The deadline is that after the turn.
            if !busy && !self.poll_timer(cx) {
                return Poll::Pending;
            }
            if woken {
                // Whoever waits for messages gets them while they are in the cache.
                break;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    // ---- the connection ----

    fn poll_dial(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(dial) = &mut self.dial else { return false };
        let Poll::Ready(result) = dial.as_mut().poll(cx) else { return false };
        self.dial = None;
        // User code, so not under the lock.
        let data = self.auth.as_mut().filter(|_| result.is_ok()).map(|auth| auth.start());
        let now = self.shared.now();
        let mut inner = self.shared.lock();
        match result {
            Ok(stream) => {
                self.stream = Some(stream);
                self.blocked = false;
                if let Some(data) = data {
                    inner.machine.set_authentication_data(data);
                }
                inner.machine.handle_link_up(now);
            }
            Err(error) => {
                self.io = Some(Arc::new(error));
                inner.machine.handle_link_down(now, LinkDown::DialFailed);
            }
        }
        true
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(stream) = self.stream.as_mut().filter(|_| self.closing.is_none()) else { return false };
        let Poll::Ready(result) = Pin::new(stream).poll_read(cx, &mut self.buffer) else { return false };
        let now = self.shared.now();
        let mut inner = self.shared.lock();
        match result {
            Ok(n) if n > 0 => {
                inner.machine.handle_read(now, self.buffer.get(..n).unwrap_or_default());
                return true;
            }
            Ok(_) => inner.machine.handle_link_down(now, LinkDown::Closed),
            Err(error) => {
                self.io = Some(Arc::new(error));
                inner.machine.handle_link_down(now, LinkDown::Failed);
            }
        }
        self.stream = None;
        true
    }

    /// Lets the machine say what is to be done, does it, and writes. True if there is more to do.
    fn turn(&mut self, cx: &mut Context<'_>) -> bool {
        let shared = self.shared.clone();
        let now = shared.now();
        let mut inner = shared.lock();
        let mut busy = false;
        let mut retry = self.blocked;
        loop {
            let mut flush = std::mem::take(&mut retry);
            loop {
                inner.route_small(now, shared.inbox.get(), &mut self.wakers);
                let Some(output) = inner.machine.poll_output() else { break };
                match output {
                    Output::Flush => flush = true,
                    Output::Dial { .. } => {
                        self.io = None;
                        self.dial = Some(Box::pin(R::connect(&self.connector)));
                        busy = true;
                    }
                    Output::HangUp => {
                        self.dial = None;
                        self.closing = Some(shared.instant() + shared.limits.close_timeout);
                        flush = true;
                    }
                    Output::Event(event) => busy |= self.event(&mut inner, now, event),
                    Output::Store(seq, group) => {
                        if let Some(storage) = shared.storage.get() {
                            storage.store(0, seq, group);
                        }
                    }
                    _ => {}
                }
            }
            if flush {
                self.write(&mut inner, now, cx);
            }
            if self.closing.is_some() {
                busy |= self.close(&mut inner, now, cx);
            }
            // Bytes taken, and a connection lost, are inputs too.
            if !flush {
                break;
            }
        }
        if let Some(storage) = shared.storage.get() {
            storage.flush();
        }
        inner.routes.hand_over(&mut self.wakers);
        shared.offer_room(&inner);
        inner.driver = Some(cx.waker().clone());
        busy
    }

    /// Writes until everything is written, or the stream takes no more.
    fn write(&mut self, inner: &mut Inner, now: Timestamp, cx: &mut Context<'_>) {
        self.blocked = false;
        let Some(stream) = &mut self.stream else { return };
        let mut stream = Pin::new(stream);
        let result = loop {
            let mut outbox = inner.machine.outbox(now, WRITE);
            let mut slices = [&[][..]; SLICES];
            let filled = outbox.fill_slices(&mut slices);
            let result = match slices.get(..filled) {
                None | Some([]) => break stream.as_mut().poll_flush(cx),
                Some([one]) => stream.as_mut().poll_write(cx, one),
                Some(several) => {
                    let mut vectors = [IoSlice::new(&[]); SLICES];
                    vectors.iter_mut().zip(several).for_each(|(vector, slice)| *vector = IoSlice::new(slice));
                    stream.as_mut().poll_write_vectored(cx, vectors.get(..filled).unwrap_or_default())
                }
            };
            match result {
                Poll::Ready(Ok(0)) => break Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(n)) => outbox.consume(n),
                Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
                Poll::Pending => break Poll::Pending,
            }
        };
        match result {
            Poll::Ready(Ok(())) => {}
            Poll::Pending => self.blocked = true,
            Poll::Ready(Err(error)) => {
                self.io = Some(Arc::new(error));
                self.stream = None;
                inner.machine.handle_link_down(now, LinkDown::Failed);
            }
        }
    }

    /// Goes on closing; true once it is closed.
    fn close(&mut self, inner: &mut Inner, now: Timestamp, cx: &mut Context<'_>) -> bool {
        let late = self.closing.is_some_and(|deadline| deadline <= self.shared.instant());
        if let Some(stream) = self.stream.as_mut().filter(|_| !late)
            && (self.blocked || Pin::new(stream).poll_close(cx).is_pending())
        {
            return false;
        }
        self.stream = None;
        self.closing = None;
        self.blocked = false;
        inner.machine.handle_link_down(now, LinkDown::Closed);
        true
    }

    // ---- events ----

    fn event(&mut self, inner: &mut Inner, now: Timestamp, event: Event) -> bool {
        match event {
            Event::Message(received) => {
                let inbox = self.shared.inbox.get();
                let settled = inner.routes.route(Arrived::Large(received), inbox, &mut self.wakers);
                inner.settled(now, settled);
            }
            Event::Done { token, outcome } => inner.done(token, outcome, &mut self.wakers),
            Event::Connected(connected) => {
                self.io = None;
                if self.auth.is_some() {
                    // The server's last word of an authentication exchange comes with CONNACK.
                    let data = connected.properties.as_properties().authentication_data();
                    let auth = AuthStep {
                        wants_answer: false,
                        data: data.map(bytes::Bytes::copy_from_slice),
                        properties: connected.properties.clone(),
                    };
                    self.steps.push(Step { auth, of_connack: true });
                }
                self.shared.state.send_replace(State::Connected(Arc::from(connected)));
                return true;
            }
            Event::Disconnected(disconnected) => {
                inner.reauth.clear();
                self.steps.clear();
                match disconnected.retry_at {
                    Some(at) => {
                        let (cause, io) = (disconnected.cause, self.io.clone());
                        let retry_in = at.since(now);
                        self.shared.state.send_replace(State::Disconnected { cause, io, retry_in });
                    }
                    None => self.stopped = Some(disconnected.cause),
                }
                return true;
            }
            Event::Auth(step) => {
                self.steps.push(Step { auth: *step, of_connack: false });
                return true;
            }
            Event::SubscriptionLost { filter, reason } => {
                inner.routes.subscription_lost(&filter, reason);
            }
            _ => {}
        }
        false
    }

    /// Lets the handler answer the server: user code, so not under the lock.
    fn answer_auth(&mut self) -> bool {
        let steps = std::mem::take(&mut self.steps);
        let busy = !steps.is_empty();
        for Step { auth: step, of_connack } in steps {
            let data = step.data.as_deref();
            let answer = match &mut self.auth {
                Some(auth) if step.wants_answer => auth.answer(data.unwrap_or_default()).map(Some),
                Some(auth) => auth.finish(data).map(|()| None),
                None => Ok(None),
            };
            let now = self.shared.now();
            let mut inner = self.shared.lock();
            let sent = match answer {
                Ok(Some(data)) => inner.machine.authenticate(now, &data).is_ok(),
                Ok(None) => true,
                Err(_) => false,
            };
            if !sent {
                let drain = Duration::ZERO;
                inner.machine.disconnect(now, DisconnectOptions { drain, ..DisconnectOptions::default() });
            } else if !step.wants_answer && !of_connack {
                for sender in inner.reauth.drain(..) {
                    // Whoever does not wait any more does not want to know.
                    let _ = sender.send(());
                }
            }
        }
        busy
    }

    // ---- the timer ----

    /// Keeps the one timer; true if it fired.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> bool {
        let due = match self.closing {
            Some(deadline) => Some(deadline),
            None => self.shared.lock().machine.poll_timeout().map(|at| self.shared.at(at)),
        };
        let Some(due) = due else { return false };
        // Only a deadline that moved earlier needs the timer: one that moved later is found out when
        // it fires.
        let at = self.armed.map_or(due, |armed| armed.min(due));
        self.armed = Some(at);
        if self.timer.poll_until(cx, at).is_pending() {
            return false;
        }
        self.armed = None;
        if self.closing.is_none() {
            let now = self.shared.now();
            let mut inner = self.shared.lock();
            if self.shared.storage.get().is_some() {
                inner.machine.handle_wall_clock(now, Clock::unix_ms());
            }
            inner.machine.handle_timeout(now);
        }
        true
    }
}

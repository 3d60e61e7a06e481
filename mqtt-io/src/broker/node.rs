//! One shard on one thread: the only place that borrows the machine.
//!
//! [`Node::turn`] borrows, calls, releases, and only then performs what could run code of others. No
//! borrow lives across an await. A panic inside a turn ends the shard.

use super::auth::Office;
use super::handle::ServeError;
use super::link::{self, Carried, Socket};
use super::log::{self, LogStyle};
use super::poller::Poller;
use crate::runtime::{LocalRuntime, Timer};
use crate::{Clock, Command, Effect, Shard, Taken};
use mqtt_session::broker::{Answer, Event, QuestionId};
use mqtt_session::{ShardId, Timestamp};
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use tokio::sync::{broadcast, mpsc};

/// Room for so many effects is kept from turn to turn.
const MOST_EFFECTS: usize = 1_024;

/// Wakes the one task that waits for it.
#[derive(Default)]
pub(super) struct Signal {
    raised: Cell<bool>,
    waiting: RefCell<Option<Waker>>,
}

impl Signal {
    #[inline]
    pub(super) fn raise(&self) {
        if !self.raised.replace(true)
            && let Some(waker) = &*self.waiting.borrow()
        {
            waker.wake_by_ref();
        }
    }

    /// Ready once after each time it was raised.
    pub(super) fn poll_raised(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.raised.take() {
            return Poll::Ready(());
        }
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waiting = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

/// What all tasks of a shard share.
pub(super) struct Node<L: LocalRuntime> {
    runtime: L,
    shard: RefCell<Shard<Socket<L>>>,
    clock: Clock,
    /// The one buffer into which every native link reads.
    pub(super) buffer: RefCell<Box<[u8]>>,
    /// Kept for its memory.
    effects: Cell<Vec<Effect<Socket<L>>>>,
    flush: Signal,
    /// When the timer is going to fire.
    armed: Cell<Timestamp>,
    rearm: Signal,
    /// Raised when the shard may have ended.
    end: Signal,
    state: RefCell<State>,
    /// Sockets whose peers are being seen off.
    lingering: Cell<usize>,
    office: Option<Office>,
    /// Answers that were there at once.
    answers: RefCell<VecDeque<(QuestionId, Answer)>>,
    /// Whether a turn is busy with them.
    answering: Cell<bool>,
    events: broadcast::Sender<Arc<Event>>,
    post: Post,
    log_style: LogStyle,
    /// Who watches the sockets, if not a task for each.
    poller: Option<Rc<Poller>>,
    /// The shard that the next connection with layers goes to.
    turn: Cell<usize>,
}

/// The ways to the threads of all shards.
#[derive(Clone)]
pub(super) struct Post {
    pub(super) own: ShardId,
    /// By number; what goes to the own one is not used. They need no bound: what shards have under way to
    /// one another is bounded by the machine.
    pub(super) boxes: Arc<[mpsc::UnboundedSender<Carried>]>,
}

enum State {
    Running,
    /// Shut down, and every connection was closed in order.
    Finished,
    /// A turn panicked, or the sockets are watched no more; the machine is not touched again.
    Failed(ServeError),
}

impl<L: LocalRuntime> Node<L> {
    pub(super) fn new(
        shard: Shard<Socket<L>>,
        clock: Clock,
        runtime: L,
        buffer: usize,
        office: Option<Office>,
        events: broadcast::Sender<Arc<Event>>,
        post: Post,
    ) -> Self {
        Self {
            post,
            log_style: LogStyle::default(),
            poller: None,
            turn: Cell::new(0),
            runtime,
            shard: RefCell::new(shard),
            clock,
            buffer: RefCell::new(vec![0; buffer].into()),
            effects: Cell::default(),
            flush: Signal::default(),
            armed: Cell::new(Timestamp::MAX),
            rearm: Signal::default(),
            end: Signal::default(),
            state: RefCell::new(State::Running),
            lingering: Cell::new(0),
            office,
            answers: RefCell::default(),
            answering: Cell::new(false),
            events,
        }
    }

    pub(super) const fn told_in(mut self, style: LogStyle) -> Self {
        self.log_style = style;
        self
    }

    pub(super) fn polled_by(mut self, poller: Option<Rc<Poller>>) -> Self {
        self.poller = poller;
        self
    }

    /// Who watches the sockets, if not a task for each.
    pub(super) fn poller(&self) -> Option<&Poller> {
        self.poller.as_deref()
    }

    /// In whose words the log tells of clients.
    pub(super) const fn log_style(&self) -> LogStyle {
        self.log_style
    }

    /// Starts a task on this thread.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + 'static) -> L::Task {
        self.runtime.spawn_local(task)
    }

    /// Lets `act` at the machine, then does everything that follows from it. `None` if the shard has
    /// failed.
    #[inline]
    pub(super) fn turn<R>(
        self: &Rc<Self>,
        act: impl FnOnce(&mut Shard<Socket<L>>, Timestamp) -> R,
    ) -> Option<R> {
        if matches!(*self.state.borrow(), State::Failed(_)) {
            return None;
        }
        let turn = || {
            let mut shard = self.shard.borrow_mut();
            let result = act(&mut shard, self.clock.now());
            if shard.is_dirty() {
                self.flush.raise();
            }
            if let Some(deadline) = shard.deadline()
                && deadline < self.armed.get()
            {
                self.armed.set(deadline);
                self.rearm.raise();
            }
            if shard.is_finished() {
                self.finished();
            }
            if shard.has_effects() {
                let mut effects = self.effects.take();
                shard.take_effects(&mut effects);
                drop(shard);
                for effect in effects.drain(..) {
                    self.perform(effect);
                }
                if effects.capacity() > MOST_EFFECTS {
                    effects.shrink_to(MOST_EFFECTS);
                }
                self.effects.set(effects);
                self.answer();
            }
            result
        };
        match catch_unwind(AssertUnwindSafe(turn)) {
            Ok(result) => Some(result),
            Err(panic) => {
                self.fail(ServeError::Panicked(panic_text(panic.as_ref())));
                None
            }
        }
    }

    /// A look at the machine that changes nothing.
    pub(super) fn look<R>(&self, look: impl FnOnce(&mut Shard<Socket<L>>) -> R) -> R {
        look(&mut self.shard.borrow_mut())
    }

    /// Passes on what was decided at once. An answer may lead to the next question, of which a read can hold
    /// many, so this is no recursion.
    fn answer(self: &Rc<Self>) {
        if self.answers.borrow().is_empty() || self.answering.replace(true) {
            return;
        }
        loop {
            let next = self.answers.borrow_mut().pop_front();
            let Some((id, answer)) = next else { break };
            self.turn(|shard, now| shard.command(now, Command::Answer(id, answer)));
        }
        self.answering.set(false);
    }

    fn perform(self: &Rc<Self>, effect: Effect<Socket<L>>) {
        match effect {
            Effect::Close { wire, linger } => link::close(self, wire, linger),
            Effect::AwaitWritable(conn) => link::await_writable(self, conn),
            Effect::Event(event, address) => {
                log::event(self.log_style, &event, address);
                self.publish_event(*event);
            }
            Effect::Transport(event, address) => log::transport(&event, address),
            Effect::Ask(ask) => {
                // `Config::check` made sure that there is somebody to ask.
                let id = ask.id;
                if let Some(answer) = self.office.as_ref().and_then(|office| office.ask(*ask)) {
                    self.answers.borrow_mut().push_back((id, answer));
                }
            }
            Effect::Deliver { id, sink, message } => match sink(message) {
                Taken::Yes => {}
                Taken::Gone => {
                    self.turn(|shard, now| shard.command(now, Command::Unsubscribe(id)));
                }
            },
            Effect::Call(call) => call(),
            Effect::Letters(to, letters) => self.carry(to, Carried::Letters(self.post.own, letters)),
            Effect::Move { to, link, wire } => link::depart(self, to, link, wire),
        }
    }

    /// Gives something to another shard's thread.
    pub(super) fn carry(&self, to: ShardId, carried: Carried) {
        if let Some(there) = self.post.boxes.get(usize::from(to.0)) {
            // A shard that has ended needs nothing any more.
            let _ = there.send(carried);
        }
    }

    /// The shard whose turn it is to take a connection in, if that is another one.
    pub(super) fn next_shard(&self) -> Option<ShardId> {
        let shards = self.post.boxes.len();
        let turn = self.turn.get() % shards.max(1);
        self.turn.set(turn + 1);
        let next = ShardId(u16::try_from(turn).unwrap_or_default());
        (next != self.post.own).then_some(next)
    }

    fn publish_event(&self, event: Event) {
        if self.events.receiver_count() > 0 {
            // Fails only if the last receiver left meanwhile.
            let _ = self.events.send(Arc::new(event));
        }
    }

    fn finished(&self) {
        if self.lingering.get() == 0 && matches!(*self.state.borrow(), State::Running) {
            *self.state.borrow_mut() = State::Finished;
            self.end.raise();
        }
    }

    /// The shard cannot go on.
    pub(super) fn fail(&self, why: ServeError) {
        tracing::error!("Fatal: {why}. All connections are cut.");
        *self.state.borrow_mut() = State::Failed(why);
        self.end.raise();
    }

    /// A socket is being seen off; until it is gone the shard does not end.
    pub(super) fn linger(&self) {
        self.lingering.set(self.lingering.get() + 1);
    }

    /// It is gone.
    pub(super) fn lingered(&self) {
        self.lingering.set(self.lingering.get() - 1);
        if self.look(|shard| shard.is_finished()) {
            self.finished();
        }
    }

    /// Waits for the end of the shard: in order, or by this.
    pub(super) async fn ended(&self) -> Result<(), ServeError> {
        loop {
            match &*self.state.borrow() {
                State::Running => {}
                State::Finished => return Ok(()),
                State::Failed(why) => return Err(why.clone()),
            }
            poll_fn(|cx| self.end.poll_raised(cx)).await;
        }
    }
}

pub(super) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("without a message").to_owned()
}

/// Writes once for all links that became dirty while others were read: it stands behind them in the
/// runtime's queue.
pub(super) async fn flusher<L: LocalRuntime>(node: Rc<Node<L>>) {
    loop {
        poll_fn(|cx| node.flush.poll_raised(cx)).await;
        node.turn(|shard, now| shard.flush(now));
        if node.look(|shard| shard.is_dirty()) {
            L::yield_now().await;
        }
    }
}

/// The one timer. It is woken when the deadline moves to an earlier time; when it moves to a later
/// one, the timer fires at the old time, finds nothing to do, and is set anew.
pub(super) async fn timer<L: LocalRuntime>(node: Rc<Node<L>>) {
    let mut timer = L::Timer::default();
    loop {
        poll_fn(|cx| {
            while node.rearm.poll_raised(cx).is_ready() {}
            let at = node.armed.get();
            if at <= node.clock.now() {
                return Poll::Ready(());
            }
            // Beyond what the system can express is never.
            match node.clock.instant(at) {
                Some(at) => timer.poll_until(cx, at),
                None => Poll::Pending,
            }
        })
        .await;
        node.armed.set(Timestamp::MAX);
        node.turn(|shard, now| shard.tick(now));
        // There may be more to do at once, but others come first.
        L::yield_now().await;
    }
}

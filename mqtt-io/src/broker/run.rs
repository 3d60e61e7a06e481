//! The thread of a shard: its runtime, its tasks, its end.

use super::auth::Office;
use super::bind::{BindError, Listener};
use super::foreign::{self, BoxedStream};
use super::handle::ServeError;
use super::link::{self, Carried};
use super::listen::{Door, Listening, accept};
use super::log::LogStyle;
use super::node::{Node, Post, flusher, timer};
use super::poller::{Entrance, Poller};
use super::sockets::Open;
use crate::runtime::{LocalRuntime, LocalTask};
use crate::trace::Recorder;
use crate::{Clock, Command, Shard, Stack};
use mqtt_session::Broker;
use mqtt_session::acl::Acl;
use mqtt_session::broker::{Event, Peer};
use mqtt_store::StorageHandle;
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::{broadcast, mpsc, oneshot};

/// Commands taken in one turn.
const COMMANDS_PER_TURN: usize = 64;

/// What a thread starts with.
pub(super) struct Start {
    pub(super) broker: Broker,
    pub(super) acls: Vec<Arc<Acl>>,
    pub(super) listeners: Vec<(Open, Listener)>,
    pub(super) read_buffer: usize,
    pub(super) log_style: LogStyle,
    pub(super) office: Option<Office>,
    pub(super) storage: Option<StorageHandle>,
    pub(super) trace: Option<Recorder>,
    pub(super) mail: mpsc::Receiver<Mail>,
    pub(super) answered: mpsc::UnboundedReceiver<Command>,
    pub(super) events: broadcast::Sender<Arc<Event>>,
    pub(super) ready: oneshot::Sender<Result<(), BindError>>,
    /// One for all shards.
    pub(super) clock: Clock,
    pub(super) post: Post,
    pub(super) carried: Arrivals,
}

/// What comes from other shards.
type Arrivals = mpsc::UnboundedReceiver<Carried>;

/// What comes from handles.
pub(super) enum Mail {
    Command(Command),
    Stream(BoxedStream, Stack, Peer),
}

/// The life of a broker's thread, to be lived there.
pub struct Life(pub(super) Start);

impl Life {
    /// Lives it to its end: drive this as the main task of the thread's runtime.
    ///
    /// # Errors
    /// If the broker did not end in order.
    pub async fn run<L: LocalRuntime>(self, runtime: L) -> Result<(), ServeError> {
        shard(self.0, runtime).await
    }

    /// There is no runtime for it.
    ///
    /// # Errors
    /// None: who waits for the broker to start is told.
    pub fn fail(self, e: io::Error) -> Result<(), ServeError> {
        // Whoever waits for this has given up if nobody takes it.
        let _ = self.0.ready.send(Err(e.into()));
        Ok(())
    }
}

impl std::fmt::Debug for Life {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Life").finish_non_exhaustive()
    }
}

async fn shard<L: LocalRuntime>(start: Start, runtime: L) -> Result<(), ServeError> {
    let Start {
        broker,
        acls,
        listeners,
        read_buffer,
        log_style,
        office,
        storage,
        trace,
        mail,
        answered,
        events,
        ready,
        clock,
        post,
        carried,
    } = start;
    let opened = || -> io::Result<_> {
        let poller = Poller::new::<L>()?;
        let listeners = listeners.into_iter().map(|(Open { socket, file }, settings)| {
            let listener = match &poller {
                Some(_) => Listening::Polled(Entrance::new(socket)?),
                None => Listening::Task(L::listener(socket)?),
            };
            Ok(Door { listener, file, settings })
        });
        let listeners = listeners.collect::<io::Result<Vec<_>>>()?;
        Ok((listeners, poller))
    };
    let (listeners, poller) = match opened() {
        Ok(opened) => opened,
        Err(e) => {
            let _ = ready.send(Err(e.into()));
            return Ok(());
        }
    };
    let shard = Shard::recorded(broker, clock.now(), storage, trace);
    let (poller, watch) = poller.map(|(poller, watch)| (Rc::new(poller), watch)).unzip();
    let node = Node::new(shard, clock, runtime, read_buffer, office, events, post);
    let node = Rc::new(node.told_in(log_style).polled_by(poller.clone()));
    if let (Some(poller), Some(watch)) = (poller, watch) {
        node.spawn(Poller::run(Rc::clone(&node), poller, watch)).detach();
    }
    node.spawn(flusher(Rc::clone(&node))).detach();
    node.spawn(timer(Rc::clone(&node))).detach();
    // Before anybody is let in, and before a will of old is published.
    node.turn(|shard, now| shard.command(now, Command::SetAcls(acls, Box::new(|()| {}))));
    let accepting = listeners.into_iter().map(|door| node.spawn(accept(Rc::clone(&node), door)));
    let carried = Rc::new(RefCell::new(carried));
    node.spawn(receive(Rc::clone(&node), mail, Rc::clone(&carried), accepting.collect())).detach();
    node.spawn(answer(Rc::clone(&node), answered)).detach();
    node.spawn(arrivals(Rc::clone(&node), carried)).detach();
    // What a restored machine has to do at once.
    node.turn(|shard, now| shard.tick(now));
    let _ = ready.send(Ok(()));
    node.ended().await
}

/// Does what handles want, each after all that other shards had sent by then: who was told that something is done, and asks
/// this shard about it, finds it done. When the last handle is gone, the broker ends.
async fn receive<L: LocalRuntime>(
    node: Rc<Node<L>>,
    mut mail: mpsc::Receiver<Mail>,
    carried: Rc<RefCell<Arrivals>>,
    mut accepting: Vec<L::Task>,
) {
    while let Some(first) = mail.recv().await {
        let mut next = Some(first);
        let mut left = COMMANDS_PER_TURN;
        while let Some(taken) = next.take() {
            let before = carried.borrow().len();
            for _ in 0..before {
                let one = carried.borrow_mut().try_recv();
                if let Ok(one) = one {
                    link::arrive(&node, one);
                }
            }
            match taken {
                Mail::Stream(stream, stack, peer) => foreign::open(&node, stream, stack, peer),
                Mail::Command(command) => {
                    if matches!(command, Command::Shutdown) {
                        // Closes the listeners.
                        accepting.clear();
                    }
                    node.turn(|shard, now| shard.command(now, command));
                }
            }
            left -= 1;
            // What is taken is done: the last one must not be taken and forgotten.
            if left > 0 {
                next = mail.try_recv().ok();
            }
        }
    }
    accepting.clear();
    node.turn(|shard, now| shard.command(now, Command::Shutdown));
}

/// Takes in what comes from other shards.
async fn arrivals<L: LocalRuntime>(node: Rc<Node<L>>, carried: Rc<RefCell<Arrivals>>) {
    while let Some(one) = poll_fn(|cx| carried.borrow_mut().poll_recv(cx)).await {
        link::arrive(&node, one);
    }
}

/// Passes on what the authorizer decided.
async fn answer<L: LocalRuntime>(node: Rc<Node<L>>, mut answered: mpsc::UnboundedReceiver<Command>) {
    while let Some(answer) = answered.recv().await {
        node.turn(|shard, now| shard.command(now, answer));
    }
}

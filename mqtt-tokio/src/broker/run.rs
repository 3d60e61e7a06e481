//! The thread of a shard: its runtime, its tasks, its end.

use super::auth::Office;
use super::bind::{BindError, Listener};
use super::foreign::{self, BoxedStream};
use super::handle::ServeError;
use super::listen::accept;
use super::node::{Node, flusher, timer};
use mqtt_io::{Clock, Command, Shard};
use mqtt_session::acl::Acl;
use mqtt_session::broker::{BrokerConfig, Event, Peer};
use std::rc::Rc;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::{AbortHandle, spawn_local};

/// Commands taken in one turn.
const COMMANDS_PER_TURN: usize = 64;

/// What a thread starts with.
pub(super) struct Start {
    pub(super) broker: BrokerConfig,
    pub(super) acls: Vec<Arc<Acl>>,
    pub(super) listeners: Vec<(std::net::TcpListener, Listener)>,
    pub(super) read_buffer: usize,
    pub(super) office: Option<Office>,
    pub(super) mail: mpsc::Receiver<Mail>,
    pub(super) answered: mpsc::UnboundedReceiver<Command>,
    pub(super) events: broadcast::Sender<Arc<Event>>,
    pub(super) ready: oneshot::Sender<Result<(), BindError>>,
}

/// What comes from handles.
pub(super) enum Mail {
    Command(Command),
    Stream(BoxedStream, Peer),
}

/// The whole life of a shard.
pub(super) fn thread(start: Start) -> Result<(), ServeError> {
    match Builder::new_current_thread().enable_io().enable_time().build_local(LocalOptions::default()) {
        Ok(runtime) => runtime.block_on(shard(start)),
        Err(e) => {
            // Whoever waits for this has given up if nobody takes it.
            let _ = start.ready.send(Err(e.into()));
            Ok(())
        }
    }
}

async fn shard(start: Start) -> Result<(), ServeError> {
    let Start { broker, acls, listeners, read_buffer, office, mail, answered, events, ready } = start;
    let clock = Clock::start();
    let made = Shard::new(broker, clock.now()).map_err(BindError::from).and_then(|shard| {
        let listeners = listeners
            .into_iter()
            .map(|(listener, settings)| TcpListener::from_std(listener).map(|listener| (listener, settings)));
        Ok((shard, listeners.collect::<Result<Vec<_>, _>>()?))
    });
    let (shard, listeners) = match made {
        Ok(made) => made,
        Err(e) => {
            let _ = ready.send(Err(e));
            return Ok(());
        }
    };
    let node = Rc::new(Node::new(shard, clock, read_buffer, office, events));
    spawn_local(flusher(Rc::clone(&node)));
    spawn_local(timer(Rc::clone(&node)));
    // Before anybody is let in.
    node.turn(|shard, now| shard.command(now, Command::SetAcls(acls, Box::new(|()| {}))));
    let accepting = listeners
        .into_iter()
        .map(|(listener, settings)| spawn_local(accept(Rc::clone(&node), listener, settings)).abort_handle());
    spawn_local(receive(Rc::clone(&node), mail, accepting.collect()));
    spawn_local(answer(Rc::clone(&node), answered));
    let _ = ready.send(Ok(()));
    node.ended().await.map_err(ServeError::Panicked)
}

/// Does what handles want. When the last of them is gone, the broker ends.
async fn receive(node: Rc<Node>, mut mail: mpsc::Receiver<Mail>, accepting: Vec<AbortHandle>) {
    while let Some(first) = mail.recv().await {
        let mut next = Some(first);
        let mut left = COMMANDS_PER_TURN;
        while let Some(taken) = next.take() {
            match taken {
                Mail::Stream(stream, peer) => foreign::open(&node, stream, peer),
                Mail::Command(command) => {
                    if matches!(command, Command::Shutdown) {
                        stop(&accepting);
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
    stop(&accepting);
    node.turn(|shard, now| shard.command(now, Command::Shutdown));
}

/// Closes the listeners.
fn stop(accepting: &[AbortHandle]) {
    accepting.iter().for_each(AbortHandle::abort);
}

/// Passes on what the authorizer decided.
async fn answer(node: Rc<Node>, mut answered: mpsc::UnboundedReceiver<Command>) {
    while let Some(answer) = answered.recv().await {
        node.turn(|shard, now| shard.command(now, answer));
    }
}

//! The broker from outside its thread.

use super::run::Mail;
use crate::runtime::{Runtime, Wrap};
use crate::{Command, Reply, Stack, Taken, TransportStats};
use mqtt_proto::{EncodeError, ReasonCode, SubscriptionOptions};
use mqtt_session::acl::Acl;
use mqtt_session::broker::{Event, LocalId, Peer, Stats};
use mqtt_session::{Message, PublishError};
use mqtt_store::{StorageHandle, StorageStats};
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

/// The broker has ended, or ended before it could answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the broker has ended")]
pub struct Ended;

/// So many were dropped because they were not taken in time; what follows is complete again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} were dropped because they were not taken in time")]
pub struct Lagged(pub u64);

/// Why a message was not published.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishFailed {
    /// The broker did not take it; it is handed back inside.
    #[error(transparent)]
    Refused(#[from] PublishError),
    /// The broker has ended.
    #[error(transparent)]
    Ended(#[from] Ended),
}

/// Why there is no subscription.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeFailed {
    /// The filter breaks a rule.
    #[error(transparent)]
    Invalid(#[from] EncodeError),
    /// The broker has ended.
    #[error(transparent)]
    Ended(#[from] Ended),
}

/// Why a broker ended that nobody shut down.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// Its thread panicked; the message of the panic. All connections were cut.
    #[error("the broker panicked: {0}")]
    Panicked(String),
    /// The sockets can be watched no more; what the runtime or the system said. All connections were cut.
    #[error("the sockets can be watched no more: {0}")]
    Watch(String),
    /// Not everything could be stored. What was acknowledged is.
    #[error("the last changes could not be stored: {0}")]
    Store(String),
}

/// A running broker. Cloning gives another handle of the same one; when the last is dropped, it is
/// shut down as by [`BrokerHandle::shutdown`], without anybody waiting for the end.
///
/// All async methods are cancel safe in this way: before the first poll nothing has happened; once the
/// broker has taken the command, dropping the future neither withdraws nor repeats it.
#[derive(Clone, Debug)]
pub struct BrokerHandle<R> {
    /// Of all shards. What is not about all of them goes to the first.
    mailboxes: Arc<[mpsc::Sender<Mail>]>,
    events: broadcast::WeakSender<Arc<Event>>,
    end: watch::Receiver<Option<Result<(), ServeError>>>,
    addresses: Arc<[SocketAddr]>,
    storage: Option<StorageHandle>,
    backlog: usize,
    runtime: PhantomData<fn() -> R>,
}

impl<R: Runtime> BrokerHandle<R> {
    pub(super) fn new(
        mailboxes: Arc<[mpsc::Sender<Mail>]>,
        events: broadcast::WeakSender<Arc<Event>>,
        end: watch::Receiver<Option<Result<(), ServeError>>>,
        addresses: Vec<SocketAddr>,
        storage: Option<StorageHandle>,
        backlog: usize,
    ) -> Self {
        let addresses = addresses.into();
        Self { mailboxes, events, end, addresses, storage, backlog, runtime: PhantomData }
    }

    /// What the store has done so far; `None` if nothing is stored.
    #[must_use]
    pub fn storage_stats(&self) -> Option<StorageStats> {
        self.storage.as_ref().map(StorageHandle::stats)
    }

    /// The addresses that are listened on, in the order of [`Config::listeners`](super::Config).
    #[must_use]
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Publishes, and tells how many subscribers get the message; of those on other shards than the first
    /// each shard counts as one. Waits while the mailbox is full.
    ///
    /// # Errors
    /// If the message breaks a rule or a limit, or the broker has ended.
    pub async fn publish(&self, message: Message) -> Result<usize, PublishFailed> {
        Ok(self.ask(|reply| Command::Publish(message, reply)).await??)
    }

    /// Subscribes the program itself. Dropping the [`Messages`] ends the subscription.
    ///
    /// # Errors
    /// If `filter` is no topic filter, or the broker has ended.
    pub async fn subscribe(
        &self,
        filter: impl Into<String>,
        options: SubscriptionOptions,
    ) -> Result<Messages, SubscribeFailed> {
        let filter = filter.into();
        let (to, messages) = mpsc::channel(self.backlog);
        let dropped = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&dropped);
        let sink = Arc::new(move |message| match to.try_send(message) {
            Ok(()) => Taken::Yes,
            Err(TrySendError::Full(_)) => {
                counter.fetch_add(1, Ordering::Relaxed);
                Taken::Yes
            }
            Err(TrySendError::Closed(_)) => Taken::Gone,
        });
        let subscribe = |reply| Command::Subscribe { filter, options, sink, reply };
        let id = self.ask(subscribe).await??;
        Ok(Messages { messages, dropped, id, mailbox: self.first().downgrade() })
    }

    /// Closes the connection of a client, which 5.0 tells the reason, and tells whether it had one.
    ///
    /// # Errors
    /// If the broker has ended.
    pub async fn disconnect(&self, client_id: impl Into<String>, reason: ReasonCode) -> Result<bool, Ended> {
        let client_id = client_id.into();
        let found = self.ask_all(|reply| Command::Disconnect(client_id.clone(), reason, reply)).await?;
        Ok(found.contains(&true))
    }

    /// Puts these tables of rights in place of those that there are: see
    /// [`Broker::set_acls`](mqtt_session::Broker::set_acls). When this returns, they are in force.
    ///
    /// # Errors
    /// If the broker has ended.
    pub async fn set_acls(&self, acls: Vec<Arc<Acl>>) -> Result<(), Ended> {
        self.ask_all(|reply| Command::SetAcls(acls.clone(), reply)).await?;
        Ok(())
    }

    /// Closes the connections of all clients with one of these user names (`None`: without one), which
    /// 5.0 tells the reason, and tells how many that were.
    ///
    /// # Errors
    /// If the broker has ended.
    pub async fn disconnect_users(
        &self,
        users: Vec<Option<String>>,
        reason: ReasonCode,
    ) -> Result<usize, Ended> {
        let closed = self.ask_all(|reply| Command::DisconnectUsers(users.clone(), reason, reply)).await?;
        Ok(closed.into_iter().sum())
    }

    /// The broker's figures, of all shards together.
    ///
    /// # Errors
    /// If the broker has ended.
    pub async fn stats(&self) -> Result<Stats, Ended> {
        let mut sum = Stats::default();
        self.ask_all(Command::Stats).await?.into_iter().for_each(|stats| sum += stats);
        Ok(sum)
    }

    /// What lies below MQTT: how TLS, WebSocket and PROXY headers went, of all shards together.
    ///
    /// # Errors
    /// If the broker has ended.
    pub async fn transport_stats(&self) -> Result<TransportStats, Ended> {
        let mut sum = TransportStats::default();
        self.ask_all(Command::Transports).await?.into_iter().for_each(|stats| sum += stats);
        Ok(sum)
    }

    /// How many shards there are.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.mailboxes.len()
    }

    /// Serves a client at the other end of any stream: a pipe, a Unix socket, a tunnel. Returns when
    /// the stream was handed over; from then on the broker's thread drives it.
    ///
    /// # Errors
    /// If the broker has ended.
    pub async fn serve_stream<S>(&self, stream: S, peer: Peer) -> Result<(), Ended>
    where
        R: Wrap<S>,
    {
        self.serve_layered(stream, Stack::plain(), peer).await
    }

    /// As [`BrokerHandle::serve_stream`], of a stream that carries MQTT in the layers of `stack`: TLS, WebSocket.
    ///
    /// # Errors
    /// If the broker has ended.
    pub async fn serve_layered<S>(&self, stream: S, stack: Stack, peer: Peer) -> Result<(), Ended>
    where
        R: Wrap<S>,
    {
        self.first().send(Mail::Stream(Box::pin(R::wrap(stream)), stack, peer)).await.map_err(|_| Ended)
    }

    /// What happens from now on.
    #[must_use]
    pub fn events(&self) -> Events {
        Events(match self.events.upgrade() {
            Some(events) => events.subscribe(),
            // The broker has ended: a channel that has, too.
            None => broadcast::channel(1).1,
        })
    }

    /// Waits until the broker ends.
    ///
    /// # Errors
    /// If it did not end in order.
    pub async fn serve(&self) -> Result<(), ServeError> {
        let mut end = self.end.clone();
        match end.wait_for(Option::is_some).await {
            Ok(end) => end.clone().unwrap_or(Ok(())),
            Err(_) => Err(ServeError::Panicked("its thread is gone".to_owned())),
        }
    }

    /// Shuts the broker down and waits for its end: listeners close, every client is told and given
    /// [`BrokerConfig::close_timeout`](super::BrokerConfig::close_timeout) to take what is on its way.
    ///
    /// # Errors
    /// If it does not end in order.
    pub async fn shutdown(&self) -> Result<(), ServeError> {
        for mailbox in &*self.mailboxes {
            // If it has ended already, that is what was wanted.
            let _ = mailbox.send(Mail::Command(Command::Shutdown)).await;
        }
        self.serve().await
    }

    /// Makes the broker panic, to test what happens then.
    #[doc(hidden)]
    pub async fn panic(&self) {
        let _ = self.first().send(Mail::Command(Command::Panic)).await;
    }

    pub(super) async fn ask<T: Send + 'static>(
        &self,
        command: impl FnOnce(Reply<T>) -> Command,
    ) -> Result<T, Ended> {
        let reply = put_question(self.first(), command).await?;
        reply.await.map_err(|_| Ended)
    }

    /// The mailboxes of all shards.
    pub(super) fn mailboxes(&self) -> &[mpsc::Sender<Mail>] {
        &self.mailboxes
    }

    /// The mailbox of the first shard.
    fn first(&self) -> &mpsc::Sender<Mail> {
        // There is always one.
        &self.mailboxes[0]
    }

    /// Asks every shard, all at once, and gives their answers in the order of their numbers.
    pub(super) async fn ask_all<T: Send + 'static>(
        &self,
        command: impl Fn(Reply<T>) -> Command,
    ) -> Result<Vec<T>, Ended> {
        let mut replies = Vec::with_capacity(self.mailboxes.len());
        for mailbox in &*self.mailboxes {
            replies.push(put_question(mailbox, &command).await?);
        }
        let mut answers = Vec::with_capacity(replies.len());
        for reply in replies {
            answers.push(reply.await.map_err(|_| Ended)?);
        }
        Ok(answers)
    }
}

pub(super) async fn put_question<T: Send + 'static>(
    mailbox: &mpsc::Sender<Mail>,
    command: impl FnOnce(Reply<T>) -> Command,
) -> Result<oneshot::Receiver<T>, Ended> {
    let (to, reply) = oneshot::channel();
    let command = command(Box::new(move |value| {
        // Whoever asked may have lost interest.
        let _ = to.send(value);
    }));
    mailbox.send(Mail::Command(command)).await.map_err(|_| Ended)?;
    Ok(reply)
}

/// The messages of one subscription of the program itself.
#[derive(Debug)]
pub struct Messages {
    messages: mpsc::Receiver<Message>,
    dropped: Arc<AtomicU64>,
    id: LocalId,
    mailbox: mpsc::WeakSender<Mail>,
}

impl Messages {
    /// The next message; `None` when the broker has ended. Cancel safe: no message is lost by
    /// dropping the future.
    ///
    /// # Errors
    /// [`Lagged`], once, if messages were dropped since the last call; then go on.
    pub async fn recv(&mut self) -> Result<Option<Message>, Lagged> {
        match self.dropped.swap(0, Ordering::Relaxed) {
            0 => Ok(self.messages.recv().await),
            n => Err(Lagged(n)),
        }
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        if let Some(mailbox) = self.mailbox.upgrade() {
            // If the mailbox is full, the next message finds nobody and ends the subscription.
            let _ = mailbox.try_send(Mail::Command(Command::Unsubscribe(self.id)));
        }
    }
}

/// What happens in the broker.
#[derive(Debug)]
pub struct Events(broadcast::Receiver<Arc<Event>>);

impl Events {
    /// The next event; `None` when the broker has ended. Cancel safe: no event is lost by dropping
    /// the future.
    ///
    /// # Errors
    /// [`Lagged`] if events were dropped; then go on.
    pub async fn recv(&mut self) -> Result<Option<Arc<Event>>, Lagged> {
        match self.0.recv().await {
            Ok(event) => Ok(Some(event)),
            Err(broadcast::error::RecvError::Closed) => Ok(None),
            Err(broadcast::error::RecvError::Lagged(n)) => Err(Lagged(n)),
        }
    }
}

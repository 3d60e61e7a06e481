//! The client without a runtime: a handle that is cheap to clone, a driver task that does the work,
//! and streams.
//!
//! Programs use it through an adapter, whose types are these with its runtime for `R`, and which says
//! how they are used.
//!
//! The driver runs whether or not anything is polled, connects again by itself, and never stops
//! reading because a stream is full: publishing from a receive loop cannot deadlock.

mod auth;
mod driver;
mod error;
mod layered;
mod options;
mod queue;
mod routes;
mod server;
mod shared;
mod stream;

pub use auth::{AuthFailed, AuthHandler};
pub use error::Error;
pub use layered::{Dialed, Layered};
pub use options::{Options, Tcp};
pub use server::{Server, Target};
pub use stream::{Delivery, Item, Subscription};

use crate::runtime::{Connect, Runtime, until};
use mqtt_proto::{PropertiesBuf, Property, QoS, ReasonCode, SubscriptionOptions};
use mqtt_session::client::{Cause, Connected, DisconnectOptions, Outcome};
use mqtt_session::{Message, PublishErrorKind};
use shared::{Pending, Shared};
use std::io;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{oneshot, watch};

/// A handle of a client. Clones are handles of the same client.
#[derive(Clone, Debug)]
pub struct Client<R> {
    handle: Arc<Handle>,
    runtime: PhantomData<fn() -> R>,
}

/// The last one to go disconnects.
#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.command(|inner, now| inner.machine.disconnect(now, DisconnectOptions::default()));
    }
}

impl Handle {
    async fn unsubscribe(&self, filters: &[&str]) -> Result<(), Error> {
        let codes = self.ask(|machine, now| machine.unsubscribe(now, filters, &PropertiesBuf::new())).await?;
        match codes.into_iter().find(|code| code.is_error()) {
            Some(reason) => Err(Error::Refused(reason)),
            None => Ok(()),
        }
    }

    async fn ask<E: Into<Error>>(
        &self,
        command: impl FnOnce(
            &mut mqtt_session::client::Client,
            mqtt_session::Timestamp,
        ) -> Result<mqtt_session::client::Token, E>,
    ) -> Result<Vec<ReasonCode>, Error> {
        match self.shared.request(command)?.await? {
            Outcome::Granted(granted) => Ok(granted.codes),
            other => Err(Error::of(other)),
        }
    }
}

/// How a client is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum State {
    /// The first attempt is under way.
    Connecting,
    /// The server accepted the connection.
    Connected(Arc<Connected>),
    /// There is no connection, and the next attempt comes.
    Disconnected {
        /// Why there is none.
        cause: Cause,
        /// What the system said, if it was the system.
        io: Option<Arc<io::Error>>,
        /// When the next attempt comes, counted from the moment of this state.
        retry_in: Duration,
    },
    /// The client has ended: it disconnected, or gave up.
    Closed {
        /// Why.
        cause: Cause,
        /// What the system said, if it was the system.
        io: Option<Arc<io::Error>>,
    },
}

/// The server's word that it has a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// The server's code (5.0): success, or that there are no matching subscribers.
    pub reason: ReasonCode,
    /// The properties of the acknowledgement (5.0).
    pub properties: PropertiesBuf,
}

/// Resolves when the server has a message (QoS 0: when the connection took it).
///
/// Cancel safety: dropping it neither withdraws the message nor sends it again.
#[derive(Debug)]
#[must_use = "the message is sent all the same; await this, or drop it if its fate does not matter"]
pub struct Completion {
    pending: Pending,
}

impl Future for Completion {
    type Output = Result<Receipt, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.pending).poll(cx).map(|outcome| match outcome? {
            Outcome::Sent => Ok(Receipt::default()),
            Outcome::Acked { reason, properties } if !reason.is_error() => Ok(Receipt { reason, properties }),
            other => Err(Error::of(other)),
        })
    }
}

impl<R: Runtime> Client<R> {
    fn new(shared: Arc<Shared>) -> Self {
        Self { handle: Arc::new(Handle { shared }), runtime: PhantomData }
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }

    /// Connects to the server at `mqtt://[user[:password]@]host[:port]` with default settings; other
    /// URLs are those of [`Options::from_url`]. [`Options`] has all settings.
    ///
    /// Cancel safety: dropping the future disconnects.
    ///
    /// # Errors
    /// If the URL is none, or the connection does not come about.
    pub async fn connect(url: &str) -> Result<Self, Error>
    where
        R: Connect<Server> + Default,
    {
        Options::<R>::from_url(url)?.connect().await
    }

    /// How the client is, and each change of that.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<State> {
        self.shared().state.subscribe()
    }

    // ---- publishing ----

    /// Publishes, and waits until the server has the message (QoS 0: until the connection took it).
    /// While the queue is full, it waits for room first. Without a connection the message waits.
    ///
    /// Cancel safety: before its first poll nothing happened; once the message was accepted, dropping
    /// the future neither withdraws nor repeats it.
    ///
    /// # Errors
    /// If the message is not taken (and then it is in the error), the server refuses it, or it is
    /// lost.
    pub async fn publish(&self, message: Message) -> Result<Receipt, Error> {
        self.enqueue(message).await?.await
    }

    /// Publishes, and waits only while the queue is full. What becomes of the message is told by what
    /// it returns.
    ///
    /// Cancel safety: as for [`Client::publish`].
    ///
    /// # Errors
    /// If the message is not taken; it is in the error.
    pub async fn enqueue(&self, message: Message) -> Result<Completion, Error> {
        let mut message = message;
        match self.try_publish(message) {
            Err(Error::Publish(error)) if error.kind == PublishErrorKind::QueueFull => {
                message = error.into_message();
            }
            done => return done,
        }
        let shared = self.shared();
        let _waiting = WaitingForRoom::new(shared);
        loop {
            // Listening begins before trying, so that no room is missed.
            let room = shared.room.notified();
            match self.try_publish(message) {
                Err(Error::Publish(error)) if error.kind == PublishErrorKind::QueueFull => {
                    message = error.into_message();
                }
                done => return done,
            }
            room.await;
        }
    }

    /// Publishes without waiting.
    ///
    /// # Errors
    /// If the message is not taken, also because the queue is full; it is in the error.
    pub fn try_publish(&self, message: Message) -> Result<Completion, Error> {
        let pending = self.shared().request(|machine, now| machine.publish(now, message))?;
        Ok(Completion { pending })
    }

    /// Publishes a request, and waits for the response (5.0). The message gets a response topic and
    /// correlation data; the responder publishes to that topic, with that data.
    ///
    /// Cancel safety: the request may have been sent; a response to it is dropped.
    ///
    /// # Errors
    /// As [`Client::publish`], and [`Error::Timeout`] if no response comes in time.
    pub async fn request(
        &self,
        topic: impl Into<String>,
        payload: impl Into<bytes::Bytes>,
    ) -> Result<Message, Error> {
        self.request_with(Message::new(topic, payload).with_qos(QoS::AtLeastOnce)).await
    }

    /// As [`Client::request`], for a message with more to it.
    ///
    /// # Errors
    /// As [`Client::request`].
    pub async fn request_with(&self, mut message: Message) -> Result<Message, Error> {
        let shared = self.shared();
        let inbox = shared.inbox.get_or_try_init(|| self.open_inbox()).await?;
        let (id, response) = shared.lock().routes.expect_response();
        let _expected = ExpectedResponse { shared, id };
        let invalid = |error: mqtt_proto::EncodeError| Error::Invalid(error.violation());
        let mut properties = PropertiesBuf::new();
        properties.push(Property::ResponseTopic(inbox)).map_err(invalid)?;
        properties.push(Property::CorrelationData(&shared::correlation(id))).map_err(invalid)?;
        properties.extend_except(message.properties.as_properties(), &shared::REQUEST_PROPERTIES);
        message.properties = properties;
        let answered = async {
            self.publish(message).await?;
            response.await.map_err(|_| self.closed_error())
        };
        let late = shared.instant() + shared.limits.request_timeout;
        until::<R::Timer, _>(late, answered).await.ok_or(Error::Timeout)?
    }

    /// Subscribes to the topic that responses are sent to, once.
    async fn open_inbox(&self) -> Result<String, Error> {
        let shared = self.shared();
        let base = match &*shared.state.borrow() {
            State::Connected(connected) => {
                connected.properties.as_properties().response_information().map(str::to_owned)
            }
            _ => None,
        };
        let base = base.unwrap_or_else(|| "responses".to_owned());
        let topic = format!("{}/{}", base.trim_end_matches('/'), shared.inbox_name);
        if !shared.lock().machine.version().is_v5() {
            return Err(Error::NotSupported(ReasonCode::UnsupportedProtocolVersion));
        }
        self.ask_subscribe(&[(&topic, QoS::AtLeastOnce.into())], &PropertiesBuf::new()).await?;
        Ok(topic)
    }

    // ---- subscribing ----

    /// Subscribes to one filter. Messages that match come by the returned stream, also those that
    /// arrive before the server's answer.
    ///
    /// Cancel safety: before its first poll nothing happened; dropping the future afterwards drops the
    /// stream, not the subscription.
    ///
    /// # Errors
    /// If the filter breaks a rule or the server refuses it.
    pub async fn subscribe(
        &self,
        filter: &str,
        options: impl Into<SubscriptionOptions>,
    ) -> Result<Subscription, Error> {
        self.subscribe_all(&[(filter, options.into())], &PropertiesBuf::new()).await
    }

    /// Subscribes to several filters with one stream. [`Subscription::granted`] tells which of them
    /// the server granted.
    ///
    /// Cancel safety: as for [`Client::subscribe`].
    ///
    /// # Errors
    /// If a filter breaks a rule, or the server refuses all of them.
    pub async fn subscribe_all(
        &self,
        filters: &[(&str, SubscriptionOptions)],
        properties: &PropertiesBuf,
    ) -> Result<Subscription, Error> {
        let names: Vec<String> = filters.iter().map(|(filter, _)| (*filter).to_owned()).collect();
        // First the stream: messages may come before the answer.
        let (id, queue) = self.shared().add_stream(&names);
        let mut stream = Subscription::new(self.handle.clone(), queue, Some(id), names);
        stream.granted = self.ask_subscribe(filters, properties).await?;
        Ok(stream)
    }

    async fn ask_subscribe(
        &self,
        filters: &[(&str, SubscriptionOptions)],
        properties: &PropertiesBuf,
    ) -> Result<Vec<ReasonCode>, Error> {
        let codes = self.handle.ask(|machine, now| machine.subscribe(now, filters, properties)).await?;
        match codes.iter().find(|code| code.is_error()) {
            Some(&reason) if codes.iter().all(|code| code.is_error()) => Err(Error::Refused(reason)),
            _ => Ok(codes),
        }
    }

    /// Gives subscriptions back that no stream stands for, as those of an earlier run of the
    /// application. For others there is [`Subscription::unsubscribe`].
    ///
    /// Cancel safety: once polled, the request is made, and dropping the future does not take it back.
    ///
    /// # Errors
    /// If a filter breaks a rule or the server refuses.
    pub async fn unsubscribe(&self, filters: &[&str]) -> Result<(), Error> {
        self.handle.unsubscribe(filters).await
    }

    /// The messages that match no stream's filter: those of a session from before, for instance. A few
    /// are kept from the start until somebody takes them ([`Options::unclaimed_capacity`]); what goes
    /// beyond is acknowledged and dropped, and counted. `None` while somebody else has the stream.
    #[must_use]
    pub fn unclaimed(&self) -> Option<Subscription> {
        let queue = self.shared().lock().routes.take_unclaimed()?;
        Some(Subscription::new(self.handle.clone(), queue, None, Vec::new()))
    }

    // ---- the rest ----

    /// Authenticates again on the live connection (5.0), beginning with `data`; further steps are the
    /// [`AuthHandler`]'s.
    ///
    /// Cancel safety: once polled, the exchange has begun, and goes on.
    ///
    /// # Errors
    /// If no exchange can begin, or the connection ends before it succeeds.
    pub async fn reauthenticate(&self, data: &[u8]) -> Result<(), Error> {
        let (sender, done) = oneshot::channel();
        self.shared().command(|inner, now| {
            inner.machine.reauthenticate(now, data)?;
            inner.reauth.push(sender);
            Ok::<_, Error>(())
        })?;
        done.await.map_err(|_| Error::LinkLost)
    }

    /// Sends what was accepted and waits for the answers, at most five seconds; then sends DISCONNECT,
    /// closes the connection, and ends the client.
    ///
    /// Cancel safety: once polled, the client disconnects, whether or not the future is dropped.
    ///
    /// # Errors
    /// If the client had ended for another reason.
    pub async fn disconnect(&self) -> Result<(), Error> {
        self.disconnect_with(DisconnectOptions::default()).await
    }

    /// As [`Client::disconnect`], with a reason, another session expiry, or another time to wait.
    ///
    /// # Errors
    /// As [`Client::disconnect`].
    pub async fn disconnect_with(&self, options: DisconnectOptions) -> Result<(), Error> {
        let mut state = self.state();
        self.shared().command(|inner, now| inner.machine.disconnect(now, options));
        // Fails only without a sender, which this handle keeps.
        let _ = state.wait_for(|state| matches!(state, State::Closed { .. })).await;
        match self.closed_error() {
            Error::Closed(Cause::Requested) => Ok(()),
            error => Err(error),
        }
    }

    fn closed_error(&self) -> Error {
        let closed = &self.shared().lock().closed;
        Error::Closed(closed.as_ref().map_or(Cause::Requested, |(cause, _)| *cause))
    }
}

/// Counts a publisher that waits for room.
struct WaitingForRoom<'a>(&'a Shared);

impl<'a> WaitingForRoom<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.waiting_for_room.fetch_add(1, Ordering::AcqRel);
        Self(shared)
    }
}

impl Drop for WaitingForRoom<'_> {
    fn drop(&mut self) {
        self.0.waiting_for_room.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Forgets a request when nobody waits for its response any more.
struct ExpectedResponse<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Drop for ExpectedResponse<'_> {
    fn drop(&mut self) {
        self.shared.lock().routes.forget_response(self.id);
    }
}

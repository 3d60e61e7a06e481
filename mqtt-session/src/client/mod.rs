//! The client machine.
//!
//! [`Client`] owns the whole life of an MQTT client: connecting, resuming the session, sending and
//! sending again, acknowledging in order, keeping alive, and connecting again. It must never read a
//! clock, touch a socket, wait, or fail on anything that a server sends.
//!
//! State is kept apart by how long it lives: `session` outlives a connection, `link` dies with it.

mod bundle;
mod config;
mod connect;
mod event;
mod link;
mod outbox;
mod outputs;
mod persist;
mod publish;
mod receive;
mod reconnect;
mod session;
mod subscribe;

pub use bundle::{Bundle, Head, ReceivedRef};
pub use config::{AckMode, Authentication, Backoff, CleanStart, ClientConfig, ConfigError, Will};
pub use connect::DisconnectOptions;
pub use event::{
    AckError, AuthError, AuthStep, Cause, Connected, Delivery, Disconnected, Event, Granted, Limits,
    LinkDown, Outcome, Output, Received, RequestError, Token,
};
pub use outbox::Outbox;

use crate::Timestamp;
use crate::random::{Purpose, Random};
use crate::shared::rules::Rules;
use crate::store::{StoreOp, StoreSeq, StoredClock};
use alloc::vec;
use alloc::vec::Vec;
use connect::Closing;
use core::time::Duration;
use link::Link;
use mqtt_proto::Version;
use outputs::Outputs;
use persist::StoreLog;
use reconnect::Phase;
use session::Session;

/// How often the store is told the wall clock at most.
const CLOCK_EVERY: Duration = Duration::from_secs(10);

/// An MQTT client without a socket.
///
/// Its methods come in four kinds:
///
/// * **Getters** look.
/// * **`handle_*`** tell it what happened. They never fail and never block.
/// * **Commands** ([`connect`](Self::connect), [`publish`](Self::publish),
///   [`subscribe`](Self::subscribe), [`ack`](Self::ack), ...) tell it what the application wants.
///   They are checked at once, and hand back what they do not take.
/// * **`poll_*`** and [`outbox`](Self::outbox) tell what is to be done now.
///
/// After any `handle_*` and any command, do this, in this order:
///
/// 1. Call [`poll_output`](Self::poll_output) until it returns `None`, and obey each output.
/// 2. If there was an [`Output::Flush`], drain [`outbox`](Self::outbox) as far as the connection takes
///    it, and go back to 1: bytes taken are an input too. If bytes remain, drain on when the
///    connection is writable.
/// 3. Sleep until [`poll_timeout`](Self::poll_timeout), or until something happens. When the time has
///    come, call [`handle_timeout`](Self::handle_timeout); calling it early is harmless.
///
/// Each method that takes a time may be given an older one than before; the newest counts.
///
/// ```
/// use mqtt_session::client::{Client, ClientConfig, Output};
/// use mqtt_session::{Message, Timestamp};
///
/// let now = Timestamp::ZERO;
/// let mut client = Client::new(ClientConfig::new("meter-17"), now)?;
/// client.publish(now, Message::new("meters/17", "230.1"))?; // waits in the queue
/// client.connect(now);
/// assert_eq!(client.poll_output(), Some(Output::Dial { attempt: 1 }));
/// client.handle_link_up(now); // the adapter opened a connection
/// assert_eq!(client.poll_output(), Some(Output::Flush));
/// let mut slices = [&[][..]; 4];
/// assert_eq!(client.outbox(now, 65_536).fill_slices(&mut slices), 1); // CONNECT
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Client {
    config: ClientConfig,
    now: Timestamp,
    phase: Phase,
    /// Failed attempts since the last lasting connection.
    attempt: u32,
    /// There was a CONNACK that accepted.
    was_online: bool,
    session: Session,
    link: Option<Link>,
    links: u32,
    last_token: u64,
    store: StoreLog,
    /// When the store was last told the wall clock.
    clock_stored: Option<Timestamp>,
    /// `disconnect` was called and is not carried out.
    closing: Option<Closing>,
    outputs: Outputs,
    flush_queued: bool,
    random: Random,
}

const _: () = {
    const fn is_send<T: Send>() {}
    is_send::<Client>();
};

impl Client {
    /// A client that does nothing until [`connect`](Self::connect).
    ///
    /// # Errors
    /// Names the setting that cannot work.
    pub fn new(config: ClientConfig, now: Timestamp) -> Result<Self, ConfigError> {
        config.check()?;
        let mut session = Session { client_id: config.client_id.clone(), ..Session::default() };
        session.ledger.start_ids(config.first_packet_id);
        let store = StoreLog::new(config.durability);
        let mut client = Self::assemble(config, now, session, store, 0);
        let put = persist::put_session(client.store.session, &client.session, &client.config, 0);
        client.store_ops(|| vec![put]);
        Ok(client)
    }

    /// A client that goes on where an earlier one stopped: `ops` are the operations that its store
    /// holds, or all it ever stored, in order. Times in them are those of the earlier client, so `now`
    /// has to continue its count.
    ///
    /// What the server had not acknowledged is sent again, and tokens keep their numbers.
    ///
    /// # Errors
    /// Names the setting that cannot work.
    pub fn restore(
        config: ClientConfig,
        now: Timestamp,
        ops: impl IntoIterator<Item = StoreOp>,
    ) -> Result<Self, ConfigError> {
        config.check()?;
        let (session, store, last_token) = persist::restore(&config, ops);
        let expiry = if session.established { config.session_expiry_secs.max(1) } else { 0 };
        let mut client = Self::assemble(config, now, session, store, last_token);
        let put = persist::put_session(client.store.session, &client.session, &client.config, expiry);
        client.store_ops(|| vec![put]);
        Ok(client)
    }

    fn assemble(
        config: ClientConfig,
        now: Timestamp,
        session: Session,
        store: StoreLog,
        last_token: u64,
    ) -> Self {
        Self {
            random: Random::new(config.seed, 0, Purpose::Backoff),
            config,
            now,
            phase: Phase::New,
            attempt: 0,
            was_online: false,
            session,
            link: None,
            links: 0,
            last_token,
            store,
            clock_stored: None,
            closing: None,
            outputs: Outputs::default(),
            flush_queued: false,
        }
    }

    // ---- getters ----

    /// Whether the server has accepted the present connection.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.link.as_ref().is_some_and(Link::is_online)
    }

    /// Whether the client has stopped: it was not started, was disconnected, or gave up.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        matches!(self.phase, Phase::New | Phase::Stopped)
    }

    /// What the server supports; `None` without a connection.
    #[must_use]
    pub fn limits(&self) -> Option<&Limits> {
        self.link.as_ref().filter(|link| link.is_online()).map(|link| &link.limits)
    }

    /// The client identifier in force; empty until the server has assigned one.
    #[must_use]
    pub fn client_id(&self) -> &str {
        &self.session.client_id
    }

    /// The version that is spoken.
    #[must_use]
    pub fn version(&self) -> Version {
        self.config.version
    }

    /// How many messages wait to be sent for the first time.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.session.queue.len()
    }

    /// How many QoS 1 and 2 messages hold an identifier and are not acknowledged.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.session.ledger.len()
    }

    /// Whether the queue has room for a message of `size` bytes ([`Message::size`](crate::Message::size)).
    #[must_use]
    pub fn has_room(&self, size: usize) -> bool {
        let session = &self.session;
        session.queue.len() < self.config.max_queued_messages
            && self.config.max_queued_bytes.saturating_sub(session.queue_bytes) >= size
    }

    // ---- inputs ----

    /// Time has passed. Does everything that is due; calling it early is harmless.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        let now = self.advance(now);
        self.expire_queue(now);
        self.check_timers(now);
        self.finish_closing(now);
    }

    /// What the clock on the wall says, in milliseconds since 1970; to be told now and then. It is
    /// needed only to tell how long a client with a store was down, and stored every ten seconds at
    /// most.
    pub fn handle_wall_clock(&mut self, now: Timestamp, unix_ms: u64) {
        let now = self.advance(now);
        if self.clock_stored.is_none_or(|last| now.since(last) >= CLOCK_EVERY) {
            self.clock_stored = Some(now);
            self.store_ops(|| vec![StoreOp::PutClock(StoredClock { time: now, unix_ms })]);
        }
    }

    /// The store has everything up to `through`.
    pub fn handle_stored(&mut self, now: Timestamp, through: StoreSeq) {
        let now = self.advance(now);
        self.store.confirm(through);
        self.flush();
        self.finish_closing(now);
    }

    /// The store failed. Everything that it did not confirm is emitted again, to be given to it once
    /// it works; until all of that is confirmed, messages above QoS 0 are refused, and nothing that
    /// depends on the store is sent.
    pub fn handle_store_failed(&mut self, now: Timestamp) {
        self.advance(now);
        for (seq, group) in self.store.fail() {
            self.outputs.push(Output::Store(seq, group));
        }
    }

    // ---- outputs ----

    /// The next thing to do. Call it until it returns `None`.
    #[inline]
    pub fn poll_output(&mut self) -> Option<Output> {
        let output = self.outputs.pop()?;
        if output == Output::Flush {
            self.flush_queued = false;
        }
        Some(output)
    }

    /// The next thing to do, if that is a small message: in place, without the memory that
    /// [`poll_output`](Self::poll_output) takes for each. `None` says nothing about other outputs.
    #[inline]
    pub fn poll_message(&mut self) -> Option<ReceivedRef<'_>> {
        self.outputs.pop_message()
    }

    /// All small messages that there are, if they are next and nothing else stands between them.
    #[inline]
    #[must_use]
    pub fn messages(&self) -> Option<&Bundle> {
        self.outputs.messages()
    }

    /// Takes the [`messages`](Self::messages) as a whole: they are in `with` then, and the memory that `with` had is
    /// used for those that come. False, and nothing, if there are none, or if `with` has some.
    pub fn swap_messages(&mut self, with: &mut Bundle) -> bool {
        self.outputs.swap_messages(with)
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due; `None` if nothing depends on time. May
    /// change with every call of another method.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let timers = [
            self.phase.deadline(),
            self.link_deadline(),
            self.session.next_expiry,
            self.closing.as_ref().map(|closing| closing.deadline),
        ];
        timers.into_iter().flatten().min()
    }

    // ---- inside ----

    /// Time never goes back.
    fn advance(&mut self, now: Timestamp) -> Timestamp {
        self.now = self.now.max(now);
        self.now
    }

    fn event(&mut self, event: Event) {
        self.outputs.push(Output::Event(event));
    }

    fn done(&mut self, token: Token, outcome: Outcome) {
        self.event(Event::Done { token, outcome });
    }

    /// There may be something to send.
    fn flush(&mut self) {
        if !self.flush_queued && self.link.is_some() {
            self.flush_queued = true;
            self.outputs.push(Output::Flush);
        }
    }

    fn next_token(&mut self) -> Token {
        self.last_token += 1;
        Token(self.last_token)
    }

    /// Emits a group, if there is a store; what depends on it waits for the answer.
    fn store_ops(&mut self, ops: impl FnOnce() -> Vec<StoreOp>) -> StoreSeq {
        if !self.store.is_on() {
            return StoreSeq(0);
        }
        match self.store.emit(ops()) {
            Some((seq, group)) => {
                self.outputs.push(Output::Store(seq, group));
                seq
            }
            None => StoreSeq(0),
        }
    }

    /// A message ends: the store forgets it, and the application hears what became of it.
    fn finish(&mut self, token: Token, stored: bool, outcome: Outcome) {
        if stored {
            let session = self.store.session;
            self.store_ops(|| persist::remove(session, token));
        }
        self.done(token, outcome);
    }

    fn expire_queue(&mut self, now: Timestamp) {
        for outgoing in self.session.purge(now) {
            self.finish(outgoing.token, outgoing.stored, Outcome::Expired);
        }
    }

    fn rules(&self) -> &'static Rules {
        self.config.rules()
    }
}

impl core::fmt::Debug for Client {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Client")
            .field("client_id", &self.session.client_id)
            .field("phase", &self.phase)
            .field("connected", &self.is_connected())
            .field("queued", &self.queued())
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

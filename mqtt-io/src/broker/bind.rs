//! From settings to a running broker.

use super::auth::{Authorizer, Office};
use super::handle::{BrokerHandle, ServeError};
use super::log::LogStyle;
use super::node::Post;
use super::node::panic_text;
use super::run::{Life, Mail, Start};
use super::sockets::{self, Address, Inherited};
use super::store::{self, Made};
use super::transport::SharedTransport;
use crate::runtime::Runtime;
use crate::trace::TraceOptions;
use crate::{Command, ShardError};
use mqtt_session::acl::Acl;
use mqtt_session::broker::{AskFor, BrokerConfig, ConfigError, Rates};
use mqtt_session::{Durability, Seed, ShardId};
use mqtt_store::{StorageHandle, Store, StoreError};
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listener {
    /// The address.
    pub address: Address,
    /// What is spoken there below MQTT. Default: nothing.
    pub transport: SharedTransport,
    /// The rights of the file of a Unix socket, as `0o660`. Default: what the process's umask leaves.
    pub unix_mode: Option<u32>,
    /// The socket, if somebody else has opened it; `address` is only told then.
    pub inherited: Option<Inherited>,
    /// The number by which questions name it ([`Ask::listener`](super::Ask::listener)). Several
    /// addresses may have the same. Default 0.
    pub number: u16,
    /// Connections that it has open at most; further ones are closed as they come. Default none: only
    /// [`BrokerConfig::max_connections`] counts.
    pub max_connections: Option<u32>,
    /// Connections that are accepted in a second; those beyond wait in the system's queue. What was not
    /// used for up to a second may be made up for at once. Default none.
    pub max_connect_rate: Option<u32>,
    /// How fast each of its clients may send, in the place of [`BrokerConfig::rates`]. Default none.
    pub rates: Option<Rates>,
}

impl From<Address> for Listener {
    fn from(address: Address) -> Self {
        let transport = SharedTransport::default();
        Self {
            address,
            transport,
            unix_mode: None,
            inherited: None,
            number: 0,
            max_connections: None,
            max_connect_rate: None,
            rates: None,
        }
    }
}

impl From<SocketAddr> for Listener {
    fn from(address: SocketAddr) -> Self {
        Address::from(address).into()
    }
}

/// Settings of a broker and of its surroundings.
#[derive(Clone)]
#[non_exhaustive]
pub struct Config {
    /// Settings of the machine. If its seed is the default one, a random one takes its place.
    pub broker: BrokerConfig,
    /// Where to listen. There may be none: see [`BrokerHandle::serve_stream`].
    pub listeners: Vec<Listener>,
    /// The tables of rights that are in force from the first connection on; see
    /// [`BrokerHandle::set_acls`]. Default none: everybody may do everything.
    pub acls: Vec<Arc<Acl>>,
    /// Who decides; needed if [`BrokerConfig::ask`] asks anything.
    pub authorizer: Option<Arc<dyn Authorizer>>,
    /// Where sessions and messages are kept; needed if [`BrokerConfig::durability`] promises anything.
    /// See [`Config::stored_in`].
    pub store: Option<OpenStore>,
    /// Where a trace of everything that happens is written: see [`crate::trace`]. Default: nowhere.
    pub trace: Option<TraceOptions>,
    /// Commands from handles that wait at most; further ones make their callers wait. Default 1,024.
    pub mailbox: usize,
    /// Messages that wait at most in each [`Messages`](super::Messages) and each
    /// [`Events`](super::Events); further ones are dropped and counted. Default 1,024.
    pub backlog: usize,
    /// In whose words the log tells of clients. Default: ours.
    pub log_style: LogStyle,
    /// Bytes of the buffer into which all connections of a thread are read. Default 64 KiB.
    pub read_buffer: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            broker: BrokerConfig::default(),
            listeners: Vec::new(),
            acls: Vec::new(),
            authorizer: None,
            store: None,
            trace: None,
            mailbox: 1024,
            backlog: 1024,
            log_style: LogStyle::default(),
            read_buffer: 64 << 10,
        }
    }
}

impl Config {
    /// Default settings, listening on these addresses.
    #[must_use]
    pub fn listening_on(addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        let listeners = (0..).zip(addresses);
        let listeners = listeners.map(|(number, address)| Listener { number, ..Listener::from(address) });
        Self { listeners: listeners.collect(), ..Self::default() }
    }

    /// The same settings, with somebody who decides. What is asked is set in
    /// [`BrokerConfig::ask`]; if that is nothing yet, connecting, publishing and subscribing are.
    #[must_use]
    pub fn authorized_by(mut self, authorizer: impl Authorizer) -> Self {
        self.authorizer = Some(Arc::new(authorizer));
        if self.broker.ask == AskFor::default() {
            self.broker.ask = AskFor { connect: true, publish: true, subscribe: true, will: true };
        }
        self
    }

    /// The same settings, with a store that keeps sessions and messages. `open` is called on the
    /// broker's thread before the first connection is accepted, and may take its time.
    #[must_use]
    pub fn stored_in(
        mut self,
        durability: Durability,
        open: impl Fn() -> Result<Box<dyn Store>, StoreError> + Send + Sync + 'static,
    ) -> Self {
        self.broker.durability = durability;
        self.store = Some(Arc::new(open));
        self
    }

    fn check(&self) -> Result<(), BindError> {
        match () {
            () if self.store.is_none() && self.broker.durability != Durability::Off => {
                Err(BindError::NoStore)
            }
            () if self.store.is_some() && self.broker.durability == Durability::Off => {
                Err(BindError::StoreUnused)
            }
            () if self.trace.is_some() && self.broker.shards > 1 => Err(BindError::TraceOfShards),
            () if self.mailbox == 0 => Err(BindError::Zero("mailbox")),
            () if self.backlog == 0 => Err(BindError::Zero("backlog")),
            () if self.read_buffer == 0 => Err(BindError::Zero("read_buffer")),
            () if self.authorizer.is_none() && self.broker.ask != AskFor::default() => {
                Err(BindError::NoAuthorizer)
            }
            () => Ok(()),
        }
    }
}

/// Opens a store.
pub type OpenStore = Arc<dyn Fn() -> Result<Box<dyn Store>, StoreError> + Send + Sync>;

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("broker", &self.broker)
            .field("listeners", &self.listeners)
            .field("authorizer", &self.authorizer.is_some())
            .field("store", &self.store.is_some())
            .field("trace", &self.trace)
            .finish_non_exhaustive()
    }
}

/// Why a broker did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Which address.
        address: Address,
        /// Why.
        source: io::Error,
    },
    /// A setting of the machine cannot be.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A setting must not be zero.
    #[error("setting {0} must not be 0")]
    Zero(&'static str),
    /// Questions are to be asked, and nobody is there to answer: every answer would be no.
    #[error("setting ask wants questions asked, but there is no authorizer to answer them")]
    NoAuthorizer,
    /// Messages are to survive a restart, and there is nowhere to keep them.
    #[error("setting durability needs a store, and none is attached")]
    NoStore,
    /// A trace is of one machine.
    #[error("a trace can be written by a broker with one shard only; set shards to 1")]
    TraceOfShards,
    /// There is a store, and nothing is to be kept in it.
    #[error("setting durability is off, so the store that is attached would not be used")]
    StoreUnused,
    /// The trace cannot be written.
    #[error("cannot write the trace {}: {source}", path.display())]
    Trace {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The store cannot be opened or read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The operating system gave no thread, no event queue or no randomness.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

impl From<ShardError> for BindError {
    fn from(e: ShardError) -> Self {
        match e {
            ShardError::Config(e) => Self::Config(e),
            _ => Self::NoStore,
        }
    }
}

/// Binds every listener and starts a broker on threads of its own, one for each shard. When this returns, clients
/// can connect. `runtime` is where authorizers run; `thread` is given the life of each thread and drives it there to
/// its end.
///
/// # Errors
/// If a setting is wrong or an address is not to be had; nothing is left running then.
pub async fn bind<R: Runtime>(
    runtime: R,
    mut config: Config,
    thread: impl Fn(Life) -> Result<(), ServeError> + Clone + Send + 'static,
) -> Result<BrokerHandle<R>, BindError> {
    config.check()?;
    config.broker.check()?;
    if config.broker.seed == Seed::default() {
        getrandom::fill(&mut config.broker.seed.0).map_err(io::Error::other)?;
    }
    let mut listeners = Vec::with_capacity(config.listeners.len());
    let mut addresses = Vec::with_capacity(config.listeners.len());
    for settings in config.listeners {
        let address = settings.address.clone();
        let open = sockets::open(&settings).map_err(|source| BindError::Listen { address, source })?;
        addresses.extend(open.socket.address().and_then(|address| address.tcp()));
        listeners.push((open, settings));
    }
    let shards = config.broker.shards;
    let (boxes, mut carried): (Vec<_>, Vec<_>) = (0..shards).map(|_| mpsc::unbounded_channel()).unzip();
    let (mailboxes, mut mails): (Vec<_>, Vec<_>) = (0..shards).map(|_| mpsc::channel(config.mailbox)).unzip();
    let boxes: Arc<[_]> = boxes.into();
    let (events, _) = broadcast::channel(config.backlog);
    let weak_events = events.downgrade();
    let (ended, end) = watch::channel(None);
    let (answers, answered): (Vec<_>, Vec<_>) = (0..shards).map(|_| mpsc::unbounded_channel()).unzip();
    let reports: Vec<mpsc::UnboundedSender<Command>> = answers.clone();
    let Made { shards: machines, clock, storage, trace } =
        make(config.broker, config.store, config.trace, reports).await?;
    let mut ways = answers.into_iter().zip(answered).zip(machines).collect::<Vec<_>>();
    let mut trace = trace;
    let end_of_all = Arc::new(End {
        left: Mutex::new((shards, Ok(()))),
        mailboxes: mailboxes.iter().map(mpsc::Sender::downgrade).collect(),
        storage: storage.clone(),
        ended,
    });
    let mut starting = Vec::new();
    // The first one last: it lets the clients in.
    for shard in (0..shards).rev() {
        let Some(((answers, answered), broker)) = ways.pop() else { break };
        let runtime = runtime.clone();
        let spawn = Box::new(move |task| runtime.spawn(task));
        let authorizer = config.authorizer.clone();
        let office = authorizer.map(|authorizer| Office { authorizer, spawn, answers });
        let (ready, started) = oneshot::channel();
        let (Some(mail), Some(carried)) = (mails.pop(), carried.pop()) else { break };
        let own = ShardId(shard);
        let start = Start {
            broker,
            acls: config.acls.clone(),
            listeners: if shard == 0 { std::mem::take(&mut listeners) } else { Vec::new() },
            read_buffer: config.read_buffer,
            log_style: config.log_style,
            office,
            storage: storage.clone(),
            trace: trace.take(),
            mail,
            answered,
            events: events.clone(),
            ready,
            clock,
            post: Post { own, boxes: Arc::clone(&boxes) },
            carried,
        };
        let (thread, end) = (thread.clone(), Arc::clone(&end_of_all));
        std::thread::Builder::new().name(format!("mqtt-shard-{shard}")).spawn(move || {
            let result = catch_unwind(AssertUnwindSafe(|| thread(Life(start))));
            let result = result.unwrap_or_else(|panic| Err(ServeError::Panicked(panic_text(panic.as_ref()))));
            end.one_ended(own, result);
        })?;
        starting.push(started);
    }
    drop((events, boxes));
    for started in starting {
        started.await.map_err(|_| io::Error::other("the broker's thread ended"))??;
    }
    let mailboxes = mailboxes.into();
    Ok(BrokerHandle::new(mailboxes, weak_events, end, addresses, storage, config.backlog))
}

/// Reads what is stored, on a thread of its own: that may take its time.
async fn make(
    config: BrokerConfig,
    store: Option<OpenStore>,
    trace: Option<TraceOptions>,
    reports: Vec<mpsc::UnboundedSender<Command>>,
) -> Result<Made, BindError> {
    if store.is_none() {
        return store::make(config, store, trace, reports);
    }
    let (tell, made) = oneshot::channel();
    std::thread::Builder::new().name("mqtt-restore".to_owned()).spawn(move || {
        // Nobody takes it if the start was given up.
        let _ = tell.send(store::make(config, store, trace, reports));
    })?;
    made.await.map_err(|_| io::Error::other("the thread that reads the store panicked"))?
}

/// The broker ends when all its shards have, and all end when one has failed.
struct End {
    left: Mutex<(u16, Result<(), ServeError>)>,
    mailboxes: Vec<mpsc::WeakSender<Mail>>,
    storage: Option<StorageHandle>,
    ended: watch::Sender<Option<Result<(), ServeError>>>,
}

impl End {
    fn one_ended(&self, shard: ShardId, result: Result<(), ServeError>) {
        let has_failed = result.is_err();
        let result = {
            let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
            left.0 = left.0.saturating_sub(1);
            if left.1.is_ok() {
                left.1 = result;
            }
            // What was handed over is written, whatever became of the machines.
            if left.0 == 0
                && let Some(Err(e)) = self.storage.as_ref().map(StorageHandle::close)
                && left.1.is_ok()
            {
                left.1 = Err(ServeError::Store(e.to_string()));
            }
            (left.0 == 0).then(|| left.1.clone())
        };
        if let Some(result) = result {
            self.ended.send_replace(Some(result));
        } else if has_failed {
            for mailbox in self.mailboxes.iter().filter_map(mpsc::WeakSender::upgrade) {
                for command in [Command::ShardLost(shard), Command::Shutdown] {
                    // One that has ended is what is wanted.
                    let _ = mailbox.blocking_send(Mail::Command(command));
                }
            }
        }
    }
}

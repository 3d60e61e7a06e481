//! The life of the broker: start, reloads, end.

use crate::config::{LogFormat, changes};
use crate::descriptors;
#[cfg(feature = "http")]
use crate::http::{Bound, Served};
use crate::log::LogTarget;
use crate::service;
use crate::settings::{Settings, Source, SourceFile};
use crate::signal::{Signals, Stopped, Wanted};
use crate::storage::{Kept, open};
use mqtt_access::{Access, FileError, PasswordFile, Policy};
use mqtt_proto::ReasonCode;
use mqtt_tokio::Tokio;
use mqtt_tokio::broker::{
    Address, AskFor, BindError, Broker, BrokerHandle, Config, Gate, LogStyle, ServeError, Transport,
};
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Why the broker did not start, or ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or a setting is wrong.
    #[error(transparent)]
    Settings(#[from] FileError),
    /// Somebody listens there already.
    #[error("address {0} is already in use: stop the other broker or choose --port")]
    InUse(SocketAddr),
    /// The system does not let us.
    #[error("not allowed to listen on {0}: ports below 1024 need privileges; choose --port")]
    NotAllowed(SocketAddr),
    /// The address is not one of this machine.
    #[error("address {0} is not one of this machine's: choose another --bind")]
    NotOurs(SocketAddr),
    /// Anything else that kept the broker from starting.
    #[error(transparent)]
    Start(BindError),
    /// It ended by itself.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The system gives no random numbers, of which a token is made.
    #[error("the system gives no random numbers: {0}")]
    Random(io::Error),
    /// Signals cannot be received.
    #[error("cannot receive signals: {0}")]
    Signals(io::Error),
}

impl From<BindError> for Error {
    fn from(e: BindError) -> Self {
        match e {
            BindError::Listen { address: Address::Tcp(address), ref source } => match source.kind() {
                io::ErrorKind::AddrInUse => Self::InUse(address),
                io::ErrorKind::PermissionDenied => Self::NotAllowed(address),
                io::ErrorKind::AddrNotAvailable => Self::NotOurs(address),
                _ => Self::Start(e),
            },
            _ => Self::Start(e),
        }
    }
}

/// A broker with its settings.
pub(crate) struct Running {
    broker: BrokerHandle,
    access: Arc<Access>,
    settings: Settings,
    #[cfg(feature = "http")]
    http: Option<Served>,
}

/// What a listener speaks, as in a URL.
pub(crate) fn protocol(transport: &Transport) -> &'static str {
    match (&transport.tls, &transport.websocket) {
        (None, None) => "mqtt",
        (Some(_), None) => "mqtts",
        (None, Some(_)) => "ws",
        (Some(_), Some(_)) => "wss",
    }
}

/// Runs a broker until a signal ends it: the first takes leave of all clients, a second does not wait
/// for them. SIGHUP reads the settings again from `source`, where `settings` came from.
///
/// # Errors
/// If it does not start, or ends by itself. The text says what to do.
///
/// # Panics
/// If called outside a Tokio runtime.
pub async fn run(source: &Source, settings: Settings) -> Result<Stopped, Error> {
    tracing::info!("mqtt version {} starting.", env!("CARGO_PKG_VERSION"));
    descriptors::raise(settings.broker.max_connections);
    // From here on a signal finds somebody to hear it.
    let mut signals = Signals::new().map_err(Error::Signals)?;
    let mut running = start(source, settings).await?;
    tracing::info!("mqtt version {} running.", env!("CARGO_PKG_VERSION"));
    let serving = running.broker.clone();
    let mut serving = std::pin::pin!(serving.serve());
    let mut watched = std::pin::pin!(watched(running.broker.clone()));
    let mut memory =
        std::pin::pin!(memory_told(running.broker.clone(), running.settings.broker.sys_interval));
    let mut topics = std::pin::pin!(log_published(running.broker.clone(), &running.settings.log_targets));
    let summary = running.settings.listening();
    service::ready(&summary);
    let first = loop {
        tokio::select! {
            ended = &mut serving => {
                ended?;
                return Ok(Stopped::InOrder);
            }
            wanted = signals.next() => match wanted {
                Wanted::Reload => {
                    service::reloading();
                    running.reload(source).await;
                    service::ready(&summary);
                }
                Wanted::Stop(signal) => break signal,
            },
            never = &mut watched => match never {},
            never = &mut memory => match never {},
            never = &mut topics => match never {},
        }
    };
    service::stopping();
    #[cfg(feature = "http")]
    running.http.iter().for_each(Served::stopping);
    tracing::info!("{first}: taking leave of all clients. Once more to stop at once.");
    tokio::select! {
        ended = running.broker.shutdown() => {
            ended?;
            tracing::info!("mqtt version {} terminated.", env!("CARGO_PKG_VERSION"));
            Ok(Stopped::InOrder)
        }
        second = signals.stop() => Ok(Stopped::AtOnce(second)),
    }
}

/// Publishes the log, if that is wanted.
fn log_published(broker: BrokerHandle, targets: &[LogTarget]) -> impl Future<Output = Infallible> + use<> {
    let topics = targets.iter().find_map(|target| match target {
        LogTarget::Topics(topics) => Some(topics.clone()),
        _ => None,
    });
    async move {
        match topics {
            Some(topics) => topics.publish(broker).await,
            None => std::future::pending().await,
        }
    }
}

/// Tells the broker how much memory the program uses, for its topics below `$SYS`.
async fn memory_told(broker: BrokerHandle, every: Option<Duration>) -> Infallible {
    if let Some(every) = every {
        let mut ticks = tokio::time::interval(every);
        loop {
            ticks.tick().await;
            let Some(used) = memory_stats::memory_stats() else { break };
            if broker.tell_memory(used.physical_mem as u64).await.is_err() {
                break;
            }
        }
    }
    std::future::pending().await
}

/// Tells whoever watches over the service that the broker's thread turns, for as long as it does.
async fn watched(broker: BrokerHandle) -> Infallible {
    if let Some(every) = service::watchdog() {
        let mut ticks = tokio::time::interval(every);
        loop {
            ticks.tick().await;
            // The thread itself answers.
            if broker.stats().await.is_err() {
                break;
            }
            service::alive();
        }
    }
    std::future::pending().await
}

pub(crate) async fn start(source: &Source, settings: Settings) -> Result<Running, Error> {
    if let Some(SourceFile::Config(path) | SourceFile::Mosquitto(path)) = &source.file {
        tracing::info!("Config loaded from {}.", path.display());
    }
    settings.remarks().for_each(|remark| tracing::warn!("{remark}"));
    let decisions = &settings.decisions;
    let throttle = settings.config.throttle();
    let access =
        Access::new(decisions.policies.clone(), throttle).reporting_to(|text| tracing::error!("{text}"));
    let access = Arc::new(access);
    let mut config =
        Config::default().authorized_by(Gate::new(Tokio::default(), Arc::clone(&access), settings.gate()));
    config.listeners.clone_from(&settings.listeners);
    config.acls.clone_from(&decisions.acls);
    config.broker.clone_from(&settings.broker);
    let topics = asks_about_topics(&decisions.policies);
    config.broker.ask = AskFor { connect: true, publish: topics, subscribe: topics, will: topics };
    config.trace.clone_from(&settings.trace);
    if settings.config.log.format == LogFormat::Mosquitto {
        config.log_style = LogStyle::Mosquitto;
    }
    tracing::info!("{}", Kept::summary(settings.kept.as_ref()));
    if let Some(Kept { directory, durability }) = settings.kept.clone() {
        config = config.stored_in(durability, move || open(&directory));
    }
    #[cfg(feature = "http")]
    let bound = match settings.http.clone() {
        Some(http) => Some(Bound::new(http).await?),
        None => None,
    };
    let broker = Broker::bind(config).await?;
    let mut listening = Vec::new();
    let mut tcp = broker.local_addrs().iter();
    for listener in &settings.listeners {
        // What the system chose, where it was to choose.
        let address = match &listener.address {
            Address::Tcp(address) => Address::Tcp(*tcp.next().unwrap_or(address)),
            unix @ Address::Unix(_) => unix.clone(),
        };
        tell_of_listener(&address, protocol(&listener.transport.get()), settings.config.log.format);
        listening.push((address.to_string(), listener.transport.clone()));
    }
    if settings.broker.shards > 1 {
        tracing::info!("Working on {} threads.", settings.broker.shards);
    }
    #[cfg(feature = "http")]
    let http = bound.map(|bound| bound.serve(broker.clone(), listening)).transpose()?;
    tell_of_certificates(&settings);
    if settings.local_only {
        tracing::info!(
            "No address was given, so only programs on this machine can connect. Let others in with \
             --bind 0.0.0.0 and --password-file FILE (made with mqtt passwd), or with a configuration file: \
             mqtt broker --print-config."
        );
    }
    let open = settings.listeners.iter().any(|listener| {
        let policy = decisions.policies.get(usize::from(listener.number));
        !listener.address.is_local() && policy.is_some_and(|policy| policy.anonymous && !policy.knows_users())
    });
    if open && decisions.acls.is_empty() {
        tracing::warn!("Clients need no password: whoever reaches these addresses can read and write.");
    }
    Ok(Running {
        broker,
        access,
        settings,
        #[cfg(feature = "http")]
        http,
    })
}

fn tell_of_listener(address: &Address, protocol: &str, format: LogFormat) {
    if format == LogFormat::Mosquitto {
        let websockets = protocol.starts_with("ws");
        return match address {
            Address::Tcp(at) if websockets => {
                tracing::info!("Opening websockets listen socket on port {}.", at.port());
            }
            Address::Tcp(at) => {
                let family = if at.is_ipv4() { "ipv4" } else { "ipv6" };
                tracing::info!("Opening {family} listen socket on port {}.", at.port());
            }
            Address::Unix(path) => {
                tracing::info!("Opening unix listen socket on path {}.", path.display());
            }
        };
    }
    let what = match protocol {
        "mqtts" => " (TLS)",
        "ws" => " (WebSocket)",
        "wss" => " (WebSocket, TLS)",
        _ => "",
    };
    tracing::info!("Listening on {address}{what}.");
}

/// Warns of certificates that end soon.
fn tell_of_certificates(settings: &Settings) {
    const SOON: Duration = Duration::from_secs(14 * 86_400);
    for (address, ends) in settings.certificates() {
        match ends.duration_since(SystemTime::now()) {
            Ok(left) if left > SOON => {}
            Ok(left) => {
                let days = left.as_secs() / 86_400;
                tracing::warn!(
                    "The certificate on {address} ends in {days} days: renew it, then send SIGHUP."
                );
            }
            Err(_) => tracing::warn!("The certificate on {address} has ended: renew it, then send SIGHUP."),
        }
    }
}

fn asks_about_topics(policies: &[Policy]) -> bool {
    policies.iter().any(Policy::asks_about_topics)
}

impl Running {
    #[cfg(all(test, feature = "http"))]
    pub(crate) const fn broker(&self) -> &BrokerHandle {
        &self.broker
    }

    /// Where HTTP is to be had.
    #[cfg(all(test, feature = "http"))]
    pub(crate) fn http(&self) -> Option<SocketAddr> {
        self.http.as_ref()?.address()
    }

    /// Reads the settings again. If anything is wrong, all stays as it was.
    async fn reload(&mut self, source: &Source) {
        tracing::info!("Reloading config.");
        for target in &self.settings.log_targets {
            if let LogTarget::File(file) = target
                && let Err(e) = file.reopen()
            {
                tracing::error!("The log cannot be opened again: {e}. It goes on where it was.");
            }
        }
        let source = source.clone();
        // Reading files may block.
        let read = tokio::task::spawn_blocking(move || source.read()).await;
        let mut new = match read {
            Ok(Ok(new)) => new,
            Ok(Err(e)) => {
                tracing::error!("Not reloaded, everything stays as it was: {e}");
                return;
            }
            Err(e) => {
                tracing::error!("Not reloaded, everything stays as it was: {e}");
                return;
            }
        };
        new.remarks().for_each(|remark| tracing::warn!("{remark}"));
        let changed = changes(&self.settings.config, &new.config);
        for path in changed.iter().filter(|path| !takes_effect(path)) {
            tracing::warn!("{path} has changed; it takes effect at the next start.");
        }
        if new.listeners.len() != self.settings.listeners.len()
            || new.decisions.policies.len() != self.settings.decisions.policies.len()
        {
            tracing::error!(
                "Not reloaded, everything stays as it was: listeners can be added and removed only at a start."
            );
            return;
        }
        let (old, now) = (&self.settings.decisions, &new.decisions);
        if asks_about_topics(&now.policies) && !asks_about_topics(&old.policies) {
            tracing::error!(
                "Not reloaded, everything stays as it was: acl_url can be set for the first time only at a start."
            );
            return;
        }
        self.access.replace(now.policies.clone(), new.config.throttle());
        let gone = gone(&old.policies, &now.policies);
        if self.broker.set_acls(now.acls.clone()).await.is_err() {
            return;
        }
        if !gone.is_empty() {
            let users = gone.into_iter().collect();
            if let Ok(closed @ 1..) = self.broker.disconnect_users(users, ReasonCode::NotAuthorized).await {
                tracing::info!(
                    "Connections of users that are gone or have another password: {closed} closed."
                );
            }
        }
        let protocols = |settings: &Settings| -> Vec<_> {
            settings.config.listeners.iter().map(|listener| listener.protocol).collect()
        };
        let protocols = (protocols(&self.settings), protocols(&new));
        for (old, now) in self.settings.listeners.iter().zip(&mut new.listeners) {
            // Another protocol waits for the next start, and with it all that belongs to it.
            if protocols.0.get(usize::from(old.number)) == protocols.1.get(usize::from(now.number)) {
                old.transport.replace(now.transport.get());
            }
            now.transport = old.transport.clone();
        }
        #[cfg(feature = "http")]
        if let (Some(served), Some(http)) = (&self.http, &new.http) {
            served.replace(http);
        }
        tell_of_certificates(&new);
        new.log_targets = std::mem::take(&mut self.settings.log_targets);
        self.settings = new;
        tracing::info!("Config reloaded.");
    }
}

/// Whether a setting takes effect when it is read again.
fn takes_effect(path: &str) -> bool {
    let listener = path.strip_prefix("listener.").and_then(|rest| rest.split_once('.'));
    path.starts_with("security")
        || path.starts_with("throttle")
        || ["http.token_file", "http.tls", "http.security"].iter().any(|name| path.starts_with(name))
        || listener.is_some_and(|(_, rest)| {
            ["security", "tls", "websocket", "proxy_protocol"].iter().any(|name| rest.starts_with(name))
        })
}

/// The users who are gone from a password file, or have another password there, and `None` if who
/// shows nothing is not let in any more.
fn gone(old: &[Policy], new: &[Policy]) -> BTreeSet<Option<String>> {
    let mut gone = BTreeSet::new();
    let nobody = PasswordFile::default();
    for (old, new) in old.iter().zip(new) {
        if let Some(passwords) = &old.passwords {
            let now = new.passwords.as_deref().unwrap_or(&nobody);
            gone.extend(passwords.gone_in(now).map(|user| Some(user.to_owned())));
        }
        if old.anonymous && !new.anonymous {
            gone.insert(None);
        }
    }
    gone
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(address: &str) -> Source {
        Source { bind: vec![address.parse().unwrap()], anonymous: true, ..Source::default() }
    }

    async fn fails(source: Source) -> String {
        let settings = source.read().unwrap();
        run(&source, settings).await.unwrap_err().to_string()
    }

    #[tokio::test]
    async fn a_taken_port_is_told_with_the_remedy() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let text = fails(on(&address.to_string())).await;
        assert_eq!(
            text,
            format!("address {address} is already in use: stop the other broker or choose --port")
        );
    }

    #[tokio::test]
    async fn a_foreign_address_is_told() {
        // An address for documentation, which no machine has [RFC 5737].
        let text = fails(on("192.0.2.1:0")).await;
        assert_eq!(text, "address 192.0.2.1:0 is not one of this machine's: choose another --bind");
    }

    #[test]
    fn what_can_change_while_it_runs_is_known() {
        for path in [
            "security.acl_file",
            "security.jwt",
            "throttle.addresses",
            "http.token_file",
            "http.security.acl_file",
            "listener.3.security.anonymous",
            "listener.0.tls.cert_file",
            "listener.0.proxy_protocol",
        ] {
            assert!(takes_effect(path), "{path}");
        }
        for path in ["limits.max_sessions", "listener", "listener.0.address", "log.level", "http.address"] {
            assert!(!takes_effect(path), "{path}");
        }
    }
}

//! From what people wrote to what is done: reads files, checks, and names what is wrong with its line.

use crate::DEFAULT_PORT;
use crate::bind::{self, Bind};
use crate::config::{DurabilityLevel, FileConfig, Listener, Log, LogFormat, Overrides, Protocol, line_of};
use crate::http::HttpSettings;
use crate::log::{LogFile, LogTarget, LogTopics};
use crate::mosquitto::{self, Note};
use crate::security::Decisions;
use crate::storage::{Data, Kept};
use crate::transport;
use mqtt_access::{CertificateName, FileError, Policy, Warning, read_text};
use mqtt_session::acl::Acl;
use mqtt_tokio::broker::{Address, BrokerConfig, GateConfig, Inherited, SharedTransport, TraceOptions};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Where settings come from. Reading it again is how a running broker gets new ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Source {
    /// A file of ours or of Mosquitto's.
    pub file: Option<SourceFile>,
    /// What counts more than a file of ours.
    pub overrides: Overrides,
    /// Listen there, in the place of all listeners of the file.
    pub bind: Vec<Bind>,
    /// The port of each address in `bind` that names none.
    pub port: Option<u16>,
    /// Let in who shows nothing, whatever the file says.
    pub anonymous: bool,
    /// In the place of the file's.
    pub password_file: Option<PathBuf>,
    /// In the place of the file's.
    pub acl_file: Option<PathBuf>,
    /// In the place of the file's.
    pub data: Option<Data>,
    /// Where sessions and messages are kept if nothing else says so. Not set: in memory.
    pub default_data: Option<Data>,
    /// In the place of the file's.
    pub durability: Option<DurabilityLevel>,
    /// In the place of the file's.
    pub shards: Option<u16>,
    /// In the place of the file's.
    pub log_format: Option<LogFormat>,
    /// Where figures, health and administration are to be had by HTTP, in the place of the file's.
    pub http: Option<Bind>,
    /// Where a trace of everything that happens is written. Not set: nowhere.
    pub trace: Option<TraceOptions>,
    /// Sockets that a service manager opened. Each is used by the listener that has its address; if
    /// there are no listeners, they are what is listened on.
    pub sockets: Vec<Inherited>,
}

/// A file with settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceFile {
    /// One of ours (TOML).
    Config(PathBuf),
    /// A `mosquitto.conf`.
    Mosquitto(PathBuf),
}

/// What settings were read from, to find lines.
#[derive(Clone, Debug, Default)]
pub(crate) struct Origin {
    file: PathBuf,
    text: String,
    /// Whether it is a `mosquitto.conf`, which has other names for settings.
    pub(crate) is_mosquitto: bool,
    /// Lines of settings in there.
    lines: Vec<(String, PathBuf, u32)>,
}

impl Origin {
    pub(crate) fn error(&self, path: &str, problem: &str, remedy: &str) -> FileError {
        let is_above = |setting: &str| {
            path == setting || path.strip_prefix(setting).is_some_and(|rest| rest.starts_with('.'))
        };
        if let Some((_, file, line)) = self.lines.iter().rev().find(|(setting, ..)| is_above(setting)) {
            return FileError::new(file, Some(*line), format!("{path}: {problem}"), remedy);
        }
        let line = line_of(&self.text, path);
        FileError::new(&self.file, line, format!("{path}: {problem}"), remedy)
    }

    /// A file's name is meant as seen from the working directory, as Mosquitto has it.
    pub(crate) fn path(&self, file: &Path) -> PathBuf {
        file.to_owned()
    }
}

/// Settings that were read and checked, files included.
#[derive(Clone, Debug)]
pub struct Settings {
    pub(crate) config: FileConfig,
    pub(crate) broker: BrokerConfig,
    pub(crate) listeners: Vec<mqtt_tokio::broker::Listener>,
    pub(crate) local_only: bool,
    pub(crate) kept: Option<Kept>,
    pub(crate) trace: Option<TraceOptions>,
    pub(crate) decisions: Decisions,
    #[cfg_attr(not(feature = "http"), allow(dead_code, reason = "there is nothing to serve it"))]
    pub(crate) http: Option<HttpSettings>,
    pub(crate) notes: Vec<Note>,
    pub(crate) log_targets: Vec<LogTarget>,
}

impl Source {
    /// Reads and checks everything that a start would, and opens no socket.
    ///
    /// # Errors
    /// Names file, line and remedy.
    pub fn read(&self) -> Result<Settings, FileError> {
        let (mut config, mut origin, notes) = match &self.file {
            None => {
                let file = PathBuf::from("the settings");
                let config = FileConfig::parse(&file, "", &self.overrides)?;
                (config, Origin { file, ..Origin::default() }, Vec::new())
            }
            Some(SourceFile::Config(path)) => {
                let text = read_text(path)?;
                let config = FileConfig::parse(path, &text, &self.overrides)?;
                (config, Origin { file: path.clone(), text, ..Origin::default() }, Vec::new())
            }
            Some(SourceFile::Mosquitto(path)) => {
                let read = mosquitto::read(path)?;
                let origin =
                    Origin { file: path.clone(), is_mosquitto: true, lines: read.lines, ..Origin::default() };
                (read.config, origin, read.notes)
            }
        };
        let local_only = self.bind.is_empty() && config.listeners.is_empty() && self.sockets.is_empty();
        self.apply_flags(&mut config, &mut origin);
        let broker =
            config.broker().map_err(|(path, problem, remedy)| origin.error(&path, &problem, remedy))?;
        let (listeners, local) = addresses(&config, &origin, &self.sockets)?;
        let http = HttpSettings::read(&config, &origin)?;
        let console = http.as_ref().filter(|http| http.console.is_some()).map(|http| http.local);
        let decisions = Decisions::read(&config, &origin, &local, console)?;
        let data = config.storage.data.clone().or_else(|| self.default_data.clone()).unwrap_or(Data::None);
        let kept = Kept::new(data, config.storage.durability);
        let trace = self.trace.clone();
        Ok(Settings {
            config,
            broker,
            listeners,
            local_only,
            kept,
            trace,
            decisions,
            http,
            notes,
            log_targets: Vec::new(),
        })
    }

    fn apply_flags(&self, config: &mut FileConfig, origin: &mut Origin) {
        if self.data.is_some() {
            config.storage.data.clone_from(&self.data);
        }
        if let Some(durability) = self.durability {
            config.storage.durability = durability;
        }
        if let Some(count) = self.shards {
            config.shards.count = count;
        } else if self.trace.is_some() && config.shards.count == 0 {
            // A trace is of one.
            config.shards.count = 1;
        }
        if let Some(format) = self.log_format {
            config.log.format = format;
        }
        if let Some(http) = &self.http {
            config.http.address = Some(http.to_string());
        }
        if !self.bind.is_empty() {
            let port = self.port.unwrap_or(DEFAULT_PORT);
            let listener =
                |bind: &Bind| Listener { address: bind.with_port(port).to_string(), ..Listener::default() };
            config.listeners = self.bind.iter().map(listener).collect();
            origin.lines.retain(|(setting, ..)| !setting.starts_with("listener"));
        } else if config.listeners.is_empty() && !self.sockets.is_empty() {
            let addresses = self.sockets.iter().filter_map(Inherited::address);
            config.listeners = addresses.map(listener_at).collect();
        } else if let (Some(port), true) = (self.port, config.listeners.is_empty()) {
            // Still this machine only, on another port.
            config.listeners = bind::loopback(port)
                .map(|address| Listener { address: address.to_string(), ..Listener::default() })
                .collect();
        }
        for security in config
            .listeners
            .iter_mut()
            .filter_map(|listener| listener.security.as_mut())
            .chain([&mut config.security])
        {
            if self.anonymous {
                security.anonymous = Some(true);
            }
            if let Some(file) = &self.password_file {
                security.password_file = Some(file.clone());
            }
            if let Some(file) = &self.acl_file {
                security.acl_file = Some(file.clone());
            }
        }
    }
}

/// A listener of plain MQTT there.
fn listener_at(address: Address) -> Listener {
    match address {
        Address::Tcp(address) => Listener { address: address.to_string(), ..Listener::default() },
        Address::Unix(path) => {
            Listener { address: path.display().to_string(), protocol: Protocol::Unix, ..Listener::default() }
        }
    }
}

/// Where to listen, and what is spoken there; for each listener, whether only this machine reaches it.
fn addresses(
    config: &FileConfig,
    origin: &Origin,
    sockets: &[Inherited],
) -> Result<(Vec<mqtt_tokio::broker::Listener>, Vec<bool>), FileError> {
    let mut found: Vec<mqtt_tokio::broker::Listener> = Vec::new();
    let mut local = Vec::new();
    if config.listeners.is_empty() {
        let addresses = bind::loopback(DEFAULT_PORT).map(mqtt_tokio::broker::Listener::from);
        return Ok((addresses.collect(), vec![true]));
    }
    for (number, listener) in config.listeners.iter().enumerate() {
        let path = format!("listener.{number}");
        let transport = transport::read(listener, &path, config.limits.max_packet_size.0, origin)?;
        let transport = SharedTransport::from(transport);
        let unix_mode = match listener.unix_mode.as_deref().map(|text| u32::from_str_radix(text, 8)) {
            None => None,
            Some(Ok(mode @ 0..=0o777)) => Some(mode),
            Some(_) => {
                let problem = "these are no rights of a file";
                return Err(origin.error(&format!("{path}.unix_mode"), problem, "write them like \"660\""));
            }
        };
        let path = format!("{path}.address");
        let addresses = addresses_of(listener, &path, origin)?;
        // Behind a proxy that is on this machine, there are others.
        local.push(addresses.iter().all(Address::is_local) && listener.proxy_protocol.is_empty());
        for address in addresses {
            let has_port = address.tcp().is_none_or(|address| address.port() != 0);
            if let Some(other) = found.iter().find(|other| has_port && other.address == address) {
                let first = usize::from(other.number);
                if first == number {
                    continue;
                }
                let problem = format!("{address} is listened on already, by listener {}", first + 1);
                return Err(origin.error(&path, &problem, "leave one of the two out"));
            }
            let inherited = sockets.iter().find(|socket| socket.address().is_some_and(|own| own == address));
            let mut listening = mqtt_tokio::broker::Listener::from(address);
            listening.inherited = inherited.cloned();
            listening.number = u16::try_from(number).unwrap_or(u16::MAX);
            listening.max_connections = listener.max_connections;
            listening.max_connect_rate = listener.connections_per_second;
            listening.rates = listener.rates(config);
            listening.unix_mode = unix_mode;
            listening.transport = transport.clone();
            found.push(listening);
        }
    }
    for socket in sockets {
        if !found.iter().any(|listening| listening.inherited.as_ref() == Some(socket)) {
            let address = socket.address().map_or_else(|| "no address".to_owned(), |at| at.to_string());
            let problem =
                format!("the service manager passed a socket of {address}, and no listener has that");
            return Err(origin.error(
                "listener",
                &problem,
                "give a listener this address, or leave the socket out",
            ));
        }
    }
    Ok((found, local))
}

fn addresses_of(listener: &Listener, path: &str, origin: &Origin) -> Result<Vec<Address>, FileError> {
    if listener.protocol == Protocol::Unix {
        return match listener.address.as_str() {
            text if text.contains('/') => Ok(vec![Address::Unix(origin.path(Path::new(text)))]),
            text => {
                let problem = format!("{text:?} is no path of a Unix socket");
                Err(origin.error(path, &problem, "write one like \"/run/mqtt/mqtt.sock\""))
            }
        };
    }
    let bind: Bind = listener
        .address
        .parse()
        .map_err(|e: bind::AddressError| origin.error(path, &e.to_string(), "correct the address"))?;
    let addresses = bind
        .resolve(listener.protocol.default_port())
        .map_err(|e| origin.error(path, &e.to_string(), "correct the name"))?;
    Ok(addresses.into_iter().map(Address::Tcp).collect())
}

impl Settings {
    /// What is to be told, and how.
    #[must_use]
    pub const fn log(&self) -> &Log {
        &self.config.log
    }

    /// Opens what the log goes to. Files are opened again when settings are read again.
    ///
    /// # Errors
    /// Names the file.
    pub fn log_targets(&mut self) -> Result<Vec<LogTarget>, FileError> {
        self.log_targets.clear();
        for to in &self.config.log.to {
            self.log_targets.push(match to.as_str() {
                "stderr" => LogTarget::Stderr,
                "stdout" => LogTarget::Stdout,
                "topic" => LogTarget::Topics(LogTopics::default()),
                path => {
                    let path = Path::new(path);
                    let opened = LogFile::open(path).map_err(|e| {
                        let remedy = "correct log.to, or the rights of the directory";
                        FileError::new(path, None, format!("the log cannot be written: {e}"), remedy)
                    });
                    LogTarget::File(opened?)
                }
            });
        }
        Ok(self.log_targets.clone())
    }

    /// What is odd in the files, and what becomes of a `mosquitto.conf`, as lines for people.
    pub fn remarks(&self) -> impl Iterator<Item = String> {
        let notes = self.notes.iter().map(ToString::to_string);
        notes.chain(self.decisions.warnings.iter().map(Warning::to_string))
    }

    /// For each address, who may connect there and what decides about topics, in words.
    pub fn summary(&self) -> impl Iterator<Item = String> {
        let kept = std::iter::once(Kept::summary(self.kept.as_ref()));
        let listeners = self.listeners.iter().map(|listener| {
            let number = usize::from(listener.number);
            let policy = self.decisions.policies.get(number);
            let mut who = Vec::new();
            if let Some(passwords) = policy.and_then(|policy| policy.passwords.as_ref()) {
                who.push(format!("{} users by password", passwords.len()));
            }
            #[cfg(feature = "jwt")]
            if policy.is_some_and(|policy| policy.jwt.is_some()) {
                who.push("users by token".to_owned());
            }
            #[cfg(feature = "webhook")]
            if policy.is_some_and(|policy| policy.webhook.is_some()) {
                who.push("whom the web service lets in".to_owned());
            }
            if let Some(policy) = policy.filter(|policy| policy.anonymous) {
                let everybody = if policy.knows_users() { "everybody without a name" } else { "everybody" };
                who.push(everybody.to_owned());
            }
            // Then nothing else is asked.
            let by_certificate = |policy: &Policy| policy.certificate != CertificateName::Unused;
            if policy.is_some_and(by_certificate) {
                who = vec!["users by certificate".to_owned()];
            }
            let topics = match self.acl(number) {
                Some((_, Some(file))) => format!("topics by {}", file.display()),
                _ => "all topics".to_owned(),
            };
            format!("{}: {}; {topics}", listener.address, who.join(", "))
        });
        listeners.chain(self.http.as_ref().map(HttpSettings::summary)).chain(kept)
    }

    /// Each address with TLS, and when the certificate there ends.
    pub fn certificates(&self) -> impl Iterator<Item = (&Address, SystemTime)> {
        self.listeners.iter().filter_map(|listener| {
            let ends = listener.transport.get().tls.as_ref()?.not_after()?;
            Some((&listener.address, ends))
        })
    }

    /// The table of rights of a listener, by its number from 0, and its file. `None`: there is none,
    /// everything is allowed.
    #[must_use]
    pub fn acl(&self, listener: usize) -> Option<(&Acl, Option<&Path>)> {
        let number = usize::from(self.decisions.policies.get(listener)?.acl);
        let file = self.decisions.acl_files.get(number)?.as_deref();
        self.decisions.acls.get(number).map(|acl| (acl.as_ref(), file))
    }

    /// Where clients can connect, in words.
    pub(crate) fn listening(&self) -> String {
        let addresses: Vec<_> = self.listeners.iter().map(|listener| listener.address.to_string()).collect();
        format!("listening on {}", addresses.join(", "))
    }

    pub(crate) fn gate(&self) -> GateConfig {
        self.config.gate()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shard for each core unless somebody says otherwise; a trace is of one, unless somebody says otherwise, who is told then.
    #[test]
    fn as_many_shards_as_cores_but_one_with_a_trace() {
        let shards = |trace: bool, flag: Option<u16>, config: &str| {
            let mut source = Source { shards: flag, ..Source::default() };
            source.trace = trace.then(|| TraceOptions::new("trace"));
            source.overrides.set(config).unwrap();
            source.read().unwrap().broker.shards
        };
        let cores = u16::try_from(std::thread::available_parallelism().unwrap().get()).unwrap().min(64);
        assert_eq!(shards(false, None, "shards.count=0"), cores);
        assert_eq!(shards(false, None, "shards.count=3"), 3);
        assert_eq!(shards(false, Some(5), "shards.count=3"), 5);
        assert_eq!(shards(true, None, "shards.count=0"), 1);
        assert_eq!(shards(true, None, "shards.count=3"), 3);
        assert_eq!(shards(true, Some(5), "shards.count=0"), 5);
    }
}

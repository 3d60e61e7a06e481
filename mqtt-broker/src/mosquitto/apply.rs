//! What honoured options do.

use super::transport::Transport;
use super::{Note, Place, Read};
use crate::config::{
    AclMode, CertificateName, FileConfig, Listener, LogFormat, LogLevel, Security, Size, Span,
};
use mqtt_access::FileError;
use std::path::{Path, PathBuf};

/// Settings as they grow, option by option.
#[derive(Default)]
pub(super) struct Apply {
    config: FileConfig,
    listeners: Vec<Open>,
    /// The listener that options before the first are about, if there are any.
    default: Option<Open>,
    /// The options `port` and `bind_address` of old.
    default_port: Option<u16>,
    default_host: Option<String>,
    per_listener: bool,
    security_seen: bool,
    clientid_prefixes: Vec<String>,
    log_types: Option<LogLevel>,
    /// Where the log goes; once `none` was said, nowhere.
    log_to: Vec<String>,
    log_nowhere: bool,
    log_times: Option<bool>,
    lines: Vec<Line>,
    notes: Vec<Note>,
}

/// The place of the default listener among listeners.
const DEFAULT: usize = usize::MAX;

/// Where a security setting stands: that of a listener, by its place in `listeners`, or of all.
struct Line {
    listener: Option<usize>,
    setting: &'static str,
    file: PathBuf,
    number: u32,
}

/// A listener that options may still be about.
#[derive(Default)]
struct Open {
    /// 0 for a Unix socket, whose path is in `host`.
    port: u16,
    host: Option<String>,
    domain: Option<Domain>,
    max_connections: Option<u32>,
    transport: Transport,
    security: Security,
    /// Its own word on anonymous, whatever is shared.
    anonymous: Option<bool>,
    file: PathBuf,
    line: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Domain {
    V4,
    V6,
}

impl Apply {
    pub(super) fn note(&mut self, place: Place<'_>, text: String) {
        self.notes.push(Note { file: place.file.to_owned(), line: place.line, text });
    }

    /// An option that is honoured.
    pub(super) fn option(&mut self, place: Place<'_>, name: &str, value: &str) -> Result<(), FileError> {
        if value.is_empty() && !matches!(name, "listener" | "port") {
            return Err(place.error(format!("{name}: there is no value"), "write one behind it"));
        }
        let flag =
            || match value {
                "true" | "1" => Ok(true),
                "false" | "0" => Ok(false),
                _ => Err(place
                    .error(format!("{name}: {value:?} is neither true nor false"), "write true or false")),
            };
        let number = |max: u64| {
            let remedy = || format!("write a number up to {max}");
            let parsed = value.parse::<i64>().ok().map(|n| u64::try_from(n).unwrap_or(0));
            parsed
                .filter(|&n| n <= max)
                .ok_or_else(|| place.error(format!("{name}: {value:?} is no number"), remedy()))
        };
        let small = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        let short = |n: u64| u16::try_from(n).unwrap_or(u16::MAX);
        // 0 means without a limit.
        let or_all = |n: u64| if n == 0 { u32::MAX } else { small(n) };
        let refuse_true = |why: &str| match flag()? {
            false => Ok(()),
            true => Err(place.error(format!("{name} true is refused: {why}"), "leave it out")),
        };
        let refuse_false = |why: &str| match flag()? {
            true => Ok(()),
            false => Err(place.error(format!("{name} false is refused: {why}"), "leave it out")),
        };
        match name {
            "listener" => return self.listener(place, value),
            "port" => self.default_port = Some(port(place, name, value)?),
            "bind_address" => self.default_host = Some(value.to_owned()),
            "socket_domain" => {
                let domain = match value {
                    "ipv4" => Domain::V4,
                    "ipv6" => Domain::V6,
                    _ => return Err(place.error(format!("socket_domain: {value:?}"), "write ipv4 or ipv6")),
                };
                self.current().domain = Some(domain);
            }
            name if Transport::is_option(name) => {
                let (file, number) = (place.file.to_owned(), place.line);
                self.current().transport.option(place, name, value)?;
                let listener = Some(self.place_of_current());
                let setting = Transport::setting(name);
                self.lines.push(Line { listener, setting, file, number });
            }
            "max_connections" => {
                let most = value.parse::<i64>().map_err(|_| {
                    place.error(
                        format!("{name}: {value:?} is no number"),
                        "write a number, or -1 for no limit",
                    )
                })?;
                self.current().max_connections = u32::try_from(most).ok();
            }
            "per_listener_settings" => {
                let on = flag()?;
                if on && self.security_seen {
                    let problem = "per_listener_settings behind other security settings";
                    return Err(place.error(problem, "make it the first option"));
                }
                self.per_listener |= on;
            }
            "allow_anonymous" => {
                let anonymous = flag()?;
                self.security(place, name).anonymous = Some(anonymous);
            }
            "listener_allow_anonymous" => {
                let anonymous = flag()?;
                self.current().anonymous = Some(anonymous);
            }
            "password_file" => self.security(place, name).password_file = Some(value.into()),
            "acl_file" => self.security(place, name).acl_file = Some(value.into()),
            "clientid_prefixes" => self.clientid_prefixes = vec![value.to_owned()],
            "allow_zero_length_clientid" => refuse_false("clients may leave their identifier to the broker")?,
            "check_retain_source" => refuse_false("a message does not outlive the right to publish it")?,
            "upgrade_outgoing_qos" => refuse_true("it breaks the standard")?,
            "use_username_as_clientid" => refuse_true("it is not there")?,
            "max_inflight_messages" => {
                self.config.limits.max_inflight = match short(number(65_535)?) {
                    0 => u16::MAX,
                    n => n,
                }
            }
            "max_queued_messages" => self.config.limits.max_queued_messages = or_all(number(u64::MAX)?),
            "max_queued_bytes" => self.config.limits.max_queued_bytes = Size(unlimited(number(u64::MAX)?)),
            "memory_limit" => self.config.limits.max_message_bytes = Size(unlimited(number(u64::MAX)?)),
            "max_packet_size" => {
                // Below 64 bytes no client could be told anything.
                self.config.limits.max_packet_size = Size(number(MAX_PACKET)?.max(64));
            }
            "message_size_limit" => {
                let limit = number(MAX_PACKET)?;
                if limit > 0 {
                    self.config.limits.max_packet_size = Size((limit + (64 << 10)).min(MAX_PACKET));
                }
            }
            "max_keepalive" => {
                self.config.limits.max_keep_alive = match number(65_535)? {
                    0 => Span::NEVER,
                    secs => Span::secs(secs),
                }
            }
            "max_topic_alias" => lower(&mut self.config.limits.topic_alias_maximum, short(number(65_535)?)),
            "max_topic_alias_broker" => {
                lower(&mut self.config.limits.max_outbound_aliases, short(number(65_535)?))
            }
            "max_qos" | "maximum_qos" => {
                let qos = u8::try_from(number(2)?).unwrap_or(2);
                self.config.features.max_qos = self.config.features.max_qos.min(qos);
            }
            "global_max_clients" => self.config.limits.max_sessions = or_all(number(u64::MAX)?),
            "global_max_connections" => self.config.limits.max_connections = or_all(number(u64::MAX)?),
            "queue_qos0_messages" => self.config.limits.queue_qos0 = flag()?,
            "sys_interval" => {
                self.config.sys.interval = match number(65_535)? {
                    0 => Span::NEVER,
                    secs => Span::secs(secs),
                }
            }
            "retain_available" => self.config.features.retain_available = flag()?,
            "persistent_client_expiration" => {
                self.config.limits.max_session_expiry = expiration(place, value)?
            }
            "log_type" => self.log_type(place, value)?,
            "log_dest" => self.log_dest(place, value)?,
            "log_timestamp" => self.log_times = Some(flag()?),
            "log_timestamp_format" => self.config.log.timestamp = Some(value.to_owned()),
            "connection_messages" => self.config.log.connections = flag()?,
            _ => return Err(place.error(format!("{name} is not carried out"), "please report this")),
        }
        Ok(())
    }

    fn listener(&mut self, place: Place<'_>, value: &str) -> Result<(), FileError> {
        let mut words = value.split_whitespace();
        let number = words.next().unwrap_or_default();
        if number == "0" {
            let path = value.get(1..).unwrap_or_default().trim();
            if !path.contains('/') {
                let problem = "listener 0 is a Unix socket, and there is no path behind it";
                return Err(place.error(problem, "write one like /run/mosquitto/mosquitto.sock"));
            }
            self.open(place, 0, Some(path.to_owned()));
            return Ok(());
        }
        let port = port(place, "listener", number)?;
        let host = words.next().filter(|word| !word.starts_with('#')).map(str::to_owned);
        self.open(place, port, host);
        Ok(())
    }

    fn open(&mut self, place: Place<'_>, port: u16, host: Option<String>) {
        self.listeners.push(Open {
            port,
            host,
            domain: None,
            max_connections: None,
            transport: Transport::default(),
            security: Security::default(),
            anonymous: None,
            file: place.file.to_owned(),
            line: place.line,
        });
    }

    /// The listener that an option is about: the last one, or before the first the default one.
    fn current(&mut self) -> &mut Open {
        match self.listeners.last_mut() {
            Some(last) => last,
            None => self.default.get_or_insert_default(),
        }
    }

    const fn place_of_current(&self) -> usize {
        match self.listeners.len() {
            0 => DEFAULT,
            n => n - 1,
        }
    }

    /// The settings that a security option is about.
    fn security(&mut self, place: Place<'_>, name: &str) -> &mut Security {
        self.security_seen = true;
        let listener = self.per_listener.then(|| self.place_of_current());
        let (file, number) = (place.file.to_owned(), place.line);
        self.lines.push(Line { listener, setting: setting(name), file, number });
        match listener {
            Some(_) => &mut self.current().security,
            None => &mut self.config.security,
        }
    }

    fn log_dest(&mut self, place: Place<'_>, value: &str) -> Result<(), FileError> {
        let (to, rest) = value.split_once(char::is_whitespace).unwrap_or((value, ""));
        match (to, rest.trim()) {
            ("none", _) => self.log_nowhere = true,
            ("stderr" | "stdout" | "topic", _) => self.log_to.push(to.to_owned()),
            ("file", "") => {
                return Err(place.error("log_dest file: there is no path behind it", "write one"));
            }
            // A name of its own, so that none of the words above is meant.
            ("file", path) => self.log_to.push(Path::new(".").join(path).display().to_string()),
            ("syslog" | "dlt" | "android", _) => {
                let text = format!("log_dest {to} is stderr here, which service managers keep");
                self.note(place, text);
                self.log_to.push("stderr".to_owned());
            }
            _ => {
                let remedy = "write stderr, stdout, topic, file PATH or none";
                return Err(place.error(format!("log_dest: {value:?} is none"), remedy));
            }
        }
        Ok(())
    }

    fn log_type(&mut self, place: Place<'_>, value: &str) -> Result<(), FileError> {
        let level = match value {
            "none" => LogLevel::Off,
            "error" => LogLevel::Error,
            "warning" => LogLevel::Warn,
            "notice" | "information" => LogLevel::Info,
            "subscribe" | "unsubscribe" => {
                self.config.log.subscriptions = true;
                LogLevel::Off
            }
            "debug" | "internal" | "websockets" => LogLevel::Debug,
            "all" => {
                self.config.log.subscriptions = true;
                LogLevel::Debug
            }
            _ => {
                let remedy =
                    "write error, warning, notice, information, debug, subscribe, unsubscribe, all or none";
                return Err(place.error(format!("log_type: {value:?} is none"), remedy));
            }
        };
        let before = self.log_types.unwrap_or(LogLevel::Off);
        self.log_types = Some(if level as u8 > before as u8 && value != "none" { level } else { before });
        Ok(())
    }

    /// All options were read.
    pub(super) fn finish(self) -> Result<Read, FileError> {
        let Self { mut config, listeners, default_port, default_host, per_listener, .. } = self;
        let mut lines = Vec::new();
        config.log.format = LogFormat::Mosquitto;
        config.log.level = self.log_types.unwrap_or(config.log.level);
        if self.log_nowhere {
            config.log.to.clear();
        } else if !self.log_to.is_empty() {
            config.log.to = self.log_to;
        }
        if self.log_times == Some(false) {
            config.log.timestamp = Some("none".to_owned());
        }
        let complete = |security: &mut Security, local_only: bool| {
            security.acl_mode = AclMode::Mosquitto;
            security.client_id_prefixes.clone_from(&self.clientid_prefixes);
            // There, whoever may connect without a name is a matter of this option alone.
            security.anonymous.get_or_insert(local_only);
        };
        for line in self.lines.iter().filter(|line| line.listener.is_none()) {
            lines.push((line.setting.to_owned(), line.file.clone(), line.number));
        }
        let is_named = default_port.is_some() || default_host.is_some();
        // Nobody said where to listen.
        let is_local = listeners.is_empty() && !is_named;
        let mut all: Vec<(usize, Open)> = Vec::new();
        if is_named || self.default.is_some() {
            let mut open = self.default.unwrap_or_default();
            open.port = default_port.unwrap_or(crate::DEFAULT_PORT);
            open.host = default_host;
            all.push((DEFAULT, open));
        }
        all.extend((0..).zip(listeners));
        complete(&mut config.security, is_local);
        for (place, open) in all {
            let mut security = open.security;
            let name = open.transport.certificate_name();
            let own = if per_listener {
                security.certificate_name = name;
                security.anonymous = open.anonymous.or(security.anonymous);
                complete(&mut security, is_local);
                Some(security)
            } else if open.anonymous.is_some() || name != CertificateName::Unused {
                let anonymous = open.anonymous.or(config.security.anonymous);
                Some(Security { anonymous, certificate_name: name, ..config.security.clone() })
            } else {
                None
            };
            let hosts = match open.port {
                0 => open.host.into_iter().collect(),
                _ if is_local => {
                    let v6 = crate::bind::has_ipv6_loopback().then_some("[::1]");
                    ["127.0.0.1"].into_iter().chain(v6).map(str::to_owned).collect()
                }
                _ => hosts(open.host.as_deref(), open.domain),
            };
            for address in hosts {
                let number = config.listeners.len();
                if place != DEFAULT {
                    lines.push((format!("listener.{number}"), open.file.clone(), open.line));
                }
                for line in self.lines.iter().filter(|line| line.listener == Some(place)) {
                    lines.push((
                        format!("listener.{number}.{}", line.setting),
                        line.file.clone(),
                        line.number,
                    ));
                }
                let mut listener = Listener {
                    address: if open.port == 0 { address } else { format!("{address}:{}", open.port) },
                    max_connections: open.max_connections,
                    security: own.clone(),
                    ..Listener::default()
                };
                open.transport.finish(&mut listener, open.port == 0);
                config.listeners.push(listener);
            }
        }
        Ok(Read { config, lines, notes: self.notes })
    }
}

const MAX_PACKET: u64 = 268_435_460;

const fn unlimited(n: u64) -> u64 {
    if n == 0 { u64::MAX } else { n }
}

fn lower(limit: &mut u16, to: u16) {
    *limit = (*limit).min(to);
}

/// Where our settings have what Mosquitto calls so.
fn setting(name: &str) -> &'static str {
    match name {
        "password_file" => "security.password_file",
        "acl_file" => "security.acl_file",
        _ => "security.anonymous",
    }
}

/// Without a host, a listener is open to all addresses of both kinds, as far as the machine has them.
fn hosts(host: Option<&str>, domain: Option<Domain>) -> Vec<String> {
    match host {
        Some(host) if host.contains(':') && !host.starts_with('[') => vec![format!("[{host}]")],
        Some(host) => vec![host.to_owned()],
        None => {
            let mut hosts = Vec::new();
            if domain != Some(Domain::V6) {
                hosts.push("0.0.0.0".to_owned());
            }
            if domain != Some(Domain::V4) && (domain.is_some() || crate::bind::has_ipv6_loopback()) {
                hosts.push("[::]".to_owned());
            }
            hosts
        }
    }
}

fn port(place: Place<'_>, name: &str, value: &str) -> Result<u16, FileError> {
    let port = value.parse().ok().filter(|&port: &u16| port != 0);
    port.ok_or_else(|| place.error(format!("{name}: {value:?} is no port"), "write a number from 1 to 65535"))
}

/// `14d`: a number and one of s, h, d, w, m (30 days), y (365 days).
fn expiration(place: Place<'_>, value: &str) -> Result<Span, FileError> {
    const DAY: u64 = 86_400;
    let parsed = value.char_indices().next_back().and_then(|(at, unit)| {
        let factor = match unit {
            's' => 1,
            'h' => 3600,
            'd' => DAY,
            'w' => 7 * DAY,
            'm' => 30 * DAY,
            'y' => 365 * DAY,
            _ => return None,
        };
        let number: u64 = value.get(..at)?.parse().ok().filter(|&n| n > 0)?;
        number.checked_mul(factor).map(Span::secs)
    });
    let problem = || format!("persistent_client_expiration: {value:?} is no time");
    parsed.ok_or_else(|| place.error(problem(), "write a number with s, h, d, w, m or y behind it"))
}

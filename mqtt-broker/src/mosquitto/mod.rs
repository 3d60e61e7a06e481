//! `mosquitto.conf`: each option is honoured, ignored with a note, or refused with the reason.

mod apply;
mod options;
mod transport;

use crate::config::FileConfig;
use apply::Apply;
use mqtt_access::{FileError, read_text};
use options::{Fate, fate_of};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// What an operator should know about an option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    file: PathBuf,
    line: u32,
    text: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.text)
    }
}

/// A file that was read, with those that it includes.
pub(crate) struct Read {
    pub(crate) config: FileConfig,
    /// Where settings came from.
    pub(crate) lines: Vec<(String, PathBuf, u32)>,
    pub(crate) notes: Vec<Note>,
}

/// Where an option stands.
#[derive(Clone, Copy)]
struct Place<'a> {
    file: &'a Path,
    line: u32,
}

impl Place<'_> {
    fn error(self, problem: impl Into<String>, remedy: impl Into<String>) -> FileError {
        FileError::new(self.file, Some(self.line), problem, remedy)
    }
}

pub(crate) fn read(path: &Path) -> Result<Read, FileError> {
    let mut apply = Apply::default();
    file(path, &mut apply, true)?;
    apply.finish()
}

fn file(path: &Path, apply: &mut Apply, main: bool) -> Result<(), FileError> {
    let text = read_text(path)?;
    for (number, line) in (1u32..).zip(text.lines()) {
        // A comment begins in the first column.
        if line.starts_with('#') {
            continue;
        }
        let line = line.trim();
        let (name, value) =
            line.split_once([' ', '\t']).map_or((line, ""), |(name, value)| (name, value.trim()));
        if name.is_empty() {
            continue;
        }
        let place = Place { file: path, line: number };
        match fate_of(name) {
            None => {
                return Err(place
                    .error(format!("{name:?} is no option of Mosquitto's"), "correct it or leave it out"));
            }
            Some(Fate::Refused(why)) => {
                return Err(place.error(
                    format!("{name} is refused: {why}"),
                    "leave it out if the broker may run without it",
                ));
            }
            Some(Fate::Ignored(why)) => apply.note(place, format!("{name} is ignored: {why}")),
            Some(Fate::Honoured(_)) if name == "include_dir" => {
                if !main {
                    return Err(
                        place.error("include_dir in a file that is included", "use it in the main file only")
                    );
                }
                include(Path::new(value), place, apply)?;
            }
            Some(Fate::Honoured(_)) => apply.option(place, name, value)?,
        }
    }
    Ok(())
}

fn include(directory: &Path, place: Place<'_>, apply: &mut Apply) -> Result<(), FileError> {
    let fail = |e: std::io::Error| {
        place.error(format!("include_dir {}: {e}", directory.display()), "check the directory")
    };
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(directory).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        if path.extension().is_some_and(|extension| extension == "conf") {
            files.push(path);
        }
    }
    files.sort();
    files.iter().try_for_each(|path| file(path, apply, false))
}

#[cfg(test)]
mod tests {
    use super::options::OPTIONS;
    use super::*;
    use crate::config::{
        AclMode, CertificateName, LogFormat, LogLevel, OverflowPolicy, Protocol, Size, Span, TlsVersion,
    };

    fn parse(text: &str) -> Result<Read, FileError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        read(file.path())
    }

    fn config(text: &str) -> FileConfig {
        parse(text).map(|read| read.config).unwrap_or_else(|e| panic!("{e}"))
    }

    #[test]
    fn nothing_at_all_is_this_machine_only() {
        let read = parse("# a comment\n\n").unwrap();
        assert!(read.config.listeners.is_empty() && read.notes.is_empty());
        assert_eq!(read.config.security.anonymous, Some(true), "Mosquitto's local only mode is open");
        assert_eq!(read.config.security.acl_mode, AclMode::Mosquitto);
    }

    #[test]
    fn limits_mean_what_they_mean_there() {
        let c = config(
            "max_inflight_messages 20\nmax_queued_messages 0\nmax_queued_bytes 0\nmax_packet_size 20\n\
             max_keepalive 120\npersistent_client_expiration 2m\nqueue_qos0_messages true\nretain_available false\n\
             global_max_clients 5\nglobal_max_connections 6\nmemory_limit 1048576\nmax_topic_alias 3\nmax_qos 1\n\
             log_type error\nlog_type notice\nclientid_prefixes sensor-",
        );
        assert_eq!((c.limits.max_inflight, c.limits.max_queued_messages), (20, u32::MAX));
        assert_eq!(c.limits.max_queued_bytes, Size(u64::MAX));
        assert_eq!(c.limits.max_packet_size, Size(64), "the smallest that there is");
        assert_eq!(
            (c.limits.max_keep_alive, c.limits.max_session_expiry),
            (Span::secs(120), Span::secs(60 * 86_400))
        );
        assert!(c.limits.queue_qos0 && !c.features.retain_available);
        assert_eq!((c.limits.max_sessions, c.limits.max_connections), (5, 6));
        assert_eq!((c.limits.max_message_bytes, c.limits.topic_alias_maximum), (Size(1 << 20), 3));
        assert_eq!(
            (c.features.max_qos, c.log.level, c.limits.overflow),
            (1, LogLevel::Info, OverflowPolicy::DropNewest)
        );
        assert_eq!(c.security.client_id_prefixes, ["sensor-"]);
    }

    #[test]
    fn listeners_share_their_security_unless_told_otherwise() {
        let c = config(
            "listener 1883\npassword_file /pw\nmax_connections 7\nlistener 1884 ::1\nallow_anonymous true\nacl_file /acl",
        );
        let addresses: Vec<&str> = c.listeners.iter().map(|l| l.address.as_str()).collect();
        assert_eq!(addresses, ["0.0.0.0:1883", "[::]:1883", "[::1]:1884"]);
        assert_eq!(c.listeners[0].max_connections, Some(7));
        assert!(c.listeners.iter().all(|listener| listener.security.is_none()));
        assert_eq!(c.security.anonymous, Some(true));
        assert_eq!(c.security.acl_file.as_deref(), Some(Path::new("/acl")));

        let c = config(
            "per_listener_settings true\nlistener 1883\nsocket_domain ipv4\npassword_file /pw\nlistener 1884 127.0.0.1\nallow_anonymous true",
        );
        assert_eq!(c.listeners.len(), 2);
        let security: Vec<_> =
            c.listeners.iter().map(|listener| listener.security.clone().unwrap()).collect();
        assert_eq!(security[0].password_file.as_deref(), Some(Path::new("/pw")));
        assert_eq!((security[0].anonymous, security[1].anonymous), (Some(false), Some(true)));
        assert_eq!(security[1].password_file, None);
        assert!(security.iter().all(|security| security.acl_mode == AclMode::Mosquitto));
    }

    #[test]
    fn transports_are_those_of_each_listener() {
        let c = config(
            "allow_anonymous true\nlistener 8883 127.0.0.1\ncafile /ca\ncertfile /c\nkeyfile /k\n\
             require_certificate true\nuse_identity_as_username true\ntls_version tlsv1.3\ncrlfile /crl\n\
             listener 9001 127.0.0.1\nprotocol websockets\nwebsockets_origin https://a\nwebsockets_origin https://b\n\
             listener 9002 127.0.0.1\nprotocol websockets\ncertfile /c\nkeyfile /k\ncafile /ca\n\
             ciphers_tls1.3 TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384\n\
             listener 0 /run/m.sock\nlistener 1883 127.0.0.1\nenable_proxy_protocol true",
        );
        let protocols: Vec<Protocol> = c.listeners.iter().map(|listener| listener.protocol).collect();
        assert_eq!(protocols, [Protocol::Mqtts, Protocol::Ws, Protocol::Wss, Protocol::Unix, Protocol::Mqtt]);
        let tls = c.listeners[0].tls.clone().unwrap();
        assert_eq!(tls.ca_file.as_deref(), Some(Path::new("/ca")));
        assert!(tls.require_certificate && tls.crl_file.is_some() && tls.min_version == TlsVersion::V13);
        let security = c.listeners[0].security.clone().unwrap();
        assert_eq!(security.certificate_name, CertificateName::CommonName);
        let websocket = c.listeners[1].websocket.clone().unwrap();
        assert_eq!((websocket.path.as_str(), websocket.origins.len()), ("*", 2));
        let tls = c.listeners[2].tls.clone().unwrap();
        assert_eq!(
            (tls.ca_file, tls.ciphers.len()),
            (None, 8),
            "clients are not asked, and 1.2 has all of its six"
        );
        assert_eq!(c.listeners[3].address, "/run/m.sock");
        assert_eq!(c.listeners[4].proxy_protocol, ["0.0.0.0/0", "::/0"]);
        assert!(c.listeners[1..].iter().all(|listener| listener.security.is_none()));
    }

    #[test]
    fn the_old_way_of_one_listener_is_understood() {
        let c = config("port 1999\nbind_address 127.0.0.1\nallow_anonymous true");
        assert_eq!(c.listeners.len(), 1);
        assert_eq!(c.listeners[0].address, "127.0.0.1:1999");
    }

    #[test]
    fn directories_are_included_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let part = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        part("20.conf", "max_queued_messages 2\n");
        part("10.conf", "max_queued_messages 1\n");
        part("30.txt", "nonsense\n");
        assert_eq!(config(&format!("include_dir {}", dir.path().display())).limits.max_queued_messages, 2);
        part("40.conf", "\nnonsense 1\n");
        let error = parse(&format!("include_dir {}", dir.path().display())).err().unwrap().to_string();
        assert!(error.contains("40.conf:2: \"nonsense\" is no option"), "{error}");
        part("40.conf", &format!("include_dir {}\n", dir.path().display()));
        assert!(parse(&format!("include_dir {}", dir.path().display())).is_err());
    }

    #[test]
    fn options_before_the_first_listener_are_of_a_default_one() {
        let c = config("certfile /c\nkeyfile /k\nport 8883\nmax_connections 7\nlistener 1884 127.0.0.1");
        let listeners: Vec<_> =
            c.listeners.iter().map(|l| (l.address.as_str(), l.protocol, l.max_connections)).collect();
        assert_eq!(
            listeners,
            [
                ("0.0.0.0:8883", Protocol::Mqtts, Some(7)),
                ("[::]:8883", Protocol::Mqtts, Some(7)),
                ("127.0.0.1:1884", Protocol::Mqtt, None)
            ]
        );
        // Where to listen was not said: on this machine only, and there nobody needs a name.
        let c = config("certfile /c\nkeyfile /k");
        let addresses: Vec<_> = c.listeners.iter().map(|l| (l.address.as_str(), l.protocol)).collect();
        assert_eq!(addresses, [("127.0.0.1:1883", Protocol::Mqtts), ("[::1]:1883", Protocol::Mqtts)]);
        assert_eq!(c.security.anonymous, Some(true));
        let c = config("per_listener_settings true\npassword_file /p\nlistener 1884\nallow_anonymous true");
        let own = |n: usize| c.listeners[n].security.clone().unwrap();
        assert_eq!((c.listeners[0].address.as_str(), own(0).anonymous), ("0.0.0.0:1883", Some(false)));
        assert_eq!(own(0).password_file.as_deref(), Some(Path::new("/p")));
        assert_eq!((c.listeners[2].address.as_str(), own(2).anonymous), ("0.0.0.0:1884", Some(true)));
        let read = parse("certfile /c\ntls_version tlsv1.3\nkeyfile /k").unwrap();
        assert!(
            read.lines.iter().any(|(setting, _, line)| setting == "listener.0.tls.min_version" && *line == 2)
        );
    }

    #[test]
    fn the_log_goes_where_it_is_sent() {
        let log = |text: &str| config(text).log;
        let plain = log("");
        assert_eq!((plain.format, &*plain.to), (LogFormat::Mosquitto, &["stderr".to_owned()][..]));
        assert!(plain.connections && !plain.subscriptions && plain.timestamp.is_none());
        let several = log("log_dest file /var/log/m.log\nlog_dest topic\nlog_dest file stderr");
        assert_eq!(several.to, ["/var/log/m.log", "topic", "./stderr"]);
        assert!(log("log_dest stderr\nlog_dest none").to.is_empty());
        assert_eq!(log("log_timestamp false").timestamp.as_deref(), Some("none"));
        assert_eq!(log("log_timestamp_format %H:%M").timestamp.as_deref(), Some("%H:%M"));
        assert!(!log("connection_messages false").connections);
        let types = log("log_type error\nlog_type subscribe");
        assert_eq!((types.level, types.subscriptions), (LogLevel::Error, true));
        let all = log("log_type all");
        assert_eq!((all.level, all.subscriptions), (LogLevel::Debug, true));
    }

    #[test]
    fn what_is_not_done_is_told() {
        let read = parse("persistence true\nlog_dest syslog\n").unwrap();
        let notes: Vec<String> = read.notes.iter().map(ToString::to_string).collect();
        assert!(
            notes[0].contains(":1: persistence is ignored:") && notes[1].contains(":2: log_dest"),
            "{notes:?}"
        );
        for (text, problem) in [
            ("listener 8883\npsk_file /psk", ":2: psk_file is refused: there is no TLS with pre-shared keys"),
            ("listener 8883\ntls_version tlsv1.1", ":2: tls_version tlsv1.1 is refused"),
            ("connection one", ":1: connection is refused: there are no bridges yet"),
            ("plugin /x.so", ":1: plugin is refused"),
            ("plugin_opt_file x", ":1: plugin_opt_file is refused"),
            ("listener 9001\nprotocol http_api", ":2: protocol http_api"),
            ("listener 0", ":1: listener 0"),
            ("listener 70000", ":1: listener: \"70000\" is no port"),
            ("listener", ":1: listener: \"\" is no port"),
            ("allow_anonymous yes", ":1: allow_anonymous: \"yes\" is neither true nor false"),
            ("max_inflight_messages many", ":1: max_inflight_messages: \"many\" is no number"),
            ("max_qos 3", ":1: max_qos: \"3\" is no number"),
            ("persistent_client_expiration 2q", ":1: persistent_client_expiration"),
            ("password_file", ":1: password_file: there is no value"),
            ("upgrade_outgoing_qos true", ":1: upgrade_outgoing_qos true is refused"),
            (
                "password_file /p\nper_listener_settings true",
                ":2: per_listener_settings behind other security settings",
            ),
            ("log_dest paper", ":1: log_dest: \"paper\" is none"),
            ("log_dest file", ":1: log_dest file: there is no path"),
        ] {
            let error = parse(text).err().unwrap_or_else(|| panic!("{text}")).to_string();
            assert!(error.contains(problem), "{error}");
        }
    }

    /// What the table calls honoured is known where it is carried out.
    #[test]
    fn whatever_is_honoured_is_carried_out() {
        for (name, fate) in OPTIONS {
            if matches!(fate, Fate::Honoured(_)) && *name != "include_dir" {
                let values = ["true", "false", "1", "1883", "mqtt", "none", "error", "1d", "ipv4", "tlsv1.2"];
                let known =
                    values.iter().any(|value| parse(&format!("listener 1999\n{name} {value}")).is_ok());
                let first = values.iter().any(|value| parse(&format!("{name} {value}")).is_ok());
                assert!(known || first, "{name}");
            }
        }
    }
}

//! Every option of `mosquitto.conf`, and what becomes of it here.

use Fate::{Honoured, Ignored, Refused};

/// What becomes of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It does what it does there; the text says how, if there is more to say.
    Honoured(&'static str),
    /// It changes nothing, for this reason, and a note says so.
    Ignored(&'static str),
    /// The broker does not start, for this reason.
    Refused(&'static str),
}

const BRIDGE: &str = "there are no bridges yet";
const PLUGIN: &str = "Mosquitto's plugins cannot be loaded; see docs/access.md for what is built in";
const STORE: &str =
    "Mosquitto's database is not read or written; --data says where ours is, none for memory only";
const LOG: &str = "the log goes to stderr, for the service manager to keep";

/// Every option of Mosquitto 2.0 and 2.1, sorted.
pub(crate) const OPTIONS: &[(&str, Fate)] = &[
    ("accept_protocol_versions", Refused("all versions are accepted on every listener")),
    ("acl_file", Honoured("read in Mosquitto's way, to the letter")),
    ("address", Refused(BRIDGE)),
    ("addresses", Refused(BRIDGE)),
    ("allow_anonymous", Honoured("")),
    ("allow_duplicate_messages", Ignored("overlapping subscriptions bring one copy, at the highest QoS")),
    ("allow_zero_length_clientid", Honoured("`true` only; `false` is refused")),
    ("auth_opt_*", Refused(PLUGIN)),
    ("auth_plugin", Refused(PLUGIN)),
    ("auth_plugin_deny_special_chars", Refused(PLUGIN)),
    ("auto_id_prefix", Ignored("assigned client identifiers begin with auto-")),
    ("autosave_interval", Ignored(STORE)),
    ("autosave_on_changes", Ignored(STORE)),
    ("bind_address", Honoured("")),
    ("bind_interface", Refused("listeners are bound to addresses only")),
    ("bridge_alpn", Refused(BRIDGE)),
    ("bridge_attempt_unsubscribe", Refused(BRIDGE)),
    ("bridge_bind_address", Refused(BRIDGE)),
    ("bridge_cafile", Refused(BRIDGE)),
    ("bridge_capath", Refused(BRIDGE)),
    ("bridge_certfile", Refused(BRIDGE)),
    ("bridge_ciphers", Refused(BRIDGE)),
    ("bridge_ciphers_tls1.3", Refused(BRIDGE)),
    ("bridge_identity", Refused(BRIDGE)),
    ("bridge_insecure", Refused(BRIDGE)),
    ("bridge_keyfile", Refused(BRIDGE)),
    ("bridge_max_packet_size", Refused(BRIDGE)),
    ("bridge_max_topic_alias", Refused(BRIDGE)),
    ("bridge_outgoing_retain", Refused(BRIDGE)),
    ("bridge_protocol_version", Refused(BRIDGE)),
    ("bridge_psk", Refused(BRIDGE)),
    ("bridge_receive_maximum", Refused(BRIDGE)),
    ("bridge_reload_type", Refused(BRIDGE)),
    ("bridge_require_ocsp", Refused(BRIDGE)),
    ("bridge_session_expiry_interval", Refused(BRIDGE)),
    ("bridge_tcp_keepalive", Refused(BRIDGE)),
    ("bridge_tcp_user_timeout", Refused(BRIDGE)),
    ("bridge_tls_use_os_certs", Refused(BRIDGE)),
    ("bridge_tls_version", Refused(BRIDGE)),
    (
        "cafile",
        Honoured(
            "with `require_certificate true`; without it clients are not asked, as there; one of `cafile` and `capath`",
        ),
    ),
    (
        "capath",
        Honoured(
            "with `require_certificate true`; without it clients are not asked, as there; one of `cafile` and `capath`",
        ),
    ),
    ("certfile", Honoured("")),
    (
        "check_retain_source",
        Honoured("`true` only, which is what is always done while there is an ACL file; `false` is refused"),
    ),
    ("ciphers", Honoured("single cipher suites; words like `HIGH` are refused")),
    ("ciphers_tls1.3", Honoured("")),
    ("cleansession", Refused(BRIDGE)),
    ("clientid", Refused(BRIDGE)),
    ("clientid_prefixes", Honoured("")),
    ("connection", Refused(BRIDGE)),
    ("connection_messages", Honoured("")),
    ("crlfile", Honoured("with `require_certificate true`")),
    ("dhparamfile", Ignored("it has no effect in Mosquitto, either")),
    ("disable_client_cert_date_checks", Refused("a certificate that has ended proves nothing")),
    ("enable_control_api", Ignored("there is no $CONTROL")),
    ("enable_proxy_protocol", Honoured("from everybody, as there; name your proxies in a file of ours")),
    ("global_max_clients", Honoured("as `limits.max_sessions`")),
    ("global_max_connections", Honoured("as `limits.max_connections`")),
    ("global_plugin", Refused(PLUGIN)),
    ("http_dir", Refused("no files are served")),
    ("idle_timeout", Refused(BRIDGE)),
    ("include_dir", Honoured("files `*.conf`, sorted")),
    ("keepalive_interval", Refused(BRIDGE)),
    ("keyfile", Honoured("")),
    ("listener", Honoured("a port, and an address if you like; or 0 and the path of a Unix socket")),
    ("listener_allow_anonymous", Honoured("")),
    ("listener_auto_id_prefix", Ignored("assigned client identifiers begin with auto-")),
    ("local_cleansession", Refused(BRIDGE)),
    ("local_clientid", Refused(BRIDGE)),
    ("local_password", Refused(BRIDGE)),
    ("local_username", Refused(BRIDGE)),
    (
        "log_dest",
        Honoured("`stderr`, `stdout`, `topic`, `file PATH` and `none`; `syslog` and `dlt` are stderr"),
    ),
    ("log_facility", Ignored(LOG)),
    ("log_timestamp", Honoured("")),
    ("log_timestamp_format", Honoured("")),
    (
        "log_type",
        Honoured("the most talkative of the types decides the level; `subscribe` and `unsubscribe` are one"),
    ),
    ("max_connections", Honoured("for the listener")),
    ("max_inflight_bytes", Ignored("the number of messages is limited (max_inflight_messages)")),
    ("max_inflight_messages", Honoured("as `limits.max_inflight`")),
    ("max_keepalive", Honoured("as `limits.max_keep_alive`")),
    ("max_packet_size", Honoured("as `limits.max_packet_size`")),
    ("max_qos", Honoured("for all listeners: the lowest that is set")),
    ("max_queued_bytes", Honoured("as `limits.max_queued_bytes`")),
    ("max_queued_messages", Honoured("as `limits.max_queued_messages`")),
    ("max_topic_alias", Honoured("for all listeners: the lowest that is set")),
    ("max_topic_alias_broker", Honoured("for all listeners: the lowest that is set")),
    ("maximum_qos", Honoured("as `max_qos`")),
    ("memory_limit", Honoured("as `limits.max_message_bytes`: of messages, not of all memory")),
    ("message_size_limit", Honoured("as `limits.max_packet_size`, with 64 KiB more for what is not payload")),
    ("mount_point", Refused("topics are the same on every listener")),
    ("notification_topic", Refused(BRIDGE)),
    ("notifications", Refused(BRIDGE)),
    ("notifications_local_only", Refused(BRIDGE)),
    ("packet_buffer_size", Ignored("buffers are shared, and their sizes fixed")),
    ("password", Refused(BRIDGE)),
    ("password_file", Honoured("all three formats")),
    ("per_listener_settings", Honoured("")),
    ("persistence", Ignored(STORE)),
    ("persistence_file", Ignored(STORE)),
    ("persistence_location", Ignored(STORE)),
    ("persistent_client_expiration", Honoured("as `limits.max_session_expiry`")),
    ("pid_file", Ignored("the service manager knows the process")),
    ("plugin", Refused(PLUGIN)),
    ("plugin_load", Refused(PLUGIN)),
    ("plugin_opt_*", Refused(PLUGIN)),
    ("plugin_use", Refused(PLUGIN)),
    ("port", Honoured("")),
    ("protocol", Honoured("`mqtt` and `websockets`; `http_api` is refused")),
    ("proxy_protocol_v2_require_tls", Refused("what a proxy says of TLS is not looked at")),
    ("psk_file", Refused("there is no TLS with pre-shared keys")),
    ("psk_hint", Refused("there is no TLS with pre-shared keys")),
    ("queue_qos0_messages", Honoured("as `limits.queue_qos0`")),
    ("remote_clientid", Refused(BRIDGE)),
    ("remote_password", Refused(BRIDGE)),
    ("remote_username", Refused(BRIDGE)),
    ("require_certificate", Honoured("")),
    ("restart_timeout", Refused(BRIDGE)),
    ("retain_available", Honoured("as `features.retain_available`")),
    ("retain_expiry_interval", Refused("retained messages expire by their own Message Expiry Interval only")),
    ("retained_persistence", Ignored(STORE)),
    ("retry_interval", Ignored("it has no effect in Mosquitto, either")),
    ("round_robin", Refused(BRIDGE)),
    ("set_tcp_nodelay", Ignored("it is always on")),
    ("socket_domain", Honoured("")),
    ("start_type", Refused(BRIDGE)),
    ("sys_interval", Honoured("as `sys.interval`")),
    ("threshold", Refused(BRIDGE)),
    ("tls_engine", Refused("TLS is rustls, which has no engines")),
    ("tls_engine_kpass_sha1", Refused("TLS is rustls, which has no engines")),
    ("tls_keyform", Refused("TLS is rustls, which has no engines")),
    ("tls_version", Honoured("`tlsv1.2` and `tlsv1.3`: the oldest version, as there")),
    ("topic", Refused(BRIDGE)),
    ("try_private", Refused(BRIDGE)),
    ("upgrade_outgoing_qos", Honoured("`false` only; `true` is refused: it breaks the standard")),
    ("use_identity_as_username", Honoured("as `certificate_name = \"common-name\"`")),
    ("use_subject_as_username", Honoured("as `certificate_name = \"subject\"`")),
    ("use_username_as_clientid", Honoured("`false` only; `true` is refused: it is not there")),
    ("user", Ignored("start the broker as the user that it is to run as")),
    ("username", Refused(BRIDGE)),
    ("websockets_headers_size", Ignored("the limit is 8 KiB")),
    ("websockets_log_level", Ignored("handshakes are told at the level info if they fail")),
    ("websockets_origin", Honoured("several, one on a line each")),
];

/// What becomes of the option `name`.
pub(crate) fn fate_of(name: &str) -> Option<Fate> {
    let is = |known: &str| match known.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == known,
    };
    OPTIONS.iter().find(|(known, _)| is(known)).map(|(_, fate)| *fate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;

    #[test]
    fn the_table_is_sorted_and_each_option_is_there_once() {
        assert!(OPTIONS.is_sorted_by(|(a, _), (b, _)| a < b));
    }

    /// The table in the documents says what the program does.
    #[test]
    fn the_page_is_up_to_date() {
        let mut table = String::from("| Option | | |\n|---|---|---|\n");
        for (name, fate) in OPTIONS {
            let (word, text) = match fate {
                Honoured(text) => ("honoured", text),
                Ignored(text) => ("ignored", text),
                Refused(text) => ("refused", text),
            };
            writeln!(table, "| `{name}` | {word} | {text} |").unwrap();
        }
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/mosquitto-conf.md");
        let page = std::fs::read_to_string(&path).unwrap();
        let (head, _) = page.split_once("| Option |").expect("a table");
        let wanted = format!("{head}{table}");
        if std::env::var_os("UPDATE").is_some_and(|value| value == "1") {
            std::fs::write(&path, wanted).unwrap();
        } else {
            assert!(
                page == wanted,
                "docs/mosquitto-conf.md: UPDATE=1 cargo test -p mqtt-broker the_page_is_up_to_date"
            );
        }
    }
}

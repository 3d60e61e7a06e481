//! From files to what would be started: what is open, what is shut, and what is an error.

use mqtt_broker::{Settings, Source, SourceFile};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

const ANN: &str = "ann:$6$vCFTMF1RV5fOoGjY$XX58WZ75lbXRTYSuqLcqmHQ+eQNYvC2SjTsn52afJptFsGrgZWviIeIO8pjJ4156eGxyCpoCNstpEmaimqADpQ==\n";

/// Files in a directory of their own; `DIR` in a text stands for it.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.write("pw", ANN);
        files.write("acl", "user ann\ntopic read a/#\n");
        files
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(name), self.fill(text)).unwrap();
    }

    fn fill(&self, text: &str) -> String {
        text.replace("DIR", &self.0.path().display().to_string())
    }

    fn config(&self, text: &str) -> Result<Settings, String> {
        self.write("c.toml", text);
        self.read(SourceFile::Config(self.0.path().join("c.toml")))
    }

    fn mosquitto(&self, text: &str) -> Result<Settings, String> {
        self.write("m.conf", text);
        self.read(SourceFile::Mosquitto(self.0.path().join("m.conf")))
    }

    fn read(&self, file: SourceFile) -> Result<Settings, String> {
        let mut source = Source::default();
        source.file = Some(file);
        source.read().map_err(|e| e.to_string().replace(&self.0.path().display().to_string(), "DIR"))
    }
}

/// What is said of each address; what is kept where comes last.
fn summary(settings: &Settings) -> Vec<String> {
    let mut lines: Vec<String> = settings.summary().collect();
    assert!(lines.pop().is_some_and(|last| last.starts_with("Sessions and messages are kept")));
    lines
}

#[test]
fn without_settings_it_is_open_to_this_machine_only() {
    let settings = Source::default().read().unwrap();
    assert_eq!(summary(&settings)[0], "127.0.0.1:1883: everybody; all topics");
    assert!(summary(&settings).iter().all(|line| line.starts_with("127.") || line.starts_with("[::1]")));
}

#[test]
fn other_machines_need_credentials_or_a_word() {
    let mut source = Source::default();
    source.bind = vec!["0.0.0.0".parse().unwrap()];
    let error = source.read().unwrap_err().to_string();
    assert!(error.contains("nobody could connect") && error.contains("--anonymous"), "{error}");
    source.anonymous = true;
    assert_eq!(summary(&source.read().unwrap()), ["0.0.0.0:1883: everybody; all topics"]);
    let files = Files::new();
    source.anonymous = false;
    source.password_file = Some(files.0.path().join("pw"));
    assert_eq!(summary(&source.read().unwrap()), ["0.0.0.0:1883: 1 users by password; all topics"]);
    source.acl_file = Some(files.0.path().join("acl"));
    assert!(summary(&source.read().unwrap())[0].contains("topics by"));
}

#[test]
fn listeners_may_have_security_of_their_own() {
    let files = Files::new();
    let settings = files
        .config(
            "[security]\npassword_file = \"DIR/pw\"\nacl_file = \"DIR/acl\"\n\
             [[listener]]\naddress = \"0.0.0.0:1884\"\n\
             [[listener]]\naddress = \"127.0.0.1:1885\"\n[listener.security]\nanonymous = true\n",
        )
        .unwrap();
    let summary = summary(&settings);
    assert!(summary[0].starts_with("0.0.0.0:1884: 1 users by password; topics by "));
    assert_eq!(summary[1], "127.0.0.1:1885: everybody; all topics");
    assert!(settings.acl(0).is_some_and(|(_, file)| file.is_some_and(|file| file.ends_with("acl"))));
    assert!(settings.acl(1).is_some_and(|(acl, _)| *acl == mqtt_session::acl::Acl::open()));
}

#[test]
fn what_cannot_be_is_told_with_line_and_remedy() {
    let files = Files::new();
    files.write("bad-pw", "\nann:secret\n");
    files.write("bad-acl", "user ann\ntopics a\n");
    for (text, expected) in [
        ("[security]\npassword_file = \"DIR/none\"", "DIR/none: cannot open it"),
        (
            "[security]\npassword_file = \"DIR/bad-pw\"",
            "DIR/bad-pw:2: user \"ann\": this is no password hash",
        ),
        (
            "[security]\npassword_file = \"DIR/pw\"\nacl_file = \"DIR/bad-acl\"",
            "DIR/bad-acl:2: \"topics\" begins no line",
        ),
        (
            "[security]\nacl_file = \"DIR/acl\"",
            "DIR/acl:2: it has rules for user \"ann\", and nothing checks",
        ),
        ("[security]\nanonymous = false", "DIR/c.toml:2: security.anonymous: nobody could connect"),
        ("\n[[listener]]\naddress = \"0.0.0.0\"", "DIR/c.toml: security: nobody could connect"),
        (
            "[[listener]]\naddress = \"0.0.0.0\"\n[listener.security]\n",
            "DIR/c.toml:3: listener.0.security: nobody",
        ),
        (
            "[[listener]]\naddress = \"nonsense:\"",
            "DIR/c.toml:2: listener.0.address: \"nonsense:\" is no address",
        ),
        (
            "[[listener]]\nprotocol = \"wss\"",
            "DIR/c.toml:1: listener.0.tls: TLS needs a certificate and its key",
        ),
        (
            "[[listener]]\nprotocol = \"mqtts\"\n[listener.tls]\ncert_file = \"DIR/none\"\nkey_file = \"DIR/none\"",
            "DIR/none: cannot open it",
        ),
        ("[[listener]]\n[listener.tls]\n", "DIR/c.toml:2: listener.0.tls: this listener does not speak TLS"),
        (
            "[[listener]]\nprotocol = \"ws\"\n[listener.websocket]\npath = \"mqtt\"",
            "DIR/c.toml:4: listener.0.websocket.path: a path begins with /",
        ),
        (
            "[[listener]]\nproxy_protocol = [\"ten\"]",
            "DIR/c.toml:2: listener.0.proxy_protocol: \"ten\" is no network",
        ),
        ("[[listener]]\nproxy_protocol = [\"127.0.0.1\"]", "DIR/c.toml: security: nobody could connect"),
        (
            "[[listener]]\nprotocol = \"unix\"\naddress = \"sock\"",
            "DIR/c.toml:3: listener.0.address: \"sock\" is no path",
        ),
        (
            "[[listener]]\nprotocol = \"unix\"\naddress = \"DIR/s\"\nunix_mode = \"rw\"",
            "DIR/c.toml:4: listener.0.unix_mode: these are no rights",
        ),
        (
            "[[listener]]\n[[listener]]\n",
            "DIR/c.toml:2: listener.1.address: 127.0.0.1:1883 is listened on already",
        ),
        (
            "[security]\ncertificate_name = \"subject\"",
            "DIR/c.toml:2: security.certificate_name: no client is asked for a certificate",
        ),
        (
            "[limits]\nmax_inflight = 0",
            "DIR/c.toml:2: limits.max_inflight: setting max_inflight must not be 0",
        ),
        ("[limits]\nmax_packet_size = \"8GiB\"", "DIR/c.toml:2: limits.max_packet_size: 8GiB is too much"),
        ("[timeouts]\nconnect = \"never\"", "DIR/c.toml:2: timeouts.connect: a limit is needed here"),
        ("[features]\nmax_qos = 3", "DIR/c.toml:2: features.max_qos: there is no such QoS"),
        (
            "[limits]\nmax_keep_alive = \"2d\"",
            "DIR/c.toml:2: limits.max_keep_alive: it is more than MQTT can express",
        ),
    ] {
        let error = files.config(text).unwrap_err();
        assert!(error.starts_with(expected), "{text}: {error}");
        assert!(error.rsplit(": ").next().is_some_and(|remedy| !remedy.is_empty()));
    }
}

/// A certificate for this machine and its key, in files.
fn issue(files: &Files, name: &str) {
    let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    files.write(&format!("{name}.pem"), &issued.cert.pem());
    files.write(&format!("{name}.key"), &issued.signing_key.serialize_pem());
}

#[test]
fn transports_are_read_and_told() {
    let files = Files::new();
    issue(&files, "server");
    issue(&files, "other");
    let tls = "[listener.tls]\ncert_file = \"DIR/server.pem\"\nkey_file = \"DIR/server.key\"\n";
    let settings = files
        .config(&format!(
            "[security]\ncertificate_name = \"common-name\"\npassword_file = \"DIR/pw\"\n\
             [[listener]]\naddress = \"0.0.0.0\"\nprotocol = \"mqtts\"\n{tls}ca_file = \"DIR/server.pem\"\n\
             [[listener]]\naddress = \"127.0.0.1\"\nprotocol = \"wss\"\n{tls}\
             [[listener]]\naddress = \"DIR/sock\"\nprotocol = \"unix\"\nunix_mode = \"660\"\n",
        ))
        .unwrap();
    let lines: Vec<String> =
        summary(&settings).iter().map(|line| line.replace(&files.fill("DIR"), "DIR")).collect();
    assert_eq!(
        lines,
        [
            "0.0.0.0:8883: users by certificate; all topics",
            "127.0.0.1:8084: 1 users by password; all topics",
            "unix:DIR/sock: 1 users by password; all topics"
        ]
    );
    assert_eq!(settings.certificates().count(), 2);
    assert!(settings.certificates().all(|(_, ends)| ends > std::time::SystemTime::now()));
    let wrong = tls.replace("server.key", "other.key");
    let error = files.config(&format!("[[listener]]\nprotocol = \"mqtts\"\n{wrong}")).unwrap_err();
    assert!(error.starts_with("DIR/other.key: certificate and key cannot be used"), "{error}");
    let ciphers = format!("[[listener]]\nprotocol = \"mqtts\"\n{tls}ciphers = [\"HIGH\"]");
    let error = files.config(&ciphers).unwrap_err();
    assert!(
        error.starts_with("DIR/c.toml:6: listener.0.tls.ciphers: \"HIGH\" is no cipher suite"),
        "{error}"
    );
    let crl = format!("[[listener]]\nprotocol = \"mqtts\"\n{tls}crl_file = \"DIR/none\"");
    assert!(files.config(&crl).unwrap_err().contains("listener.0.tls.crl_file: clients are not asked"));

    let conf =
        "allow_anonymous true\nlistener 8883 127.0.0.1\ncertfile DIR/server.pem\nkeyfile DIR/server.key\n";
    assert_eq!(summary(&files.mosquitto(conf).unwrap()), ["127.0.0.1:8883: everybody; all topics"]);
    let conf =
        format!("{conf}cafile DIR/server.pem\nrequire_certificate true\nuse_subject_as_username true\n");
    let told = summary(&files.mosquitto(&conf).unwrap());
    assert_eq!(told, ["127.0.0.1:8883: users by certificate; all topics"]);
    let error =
        files.mosquitto("allow_anonymous true\nlistener 8883\nuse_identity_as_username true\n").unwrap_err();
    assert!(error.contains("m.conf:3: listener.0.security.certificate_name: no client is asked"), "{error}");
}

#[cfg(unix)]
#[test]
fn sockets_of_a_service_manager_are_used_or_refused() {
    use mqtt_broker::{Inherited, ListeningSocket};
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let mut source = Source::default();
    source.sockets = vec![Inherited::new(ListeningSocket::Tcp(socket))];
    assert_eq!(summary(&source.read().unwrap()), [format!("{address}: everybody; all topics")]);
    source.bind = vec![address.to_string().parse().unwrap()];
    assert_eq!(summary(&source.read().unwrap()).len(), 1);
    source.bind = vec!["127.0.0.1:1".parse().unwrap()];
    let error = source.read().unwrap_err().to_string();
    assert!(error.contains(&format!("passed a socket of {address}, and no listener has that")), "{error}");
}

#[test]
fn a_mosquitto_conf_is_open_and_shut_as_it_says() {
    let files = Files::new();
    let settings =
        files.mosquitto("listener 1883 127.0.0.1\npassword_file DIR/pw\nacl_file DIR/acl\n").unwrap();
    assert!(summary(&settings)[0].starts_with("127.0.0.1:1883: 1 users by password; topics by "));
    let settings =
        files.mosquitto("listener 1883 127.0.0.1\nallow_anonymous true\nacl_file DIR/acl\n").unwrap();
    let remarks: Vec<String> = settings.remarks().collect();
    assert!(remarks[0].contains("acl:2: it has rules for user \"ann\""), "{remarks:?}");
    let settings = files.mosquitto("persistence true\n").unwrap();
    assert_eq!(summary(&settings)[0], "127.0.0.1:1883: everybody; all topics");
    for (text, expected) in [
        ("listener 1883\n", "DIR/m.conf: security.anonymous: nobody could connect"),
        ("listener 1883\nallow_anonymous false\n", "DIR/m.conf:2: security.anonymous: nobody could connect"),
        ("listener 1883\npassword_file DIR/none\n", "DIR/none: cannot open it"),
        (
            "listener 1883 127.0.0.1\nlistener 1883 127.0.0.1\nallow_anonymous true",
            "DIR/m.conf:2: listener.1.address",
        ),
        (
            "per_listener_settings true\nlistener 1883 127.0.0.1\nallow_anonymous true\nlistener 1884 127.0.0.1\nallow_anonymous false",
            "DIR/m.conf:5: listener.1.security.anonymous: nobody could connect",
        ),
    ] {
        let error = files.mosquitto(text).unwrap_err();
        assert!(error.starts_with(expected), "{text}: {error}");
    }
}

#[cfg(feature = "jwt")]
#[test]
fn tokens_need_one_source_of_keys() {
    let files = Files::new();
    files.write("key", "0123456789abcdef0123456789abcdef\n");
    let jwt =
        |text: &str| files.config(&format!("[[listener]]\naddress = \"0.0.0.0\"\n[security.jwt]\n{text}"));
    let settings = jwt("key_file = \"DIR/key\"\nalgorithms = [\"HS256\"]").unwrap();
    assert_eq!(summary(&settings), ["0.0.0.0:1883: users by token; all topics"]);
    for (text, expected) in [
        ("", "DIR/c.toml:3: security.jwt: tokens need one source of keys"),
        ("key_file = \"DIR/key\"", "DIR/key: no algorithm is set"),
        ("jwks_file = \"DIR/key\"", "DIR/key:1: this is no JWK set"),
        (
            "jwks_file = \"DIR/key\"\nkey_file = \"DIR/key\"",
            "DIR/c.toml:3: security.jwt: tokens need one source",
        ),
    ] {
        let error = jwt(text).unwrap_err();
        assert!(error.starts_with(expected), "{error}");
    }
}

#[cfg(feature = "webhook")]
#[test]
fn a_web_service_has_an_address() {
    let files = Files::new();
    let hook = |text: &str| {
        files.config(&format!("[[listener]]\naddress = \"0.0.0.0\"\n[security.webhook]\n{text}"))
    };
    assert!(hook("connect_url = \"http://127.0.0.1:1/\"").is_ok());
    for (text, expected) in [
        ("", "DIR/c.toml:3: security.webhook: there is nothing to ask"),
        (
            "connect_url = \"https://x/\"\nca_file = \"DIR/none\"",
            "DIR/c.toml:3: security.webhook: \"https://x/\" cannot be asked: the authorities in DIR/none: No such",
        ),
        ("acl_url = \"http://127.0.0.1:1/\"", "DIR/c.toml:3: security: nobody could connect"),
        ("connect_url = \"http://127.0.0.1:1/\"\ntoken_file = \"DIR/none\"", "DIR/none: cannot open it"),
    ] {
        let error = hook(text).unwrap_err();
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn paths_are_as_they_are_written() {
    let files = Files::new();
    let error = files.config("[security]\npassword_file = \"no/such/file\"").unwrap_err();
    assert!(error.starts_with(&Path::new("no/such/file").display().to_string()), "{error}");
}

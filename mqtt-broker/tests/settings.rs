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

fn summary(settings: &Settings) -> Vec<String> {
    settings.summary().collect()
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
            "DIR/c.toml:2: listener.0.protocol: this transport is not there yet",
        ),
        (
            "[[listener]]\n[[listener]]\n",
            "DIR/c.toml:2: listener.1.address: 127.0.0.1:1883 is listened on already",
        ),
        (
            "[security]\ncertificate_name = \"subject\"",
            "DIR/c.toml:2: security.certificate_name: there is no TLS yet",
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

#[cfg(feature = "http")]
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
            "connect_url = \"https://x/\"",
            "DIR/c.toml:3: security.webhook: \"https://x/\" cannot be asked: https",
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

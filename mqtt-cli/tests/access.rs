//! Passwords, rights and settings, as operators handle them.
#![cfg(unix)]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use tempfile::TempDir;

const MQTT: &str = env!("CARGO_BIN_EXE_mqtt");

fn mqtt(arguments: &[&str]) -> Output {
    Command::new(MQTT).args(arguments).stdin(Stdio::null()).output().expect("the program runs")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

fn succeeds(arguments: &[&str]) -> String {
    let output = mqtt(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout).to_owned()
}

fn fails(arguments: &[&str]) -> String {
    let output = mqtt(arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    text(&output.stderr).to_owned()
}

struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> String {
        let path: PathBuf = self.0.path().join(name);
        path.to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, content: &str) -> String {
        fs::write(self.path(name), content).unwrap();
        self.path(name)
    }

    fn passwords(&self, users: &[&str]) -> String {
        let file = self.path("pw");
        for (n, user) in users.iter().enumerate() {
            let create = if n == 0 { "-bc" } else { "-b" };
            succeeds(&["passwd", create, "-H", "sha512", &file, user, "secret"]);
        }
        file
    }
}

/// A broker on a port that the system chose; killed when dropped.
struct Broker {
    child: Child,
    log: Receiver<String>,
    port: String,
}

/// Longer than anything takes; a test that hangs is a test that fails.
const PATIENCE: Duration = Duration::from_secs(30);

fn lines(log: ChildStderr) -> Receiver<String> {
    let (to, lines) = channel();
    std::thread::spawn(move || {
        let mut log = BufReader::new(log).lines();
        while let Some(Ok(line)) = log.next() {
            // It must be able to go on logging.
            let _ = to.send(line);
        }
    });
    lines
}

impl Broker {
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(MQTT)
            .args(["broker", "--data", "none"])
            .args(arguments)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let log = lines(child.stderr.take().expect("its log"));
        let mut broker = Self { child, log, port: String::new() };
        let line = broker.wait_for("Listening on ");
        let (_, port) = line.trim_end_matches('.').rsplit_once(':').expect("a port");
        broker.port = port.to_owned();
        broker
    }

    /// The first line of the log that has `wanted` in it.
    fn wait_for(&mut self, wanted: &str) -> String {
        loop {
            let line = self.log.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("it says {wanted:?}"));
            if line.contains(wanted) {
                return line;
            }
        }
    }

    fn reload(&self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    }

    fn publish(&self, user: &str, password: &str, topic: &str) -> Option<i32> {
        let arguments = ["pub", "-h", "127.0.0.1", "-p", &self.port, "-V", "5", "-q", "1", "-m", "x"];
        let login = ["-u", user, "-P", password, "-t", topic];
        let login = if user.is_empty() { &login[4..] } else { &login[..] };
        mqtt(&[&arguments[..], login].concat()).status.code()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn password_files_are_made_and_edited() {
    let files = Files::new();
    let file = files.path("pw");
    succeeds(&["passwd", "-c", "-b", &file, "ann", "one"]);
    assert!(fs::read_to_string(&file).unwrap().starts_with("ann:$argon2id$v=19$m=47104,t=1,p=1$"));
    for (method, sign) in
        [("sha512", "$6$"), ("sha512-pbkdf2", "$7$210000$"), ("scram-sha-256", "SCRAM-SHA-256$")]
    {
        succeeds(&["passwd", "-b", "-H", method, &file, method, "two"]);
        assert!(fs::read_to_string(&file).unwrap().contains(&format!("\n{method}:{sign}")), "{method}");
    }
    succeeds(&["passwd", "-b", "-H", "sha512-pbkdf2", "-I", "5000", &file, "ann", "three"]);
    assert!(fs::read_to_string(&file).unwrap().starts_with("ann:$7$5000$"));
    let mut child = Command::new(MQTT).args(["passwd", &file, "bob"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"typed\n").unwrap();
    assert!(child.wait().unwrap().success());
    succeeds(&["passwd", "-D", &file, "ann"]);
    let content = fs::read_to_string(&file).unwrap();
    assert!(content.contains("\nbob:$argon2id$") && !content.contains("ann:"));
    let plain = files.write("plain", "ann:one\nbob:two\n");
    succeeds(&["passwd", "-U", "-H", "sha512", &plain]);
    let upgraded = fs::read_to_string(&plain).unwrap();
    assert!(upgraded.starts_with("ann:$6$") && upgraded.contains("\nbob:$6$"), "{upgraded}");
    assert!(succeeds(&["passwd", "-c", "-b", "-H", "sha512", "-", "ann", "one"]).starts_with("ann:$6$"));
}

#[test]
fn mistakes_with_passwords_are_told_and_change_nothing() {
    let files = Files::new();
    let file = files.passwords(&["ann"]);
    let before = fs::read_to_string(&file).unwrap();
    for (arguments, problem) in [
        (&["passwd", "-D", &file, "bob"][..], "there is no user \"bob\""),
        (&["passwd", "-b", &file, "a:b", "x"], "a user name is not empty"),
        (&["passwd", "-b", &file, "bob", ""], "an empty password"),
        (&["passwd", &file, "bob"], "an empty password"),
        (&["passwd", "-b", &files.path("none"), "bob", "x"], "make it with --create"),
        (&["passwd", "-b", "-I", "5", &file, "bob", "x"], "--iterations is for"),
    ] {
        let error = fails(arguments);
        assert!(error.contains(problem), "{error}");
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), before);
}

#[test]
fn rights_are_explained() {
    let files = Files::new();
    let acl = files
        .write("acl", "topic read open\nuser ann\ntopic read a/#\ntopic deny a/x\npattern write dev/%c\n");
    let check = |mode: &str, who: [&str; 3]| {
        let arguments = [&["acl", "check", "--acl-file", &acl, "--mode", mode][..], &who].concat();
        succeeds(&arguments).replace(&acl, "ACL")
    };
    assert_eq!(
        check("strict", ["ann", "c", "a/b"]),
        "read       yes  ACL:3: topic read a/#\nwrite      no   no rule allows it\nsubscribe  yes  ACL:3: topic read a/#\n"
    );
    assert_eq!(check("strict", ["ann", "c", "a/#"]), "subscribe  yes  ACL:3: topic read a/#\n");
    assert!(check("strict", ["ann", "c", "a/x"]).starts_with("read       no   ACL:4: topic deny a/x\n"));
    assert!(check("strict", ["-", "c", "open"]).starts_with("read       yes  ACL:1: topic read open\n"));
    assert!(check("mosquitto", ["ann", "c", "#"]).starts_with("subscribe  yes  every SUBSCRIBE is granted"));
    let conf =
        files.write("m.conf", &format!("listener 1883 127.0.0.1\nallow_anonymous true\nacl_file {acl}\n"));
    let by_conf = succeeds(&["acl", "check", "--mosquitto-conf", &conf, "-", "c", "dev/c"]);
    assert!(by_conf.contains(":5: pattern write dev/%c"), "{by_conf}");
    assert!(succeeds(&["acl", "check", "-", "c", "t"]).starts_with("Everything is allowed"));
    assert!(fails(&["acl", "check", "--acl-file", &acl, "-", "c", "a/#/b"]).contains("Error: "));
}

#[test]
fn settings_are_checked_without_a_start() {
    let files = Files::new();
    let example = succeeds(&["broker", "--print-config"]);
    let config = files.write("c.toml", &example);
    assert!(succeeds(&["broker", "--config", &config, "--check"]).ends_with("The settings are fine.\n"));
    files.write("c.toml", &example.replace("#[limits]", "[limits]\nmax_cats = 1"));
    let error = fails(&["broker", "--config", &config, "--check"]);
    let line = example.lines().position(|line| line == "#[limits]").unwrap() + 2;
    assert!(error.contains(&format!("c.toml:{line}: unknown field `max_cats`")), "{error}");
    let set = ["broker", "--check", "--set", "security.anonymous=false"];
    assert!(fails(&set).contains("security.anonymous: nobody could connect"));
    let output =
        Command::new(MQTT).args(["broker", "--check"]).env("MQTT_LIMITS__MAX_CATS", "1").output().unwrap();
    assert!(text(&output.stderr).contains("MQTT_LIMITS__MAX_CATS: unknown field"));
    assert!(fails(&["broker", "--bind", "0.0.0.0"]).contains("--anonymous"));
    let conf = files.write("m.conf", "listener 8883\ncertfile /nowhere/c\nkeyfile /nowhere/k\n");
    let error = fails(&["broker", "--mosquitto-conf", &conf]);
    assert!(error.contains("/nowhere/c"), "{error}");
}

#[test]
fn a_password_can_be_proved_without_being_sent() {
    let files = Files::new();
    let file = files.path("pw");
    succeeds(&["passwd", "-c", "-b", "-H", "scram-sha-256", "-I", "4096", &file, "ann", "secret"]);
    let broker = Broker::start(&["--bind", "127.0.0.1:0", "--password-file", &file]);
    let publish = |password| {
        let who = ["-u", "ann", "-P", password, "--scram"];
        mqtt(
            &[&["pub", "-h", "127.0.0.1", "-p", &broker.port, "-t", "t", "-m", "x", "-q", "1"][..], &who]
                .concat(),
        )
    };
    assert_eq!(publish("secret").status.code(), Some(0));
    assert_eq!(publish("guess").status.code(), Some(135));
    assert_eq!(broker.publish("ann", "secret", "t"), Some(0), "it can be sent as well");
}

#[test]
fn a_good_reload_takes_effect_at_once_and_a_bad_one_not_at_all() {
    let files = Files::new();
    let passwords = files.passwords(&["ann", "bob"]);
    let acl = files.write("acl", "user ann\ntopic write a\nuser bob\ntopic readwrite #\n");
    let config = files.write(
        "c.toml",
        &format!(
            "[[listener]]\naddress = \"127.0.0.1:0\"\n[security]\npassword_file = {passwords:?}\nacl_file = {acl:?}\n"
        ),
    );
    let mut broker = Broker::start(&["--config", &config]);
    assert_eq!(broker.publish("ann", "secret", "a"), Some(0));
    assert_eq!(broker.publish("ann", "secret", "b"), Some(135), "not authorised");
    assert_eq!(broker.publish("ann", "wrong", "a"), Some(134));
    assert_eq!(broker.publish("", "", "a"), Some(135));

    files.write("acl", "user ann\ntopics write b\n");
    broker.reload();
    let line = broker.wait_for("Not reloaded");
    assert!(line.contains("acl:2: \"topics\" begins no line"), "{line}");
    assert_eq!(broker.publish("ann", "secret", "a"), Some(0), "what was in force stays so");

    files.write("acl", "user ann\ntopic write b\nuser bob\ntopic readwrite #\n");
    files.write("c.toml", &(fs::read_to_string(&config).unwrap() + "[limits]\nmax_sessions = 5\n"));
    broker.reload();
    broker.wait_for("limits.max_sessions has changed; it takes effect at the next start");
    broker.wait_for("Config reloaded");
    assert_eq!(broker.publish("ann", "secret", "a"), Some(135));
    assert_eq!(broker.publish("ann", "secret", "b"), Some(0));

    // A client whose user is removed is disconnected.
    let arguments = [
        "sub",
        "-h",
        "127.0.0.1",
        "-p",
        &broker.port,
        "-V",
        "5",
        "-u",
        "bob",
        "-P",
        "secret",
        "-t",
        "b",
        "-d",
    ];
    let subscriber =
        Command::new(MQTT).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    broker.wait_for("u'bob'");
    succeeds(&["passwd", "-D", &passwords, "bob"]);
    broker.reload();
    broker.wait_for("Connections of users that are gone or have another password: 1 closed");
    assert_eq!(broker.publish("bob", "secret", "b"), Some(134));
    let mut subscriber = subscriber;
    let _ = subscriber.kill();
    let _ = subscriber.wait();

    fs::remove_file(&passwords).unwrap();
    broker.reload();
    assert!(broker.wait_for("Not reloaded").contains("cannot open it"));
    assert_eq!(broker.publish("ann", "secret", "b"), Some(0));
}

//! A broker that writes a trace, and the replay of it.
#![cfg(unix)]

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

const MQTT: &str = env!("CARGO_BIN_EXE_mqtt");

/// A file of this test's own, gone with it.
struct TempFile(PathBuf);

impl TempFile {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("mqtt-cli-{name}-{}", std::process::id())))
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("a name")
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn run(arguments: &[&str]) -> Output {
    Command::new(MQTT).args(arguments).output().expect("the program runs")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

/// The trace of a broker that two clients used, and that then was told to stop.
fn recorded(file: &TempFile, options: &[&str]) {
    let mut broker = Command::new(MQTT)
        .args(["broker", "--data", "none", "--bind", "127.0.0.1", "--port", "0", "--trace", file.path()])
        .args(options)
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut log = BufReader::new(broker.stderr.take().expect("its log"));
    let port = loop {
        let mut line = String::new();
        assert!(log.read_line(&mut line).expect("its log") > 0, "it tells where it listens");
        if let Some((_, address)) = line.trim_end().rsplit_once("Listening on 127.0.0.1:") {
            break address.trim_end_matches('.').to_owned();
        }
    };
    std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
    let to = ["-h", "127.0.0.1", "-p", &port, "-V", "5", "-u", "user", "-P", "swordfish"];
    for (id, topic, payload) in [("one", "room/1/light", "on, please"), ("two", "room/2/light", "off")] {
        let sent = Command::new(MQTT)
            .arg("pub")
            .args(to)
            .args(["-i", id, "-t", topic, "-m", payload, "-q", "1", "-r"])
            .output()
            .expect("the client runs");
        assert!(sent.status.success(), "{}", text(&sent.stderr));
    }
    let stop = Command::new("sh").args(["-c", &format!("kill -TERM {}", broker.id())]).status();
    assert!(stop.expect("a shell").success());
    assert!(broker.wait().expect("its end").success());
}

#[test]
fn a_replay_shows_the_packets_and_finds_nothing_else() {
    let file = TempFile::new("replay");
    recorded(&file, &[]);
    let all = run(&["replay", file.path()]);
    assert!(all.status.success(), "{}", text(&all.stderr));
    assert!(text(&all.stderr).ends_with("all outputs are as they were.\n"), "{}", text(&all.stderr));
    let shown = text(&all.stdout);
    assert!(shown.starts_with("Trace of 20"), "{shown}");
    for line in [
        "one                  -> CONNECT 5.0 \"one\"",
        "one                  -> PUBLISH room/1/light q1 #1 retain \"on, please\"",
        "one                  <- PUBACK #1 no matching subscribers (0x10)",
        "two                  -> DISCONNECT 00",
    ] {
        assert!(shown.contains(line), "{line} is not in\n{shown}");
    }
    assert!(!shown.contains("swordfish"));

    let lines = |arguments: &[&str]| {
        let shown = run(&[&["replay", file.path()], arguments].concat());
        text(&shown.stdout).lines().skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    let by_client = lines(&["--client", "two"]);
    assert!(by_client.len() > 4 && by_client.iter().all(|line| !line.contains("one")), "{by_client:?}");
    assert!(by_client[0].contains("connected from 127.0.0.1:"), "{by_client:?}");
    let by_topic = lines(&["--topic", "room/1/#", "--payload", "2"]);
    assert_eq!(by_topic.len(), 2, "{by_topic:?}");
    assert!(by_topic[0].contains("PUBLISH room/1/light q1 #1 retain \"on\"... (10 bytes)"), "{by_topic:?}");
    assert!(by_topic[1].contains("<- PUBACK #1"), "{by_topic:?}");
    assert!(lines(&["--from", "3600"]).is_empty());
    assert!(run(&["replay", "--quiet", file.path()]).stdout.is_empty());
}

#[test]
fn payloads_can_be_left_out() {
    let file = TempFile::new("blank");
    recorded(&file, &["--trace-without-payloads"]);
    let shown = run(&["replay", file.path()]);
    assert!(shown.status.success(), "{}", text(&shown.stderr));
    assert!(text(&shown.stdout).contains("PUBLISH room/1/light q1 #1 retain \"**********\""));
    let bytes = std::fs::read(&file.0).unwrap();
    assert!(!bytes.windows(10).any(|window| window == b"on, please"));
}

#[test]
fn what_is_no_trace_is_told() {
    let file = TempFile::new("none");
    std::fs::write(&file.0, "something else").unwrap();
    let refused = run(&["replay", file.path()]);
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(text(&refused.stderr), "Error: this is no trace in the format of this program\n");
    let missing = run(&["replay", "/nowhere/at/all"]);
    assert!(text(&missing.stderr).starts_with("Error: cannot read /nowhere/at/all: "));
}

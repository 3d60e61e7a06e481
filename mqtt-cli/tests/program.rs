//! The program as people start it.
#![cfg(unix)]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Output, Stdio};

const MQTT: &str = env!("CARGO_BIN_EXE_mqtt");

/// A broker on a port that the system chose; killed when dropped.
struct Broker {
    child: Child,
    port: String,
}

impl Broker {
    fn start() -> Self {
        Self::on("0")
    }

    fn on(port: &str) -> Self {
        let mut child = Command::new(MQTT)
            .args(["broker", "--bind", "127.0.0.1", "--port", port, "--data", "none"])
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut log = BufReader::new(child.stderr.take().expect("its log"));
        let port = loop {
            let mut line = String::new();
            assert!(log.read_line(&mut line).expect("its log") > 0, "it tells where it listens");
            if let Some((_, address)) = line.trim_end().rsplit_once("Listening on ") {
                let (_, port) = address.trim_end_matches('.').rsplit_once(':').expect("a port");
                break port.to_owned();
            }
        };
        // It must be able to go on logging.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self { child, port }
    }

    fn client(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(MQTT);
        command.args(&arguments[..1]).args(["-h", "127.0.0.1", "-p", &self.port]).args(&arguments[1..]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.client(arguments).output().expect("the client runs")
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

#[test]
fn messages_pass_from_pub_to_sub() {
    let broker = Broker::start();
    for version in ["31", "311", "5"] {
        // Retained messages need no subscriber that is there in time.
        let sent = broker.run(&["pub", "-V", version, "-t", "a/b", "-m", "kept", "-q", "2", "-r"]);
        assert!(sent.status.success(), "{}", text(&sent.stderr));
        let got = broker.run(&["sub", "-V", version, "-t", "a/#", "-v", "-C", "1", "-q", "1"]);
        assert_eq!((got.status.code(), text(&got.stdout)), (Some(0), "a/b kept\n"));
    }
    let got = broker.run(&["sub", "-t", "a/b", "-C", "1", "-F", "%t %q %r %l %x|", "-N"]);
    assert_eq!(text(&got.stdout), "a/b 0 1 4 6b657074|");
}

#[test]
fn a_session_keeps_lines_for_a_subscriber_that_is_away() {
    let broker = Broker::start();
    let subscribe = ["sub", "-t", "t", "-i", "keeper", "-c", "-q", "1"];
    let made = broker.run(&[&subscribe[..], &["-E"]].concat());
    assert!(made.status.success(), "{}", text(&made.stderr));
    let mut lines =
        broker.client(&["pub", "-t", "t", "-l", "-q", "1"]).stdin(Stdio::piped()).spawn().unwrap();
    lines.stdin.take().unwrap().write_all(b"one\ntwo\nlast").unwrap();
    assert!(lines.wait().unwrap().success());
    let got = broker.run(&[&subscribe[..], &["-C", "3"]].concat());
    assert_eq!(text(&got.stdout), "one\ntwo\nlast\n");
}

#[test]
fn ends_are_told_by_exit_codes() {
    let broker = Broker::start();
    let waited = broker.run(&["sub", "-t", "silence", "-W", "1"]);
    assert_eq!(waited.status.code(), Some(27));
    for wrong in [
        &["pub", "-t", "t"][..],
        &["pub", "-t", "t", "-m", "x", "-q", "3"],
        &["pub", "-t", "a/#", "-m", "x"],
        &["sub", "-t", "a/#/b"],
        &["sub", "-t", "t", "-F", "%y"],
        &["pub", "-t", "t", "-m", "x", "-D", "publish", "no-such", "1"],
        &["sub", "-t", "t", "-i", "", "-c"],
    ] {
        let output = broker.run(wrong);
        assert_eq!(output.status.code(), Some(1), "{wrong:?}");
        assert!(!output.stderr.is_empty(), "{wrong:?} is explained");
    }
    let nobody = Command::new(MQTT).args(["pub", "-p", "1", "-t", "t", "-m", "x"]).output().unwrap();
    assert_eq!(nobody.status.code(), Some(1));
    let help = Command::new(MQTT).args(["sub", "--help"]).output().unwrap();
    assert!(help.status.success() && text(&help.stdout).contains("--topic"));
}

#[test]
fn a_port_that_is_taken_is_named_and_a_signal_ends_cleanly() {
    let mut broker = Broker::start();
    let second = Command::new(MQTT)
        .args(["broker", "--bind", "127.0.0.1", "--port", &broker.port, "--data", "none"])
        .output()
        .unwrap();
    assert!(!second.status.success());
    assert!(text(&second.stderr).contains(&broker.port) && text(&second.stderr).contains("in use"));
    let kill = Command::new("kill").args(["-TERM", &broker.child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    assert_eq!(broker.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_message_that_could_not_be_sent_is_sent_by_the_next_run() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path().to_str().unwrap();
    // A port where nobody is yet.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let arguments = ["-h", "127.0.0.1", "-p", &port, "-c", "-i", "p", "--session-dir", directory];
    let publish = |text: &str| {
        let mut command = Command::new(MQTT);
        command.arg("pub").args(arguments).args(["-t", "kept", "-q", "2", "-m", text]);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let mut first = publish("first");
    // It says that it tries again, and has stored what it was given before it tried.
    let mut log = BufReader::new(first.stderr.take().unwrap()).lines();
    let told =
        log.by_ref().map_while(Result::ok).filter(|line| line.contains("connecting again")).take(2).count();
    assert_eq!(told, 2);
    first.kill().unwrap();
    first.wait().unwrap();
    let broker = Broker::on(&port);
    let mut listener =
        broker.client(&["sub", "-t", "kept", "-q", "2", "-C", "2", "-W", "20", "-d"]).spawn().unwrap();
    let mut log = BufReader::new(listener.stderr.take().unwrap()).lines();
    assert!(log.any(|line| line.is_ok_and(|line| line.contains("Subscribed"))));
    assert!(publish("second").wait().unwrap().success());
    let mut out = String::new();
    std::io::Read::read_to_string(&mut listener.stdout.take().unwrap(), &mut out).unwrap();
    assert_eq!(out.lines().collect::<Vec<_>>(), ["first", "second"]);
    listener.wait().unwrap();
}

#[test]
fn a_request_gets_its_response() {
    let broker = Broker::start();
    // It tells where the response is wanted.
    let mut answer = broker.client(&["sub", "-V", "5", "-t", "ask", "-F", "%R %p", "-C", "1"]);
    let answer = std::thread::spawn(move || answer.output().unwrap());
    let request = ["rr", "-t", "ask", "-e", "answers/1", "-m", "what", "-q", "1", "-W", "1", "-V", "5"];
    while !answer.is_finished() {
        // Until somebody is there to hear it. Nobody answers.
        assert_eq!(broker.run(&request).status.code(), Some(27));
    }
    assert_eq!(text(&answer.join().unwrap().stdout), "answers/1 what\n");
    // An answer that comes after a retained message, which is none.
    broker.run(&["pub", "-t", "answers/2", "-m", "old", "-r", "-q", "1"]);
    let request = ["rr", "-t", "answers/2", "-e", "answers/2", "-m", "echo", "-q", "1", "-v"];
    let done = broker.run(&request);
    assert_eq!((done.status.code(), text(&done.stdout)), (Some(0), "answers/2 echo\n"));
    let done = broker.run(&["rr", "-V", "311", "-t", "ask", "-m", "x"]);
    assert!(text(&done.stderr).contains("an option needs MQTT 5.0"), "{}", text(&done.stderr));
}

#[test]
fn a_benchmark_counts_each_message() {
    let broker = Broker::start();
    for qos in ["0", "1", "2"] {
        let bench = [
            "bench",
            "latency",
            "-n",
            "3",
            "--count",
            "50",
            "-q",
            qos,
            "--json",
            "--quiet",
            "--duration",
            "60",
        ];
        let done = Command::new(MQTT)
            .args(&bench[..2])
            .args(["-h", "127.0.0.1", "-p", &broker.port])
            .args(&bench[2..])
            .output();
        let done = done.unwrap();
        assert!(done.status.success(), "{}", text(&done.stderr));
        let report: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
        assert_eq!((report["sent"].as_u64(), report["received"].as_u64()), (Some(150), Some(150)));
        assert_eq!(report["connected"], 6);
        assert!(report["message_us"]["p50"].as_u64() > Some(0));
    }
    let done = Command::new(MQTT).args(["bench", "publish", "-t", "a/#"]).output().unwrap();
    assert!(!done.status.success());
}

/// What a service manager hears from the broker.
#[test]
fn a_service_manager_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
    let mut child = Command::new(MQTT)
        .args(["broker", "--bind", "127.0.0.1", "--port", "0", "--data", "none"])
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "300000")
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    let mut heard = String::new();
    let mut until = |wanted: &str| {
        let mut buffer = [0; 1024];
        while !heard.contains(wanted) {
            let n = socket.recv(&mut buffer).expect("the broker tells");
            heard.push_str(std::str::from_utf8(&buffer[..n]).unwrap());
        }
        std::mem::take(&mut heard)
    };
    let first = until("READY=1");
    assert!(first.contains("STATUS=listening on 127.0.0.1:"), "{first}");
    until("WATCHDOG=1");
    until("WATCHDOG=1");
    let send = |signal: &str| {
        let pid = child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    };
    send("-HUP");
    let reloading = until("RELOADING=1");
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    until("READY=1");
    send("-TERM");
    until("STOPPING=1");
    assert!(child.wait().unwrap().success());
}

#[test]
fn manual_pages_and_completions_are_made() {
    let directory = tempfile::tempdir().unwrap();
    let done = Command::new(MQTT).arg("man").arg(directory.path()).output().unwrap();
    assert!(done.status.success(), "{}", text(&done.stderr));
    let page = std::fs::read_to_string(directory.path().join("mqtt-broker.1")).unwrap();
    assert!(page.contains("mosquitto"), "it has the broker's options");
    for shell in ["bash", "zsh", "fish"] {
        let done = Command::new(MQTT).args(["completions", shell]).output().unwrap();
        assert!(text(&done.stdout).contains("max-inflight"), "{shell}");
    }
}

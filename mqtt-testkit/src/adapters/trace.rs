//! What a broker recorded of itself plays again to the same outputs.

use super::Harness;
use super::script::{EVERY_QOS, VERSIONS, client_options, next};
use futures_lite::future::zip;
use mqtt_io::broker::{Answer, Ask, Config, Question};
use mqtt_io::trace::{Ending, Input, Player, TraceOptions};
use mqtt_proto::ReasonCode;
use mqtt_session::client::CleanStart;
use mqtt_session::{Durability, Message};
use mqtt_store::MemoryStore;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Many clients of all versions exchange messages of every QoS with a broker that asks, stores, is shut
/// down, and goes on from its store; both lives are recorded, without passwords and, the second time,
/// without payloads. The machine alone then does the same again.
pub async fn trace<H: Harness>() {
    let files = Files::new();
    let store = MemoryStore::new();
    for (life, path) in files.0.iter().enumerate() {
        let mut config = Config::listening_on(["127.0.0.1:0".parse().unwrap()]).authorized_by(decide);
        let store = store.clone();
        config = config.stored_in(Durability::Synced, move || Ok(Box::new(store.clone())));
        let mut options = TraceOptions::new(path);
        options.payloads = life == 0;
        config.trace = Some(options);
        live::<H>(config).await;
        play(path, life == 0);
    }
}

async fn decide(ask: Ask) -> Answer {
    match ask.question {
        Question::Connect { password: Some(password), .. } if password == "swordfish" => Answer::Allow,
        Question::Connect { .. } => Answer::Deny(ReasonCode::BadUserNameOrPassword),
        _ => Answer::Allow,
    }
}

async fn live<H: Harness>(config: Config) {
    let broker = H::bind(config).await.unwrap();
    let server = broker.local_addrs()[0];
    let login = |id: &str| client_options::<H>(server, id).credentials("user", "swordfish");
    client_options::<H>(server, "stranger").credentials("user", "guess").connect().await.unwrap_err();
    let from = login("from").connect().await.unwrap();
    let mut own = broker.subscribe("t/+", Default::default()).await.unwrap();
    let retained = Message::new("t/retained", "kept in mind").retained();
    from.publish(retained).await.unwrap();
    let work = VERSIONS.map(|version| async move {
        let id = format!("to-{version}");
        for (round, granted) in EVERY_QOS.into_iter().enumerate() {
            let to = login(&id).version(version).clean_start(CleanStart::Never);
            let to = to.configure(|config| {
                config.session_expiry_secs = 3600;
                config.adopt_session = true;
            });
            let to = to.connect().await.unwrap();
            let mut stream = to.subscribe(&format!("t/{id}"), granted).await.unwrap();
            for (n, qos) in (0..30).zip(EVERY_QOS.into_iter().cycle()) {
                let text = format!("in confidence {n}");
                to.publish(Message::new(format!("t/{id}"), text.clone()).with_qos(qos)).await.unwrap();
                assert_eq!(next(&mut stream).await, text);
            }
            if round == 1 {
                // It comes back without having said goodbye.
                drop(to);
                continue;
            }
            to.disconnect().await.unwrap();
        }
    });
    let [a, b, c] = work;
    zip(zip(a, b), c).await;
    broker.publish(Message::new("t/x", "of the program itself")).await.unwrap();
    while own.recv().await.unwrap().unwrap().topic != "t/x" {}
    from.disconnect().await.unwrap();
    broker.shutdown().await.unwrap();
}

fn play(path: &Path, payloads: bool) {
    let bytes = std::fs::read(path).unwrap();
    let has = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
    assert!(has(b"to-") && !has(b"swordfish") && !has(b"guess"), "passwords are blanked");
    assert_eq!(has(b"in confidence"), payloads);
    assert_eq!(has(b"kept in mind"), payloads);

    let mut player = Player::open(BufReader::new(File::open(path).unwrap())).unwrap();
    assert_eq!(player.header().payloads, payloads);
    let (mut accepted, mut sent, mut confirmed) = (0, 0, 0);
    while let Some(step) = player.step().unwrap() {
        accepted += usize::from(step.accepted.is_some());
        sent += step.sent.len();
        confirmed += usize::from(matches!(step.input, Some(Input::Stored(_))));
    }
    assert_eq!(player.ending(), Ending::Closed);
    assert!(accepted >= 11 && sent > 5_000 && confirmed > 30, "{accepted} {sent} {confirmed}");
    assert_eq!(player.stats().connections, 0);
}

/// Two names that nobody else has; the files go with them.
struct Files([PathBuf; 2]);

impl Files {
    fn new() -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        Self([1, 2].map(|life| {
            let number = COUNTER.fetch_add(1, Ordering::Relaxed);
            std::env::temp_dir().join(format!("mqtt-trace-{}-{number}-{life}", std::process::id()))
        }))
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
}

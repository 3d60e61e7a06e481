//! What an acknowledgement that means something costs: QoS 1 from many publishers to stored sessions,
//! with the broker storing in each of its ways, and optionally another broker beside it in the same run.
//!
//! ```text
//! cargo run --profile dist -p mqtt-benches --example durable -- [SECONDS [ROUNDS [NAME=HOST:PORT]...]]
//! ```
//!
//! Each publisher waits for its PUBACK before it sends the next message, so that as many messages are
//! under way as there are publishers. Ten subscribers with stored sessions take what comes. Printed are
//! medians over the rounds; within a round the ways are tried one after another.

use mqtt_proto::QoS;
use mqtt_session::client::CleanStart;
use mqtt_session::{Durability, Message};
use mqtt_store::{FjallOptions, FjallStore};
use mqtt_tokio::broker::{Broker, BrokerHandle, Config};
use mqtt_tokio::client::{Client, Options};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const SUBSCRIBERS: usize = 10;
const PAYLOAD: usize = 100;

/// What one run gave.
#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    per_second: f64,
    p50_us: f64,
    p99_us: f64,
    per_fsync: f64,
}

async fn client(address: SocketAddr, id: String, stored: bool) -> Result<Client> {
    let options = Options::new(address.ip().to_string(), address.port()).client_id(id);
    let options = if stored {
        options.clean_start(CleanStart::Never).configure(|config| {
            config.session_expiry_secs = 3600;
            config.adopt_session = true;
        })
    } else {
        options.clean_start(CleanStart::Always).configure(|config| config.session_expiry_secs = 0)
    };
    Ok(options.connect().await?)
}

async fn measure(
    address: SocketAddr,
    broker: Option<&BrokerHandle>,
    publishers: usize,
    time: Duration,
) -> Result<Figures> {
    let mut subscribers = Vec::new();
    for n in 0..SUBSCRIBERS {
        let subscriber = client(address, format!("s{n}"), true).await?;
        let mut stream = subscriber.subscribe(&format!("p/{n}/#"), QoS::AtLeastOnce).await?;
        tokio::spawn(async move { while stream.recv().await.is_some() {} });
        subscribers.push(subscriber);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let mut connected = Vec::new();
    for n in 0..publishers {
        connected.push(client(address, format!("p{n}"), false).await?);
    }
    let mut tasks = Vec::new();
    for (n, publisher) in connected.into_iter().enumerate() {
        let stop = Arc::clone(&stop);
        tasks.push(tokio::spawn(async move {
            let topic = format!("p/{}/{n}", n % SUBSCRIBERS);
            let mut times = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let begun = Instant::now();
                let message = Message::new(topic.clone(), vec![b'x'; PAYLOAD]).with_qos(QoS::AtLeastOnce);
                publisher.publish(message).await?;
                times.push(begun.elapsed());
            }
            publisher.disconnect().await?;
            Ok::<_, mqtt_tokio::client::Error>(times)
        }));
    }
    let before = broker.and_then(BrokerHandle::storage_stats);
    let begun = Instant::now();
    tokio::time::sleep(time).await;
    stop.store(true, Ordering::Relaxed);
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await??);
    }
    let took = begun.elapsed();
    let after = broker.and_then(BrokerHandle::storage_stats);
    for subscriber in subscribers {
        subscriber.disconnect().await?;
    }
    times.sort_unstable();
    let at = |share: usize| times.get(times.len() * share / 100).map_or(0.0, |t| t.as_secs_f64() * 1e6);
    let commits = before.zip(after).map_or(0, |(before, after)| after.commits - before.commits);
    Ok(Figures {
        per_second: times.len() as f64 / took.as_secs_f64(),
        p50_us: at(50),
        p99_us: at(99),
        per_fsync: if commits > 0 { times.len() as f64 / commits as f64 } else { 0.0 },
    })
}

async fn ours(durability: Durability, publishers: usize, time: Duration) -> Result<Figures> {
    let directory = tempfile::tempdir_in(".")?;
    let mut config = Config::listening_on(["127.0.0.1:0".parse()?]);
    if durability != Durability::Off {
        let path = directory.path().to_owned();
        config = config.stored_in(durability, move || {
            Ok(Box::new(FjallStore::open(&path, FjallOptions::default())?.store))
        });
    }
    let broker = Broker::bind(config).await?;
    let address = broker.local_addrs()[0];
    let figures = measure(address, Some(&broker), publishers, time).await;
    broker.shutdown().await?;
    figures
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let seconds: f64 = arguments.next().map_or(Ok(2.0), |text| text.parse())?;
    let rounds: usize = arguments.next().map_or(Ok(3), |text| text.parse())?;
    let others: Vec<(String, SocketAddr)> = arguments
        .map(|text| {
            let (name, address) = text.split_once('=').ok_or("others are NAME=HOST:PORT")?;
            Ok((name.to_owned(), address.parse()?))
        })
        .collect::<Result<_>>()?;
    let time = Duration::from_secs_f64(seconds);
    let mut all: BTreeMap<(usize, String), Vec<Figures>> = BTreeMap::new();
    for round in 1..=rounds {
        for publishers in [1, 10, 100, 1000] {
            for (name, durability) in [
                ("1 off", Durability::Off),
                ("2 written", Durability::Written),
                ("3 synced", Durability::Synced),
            ] {
                let figures = ours(durability, publishers, time).await?;
                all.entry((publishers, name.to_owned())).or_default().push(figures);
            }
            for (name, address) in &others {
                let figures = measure(*address, None, publishers, time).await?;
                all.entry((publishers, name.clone())).or_default().push(figures);
            }
        }
        eprintln!("round {round} of {rounds}");
    }
    println!("publishers  broker          acks/s   p50 us    p99 us   acks/fsync");
    for ((publishers, name), runs) in all {
        let of = |figure: fn(&Figures) -> f64| median(runs.iter().map(figure).collect());
        println!(
            "{publishers:>10}  {name:<12} {:>9.0} {:>8.0} {:>9.0} {:>12.1}",
            of(|f| f.per_second),
            of(|f| f.p50_us),
            of(|f| f.p99_us),
            of(|f| f.per_fsync)
        );
    }
    Ok(())
}

//! `mqtt bench`: many clients, to see what a broker can do. It measures any broker.

mod report;
mod work;

use crate::connect::Connection;
use crate::properties::Properties;
use crate::stop::Stop;
use clap::{ArgMatches, Args, Subcommand};
use mqtt_proto::Version;
use mqtt_tokio::client::{Client, Error};
use report::{Counters, Report, progress};
use std::collections::VecDeque;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// Options of `mqtt bench`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Subcommand, Debug)]
enum Mode {
    /// Connect clients and keep them: how long CONNECT takes
    #[command(disable_help_flag = true)]
    Connect(Connect),
    /// Publish: how many messages a second, and how long until each is acknowledged
    #[command(disable_help_flag = true)]
    Publish(Publish),
    /// Subscribe: how many messages come in a second
    #[command(disable_help_flag = true)]
    Subscribe(Subscribe),
    /// A publisher and a subscriber each: how long a message takes from one to the other
    #[command(disable_help_flag = true)]
    Latency(Latency),
}

/// What every mode has.
#[derive(Args, Debug)]
struct Common {
    #[command(flatten)]
    connection: Connection,
    /// How many clients (latency: pairs of them)
    #[arg(short = 'n', long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    clients: u32,
    /// How many of them connect in a second; 0: as fast as it goes
    #[arg(long, default_value_t = 1000, value_name = "N")]
    connect_rate: u32,
    /// How long, in seconds, once all are connected; 0: until Ctrl-C
    #[arg(long, default_value_t = 10, value_name = "SECS")]
    duration: u64,
    /// Threads that the clients share
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: u16,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct Connect {
    #[command(flatten)]
    common: Common,
}

/// What is published.
#[derive(Args, Debug)]
struct Load {
    /// Bytes of each payload (latency: at least 8)
    #[arg(long, default_value_t = 64, value_name = "BYTES")]
    size: usize,
    /// Messages that each publisher sends in a second; 0: as fast as it goes
    #[arg(long, default_value_t = 0, value_name = "N")]
    rate: u32,
    /// Messages of each publisher that may be without an answer at once
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    window: u16,
    /// Messages of each publisher, then it ends; 0: as long as --duration says
    #[arg(long, default_value_t = 0, value_name = "N")]
    count: u64,
    /// Have the server retain the messages
    #[arg(short, long)]
    retain: bool,
}

#[derive(Args, Debug)]
struct Publish {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    load: Load,
    /// Topic; %i is the number of the client, %c its client identifier
    #[arg(short, long, default_value = "bench/%i", value_name = "TOPIC")]
    topic: String,
}

#[derive(Args, Debug)]
struct Subscribe {
    #[command(flatten)]
    common: Common,
    /// Topic filter; %i is the number of the client, %c its client identifier
    #[arg(short, long, default_value = "bench/#", value_name = "FILTER")]
    topic: String,
}

#[derive(Args, Debug)]
struct Latency {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    load: Load,
    /// Topic; %i is the number of the pair
    #[arg(short, long, default_value = "bench/latency/%i", value_name = "TOPIC")]
    topic: String,
}

impl Mode {
    const fn common(&self) -> &Common {
        match self {
            Self::Connect(o) => &o.common,
            Self::Publish(o) => &o.common,
            Self::Subscribe(o) => &o.common,
            Self::Latency(o) => &o.common,
        }
    }

    const fn name(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::Publish(_) => "publish",
            Self::Subscribe(_) => "subscribe",
            Self::Latency(_) => "latency",
        }
    }
}

pub(crate) fn run(options: &Options, matches: &ArgMatches) -> ExitCode {
    let quiet = options.mode.common().connection.quiet;
    let own = matches.subcommand().map(|(_, own)| own.clone()).unwrap_or_default();
    let properties = match Properties::from_matches(&own) {
        Ok(properties) => properties,
        Err(stop) => return stop.exit(false),
    };
    let threads = usize::from(options.mode.common().threads);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(e) => return Stop::new(format!("cannot start: {e}")).exit(quiet),
    };
    let done = runtime.block_on(bench(&options.mode, &properties));
    runtime.shutdown_timeout(Duration::ZERO);
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(stop) => stop.exit(quiet),
    }
}

/// A client of the benchmark.
struct Worker {
    number: u32,
    id: String,
    client: Client,
}

impl Worker {
    fn topic(&self, pattern: &str, number: u32) -> String {
        pattern.replace("%i", &number.to_string()).replace("%c", &self.id)
    }
}

async fn bench(mode: &Mode, properties: &Properties) -> Result<(), Stop> {
    let common = mode.common();
    let version = common.connection.version(properties.any())?;
    let counters = Arc::new(Counters::default());
    let mut stopped = std::pin::pin!(tokio::signal::ctrl_c());
    let begun = Instant::now();
    let telling = (!common.connection.quiet).then(|| Abort(tokio::spawn(progress(Arc::clone(&counters)))));
    let each = if matches!(mode, Mode::Latency(_)) { 2 } else { 1 };
    let workers = tokio::select! {
        workers = connect(common, version, properties, each, &counters) => workers?,
        _ = &mut stopped => return Err(Stop::new("stopped before all clients were connected").with_code(130)),
    };
    let connected = begun.elapsed();
    let mut tasks = work::start(mode, &workers, version, &counters).await?;
    let begun = Instant::now();
    let over = async {
        match common.duration {
            0 => std::future::pending().await,
            secs => tokio::time::sleep(Duration::from_secs(secs)).await,
        }
    };
    tokio::select! {
        () = over => {}
        () = work::finished(&mut tasks, &counters) => {}
        _ = &mut stopped => {}
    }
    let took = begun.elapsed();
    let report = Report::new(mode.name(), common.clients, connected, took, &counters);
    if telling.is_some() {
        eprintln!();
    }
    drop(telling);
    // What is under way is given up: it is no part of what was measured.
    drop(tasks);
    let goodbyes: Vec<_> = workers
        .into_iter()
        .map(|worker| tokio::spawn(async move { worker.client.disconnect().await }))
        .collect();
    let goodbye = async {
        for task in goodbyes {
            // Who cannot take leave is not connected any more.
            let _ = task.await;
        }
    };
    let _ = tokio::time::timeout(GOODBYE, goodbye).await;
    report.print(common.json)
}

/// A task that ends with this.
struct Abort<T>(JoinHandle<T>);

impl<T> Drop for Abort<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Time for all clients to take leave.
const GOODBYE: Duration = Duration::from_secs(3);
/// So many connect at once: more would only wait in the server's queue.
const AT_ONCE: usize = 100;

/// Connects all clients at their rate. `each` clients make one of those that were asked for.
async fn connect(
    common: &Common,
    version: Version,
    properties: &Properties,
    each: u32,
    counters: &Arc<Counters>,
) -> Result<Vec<Worker>, Stop> {
    let prefix = common.connection.prefix().map_or_else(|| format!("b{}", std::process::id()), str::to_owned);
    let mut pace = work::Pace::new(common.connect_rate);
    let (mut workers, mut open) = (Vec::new(), VecDeque::new());
    let total = common.clients.saturating_mul(each);
    for number in 1..=total {
        pace.wait().await;
        let id = format!("{prefix}-{number}");
        let options = common.connection.options(version, properties, id.clone())?;
        let counters = Arc::clone(counters);
        let task = tokio::spawn(async move {
            let begun = Instant::now();
            let client = options.connect().await?;
            counters.connected(begun.elapsed());
            Ok::<_, Error>(client)
        });
        open.push_back((number, id, Abort(task)));
        while open.len() >= AT_ONCE || number == total {
            let Some((number, id, mut task)) = open.pop_front() else { break };
            let client = (&mut task.0).await.map_err(|e| Stop::new(e.to_string()))?;
            let client = client.map_err(|e| Stop::client(&e, version))?;
            workers.push(Worker { number, id, client });
        }
    }
    Ok(workers)
}

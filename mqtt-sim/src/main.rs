//! The simulator as a program.
#![forbid(unsafe_code)]

use clap::Parser;
use mqtt_sim::run_with;
use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Simulates many MQTT clients against the broker, and checks everything.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The seed to run, or the first of them.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds, one after another.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Steps with faults for each seed.
    #[arg(long, default_value_t = 5_000)]
    steps: u64,
    /// Stop after this many seconds.
    #[arg(long)]
    seconds: Option<u64>,
    /// Lines of history to print after a failure.
    #[arg(long, default_value_t = 60)]
    lines: usize,
    /// How many shards the broker has, 1 to 4; without this the seed decides.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=4))]
    shards: Option<u16>,
    /// Run each seed twice and compare everything that the machines gave.
    #[arg(long)]
    twice: bool,
    /// Go on after a failure.
    #[arg(long)]
    keep_going: bool,
    /// Look at every state of a small world instead: one publisher, one subscriber, two messages.
    #[arg(long)]
    model: bool,
    /// Break a rule of the machines on purpose, and look for it. Only in a build with `--cfg mqtt_defects`;
    /// see `scripts/defects`.
    #[cfg(mqtt_defects)]
    #[arg(long)]
    defect: Option<String>,
    /// Break each rule in turn, and tell after how many seeds it was found.
    #[cfg(mqtt_defects)]
    #[arg(long)]
    all_defects: bool,
}

impl Arguments {
    const fn seeds(&self) -> Range<u64> {
        self.seed..self.seed.saturating_add(self.seeds)
    }
}

/// Runs seeds on all cores as long as `may_begin`, and gives each result to `each`, in the order of the seeds,
/// until that breaks.
fn on_all_cores<T: Send>(
    seeds: Range<u64>,
    may_begin: impl Fn(u64) -> bool + Sync,
    run: impl Fn(u64) -> T + Sync,
    mut each: impl FnMut(u64, T) -> ControlFlow<()>,
) {
    let next = AtomicU64::new(seeds.start);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (results, ran) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let results = results.clone();
            scope.spawn(|| {
                let results = results;
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || !may_begin(seed) || results.send((seed, run(seed))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(results);
        let mut waiting = BTreeMap::new();
        let mut due = seeds.start;
        for (seed, result) in ran {
            waiting.insert(seed, result);
            while let Some(result) = waiting.remove(&due) {
                if each(due, result).is_break() {
                    // Nobody receives any more, so the threads end.
                    return;
                }
                due += 1;
            }
        }
    });
}

/// A failure, once more with its history.
fn tell(seed: u64, failure: &mqtt_sim::Failure, arguments: &Arguments) {
    match run_with(seed, arguments.steps, arguments.lines, arguments.shards) {
        Err(failure) => println!("{failure}"),
        Ok(_) => println!("{failure}\n(a second run did not fail: it is not deterministic)"),
    }
    println!("again: cargo run --release -p mqtt-sim -- --seed {seed} --steps {}", arguments.steps);
}

/// Looks at every state within some bounds, and begins no further bounds after so many seconds.
fn model(seconds: Option<u64>) -> ExitCode {
    use mqtt_proto::QoS;
    use mqtt_sim::model::{Bounds, explore};
    let started = Instant::now();
    // Drops, crashes and window: from small to large; the last take minutes.
    let bounds = [
        (0, 0, 1),
        (0, 0, 2),
        (1, 0, 1),
        (0, 1, 1),
        (1, 0, 2),
        (0, 1, 2),
        (2, 0, 1),
        (2, 0, 2),
        (0, 2, 1),
        (0, 2, 2),
        (1, 1, 1),
        (1, 1, 2),
    ];
    for (drops, crashes, window) in bounds {
        for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
            if seconds.is_some_and(|limit| started.elapsed() >= Duration::from_secs(limit)) {
                return ExitCode::SUCCESS;
            }
            let bounds = Bounds { qos, messages: 2, window, drops, crashes };
            let begin = Instant::now();
            match explore(bounds) {
                Ok(seen) => println!(
                    "QoS {}, window {window}, {drops} drops, {crashes} crashes: {} states, {} ends, depth {}, {:.1} s",
                    qos.as_u8(),
                    seen.states,
                    seen.ends,
                    seen.depth,
                    begin.elapsed().as_secs_f64()
                ),
                Err(what) => {
                    println!("{bounds:?} failed: {what}");
                    return ExitCode::FAILURE;
                }
            }
        }
    }
    ExitCode::SUCCESS
}

/// Looks for each seeded defect on the seeds from the first on. The faults of one are not those of
/// another, so some need many seeds.
#[cfg(mqtt_defects)]
fn defects(arguments: &Arguments) -> ExitCode {
    use mqtt_session::defects::Defect;
    use std::panic::catch_unwind;

    // A broken machine may well panic; that is a finding, too.
    std::panic::set_hook(Box::new(|_| {}));
    let mut missed = 0;
    for (defect, name, what) in Defect::ALL {
        if arguments.defect.as_ref().is_some_and(|wanted| wanted != name) {
            continue;
        }
        defect.choose();
        let begin = Instant::now();
        // What is between shards is looked for where there are some.
        let shards = arguments.shards.or(name.starts_with("Shard").then_some(3));
        let run = |seed| match catch_unwind(|| run_with(seed, arguments.steps, 0, shards)) {
            Ok(Ok(_)) => None,
            Ok(Err(failure)) => Some(failure.to_string()),
            Err(_) => Some("a panic".to_owned()),
        };
        let mut found = None;
        on_all_cores(
            arguments.seeds(),
            |_| true,
            run,
            |seed, how| match how {
                Some(how) => {
                    found = Some((seed, how));
                    ControlFlow::Break(())
                }
                None => ControlFlow::Continue(()),
            },
        );
        let secs = begin.elapsed().as_secs_f64();
        match found {
            Some((seed, how)) => {
                let how = how.lines().next().unwrap_or_default();
                let after = seed - arguments.seed + 1;
                println!("found  {name} after {after} seeds, {secs:.1} s: {what}\n       {how}");
            }
            None => {
                missed += 1;
                println!("MISSED {name} in {} seeds, {secs:.1} s: {what}", arguments.seeds);
            }
        }
    }
    println!("{} defects, {missed} missed", Defect::ALL.len());
    if missed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.model {
        #[cfg(mqtt_defects)]
        if let Some(wanted) = &arguments.defect {
            use mqtt_session::defects::Defect;
            let chosen = Defect::ALL.iter().find(|(_, name, _)| name == wanted);
            chosen.inspect(|(defect, ..)| defect.choose());
        }
        return model(arguments.seconds);
    }
    #[cfg(mqtt_defects)]
    if arguments.all_defects || arguments.defect.is_some() {
        return defects(&arguments);
    }
    let begin = Instant::now();
    let in_time = |_| arguments.seconds.is_none_or(|limit| begin.elapsed() <= Duration::from_secs(limit));
    let run = |seed| {
        let report = run_with(seed, arguments.steps, 0, arguments.shards)?;
        let again = arguments.twice.then(|| run_with(seed, arguments.steps, 0, arguments.shards));
        let is_same = again.is_none_or(|again| again.is_ok_and(|again| again.hash == report.hash));
        Ok::<_, Box<mqtt_sim::Failure>>((report, is_same))
    };
    let (mut ran, mut failed, mut steps, mut time) = (0_u64, 0_u64, 0_u64, 0_u64);
    let mut sums = mqtt_sim::Counts::default();
    on_all_cores(arguments.seeds(), in_time, run, |seed, result| {
        ran += 1;
        match result {
            Ok((report, is_same)) => {
                steps += report.steps;
                time += report.time;
                sums += report.counts;
                if !is_same {
                    println!("seed {seed} failed: a second run gave something else");
                    failed += 1;
                }
            }
            Err(failure) => {
                failed += 1;
                if !arguments.keep_going {
                    tell(seed, &failure, &arguments);
                    return ControlFlow::Break(());
                }
                println!("{failure}");
            }
        }
        ControlFlow::Continue(())
    });
    println!(
        "{ran} seeds, {steps} steps, {:.1} simulated hours in {:.1} s: {failed} failed",
        Duration::from_micros(time).as_secs_f64() / 3_600.0,
        begin.elapsed().as_secs_f64()
    );
    println!(
        "{} crashes of the broker, {} of clients, {} messages between shards at a restart, {} other faults",
        sums.broker_crashes, sums.client_crashes, sums.handed_over, sums.faults
    );
    println!(
        "{} deliveries, {} acknowledged publishes, {} demanded, {} wills, {} resumed sessions, {} take-overs",
        sums.delivered, sums.acknowledged, sums.demanded, sums.wills, sums.resumed, sums.taken_over
    );
    if failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

//! One run, from a seed to a verdict.

use crate::oracle::Counts;
use crate::sim::Sim;

/// How long everything may take to settle once the faults are off, in microseconds.
const SETTLING: u64 = 400_000_000;
/// How many steps it may take.
const SETTLING_STEPS: u64 = 3_000_000;

/// What a run that went well was like.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// Things that happened.
    pub steps: u64,
    /// Simulated microseconds.
    pub time: u64,
    /// The hash of everything that the machines gave.
    pub hash: u64,
    /// What it was worth.
    pub counts: Counts,
}

/// What went wrong.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// After how many steps.
    pub step: u64,
    /// What.
    pub what: String,
    /// What happened before, if it was kept.
    pub trace: Vec<String>,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for line in &self.trace {
            writeln!(f, "{line}")?;
        }
        write!(f, "seed {} failed at step {}: {}", self.seed, self.step, self.what)
    }
}

/// Runs a seed: `steps` with faults, then without until all is settled.
///
/// # Errors
/// The first thing that was wrong.
pub fn run(seed: u64, steps: u64) -> Result<Report, Box<Failure>> {
    run_with(seed, steps, 0, None)
}

/// The same, keeping what happened in the last `lines` lines.
///
/// # Errors
/// The first thing that was wrong.
pub fn run_traced(seed: u64, steps: u64, lines: usize) -> Result<Report, Box<Failure>> {
    run_with(seed, steps, lines, None)
}

/// The same with this many shards, instead of the number that the seed gives.
///
/// # Errors
/// The first thing that was wrong.
pub fn run_with(seed: u64, steps: u64, lines: usize, shards: Option<u16>) -> Result<Report, Box<Failure>> {
    let mut sim = Sim::new(seed, lines > 0, shards);
    let start = sim.now;
    let mut step = 0;
    while step < steps && sim.failure.is_none() && sim.step() {
        step += 1;
    }
    let settles = sim.can_settle();
    if settles && sim.failure.is_none() {
        sim.calm_down();
        let end = sim.now + SETTLING;
        while sim.now < end && sim.failure.is_none() && sim.step() {
            step += 1;
            if step > steps + SETTLING_STEPS {
                sim.failure = Some("it does not settle within the budget of steps".into());
            }
        }
    }
    if settles && sim.failure.is_none() {
        sim.check_settled();
    }
    match sim.failure.take() {
        None => Ok(Report {
            steps: step,
            time: sim.now - start,
            hash: sim.hash.value(),
            counts: sim.oracle.counts,
        }),
        Some(what) => {
            let mut trace = Vec::new();
            if lines > 0 {
                trace.push(format!("{:#?}", sim.options).chars().filter(|c| *c != '\n').collect::<String>());
                trace.extend(sim.trace.last(lines).map(str::to_owned));
            }
            Err(Box::new(Failure { seed, step, what, trace }))
        }
    }
}

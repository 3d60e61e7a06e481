//! `mqtt replay`: runs the trace of a broker again, shows the packets, and checks that the machine does
//! what it did.

mod view;

use clap::Args;
use mqtt_io::trace::{Ending, Player, TraceError};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, ErrorKind, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use view::View;

/// Options of `mqtt replay`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// The trace, as `mqtt broker --trace` wrote it
    trace: PathBuf,
    /// Show only this client; may be repeated
    #[arg(short, long = "client", value_name = "ID")]
    clients: Vec<String>,
    /// Show only what has to do with topics that match; may be repeated
    #[arg(short, long = "topic", value_name = "FILTER", value_parser = filter)]
    topics: Vec<String>,
    /// Show nothing before this many seconds
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "0")]
    from: Duration,
    /// Stop after this many seconds
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    until: Option<Duration>,
    /// How many bytes of each payload to show
    #[arg(short, long, value_name = "BYTES", default_value_t = 60)]
    payload: usize,
    /// Show what is no packet, too: questions, answers, the store, deadlines, writes
    #[arg(short, long)]
    verbose: bool,
    /// Show nothing, only check
    #[arg(short, long, conflicts_with = "verbose")]
    quiet: bool,
}

fn filter(text: &str) -> Result<String, String> {
    mqtt_proto::TopicFilter::new(text).map_err(|e| e.to_string())?;
    Ok(text.to_owned())
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().map_err(|_| "this is no number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|e| e.to_string())
}

/// Why a replay ends early.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("cannot read {path}: {source}")]
    Open { path: String, source: io::Error },
    #[error(transparent)]
    Trace(#[from] TraceError),
    #[error("the machine panics at input {0}, and did so then if the trace ends there")]
    Panicked(u64),
    #[error("cannot write: {0}")]
    Write(#[from] io::Error),
}

pub(crate) fn run(options: &Options) -> ExitCode {
    match replay(options, BufWriter::new(io::stdout().lock())) {
        Ok(summary) => {
            eprintln!("{summary}");
            ExitCode::SUCCESS
        }
        // Whoever reads has seen enough.
        Err(Failure::Write(e)) if e.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("Error: {e}");
            ExitCode::FAILURE
        }
    }
}

fn replay(options: &Options, mut out: impl Write) -> Result<String, Failure> {
    let open = |source| Failure::Open { path: options.trace.display().to_string(), source };
    let file = File::open(&options.trace).map_err(open)?;
    let mut player = Player::open(BufReader::new(file))?;
    let mut view = View::new(options);
    if !options.quiet {
        view.header(player.header(), &mut out)?;
    }
    let (mut inputs, mut connections, mut at) = (0, 0, Duration::ZERO);
    let ended = loop {
        // The machine runs here as it ran there, with whatever is wrong with it.
        let step = match catch_unwind(AssertUnwindSafe(|| player.step())) {
            Ok(Ok(Some(step))) => step,
            Ok(Ok(None)) => break true,
            Ok(Err(e)) => {
                if let (Some(last), false) = (player.last(), options.quiet) {
                    view.step(last, &mut out)?;
                }
                out.flush()?;
                return Err(e.into());
            }
            Err(_) => {
                out.flush()?;
                return Err(Failure::Panicked(inputs + 1));
            }
        };
        if options.until.is_some_and(|until| step.at > until) {
            break false;
        }
        (inputs, at) = (step.number, step.at);
        connections += usize::from(step.accepted.is_some());
        if !options.quiet {
            view.step(&step, &mut out)?;
        }
    };
    out.flush()?;
    let how = match player.ending() {
        _ if !ended => "",
        Ending::Closed => "",
        Ending::Full => " The trace had reached its limit.",
        _ => " The trace ends abruptly: the broker was killed, or its machine panicked.",
    };
    Ok(format!(
        "{inputs} inputs of {connections} connections in {:.3} s: all outputs are as they were.{how}",
        at.as_secs_f64()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_numbers() {
        assert_eq!(seconds("1.5"), Ok(Duration::from_millis(1500)));
        for bad in ["-1", "x", "", "1e300"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}

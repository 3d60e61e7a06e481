//! `mqtt broker`.

use clap::Args;
use mqtt_broker::{Bind, Settings, TraceOptions};
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use tracing_subscriber::filter::LevelFilter;

/// Options of `mqtt broker`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Listen on this address or host name; may be repeated. Default: this machine only
    #[arg(short, long, value_name = "ADDR[:PORT]")]
    bind: Vec<Bind>,
    /// Port of each address that names none
    #[arg(short, long, default_value_t = mqtt_broker::DEFAULT_PORT)]
    port: u16,
    /// Write a trace of everything that happens to this file, for `mqtt replay`. It holds what clients
    /// send, but no passwords
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// End the trace at this size in MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024, requires = "trace")]
    trace_limit: u64,
    /// Blank the payloads of messages in the trace
    #[arg(long, requires = "trace")]
    trace_without_payloads: bool,
    /// Tell of every subscription and connection attempt, too
    #[arg(short, long, conflicts_with = "quiet")]
    verbose: bool,
    /// Tell only what needs attention
    #[arg(short, long)]
    quiet: bool,
}

pub(crate) fn run(options: Options) -> ExitCode {
    let level = match (options.verbose, options.quiet) {
        (true, _) => LevelFilter::DEBUG,
        (_, true) => LevelFilter::WARN,
        _ => LevelFilter::INFO,
    };
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .with_max_level(level)
        .init();
    let mut settings = Settings::default();
    settings.bind = options.bind;
    settings.port = options.port;
    settings.trace = options.trace.map(|path| {
        let mut trace = TraceOptions::new(path);
        trace.max_bytes = options.trace_limit.saturating_mul(1 << 20);
        trace.payloads = !options.trace_without_payloads;
        trace
    });
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return failed(&e),
    };
    match runtime.block_on(mqtt_broker::run(settings)) {
        Ok(stopped) => ExitCode::from(stopped.exit_code()),
        Err(e) => failed(&e),
    }
}

fn failed(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("Error: {error}");
    ExitCode::FAILURE
}

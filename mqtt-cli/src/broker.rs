//! `mqtt broker`.

use clap::Args;
use mqtt_broker::{Bind, Settings};
use std::io::{self, IsTerminal};
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

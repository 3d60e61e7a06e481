//! One program for MQTT.

mod broker;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// MQTT broker and clients in one program
#[derive(Parser)]
#[command(name = "mqtt", version, about, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a broker
    Broker(broker::Options),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Broker(options) => broker::run(options),
    }
}

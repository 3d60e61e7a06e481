//! One program for MQTT.

mod acl;
mod bench;
mod broker;
mod connect;
mod format;
mod generate;
mod log;
mod passwd;
mod printing;
mod properties;
mod publish;
mod replay;
mod request;
mod scram;
mod stop;
mod subscribe;
#[cfg(feature = "tui")]
mod top;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use std::process::ExitCode;

/// MQTT broker and clients in one program
#[derive(Parser)]
#[command(name = "mqtt", version, about, disable_help_subcommand = true, args_override_self = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a broker
    Broker(broker::Options),
    /// Make and edit password files, with the options of mosquitto_passwd
    Passwd(passwd::Options),
    /// Explain who may do what
    Acl(acl::Options),
    /// Run the trace of a broker again, and show the packets
    Replay(replay::Options),
    /// Publish messages, with the options of mosquitto_pub
    Pub(publish::Options),
    /// Subscribe and print what comes, with the options of mosquitto_sub
    Sub(subscribe::Options),
    /// Publish a request and print the response, with the options of mosquitto_rr
    Rr(request::Options),
    /// Measure a broker with many clients
    Bench(bench::Options),
    /// Show a broker's figures, clients, subscriptions and retained messages in a terminal
    #[cfg(feature = "tui")]
    Top(top::Options),
    /// Write the manual pages
    Man(generate::Man),
    /// Print the completions for a shell
    Completions(generate::Completions),
}

fn main() -> ExitCode {
    let parsed = Cli::command()
        .try_get_matches()
        .and_then(|matches| Cli::from_arg_matches(&matches).map(|cli| (cli, matches)));
    let (cli, matches) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            // If nobody can be told, nobody can be told so.
            let _ = error.print();
            let fine = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        }
    };
    let own = matches.subcommand().map(|(_, own)| own.clone()).unwrap_or_default();
    match cli.command {
        Command::Broker(options) => broker::run(&options),
        Command::Passwd(options) => passwd::run(&options),
        Command::Acl(options) => acl::run(&options),
        Command::Replay(options) => replay::run(&options),
        Command::Pub(options) => publish::run(options, &own),
        Command::Sub(options) => subscribe::run(options, &own),
        Command::Rr(options) => request::run(&options, &own),
        #[cfg(feature = "tui")]
        Command::Top(options) => top::run(&options),
        Command::Man(options) => generate::man(&options, Cli::command()),
        Command::Completions(options) => generate::completions(&options, Cli::command()),
        Command::Bench(options) => bench::run(&options, &own),
    }
}

//! `mqtt acl`: explains rights.

use crate::broker::{Files, failed};
use clap::{Args, Subcommand, ValueEnum};
use mqtt_access::acl_file;
use mqtt_proto::{TopicFilter, TopicName};
use mqtt_session::acl::{Access, Acl, Action, Identity, Mode, Reason};
use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Options of `mqtt acl`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Say what a client may do with a topic, and which line decides
    Check(Check),
}

/// Options of `mqtt acl check`.
#[derive(Args, Debug)]
struct Check {
    #[command(flatten)]
    files: Files,
    /// An ACL file, in the place of the one that the settings name
    #[arg(long, value_name = "FILE")]
    acl_file: Option<PathBuf>,
    /// How it is read
    #[arg(long, value_enum, value_name = "MODE", requires = "acl_file")]
    mode: Option<AclMode>,
    /// Which listener of the settings, from 1
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    listener: u16,
    /// User name; - is a client without one
    #[arg(allow_hyphen_values = true)]
    user: String,
    /// Client identifier
    #[arg(allow_hyphen_values = true)]
    client: String,
    /// Topic, or a filter with wildcards
    topic: String,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum AclMode {
    /// Ours
    Strict,
    /// Mosquitto's
    Mosquitto,
}

pub(crate) fn run(options: &Options) -> ExitCode {
    let Command::Check(check) = &options.command;
    match check.explain() {
        Ok(text) => match io::stdout().write_all(text.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => failed(&e),
        },
        Err(e) => failed(&*e),
    }
}

impl Check {
    fn explain(&self) -> Result<String, Box<dyn std::error::Error>> {
        if let Some(file) = &self.acl_file {
            let mode = match self.mode.unwrap_or(AclMode::Strict) {
                AclMode::Strict => Mode::Strict,
                AclMode::Mosquitto => Mode::Mosquitto,
            };
            return self.by(&acl_file::read(file, mode)?.acl, file);
        }
        let settings = self.files.source()?.read()?;
        match settings.acl(usize::from(self.listener - 1)) {
            Some((acl, file)) => self.by(acl, file.unwrap_or(Path::new("the settings"))),
            None => {
                Ok("Everything is allowed: the settings name no ACL file for this listener.\n".to_owned())
            }
        }
    }

    fn by(&self, acl: &Acl, file: &Path) -> Result<String, Box<dyn std::error::Error>> {
        let user_name = (self.user != "-").then_some(self.user.as_str());
        let who = Identity { user_name, client_id: &self.client };
        let filter = TopicFilter::new(&self.topic)?;
        let inner = filter.shared().map_or(filter, |shared| shared.filter).as_str();
        let mut actions = Vec::new();
        if TopicName::new(&self.topic).is_ok() && filter.shared().is_none() {
            actions.extend([("read", Action::Read(&self.topic)), ("write", Action::Write(&self.topic))]);
        }
        actions.push(("subscribe", Action::Subscribe(inner)));
        let mut text = String::new();
        for (name, action) in actions {
            let verdict = acl.decide(&who, action);
            let word = if verdict.allowed { "yes" } else { "no" };
            writeln!(text, "{name:<10} {word:<4} {}", why(verdict.reason, file))?;
        }
        Ok(text)
    }
}

fn why(reason: Reason<'_>, file: &Path) -> String {
    match reason {
        Reason::Rule(rule) => {
            let word = if rule.is_pattern() { "pattern" } else { "topic" };
            let access = match rule.access() {
                Access::Read => "read",
                Access::Write => "write",
                Access::ReadWrite => "readwrite",
                Access::Subscribe => "subscribe",
                Access::Deny => "deny",
            };
            format!("{}:{}: {word} {access} {}", file.display(), rule.line(), rule.filter())
        }
        Reason::NoRule => "no rule allows it".to_owned(),
        Reason::WildcardInName => {
            "the user name or the client identifier has a + or a #, and there are patterns".to_owned()
        }
        Reason::SubscribeIsFree => {
            "every SUBSCRIBE is granted, and only what may be read is delivered".to_owned()
        }
        Reason::Open => "everything is allowed".to_owned(),
        _ => "for another reason".to_owned(),
    }
}

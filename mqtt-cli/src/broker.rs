//! `mqtt broker`.

use crate::log;
use clap::Args;
#[cfg(unix)]
use mqtt_broker::ListeningSocket;
use mqtt_broker::config::{DurabilityLevel, EXAMPLE, LogFormat, LogLevel};
use mqtt_broker::{Bind, Data, FileError, Inherited, Settings, Source, SourceFile, TraceOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// Options of `mqtt broker`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    files: Files,
    /// Listen on this address or host name, in the place of all listeners of the file; may be
    /// repeated. Default: this machine only
    #[arg(short, long, value_name = "ADDR[:PORT]", env = "MQTT_BIND", value_delimiter = ',')]
    bind: Vec<Bind>,
    /// Port of each address that names none [default: 1883]
    #[arg(short, long)]
    port: Option<u16>,
    /// Let in clients that show no name and no password
    #[arg(long)]
    anonymous: bool,
    /// Users and their passwords, made with `mqtt passwd` or mosquitto_passwd
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Who may read and write what
    #[arg(long, value_name = "FILE")]
    acl_file: Option<PathBuf>,
    /// Keep sessions and messages in this directory; `none`: in memory only. Default: where this
    /// platform keeps a user's data, named at the start
    #[arg(long, value_name = "DIR", env = "MQTT_DATA")]
    data: Option<Data>,
    /// What an acknowledgement means: `synced` is on the disk, `written` survives the end of the
    /// program, `off` is in memory [default: synced]
    #[arg(long, value_name = "LEVEL", env = "MQTT_DURABILITY", value_parser = durability)]
    durability: Option<DurabilityLevel>,
    /// Work on so many threads, 1 to 64 [default: as many as there are cores; 1 with --trace]
    #[arg(long, value_name = "N", env = "MQTT_SHARDS", value_parser = clap::value_parser!(u16).range(1..=64))]
    shards: Option<u16>,
    /// Figures, health and a page for administration by HTTP on this address; the port is 18083 if none is named
    #[arg(long, value_name = "ADDR[:PORT]", env = "MQTT_HTTP")]
    http: Option<Bind>,
    /// Read everything that a start would, say what is wrong, and open no socket
    #[arg(long)]
    check: bool,
    /// Write a configuration file with every setting, its default and a word about it
    #[arg(long, conflicts_with_all = ["config", "mosquitto_conf", "check"])]
    print_config: bool,
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
    /// What a line of the log looks like: `text`, `json`, or `mosquitto` with the lines that Mosquitto 2.0
    /// writes about clients [default: text; mosquitto with --mosquitto-conf]
    #[arg(long, value_name = "FORMAT", env = "MQTT_LOG_FORMAT", value_parser = log_format)]
    log_format: Option<LogFormat>,
    /// Tell of every subscription and connection attempt, too
    #[arg(short, long, conflicts_with = "quiet")]
    verbose: bool,
    /// Tell only what needs attention
    #[arg(short, long)]
    quiet: bool,
}

/// Where settings come from.
#[derive(Args, Debug)]
pub(crate) struct Files {
    /// Settings, as --print-config writes them
    #[arg(short, long, value_name = "FILE", env = "MQTT_CONFIG")]
    config: Option<PathBuf>,
    /// Settings in a mosquitto.conf
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    mosquitto_conf: Option<PathBuf>,
    /// Set something that counts more than the file; may be repeated. So do variables of the
    /// environment: MQTT_SECTION__KEY
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE", conflicts_with = "mosquitto_conf")]
    set: Vec<String>,
}

impl Files {
    pub(crate) fn source(&self) -> Result<Source, FileError> {
        let mut source = Source::default();
        source.file = match (&self.config, &self.mosquitto_conf) {
            (_, Some(file)) => Some(SourceFile::Mosquitto(file.clone())),
            (Some(file), None) => Some(SourceFile::Config(file.clone())),
            (None, None) => None,
        };
        if self.mosquitto_conf.is_none() {
            // What is no text is none of ours.
            let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
                Some((name.into_string().ok()?, value.into_string().ok()?))
            };
            source.overrides.environment(std::env::vars_os().filter_map(text));
        }
        self.set.iter().try_for_each(|text| source.overrides.set(text))?;
        Ok(source)
    }
}

impl Options {
    fn source(&self) -> Result<Source, FileError> {
        let mut source = self.files.source()?;
        source.bind.clone_from(&self.bind);
        source.port = self.port;
        source.anonymous = self.anonymous;
        source.password_file.clone_from(&self.password_file);
        source.acl_file.clone_from(&self.acl_file);
        source.data.clone_from(&self.data);
        source.default_data = Some(Data::of_platform());
        source.durability = self.durability;
        source.shards = self.shards;
        source.log_format = self.log_format;
        source.http.clone_from(&self.http);
        source.sockets = sockets()?;
        source.trace = self.trace.as_ref().map(|path| {
            let mut trace = TraceOptions::new(path);
            trace.max_bytes = self.trace_limit.saturating_mul(1 << 20);
            trace.payloads = !self.trace_without_payloads;
            trace
        });
        Ok(source)
    }

    const fn level(&self, settings: &Settings) -> LogLevel {
        match (self.verbose, self.quiet) {
            (true, _) => LogLevel::Debug,
            (_, true) => LogLevel::Warn,
            _ => settings.log().level,
        }
    }
}

/// Sockets that a service manager passed (systemd's LISTEN_FDS).
#[cfg(unix)]
fn sockets() -> Result<Vec<Inherited>, FileError> {
    let fail = |problem: String| {
        FileError::new(
            std::path::Path::new("LISTEN_FDS"),
            None,
            problem,
            "pass stream sockets that listen, of TCP or Unix",
        )
    };
    let mut passed = listenfd::ListenFd::from_env();
    let mut sockets = Vec::new();
    for index in 0..passed.len() {
        let socket = match passed.take_tcp_listener(index) {
            Ok(socket) => socket.map(ListeningSocket::Tcp),
            Err(_) => passed
                .take_unix_listener(index)
                .map_err(|e| fail(format!("socket {index} cannot be used: {e}")))?
                .map(ListeningSocket::Unix),
        };
        sockets.extend(socket.map(Inherited::new));
    }
    Ok(sockets)
}

#[cfg(not(unix))]
fn sockets() -> Result<Vec<Inherited>, FileError> {
    Ok(Vec::new())
}

fn durability(text: &str) -> Result<DurabilityLevel, &'static str> {
    match text {
        "synced" => Ok(DurabilityLevel::Synced),
        "written" => Ok(DurabilityLevel::Written),
        "off" => Ok(DurabilityLevel::Off),
        _ => Err("it is synced, written or off"),
    }
}

fn log_format(text: &str) -> Result<LogFormat, &'static str> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        "mosquitto" => Ok(LogFormat::Mosquitto),
        _ => Err("it is text, json or mosquitto"),
    }
}

pub(crate) fn run(options: &Options) -> ExitCode {
    if options.print_config {
        return match io::stdout().write_all(EXAMPLE.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => failed(&e),
        };
    }
    let read = options.source().and_then(|source| source.read().map(|settings| (source, settings)));
    let (source, mut settings) = match read {
        Ok(read) => read,
        Err(e) => return failed(&e),
    };
    if let Err(e) = log::check(settings.log()) {
        return failed(&e);
    }
    if options.check {
        return check(&settings);
    }
    let level = options.level(&settings);
    if let Err(e) = log::start(&mut settings, level) {
        return failed(&e);
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return failed(&e),
    };
    match runtime.block_on(mqtt_broker::run(&source, settings)) {
        Ok(stopped) => ExitCode::from(stopped.exit_code()),
        Err(e) => failed(&e),
    }
}

/// Says what a start would do.
fn check(settings: &Settings) -> ExitCode {
    let mut out = String::new();
    for remark in settings.remarks() {
        out += &format!("Note: {remark}\n");
    }
    for line in settings.summary() {
        out += &format!("{line}\n");
    }
    out += "The settings are fine.\n";
    match io::stdout().write_all(out.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => failed(&e),
    }
}

pub(crate) fn failed(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("Error: {error}");
    ExitCode::FAILURE
}

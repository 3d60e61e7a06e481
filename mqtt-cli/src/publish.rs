//! `mqtt pub`.

use crate::connect::{Connection, Session, block_on};
use crate::properties::Properties;
use crate::stop::Stop;
use bytes::Bytes;
use clap::{ArgGroup, ArgMatches, Args};
use mqtt_session::Message;
use mqtt_tokio::client::Completion;
use std::collections::VecDeque;
use std::io::{self, BufRead, Read};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::sync::mpsc;

/// Options of `mqtt pub`.
#[derive(Args, Debug)]
#[command(disable_help_flag = true, args_override_self = true)]
#[command(group(ArgGroup::new("what").required(true).args(["message", "file", "lines", "null", "stdin"])))]
pub(crate) struct Options {
    #[command(flatten)]
    connection: Connection,
    /// Topic
    #[arg(short, long, required_unless_present = "url", allow_hyphen_values = true)]
    topic: Option<String>,
    #[command(flatten)]
    payload: Payload,
    /// Send each line of standard input as a message
    #[arg(short, long = "stdin-line")]
    lines: bool,
    /// Have the server retain the message
    #[arg(short, long)]
    retain: bool,
    /// Send it so many times
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// Seconds between two of them
    #[arg(long, default_value_t = 0.0, value_name = "SECS")]
    repeat_delay: f64,
}

/// Where one payload comes from.
#[derive(Args, Debug)]
pub(crate) struct Payload {
    /// Payload
    #[arg(short, long, allow_hyphen_values = true)]
    message: Option<String>,
    /// Send the content of a file
    #[arg(short, long)]
    file: Option<PathBuf>,
    /// Send an empty message
    #[arg(short, long = "null-message")]
    null: bool,
    /// Send all of standard input as one message
    #[arg(short, long = "stdin-file")]
    stdin: bool,
}

impl Payload {
    pub(crate) fn read(&self) -> Result<Bytes, Stop> {
        if let Some(text) = &self.message {
            return Ok(text.clone().into());
        }
        if let Some(path) = &self.file {
            let content = std::fs::read(path);
            return content.map(Into::into).map_err(|e| Stop::new(format!("{}: {e}", path.display())));
        }
        let mut all = Vec::new();
        if self.stdin {
            io::stdin().read_to_end(&mut all).map_err(|e| Stop::new(format!("standard input: {e}")))?;
        }
        Ok(all.into())
    }
}

pub(crate) fn run(options: Options, matches: &ArgMatches) -> ExitCode {
    let properties = match Properties::from_matches(matches) {
        Ok(properties) => properties,
        Err(stop) => return stop.exit(false),
    };
    block_on(options.connection.quiet, publish(&options, &properties))
}

async fn publish(options: &Options, properties: &Properties) -> Result<(), Stop> {
    let topic = options.topic.as_deref().or(options.connection.topic_of_url());
    let topic =
        topic.ok_or_else(|| Stop::new("no topic: give one with -t, or behind the server in --url"))?;
    mqtt_proto::TopicName::new(topic).map_err(|e| Stop::new(format!("{topic}: {e}")))?;
    let delay = Duration::try_from_secs_f64(options.repeat_delay)
        .map_err(|_| Stop::new("--repeat-delay: not a number of seconds"))?;
    let version = options.connection.version(properties.any())?;
    let message = |payload: Bytes| {
        let mut message = Message::new(topic, payload).with_qos(options.connection.qos);
        message.retain = options.retain;
        message.properties.extend_except(properties.publish.as_properties(), &[]);
        message
    };
    // Before connecting, so that a mistake costs nothing.
    let payload = if options.lines { None } else { Some(options.payload.read()?) };
    let session = options.connection.connect(version, properties).await?;
    let mut sender = Sender { session, open: VecDeque::new(), debug: options.connection.debug };
    if let Some(payload) = payload {
        for n in 0..options.repeat {
            if n > 0 && !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            sender.send(message(payload.clone())).await?;
        }
    } else {
        let mut lines = lines();
        while let Some(line) = lines.recv().await {
            let line = line.map_err(|e| Stop::new(format!("standard input: {e}")))?;
            sender.send(message(line)).await?;
        }
    }
    sender.finish().await
}

/// The lines of standard input, without their ends, read by a thread of its own.
fn lines() -> mpsc::Receiver<io::Result<Bytes>> {
    let (to, lines) = mpsc::channel(256);
    std::thread::spawn(move || {
        let mut input = io::stdin().lock();
        loop {
            let mut line = Vec::new();
            let item = match input.read_until(b'\n', &mut line) {
                Ok(0) => return,
                Ok(_) => {
                    if line.last() == Some(&b'\n') {
                        line.pop();
                    }
                    Ok(line.into())
                }
                Err(e) => Err(e),
            };
            if to.blocking_send(item).is_err() {
                return;
            }
        }
    });
    lines
}

/// Publishes many, and loses sight of none.
struct Sender {
    session: Session,
    open: VecDeque<Completion>,
    debug: bool,
}

/// So many may be open before the oldest is waited for.
const OPEN: usize = 1000;

impl Sender {
    async fn send(&mut self, message: Message) -> Result<(), Stop> {
        if self.debug {
            let qos = message.qos.as_u8();
            eprintln!("Publishing to {} (QoS {qos}, {} bytes)", message.topic, message.payload.len());
        }
        let sent = tokio::select! {
            sent = self.session.client.enqueue(message) => sent,
            stop = self.session.ended() => return Err(stop),
        };
        self.open.push_back(sent.map_err(|e| Stop::client(&e, self.session.version))?);
        while self.open.len() > OPEN {
            self.settle().await?;
        }
        Ok(())
    }

    async fn settle(&mut self) -> Result<(), Stop> {
        let Some(completion) = self.open.pop_front() else { return Ok(()) };
        let receipt = tokio::select! {
            receipt = completion => receipt,
            stop = self.session.ended() => return Err(stop),
        };
        match receipt {
            Ok(receipt) if self.debug => eprintln!("Sent: {}", receipt.reason),
            Ok(_) => {}
            Err(e) => return Err(Stop::client(&e, self.session.version)),
        }
        Ok(())
    }

    async fn finish(mut self) -> Result<(), Stop> {
        while !self.open.is_empty() {
            self.settle().await?;
        }
        self.session.close().await
    }
}

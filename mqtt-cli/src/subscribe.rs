//! `mqtt sub`.

use crate::connect::{Connection, RetainHandling, Session, block_on};
use crate::printing::Printing;
use crate::properties::Properties;
use crate::stop::{Stop, TIMED_OUT};
use clap::{ArgMatches, Args};
use mqtt_proto::{SubscriptionOptions, TopicFilter, TopicName};
use mqtt_session::Message;
use mqtt_tokio::client::{Item, Subscription};
use std::future::pending;
use std::io::{self, BufWriter, Stdout, Write};
use std::process::ExitCode;
use std::time::Duration;

/// Options of `mqtt sub`.
#[derive(Args, Debug)]
#[command(disable_help_flag = true, args_override_self = true)]
pub(crate) struct Options {
    #[command(flatten)]
    connection: Connection,
    /// Topic filter; may be repeated
    #[arg(short, long, value_name = "FILTER", allow_hyphen_values = true, required_unless_present_any = ["url", "unsubscribe"])]
    topic: Vec<String>,
    /// Do not print messages that match; may be repeated
    #[arg(short = 'T', long, value_name = "FILTER")]
    filter_out: Vec<String>,
    /// Give a subscription of the session back; may be repeated
    #[arg(short = 'U', long, value_name = "FILTER")]
    unsubscribe: Vec<String>,
    #[command(flatten)]
    printing: Printing,
    /// End after so many messages
    #[arg(short = 'C', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after so many seconds, with exit code 27
    #[arg(short = 'W', long, value_name = "SECS", value_parser = clap::value_parser!(u64).range(1..))]
    wait: Option<u64>,
    /// End as soon as the server has answered the subscription
    #[arg(short = 'E')]
    end_after_suback: bool,
    /// Do not print retained messages
    #[arg(short = 'R', conflicts_with = "retained_only")]
    no_retained: bool,
    /// Print retained messages only, and end with the first other one
    #[arg(long)]
    retained_only: bool,
    /// Remove each retained message that comes from the server
    #[arg(long)]
    remove_retained: bool,
    /// Ask for the retain flag as the publisher set it (5.0)
    #[arg(long)]
    retain_as_published: bool,
    /// Which retained messages are wanted (5.0)
    #[arg(long, value_name = "WHEN")]
    retain_handling: Option<RetainHandling>,
    /// Do not send back what this client publishes (5.0)
    #[arg(long)]
    no_local: bool,
}

pub(crate) fn run(options: Options, matches: &ArgMatches) -> ExitCode {
    match Properties::from_matches(matches) {
        Ok(properties) => block_on(options.connection.quiet, subscribe(&options, &properties)),
        Err(stop) => stop.exit(false),
    }
}

async fn subscribe(options: &Options, properties: &Properties) -> Result<(), Stop> {
    let needs_v5 = properties.any()
        || options.retain_as_published
        || options.no_local
        || options.retain_handling.is_some();
    let version = options.connection.version(needs_v5)?;
    let mut filters: Vec<&str> = options.topic.iter().map(String::as_str).collect();
    filters.extend(options.connection.topic_of_url());
    for filter in filters.iter().copied().chain(options.filter_out.iter().map(String::as_str)) {
        TopicFilter::new(filter).map_err(|e| Stop::new(format!("{filter}: {e}")))?;
    }
    if filters.is_empty() && options.unsubscribe.is_empty() {
        return Err(Stop::new("no topic filter: give one with -t, or behind the server in --url"));
    }
    let session = options.connection.connect(version, properties).await?;
    let stop = |e: &mqtt_tokio::client::Error| Stop::client(e, version);
    let unclaimed = session.client.unclaimed();
    if !options.unsubscribe.is_empty() {
        let filters: Vec<&str> = options.unsubscribe.iter().map(String::as_str).collect();
        session.client.unsubscribe(&filters).await.map_err(|e| stop(&e))?;
    }
    let wanted = wanted(options);
    let mut stream = None;
    if !filters.is_empty() {
        let list: Vec<_> = filters.iter().map(|&filter| (filter, wanted)).collect();
        let made = session.client.subscribe_all(&list, &properties.subscribe).await.map_err(|e| stop(&e))?;
        for (filter, code) in filters.iter().zip(made.granted()).filter(|(_, code)| code.is_error()) {
            if !options.connection.quiet {
                eprintln!("Warning: the subscription to {filter} was refused: {code}");
            }
        }
        if options.connection.debug {
            eprintln!("Subscribed to {}", filters.join(" "));
        }
        stream = Some(made);
    }
    let mut printer = Printer { out: BufWriter::new(io::stdout()), options, left: options.count };
    let done = if options.end_after_suback || stream.is_none() {
        Ok(())
    } else {
        let wait = async {
            match options.wait {
                Some(secs) => tokio::time::sleep(Duration::from_secs(secs)).await,
                None => pending().await,
            }
        };
        tokio::select! {
            done = receive(&session, unclaimed, stream, &mut printer) => done,
            () = wait => Err(Stop::new("Timed out").with_code(TIMED_OUT)),
            stop = session.ended() => Err(stop),
            () = told_to_stop() => Ok(()),
        }
    };
    printer.flush()?;
    drop(printer);
    match done {
        Ok(()) => session.close().await,
        Err(stop) => {
            // Why it ends counts more than how the goodbye went.
            let _ = session.close().await;
            Err(stop)
        }
    }
}

/// Until somebody presses Ctrl-C or ends the program otherwise.
async fn told_to_stop() {
    #[cfg(unix)]
    let terminated = async {
        use tokio::signal::unix::{SignalKind, signal};
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => drop(signal.recv().await),
            // Then the signal ends the program as it always does.
            Err(_) => pending().await,
        }
    };
    #[cfg(not(unix))]
    let terminated = pending();
    tokio::select! {
        // Whether or not the signal could be awaited.
        _ = tokio::signal::ctrl_c() => {}
        () = terminated => {}
    }
}

fn wanted(options: &Options) -> SubscriptionOptions {
    use mqtt_proto::RetainHandling as Wanted;
    let retain_handling = match options.retain_handling {
        None | Some(RetainHandling::Always) => Wanted::Send,
        Some(RetainHandling::New) => Wanted::SendIfNew,
        Some(RetainHandling::Never) => Wanted::DoNotSend,
    };
    SubscriptionOptions {
        qos: options.connection.qos,
        no_local: options.no_local,
        retain_as_published: options.retain_as_published,
        retain_handling,
    }
}

/// Prints until enough has come.
async fn receive(
    session: &Session,
    unclaimed: Option<Subscription>,
    stream: Option<Subscription>,
    printer: &mut Printer<'_>,
) -> Result<(), Stop> {
    let (mut unclaimed, mut stream) = (unclaimed, stream);
    loop {
        // What waited in the session came first.
        let ready = unclaimed.as_mut().and_then(Subscription::try_recv);
        let item = match ready.or_else(|| stream.as_mut().and_then(Subscription::try_recv)) {
            Some(item) => item,
            None => {
                // Nothing more for now: what was printed is to be seen.
                printer.flush()?;
                tokio::select! {
                    biased;
                    Some(item) = next(unclaimed.as_mut()) => item,
                    Some(item) = next(stream.as_mut()) => item,
                    else => return Ok(()),
                }
            }
        };
        match item {
            Item::Message(delivery) => {
                let message = delivery.into_message();
                if printer.is_over_with(&message) {
                    return Ok(());
                }
                if printer.options.remove_retained && message.retain && !printer.is_filtered(&message) {
                    let empty = Message::new(message.topic.clone(), "").retained();
                    let removed = session.client.publish(empty).await;
                    removed.map_err(|e| Stop::client(&e, session.version))?;
                }
                if printer.print(&message)? {
                    return Ok(());
                }
            }
            Item::Lagged(n) => eprintln!("Warning: {n} messages were dropped because printing is too slow"),
            Item::Refused { filter, reason } => {
                eprintln!("Warning: the subscription to {filter} was lost: {reason}");
            }
            _ => {}
        }
    }
}

async fn next(stream: Option<&mut Subscription>) -> Option<Item> {
    match stream {
        Some(stream) => stream.recv().await,
        None => None,
    }
}

struct Printer<'a> {
    /// Flushed when nothing more waits to be printed.
    out: BufWriter<Stdout>,
    options: &'a Options,
    /// Messages that are still wanted.
    left: Option<u64>,
}

impl Printer<'_> {
    /// Whether `--retained-only` has seen all retained messages.
    fn is_over_with(&self, message: &Message) -> bool {
        self.options.retained_only && !message.retain
    }

    fn is_filtered(&self, message: &Message) -> bool {
        let Ok(topic) = TopicName::new(&message.topic) else { return false };
        let out = self.options.filter_out.iter().filter_map(|filter| TopicFilter::new(filter).ok());
        out.into_iter().any(|filter| filter.matches(topic))
    }

    /// Prints a message. Whether that was the last one.
    fn print(&mut self, message: &Message) -> Result<bool, Stop> {
        if self.is_filtered(message) || self.options.no_retained && message.retain {
            return Ok(false);
        }
        self.write(message).map_err(closed)?;
        if let Some(left) = &mut self.left {
            *left -= 1;
        }
        Ok(self.left == Some(0))
    }

    fn write(&mut self, message: &Message) -> io::Result<()> {
        let Options { printing, connection, .. } = self.options;
        printing.write(&mut self.out, message, connection.quiet)
    }

    fn flush(&mut self) -> Result<(), Stop> {
        self.out.flush().map_err(closed)
    }
}

/// Whoever read the output has gone, which is no error of ours.
pub(crate) fn closed(e: io::Error) -> Stop {
    match e.kind() {
        io::ErrorKind::BrokenPipe => Stop::new("").with_code(0),
        _ => Stop::new(format!("standard output: {e}")),
    }
}

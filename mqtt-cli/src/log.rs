//! The broker's log: what a line looks like, and which lines are written.

use chrono::format::StrftimeItems;
use chrono::{Local, SecondsFormat};
use mqtt_broker::config::{Log, LogFormat, LogLevel};
use mqtt_broker::{FileError, LogTarget, Settings};
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{FilterFn, LevelFilter};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// The time in a line.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Clock {
    Rfc3339,
    Unix,
    None,
    Format(String),
}

impl Clock {
    fn of(log: &Log) -> Self {
        match (log.timestamp.as_deref(), log.format) {
            (None, LogFormat::Mosquitto) | (Some("unix"), _) => Self::Unix,
            (None, _) | (Some("rfc3339"), _) => Self::Rfc3339,
            (Some("none"), _) => Self::None,
            (Some(format), _) => Self::Format(format.to_owned()),
        }
    }

    fn write(&self, out: &mut Writer<'_>, behind: &str) -> fmt::Result {
        match self {
            Self::None => return Ok(()),
            Self::Unix => write!(out, "{}", Local::now().timestamp())?,
            Self::Rfc3339 => {
                let now = chrono::Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true);
                out.write_str(&now)?;
            }
            Self::Format(format) => write!(out, "{}", Local::now().format(format))?,
        }
        out.write_str(behind)
    }
}

/// Whether the settings can be carried out.
pub(crate) fn check(log: &Log) -> Result<(), FileError> {
    match Clock::of(log) {
        Clock::Format(format) if StrftimeItems::new(&format).parse().is_err() => Err(FileError::new(
            Path::new("log.timestamp"),
            None,
            format!("{format:?} is no format of a time"),
            "write rfc3339, unix, none, or what strftime takes, as %Y-%m-%dT%H:%M:%S",
        )),
        _ => Ok(()),
    }
}

/// From here on what is told is written.
pub(crate) fn start(settings: &mut Settings, level: LogLevel) -> Result<(), FileError> {
    let targets = settings.log_targets()?;
    let log = settings.log().clone();
    // Elsewhere the codes of colours are no help.
    let colours = matches!(*targets, [LogTarget::Stderr]) && io::stderr().is_terminal();
    let lines = Lines { targets, subscriptions: log.format == LogFormat::Mosquitto };
    let layer = tracing_subscriber::fmt::layer().with_ansi(colours).with_writer(lines);
    let filter = filter(&log, level);
    let registry = tracing_subscriber::registry();
    match log.format {
        LogFormat::Json => {
            registry
                .with(layer.json().flatten_event(true).with_current_span(false).with_filter(filter))
                .init();
        }
        format => {
            let text = Text { clock: Clock::of(&log), mosquitto: format == LogFormat::Mosquitto };
            registry.with(layer.event_format(text).with_filter(filter)).init();
        }
    }
    Ok(())
}

const fn most(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Off => LevelFilter::OFF,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    }
}

fn filter(log: &Log, level: LogLevel) -> FilterFn<impl Fn(&Metadata<'_>) -> bool + use<>> {
    let most = most(level);
    let (connections, subscriptions) = (log.connections, log.subscriptions);
    let wanted = move |what: &Metadata<'_>| match what.target() {
        "mqtt::subscription" if subscriptions => true,
        "mqtt::connection" if !connections => false,
        _ => *what.level() <= most,
    };
    let hint = if subscriptions { LevelFilter::DEBUG.max(most) } else { most };
    FilterFn::new(wanted).with_max_level_hint(hint)
}

/// Lines of text: the message only, since it says what the fields do.
struct Text {
    clock: Clock,
    mosquitto: bool,
}

impl<S, N> FormatEvent<S, N> for Text
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        if self.mosquitto {
            self.clock.write(&mut out, ": ")?;
            if *event.metadata().level() == Level::ERROR {
                out.write_str("Error: ")?;
            } else if *event.metadata().level() == Level::WARN && event.metadata().target() != "mqtt::session"
            {
                out.write_str("Warning: ")?;
            }
        } else {
            self.clock.write(&mut out, " ")?;
            let colour = match *event.metadata().level() {
                Level::ERROR => 31,
                Level::WARN => 33,
                Level::INFO => 32,
                _ => 34,
            };
            if out.has_ansi_escapes() {
                write!(out, "\x1b[{colour}m{:>5}\x1b[0m ", event.metadata().level())?;
            } else {
                write!(out, "{:>5} ", event.metadata().level())?;
            }
        }
        let mut message = Message { out: &mut out, result: Ok(()) };
        event.record(&mut message);
        message.result?;
        out.write_char('\n')
    }
}

struct Message<'a, 'w> {
    out: &'a mut Writer<'w>,
    result: fmt::Result,
}

impl Visit for Message<'_, '_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" && self.result.is_ok() {
            self.result = write!(self.out, "{value:?}");
        }
    }
}

/// Where lines go.
struct Lines {
    targets: Vec<LogTarget>,
    /// Whether those of subscriptions have topics of their own.
    subscriptions: bool,
}

/// A line that is being written.
struct Line<'a> {
    kind: &'static str,
    targets: &'a [LogTarget],
    text: Vec<u8>,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { kind: "N", targets: &self.targets, text: Vec::new() }
    }

    fn make_writer_for(&'a self, what: &Metadata<'_>) -> Line<'a> {
        let kind = match *what.level() {
            Level::ERROR => "E",
            Level::WARN => "W",
            _ if what.target() == "mqtt::subscription" && self.subscriptions => "M/subscribe",
            Level::INFO if what.target() == "mqtt::connection" => "N",
            Level::INFO => "I",
            _ => "D",
        };
        Line { kind, targets: &self.targets, text: Vec::new() }
    }
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        for target in self.targets {
            // A log that cannot be written has nobody to tell.
            let _ = target.write(self.kind, &self.text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(timestamp: Option<&str>, format: LogFormat) -> Log {
        Log { timestamp: timestamp.map(str::to_owned), format, ..Log::default() }
    }

    #[test]
    fn each_format_has_a_clock_unless_told_otherwise() {
        assert_eq!(Clock::of(&log(None, LogFormat::Text)), Clock::Rfc3339);
        assert_eq!(Clock::of(&log(None, LogFormat::Mosquitto)), Clock::Unix);
        assert_eq!(Clock::of(&log(Some("none"), LogFormat::Mosquitto)), Clock::None);
        assert!(check(&log(Some("%Y-%m-%d"), LogFormat::Text)).is_ok());
        let error = check(&log(Some("%Q%"), LogFormat::Text)).unwrap_err().to_string();
        assert!(error.contains("is no format of a time"), "{error}");
    }
}

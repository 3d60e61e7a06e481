//! `-F`: how a message is printed. The notation is Mosquitto's.
//!
//! `%` begins a field of the message, `@` a directive of strftime, `\` an escape. Between `%` and the
//! field may stand `-` (align left), `0` (fill numbers with zeros), a width, `.` and a greatest width
//! (for `%x` and `%X`, the length of the groups that a separator behind it divides).

mod json;
mod parse;
mod time;
mod write;

pub(crate) use parse::Format;
pub(crate) use time::Moment;

use mqtt_session::Message;

/// A message as it is printed.
#[derive(Debug)]
pub(crate) struct Arrival<'a> {
    pub(crate) message: &'a Message,
    pub(crate) at: Moment,
    /// Whether JSON is written for people.
    pub(crate) pretty: bool,
}

/// What could not be written.
#[derive(Debug)]
pub(crate) enum WriteError {
    /// Standard output is gone.
    Io(std::io::Error),
    /// The payload is not what the format wants.
    Payload(&'static str),
}

impl From<std::io::Error> for WriteError {
    fn from(e: std::io::Error) -> Self {
        Self::Io(e)
    }
}

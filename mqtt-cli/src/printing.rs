//! How a message is printed.

use crate::format::{Arrival, Format, Moment, WriteError};
use clap::Args;
use mqtt_session::Message;
use std::io::{self, Write};

/// Options of whatever prints messages.
#[derive(Args, Debug)]
pub(crate) struct Printing {
    /// Print the topic in front of the payload
    #[arg(short, long)]
    verbose: bool,
    /// Print so: %t topic, %p payload, %q QoS, %r retain, %j JSON, ...; see the guide
    #[arg(short = 'F', long, value_name = "FORMAT", allow_hyphen_values = true)]
    format: Option<Format>,
    /// Print no line end behind a message
    #[arg(short = 'N')]
    no_line_end: bool,
    /// Print JSON over several lines
    #[arg(long)]
    pretty: bool,
}

impl Printing {
    /// Prints a message; what cannot be printed as the format wants it is told, unless `quiet`.
    pub(crate) fn write(&self, out: &mut impl Write, message: &Message, quiet: bool) -> io::Result<()> {
        let Self { format, verbose, pretty, no_line_end } = self;
        match format {
            Some(format) => {
                let arrival = Arrival { message, at: Moment::now(), pretty: *pretty };
                match format.write(out, &arrival) {
                    Ok(()) => {}
                    Err(WriteError::Io(e)) => return Err(e),
                    Err(WriteError::Payload(_)) if quiet => {}
                    Err(WriteError::Payload(what)) => {
                        eprintln!("Error: Message payload {what} on topic {}.", message.topic);
                    }
                }
            }
            // An empty payload is nothing to print, not even an empty line.
            None if message.payload.is_empty() && (!verbose || *no_line_end) => return Ok(()),
            None if message.payload.is_empty() => write!(out, "{} (null)", message.topic)?,
            None => {
                if *verbose {
                    write!(out, "{} ", message.topic)?;
                }
                out.write_all(&message.payload)?;
            }
        }
        if !no_line_end {
            out.write_all(b"\n")?;
        }
        Ok(())
    }
}

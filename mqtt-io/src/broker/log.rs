//! Events as lines that people and scripts know from Mosquitto, with fields for programs.
//!
//! Targets tell what a line is about: `mqtt::connection`, `mqtt::subscription`, `mqtt::session`,
//! `mqtt::transport`.

use crate::TransportEvent;
use mqtt_proto::{ReasonCode, Version};
use mqtt_session::broker::{Denied, Event};
use std::fmt::{self, Display, Write};
use std::net::SocketAddr;
use tracing::field::display;
use tracing::{Level, debug, error, info, warn};

/// In whose words things are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogStyle {
    /// Ours: each line about a client has its address, and reasons have their codes.
    #[default]
    Plain,
    /// Those of Mosquitto 2.0, where it has any, for what reads its log.
    Mosquitto,
}

/// Text from a peer: control characters are escaped, so that nobody writes lines into our log.
struct Printable<'a>(&'a str);

impl Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if c.is_control() {
                write!(f, "{}", c.escape_default())?;
            } else {
                f.write_char(c)?;
            }
        }
        Ok(())
    }
}

/// An address, if there is one.
#[derive(Clone, Copy)]
pub(super) struct At(pub(super) Option<SocketAddr>);

impl Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => address.fmt(f),
            None => f.write_str("a link without an address"),
        }
    }
}

/// A peer at the door.
pub(super) fn accepted(style: LogStyle, from: Option<SocketAddr>, at: &str) {
    match style {
        LogStyle::Plain => debug!(target: "mqtt::connection", "New connection from {} on {at}.", At(from)),
        LogStyle::Mosquitto => info!(target: "mqtt::connection", "New connection from {} on {at}.", At(from)),
    }
}

/// What is told of an event: the name of its kind, how loud, and what programs look for.
struct Told<'a> {
    level: Level,
    kind: &'static str,
    client: Option<&'a str>,
    user: Option<&'a str>,
    reason: Option<ReasonCode>,
}

fn told(event: &Event) -> Told<'_> {
    let told = |level, kind, client| Told { level, kind, client, user: None, reason: None };
    match event {
        Event::Connected { client_id, user_name, .. } => {
            Told { user: user_name.as_deref(), ..told(Level::INFO, "connected", Some(&**client_id)) }
        }
        Event::Refused { client_id, reason, .. } => {
            let client = client_id.as_deref().filter(|id| !id.is_empty());
            Told { reason: Some(*reason), ..told(Level::INFO, "refused", client) }
        }
        Event::Malformed { error, .. } => {
            Told { reason: Some(error.reason()), ..told(Level::INFO, "malformed", None) }
        }
        Event::Disconnected { client_id, reason, .. } => {
            let level = if client_id.is_some() { Level::INFO } else { Level::DEBUG };
            Told { reason: Some(*reason), ..told(level, "disconnected", client_id.as_deref()) }
        }
        Event::Subscribed { client_id, .. } => told(Level::DEBUG, "subscribed", Some(client_id)),
        Event::Unsubscribed { client_id, .. } => told(Level::DEBUG, "unsubscribed", Some(client_id)),
        Event::Denied { client_id, what, .. } => {
            let level = if matches!(what, Denied::Will) { Level::INFO } else { Level::DEBUG };
            told(level, "denied", Some(client_id))
        }
        Event::Dropped { client_id, .. } => told(Level::WARN, "dropped", Some(client_id)),
        Event::SessionEnded { client_id, lost } => {
            let level = if *lost > 0 { Level::INFO } else { Level::DEBUG };
            told(level, "session_ended", Some(client_id))
        }
        Event::NotRetained { .. } => told(Level::WARN, "not_retained", None),
        Event::Internal { client_id, .. } => told(Level::ERROR, "internal_error", Some(client_id)),
        _ => told(Level::DEBUG, "other", None),
    }
}

/// An event in words.
struct Words<'a> {
    style: LogStyle,
    event: &'a Event,
    at: At,
}

impl Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.style == LogStyle::Mosquitto
            && let Some(result) = self.as_mosquitto(f)
        {
            return result;
        }
        let at = self.at;
        match self.event {
            Event::Connected { client_id, user_name, version, clean_start, keep_alive, .. } => {
                let (id, p, c) = (Printable(client_id), version.level(), u8::from(*clean_start));
                write!(f, "New client connected from {at} as {id} (p{p}, c{c}, k{keep_alive}")?;
                user_name.as_ref().map_or(Ok(()), |user| write!(f, ", u'{}'", Printable(user)))?;
                f.write_str(").")
            }
            Event::Refused { reason, client_id: Some(id), .. } if !id.is_empty() => {
                write!(f, "Client {} [{at}] refused: {reason}.", Printable(id))
            }
            Event::Refused { reason, .. } => write!(f, "Connection from {at} refused: {reason}."),
            Event::Malformed { error, .. } => write!(f, "Protocol error from {at}: {error}."),
            Event::Disconnected { client_id: Some(id), reason, .. } => {
                write!(f, "Client {} [{at}] ", Printable(id))?;
                match reason {
                    ReasonCode::Success => f.write_str("disconnected."),
                    // Nobody said anything: the socket ended.
                    ReasonCode::UnspecifiedError => f.write_str("closed its connection."),
                    ReasonCode::KeepAliveTimeout => {
                        f.write_str("has exceeded its keep alive, disconnecting.")
                    }
                    _ => write!(f, "disconnected: {reason}."),
                }
            }
            Event::Disconnected { reason, .. } => write!(f, "Connection from {at} closed: {reason}."),
            Event::Subscribed { client_id, filter, qos } => {
                write!(f, "{} {} {}", Printable(client_id), qos.as_u8(), Printable(filter))
            }
            Event::Unsubscribed { client_id, filter } => {
                write!(f, "{} unsubscribed {}", Printable(client_id), Printable(filter))
            }
            Event::Denied { client_id, what, topic, .. } => {
                let (id, topic) = (Printable(client_id), Printable(topic));
                match what {
                    Denied::Publish => write!(f, "Denied PUBLISH from {id} ('{topic}')."),
                    Denied::Subscribe => write!(f, "Denied SUBSCRIBE from {id} ('{topic}')."),
                    Denied::Will => write!(f, "Denied will of {id} ('{topic}')."),
                }
            }
            Event::Dropped { client_id, reason, count } => {
                let id = Printable(client_id);
                write!(f, "Outgoing messages are being dropped for client {id}: {reason:?}, {count} so far.")
            }
            Event::SessionEnded { client_id, lost } if *lost > 0 => {
                write!(f, "Session of {} ended with {lost} messages waiting.", Printable(client_id))
            }
            Event::SessionEnded { client_id, .. } => write!(f, "Session of {} ended.", Printable(client_id)),
            Event::NotRetained { topic } => {
                let topic = Printable(topic);
                write!(f, "A message to {topic} was delivered but not retained: there is no room.")
            }
            Event::Internal { client_id, what } => {
                let id = Printable(client_id);
                write!(f, "Internal error, session of {id} closed: {what}. Please report this.")
            }
            other => write!(f, "{other:?}"),
        }
    }
}

impl Words<'_> {
    /// In Mosquitto's words, if it has some of its own for this.
    fn as_mosquitto(&self, f: &mut fmt::Formatter<'_>) -> Option<fmt::Result> {
        Some(match self.event {
            Event::Connected { client_id, user_name, version, clean_start, keep_alive, .. } => {
                // What it calls the versions within.
                let p = match version {
                    Version::V31 => 1,
                    Version::V311 => 2,
                    Version::V5 => 5,
                };
                let (at, id, c) = (self.at, Printable(client_id), u8::from(*clean_start));
                let user = user_name.as_ref().map(|user| format!(", u'{}'", Printable(user)));
                let user = user.unwrap_or_default();
                write!(f, "New client connected from {at} as {id} (p{p}, c{c}, k{keep_alive}{user}).")
            }
            // It forgets who it was.
            Event::Refused { .. } => f.write_str("Client <unknown> disconnected, not authorised."),
            Event::Malformed { .. } => return None,
            Event::Disconnected { client_id: Some(id), reason, .. } => {
                let id = Printable(id);
                match reason {
                    ReasonCode::Success | ReasonCode::DisconnectWithWill => {
                        write!(f, "Client {id} disconnected.")
                    }
                    ReasonCode::UnspecifiedError => write!(f, "Client {id} closed its connection."),
                    ReasonCode::KeepAliveTimeout => {
                        write!(f, "Client {id} has exceeded timeout, disconnecting.")
                    }
                    ReasonCode::SessionTakenOver => {
                        write!(f, "Client {id} already connected, closing old connection.")
                    }
                    ReasonCode::MalformedPacket => {
                        write!(f, "Client {id} disconnected due to malformed packet.")
                    }
                    ReasonCode::PacketTooLarge => {
                        write!(f, "Client {id} disconnected due to oversize packet.")
                    }
                    ReasonCode::NotAuthorized => write!(f, "Client {id} disconnected, not authorised."),
                    ReasonCode::AdministrativeAction => {
                        write!(f, "Client {id} been disconnected by administrative action.")
                    }
                    ReasonCode::ServerShuttingDown => {
                        write!(f, "Client {id} disconnected, server shutting down.")
                    }
                    ReasonCode::QosNotSupported | ReasonCode::RetainNotSupported => write!(
                        f,
                        "Client {id} disconnected due to using not allowed feature (QoS too high, retain not \
                         supported, or bad AUTH method)."
                    ),
                    _ => write!(f, "Client {id} disconnected due to protocol error."),
                }
            }
            Event::Unsubscribed { client_id, filter } => {
                write!(f, "{} {}", Printable(client_id), Printable(filter))
            }
            Event::Dropped { client_id, .. } => {
                write!(f, "Outgoing messages are being dropped for client {}.", Printable(client_id))
            }
            _ => return None,
        })
    }
}

/// Writes the same fields with whatever level and target.
macro_rules! write_line {
    ($write:ident, $target:literal, $told:expr, $words:expr) => {
        $write!(
            target: $target,
            event = $told.kind,
            client_id = $told.client.map(|id| display(Printable(id))),
            user = $told.user.map(|user| display(Printable(user))),
            address = $words.at.0.map(display),
            reason = $told.reason.map(ReasonCode::as_u8),
            "{}",
            $words
        )
    };
}

pub(super) fn event(style: LogStyle, event: &Event, address: Option<SocketAddr>) {
    let (told, words) = (told(event), Words { style, event, at: At(address) });
    match event {
        Event::Connected { .. } | Event::Refused { .. } | Event::Malformed { .. } => {
            write_line!(info, "mqtt::connection", told, words);
        }
        Event::Disconnected { .. } if told.level == Level::INFO => {
            write_line!(info, "mqtt::connection", told, words);
        }
        Event::Disconnected { .. } => write_line!(debug, "mqtt::connection", told, words),
        Event::Subscribed { .. } | Event::Unsubscribed { .. } => {
            write_line!(debug, "mqtt::subscription", told, words);
        }
        _ => match told.level {
            Level::ERROR => write_line!(error, "mqtt::session", told, words),
            Level::WARN => write_line!(warn, "mqtt::session", told, words),
            Level::INFO => write_line!(info, "mqtt::session", told, words),
            _ => write_line!(debug, "mqtt::session", told, words),
        },
    }
}

/// What happened below MQTT.
pub(super) fn transport(event: &TransportEvent, address: Option<SocketAddr>) {
    let at = At(address);
    let address = address.map(display);
    match event {
        TransportEvent::Opened(opened) => {
            if let Some(tls) = &opened.tls {
                let (name, subject) = (tls.server_name.as_deref(), tls.subject.as_deref());
                debug!(
                    target: "mqtt::transport",
                    address,
                    "Connection from {at} is encrypted: {}, {}, server name '{}', certificate '{}'.",
                    tls.version,
                    tls.cipher,
                    Printable(name.unwrap_or_default()),
                    Printable(subject.unwrap_or_default())
                );
            } else if opened.proxied.is_some() {
                debug!(target: "mqtt::transport", address, "Connection from {at} comes through a proxy.");
            }
        }
        TransportEvent::Failed(error) => {
            let error = error.to_string();
            info!(target: "mqtt::transport", address, "Connection from {at} closed: {}.", Printable(&error));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_write_no_lines_into_the_log() {
        assert_eq!(Printable("a\nb\u{1b}[31m\u{85}ü").to_string(), "a\\nb\\u{1b}[31m\\u{85}ü");
    }

    #[test]
    fn mosquitto_has_words_of_its_own() {
        let event = Event::Unsubscribed { client_id: "c\n".to_owned(), filter: "a/#".to_owned() };
        let words = |style| Words { style, event: &event, at: At(None) }.to_string();
        assert_eq!(words(LogStyle::Plain), "c\\n unsubscribed a/#");
        assert_eq!(words(LogStyle::Mosquitto), "c\\n a/#");
    }
}

//! Events as lines that people and scripts know from Mosquitto.

use crate::TransportEvent;
use mqtt_proto::{ReasonCode, Version};
use mqtt_session::broker::{Denied, Event};
use std::fmt::{self, Write};
use std::net::SocketAddr;
use tracing::{debug, error, info, warn};

/// Text from a peer: control characters are escaped, so that nobody writes lines into our log.
struct Printable<'a>(&'a str);

impl fmt::Display for Printable<'_> {
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
pub(super) struct At(pub(super) Option<SocketAddr>);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => address.fmt(f),
            None => f.write_str("a link without an address"),
        }
    }
}

/// What clients send to say which version they speak.
const fn level(version: Version) -> u8 {
    version.level()
}

pub(super) fn event(event: &Event, address: Option<SocketAddr>) {
    let at = At(address);
    match event {
        Event::Connected { client_id, user_name, version, clean_start, keep_alive, .. } => {
            let (id, p, c) = (Printable(client_id), level(*version), u8::from(*clean_start));
            match user_name {
                Some(user) => info!(
                    "New client connected from {at} as {id} (p{p}, c{c}, k{keep_alive}, u'{}').",
                    Printable(user)
                ),
                None => info!("New client connected from {at} as {id} (p{p}, c{c}, k{keep_alive})."),
            }
        }
        Event::Refused { reason, client_id: Some(id), .. } if !id.is_empty() => {
            info!("Client {} [{at}] refused: {reason}.", Printable(id));
        }
        Event::Refused { reason, .. } => info!("Connection from {at} refused: {reason}."),
        Event::Malformed { error, .. } => info!("Protocol error from {at}: {error}."),
        Event::Disconnected { client_id, reason, .. } => match (client_id, reason) {
            (Some(id), ReasonCode::Success) => info!("Client {} [{at}] disconnected.", Printable(id)),
            // Nobody said anything: the socket ended.
            (Some(id), ReasonCode::UnspecifiedError) => {
                info!("Client {} [{at}] closed its connection.", Printable(id));
            }
            (Some(id), ReasonCode::KeepAliveTimeout) => {
                info!("Client {} [{at}] has exceeded its keep alive, disconnecting.", Printable(id));
            }
            (Some(id), _) => info!("Client {} [{at}] disconnected: {reason}.", Printable(id)),
            (None, _) => debug!("Connection from {at} closed: {reason}."),
        },
        Event::Subscribed { client_id, filter, qos } => {
            debug!("{} {} {}", Printable(client_id), qos.as_u8(), Printable(filter));
        }
        Event::Unsubscribed { client_id, filter } => {
            debug!("{} unsubscribed {}", Printable(client_id), Printable(filter));
        }
        Event::Denied { client_id, what, topic, .. } => {
            let (id, topic) = (Printable(client_id), Printable(topic));
            match what {
                Denied::Publish => debug!("Denied PUBLISH from {id} ('{topic}')."),
                Denied::Subscribe => debug!("Denied SUBSCRIBE from {id} ('{topic}')."),
                Denied::Will => info!("Denied will of {id} ('{topic}')."),
            }
        }
        Event::Dropped { client_id, reason, count } => {
            let id = Printable(client_id);
            warn!("Outgoing messages are being dropped for client {id}: {reason:?}, {count} so far.");
        }
        Event::SessionEnded { client_id, lost } if *lost > 0 => {
            info!("Session of {} ended with {lost} messages waiting.", Printable(client_id));
        }
        Event::SessionEnded { client_id, .. } => debug!("Session of {} ended.", Printable(client_id)),
        Event::NotRetained { topic } => {
            warn!("A message to {} was delivered but not retained: there is no room.", Printable(topic));
        }
        Event::Internal { client_id, what } => {
            error!("Internal error, session of {} closed: {what}. Please report this.", Printable(client_id));
        }
        other => debug!("{other:?}"),
    }
}

/// What happened below MQTT.
pub(super) fn transport(event: &TransportEvent, address: Option<SocketAddr>) {
    let at = At(address);
    match event {
        TransportEvent::Opened(opened) => {
            if let Some(tls) = &opened.tls {
                let (name, subject) = (tls.server_name.as_deref(), tls.subject.as_deref());
                debug!(
                    "Connection from {at} is encrypted: {}, {}, server name '{}', certificate '{}'.",
                    tls.version,
                    tls.cipher,
                    Printable(name.unwrap_or_default()),
                    Printable(subject.unwrap_or_default())
                );
            } else if opened.proxied.is_some() {
                debug!("Connection from {at} comes through a proxy.");
            }
        }
        TransportEvent::Failed(error) => {
            info!("Connection from {at} closed: {}.", Printable(&error.to_string()))
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
}

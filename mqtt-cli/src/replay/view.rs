//! What of a replay is shown, and how: a line for each packet, in both directions.

use super::Options;
use chrono::{DateTime, Utc};
use mqtt_io::trace::{Header, Input, Step};
use mqtt_proto::{
    MAX_PACKET_SIZE, PacketId, PacketRef, PublishRef, ReasonCode, TopicFilter, TopicName, Version,
};
use mqtt_session::broker::{ConnectionId, Event, Output};
use std::collections::{HashMap, HashSet};
use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::time::Duration;

/// Which way a packet goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// From the client.
    In,
    /// To the client.
    Out,
    /// No packet.
    Neither,
}

impl Way {
    const fn arrow(self) -> &'static str {
        match self {
            Self::In => "->",
            Self::Out => "<-",
            Self::Neither => "--",
        }
    }
}

/// One connection, as far as it was seen.
struct Link {
    /// The client identifier, or a number until that is known.
    name: String,
    named: bool,
    version: Version,
    /// Bytes of packets that are not complete.
    input: Vec<u8>,
    output: Vec<u8>,
    /// What aliases stand for.
    input_aliases: HashMap<u16, String>,
    output_aliases: HashMap<u16, String>,
    /// Messages that are shown and not finished: their acknowledgements are shown as well.
    input_open: HashSet<PacketId>,
    output_open: HashSet<PacketId>,
    /// Lines of one that has no name yet, while only some clients are shown.
    held: Vec<String>,
}

/// Shows steps.
pub(super) struct View<'a> {
    options: &'a Options,
    topics: Vec<TopicFilter<'a>>,
    links: HashMap<ConnectionId, Link>,
    accepted: u64,
}

impl<'a> View<'a> {
    pub(super) fn new(options: &'a Options) -> Self {
        let topics = options.topics.iter().filter_map(|filter| TopicFilter::new(filter).ok()).collect();
        Self { options, topics, links: HashMap::new(), accepted: 0 }
    }

    pub(super) fn header(&self, header: &Header, out: &mut impl Write) -> io::Result<()> {
        let begun = i64::try_from(header.unix_ms).ok().and_then(DateTime::<Utc>::from_timestamp_millis);
        let begun =
            begun.map_or_else(String::new, |at| format!(" of {}", at.format("%Y-%m-%d %H:%M:%S UTC")));
        let restored = if header.restored { ", restored from a store" } else { "" };
        writeln!(out, "Trace{begun}: mqtt {}{restored}.", header.program)?;
        if header.program != env!("CARGO_PKG_VERSION") {
            writeln!(out, "This is mqtt {}, which may do something else.", env!("CARGO_PKG_VERSION"))?;
        }
        Ok(())
    }

    pub(super) fn step(&mut self, step: &Step, out: &mut impl Write) -> io::Result<()> {
        let at = step.at;
        if let Some(conn) = step.accepted {
            self.accepted += 1;
            self.links.insert(conn, Link::new(self.accepted));
        }
        match &step.input {
            Some(Input::Identified(conn, peer)) => {
                let from = peer.address.map_or_else(String::new, |address| format!(" from {address}"));
                self.tell(at, *conn, &format_args!("connected{from}"), out)?;
            }
            Some(Input::Read(conn, bytes)) => self.packets(at, *conn, Way::In, bytes, out)?,
            Some(Input::Outbox { conn, .. }) if !step.sent.is_empty() => {
                self.packets(at, *conn, Way::Out, &step.sent, out)?;
            }
            Some(Input::Publish(message)) => {
                let properties = message.properties.as_properties();
                let (topic, qos, payload) = (&*message.topic, message.qos, &message.payload[..]);
                let packet_id = (qos > mqtt_proto::QoS::AtMostOnce).then_some(PacketId::MIN);
                let retain = message.retain;
                let publish = PublishRef { topic, qos, retain, packet_id, properties, payload, dup: false };
                if self.about(topic) && self.options.clients.is_empty() {
                    let text = self.text(&PacketRef::Publish(publish));
                    self.line(at, "the program", Way::In, &text, out)?;
                }
            }
            Some(Input::Shutdown) if self.topics.is_empty() && self.options.clients.is_empty() => {
                self.line(at, "the program", Way::Neither, &"shuts the broker down", out)?;
            }
            input if self.options.verbose => self.verbose(at, input.as_ref(), out)?,
            _ => {}
        }
        for output in &step.outputs {
            self.output(at, output, out)?;
        }
        if let Some(Input::Close(conn, why)) = &step.input {
            self.tell(at, *conn, &format_args!("closed: {why:?}"), out)?;
            self.links.remove(conn);
        }
        Ok(())
    }

    /// All packets that are complete now.
    fn packets(
        &mut self,
        at: Duration,
        conn: ConnectionId,
        way: Way,
        bytes: &[u8],
        out: &mut impl Write,
    ) -> io::Result<()> {
        let Some(mut link) = self.links.remove(&conn) else { return Ok(()) };
        let mut stream = std::mem::take(if way == Way::In { &mut link.input } else { &mut link.output });
        stream.extend_from_slice(bytes);
        let mut rest = &stream[..];
        // What is no packet is told by the machine.
        while let Ok(Some((packet, len))) = PacketRef::decode_next(rest, link.version, MAX_PACKET_SIZE) {
            if let PacketRef::Connect(connect) = &packet {
                link.version = connect.version;
                self.name(&mut link, connect.client_id, out)?;
            }
            let topic = link.alias(&packet, way);
            let packet = match (packet, &topic) {
                (PacketRef::Publish(publish), Some(topic)) => {
                    PacketRef::Publish(PublishRef { topic, ..publish })
                }
                (packet, _) => packet,
            };
            if self.is_shown(&mut link, &packet, way) {
                let text = self.text(&packet);
                self.say(at, &mut link, way, &text, out)?;
            }
            rest = rest.get(len..).unwrap_or_default();
        }
        let rest = rest.to_vec();
        *(if way == Way::In { &mut link.input } else { &mut link.output }) = rest;
        self.links.insert(conn, link);
        Ok(())
    }

    /// Whether a packet has to do with the topics that are wanted.
    fn is_shown(&self, link: &mut Link, packet: &PacketRef<'_>, way: Way) -> bool {
        if self.topics.is_empty() {
            return true;
        }
        let (open, other) = match way {
            Way::In => (&mut link.input_open, &mut link.output_open),
            _ => (&mut link.output_open, &mut link.input_open),
        };
        match packet {
            PacketRef::Publish(publish) => {
                let about = self.about(publish.topic);
                if about {
                    open.extend(publish.packet_id);
                }
                about
            }
            // These go against the message that they are about, and PUBREL with it.
            PacketRef::Puback(ack) | PacketRef::Pubcomp(ack) => other.remove(&ack.packet_id),
            PacketRef::Pubrec(ack) => other.contains(&ack.packet_id),
            PacketRef::Pubrel(ack) => open.contains(&ack.packet_id),
            PacketRef::Subscribe(subscribe) => {
                let about = subscribe.filters.into_iter().any(|(filter, _)| self.about(filter.as_str()));
                if about {
                    open.insert(subscribe.packet_id);
                }
                about
            }
            PacketRef::Unsubscribe(unsubscribe) => {
                let about = unsubscribe.filters.into_iter().any(|filter| self.about(filter.as_str()));
                if about {
                    open.insert(unsubscribe.packet_id);
                }
                about
            }
            PacketRef::Suback(ack) => other.remove(&ack.packet_id),
            PacketRef::Unsuback(ack) => other.remove(&ack.packet_id),
            PacketRef::Connect(connect) => connect.will.is_some_and(|will| self.about(will.topic)),
            _ => false,
        }
    }

    /// Whether a topic is wanted, or a filter has to do with one that is.
    fn about(&self, text: &str) -> bool {
        let text =
            text.strip_prefix("$share/").and_then(|rest| rest.split_once('/')).map_or(text, |(_, f)| f);
        self.topics.is_empty()
            || self.topics.iter().any(|wanted| {
                let name = |text| TopicName::new(text).ok();
                wanted.as_str() == text
                    || name(text).is_some_and(|name| wanted.matches(name))
                    || name(wanted.as_str())
                        .is_some_and(|name| TopicFilter::new(text).is_ok_and(|filter| filter.matches(name)))
            })
    }

    fn output(&mut self, at: Duration, output: &Output, out: &mut impl Write) -> io::Result<()> {
        let event = match output {
            Output::Event(event) => event,
            Output::Ask(ask) if self.options.verbose => {
                let who = format!("asks about {:?}: {:?}", ask.client_id, ask.question);
                return self.broker(at, &ask.client_id, &who, out);
            }
            Output::Store(seq, group) if self.options.verbose => {
                let what = format!("stores group {}: {} operations", seq.0, group.ops.len());
                return self.broker(at, "", &what, out);
            }
            _ => return Ok(()),
        };
        match &**event {
            Event::Connected { conn, client_id, .. } => {
                let Some(mut link) = self.links.remove(conn) else { return Ok(()) };
                self.name(&mut link, client_id, out)?;
                self.links.insert(*conn, link);
                Ok(())
            }
            Event::Malformed { conn, error } => {
                self.tell(at, *conn, &format_args!("breaks a rule: {error}"), out)
            }
            Event::Refused { conn, reason, .. } => {
                self.tell(at, *conn, &format_args!("is refused: {reason}"), out)
            }
            // It said so itself.
            Event::Disconnected { reason: ReasonCode::Success, .. } => Ok(()),
            Event::Disconnected { conn, reason, .. } => {
                self.tell(at, *conn, &format_args!("is disconnected: {reason}"), out)
            }
            Event::Dropped { client_id, reason, count } => {
                let text = format!("drops messages for {client_id:?}: {reason:?}, {count} so far");
                self.broker(at, client_id, &text, out)
            }
            Event::SessionEnded { client_id, lost } => {
                let text = format!("ends the session of {client_id:?}, {lost} messages lost");
                self.broker(at, client_id, &text, out)
            }
            Event::Internal { client_id, what } => {
                self.broker(at, client_id, &format!("internal error with {client_id:?}: {what}"), out)
            }
            event if self.options.verbose => self.broker(at, "", &format!("{event:?}"), out),
            _ => Ok(()),
        }
    }

    fn verbose(&mut self, at: Duration, input: Option<&Input>, out: &mut impl Write) -> io::Result<()> {
        match input {
            None => self.broker(at, "", "is restored", out),
            Some(Input::Accept) => Ok(()),
            Some(input) => match input.connection() {
                Some(conn) => self.tell(at, conn, &format_args!("{input:?}"), out),
                None => self.broker(at, "", &format!("{input:?}"), out),
            },
        }
    }

    // ---- lines ----

    fn text(&self, packet: &PacketRef<'_>) -> String {
        format!("{packet:#.*}", self.options.payload)
    }

    fn name(&self, link: &mut Link, name: &str, out: &mut impl Write) -> io::Result<()> {
        if name.is_empty() || link.named {
            return Ok(());
        }
        link.name = name.to_owned();
        link.named = true;
        let held = std::mem::take(&mut link.held);
        if self.wants(name) {
            held.iter().try_for_each(|line| out.write_all(line.as_bytes()))?;
        }
        Ok(())
    }

    fn wants(&self, client: &str) -> bool {
        self.options.clients.is_empty() || self.options.clients.iter().any(|wanted| wanted == client)
    }

    /// Something about a connection that is no packet.
    fn tell(
        &mut self,
        at: Duration,
        conn: ConnectionId,
        text: &dyn fmt::Display,
        out: &mut impl Write,
    ) -> io::Result<()> {
        if !self.topics.is_empty() {
            return Ok(());
        }
        let Some(mut link) = self.links.remove(&conn) else { return Ok(()) };
        let said = self.say(at, &mut link, Way::Neither, text, out);
        self.links.insert(conn, link);
        said
    }

    /// Something about the broker, and perhaps a client.
    fn broker(&self, at: Duration, client: &str, text: &str, out: &mut impl Write) -> io::Result<()> {
        let wanted = self.options.clients.is_empty() || !client.is_empty() && self.wants(client);
        if wanted && self.topics.is_empty() {
            self.line(at, "the broker", Way::Neither, &text, out)?;
        }
        Ok(())
    }

    fn say(
        &self,
        at: Duration,
        link: &mut Link,
        way: Way,
        text: &dyn fmt::Display,
        out: &mut impl Write,
    ) -> io::Result<()> {
        if !link.named && !self.options.clients.is_empty() {
            if at >= self.options.from {
                link.held.push(line(at, &link.name, way, text));
            }
            return Ok(());
        }
        if self.wants(&link.name) { self.line(at, &link.name, way, text, out) } else { Ok(()) }
    }

    fn line(
        &self,
        at: Duration,
        who: &str,
        way: Way,
        text: &dyn fmt::Display,
        out: &mut impl Write,
    ) -> io::Result<()> {
        if at < self.options.from {
            return Ok(());
        }
        out.write_all(line(at, who, way, text).as_bytes())
    }
}

impl Link {
    fn new(number: u64) -> Self {
        Self {
            name: format!("#{number}"),
            named: false,
            version: Version::V5,
            input: Vec::new(),
            output: Vec::new(),
            input_aliases: HashMap::new(),
            output_aliases: HashMap::new(),
            input_open: HashSet::new(),
            output_open: HashSet::new(),
            held: Vec::new(),
        }
    }

    /// The topic that a packet's alias stands for.
    fn alias(&mut self, packet: &PacketRef<'_>, way: Way) -> Option<String> {
        let PacketRef::Publish(publish) = packet else { return None };
        let alias = publish.properties.topic_alias()?;
        let aliases = if way == Way::In { &mut self.input_aliases } else { &mut self.output_aliases };
        if publish.topic.is_empty() {
            return aliases.get(&alias).cloned();
        }
        aliases.insert(alias, publish.topic.to_owned());
        None
    }
}

/// One line. What peers wrote cannot steer a terminal.
fn line(at: Duration, who: &str, way: Way, text: &dyn fmt::Display) -> String {
    let mut line = String::new();
    // Writing to a string does not fail.
    let _ = write!(line, "{:>12.6}  {who:<20} {} {text}", at.as_secs_f64(), way.arrow());
    let mut clean = String::with_capacity(line.len() + 1);
    for c in line.chars() {
        if c.is_control() { clean.extend(c.escape_default()) } else { clean.push(c) }
    }
    clean.push('\n');
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_line() {
        let text = line(Duration::from_millis(1500), "c\u{1b}[2J", Way::In, &"a\nb");
        assert_eq!(text, "    1.500000  c\\u{1b}[2J                -> a\\nb\n");
    }
}

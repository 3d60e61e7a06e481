//! What one end of a session must do on the wire, whoever the other end is: the same rules for clients
//! and for the broker, derived from sections 3 and 4 of the standard.
//!
//! An end is judged by what its socket took and by what was handed to it. Where it may not have worked
//! on what it was handed (a paused or closing link), the judge is lenient.

use crate::wire::Seen;
use mqtt_proto::{PacketType, QoS};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// An exchange that this end began.
#[derive(Clone, Debug)]
struct Exchange {
    content: u64,
    /// Known only from the store of an end that crashed: what it is shows when it is sent.
    unseen: bool,
    qos: QoS,
    /// Place among all exchanges of the session.
    number: u64,
    /// The link on which PUBLISH was last sent.
    link: u64,
    /// PUBREC arrived.
    received: bool,
    /// PUBREL was sent.
    released: bool,
    /// PUBREC arrived and may not have been worked on.
    doubtful: bool,
}

/// One end of a session, over all of its links.
#[derive(Debug, Default)]
pub struct End {
    /// The name for messages.
    name: String,
    exchanges: BTreeMap<u16, Exchange>,
    /// Ended by packets that may not have been worked on.
    unsure: BTreeMap<u16, Exchange>,
    /// Ended by what was handed to it last.
    recent: BTreeMap<u16, Exchange>,
    recent_pubrecs: BTreeSet<u16>,
    begun: u64,
    link: u64,
    /// It may send again on a live link (3.x).
    resends: bool,
    /// The peer shares subscriptions.
    pub moves: bool,
    /// What the peer takes at once.
    window: u16,
    in_flight: BTreeSet<u16>,
    max_packet: u32,
    alias_maximum: u16,
    aliases: BTreeMap<u16, String>,
    /// The last exchange that was sent on this link.
    position: u64,
    /// PUBRECs of this link that PUBREL has not followed.
    pubrecs: VecDeque<u16>,
    /// PUBLISHes of this link that are not answered, by QoS.
    unanswered: [VecDeque<u16>; 2],
    pubrels: VecDeque<u16>,
    requests: BTreeSet<u16>,
    farewell: bool,
}

/// What the peer takes on a link.
#[derive(Clone, Copy, Debug)]
pub struct PeerLimits {
    /// QoS 1 and 2 messages at once.
    pub window: u16,
    /// Bytes of a packet.
    pub max_packet: u32,
    /// Highest topic alias.
    pub alias_maximum: u16,
}

impl End {
    /// An end without a session.
    #[must_use]
    pub fn new(name: String, resends: bool) -> Self {
        Self { name, resends, ..Self::default() }
    }

    /// This end crashed; its store has these exchanges, in this order: their identifiers, and whether
    /// they are released. Of what is not there, an identifier may be taken by another message.
    pub fn crashed(&mut self, stored: &[(u16, bool)]) {
        let mut old = std::mem::take(&mut self.exchanges);
        self.unsure.clear();
        self.begin_read();
        for (number, (id, released)) in (1..).zip(stored) {
            let exchange = old.remove(id).map_or(
                Exchange {
                    content: 0,
                    unseen: true,
                    qos: QoS::ExactlyOnce,
                    number,
                    link: 0,
                    received: *released,
                    released: *released,
                    doubtful: false,
                },
                |known| Exchange {
                    number,
                    // PUBREL left only if the stage was stored before.
                    received: known.released || *released,
                    released: known.released || *released,
                    doubtful: false,
                    ..known
                },
            );
            self.exchanges.insert(*id, exchange);
        }
        self.begun = stored.len() as u64 + 1;
    }

    /// A new link, with this end's session or with a new one.
    pub fn begin_link(&mut self, session_present: bool, resends: bool, limits: PeerLimits) {
        self.resends = resends;
        // What was not acknowledged may have gone to another member of a group, and its identifier with it.
        if self.moves {
            let moved = self.exchanges.extract_if(.., |_, exchange| exchange.qos == QoS::AtLeastOnce);
            self.unsure.extend(moved);
        }
        if !session_present {
            self.exchanges.clear();
            self.unsure.clear();
        }
        self.begin_read();
        self.link += 1;
        (self.window, self.max_packet) = (limits.window, limits.max_packet);
        self.alias_maximum = limits.alias_maximum;
        self.in_flight.clear();
        self.aliases.clear();
        self.position = 0;
        self.pubrecs.clear();
        self.unanswered = Default::default();
        self.pubrels.clear();
        self.requests.clear();
        self.farewell = false;
    }

    /// The topic of a PUBLISH, if its alias is known.
    #[must_use]
    pub fn topic_of(&self, seen: &Seen) -> Option<String> {
        if seen.topic.is_empty() { self.aliases.get(&seen.alias).cloned() } else { Some(seen.topic.clone()) }
    }

    /// This end was handed a packet. `sure` tells that it has worked on it, too.
    pub fn got(&mut self, seen: &Seen, sure: bool) {
        match seen.kind {
            PacketType::Publish if seen.qos > QoS::AtMostOnce => {
                self.unanswered[usize::from(seen.qos == QoS::ExactlyOnce)].push_back(seen.id);
            }
            PacketType::Pubrel => self.pubrels.push_back(seen.id),
            PacketType::Puback | PacketType::Pubcomp => self.ended(seen, sure),
            PacketType::Pubrec if seen.reason >= 0x80 && self.is_received(seen.id) => {}
            PacketType::Pubrec if seen.reason >= 0x80 => self.ended(seen, sure),
            PacketType::Pubrec => {
                self.pubrecs.push_back(seen.id);
                if let Some(exchange) = self.exchanges.get_mut(&seen.id).filter(|e| !e.received) {
                    (exchange.received, exchange.doubtful) = (true, !sure);
                    self.recent_pubrecs.insert(seen.id);
                }
            }
            PacketType::Suback | PacketType::Unsuback => {
                self.requests.remove(&seen.id);
            }
            _ => {}
        }
    }

    fn is_received(&self, id: u16) -> bool {
        self.exchanges.get(&id).is_none_or(|exchange| exchange.received)
    }

    fn ended(&mut self, seen: &Seen, sure: bool) {
        let fits = self.exchanges.get(&seen.id).is_some_and(|exchange| match seen.kind {
            PacketType::Puback => exchange.qos == QoS::AtLeastOnce || exchange.unseen,
            PacketType::Pubcomp => exchange.received,
            _ => exchange.qos == QoS::ExactlyOnce,
        });
        if !fits {
            return;
        }
        self.in_flight.remove(&seen.id);
        if let Some(exchange) = self.exchanges.remove(&seen.id) {
            if sure {
                self.recent.insert(seen.id, exchange);
            } else {
                self.unsure.insert(seen.id, exchange);
            }
        }
    }

    /// More is handed to this end: what was handed to it before was worked on.
    pub fn begin_read(&mut self) {
        self.recent.clear();
        self.recent_pubrecs.clear();
    }

    /// The link ended while this end worked on what was handed to it: it may have left the rest.
    pub fn doubt(&mut self) {
        self.unsure.append(&mut self.recent);
        for id in std::mem::take(&mut self.recent_pubrecs) {
            if let Some(exchange) = self.exchanges.get_mut(&id).filter(|exchange| !exchange.released) {
                exchange.doubtful = true;
            }
        }
    }

    /// This end's socket took a packet.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn sent(&mut self, seen: &Seen) -> Result<(), String> {
        self.judge(seen).map_err(|what| format!("{}: {what}", self.name))
    }

    fn judge(&mut self, seen: &Seen) -> Result<(), String> {
        if self.farewell {
            return Err(format!("{} after DISCONNECT [MQTT-3.14.4-1]", seen.kind));
        }
        if seen.size > self.max_packet as usize {
            return Err(format!("{} of {} bytes, limit {}", seen.kind, seen.size, self.max_packet));
        }
        match seen.kind {
            PacketType::Publish => {
                self.alias(seen)?;
                if seen.qos > QoS::AtMostOnce { self.publish(seen) } else { Self::once(seen) }
            }
            PacketType::Pubrel => self.pubrel(seen.id, seen.reason),
            PacketType::Puback => self.answer(seen, 0),
            PacketType::Pubrec => self.answer(seen, 1),
            PacketType::Pubcomp => match self.pubrels.pop_front() {
                Some(id) if id == seen.id => Ok(()),
                other => Err(format!("PUBCOMP {} where {other:?} was due", seen.id)),
            },
            PacketType::Subscribe | PacketType::Unsubscribe => {
                if !self.requests.insert(seen.id) || self.exchanges.contains_key(&seen.id) {
                    return Err(format!("identifier {} is bound twice [MQTT-2.2.1-3]", seen.id));
                }
                Ok(())
            }
            PacketType::Disconnect => {
                self.farewell = true;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn once(seen: &Seen) -> Result<(), String> {
        if seen.dup { Err("DUP with QoS 0 [MQTT-3.3.1-2]".into()) } else { Ok(()) }
    }

    fn alias(&mut self, seen: &Seen) -> Result<(), String> {
        if seen.alias > self.alias_maximum {
            return Err(format!("alias {} of {} [MQTT-3.3.2-9]", seen.alias, self.alias_maximum));
        }
        if seen.topic.is_empty() && !self.aliases.contains_key(&seen.alias) {
            return Err(format!("alias {} was not set on this link", seen.alias));
        }
        if seen.alias > 0 && !seen.topic.is_empty() {
            self.aliases.insert(seen.alias, seen.topic.clone());
        }
        Ok(())
    }

    fn publish(&mut self, seen: &Seen) -> Result<(), String> {
        let id = seen.id;
        if self.requests.contains(&id) {
            return Err(format!("identifier {id} of PUBLISH belongs to a request [MQTT-2.2.1-3]"));
        }
        if seen.dup
            && !self.exchanges.contains_key(&id)
            && let Some(exchange) = self.unsure.remove(&id)
        {
            self.exchanges.insert(id, exchange);
        }
        match self.exchanges.get_mut(&id) {
            Some(exchange) => {
                if std::mem::take(&mut exchange.unseen) {
                    (exchange.content, exchange.qos) = (seen.content, seen.qos);
                }
                if exchange.content != seen.content || exchange.qos != seen.qos {
                    return Err(format!("identifier {id} is bound to two messages [MQTT-2.2.1-3]"));
                }
                if exchange.doubtful {
                    (exchange.received, exchange.doubtful) = (false, false);
                }
                if exchange.released || exchange.received {
                    return Err(format!("PUBLISH {id} again after PUBREC [MQTT-4.3.3-6]"));
                }
                if !seen.dup {
                    return Err(format!("PUBLISH {id} again without DUP [MQTT-3.3.1-1]"));
                }
                if exchange.link == self.link && !self.resends {
                    return Err(format!("PUBLISH {id} twice on one link [MQTT-4.4.0-1]"));
                }
                if exchange.link != self.link && exchange.number < self.position {
                    return Err(format!("PUBLISH {id} is sent again out of order [MQTT-4.6.0-1]"));
                }
                exchange.link = self.link;
                self.position = if self.resends { 0 } else { exchange.number };
            }
            None => {
                if seen.dup {
                    return Err(format!("PUBLISH {id} with DUP for the first time [MQTT-4.3.2-2]"));
                }
                self.begun += 1;
                let (content, qos) = (seen.content, seen.qos);
                let (number, link) = (self.begun, self.link);
                self.unsure.remove(&id);
                self.position = if self.resends { 0 } else { number };
                let exchange = Exchange {
                    content,
                    unseen: false,
                    qos,
                    number,
                    link,
                    received: false,
                    released: false,
                    doubtful: false,
                };
                self.exchanges.insert(id, exchange);
            }
        }
        self.in_flight.insert(id);
        if self.in_flight.len() > usize::from(self.window) {
            let count = self.in_flight.len();
            return Err(format!("{count} in flight, the peer takes {} [MQTT-4.9.0-2]", self.window));
        }
        Ok(())
    }

    fn pubrel(&mut self, id: u16, reason: u8) -> Result<(), String> {
        let fresh = self.pubrecs.contains(&id);
        if fresh {
            // [MQTT-4.6.0-4]; a PUBREC that came twice is answered twice or once.
            while let Some(first) = self.pubrecs.front().copied() {
                if first == id {
                    self.pubrecs.pop_front();
                    break;
                }
                let twice = self.exchanges.get(&first).is_none_or(|exchange| exchange.released);
                if !twice && !self.resends {
                    return Err(format!("PUBREL {id} before {first}, against the order of PUBREC"));
                }
                self.pubrecs.pop_front();
            }
        }
        match self.exchanges.get_mut(&id) {
            Some(exchange) if exchange.received || fresh => {
                exchange.received = true;
                (exchange.released, exchange.doubtful) = (true, false);
                Ok(())
            }
            Some(_) => Err(format!("PUBREL {id} without PUBREC [MQTT-4.3.3-4]")),
            // Answered so that the peer can forget it, or sent again because PUBCOMP was not seen.
            None if fresh || reason == 0x92 || self.unsure.contains_key(&id) => Ok(()),
            None => Err(format!("PUBREL {id} for nothing")),
        }
    }

    fn answer(&mut self, seen: &Seen, which: usize) -> Result<(), String> {
        match self.unanswered[which].pop_front() {
            Some(id) if id == seen.id => Ok(()),
            other => Err(format!("{} {} where {other:?} was due [MQTT-4.6.0-2]", seen.kind, seen.id)),
        }
    }

    /// Exchanges that are not finished.
    #[must_use]
    pub fn open(&self) -> usize {
        self.exchanges.len()
    }
}

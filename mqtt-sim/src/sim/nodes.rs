//! The clients' side of the world.

use super::{Event, Sim};
use crate::checks::PeerLimits;
use crate::options::Kind;
use crate::wire::Seen;
use mqtt_proto::{PacketType, QoS, Version};
use mqtt_session::StoreSeq;
use mqtt_session::client::{CleanStart, DisconnectOptions, Event as Told, LinkDown, Outcome, Output};

impl Sim {
    /// A node does something, and its link may suffer.
    pub(super) fn act(&mut self, number: usize) {
        self.later(self.options.pause, Event::Act(number));
        if self.calm {
            self.act_calmly(number);
            return;
        }
        if let Some(link) = self.nodes[number].link {
            self.disturb(link);
        }
        if self.nodes[number].client.is_none() {
            self.act_raw(number);
            return;
        }
        let crashes = self.nodes[number].can_crash() && self.random.chance(self.options.client_crashes);
        if crashes {
            self.crash_node(number);
            return;
        }
        let now = self.given_time();
        let Self { nodes, random, options, .. } = self;
        if let Some(done) = nodes[number].act(number, now, options, random) {
            let twin = self.nodes[number].options.kind == Kind::Twin;
            self.oracle.published(done.id, done.topic, done.qos, done.retain, done.expiry, twin);
            self.trace.line(self.now, || {
                format!("n{number} publishes {} to {} at QoS {}", done.id, done.topic, done.qos.as_u8())
            });
        }
    }

    fn act_raw(&mut self, number: usize) {
        match self.nodes[number].link {
            None => {
                self.nodes[number].dial += 1;
                let dial = self.nodes[number].dial;
                self.later(1_000, Event::Dialled { node: number, dial, opened: true });
            }
            Some(link) if self.random.chance(4) => self.node_closes(link),
            Some(link) => {
                let Self { nodes, random, wires, options, now, .. } = self;
                let bytes = nodes[number].raw_bytes(random);
                wires[link].link.up.send(*now, &bytes, &options.network, random);
                self.arm(link, true);
            }
        }
    }

    /// Faults are off: everybody connects and acknowledges, of twins the first only.
    fn act_calmly(&mut self, number: usize) {
        let now = self.time();
        let first = self.nodes.iter().position(|node| node.options.kind == Kind::Twin);
        let node = &mut self.nodes[number];
        let Some(client) = &mut node.client else {
            if let Some(link) = node.link {
                self.node_closes(link);
            }
            return;
        };
        if node.options.kind == Kind::Twin && first != Some(number) {
            if !client.is_stopped() {
                let drain = std::time::Duration::ZERO;
                client.disconnect(now, DisconnectOptions { drain, ..Default::default() });
            }
            return;
        }
        client.connect(now);
        node.acknowledge_all(now);
    }

    pub(super) fn node_timeout(&mut self, number: usize) {
        let now = self.time();
        let Some(client) = &mut self.nodes[number].client else { return };
        client.handle_timeout(now);
        if client.poll_timeout().is_some_and(|due| due < now) {
            self.fail(format!("the timeout of n{number} is in the past after handle_timeout"));
        }
    }

    pub(super) fn dialled(&mut self, number: usize, dial: u64, opened: bool) {
        if self.nodes[number].dial != dial || self.nodes[number].link.is_some() {
            return;
        }
        let now = self.given_time();
        if !opened || self.down {
            self.oracle.counts.faults += 1;
            if let Some(client) = &mut self.nodes[number].client {
                client.handle_link_down(now, LinkDown::DialFailed);
            }
            return;
        }
        let link = self.accept(number);
        let node = &mut self.nodes[number];
        node.link = Some(link);
        node.greeted = false;
        match &mut node.client {
            Some(client) => client.handle_link_up(now),
            None => {
                node.inbox.clear();
                let bytes = node.raw_connect();
                let up = &mut self.wires[link].link.up;
                up.send(self.now, &bytes, &self.options.network, &mut self.random);
                self.arm(link, true);
            }
        }
    }

    /// Obeys a node's machine. Whether it wanted anything.
    pub(super) fn obey_node(&mut self, number: usize) -> bool {
        let mut busy = false;
        while let Some(output) =
            self.nodes[number].client.as_mut().and_then(mqtt_session::Client::poll_output)
        {
            busy = true;
            match output {
                Output::Dial { .. } => {
                    if self.nodes[number].link.is_some() {
                        self.fail(format!("n{number} dials with a link open"));
                    }
                    self.nodes[number].dial += 1;
                    let dial = self.nodes[number].dial;
                    let opened = !self.random.chance(self.options.dial_failures);
                    let wait = self.options.network.latency_max;
                    self.later(wait, Event::Dialled { node: number, dial, opened });
                }
                Output::Flush => self.flush_node(number),
                Output::HangUp => {
                    self.flush_node(number);
                    self.nodes[number].dial += 1;
                    match self.nodes[number].link {
                        Some(link) => self.node_closes(link),
                        None => {
                            let now = self.given_time();
                            if let Some(client) = &mut self.nodes[number].client {
                                client.handle_link_down(now, LinkDown::DialFailed);
                            }
                        }
                    }
                }
                Output::Store(seq, group) => {
                    self.hash.add_text(&(seq, &group));
                    let result = self.nodes[number].store.take(seq, group);
                    self.check(result.map_err(|what| format!("n{number}: {what}")));
                    let life = self.nodes[number].life;
                    self.later(self.options.store_delay, Event::NodeStored { node: number, life, seq });
                }
                Output::Event(event) => {
                    self.hash.add_text(&event);
                    self.node_told(number, event);
                }
                other => self.fail(format!("n{number} wants {other:?}")),
            }
        }
        self.nodes[number].settle_marks();
        busy
    }

    fn node_told(&mut self, number: usize, event: Told) {
        match event {
            Told::Message(received) => {
                let (message, delivery) = (received.message, received.delivery);
                self.trace.line(self.now, || {
                    let payload = String::from_utf8_lossy(&message.payload[..message.payload.len().min(12)])
                        .into_owned();
                    format!("n{number} gets {} {payload} q{}", message.topic, message.qos.as_u8())
                });
                let node = &mut self.nodes[number];
                node.took(message.qos, delivery, crate::wire::MessageId::of(&message.payload));
                let name = node.name().to_owned();
                // What still comes from a link that was taken over may belong to the session before.
                let current = self.ends.get(&name).map(|(_, link)| *link);
                let judged = node.options.kind == Kind::Machine && !node.lost_track;
                if judged && current != node.link {
                    self.oracle.delivered_late(&name, &message.payload);
                } else if judged {
                    let flags = (received.dup, message.retain);
                    let numbers: Vec<u32> =
                        message.properties.as_properties().subscription_identifiers().collect();
                    let numbers = node.options.numbers.then_some(numbers.as_slice());
                    let (topic, payload, qos) = (&message.topic, &message.payload, message.qos);
                    let result = self.oracle.delivered(&name, topic, payload, qos, flags, numbers);
                    self.check(result);
                }
            }
            Told::Done { token, outcome } => {
                let Some(meaning) = self.nodes[number].tokens.remove(&token) else {
                    return self.fail(format!("n{number}: token {token:?} is done twice"));
                };
                let Some(id) = meaning else { return };
                self.trace.line(self.now, || format!("n{number}: {id} is {outcome:?}"));
                let safe = matches!(outcome, Outcome::Acked { reason, .. } if !reason.is_error());
                let judged = self.nodes[number].options.kind == Kind::Machine;
                self.nodes[number].names.insert(token.as_u64(), (token, id));
                let result = self.oracle.done(id, safe && judged);
                self.check(result);
            }
            Told::Disconnected(gone) => {
                self.trace.line(self.now, || format!("n{number}: disconnected: {}", gone.cause));
                let cause = gone.cause.to_string();
                // The broker keeps to the standard, so no client may say otherwise.
                let judged = self.nodes[number].options.kind == Kind::Machine;
                if judged && (cause.contains("broke a rule") || cause.contains("bad packet")) {
                    self.fail(format!("n{number}: {cause}"));
                }
            }
            Told::Connected(connected) => {
                self.trace.line(self.now, || {
                    format!("n{number}: connected, session present {}", connected.session_present)
                });
            }
            _ => {}
        }
    }

    /// Carries what a client has to say, as far as its socket takes it.
    pub(super) fn flush_node(&mut self, number: usize) {
        loop {
            let now = self.given_time();
            let Some(link) = self.nodes[number].link else { return };
            let Some(client) = &mut self.nodes[number].client else { return };
            let wire = &mut self.wires[link];
            let room = wire.link.up.room();
            let mut outbox = client.outbox(now, room.min(self.options.outbox));
            let mut slices = [&[][..]; 2_048];
            let used = outbox.fill_slices(&mut slices);
            let bytes = slices[..used].concat();
            let taken = bytes.len().min(room);
            outbox.consume(taken);
            let new = bytes.get(wire.heard_node..).unwrap_or_default();
            wire.heard_node = wire.heard_node.max(bytes.len()) - taken;
            self.hash.add(new);
            let tell = self.trace.is_on();
            let heard = wire.taps[0].hear(new, tell);
            wire.link.up.send(self.now, &bytes[..taken], &self.options.network, &mut self.random);
            self.arm(link, true);
            match heard {
                Err(what) => self.fail(format!("n{number} sent no packet: {what}")),
                Ok(heard) => {
                    for seen in heard {
                        let result = self.node_sent(number, &seen);
                        self.check(result);
                    }
                }
            }
            if taken == 0 || taken < bytes.len() {
                return;
            }
        }
    }

    fn node_sent(&mut self, number: usize, seen: &Seen) -> Result<(), String> {
        let node = &mut self.nodes[number];
        if !node.greeted {
            return match seen.kind {
                PacketType::Connect | PacketType::Auth | PacketType::Disconnect => Ok(()),
                kind => Err(format!("n{number} sends {kind} before CONNACK")),
            };
        }
        node.end.sent(seen)?;
        let name = node.name().to_owned();
        let on = |what: String| format!("n{number}: {what}");
        match seen.kind {
            PacketType::Publish if seen.qos > QoS::AtMostOnce => {
                node.store.sends(&name, seen.id, false).map_err(on)
            }
            PacketType::Pubrel => node.store.sends(&name, seen.id, true).map_err(on),
            PacketType::Pubrec if seen.reason < 0x80 => {
                node.store.acknowledges(&name, seen.id, None).map_err(on)
            }
            _ => Ok(()),
        }
    }

    /// A piece arrives from the broker.
    pub(super) fn arrive_at_node(&mut self, link: usize) {
        let wire = &mut self.wires[link];
        if let Some(piece) = wire.link.down.arrived(self.now) {
            if wire.link.node_open {
                if piece.bytes.is_empty() {
                    self.node_lost(link, false);
                } else {
                    self.node_reads(link, &piece.bytes);
                }
            }
            self.flush_broker(link);
        }
        self.arm(link, false);
    }

    fn node_reads(&mut self, link: usize, bytes: &[u8]) {
        let tell = self.trace.is_on();
        let wire = &mut self.wires[link];
        let number = wire.link.node;
        // What is wrong with it was said when it was sent.
        let heard = wire.taps[3].hear(bytes, tell).unwrap_or_default();
        for seen in heard {
            self.trace.line(self.now, || format!("n{number} <- {}", seen.text));
            self.node_got(number, &seen);
        }
        let now = self.given_time();
        if let Some(client) = &mut self.nodes[number].client {
            client.handle_read(now, bytes);
        }
    }

    fn node_got(&mut self, number: usize, seen: &Seen) {
        let node = &mut self.nodes[number];
        if node.client.is_none() {
            node.raw_heard(seen);
            return;
        }
        if seen.kind != PacketType::Connack {
            node.end.got(seen, true);
            return;
        }
        if seen.reason != 0 {
            return;
        }
        node.greeted = true;
        let config = &node.options.config;
        // A 3.1 client is not told, and counts on what it asked for.
        let present = match config.version {
            Version::V31 => config.clean_start != CleanStart::Always,
            _ => seen.flag,
        };
        if present && node.unaware && !node.lost_track {
            node.lost_track = true;
            self.oracle.unjudge(&node.options.config.client_id);
        }
        node.unaware = false;
        let limits = PeerLimits {
            window: seen.receive_maximum.min(config.max_in_flight),
            max_packet: seen.max_packet,
            alias_maximum: seen.alias_maximum,
        };
        let resends = config.resend_interval.is_some();
        node.end.begin_link(present, resends, limits);
        if !present {
            node.new_session = Some(None);
            let name = node.name().to_owned();
            node.store.forget(&name);
        }
    }

    /// A node closes its link.
    pub(super) fn node_closes(&mut self, link: usize) {
        let wire = &mut self.wires[link];
        wire.link.up.end(self.now, &self.options.network, &mut self.random);
        self.arm(link, true);
        self.node_lost(link, false);
    }

    /// A node's link is gone.
    pub(super) fn node_lost(&mut self, link: usize, broken: bool) {
        let wire = &mut self.wires[link];
        if !wire.link.node_open {
            return;
        }
        wire.link.node_open = false;
        let number = wire.link.node;
        wire.link.up.end(self.now, &self.options.network, &mut self.random);
        self.arm(link, true);
        let now = self.given_time();
        self.nodes[number].link = None;
        if let Some(client) = &mut self.nodes[number].client {
            client.handle_link_down(now, if broken { LinkDown::Failed } else { LinkDown::Closed });
        }
    }

    pub(super) fn node_stored(&mut self, number: usize, seq: StoreSeq) {
        let now = self.given_time();
        let failed = self.random.chance(self.options.store_failures);
        let node = &mut self.nodes[number];
        let Some(client) = &mut node.client else { return };
        if failed {
            if node.store.fail().is_some() {
                client.handle_store_failed(now);
            }
        } else if node.store.confirm(seq) {
            client.handle_stored(now, seq);
        }
    }
}

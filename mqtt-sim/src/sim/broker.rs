//! The broker's side of the world.

use super::{Event, Letter, Sim, WATCHED};
use crate::checks::{End, PeerLimits};
use crate::network::Link;
use crate::wire::Seen;
use mqtt_proto::{PacketType, QoS, ReasonCode, SubscriptionOptions, Version};
use mqtt_session::broker::{
    Answer, Ask, Closed, ConnectionId, Event as Told, Output, Peer, Question, ReadStatus,
};
use mqtt_session::store::HandOver;
use mqtt_session::{Care, ShardId, ShardMessage, StoreGroup, StoreOp, StoreSeq, Timestamp};
use std::collections::VecDeque;

impl Sim {
    /// A connection reaches the broker.
    pub(super) fn accept(&mut self, node: usize) -> usize {
        let now = self.given_broker_time();
        let shard = self.random.below(self.brokers.len());
        let conn = self.brokers[shard].handle_accept(now);
        self.brokers[shard].handle_identified(now, conn, Peer::default());
        let link = self.new_wire(node, shard, conn);
        self.trace.line(self.now, || format!("link {link} of n{node} opens"));
        link
    }

    /// Something reaches another shard.
    pub(super) fn mail_arrives(&mut self, from: usize, to: usize) {
        let Some(letter) = self.mail.get_mut(&(from, to)).and_then(VecDeque::pop_front) else { return };
        let now = self.given_broker_time();
        match letter {
            Letter::Said(message) => {
                self.trace
                    .line(self.now, || format!("shard {to} hears from {from}: {}", brief_message(&message)));
                match &message {
                    ShardMessage::GroupSlots { filter, more } => {
                        *self.slots.entry((to, from, filter.clone())).or_default() += more;
                    }
                    ShardMessage::GroupClosed { filter } | ShardMessage::GroupLeave { filter } => {
                        self.slots.remove(&(to, from, filter.clone()));
                    }
                    _ => {}
                }
                self.brokers[to].handle_shard(now, ShardId(u16::try_from(from).unwrap_or_default()), message);
            }
            Letter::Moved(moved, link) => {
                let conn = self.brokers[to].handle_moved(now, moved);
                self.by_conn.insert((to, conn), link);
                let link_of = &mut self.wires[link].link;
                (link_of.conn, link_of.shard, link_of.moving) = (conn, to, false);
                self.trace.line(self.now, || format!("link {link} is at its home, shard {to}"));
                if !self.wires[link].link.broker_open {
                    self.brokers[to].handle_close(now, conn, Closed::Eof);
                }
            }
        }
    }

    fn post(&mut self, from: usize, to: ShardId, letter: Letter) {
        let to = usize::from(to.0);
        self.mail.entry((from, to)).or_default().push_back(letter);
        self.later(self.options.mail, Event::Mail { life: self.life, from, to });
    }

    /// What a shard says to another, but for what it says of the world's own subscriber.
    pub(super) fn say(&mut self, from: usize, to: ShardId, mut message: ShardMessage) {
        if let ShardMessage::Interest(changes) = &mut message {
            changes.retain(|(filter, _)| filter != WATCHED);
            if changes.is_empty() {
                return;
            }
        }
        self.hash.add_text(&message);
        let there = usize::from(to.0);
        match &message {
            ShardMessage::Deliver { .. } | ShardMessage::DeliverRun(_) => {
                let handed = self.handed.entry((from, there)).or_default();
                *handed += u64::from(message.deliveries());
                let handed = *handed;
                // One more of each publisher, and wills.
                let most = u64::from(self.options.broker.shard_credit.messages) + self.wires.len() as u64;
                if handed > most {
                    self.fail(format!("{from} handed {handed} messages to {there}, and {most} may be"));
                }
            }
            ShardMessage::Credit(credit) => {
                let handed = self.handed.entry((there, from)).or_default();
                *handed = handed.saturating_sub(u64::from(credit.messages));
            }
            // What is handed over as stored has used up its slot when that was noted.
            ShardMessage::GroupDeliver { filter, number: None, .. } => {
                self.use_slot(from, there, &filter.clone());
            }
            _ => {}
        }
        let is_handed_over = match &message {
            ShardMessage::Deliver { care, .. } => matches!(care, Care::HandedOver(_)),
            ShardMessage::GroupDeliver { number, .. } => number.is_some(),
            ShardMessage::GroupReturn { messages, .. } => messages.iter().any(|(_, number)| number.is_some()),
            // It was taken over.
            ShardMessage::Safe(_) => true,
            _ => false,
        };
        if is_handed_over && self.random.chance(self.options.handover_crashes) {
            self.crash_after.get_or_insert(self.random.pick(&[0, 1, 2, 5, 20]));
        }
        self.post(from, to, Letter::Said(message));
    }

    fn use_slot(&mut self, from: usize, to: usize, filter: &str) {
        let slots = self.slots.entry((from, to, filter.to_owned())).or_default();
        match slots.checked_sub(1) {
            Some(left) => *slots = left,
            None => self.fail(format!("{from} hands {to} more of {filter} than it has room for")),
        }
    }

    fn rehome(&mut self, from: usize, conn: ConnectionId, to: ShardId) {
        let now = self.given_broker_time();
        let Some(&link) = self.by_conn.get(&(from, conn)) else { return };
        let Some(moved) = self.brokers[from].take_moving(now, conn) else {
            return self.fail(format!("link {link} is to move and is not there"));
        };
        self.trace.line(self.now, || format!("link {link} goes home to shard {}", to.0));
        (self.wires[link].link.moving, self.wires[link].link.paused) = (true, true);
        self.post(from, to, Letter::Moved(moved, link));
    }

    pub(super) fn broker_timeout(&mut self, shard: usize) {
        let now = self.broker_time();
        self.brokers[shard].handle_timeout(now);
        if self.brokers[shard].poll_timeout().is_some_and(|due| due < now) {
            self.fail("the broker's timeout is in the past after handle_timeout".into());
        }
    }

    /// A piece arrives from a node.
    pub(super) fn arrive_at_broker(&mut self, link: usize) {
        let wire = &mut self.wires[link];
        if wire.link.paused && wire.link.broker_open {
            wire.link.up.disarm();
            return;
        }
        let piece = wire.link.up.arrived(self.now).filter(|_| wire.link.broker_open);
        if let Some(piece) = piece {
            if piece.bytes.is_empty() {
                self.broker_closes(link, Closed::Eof);
            } else {
                self.broker_reads(link, &piece.bytes);
            }
            let node = self.wires[link].link.node;
            if self.wires[link].link.node_open {
                self.flush_node(node);
            }
        }
        self.arm(link, true);
    }

    fn broker_reads(&mut self, link: usize, bytes: &[u8]) {
        let now = self.given_broker_time();
        let Link { conn, shard, .. } = self.wires[link].link;
        let paused = self.brokers[shard].handle_read(now, conn, bytes) == ReadStatus::Paused;
        let tell = self.trace.is_on();
        let wire = &mut self.wires[link];
        wire.link.paused = paused;
        // Raw peers send what is no packet; nothing behind it counts.
        let heard = wire.taps[1].hear(bytes, tell).unwrap_or_default();
        if let Some((end, _)) = wire.client.as_ref().and_then(|client| self.ends.get_mut(client)) {
            end.begin_read();
        }
        for seen in heard {
            self.trace.line(self.now, || format!("link {link} -> {}", seen.text));
            self.broker_got(link, seen, !paused);
        }
    }

    fn broker_got(&mut self, link: usize, seen: Seen, sure: bool) {
        let now = self.broker_time().as_micros();
        let wire = &mut self.wires[link];
        if seen.kind == PacketType::Connect {
            for tap in &mut wire.taps {
                tap.version = seen.version;
            }
            wire.connect.get_or_insert(seen);
            return;
        }
        let Some(client) = wire.client.clone() else {
            wire.early.push(seen);
            return;
        };
        if !wire.live {
            return;
        }
        let end = self.ends.get_mut(&client).filter(|(_, current)| *current == link);
        let Some((end, _)) = end else { return };
        end.got(&seen, sure);
        match seen.kind {
            PacketType::Publish => {
                self.oracle.arrived(now, &client, &seen);
                if seen.id != 0 {
                    wire.inbound.insert(seen.id, seen);
                }
            }
            PacketType::Subscribe | PacketType::Unsubscribe => {
                self.oracle.asked(now, &client, &seen);
                wire.requests.insert(seen.id, seen);
            }
            PacketType::Disconnect => self.oracle.goodbye(&client, &seen),
            _ => {}
        }
    }

    fn broker_closes(&mut self, link: usize, why: Closed) {
        let now = self.given_broker_time();
        self.flush_broker(link);
        let wire = &mut self.wires[link];
        if !wire.link.broker_open {
            return;
        }
        wire.link.broker_open = false;
        let Link { conn, shard, .. } = wire.link;
        wire.link.down.end(self.now, &self.options.network, &mut self.random);
        self.arm(link, false);
        self.trace.line(self.now, || format!("link {link} closes at the broker: {why:?}"));
        self.brokers[shard].handle_close(now, conn, why);
    }

    pub(super) fn broker_lost(&mut self, link: usize) {
        if self.wires[link].link.broker_open {
            self.broker_closes(link, Closed::Error);
        }
    }

    /// Obeys the broker. Whether it wanted anything.
    pub(super) fn obey_broker(&mut self) -> bool {
        let mut busy = false;
        let next = |sim: &mut Self| {
            let shards = sim.brokers.iter_mut().enumerate();
            shards.filter(|_| !sim.down).find_map(|(shard, broker)| Some((shard, broker.poll_output()?)))
        };
        while let Some((shard, output)) = next(self) {
            busy = true;
            if self.is_time_to_crash() {
                self.crash_broker(Some((shard, output)));
                return true;
            }
            match output {
                Output::Flush(conn) => {
                    if let Some(&link) = self.by_conn.get(&(shard, conn)) {
                        self.flush_broker(link);
                    }
                }
                Output::Resume(conn) => {
                    if let Some(&link) = self.by_conn.get(&(shard, conn))
                        && self.wires[link].link.broker_open
                    {
                        self.wires[link].link.paused = false;
                        self.broker_reads(link, &[]);
                        self.arm(link, true);
                    }
                }
                Output::Hangup { conn, after_flush } => self.hang_up(shard, conn, after_flush),
                Output::Shard { to, message } => self.say(shard, to, *message),
                Output::Rehome { conn, to } => self.rehome(shard, conn, to),
                Output::Ask(ask) => {
                    self.hash.add_text(&ask.question);
                    self.later(self.options.answer_delay, Event::Answer { life: self.life, shard, ask });
                }
                Output::Store(seq, group) => {
                    self.broker_stores(shard, seq, group);
                }
                Output::Event(event) => {
                    self.hash.add_text(&event);
                    self.told(shard, *event);
                }
            }
        }
        for client in std::mem::take(&mut self.changed) {
            self.oracle.changed(&client, self.store.last());
        }
        if !self.down && self.crash_after.is_some() {
            self.crash_broker(None);
            return true;
        }
        busy
    }

    /// One store has the groups of all shards, in the order in which they come.
    pub(super) fn broker_stores(&mut self, shard: usize, seq: StoreSeq, group: StoreGroup) {
        let next = self.store.last() + 1;
        let is_new = !self.numbers.contains_key(&(shard, seq.0));
        for op in group.ops.iter().filter(|_| is_new) {
            if let StoreOp::PutHandOver(record) = op
                && let HandOver::Group(filter) = &record.purpose
            {
                self.use_slot(shard, usize::from(record.to.0), filter);
            }
        }
        let number = *self.numbers.entry((shard, seq.0)).or_insert(next);
        self.places.insert(number, (shard, seq.0));
        let seq = StoreSeq(number);
        self.later(self.options.store_delay, Event::Stored { life: self.life, seq });
        self.hash.add_text(&(seq, &group));
        self.trace.line(self.now, || format!("store {}: {:?}", seq.0, brief_ops(&group)));
        self.oracle.wills_stored(seq.0, &group);
        let result = self.store.take(seq, group);
        self.check(result);
    }

    fn hang_up(&mut self, shard: usize, conn: ConnectionId, after_flush: bool) {
        let Some(&link) = self.by_conn.get(&(shard, conn)) else { return };
        self.wires[link].link.hanging_up = true;
        self.flush_broker(link);
        if !after_flush {
            self.broker_closes(link, Closed::Hangup);
        }
    }

    /// Carries what the broker has for a link, as far as its socket takes it.
    pub(super) fn flush_broker(&mut self, link: usize) {
        loop {
            let now = self.given_broker_time();
            let wire = &mut self.wires[link];
            if !wire.link.broker_open || wire.link.moving {
                return;
            }
            let room = wire.link.down.room();
            let outbox =
                self.brokers[wire.link.shard].outbox(now, wire.link.conn, room.min(self.options.outbox));
            let mut slices = [&[][..]; 64];
            let used = outbox.fill_slices(&mut slices);
            let bytes = slices[..used].concat();
            let has = outbox.len();
            let taken = bytes.len().min(room);
            outbox.consume(taken);
            if bytes.len() != has {
                return self.fail("an outbox gave other bytes than it has".into());
            }
            let most = room.min(self.options.outbox).max(wire.heard_broker) + self.options.payload + 1_000;
            let answers = self.options.broker.max_outbox_bytes;
            if bytes.len() > most.max(answers) {
                self.fail(format!("an outbox of {} bytes, {most} were asked for", bytes.len()));
            }
            let wire = &mut self.wires[link];
            let new = bytes.get(wire.heard_broker..).unwrap_or_default();
            wire.heard_broker = wire.heard_broker.max(bytes.len()) - taken;
            self.hash.add(new);
            let tell = self.trace.is_on();
            let heard = wire.taps[2].hear(new, tell);
            wire.link.down.send(self.now, &bytes[..taken], &self.options.network, &mut self.random);
            self.arm(link, false);
            match heard {
                Err(what) => self.fail(format!("the broker sent no packet: {what}")),
                Ok(heard) => {
                    for seen in heard {
                        self.trace.line(self.now, || format!("link {link} <- {}", seen.text));
                        let result = self.broker_sent(link, &seen);
                        self.check(result);
                    }
                }
            }
            if taken == 0 || taken < bytes.len() {
                if bytes.is_empty() && self.wires[link].link.hanging_up {
                    self.wires[link].link.hanging_up = false;
                    if self.wires[link].owes_farewell && !self.wires[link].farewell {
                        self.fail(format!("link {link} was taken over and not told [MQTT-3.1.4-3]"));
                    }
                    self.broker_closes(link, Closed::Hangup);
                }
                return;
            }
        }
    }

    fn broker_sent(&mut self, link: usize, seen: &Seen) -> Result<(), String> {
        let wire = &mut self.wires[link];
        if wire.farewell {
            return Err(format!("{} after the farewell on link {link} [MQTT-3.14.4-1]", seen.kind));
        }
        if !wire.greeted {
            match seen.kind {
                PacketType::Auth => return Ok(()),
                PacketType::Connack => {}
                kind => return Err(format!("{kind} before CONNACK on link {link} [MQTT-3.2.0-1]")),
            }
            wire.greeted = true;
            if seen.reason != 0 {
                wire.farewell = true;
                return Ok(());
            }
            let version = wire.connect.as_ref().map_or(Version::V31, |connect| connect.version);
            if version != Version::V31 && seen.flag != wire.present {
                return Err(format!("CONNACK on link {link} tells session present {}", seen.flag));
            }
        }
        wire.farewell |= seen.kind == PacketType::Disconnect;
        let Some(client) = wire.client.clone() else { return Err("CONNACK without a session".into()) };
        let Some((end, current)) = self.ends.get_mut(&client) else { return Ok(()) };
        if *current != link {
            // What a link that was taken over has left.
            return if seen.kind == PacketType::Disconnect {
                Ok(())
            } else {
                Err(format!("{} on link {link}, which was taken over", seen.kind))
            };
        }
        end.sent(seen)?;
        match seen.kind {
            PacketType::Publish => {
                if seen.qos == QoS::ExactlyOnce {
                    self.store.sends(&client, seen.id, false)?;
                }
                if self.wires[link].taps[2].version.is_v5() && !seen.retain {
                    self.oracle.forwarded(self.broker_time().as_micros(), seen)?;
                }
            }
            PacketType::Pubrel => self.store.sends(&client, seen.id, true)?,
            PacketType::Puback | PacketType::Pubrec if seen.reason < 0x80 => {
                let message = self.wires[link].inbound.get(&seen.id).and_then(|publish| publish.message);
                // Sent twice on one link, it may be the earlier one that is acknowledged.
                let node = self.wires[link].link.node;
                let again = self.nodes[node].options.config.resend_interval.is_some();
                // Of QoS 2 it is the identifier that counts: it is stored together with the message.
                let counts = !again && seen.kind == PacketType::Puback;
                self.store.acknowledges(&client, seen.id, message.filter(|_| counts))?;
                if let Some(id) = message {
                    self.oracle.acknowledged(self.broker_time().as_micros(), id);
                }
            }
            PacketType::Suback => {
                let request = self.wires[link].requests.remove(&seen.id);
                // Raw peers use an identifier twice.
                let Some(request) = request else { return Ok(()) };
                for ((filter, _), code) in request.filters.iter().zip(&seen.codes) {
                    if *code < 0x80 {
                        self.store.grants(&client, filter)?;
                    }
                }
                self.oracle.granted(self.broker_time().as_micros(), &client, &request, &seen.codes);
            }
            PacketType::Unsuback => {
                let request = self.wires[link].requests.remove(&seen.id);
                let Some(request) = request else { return Ok(()) };
                self.oracle.ungranted(&client, &request);
            }
            _ => {}
        }
        Ok(())
    }

    /// The shard where a message was published, by what it says of itself.
    fn origin_of(&self, topic: &str, payload: &[u8]) -> Option<usize> {
        let will = topic.strip_prefix("will/n").and_then(|n| n.parse::<usize>().ok());
        let node = will.or_else(|| Some(crate::wire::MessageId::of(payload)?.node))?;
        let home = self.brokers.first()?.home_of(self.nodes.get(node)?.name());
        Some(usize::from(home.0))
    }

    pub(super) fn told(&mut self, shard: usize, event: Told) {
        match event {
            // On the other shards it is no news.
            Told::Message { message, .. }
                if self.origin_of(&message.topic, &message.payload).is_some_and(|origin| origin != shard) => {
            }
            Told::Message { message, .. } => {
                self.trace.line(self.now, || {
                    let payload = String::from_utf8_lossy(&message.payload[..message.payload.len().min(12)])
                        .into_owned();
                    format!("routed {} {payload}", message.topic)
                });
                let result = self.oracle.routed(
                    self.broker_time().as_micros(),
                    &message.topic,
                    &message.payload,
                    message.retain,
                    self.store.last(),
                );
                self.check(result);
            }
            Told::Connected { conn, client_id, session_present, .. } => {
                self.client_connected(shard, conn, client_id, session_present);
            }
            Told::Disconnected { conn, client_id: Some(client), reason, .. } => {
                let Some(&link) = self.by_conn.get(&(shard, conn)) else { return };
                self.wires[link].live = false;
                if let Some((end, _)) = self.ends.get_mut(&client).filter(|(_, current)| *current == link) {
                    end.doubt();
                }
                self.changed.push(client.clone());
                let by_client = reason == ReasonCode::Success;
                let taken_over = reason == ReasonCode::SessionTakenOver;
                let node = self.wires[link].link.node;
                let config = &self.nodes[node].options.config;
                // Not while CONNACK waits for the store, and not what does not fit into the client's largest
                // packet.
                self.wires[link].owes_farewell = taken_over
                    && config.version.is_v5()
                    && config.max_packet_size > 100
                    && self.wires[link].greeted;
                self.trace.line(self.now, || format!("broker: {client} is gone: {reason:?}"));
                self.oracle.disconnected(self.broker_time().as_micros(), &client, by_client, taken_over);
            }
            Told::Dropped { client_id, count, reason } => {
                self.trace.line(self.now, || format!("broker: dropped {count} for {client_id}: {reason:?}"));
                self.oracle.dropped(&client_id, count);
            }
            Told::Internal { what, .. } => self.fail(format!("the broker found a fault of its own: {what}")),
            Told::SessionEnded { client_id, lost } => {
                self.trace.line(self.now, || format!("broker: session of {client_id} ended, {lost} lost"));
            }
            _ => {}
        }
    }

    fn client_connected(&mut self, shard: usize, conn: ConnectionId, client: String, present: bool) {
        let Some(&link) = self.by_conn.get(&(shard, conn)) else { return };
        let node = self.wires[link].link.node;
        let wire = &mut self.wires[link];
        (wire.client, wire.present) = (Some(client.clone()), present);
        let Some(connect) = wire.connect.clone() else { return };
        let early = std::mem::take(&mut wire.early);
        self.trace.line(self.now, || format!("broker: link {link} is {client}, session present {present}"));
        // A 3.1 client is not told, and goes on with identifiers that the broker has forgotten.
        if connect.version == Version::V31 && !present && !connect.flag && self.ends.contains_key(&client) {
            self.nodes[node].lost_track = true;
            self.oracle.unjudge(&client);
        }
        self.nodes[node].unaware |= !present;
        let result = self.oracle.connected(self.broker_time().as_micros(), &client, &connect, present, node);
        self.check(result);
        self.oracle.connected_by(&client, self.store.last());
        self.changed.push(client.clone());
        self.store.new_link(&client);
        if !present {
            self.store.forget(&client);
        }
        let limits = PeerLimits {
            window: connect.receive_maximum.min(self.options.broker.max_inflight),
            max_packet: connect.max_packet,
            alias_maximum: connect.alias_maximum,
        };
        let resends = self.options.broker.resend_after.is_some() && !connect.version.is_v5();
        let name = format!("broker to {client}");
        let (end, current) = self.ends.entry(client).or_insert_with(|| (End::new(name, resends), link));
        *current = link;
        end.moves = self.nodes[node].options.shares;
        end.begin_link(present, resends, limits);
        for seen in early {
            self.broker_got(link, seen, false);
        }
    }

    pub(super) fn stored(&mut self, seq: StoreSeq) {
        let now = self.given_broker_time();
        if self.random.chance(self.options.store_failures) {
            if let Some(first) = self.store.fail() {
                self.oracle.counts.faults += 1;
                self.trace.line(self.now, || format!("the store fails at {}", first.0));
                for (broker, through) in self.brokers.iter_mut().zip(&self.through) {
                    broker.handle_store_failed(now, StoreSeq(through + 1));
                }
            }
        } else if self.store.confirm(seq) {
            self.trace.line(self.now, || format!("stored {}", seq.0));
            let done = self.places.range(..=seq.0).map(|(_, place)| *place).collect::<Vec<_>>();
            self.places = self.places.split_off(&(seq.0 + 1));
            for (shard, seq) in done {
                self.through[shard] = seq;
            }
            for (broker, through) in self.brokers.iter_mut().zip(&self.through) {
                broker.handle_stored(now, StoreSeq(*through));
            }
        }
    }

    pub(super) fn answer(&mut self, shard: usize, ask: &Ask) {
        let now = self.given_broker_time();
        let refused = self.random.chance(self.options.refusals);
        let answer = match &ask.question {
            Question::Subscribe { filters } => Answer::Filters(
                filters
                    .iter()
                    .map(|_| {
                        let refused = self.random.chance(self.options.refusals);
                        if refused { Err(ReasonCode::NotAuthorized) } else { Ok(()) }
                    })
                    .collect(),
            ),
            _ if refused => Answer::Deny(ReasonCode::NotAuthorized),
            _ => Answer::Allow,
        };
        self.trace.line(self.now, || format!("answer for {:?}: {answer:?}", ask.client_id));
        self.brokers[shard].handle_answer(now, ask.id, answer);
    }

    /// A new subscriber gets exactly the last retained message of each topic. Judged only where the
    /// order of publishers is that of their routing.
    pub(super) fn check_retained(&mut self) {
        let config = &self.options.broker;
        if config.durability != mqtt_session::Durability::Off {
            return;
        }
        let now: Timestamp = self.broker_time();
        let Ok(id) = self.brokers[0].subscribe(now, "#", SubscriptionOptions::default()) else { return };
        let mut found = std::collections::BTreeMap::new();
        loop {
            let shards = self.brokers.iter_mut().enumerate();
            let output = shards.into_iter().find_map(|(shard, broker)| Some((shard, broker.poll_output()?)));
            match output {
                Some((shard, Output::Shard { to, message })) => {
                    let from = ShardId(u16::try_from(shard).unwrap_or_default());
                    self.brokers[usize::from(to.0)].handle_shard(now, from, *message);
                }
                Some((0, Output::Event(event))) => {
                    if let Told::Message { subscriber, message } = *event
                        && subscriber == id
                    {
                        if message.payload.is_empty() {
                            self.fail(format!(
                                "{} has an empty retained message [MQTT-3.3.1-6]",
                                message.topic
                            ));
                        }
                        found.insert(message.topic.clone(), crate::wire::MessageId::of(&message.payload));
                    }
                }
                Some(_) => {}
                None => break,
            }
        }
        for (topic, last) in self.oracle.retained().clone() {
            let expired =
                last.and_then(|id| self.oracle.message(id)).is_some_and(|message| message.expiry.is_some());
            let have = found.get(&topic).copied().flatten();
            if !self.oracle.may_be_retained(&topic, have) && !expired {
                self.fail(format!("the retained message of {topic} is {have:?} instead of {last:?}"));
            }
        }
    }
}

pub(super) fn brief_ops(group: &StoreGroup) -> Vec<String> {
    group.ops.iter().map(|op| format!("{op:?}").chars().take(150).collect()).collect()
}

fn brief_message(message: &ShardMessage) -> String {
    format!("{message:?}").chars().take(160).collect()
}

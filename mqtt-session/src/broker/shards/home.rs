//! The shard on which a session lives, and the way of a connection to it.

use super::super::connection::{Connection, Phase};
use super::super::output::{ConnectionId, Output, Peer};
use super::super::rate::Meter;
use super::super::timers::Timer;
use super::Broker;
use crate::defects::defect;
use crate::{ShardId, Timestamp};
use alloc::boxed::Box;
use alloc::vec::Vec;
use mqtt_proto::{PacketRef, Version};

/// A connection on its way from the shard that accepted it to the one where its session lives.
#[derive(Debug)]
pub struct Moved {
    /// Everything from CONNECT on.
    unread: Vec<u8>,
    peer: Peer,
    /// CONNECT has to be accepted by then.
    limit: Timestamp,
}

impl Broker {
    /// The shard on which the session of a client lives.
    #[must_use]
    pub fn home_of(&self, client_id: &str) -> ShardId {
        self.router.foreign_owner(client_id).unwrap_or(self.config.shard)
    }

    /// Where a connection whose first packet is at the head of `bytes` belongs, if that is another shard. Nothing is
    /// asked and nothing is answered before it is there.
    pub(in crate::broker) fn foreign_home(&self, index: u32, packet: &[u8]) -> Option<ShardId> {
        self.shards.as_ref()?;
        let c = self.connections.get(index).filter(|c| c.phase == Phase::Connecting && !c.is_home)?;
        if c.extras.as_ref().is_some_and(|extras| extras.handshake.is_some()) {
            return None;
        }
        match PacketRef::decode(packet, Version::V5) {
            // An identifier that is assigned belongs here.
            Ok(PacketRef::Connect(connect))
                if !connect.client_id.is_empty() && !defect!(ShardHomeIgnored) =>
            {
                self.router.foreign_owner(connect.client_id)
            }
            _ => None,
        }
    }

    /// Has the adapter carry the connection to its home.
    pub(in crate::broker) fn send_home(&mut self, index: u32, to: ShardId) {
        let conn = self.id_of(index);
        if let Some(c) = self.connections.get_mut(index) {
            (c.is_home, c.moving, c.paused) = (true, true, true);
        }
        self.outputs.push_back(Output::Rehome { conn, to });
    }

    /// Takes a connection out that [`Output::Rehome`] named, to be given to the other shard's
    /// [`Broker::handle_moved`] with everything that its socket gives from now on. It is gone here: there is no
    /// `handle_close`. `None` if it is none of those.
    pub fn take_moving(&mut self, now: Timestamp, conn: ConnectionId) -> Option<Moved> {
        self.begin(now);
        let index =
            self.index_of(conn).filter(|&index| self.connections.get(index).is_some_and(|c| c.moving))?;
        let mut c = self.connections.remove(index)?;
        let unread = c.framer.take(&[]).map(|(unread, _)| unread).unwrap_or_default();
        // Never below zero: it was added when it was kept.
        self.unauthenticated = self.unauthenticated.saturating_sub(unread.len());
        let peer = c.peer.map(|peer| *peer).unwrap_or_default();
        Some(Moved { unread, peer, limit: c.limit })
    }

    /// A connection comes from the shard that accepted it. [`Output::Resume`] has it read what came before.
    pub fn handle_moved(&mut self, now: Timestamp, moved: Moved) -> ConnectionId {
        self.begin(now);
        let Moved { unread, peer, limit } = moved;
        let (index, generation) =
            self.connections.insert(|generation| Connection::new(generation, now, limit));
        self.timers.at(limit, Timer::Connection { index, generation });
        self.unauthenticated += unread.len();
        if let Some(c) = self.connections.get_mut(index) {
            c.is_home = true;
            c.listener = peer.listener;
            c.meter = Meter::new(peer.rates.unwrap_or(self.config.rates), self.now).map(Box::new);
            c.framer.put_back(None, 0, &unread);
            c.peer = Some(Box::new(peer));
        }
        let id = ConnectionId { index, generation };
        self.outputs.push_back(Output::Resume(id));
        self.finish();
        id
    }
}

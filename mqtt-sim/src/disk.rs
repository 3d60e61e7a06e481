//! What a store holds, as far as the model has to know: read from its records, as a machine that starts
//! again reads them.

use crate::wire::MessageId;
use mqtt_session::StoreOp;
use mqtt_session::store::{self, Contents, StoredMessage, StoredStage};
use std::collections::{BTreeMap, BTreeSet};

/// A session that is stored.
#[derive(Debug, Default)]
pub struct DiskSession {
    /// How long it outlives its connection, in seconds.
    pub expiry: u32,
    /// When it lost its connection.
    pub lost_at: Option<u64>,
    /// Its filters.
    pub filters: BTreeSet<String>,
    /// Its exchanges in their order: identifier, and whether they are released.
    pub exchanges: Vec<(u16, bool)>,
    /// Its entries.
    pub entries: BTreeSet<u64>,
}

/// What a store holds.
#[derive(Debug, Default)]
pub struct Disk {
    /// Sessions by client identifier.
    pub sessions: BTreeMap<String, DiskSession>,
    /// How many wills there are of a client.
    pub wills: BTreeMap<String, usize>,
    /// The retained message of each topic, but for those that expire.
    pub retained: BTreeMap<String, Option<MessageId>>,
    /// Bodies that nothing in the store refers to: somebody whose session is not stored was to get them.
    pub orphans: usize,
    /// Groups of which only members without a stored session are left, and what waits in them.
    pub lone_groups: usize,
    /// Records that refer to nothing.
    pub broken: Vec<String>,
    /// What must not be left when everything was delivered.
    pub left: Vec<String>,
}

/// The message of ours that a stored one is.
#[must_use]
pub fn our_id(message: &StoredMessage) -> Option<MessageId> {
    let payload = usize::from(message.topic_len) + usize::try_from(message.properties_len).ok()?;
    MessageId::of(message.body.get(payload..)?)
}

impl Disk {
    /// Reads a store.
    #[must_use]
    pub fn read(contents: &Contents) -> Self {
        let mut disk = Self::default();
        let mut names: BTreeMap<store::SessionId, String> = BTreeMap::new();
        let mut groups: BTreeMap<String, Vec<store::SessionId>> = BTreeMap::new();
        let mut bodies = BTreeMap::new();
        let mut unused = BTreeSet::new();
        let mut appended = BTreeSet::new();
        let mut released = BTreeSet::new();
        let mut placeless = BTreeMap::new();
        let mut queued: BTreeMap<store::SessionId, usize> = BTreeMap::new();
        let mut exchanges: BTreeMap<String, BTreeMap<u64, (u16, bool)>> = BTreeMap::new();
        for record in contents.records() {
            let text = || format!("{record:?}").chars().take(160).collect::<String>();
            match &record {
                StoreOp::PutSession(id, session) => {
                    names.insert(*id, session.client_id.clone());
                    let stored = DiskSession {
                        expiry: session.expiry_secs,
                        lost_at: session.disconnected_at,
                        ..DiskSession::default()
                    };
                    if disk.sessions.insert(session.client_id.clone(), stored).is_some() {
                        disk.left.push(format!("a second session of {}", session.client_id));
                    }
                }
                StoreOp::PutGroup(id, filter) => {
                    groups.entry(filter.clone()).or_default().push(*id);
                }
                StoreOp::PutSubscription { session, filter, .. } => {
                    groups.remove(filter);
                    match names.get(session).and_then(|name| disk.sessions.get_mut(name)) {
                        Some(stored) => {
                            stored.filters.insert(filter.clone());
                        }
                        None => disk.left.push(text()),
                    }
                }
                StoreOp::PutPacketId(session, _) if !names.contains_key(session) => disk.left.push(text()),
                StoreOp::PutMessage(id, message) => {
                    bodies.insert(*id, message.clone());
                    unused.insert(*id);
                }
                StoreOp::PutExchange { session, entry, packet_id, number, stage } => {
                    placeless.insert((*session, *entry), text());
                    if *stage == StoredStage::Released {
                        released.insert((*session, *entry));
                    }
                    disk.left.push(text());
                    if let Some(name) = names.get(session) {
                        let exchange = (packet_id.get(), *stage == StoredStage::Released);
                        exchanges.entry(name.clone()).or_default().insert(*number, exchange);
                    }
                }
                StoreOp::Append(id, deliveries) => {
                    disk.left.push(text());
                    for delivery in deliveries {
                        placeless.remove(&(delivery.session, delivery.entry));
                        let is_released = released.contains(&(delivery.session, delivery.entry));
                        if !is_released && !bodies.contains_key(id) {
                            disk.broken.push(text());
                        }
                        // What is released needs its body no more.
                        if !released.contains(&(delivery.session, delivery.entry)) {
                            appended.insert(*id);
                        }
                        *queued.entry(delivery.session).or_default() += 1;
                        if let Some(name) = names.get(&delivery.session)
                            && let Some(session) = disk.sessions.get_mut(name)
                        {
                            session.entries.insert(delivery.entry.0);
                        }
                    }
                }
                StoreOp::PutReplay { .. } | StoreOp::PutReceived(..) => disk.left.push(text()),
                StoreOp::PutHandOver(record) => {
                    disk.left.push(text());
                    appended.insert(record.message);
                }
                StoreOp::PutRetained(topic, id) => {
                    unused.remove(id);
                    match bodies.get(id) {
                        Some(message) if message.expires_at.is_some() => {}
                        Some(message) => {
                            disk.retained.insert(topic.clone(), our_id(message));
                        }
                        None => disk.left.push(text()),
                    }
                }
                StoreOp::PutWill(_, will) => {
                    *disk.wills.entry(will.author.client_id.clone()).or_default() += 1;
                }
                _ => {}
            }
        }
        disk.broken.extend(placeless.into_values());
        disk.orphans = unused.difference(&appended).count();
        for group in groups.values().flatten() {
            disk.lone_groups += 1 + 2 * queued.get(group).copied().unwrap_or(0);
        }
        disk.left.extend(
            unused.iter().map(|id| format!("body {}: {:?}", id.0, bodies.get(id).map(|m| our_id(m)))),
        );
        for (name, list) in exchanges {
            if let Some(session) = disk.sessions.get_mut(&name) {
                session.exchanges = list.into_values().collect();
            }
        }
        disk
    }
}

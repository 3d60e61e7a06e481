use crate::Loaded;
use mqtt_session::StoreOp;
use mqtt_session::store::SessionId;
use std::collections::HashSet;

/// Tells records that belong to a session or group from those that are void. It is given them in
/// the order of [`Contents::records`](mqtt_session::store::Contents::records), in which the record
/// of a session comes before all that depends on it.
#[derive(Debug, Default)]
pub(crate) struct Sift {
    live: HashSet<SessionId>,
    pub(crate) loaded: Loaded,
}

impl Sift {
    /// The session or group that `op` is void without.
    pub(crate) fn owner(op: &StoreOp) -> Option<SessionId> {
        match op {
            StoreOp::PutPacketId(id, _)
            | StoreOp::PutSubscription { session: id, .. }
            | StoreOp::PutReplay { session: id, .. }
            | StoreOp::PutReceived(id, _)
            | StoreOp::PutExchange { session: id, .. } => Some(*id),
            StoreOp::Append(_, deliveries) => deliveries.first().map(|delivery| delivery.session),
            _ => None,
        }
    }

    /// Whether `op`, of about `bytes` bytes, is to be passed on; counts it either way.
    pub(crate) fn passes(&mut self, op: &StoreOp, bytes: usize) -> bool {
        if let StoreOp::PutSession(id, _) | StoreOp::PutGroup(id, _) = op {
            self.live.insert(*id);
        }
        if Self::owner(op).is_some_and(|id| !self.live.contains(&id)) {
            self.loaded.void += 1;
            return false;
        }
        self.loaded.records += 1;
        self.loaded.bytes += bytes as u64;
        true
    }
}

use crate::defects::defect;
use mqtt_proto::PacketId;

/// Chooses packet identifiers, each the next free one after the last, so that an identifier is
/// reused as late as possible ([MQTT-2.2.1-3], [MQTT-2.2.1-4]; [MQTT-2.3.1-3] of 3.1.1).
#[derive(Clone, Debug)]
pub(crate) struct PacketIds {
    next: PacketId,
}

impl Default for PacketIds {
    fn default() -> Self {
        Self { next: PacketId::MIN }
    }
}

impl PacketIds {
    /// Starts behind `last`.
    pub(crate) fn after(last: PacketId) -> Self {
        Self { next: following(last) }
    }

    /// Starts with `first`.
    pub(crate) const fn from(first: PacketId) -> Self {
        Self { next: first }
    }

    /// The next identifier for which `in_use` is false; `None` if all 65,535 are in use.
    pub(crate) fn allocate(&mut self, in_use: impl Fn(PacketId) -> bool) -> Option<PacketId> {
        let first = self.next;
        let mut id = first;
        while in_use(id) {
            id = following(id);
            if id == first {
                return None;
            }
        }
        self.next = following(id);
        Some(id)
    }
}

pub(super) fn following(id: PacketId) -> PacketId {
    id.checked_add(1).unwrap_or(if defect!(WrapSticks) { id } else { PacketId::MIN })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wraps_and_skips_what_is_in_use() {
        let mut ids = PacketIds::after(PacketId::new(65_534).unwrap());
        let busy = [65_535, 1, 2];
        let id = ids.allocate(|id| busy.contains(&id.get())).unwrap();
        assert_eq!(id.get(), 3);
        assert_eq!(ids.allocate(|_| true), None);
        assert_eq!(ids.allocate(|_| false).unwrap().get(), 4);
    }
}

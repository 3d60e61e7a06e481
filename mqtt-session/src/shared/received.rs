use crate::random::IdMap;
use alloc::boxed::Box;
use mqtt_proto::PacketId;

/// How far an inbound QoS 2 exchange is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Receipt {
    /// The message is taken but PUBREC was not yet allowed to leave.
    Taken,
    /// PUBREC left; PUBREL is awaited.
    Acknowledged,
}

/// The identifiers of QoS 2 messages that arrived and were not released. They outlive links; while
/// one is here, a PUBLISH that repeats it is not a new message [MQTT-4.3.3-10].
#[derive(Clone, Debug, Default)]
pub(crate) struct Received {
    /// Most sessions never have one.
    ids: Option<Box<IdMap<u16, Receipt>>>,
}

impl Received {
    pub(crate) fn get(&self, id: PacketId) -> Option<Receipt> {
        self.ids.as_ref()?.get(&id.get()).copied()
    }

    pub(crate) fn set(&mut self, id: PacketId, receipt: Receipt) {
        self.ids.get_or_insert_default().insert(id.get(), receipt);
    }

    /// After PUBCOMP the identifier is new again [MQTT-4.3.3-12].
    pub(crate) fn remove(&mut self, id: PacketId) -> bool {
        self.ids.as_mut().is_some_and(|ids| ids.remove(&id.get()).is_some())
    }
}

/// Quality of service: how often a message may arrive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum QoS {
    /// QoS 0: sent once, never acknowledged.
    #[default]
    AtMostOnce = 0,
    /// QoS 1: acknowledged by PUBACK, sent again on a new connection until then.
    AtLeastOnce = 1,
    /// QoS 2: delivered exactly once by PUBREC, PUBREL and PUBCOMP.
    ExactlyOnce = 2,
}

impl QoS {
    /// The value as it stands in a packet: 0, 1 or 2.
    #[must_use]
    pub const fn as_u8(self) -> u8 {
        self as u8
    }

    /// The level for 0, 1 or 2; `None` for anything else.
    #[must_use]
    pub const fn from_u8(value: u8) -> Option<Self> {
        match value {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}

/// What a subscription wants of the messages that are retained when it is made (5.0).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RetainHandling {
    /// Send them at each subscribe.
    #[default]
    Send = 0,
    /// Send them only if the subscription did not exist before.
    SendIfNew = 1,
    /// Do not send them.
    DoNotSend = 2,
}

impl RetainHandling {
    /// The handling for 0, 1 or 2; `None` for anything else.
    #[must_use]
    pub const fn from_u8(value: u8) -> Option<Self> {
        match value {
            0 => Some(Self::Send),
            1 => Some(Self::SendIfNew),
            2 => Some(Self::DoNotSend),
            _ => None,
        }
    }
}

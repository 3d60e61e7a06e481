/// How many QoS 1 and 2 messages may be under way on a link: the send quota of section 4.9.
///
/// It begins at the peer's Receive Maximum with each link [MQTT-4.9.0-1]; each PUBLISH takes one
/// [MQTT-4.9.0-2]; PUBACK, PUBCOMP and a refusing PUBREC give it back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    max: u16,
    used: u32,
}

impl Window {
    pub(crate) const fn new(max: u16) -> Self {
        Self { max, used: 0 }
    }

    pub(crate) const fn max(&self) -> u16 {
        self.max
    }

    /// Whether a PUBLISH could be sent.
    pub(crate) fn has_room(&self) -> bool {
        self.used < u32::from(self.max)
    }

    /// One PUBLISH more, if there is room.
    pub(crate) fn take(&mut self) -> bool {
        let room = self.has_room();
        if room {
            self.used += 1;
        }
        room
    }

    /// One exchange more that goes on with PUBREL, which no window may hold back [MQTT-4.9.0-3]. It
    /// counts, so that the peer never holds more exchanges than it agreed to where that can be helped.
    pub(crate) fn take_regardless(&mut self) {
        self.used += 1;
    }

    /// One exchange less. False if none was under way, which is a broken invariant.
    #[must_use]
    pub(crate) fn give(&mut self) -> bool {
        match self.used.checked_sub(1) {
            Some(used) => {
                self.used = used;
                true
            }
            None => false,
        }
    }
}

use mqtt_proto::{DecodeError, PacketType, ReasonCode, Version, Violation};

/// Where the versions differ beyond the codec. Nothing else may ask which version it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// A server may say why it closes (DISCONNECT from the server).
    pub(crate) server_disconnect: bool,
    /// PUBACK and PUBREC can refuse a message. Without that it is acknowledged and dropped, or the
    /// connection is closed ([MQTT-3.3.5-2] of 3.1.1).
    pub(crate) acks_refuse: bool,
    /// SUBACK can refuse a filter (0x80 in 3.1.1, a reason in 5.0; nothing in 3.1).
    pub(crate) suback_refuses: bool,
    /// A message that nobody wants is acknowledged as such.
    pub(crate) tells_no_subscribers: bool,
    /// A session ends with its connection if the CONNECT said Clean Session; later, its expiry decides.
    pub(crate) clean_session_ends: bool,
    /// A message that was not acknowledged may be sent again on a live link ([MQTT-4.4.0-1] of 5.0
    /// forbids it).
    pub(crate) may_resend_live: bool,
    /// An empty client identifier is allowed (3.1 wants 1 to 23 characters).
    pub(crate) empty_client_id: bool,
    /// ... also without Clean Session ([MQTT-3.1.3-8] of 3.1.1 forbids it).
    pub(crate) empty_client_id_without_clean: bool,
    /// A CONNACK that refuses may be followed by nothing, and what the version has no code for is
    /// not said at all [MQTT-3.2.2-6].
    pub(crate) all_refusals_have_codes: bool,
    /// CONNACK tells whether the server has the session.
    pub(crate) tells_session_present: bool,
    /// A client closes if the server has a session that it does not know [MQTT-3.2.2-4].
    pub(crate) unknown_session_closes: bool,
    /// Both sides announce how many QoS 1 and 2 messages they take at once (section 4.9).
    pub(crate) flow_control: bool,
}

impl Rules {
    pub(crate) const fn of(version: Version) -> &'static Self {
        match version {
            Version::V31 => &Self {
                server_disconnect: false,
                acks_refuse: false,
                suback_refuses: false,
                tells_no_subscribers: false,
                clean_session_ends: true,
                may_resend_live: true,
                empty_client_id: false,
                empty_client_id_without_clean: false,
                all_refusals_have_codes: false,
                tells_session_present: false,
                unknown_session_closes: false,
                flow_control: false,
            },
            Version::V311 => &Self {
                server_disconnect: false,
                acks_refuse: false,
                suback_refuses: true,
                tells_no_subscribers: false,
                clean_session_ends: true,
                may_resend_live: true,
                empty_client_id: true,
                empty_client_id_without_clean: false,
                all_refusals_have_codes: false,
                tells_session_present: true,
                unknown_session_closes: false,
                flow_control: false,
            },
            Version::V5 => &Self {
                server_disconnect: true,
                acks_refuse: true,
                suback_refuses: true,
                tells_no_subscribers: true,
                clean_session_ends: false,
                may_resend_live: false,
                empty_client_id: true,
                empty_client_id_without_clean: true,
                all_refusals_have_codes: true,
                tells_session_present: true,
                unknown_session_closes: true,
                flow_control: true,
            },
        }
    }

    /// Whether a CONNACK with `reason` exists in this version.
    pub(crate) const fn has_connack(&self, reason: ReasonCode) -> bool {
        self.all_refusals_have_codes || reason.to_return_code().is_some()
    }
}

/// Whether these first bytes of a client cannot be CONNECT ([MQTT-3.1.0-1]): HTTP, TLS and the like are
/// known by their first byte.
pub(crate) fn is_no_connect(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|byte| *byte != (PacketType::Connect as u8) << 4)
}

/// In which version a CONNECT that broke a rule is answered, and whether by CONNACK; the end follows in
/// any case.
pub(crate) fn answer_to_malformed_connect(error: &DecodeError) -> (Version, bool) {
    if error.violation() == Violation::ProtocolLevel {
        // Answered in the form that the sender is most likely to understand ([MQTT-3.1.2-2]).
        let newer = (6..0x80).contains(&error.detail());
        return (if newer { Version::V5 } else { Version::V311 }, true);
    }
    let nameless = matches!(
        error.violation(),
        Violation::ProtocolName
            | Violation::RemainingLength
            | Violation::PacketType
            | Violation::PacketTooLarge
    );
    // 3.x closes without a CONNACK unless it is about the level ([MQTT-3.1.4-1] of 3.1.1).
    (error.version(), error.version().is_v5() && !nameless)
}

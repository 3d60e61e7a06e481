use crate::{ReasonCode, Rule, Version, Violation};
use core::fmt;

/// Why bytes are no acceptable packet: the rule, where it was broken, and the code to answer with.
///
/// Twelve bytes, `Copy`, and made without allocating, so that a flood of bad packets is cheap.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct DecodeError {
    violation: Violation,
    version: Version,
    detail: u32,
    offset: u32,
}

impl DecodeError {
    pub(crate) const fn new(violation: Violation, version: Version, offset: u32) -> Self {
        Self { violation, version, detail: 0, offset }
    }

    pub(crate) const fn with_detail(mut self, detail: u32) -> Self {
        self.detail = detail;
        self
    }

    pub(crate) const fn in_version(mut self, version: Version) -> Self {
        self.version = version;
        self
    }

    /// What is wrong, whatever the version.
    #[must_use]
    pub const fn violation(&self) -> Violation {
        self.violation
    }

    /// The statement that was broken, by its number in the version in force.
    #[must_use]
    pub const fn rule(&self) -> Rule {
        self.violation.rule(self.version)
    }

    /// The code for DISCONNECT or CONNACK in 5.0.
    #[must_use]
    pub const fn reason(&self) -> ReasonCode {
        self.violation.reason()
    }

    /// Where in the packet the offending field starts, in bytes from the fixed header's first.
    #[must_use]
    pub const fn offset(&self) -> u32 {
        self.offset
    }

    /// The number behind the complaint: the size of a packet that is too large, the protocol level
    /// or the property identifier that is unknown, the reason code. Otherwise 0.
    #[must_use]
    pub const fn detail(&self) -> u32 {
        self.detail
    }

    /// The version whose rules were applied.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rule = self.rule();
        write!(f, "{}", rule.text())?;
        match self.violation {
            Violation::PacketTooLarge => write!(f, " ({} bytes)", self.detail)?,
            Violation::ProtocolLevel => write!(f, " (it is {})", self.detail)?,
            Violation::PropertyUnknown
            | Violation::PropertyNotAllowed
            | Violation::PropertyDuplicate
            | Violation::PropertyValue
            | Violation::ReasonCode
            | Violation::SubackCode
            | Violation::UnsubackCode => write!(f, " (0x{:02X})", self.detail)?,
            _ => {}
        }
        write!(f, " at byte {} [{}, MQTT {}]: {}", self.offset, rule.id(), self.version, rule.remedy())
    }
}

impl fmt::Debug for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DecodeError({self})")
    }
}

impl core::error::Error for DecodeError {}

/// Why a packet cannot be encoded: the caller's fields break a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{}: {}", .violation.rule(Version::V5).text(), .violation.rule(Version::V5).remedy())]
pub struct EncodeError {
    violation: Violation,
}

impl EncodeError {
    pub(crate) const fn new(violation: Violation) -> Self {
        Self { violation }
    }

    /// What is wrong with the fields.
    #[must_use]
    pub const fn violation(&self) -> Violation {
        self.violation
    }
}

impl From<Violation> for EncodeError {
    fn from(violation: Violation) -> Self {
        Self::new(violation)
    }
}

//! Topic names, topic filters, shared filters, and matching.
//!
//! Nothing here recurses or allocates, and matching compares bytes: characters are never normalised
//! or substituted [MQTT-4.7.3-4].

use crate::Violation;

/// The longest topic or string, in bytes [MQTT-4.7.3-3].
pub const MAX_LEN: usize = 65_535;

/// A checked topic name: 1 to 65,535 bytes without U+0000 and without wildcards
/// ([MQTT-4.7.3-1], [MQTT-4.7.3-2], [MQTT-4.7.3-3], [MQTT-4.7.1-1] of 3.1.1, [MQTT-4.7.0-1] of 5.0).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName<'a>(&'a str);

/// A checked topic filter: `#` only as the whole last level, `+` only as a whole level, and if it
/// begins with `$share/`, a share name and a filter behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicFilter<'a>(&'a str);

/// The two parts of `$share/name/filter` [MQTT-4.8.2-1].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SharedFilter<'a> {
    /// The name of the group: at least one character, none of `/`, `+` and `#` [MQTT-4.8.2-2].
    pub share_name: &'a str,
    /// What the group subscribes to.
    pub filter: TopicFilter<'a>,
}

/// Why a text is no topic name or filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{}: {}", .violation.rule(crate::Version::V5).text(), .violation.rule(crate::Version::V5).remedy())]
pub struct TopicError {
    violation: Violation,
}

impl TopicError {
    /// The rule that the text breaks.
    #[must_use]
    pub const fn violation(&self) -> Violation {
        self.violation
    }
}

impl From<TopicError> for Violation {
    fn from(error: TopicError) -> Self {
        error.violation
    }
}

impl From<TopicError> for crate::EncodeError {
    fn from(error: TopicError) -> Self {
        Self::new(error.violation)
    }
}

const fn refuse<T>(violation: Violation) -> Result<T, TopicError> {
    Err(TopicError { violation })
}

/// Branch-free over the whole name, so that it vectorises.
#[inline]
fn has_forbidden(bytes: &[u8]) -> bool {
    bytes.iter().fold(false, |found, &b| found | (b == b'+') | (b == b'#') | (b == 0))
}

impl<'a> TopicName<'a> {
    /// Checks `name`.
    ///
    /// # Errors
    /// Names the rule if it is empty, too long, or contains `+`, `#` or U+0000.
    #[inline]
    pub fn new(name: &'a str) -> Result<Self, TopicError> {
        let bytes = name.as_bytes();
        if bytes.is_empty() {
            return refuse(Violation::TopicEmpty);
        }
        if bytes.len() > MAX_LEN {
            return refuse(Violation::StringTooLong);
        }
        if has_forbidden(bytes) {
            let nul = bytes.contains(&0);
            return refuse(if nul { Violation::StringNul } else { Violation::TopicWildcard });
        }
        Ok(Self(name))
    }

    /// The name.
    #[must_use]
    pub const fn as_str(self) -> &'a str {
        self.0
    }
}

impl<'a> TopicFilter<'a> {
    /// Checks `filter`.
    ///
    /// # Errors
    /// Names the rule if it is empty, too long, has a misplaced wildcard or U+0000, or begins with
    /// `$share/` and is not `$share/name/filter`.
    pub fn new(filter: &'a str) -> Result<Self, TopicError> {
        if filter.len() > MAX_LEN {
            return refuse(Violation::StringTooLong);
        }
        if let Some(rest) = filter.strip_prefix("$share/") {
            // [MQTT-4.8.2-1] [MQTT-4.8.2-2]
            match rest.split_once('/') {
                Some((name, inner))
                    if !name.is_empty() && !name.contains(['+', '#']) && !inner.is_empty() =>
                {
                    check_levels(inner)?;
                    if name.contains('\0') {
                        return refuse(Violation::StringNul);
                    }
                }
                _ => return refuse(Violation::ShareName),
            }
            return Ok(Self(filter));
        }
        check_levels(filter)?;
        Ok(Self(filter))
    }

    /// The filter as it was sent, `$share/` included.
    #[must_use]
    pub const fn as_str(self) -> &'a str {
        self.0
    }

    /// The group and the filter behind `$share/`, if it is a shared filter.
    #[must_use]
    pub fn shared(self) -> Option<SharedFilter<'a>> {
        let (share_name, filter) = self.0.strip_prefix("$share/")?.split_once('/')?;
        Some(SharedFilter { share_name, filter: Self(filter) })
    }

    /// Whether `+` or `#` occurs in it (behind `$share/name/`, if it is shared).
    #[must_use]
    pub fn has_wildcard(self) -> bool {
        let bytes = self.shared().map_or(self, |shared| shared.filter).0.as_bytes();
        bytes.contains(&b'+') || bytes.contains(&b'#')
    }

    /// Whether messages to `topic` are for this filter. A shared filter is taken without its
    /// `$share/name/`. Filters that begin with a wildcard match no topic that begins with `$`
    /// [MQTT-4.7.2-1].
    #[must_use]
    pub fn matches(self, topic: TopicName<'_>) -> bool {
        let filter = self.shared().map_or(self, |shared| shared.filter).0.as_bytes();
        let topic = topic.0.as_bytes();
        if topic.first() == Some(&b'$') && matches!(filter.first(), Some(b'+' | b'#')) {
            return false;
        }
        let mut levels = topic.split(|&b| b == b'/');
        for wanted in filter.split(|&b| b == b'/') {
            if wanted == b"#" {
                return true;
            }
            match levels.next() {
                Some(level) if wanted == b"+" || wanted == level => {}
                _ => return false,
            }
        }
        levels.next().is_none()
    }
}

fn check_levels(filter: &str) -> Result<(), TopicError> {
    if filter.is_empty() {
        return refuse(Violation::TopicEmpty);
    }
    let bytes = filter.as_bytes();
    if !has_forbidden(bytes) {
        return Ok(());
    }
    if bytes.contains(&0) {
        return refuse(Violation::StringNul);
    }
    let mut levels = bytes.split(|&b| b == b'/').peekable();
    while let Some(level) = levels.next() {
        if level.contains(&b'#') && (level.len() > 1 || levels.peek().is_some()) {
            return refuse(Violation::FilterHash);
        }
        if level.contains(&b'+') && level.len() > 1 {
            return refuse(Violation::FilterPlus);
        }
    }
    Ok(())
}

impl core::fmt::Display for TopicName<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.0)
    }
}

impl core::fmt::Display for TopicFilter<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.0)
    }
}

//! Topic names, topic filters, shared filters, and matching.
//!
//! Nothing here recurses or allocates, and matching compares bytes: characters are never normalised
//! or substituted [MQTT-4.7.3-4].

use crate::Violation;
use crate::reader::{any_byte, has_nul};

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

/// Whether there is a wildcard or U+0000. `+` and `#` differ in one bit.
#[inline(always)]
fn has_forbidden(bytes: &[u8]) -> bool {
    any_byte(bytes, |b| (b == 0) | ((b | 0x08) == b'+'))
}

#[inline]
pub(crate) fn has_wildcard(text: &[u8]) -> bool {
    any_byte(text, |b| (b | 0x08) == b'+')
}

/// What [`TopicName::new`] checks; it also says what is wrong.
#[inline(always)]
pub(crate) fn is_name(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.len() <= MAX_LEN && !has_forbidden(bytes)
}

impl<'a> TopicName<'a> {
    /// Checks `name`.
    ///
    /// # Errors
    /// Names the rule if it is empty, too long, or contains `+`, `#` or U+0000.
    #[inline(always)]
    pub fn new(name: &'a str) -> Result<Self, TopicError> {
        if is_name(name.as_bytes()) { Ok(Self(name)) } else { refuse(what_is_wrong(name.as_bytes())) }
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
    #[inline]
    pub fn new(filter: &'a str) -> Result<Self, TopicError> {
        check_filter(filter.as_bytes())?;
        Ok(Self(filter))
    }

    /// What passed [`TopicFilter::new`] before.
    #[inline]
    pub(crate) const fn checked(filter: &'a str) -> Self {
        Self(filter)
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
        has_wildcard(self.shared().map_or(self, |shared| shared.filter).0.as_bytes())
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

#[cold]
#[inline(never)]
pub(crate) fn what_is_wrong(name: &[u8]) -> Violation {
    if name.is_empty() {
        Violation::TopicEmpty
    } else if name.len() > MAX_LEN {
        Violation::StringTooLong
    } else if has_nul(name) {
        Violation::StringNul
    } else {
        Violation::TopicWildcard
    }
}

/// What [`TopicFilter::new`] checks, for a filter that is known to be UTF-8.
#[inline]
pub(crate) fn check_filter(filter: &[u8]) -> Result<(), TopicError> {
    if filter.len() > MAX_LEN {
        return refuse(Violation::StringTooLong);
    }
    match shared_part(filter) {
        Some(rest) => check_shared(rest),
        None => check_levels(filter),
    }
}

/// What stands behind `$share/`.
#[inline]
pub(crate) fn shared_part(filter: &[u8]) -> Option<&[u8]> {
    match filter {
        [b'$', b's', b'h', b'a', b'r', b'e', b'/', rest @ ..] => Some(rest),
        _ => None,
    }
}

/// Name and filter behind `$share/` [MQTT-4.8.2-1] [MQTT-4.8.2-2].
fn check_shared(rest: &[u8]) -> Result<(), TopicError> {
    let mut parts = rest.splitn(2, |&b| b == b'/');
    match (parts.next(), parts.next()) {
        (Some(name @ [_, ..]), Some(filter @ [_, ..])) if !has_wildcard(name) => {
            if has_nul(name) {
                return refuse(Violation::StringNul);
            }
            check_levels(filter)
        }
        _ => refuse(Violation::ShareName),
    }
}

#[inline]
fn check_levels(filter: &[u8]) -> Result<(), TopicError> {
    if filter.is_empty() {
        return refuse(Violation::TopicEmpty);
    }
    if has_forbidden(filter) { check_wildcards(filter) } else { Ok(()) }
}

fn check_wildcards(filter: &[u8]) -> Result<(), TopicError> {
    let mut before = b'/';
    let mut rest = filter;
    while let [byte, behind @ ..] = rest {
        let starts_level = before == b'/';
        match byte {
            0 => return refuse(Violation::StringNul),
            b'#' if !starts_level || !behind.is_empty() => return refuse(Violation::FilterHash),
            b'+' if !starts_level || !matches!(behind, [] | [b'/', ..]) => {
                return refuse(Violation::FilterPlus);
            }
            _ => {}
        }
        before = *byte;
        rest = behind;
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

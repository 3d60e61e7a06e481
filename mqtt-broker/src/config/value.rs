//! Times and sizes as people write them.

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A time: `"250ms"`, `"10s"`, `"5m"`, `"2h"`, `"14d"`, `"2w"`, or `"never"` for no end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

impl Span {
    /// No end.
    pub const NEVER: Self = Self(Duration::MAX);

    /// So many seconds.
    #[must_use]
    pub const fn secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }

    /// The time, if it has an end.
    #[must_use]
    pub fn end(self) -> Option<Duration> {
        (self != Self::NEVER).then_some(self.0)
    }

    /// Whole seconds, `u32::MAX` for no end.
    pub(crate) fn whole_secs(self) -> u32 {
        self.end().map_or(u32::MAX, |time| u32::try_from(time.as_secs()).unwrap_or(u32::MAX))
    }
}

/// A number of bytes: `"512B"`, `"64KiB"`, `"2MiB"`, `"1GiB"`, or the number itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

const UNITS: [(&str, u64); 6] =
    [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000), ("w", 604_800_000)];
const SIZES: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

const SPAN: &str = "a time like \"10s\", with one of ms, s, m, h, d, w, or \"never\"";
const SIZE: &str = "a size like \"64KiB\", with one of B, KiB, MiB, GiB, or a number of bytes";

/// The number and the unit behind it.
fn split(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim()))
}

impl FromStr for Span {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if matches!(text, "never" | "none") {
            return Ok(Self::NEVER);
        }
        let parsed = split(text).and_then(|(number, unit)| {
            let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit)?;
            Some(Self(Duration::from_millis(number.checked_mul(*factor)?)))
        });
        parsed.ok_or(SPAN)
    }
}

impl FromStr for Size {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = split(text).and_then(|(number, unit)| {
            let (_, factor) = SIZES.iter().find(|(name, _)| *name == unit)?;
            number.checked_mul(*factor).map(Self)
        });
        parsed.ok_or(SIZE)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(time) = self.end() else { return f.write_str("never") };
        let millis = time.as_millis();
        let fits = |factor: u64| millis.is_multiple_of(u128::from(factor)) && millis >= u128::from(factor);
        let (unit, factor) = UNITS.iter().rev().find(|(_, factor)| fits(*factor)).unwrap_or(&("s", 1000));
        write!(f, "{}{unit}", millis / u128::from(*factor))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |factor: u64| self.0.is_multiple_of(factor) && self.0 >= factor;
        let (unit, factor) = SIZES.iter().find(|(_, factor)| fits(*factor)).unwrap_or(&("B", 1));
        write!(f, "{}{unit}", self.0 / factor)
    }
}

struct Text<T>(&'static str, std::marker::PhantomData<T>);

impl<T: FromStr<Err = &'static str>> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

struct Number;

impl Visitor<'_> for Number {
    type Value = Size;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SIZE)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
        text.parse().map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Size, E> {
        u64::try_from(number).map(Size).map_err(|_| E::invalid_value(de::Unexpected::Signed(number), &self))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Size, E> {
        Ok(Size(number))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text(SPAN, std::marker::PhantomData))
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Number)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_read_and_written() {
        for (text, time) in
            [("250ms", 250), ("10s", 10_000), ("5m", 300_000), ("2h", 7_200_000), ("14d", 1_209_600_000)]
        {
            assert_eq!(text.parse(), Ok(Span(Duration::from_millis(time))));
        }
        for text in ["250ms", "10s", "90s", "1m", "2w", "never", "0s"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
        }
        for (text, bytes) in [("512B", 512), ("64KiB", 65_536), ("2 MiB", 2_097_152), ("1GiB", 1 << 30)] {
            assert_eq!(text.parse(), Ok(Size(bytes)));
        }
        assert_eq!(
            (Size(65_536).to_string(), Size(1).to_string(), Size(0).to_string()),
            ("64KiB".into(), "1B".into(), "0B".into())
        );
        for text in ["", "10", "s", "-1s", "10 years", "99999999999999999999s", "18446744073709551615w"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
        for text in ["", "10", "KB", "1kb", "-1B", "99999999999999999GiB"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }
}

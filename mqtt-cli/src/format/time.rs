//! The local time of a message, in the words of strftime.

use chrono::format::{Item, StrftimeItems};
use chrono::{DateTime, FixedOffset, Local};

/// When a message arrived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment(DateTime<FixedOffset>);

impl Moment {
    pub(crate) fn now() -> Self {
        Self(Local::now().fixed_offset())
    }

    /// What strftime makes of `format` in the C locale. What it does not know stays as it is.
    pub(super) fn strftime(&self, format: &str) -> String {
        let items: Vec<Item<'_>> = StrftimeItems::new_lenient(format).collect();
        self.0.format_with_items(items.iter()).to_string()
    }

    /// As in `2016-08-10T09:47:38+0100`.
    pub(super) fn iso8601(&self) -> String {
        self.strftime("%FT%T%z")
    }

    /// As in `2020-05-06T22:12:00.000000+0100`.
    pub(super) fn iso8601_micros(&self) -> String {
        self.strftime("%FT%T%.6f%z")
    }

    /// As in `1470818943.786368637`.
    pub(super) fn unix(&self) -> String {
        format!("{}.{:09}", self.0.timestamp(), self.nanoseconds())
    }

    /// Nanoseconds since the second began.
    pub(super) fn nanoseconds(&self) -> u32 {
        self.0.timestamp_subsec_nanos()
    }
}

#[cfg(test)]
impl Moment {
    /// A moment in a zone one hour east of Greenwich.
    pub(super) fn example() -> Self {
        Self("2021-02-03T04:05:06.078901234+01:00".parse().unwrap())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_people_know_them() {
        let at = Moment::example();
        assert_eq!(at.iso8601(), "2021-02-03T04:05:06+0100");
        assert_eq!(at.iso8601_micros(), "2021-02-03T04:05:06.078901+0100");
        assert_eq!(at.unix(), "1612321506.078901234");
    }

    /// What `date` and glibc print in the C locale.
    #[test]
    fn directives_are_those_of_the_c_locale() {
        let at = Moment::example();
        for (directive, expected) in [
            ("%a %A %b %B %h", "Wed Wednesday Feb February Feb"),
            ("%c", "Wed Feb  3 04:05:06 2021"),
            ("%C %d %D %e %F", "20 03 02/03/21  3 2021-02-03"),
            ("%g %G %H %I %j", "21 2021 04 04 034"),
            ("%k %l %m %M", " 4  4 02 05"),
            ("%p %P %r", "AM am 04:05:06 AM"),
            ("%R %s %S %T", "04:05 1612321506 06 04:05:06"),
            ("%u %U %V %w %W", "3 05 05 3 05"),
            ("%x %X %y %Y %z", "02/03/21 04:05:06 21 2021 +0100"),
        ] {
            assert_eq!(at.strftime(directive), expected, "{directive}");
        }
    }

    #[test]
    fn what_nobody_knows_stays() {
        assert_eq!(Moment::example().strftime("%Q%!"), "%Q%!");
    }
}

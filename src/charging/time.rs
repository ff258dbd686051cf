//! Points in time and stretches of it. Nothing here reads a clock: `now` is always handed in.

use jiff::fmt::temporal::DateTimePrinter;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "i64", into = "i64")]
pub struct Timestamp(i64);

impl Timestamp {
    /// The latest point that a calendar can still name (the year 9999); later input is clamped to it.
    const MAX_MILLIS: i64 = 253_402_207_200_000;
    const MIN_MILLIS: i64 = -62_135_596_800_000;

    /// Later than anything that happens.
    pub const LATEST: Self = Self(Self::MAX_MILLIS);

    pub const fn from_millis(millis: i64) -> Self {
        if millis > Self::MAX_MILLIS {
            Self(Self::MAX_MILLIS)
        } else if millis < Self::MIN_MILLIS {
            Self(Self::MIN_MILLIS)
        } else {
            Self(millis)
        }
    }

    pub const fn from_secs(secs: i64) -> Self {
        Self::from_millis(secs.saturating_mul(1000))
    }

    pub const fn millis(self) -> i64 {
        self.0
    }

    /// `self + span`, at most the end of the calendar.
    #[must_use]
    pub const fn after(self, span: Span) -> Self {
        Self::from_millis(self.0.saturating_add(span.0))
    }

    #[must_use]
    pub const fn before(self, span: Span) -> Self {
        Self::from_millis(self.0.saturating_sub(span.0))
    }

    /// From `earlier` to `self`; zero when `earlier` is the later one.
    pub const fn since(self, earlier: Self) -> Span {
        let millis = self.0.saturating_sub(earlier.0);
        Span(if millis < 0 { 0 } else { millis })
    }

    /// The same instant on the calendar of `zone`.
    pub fn in_zone(self, zone: &TimeZone) -> jiff::Zoned {
        self.on_calendar().to_zoned(zone.clone())
    }

    fn on_calendar(self) -> jiff::Timestamp {
        jiff::Timestamp::from_millisecond(self.0).expect("the constructor keeps every timestamp inside the calendar")
    }

    /// RFC 3339 in UTC, with milliseconds: the spelling of every time that leaves the program as text.
    pub fn rfc3339(self) -> String {
        const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(3));
        PRINTER.timestamp_to_string(&self.on_calendar())
    }
}

/// As [`Timestamp::from_millis`]: no calendar names more, whatever was stored.
impl From<i64> for Timestamp {
    fn from(millis: i64) -> Self {
        Self::from_millis(millis)
    }
}

impl From<Timestamp> for i64 {
    fn from(at: Timestamp) -> Self {
        at.millis()
    }
}

impl From<jiff::Timestamp> for Timestamp {
    fn from(at: jiff::Timestamp) -> Self {
        Self::from_millis(at.as_millisecond())
    }
}

/// A stretch of time in milliseconds, never negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Span(i64);

impl Span {
    pub const fn from_millis(millis: u32) -> Self {
        Self(millis as i64)
    }

    pub const fn from_secs(secs: u32) -> Self {
        Self((secs as i64).saturating_mul(1000))
    }

    pub const fn millis(self) -> i64 {
        self.0
    }

    /// Whole seconds, rounded down.
    pub const fn secs(self) -> i64 {
        self.0 / 1000
    }

    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

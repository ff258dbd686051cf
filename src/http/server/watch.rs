//! When a connection has had its chance.
//!
//! The connection itself only counts ([`Traffic`]: relaxed atomics, no clock); once in a while somebody looks at the
//! counts of all connections and measures how long they have stood still ([`Watch`]). So deadlines cost the hot path
//! nothing, and all rules for ending a connection are on this page.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

use super::settings::Settings;

/// After a polite end (GOAWAY, `connection: close`) was asked for, how long the peer may take to comply. Well-behaved
/// peers need a round trip and their last answers.
const PARTING_DEADLINE: Duration = Duration::from_secs(30);

/// What happens on one connection, counted where it happens.
#[derive(Debug)]
pub(super) struct Traffic {
    protocol: AtomicU8,
    /// HTTP/1.1 only: octets of a request have come, its header is not complete.
    header_open: AtomicBool,
    requests: AtomicU64,
    in_flight: AtomicU32,
    /// Answers that are ready and not yet written out in full, by the period in which they became ready.
    unread: [AtomicU32; 2],
    period: AtomicU8,
    written: AtomicU64,
    write_blocked: AtomicBool,
}

/// What the first octets of a connection said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Protocol {
    /// The TLS handshake, which has its own deadline.
    Handshake = 0,
    Unknown = 1,
    Http1 = 2,
    Http2 = 3,
}

impl Traffic {
    pub(super) fn new(protocol: Protocol) -> Self {
        Self {
            protocol: AtomicU8::new(protocol as u8),
            header_open: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            in_flight: AtomicU32::new(0),
            unread: [AtomicU32::new(0), AtomicU32::new(0)],
            period: AtomicU8::new(0),
            written: AtomicU64::new(0),
            write_blocked: AtomicBool::new(false),
        }
    }

    pub(super) fn is(&self, protocol: Protocol) -> bool {
        self.protocol.load(Relaxed) == protocol as u8
    }

    pub(super) fn speaks(&self, protocol: Protocol) {
        self.protocol.store(protocol as u8, Relaxed);
    }

    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// Octets came in. Between requests of HTTP/1.1 they can only be the start of the next one.
    pub(super) fn received(&self) {
        if self.is(Protocol::Http1) && self.in_flight() == 0 {
            self.header_open.store(true, Relaxed);
        }
    }

    pub(super) fn wrote(&self, octets: u64) {
        self.written.fetch_add(octets, Relaxed);
        self.write_blocked.store(false, Relaxed);
    }

    pub(super) fn write_blocked(&self) {
        self.write_blocked.store(true, Relaxed);
    }

    pub(super) fn request_begins(&self) {
        self.header_open.store(false, Relaxed);
        self.requests.fetch_add(1, Relaxed);
        self.in_flight.fetch_add(1, Relaxed);
    }

    /// Returns the period, which the caller gives back when the answer is written.
    pub(super) fn answer_is_ready(&self) -> u8 {
        let period = self.period.load(Relaxed);
        self.unread(period).fetch_add(1, Relaxed);
        period
    }

    pub(super) fn request_ends(&self, answered_in: Option<u8>) {
        self.in_flight.fetch_sub(1, Relaxed);
        if let Some(period) = answered_in {
            self.unread(period).fetch_sub(1, Relaxed);
        }
    }

    fn unread(&self, period: u8) -> &AtomicU32 {
        &self.unread[usize::from(period & 1)]
    }

    /// Begins the next period. True if an answer of the period before last still waits.
    fn turn_period(&self) -> bool {
        let next = self.period.load(Relaxed) ^ 1;
        self.period.store(next, Relaxed);
        self.unread(next).load(Relaxed) > 0
    }
}

/// What one look at a connection came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Stays,
    /// Is told to finish: GOAWAY or `connection: close`.
    Leaves,
    /// Is closed now; the text says why, for the log.
    Closed(&'static str),
}

/// How long the counts of one connection have stood still.
#[derive(Debug)]
pub(super) struct Watch {
    opened: Instant,
    age_max: Duration,
    period_began: Instant,
    silent: Still,
    header: Still,
    blocked: Still,
    idle: Still,
    leaving_since: Option<Instant>,
}

impl Watch {
    /// `nth`: the number of the connection, which spreads the ages at which connections are closed.
    pub(super) fn new(now: Instant, nth: u64, settings: &Settings) -> Self {
        let sixteenths = u32::try_from(nth % 16).unwrap_or_default();
        Self {
            opened: now,
            age_max: settings.age_max - settings.age_max / 10 * sixteenths / 16,
            period_began: now,
            silent: Still::default(),
            header: Still::default(),
            blocked: Still::default(),
            idle: Still::default(),
            leaving_since: None,
        }
    }

    pub(super) fn look(&mut self, now: Instant, traffic: &Traffic, settings: &Settings) -> Verdict {
        let requests = traffic.requests.load(Relaxed);
        let when = |condition: bool, count: u64| condition.then_some(count);

        let silent = self.silent.lasts(now, when(traffic.is(Protocol::Unknown), 0));
        if silent >= settings.first_octets_deadline {
            return Verdict::Closed("no request line or HTTP/2 preface in time");
        }
        let header = self.header.lasts(now, when(traffic.header_open.load(Relaxed), requests));
        if header >= settings.header_deadline {
            return Verdict::Closed("header not complete in time");
        }
        let written = traffic.written.load(Relaxed);
        let blocked = self.blocked.lasts(now, when(traffic.write_blocked.load(Relaxed), written));
        if blocked >= settings.answer_deadline {
            return Verdict::Closed("takes nothing off the connection");
        }
        if now - self.period_began >= settings.answer_deadline {
            self.period_began = now;
            if traffic.turn_period() {
                return Verdict::Closed("does not read an answer");
            }
        }
        if let Some(since) = self.leaving_since {
            let overdue = now - since >= PARTING_DEADLINE;
            return if overdue { Verdict::Closed("does not leave when told to") } else { Verdict::Stays };
        }
        let idle = self.idle.lasts(now, when(traffic.in_flight() == 0, requests));
        if idle >= settings.idle_close || now - self.opened >= self.age_max {
            self.leaving_since = Some(now);
            return Verdict::Leaves;
        }
        Verdict::Stays
    }
}

/// Since when a condition has held with an unchanged count.
#[derive(Debug, Default)]
struct Still(Option<(u64, Instant)>);

impl Still {
    /// `count` is `None` while the condition does not hold. The first look at a state only notes it.
    fn lasts(&mut self, now: Instant, count: Option<u64>) -> Duration {
        match (count, self.0) {
            (Some(count), Some((noted, since))) if noted == count => now - since,
            (count, _) => {
                self.0 = count.map(|count| (count, now));
                Duration::ZERO
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks once a second, as the server does; `None` if the connection stays for the whole time.
    fn seconds_until(verdict: Verdict, traffic: &Traffic, most: u64, mut each: impl FnMut(u64)) -> Option<u64> {
        let settings = Settings::default();
        let start = Instant::now();
        let mut watch = Watch::new(start, 0, &settings);
        (0..most).find(|second| {
            each(*second);
            watch.look(start + Duration::from_secs(*second), traffic, &settings) == verdict
        })
    }

    #[test]
    fn silence_ends_after_five_seconds() {
        let traffic = Traffic::new(Protocol::Unknown);
        let closed = Verdict::Closed("no request line or HTTP/2 preface in time");
        assert_eq!(seconds_until(closed, &traffic, 60, |_| {}), Some(5));
    }

    #[test]
    fn a_header_may_not_take_longer_however_it_drips() {
        let traffic = Traffic::new(Protocol::Http1);
        let closed = Verdict::Closed("header not complete in time");
        assert_eq!(seconds_until(closed, &traffic, 60, |_| traffic.received()), Some(5));
    }

    #[test]
    fn headers_of_one_request_after_another_are_not_one_slow_header() {
        let traffic = Traffic::new(Protocol::Http1);
        let closed = Verdict::Closed("header not complete in time");
        let each = |_| {
            traffic.request_begins();
            traffic.request_ends(None);
            traffic.received();
        };
        assert_eq!(seconds_until(closed, &traffic, 60, each), None);
    }

    #[test]
    fn an_unread_answer_ends_the_connection_even_if_others_are_read() {
        let traffic = Traffic::new(Protocol::Http2);
        traffic.request_begins();
        traffic.answer_is_ready();
        let each = |_| {
            traffic.request_begins();
            let period = traffic.answer_is_ready();
            traffic.request_ends(Some(period));
        };
        let closed = Verdict::Closed("does not read an answer");
        assert_eq!(seconds_until(closed, &traffic, 60, each), Some(30));
    }

    #[test]
    fn a_blocked_write_ends_the_connection_unless_it_moves() {
        let traffic = Traffic::new(Protocol::Http1);
        traffic.request_begins();
        let closed = Verdict::Closed("takes nothing off the connection");
        assert_eq!(seconds_until(closed, &traffic, 60, |_| traffic.write_blocked()), Some(15));
        let each = |_| {
            traffic.wrote(1);
            traffic.write_blocked();
        };
        assert_eq!(seconds_until(closed, &traffic, 60, each), None);
    }

    #[test]
    fn idle_connections_leave_and_working_ones_stay() {
        let traffic = Traffic::new(Protocol::Http2);
        assert_eq!(seconds_until(Verdict::Leaves, &traffic, 1000, |_| {}), Some(300));
        traffic.request_begins();
        assert_eq!(seconds_until(Verdict::Leaves, &traffic, 1000, |_| {}), None);
        assert_eq!(seconds_until(Verdict::Leaves, &traffic, 2000, |_| {}), Some(1800));
    }

    #[test]
    fn who_does_not_leave_when_told_to_is_closed() {
        let traffic = Traffic::new(Protocol::Http2);
        let closed = Verdict::Closed("does not leave when told to");
        assert_eq!(seconds_until(closed, &traffic, 1000, |_| {}), Some(330));
    }
}

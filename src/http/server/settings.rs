//! What a listener allows. Each value says its unit, its default and what breaks on either side of it.

use std::time::Duration;

use crate::http::admission::Limits;
use crate::http::layers::BodyLimits;

/// The limits of one listener. The defaults suit the Nchf services: few peers, long connections, small bodies.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Connections open at once; default 2048, each worth some 50 KiB at rest. Too small: a fleet that reconnects after
    /// a restart is refused. Too large: the process runs out of file descriptors (each takes one) before this limit says
    /// why.
    pub connections_max: usize,
    /// Connections open at once from one address; default 256. Too small: a proxy that fronts many consumers is refused.
    /// Too large: one broken consumer that reconnects in a loop takes all of `connections_max`.
    pub connections_per_peer_max: usize,
    /// Requests in work at once on this listener; default 1024. Too small: bursts are answered 503 although there is
    /// time. Too large: under overload all answers arrive after the consumer's time-out, so that all work is wasted.
    pub in_flight_max: u32,
    /// Percent of each limit of work in flight that is open to Creates and events, and to what is no charging request;
    /// default 80. Too small: new sessions are refused while there is room. Too large: a storm of Creates crowds out
    /// those that report and end sessions.
    pub in_flight_create_percent: u32,
    /// The same for Updates; the rest is for Releases. Default 95. Too small: running sessions lose quota while there is
    /// room. Too large: sessions cannot end, and keep what they hold.
    pub in_flight_update_percent: u32,
    /// Percent of `in_flight_max` that one peer address may have in work; default 50. Too small: a load balancer that all
    /// consumers are behind, which is one address, is refused. Too large: one consumer takes the place of all others.
    pub in_flight_per_peer_percent: u32,
    /// Percent of `in_flight_max` that one connection may have in work, whatever `streams_max` says: work outlives a
    /// stream that is reset. Default 25. Too small: a consumer with one connection is refused. Too large: as above.
    pub in_flight_per_connection_percent: u32,

    /// From the connection to its first octets, those that tell HTTP/2 from HTTP/1; default 5 s. Too small: consumers
    /// that open connections ahead of use over a slow path are cut. Too large: silent connections hold their places.
    pub first_octets_deadline: Duration,
    /// For the whole TLS handshake; default 5 s. Too small: consumers with slow certificate chains are cut. Too large:
    /// half-open handshakes hold their places.
    pub tls_handshake_deadline: Duration,
    /// HTTP/1.1: from the first octet of a request to the end of its header; default 5 s. Too small: hand-typed requests
    /// and lossy paths are cut. Too large: one octet per second holds a place. HTTP/2 headers that never end are found
    /// by the ping below, which nobody can answer inside an unfinished header block.
    pub header_deadline: Duration,
    /// From the first wait for the body to its end; default 2 s. Too small: 408 on lossy paths. Too large: unfinished
    /// bodies hold admission.
    pub body_deadline: Duration,
    /// Longest request body, octets; default 256 KiB. The longest real messages (hundreds of containers) are below 100
    /// KiB. Too small: 413 for a legitimate report, which the consumer will repeat for ever. Too large: memory under
    /// attack is this times `in_flight_max`.
    pub body_octets_max: usize,
    /// For the consumer to take an answer off the connection, checked by halves: cut after one to two times this;
    /// default 15 s. Too small: large pages over slow links are cut. Too large: unread answers hold memory.
    pub answer_deadline: Duration,
    /// Without any request, after which the connection is closed politely; default 300 s. Too small: consumers
    /// reconnect between messages. Too large: forgotten connections hold their places.
    pub idle_close: Duration,
    /// Age at which a connection is closed politely, less up to a tenth so that not all go at once; default 1800 s. Too
    /// small: reconnecting becomes work. Too large: load does not spread to instances started later.
    pub age_max: Duration,

    /// HTTP/2: streams open at once on one connection; default 128. Too small: a busy consumer queues on its side. Too
    /// large: memory, and one connection fills its part of `in_flight_max`.
    pub streams_max: u32,
    /// HTTP/2: octets of one request body that may be under way unread; default 64 KiB. Too small: a body takes several
    /// round trips. Too large: memory per stream.
    pub stream_window_octets: u32,
    /// HTTP/2: the same for all streams of a connection together; default 1 MiB. Too small: streams wait for each
    /// other. Too large: memory per connection.
    pub connection_window_octets: u32,
    /// HTTP/2: octets of answers a stream may have queued here; default 64 KiB. Too small: long answers wake their
    /// producer often. Too large: memory per unread answer.
    pub send_buffer_octets: usize,
    /// Longest header list, octets decoded; default 16 KiB. Too small: requests with large tokens are refused. Too
    /// large: memory per stream, and work for whoever sends thousands of tiny headers.
    pub header_octets_max: u32,
    /// HTTP/2: streams the consumer opened and reset before they were looked at; default 128, as many as it may have open,
    /// then the connection ends. They pile up while this program waits for a processor. Too small: a consumer that cancels
    /// a burst is cut off, with all that it has under way. Too large: opening and resetting costs us work and them nothing
    /// ("rapid reset").
    pub pending_reset_streams_max: usize,
    /// HTTP/2: streams this server had to reset for the consumer's errors; default 256, then the connection ends. Too
    /// small: a sloppy consumer is cut off. Too large: the same attack by provoked resets.
    pub error_reset_streams_max: usize,
    /// HTTP/2: pause between pings; default 15 s. Too small: traffic on idle connections. Too large: connections that a
    /// firewall has forgotten are found late.
    pub ping_interval: Duration,
    /// HTTP/2: wait for the answer to a ping; default 10 s. Too small: a consumer's long pause cuts its connection. Too
    /// large: as above.
    pub ping_deadline: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connections_max: 2048,
            connections_per_peer_max: 256,
            in_flight_max: 1024,
            in_flight_create_percent: 80,
            in_flight_update_percent: 95,
            in_flight_per_peer_percent: 50,
            in_flight_per_connection_percent: 25,
            first_octets_deadline: Duration::from_secs(5),
            tls_handshake_deadline: Duration::from_secs(5),
            header_deadline: Duration::from_secs(5),
            body_deadline: Duration::from_secs(2),
            body_octets_max: 256 * 1024,
            answer_deadline: Duration::from_secs(15),
            idle_close: Duration::from_secs(300),
            age_max: Duration::from_secs(1800),
            streams_max: 128,
            stream_window_octets: 64 * 1024,
            connection_window_octets: 1024 * 1024,
            send_buffer_octets: 64 * 1024,
            header_octets_max: 16 * 1024,
            pending_reset_streams_max: 128,
            error_reset_streams_max: 256,
            ping_interval: Duration::from_secs(15),
            ping_deadline: Duration::from_secs(10),
        }
    }
}

impl Settings {
    pub(super) fn admission_limits(&self) -> Limits {
        Limits {
            in_flight_max: self.in_flight_max,
            create_percent: self.in_flight_create_percent,
            update_percent: self.in_flight_update_percent,
            per_peer_percent: self.in_flight_per_peer_percent,
            per_connection_percent: self.in_flight_per_connection_percent,
        }
    }

    pub(super) fn body_limits(&self) -> BodyLimits {
        BodyLimits { octets_max: self.body_octets_max, deadline: self.body_deadline }
    }

    /// How often connections are looked at. A quarter of the shortest deadline keeps every deadline within 25 % of what
    /// it says; once a second is often enough for any, and bounds the cost.
    pub(super) fn look_every(&self) -> Duration {
        let shortest = [self.first_octets_deadline, self.header_deadline, self.answer_deadline, self.idle_close]
            .into_iter()
            .min()
            .unwrap_or_default();
        (shortest / 4).clamp(Duration::from_millis(5), Duration::from_secs(1))
    }
}

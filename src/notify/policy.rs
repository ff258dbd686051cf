//! Which addresses a notification may be sent to.
//!
//! Network functions live on private networks, so those are reached by default, and nothing else: not the public
//! internet, not this machine, and never what has a meaning only on this link or in this cloud. `notify.allow` adds to
//! that, and each entry opens only what it names:
//!
//! | kind of address | opened by |
//! |---|---|
//! | private | the default rule |
//! | public | a network that contains it, or the host's name |
//! | loopback | a network of nothing but loopback addresses, or the host's name |
//! | unspecified, link-local, multicast, broadcast, metadata, reserved | this one address (`/32`, `/128`) |
//!
//! A port of another kind of service (below 1024 but 80 and 443, data bases, brokers, cluster control) is opened only
//! by an entry that names the port too. Our own listeners are never reached. However a host is spelled, what is judged
//! is the address it resolves to; an IPv4 address inside an IPv6 address is judged as what it is.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::str::FromStr;

use super::outcome::Denial;

/// Decides over addresses.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    pub allow: Vec<Allowed>,
    pub own: Vec<SocketAddr>,
}

impl Policy {
    /// Whether `address`, to which `host` resolved, may be connected to.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn judge(&self, host: &str, address: SocketAddr) -> Result<(), Denial> {
        let ip = address.ip().to_canonical();
        if self.own.iter().any(|own| is_reached_at(own, ip, address.port())) {
            return Err(Denial::OwnListener);
        }
        let covers = |allowed: &&Allowed| allowed.covers(host, ip, address.port());
        if is_of_another_service(address.port()) && !self.allow.iter().filter(covers).any(|one| one.port.is_some()) {
            return Err(Denial::Port(address.port()));
        }
        let kind = Kind::of(ip);
        if kind == Kind::Private || self.allow.iter().filter(covers).any(|allowed| allowed.opens(kind)) {
            return Ok(());
        }
        Err(Denial::Address(kind))
    }
}

/// What an address is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// RFC 1918, RFC 6598 (carriers' own), RFC 2544 (laboratories) and RFC 4193 networks.
    Private,
    Public,
    Loopback,
    Unspecified,
    LinkLocal,
    Multicast,
    Broadcast,
    /// Where a cloud tells its machines their secrets, outside the link-local network.
    Metadata,
    /// Without a meaning as a peer's address, or with one that has been withdrawn.
    Reserved,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Private => "private",
            Self::Public => "public",
            Self::Loopback => "loopback",
            Self::Unspecified => "unspecified",
            Self::LinkLocal => "link-local",
            Self::Multicast => "multicast",
            Self::Broadcast => "broadcast",
            Self::Metadata => "cloud metadata",
            Self::Reserved => "reserved",
        })
    }
}

impl Kind {
    pub fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self::of_v4(ip),
            IpAddr::V6(ip) => Self::of_v6(ip),
        }
    }

    fn of_v4(ip: Ipv4Addr) -> Self {
        match ip.octets() {
            [0, 0, 0, 0] => Self::Unspecified,
            [127, ..] => Self::Loopback,
            [169, 254, ..] => Self::LinkLocal,
            // Alibaba, Azure and Oracle.
            [100, 100, 100, 200] | [168, 63, 129, 16] | [192, 0, 0, 192] => Self::Metadata,
            [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] | [198, 18..=19, ..] => Self::Private,
            [224..=239, ..] => Self::Multicast,
            [255, 255, 255, 255] => Self::Broadcast,
            [0 | 240..=255, ..] | [192, 0, 0 | 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Self::Reserved,
            _ => Self::Public,
        }
    }

    fn of_v6(ip: Ipv6Addr) -> Self {
        match ip.segments() {
            [0, 0, 0, 0, 0, 0, 0, 0] => Self::Unspecified,
            [0, 0, 0, 0, 0, 0, 0, 1] => Self::Loopback,
            // RFC 6052 and RFC 8215: a translator sends it on to the IPv4 address in its last 32 bits.
            [0x64, 0xff9b, 0, 0, 0, 0, _, _] | [0x64, 0xff9b, 1, ..] => {
                let [.., a, b, c, d] = ip.octets();
                match Self::of_v4(Ipv4Addr::new(a, b, c, d)) {
                    kind @ (Self::Private | Self::Public) => kind,
                    Self::Loopback
                    | Self::Unspecified
                    | Self::LinkLocal
                    | Self::Multicast
                    | Self::Broadcast
                    | Self::Metadata
                    | Self::Reserved => Self::Reserved,
                }
            }
            [0xfe80..=0xfebf, ..] => Self::LinkLocal,
            [0xff00..=0xffff, ..] => Self::Multicast,
            // Amazon and Google.
            [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254] | [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254] => Self::Metadata,
            [0xfc00..=0xfdff, ..] => Self::Private,
            // Teredo and 6to4 hide IPv4 addresses behind relays that nobody runs any more; the last is for documents.
            [0x2001, 0, ..] | [0x2002, ..] | [0x2001, 0xdb8, ..] => Self::Reserved,
            [0x2000..=0x3fff, ..] => Self::Public,
            _ => Self::Reserved,
        }
    }
}

/// Ports of services that are not network functions: what may be learned or done there by sending a few octets is not
/// for consumers to try through us.
fn is_of_another_service(port: u16) -> bool {
    match port {
        80 | 443 => false,
        ..1024 => true,
        // Oracle, SQL Server, MySQL, PostgreSQL, MongoDB, Cassandra, Redis with its cluster bus and Sentinel, memcached.
        1433 | 1521 | 3306 | 5432 | 27017 | 9042 | 6379 | 16379 | 26379 | 11211
        // NFS, Docker, etcd, Kubernetes' agents, remote desktops, AMQP, Kafka, Diameter.
        | 2049 | 2375 | 2376 | 2379 | 2380 | 10250 | 3389 | 5900 | 5672 | 9092 | 3868 => true,
        _ => false,
    }
}

/// A listener on all addresses is reached at each address of this machine.
fn is_reached_at(listener: &SocketAddr, ip: IpAddr, port: u16) -> bool {
    let own = listener.ip().to_canonical();
    listener.port() == port && (own == ip || own.is_unspecified() && is_of_this_machine(ip))
}

/// The kernel knows which addresses are its own: it sends to them from themselves. Nothing is sent to find out.
fn is_of_this_machine(ip: IpAddr) -> bool {
    if ip.is_loopback() || ip.is_unspecified() {
        return true;
    }
    let any = if ip.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let source = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((ip, 9))?;
        socket.local_addr()
    });
    // An address that cannot be routed to cannot be connected to either.
    source.is_ok_and(|source| source.ip() == ip)
}

/// An entry of `notify.allow`: a network (`10.0.0.0/8`, `2001:db8::1`) or a host's name, where wanted with a port
/// (`127.0.0.1:9090`, `[::1]:9090`, `smf.example.com:90`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    place: Place,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Network {
        first: IpAddr,
        bits: u32,
    },
    /// In lower case, without the root's dot.
    Host(Box<str>),
}

impl Allowed {
    /// All loopback addresses.
    pub fn loopback() -> [Self; 2] {
        let network = |first, bits| Self { place: Place::Network { first, bits }, port: None };
        [network(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8), network(IpAddr::V6(Ipv6Addr::LOCALHOST), 128)]
    }

    fn covers(&self, host: &str, ip: IpAddr, port: u16) -> bool {
        let is_inside = match &self.place {
            Place::Network { first, bits } => masked(ip, *bits) == Some(*first),
            Place::Host(name) => **name == *host,
        };
        is_inside && self.port.is_none_or(|own| own == port)
    }

    /// Whether this entry is meant for such addresses, and not just for many others around them.
    fn opens(&self, kind: Kind) -> bool {
        match (kind, &self.place) {
            (Kind::Private | Kind::Public, _) | (Kind::Loopback, Place::Host(_)) => true,
            (Kind::Loopback, Place::Network { first, bits }) => first.is_loopback() && (first.is_ipv6() || *bits >= 8),
            (
                Kind::Unspecified
                | Kind::LinkLocal
                | Kind::Multicast
                | Kind::Broadcast
                | Kind::Metadata
                | Kind::Reserved,
                Place::Network { first, bits },
            ) => *bits == length_of(*first),
            (
                Kind::Unspecified
                | Kind::LinkLocal
                | Kind::Multicast
                | Kind::Broadcast
                | Kind::Metadata
                | Kind::Reserved,
                // A name leads wherever its owner wants it to.
                Place::Host(_),
            ) => false,
        }
    }
}

const fn length_of(ip: IpAddr) -> u32 {
    match ip {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// The first address of the network of so many bits around `ip`; `None` where an address has not that many.
fn masked(ip: IpAddr, bits: u32) -> Option<IpAddr> {
    let host_bits = length_of(ip).checked_sub(bits)?;
    Some(match ip {
        IpAddr::V4(ip) => IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() & u32::MAX.checked_shl(host_bits).unwrap_or(0))),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & u128::MAX.checked_shl(host_bits).unwrap_or(0))),
    })
}

impl FromStr for Allowed {
    type Err = String;

    /// The error says what is wrong with the text, without repeating it.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            let place = network(&address.ip().to_string())?;
            return Ok(Self { place, port: Some(address.port()) });
        }
        if text.contains('/') || text.parse::<IpAddr>().is_ok() {
            return Ok(Self { place: network(text)?, port: None });
        }
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, Some(port.parse().map_err(|_| "a port from 1 to 65535 is needed")?)),
            None => (text, None),
        };
        Ok(Self { place: Place::Host(host_name(host)?), port })
    }
}

fn network(text: &str) -> Result<Place, String> {
    let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
    let first: IpAddr = address.parse().map_err(|_| "a network such as 10.0.0.0/8 is needed")?;
    if first.to_canonical() != first {
        return Err(format!("write it as the IPv4 address that it stands for, {}", first.to_canonical()));
    }
    let bits = match bits {
        None => length_of(first),
        Some(bits) => {
            let bits = bits.parse().ok().filter(|bits| *bits <= length_of(first));
            bits.ok_or_else(|| format!("a length from 0 to {} is needed after the slash", length_of(first)))?
        }
    };
    match masked(first, bits) {
        Some(begin) if begin != first => Err(format!("the network with this address begins at {begin}/{bits}")),
        _ => Ok(Place::Network { first, bits }),
    }
}

fn host_name(text: &str) -> Result<Box<str>, &'static str> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let is_name = !name.is_empty()
        && name.len() <= 253
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    // `2130706433` and `127.1` are addresses to a resolver; what they open must be seen from how they are written.
    let ends_in_number = name.rsplit('.').next().is_none_or(|last| last.starts_with(|c: char| c.is_ascii_digit()));
    if !is_name || ends_in_number {
        return Err("a network (10.0.0.0/8), an address or a host's name is needed, where wanted with a port");
    }
    Ok(name.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_or_their_mistake_is_named() {
        for text in [
            "10.0.0.0/8",
            "0.0.0.0/0",
            "127.0.0.1",
            "127.0.0.1:9090",
            "169.254.169.254/32",
            "::/0",
            "::1",
            "[::1]:9090",
            "fd00::/8",
            "localhost",
            "SMF-1.example.com.",
            "smf.example.com:90",
            "smf_1",
        ] {
            assert!(text.parse::<Allowed>().is_ok(), "{text}: {:?}", text.parse::<Allowed>());
        }
        for (text, says) in [
            ("10.0.0.0/33", "0 to 32"),
            ("::/129", "0 to 128"),
            ("10.0.0.0/x", "0 to 32"),
            ("10.0.0.1/8", "10.0.0.0/8"),
            ("fd00::1/8", "fd00::/8"),
            ("::ffff:127.0.0.1", "127.0.0.1"),
            ("::ffff:0:0/96", "0.0.0.0"),
            ("10.0.0/8", "such as"),
            ("", "a network"),
            (".", "a network"),
            ("2130706433", "a network"),
            ("127.1", "a network"),
            ("0x7f.0x1", "a network"),
            ("*", "a network"),
            ("smf:0x", "a port"),
            ("smf:99999", "a port"),
            ("http://smf", "such as"),
            ("a b", "a network"),
        ] {
            let error = text.parse::<Allowed>().unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn a_listener_on_all_addresses_is_known_at_each() {
        let listener: SocketAddr = "0.0.0.0:8000".parse().unwrap();
        let loopback = "127.0.0.2".parse().unwrap();
        assert!(is_reached_at(&listener, loopback, 8000));
        assert!(!is_reached_at(&listener, loopback, 8001));
        // Nobody's: an address for documents.
        assert!(!is_reached_at(&listener, "192.0.2.1".parse().unwrap(), 8000));
        let one: SocketAddr = "127.0.0.1:8000".parse().unwrap();
        assert!(is_reached_at(&one, "127.0.0.1".parse().unwrap(), 8000));
        assert!(!is_reached_at(&one, loopback, 8000));
    }
}

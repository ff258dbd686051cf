//! Which addresses are reached: the policy against an independent reading of the registries, over many spellings.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::LazyLock;

use nchf::notify::policy::{Allowed, Kind, Policy};
use nchf::notify::resolve::{Resolve, SystemResolver};
use nchf::notify::{Denial, Outcome};

use super::stub::{Peer, Says, Stub};
use super::{notifier_with, reauthorize, settings};

/// Networks as the registries list them; the longest one that contains an address says what it is.
const REGISTRY: &[(&str, &str)] = &[
    ("0.0.0.0/0", "public"),
    ("0.0.0.0/8", "reserved"),
    ("0.0.0.0/32", "unspecified"),
    ("10.0.0.0/8", "private"),
    ("100.64.0.0/10", "private"),
    ("100.100.100.200/32", "cloud metadata"),
    ("127.0.0.0/8", "loopback"),
    ("168.63.129.16/32", "cloud metadata"),
    ("169.254.0.0/16", "link-local"),
    ("172.16.0.0/12", "private"),
    ("192.0.0.0/24", "reserved"),
    ("192.0.0.192/32", "cloud metadata"),
    ("192.0.2.0/24", "reserved"),
    ("192.168.0.0/16", "private"),
    ("198.18.0.0/15", "private"),
    ("198.51.100.0/24", "reserved"),
    ("203.0.113.0/24", "reserved"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved"),
    ("255.255.255.255/32", "broadcast"),
    ("::/0", "reserved"),
    ("::/128", "unspecified"),
    ("::1/128", "loopback"),
    ("2000::/3", "public"),
    ("2001::/32", "reserved"),
    ("2001:db8::/32", "reserved"),
    ("2002::/16", "reserved"),
    ("fc00::/7", "private"),
    ("fd00:ec2::254/128", "cloud metadata"),
    ("fd20:ce::254/128", "cloud metadata"),
    ("fe80::/10", "link-local"),
    ("ff00::/8", "multicast"),
];

/// An address as a row of bits.
fn bits(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.octets().iter().map(|octet| format!("{octet:08b}")).collect(),
        IpAddr::V6(ip) => ip.octets().iter().map(|octet| format!("{octet:08b}")).collect(),
    }
}

fn address(bits: &str) -> IpAddr {
    match bits.len() {
        32 => IpAddr::V4(Ipv4Addr::from(u32::from_str_radix(bits, 2).unwrap())),
        _ => IpAddr::V6(Ipv6Addr::from(u128::from_str_radix(bits, 2).unwrap())),
    }
}

/// The length of its addresses in bits, and the bits that they have in common.
fn prefix(network: &str) -> (usize, String) {
    let (address, length) = network.split_once('/').unwrap();
    let bits = bits(address.parse().unwrap());
    (bits.len(), bits[..length.parse().unwrap()].to_owned())
}

static PREFIXES: LazyLock<Vec<(usize, String, &str)>> = LazyLock::new(|| {
    let known = REGISTRY.iter().map(|(network, kind)| (prefix(network), *kind));
    known.map(|((length, prefix), kind)| (length, prefix, kind)).collect()
});

fn expected(ip: IpAddr) -> &'static str {
    static TRANSLATED: LazyLock<[String; 3]> =
        LazyLock::new(|| ["::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48"].map(|network| prefix(network).1));
    let all = bits(ip);
    if all.len() == 128
        && let Some(network) = TRANSLATED.iter().position(|prefix| all.starts_with(prefix))
    {
        let embedded = expected(address(&all[96..]));
        return if network == 0 || ["private", "public"].contains(&embedded) { embedded } else { "reserved" };
    }
    let fits = |(length, prefix, _): &&(usize, String, &str)| *length == all.len() && all.starts_with(prefix);
    PREFIXES.iter().filter(fits).max_by_key(|(_, prefix, _)| prefix.len()).unwrap().2
}

/// The first and last address of every network, their neighbours outside, each also in its forms inside IPv6, and
/// addresses from all over.
fn samples() -> Vec<IpAddr> {
    let mut samples: Vec<IpAddr> = Vec::new();
    for (network, _) in REGISTRY {
        let (length, prefix) = prefix(network);
        let fill = |bit: &str| format!("{prefix}{}", bit.repeat(length - prefix.len()));
        for edge in [address(&fill("0")), address(&fill("1"))] {
            let neighbours = match edge {
                IpAddr::V4(ip) => [ip.to_bits().wrapping_sub(1), ip.to_bits(), ip.to_bits().wrapping_add(1)]
                    .map(|bits| IpAddr::V4(bits.into())),
                IpAddr::V6(ip) => [ip.to_bits().wrapping_sub(1), ip.to_bits(), ip.to_bits().wrapping_add(1)]
                    .map(|bits| IpAddr::V6(bits.into())),
            };
            samples.extend(neighbours);
        }
    }
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for _ in 0..5000 {
        samples.push(IpAddr::V4(Ipv4Addr::from((random() >> 32) as u32)));
        samples.push(IpAddr::V6((u128::from(random()) << 64 | u128::from(random())).into()));
    }
    let v4: Vec<Ipv4Addr> =
        samples.iter().filter_map(|ip| if let IpAddr::V4(ip) = ip { Some(*ip) } else { None }).collect();
    for ip in v4 {
        let last = u128::from(ip.to_bits());
        for network in ["::ffff:0:0", "64:ff9b::", "64:ff9b:1:abcd::", "::", "2002::", "::ffff:0:0:0"] {
            samples.push(IpAddr::V6((network.parse::<Ipv6Addr>().unwrap().to_bits() | last).into()));
        }
        samples.push(IpAddr::V6((0x2002_u128 << 112 | last << 80).into()));
    }
    samples
}

#[test]
fn every_address_is_of_the_kind_that_the_registries_say() {
    let samples = samples();
    for ip in &samples {
        assert_eq!(Kind::of(*ip).to_string(), expected(*ip), "{ip}");
    }
    for (_, kind) in REGISTRY {
        assert!(samples.iter().any(|ip| expected(*ip) == *kind), "no sample is {kind}");
    }
}

#[test]
fn only_private_addresses_are_reached_by_default() {
    for ip in samples() {
        let judged = Policy::default().judge("host", SocketAddr::new(ip, 8000));
        assert_eq!(judged.is_ok(), expected(ip) == "private", "{ip}: {judged:?}");
    }
}

fn policy(entries: &[&str]) -> Policy {
    Policy { allow: entries.iter().map(|entry| entry.parse().unwrap()).collect(), own: Vec::new() }
}

#[test]
fn an_entry_opens_what_it_names_and_nothing_else() {
    for (entry, opened, closed) in [
        (
            "0.0.0.0/0",
            &["8.8.8.8:8000"][..],
            &["127.0.0.1:8000", "169.254.169.254:80", "0.0.0.0:80", "[2600::1]:80"][..],
        ),
        ("::/0", &["[2600::1]:8000"], &["[::1]:8000", "8.8.8.8:80", "[fe80::1]:80", "127.0.0.1:80"]),
        (
            "127.0.0.0/8",
            &["127.0.0.1:8000", "127.9.9.9:80", "[::ffff:127.0.0.1]:80"],
            &["[::1]:80", "[::127.0.0.1]:80"],
        ),
        ("127.0.0.1", &["127.0.0.1:8000"], &["127.0.0.2:8000"]),
        ("126.0.0.0/7", &["126.0.0.1:80"], &["127.0.0.1:80"]),
        ("::1", &["[::1]:8000"], &["127.0.0.1:8000"]),
        ("::/127", &[], &["[::1]:8000", "[::]:8000"]),
        ("169.254.0.0/16", &[], &["169.254.169.254:80"]),
        ("169.254.169.254", &["169.254.169.254:80", "[::ffff:169.254.169.254]:80"], &["169.254.169.253:80"]),
        ("fe80::/10", &[], &["[fe80::1]:80"]),
        ("fe80::1/128", &["[fe80::1]:80"], &["[fe80::2]:80"]),
        ("224.0.0.1/32", &["224.0.0.1:80"], &["224.0.0.2:80"]),
        ("8.8.8.8:22", &["8.8.8.8:22"], &["8.8.8.8:80", "8.8.8.8:23"]),
        ("10.0.0.1:6379", &["10.0.0.1:6379", "10.0.0.1:80"], &["10.0.0.2:6379", "10.0.0.1:22"]),
        ("10.0.0.0/8", &["10.0.0.1:80"], &["10.0.0.1:6379"]),
        // By its name, which below is `smf`.
        ("smf", &["127.0.0.1:80", "8.8.8.8:80", "[::1]:80"], &["169.254.169.254:80", "0.0.0.0:80", "10.0.0.1:25"]),
        ("smf:25", &["127.0.0.1:25"], &["127.0.0.1:80", "169.254.169.254:25"]),
        ("SMF.", &["127.0.0.1:80"], &[]),
        ("amf", &[], &["127.0.0.1:80", "8.8.8.8:80"]),
    ] {
        let policy = policy(&[entry]);
        for address in opened {
            assert_eq!(policy.judge("smf", address.parse().unwrap()), Ok(()), "{entry} opens {address}");
        }
        for address in closed {
            assert!(policy.judge("smf", address.parse().unwrap()).is_err(), "{entry} does not open {address}");
        }
    }
}

#[test]
fn ports_of_other_services_are_not_reached() {
    let all = (0..=u16::MAX).filter(|port| {
        Policy::default().judge("host", SocketAddr::new([10, 0, 0, 1].into(), *port)) == Err(Denial::Port(*port))
    });
    let denied: Vec<u16> = all.collect();
    for port in [0, 22, 25, 53, 111, 445, 1023, 2375, 2379, 3306, 5432, 6379, 10250, 11211, 16379, 26379, 27017] {
        assert!(denied.contains(&port), "{port}");
    }
    for port in [80, 443, 1024, 7777, 8000, 8080, 8443, 9090, 29510] {
        assert!(!denied.contains(&port), "{port}");
    }
}

#[test]
fn our_own_listeners_are_never_reached() {
    let mut policy = policy(&["127.0.0.1", "127.0.0.1:6379"]);
    policy.own =
        ["127.0.0.1:8000", "0.0.0.0:8001", "[::]:8002", "127.0.0.1:6379"].map(|own| own.parse().unwrap()).into();
    for (address, judged) in [
        ("127.0.0.1:8000", Err(Denial::OwnListener)),
        ("[::ffff:127.0.0.1]:8000", Err(Denial::OwnListener)),
        ("127.0.0.1:8001", Err(Denial::OwnListener)),
        ("127.0.0.1:8002", Err(Denial::OwnListener)),
        ("127.0.0.1:6379", Err(Denial::OwnListener)),
        ("127.0.0.1:8003", Ok(())),
        ("10.255.255.1:8000", Ok(())),
    ] {
        assert_eq!(policy.judge("host", address.parse().unwrap()), judged, "{address}");
    }
}

/// What stands for this machine in one way or another, on any system that reads it at all.
const SPELLINGS: &[&str] = &[
    "127.0.0.1",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "2130706433",
    "0x7f000001",
    "017700000001",
    "0x7f.1",
    "127.1",
    "127.0.1",
    "0177.0.0.01",
    "0x7f.0x0.0x0.0x1",
    "127.0.0.1.",
    "0",
    "0.0.0.0",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[0:0:0:0:0:ffff:127.0.0.1]",
    "[::127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[2002:7f00:1::]",
    "169.254.169.254",
    "2852039166",
    "0xa9fea9fe",
    "[::ffff:169.254.169.254]",
    "[fe80::1]",
    "224.0.0.1",
    "[ff02::1]",
    "255.255.255.255",
];

#[tokio::test]
async fn however_this_machine_is_spelled_it_is_not_connected_to() {
    let stub = Stub::always(Says::Status(204)).await;
    let listener = Peer::start(async |_| {}).await;
    let notifier = notifier_with(settings(&[]));
    for host in SPELLINGS {
        for port in [stub.address.port(), listener.address.port()] {
            let uri = format!("http://{host}:{port}/cb");
            let outcome = notifier.send(&reauthorize(&uri)).await;
            let resolved = SystemResolver::default().resolve(host).await;
            match &outcome {
                Outcome::Refused(_) => {}
                // What the system's resolver does not take for an address has none.
                Outcome::Failed { .. } if !resolved.is_ok_and(|found| !found.is_empty()) => {}
                _ => panic!("{host}: {outcome:?}"),
            }
        }
    }
    assert_eq!((stub.accepted(), listener.accepted()), (0, 0));
}

#[tokio::test]
async fn odd_spellings_of_an_allowed_address_are_that_address() {
    let stub = Stub::always(Says::Status(204)).await;
    let notifier = notifier_with(settings(&["127.0.0.0/8"]));
    for host in ["127.0.0.1", "localhost", "Localhost.", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]"] {
        let outcome = notifier.send(&reauthorize(&format!("http://{host}:{}/cb", stub.address.port()))).await;
        assert_eq!(outcome, Outcome::Delivered, "{host}");
    }
}

#[test]
fn the_demo_opens_loopback() {
    let policy = Policy { allow: Allowed::loopback().into(), own: Vec::new() };
    for address in ["127.0.0.1:9090", "127.255.255.254:80", "[::1]:9090"] {
        assert_eq!(policy.judge("localhost", address.parse().unwrap()), Ok(()), "{address}");
    }
    for address in ["169.254.169.254:80", "[::]:80", "127.0.0.1:6379"] {
        assert!(policy.judge("localhost", address.parse().unwrap()).is_err(), "{address}");
    }
}

//! Bytes as each of the small things that are read from outside: times, amounts, references, addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nchf::charging::money::{Amount, BalanceUnit};
use nchf::http::nchf::parse::date_time;
use nchf::notify::Target;
use nchf::notify::policy::{Allowed, Policy};
use nchf::store::{AccountKey, RefCodec};

/// What is read is written and read again as it was; a reference is ours or leads nowhere; and what may be notified
/// without a setting is an address of a private network.
pub fn texts(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        if let Some(at) = date_time(text) {
            assert_eq!(date_time(&at.rfc3339()), Some(at), "{text}");
        }
        for unit in [BalanceUnit::Money, BalanceUnit::Octets, BalanceUnit::Seconds, BalanceUnit::Events] {
            if let Some(amount) = Amount::parse(unit, text) {
                assert_eq!(Amount::parse(unit, &amount.text(unit)), Some(amount), "{text}");
            }
        }
        if let Some(key) = AccountKey::parse(text) {
            assert_eq!(key.to_string(), text);
        }
        assert_eq!(RefCodec::new([3; 16]).account_of(text), None, "nobody makes up a reference");
        let _ = text.parse::<Allowed>();
        address(text);
    }
    reference(data);
    private_only(data);
}

fn address(text: &str) {
    let Some(target) = Target::parse(text) else { return };
    assert_eq!(target.as_str(), text);
    assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "{text}");
    // What is shown of it is its origin, which is an address too.
    let origin = format!("{target:?}");
    let again = Target::parse(origin.strip_suffix("/…").unwrap()).expect("an origin is an address");
    assert_eq!(format!("{again:?}"), origin);
}

/// A reference leads to its account, and with another character it leads nowhere.
fn reference(data: &[u8]) {
    let Some((&[at, by, ref rest @ ..], _)) = data.split_first_chunk::<22>() else { return };
    let (random, key) = rest.split_at(12);
    let refs = RefCodec::new([7; 16]);
    let account = AccountKey(u64::from_be_bytes(key.try_into().unwrap()));
    let reference = refs.mint(account, random.try_into().unwrap());
    assert_eq!(refs.account_of(reference.as_str()), Some(account));
    let mut other = reference.as_str().as_bytes().to_vec();
    let at = usize::from(at) % other.len();
    other[at] = by & 0x7f;
    let other = String::from_utf8(other).unwrap();
    if other != reference.as_str() {
        assert_eq!(refs.account_of(&other), None, "{other} is not {}", reference.as_str());
    }
}

/// An independent reading of what private means.
fn private_only(data: &[u8]) {
    let Some((&[high, low, ref rest @ ..], _)) = data.split_first_chunk::<18>() else { return };
    let v6 = Ipv6Addr::from(*rest);
    let v4 = Ipv4Addr::new(rest[0], rest[1], rest[2], rest[3]);
    for ip in [IpAddr::V6(v6), IpAddr::V4(v4), IpAddr::V6(v4.to_ipv6_mapped())] {
        let port = u16::from_be_bytes([high, low]);
        if Policy::default().judge("smf", SocketAddr::new(ip, port)).is_err() {
            continue;
        }
        let is_private = match ip.to_canonical() {
            IpAddr::V4(ip) => is_private_v4(ip),
            IpAddr::V6(ip) => {
                let [.., a, b, c, d] = ip.octets();
                let is_nat64 = ip.segments()[..2] == [0x64, 0xff9b];
                ip.is_unique_local() || is_nat64 && is_private_v4(Ipv4Addr::new(a, b, c, d))
            }
        };
        assert!(is_private && !ip.is_multicast() && !ip.is_loopback() && !ip.is_unspecified(), "{ip}");
        assert!(port >= 1024 || [80, 443].contains(&port), "{port}");
    }
}

/// With the addresses that carriers and laboratories use among themselves (RFC 6598, RFC 2544).
fn is_private_v4(ip: Ipv4Addr) -> bool {
    let is_shared = ip.octets()[0] == 100 && (64..128).contains(&ip.octets()[1]);
    let is_benchmark = ip.octets()[0] == 198 && (18..20).contains(&ip.octets()[1]);
    (ip.is_private() || is_shared || is_benchmark) && ip != Ipv4Addr::new(100, 100, 100, 200)
}

//! Where a notification goes: a `notifyUri`, taken apart.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use hyper::Uri;
use hyper::http::uri::PathAndQuery;

/// Longest URI that is called; the same that a charging request may carry.
const URI_OCTETS_MAX: usize = 2048;

/// Whom a connection is made to. Two URIs with the same origin share a connection, a breaker and a bound.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    is_tls: bool,
    /// In lower case, without the root's dot and without brackets.
    host: Box<str>,
    port: u16,
}

/// A `notifyUri` that can be called. Shown by its authority only: paths of consumers name subscribers.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    pub(super) origin: Origin,
    pub(super) uri: Uri,
    text: Box<str>,
}

impl Origin {
    pub(super) fn is_tls(&self) -> bool {
        self.is_tls
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// The address, where the host is written as one in the usual way. Other spellings are for the resolver.
    pub(super) fn literal(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

impl Target {
    /// `None` for anything but an absolute http or https URI without user and fragment.
    pub fn parse(text: &str) -> Option<Self> {
        let is_plain = text.len() <= URI_OCTETS_MAX && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        let uri: Uri = text.parse().ok().filter(|_| is_plain)?;
        let is_tls = match uri.scheme_str()? {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'))?;
        let host = authority.host();
        let port = match authority.as_str().strip_prefix(host)? {
            "" if is_tls => 443,
            "" => 80,
            // A port out of range would otherwise pass for none.
            port => port
                .strip_prefix(':')
                .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?
                .parse()
                .ok()?,
        };
        let host = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?.to_string(),
            None => host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase(),
        };
        if host.split('.').any(str::is_empty) {
            return None;
        }
        let origin = Origin { is_tls, host: host.into(), port };
        Some(Self { origin, uri: with_path(uri)?, text: text.into() })
    }

    /// The URI as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Where a `Location` of this target's answer leads.
    pub(super) fn redirected(&self, location: &str) -> Option<Self> {
        if location.starts_with("//") {
            Self::parse(&format!("{}:{location}", self.uri.scheme()?))
        } else if location.starts_with('/') {
            Self::parse(&format!("{}://{}{location}", self.uri.scheme()?, self.uri.authority()?))
        } else {
            Self::parse(location)
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/…", self.origin)
    }
}

/// RFC 9113 8.3.1: `:path` begins with a slash, also where the URI has a query right after its authority.
fn with_path(uri: Uri) -> Option<Uri> {
    let mut parts = uri.into_parts();
    if let Some(path) = &parts.path_and_query
        && !path.as_str().starts_with('/')
    {
        parts.path_and_query = Some(PathAndQuery::try_from(format!("/{}", path.as_str())).ok()?);
    }
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> Option<String> {
        Some(Target::parse(text)?.origin.to_string())
    }

    #[test]
    fn an_origin_has_one_spelling() {
        for (text, expected) in [
            ("http://smf", "http://smf:80"),
            ("https://SMF.example./x?y=1", "https://smf.example:443"),
            ("http://smf:8000/x", "http://smf:8000"),
            ("http://[0:0::1]:81/", "http://[::1]:81"),
            ("http://2130706433/", "http://2130706433:80"),
            ("HTTP://smf/", "http://smf:80"),
        ] {
            assert_eq!(origin(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_plain_web_address_is_no_target() {
        for text in [
            "",
            "/path",
            "smf:8000",
            "ftp://smf/",
            "file:///etc/passwd",
            "gopher://smf:70/x",
            "http://",
            "http:///x",
            "http://:80/",
            "http://./",
            "http://smf../",
            "http://smf..example/",
            "http://user@smf/",
            "http://user:pw@smf/",
            "http://smf/#fragment",
            "http://smf/a b",
            "http://smf/\r\nx: y",
            "http://smf\u{0}/",
            "http://smf:65536/",
            "http://smf:99999999999/",
            "http://smf:-1/",
            "http://smf:+80/",
            "http://smf:/",
            "http://smf:80:80/",
            "http://[::1/",
            "http://[fe80::1%25eth0]/",
            "http://[v1.x]/",
            "http://[127.0.0.1]/",
            "http://127%2e0.0.1/",
            "http://ä.example/",
        ] {
            assert_eq!(origin(text), None, "{text}");
        }
        let long = format!("http://smf/{}", "x".repeat(URI_OCTETS_MAX));
        assert_eq!(origin(&long), None);
    }

    #[test]
    fn the_path_stays_as_it_is() {
        for (text, path) in [
            ("http://smf", "/"),
            ("http://smf?a=b", "/?a=b"),
            ("http://smf/", "/"),
            ("http://smf//a/../b/./%2F%zz?x=1&x=1?&=;", "//a/../b/./%2F%zz?x=1&x=1?&=;"),
            ("http://smf/imsi-001010000000001/{cb}|'~", "/imsi-001010000000001/{cb}|'~"),
        ] {
            let target = Target::parse(text).unwrap();
            assert_eq!(target.uri.path_and_query().unwrap().as_str(), path, "{text}");
            assert_eq!(target.as_str(), text);
        }
    }

    #[test]
    fn a_location_is_read_as_seen_from_the_target() {
        let target = Target::parse("https://smf:8000/cb/1?x").unwrap();
        for (location, expected) in [
            ("http://other/2", Some("http://other/2")),
            ("//other:81/2", Some("https://other:81/2")),
            ("/2?y", Some("https://smf:8000/2?y")),
            ("2", None),
            ("", None),
            ("file:///x", None),
        ] {
            let found = target.redirected(location);
            assert_eq!(found.as_ref().map(Target::as_str), expected, "{location}");
        }
    }

    #[test]
    fn a_target_is_shown_without_its_path() {
        let target = Target::parse("http://smf/imsi-001010000000001?supi=1").unwrap();
        assert_eq!(format!("{target:?}"), "http://smf:80/…");
    }
}

//! Where a Redis is, read from its URL.
//!
//! | form                                                     | what it is                                             |
//! |----------------------------------------------------------|--------------------------------------------------------|
//! | `redis://[user:password@]host[:port][/database]`         | one server                                             |
//! | `redis+sentinel://[user:password@]host[:port],…/NAME`    | the master that the sentinels know as NAME (port 26379) |
//! | `redis+cluster://[user:password@]host[:port],…`          | the cluster that some of these servers belong to        |
//! | `rediss` in the place of `redis`                         | the same through TLS, sentinels and all servers alike   |
//!
//! User and password are those of the servers that hold the data. A sentinel that asks for a password is told the same.
//! Reserved characters in them are percent-encoded.

use redis::io::tcp::TcpSettings;
use redis::{ConnectionInfo, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo};

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// Which kind of Redis a URL names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topology {
    /// One server.
    Single,
    /// A master and its replicas, one of which sentinels promote when the master is gone.
    Sentinel,
    /// Several masters that share the keys, each with replicas.
    Cluster,
}

impl Topology {
    /// `None` for a URL of no form in the table of the module.
    pub fn of(url: &str) -> Option<Self> {
        Address::parse(url).map(|address| match address {
            Address::Single(_) => Self::Single,
            Address::Sentinel { .. } => Self::Sentinel,
            Address::Cluster { .. } => Self::Cluster,
        })
    }
}

/// A URL, taken apart.
#[derive(Clone)]
pub enum Address {
    Single(ConnectionInfo),
    Sentinel {
        /// Without user and password.
        sentinels: Vec<ConnectionInfo>,
        name: Box<str>,
        /// How a connection to the master begins: user, password, protocol.
        session: RedisConnectionInfo,
    },
    Cluster {
        /// With user and password; at least one.
        seeds: Vec<ConnectionInfo>,
    },
}

impl Address {
    /// `None` for a URL of no form in the table of the module.
    pub fn parse(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        match scheme {
            "redis" | "rediss" => {
                // An @ behind the host is that of credentials with a character that is to be percent-encoded: what then
                // looks like the host is none.
                (is_a_server(rest) && !parts(rest).2.contains('@')).then_some(())?;
                Some(Self::Single(connection(&format!("redis://{rest}"))?))
            }
            "redis+sentinel" | "rediss+sentinel" => {
                let (credentials, hosts, path) = parts(rest);
                let name = path.strip_prefix('/')?;
                (is_plain(name) && !name.contains(['/', '?', '#'])).then_some(())?;
                let sentinels = each("", hosts, SENTINEL_PORT)?;
                let with_credentials = connection(&format!("redis://{credentials}localhost"))?;
                Some(Self::Sentinel {
                    sentinels,
                    name: name.into(),
                    session: with_credentials.redis_settings().clone(),
                })
            }
            "redis+cluster" | "rediss+cluster" => {
                let (credentials, hosts, path) = parts(rest);
                matches!(path, "" | "/").then_some(())?;
                Some(Self::Cluster { seeds: each(credentials, hosts, PORT)? })
            }
            _ => None,
        }
    }
}

/// Whether a URL asks for TLS.
pub fn is_encrypted(url: &str) -> bool {
    url.starts_with("rediss")
}

/// What travels well: small requests that do not wait for one another's acknowledgements, answers in RESP2.
fn connection(url: &str) -> Option<ConnectionInfo> {
    let info = url.into_connection_info().ok()?;
    let session = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP2);
    Some(info.set_tcp_settings(TcpSettings::default().set_nodelay(true)).set_redis_settings(session))
}

/// Credentials with their `@`, hosts, and what follows. A password may hold what is not allowed elsewhere.
fn parts(rest: &str) -> (&str, &str, &str) {
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let (credentials, hosts) = authority.split_at(authority.rfind('@').map_or(0, |at| at + 1));
    (credentials, hosts, path)
}

/// The servers of a list, where those without a port have this one.
fn each(credentials: &str, hosts: &str, port: u16) -> Option<Vec<ConnectionInfo>> {
    let each = hosts.split(',').map(|host| {
        let (_, given) = is_a_host(host).then(|| port_of(host))?;
        let port = if given.is_some() { String::new() } else { format!(":{port}") };
        connection(&format!("redis://{credentials}{host}{port}"))
    });
    each.collect()
}

/// Whether what follows `redis://` says where a server is: a host and, where they are given, a port and the number of a
/// database.
fn is_a_server(rest: &str) -> bool {
    let (_, host, path) = parts(rest);
    let database = path.split(['?', '#']).next().unwrap_or_default().trim_start_matches('/');
    is_a_host(host) && (database.is_empty() || database.parse::<u32>().is_ok())
}

fn is_a_host(text: &str) -> bool {
    let (host, port) = port_of(text);
    is_plain(host) && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

/// The colons of an IPv6 address stand in brackets.
fn port_of(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    }
}

fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(infos: &[ConnectionInfo]) -> Vec<String> {
        infos.iter().map(|info| info.addr().to_string()).collect()
    }

    #[test]
    fn sentinels_are_a_list_and_the_credentials_are_the_masters() {
        let address = Address::parse("redis+sentinel://chf:p%40ss@one:1,two,[::1]:3/main").unwrap();
        let Address::Sentinel { sentinels, name, session } = address else { panic!("another form") };
        assert_eq!((hosts(&sentinels), &*name), (vec!["one:1".into(), "two:26379".into(), "::1:3".into()], "main"));
        assert_eq!((session.username(), session.password()), (Some("chf"), Some("p@ss")));
        assert!(sentinels.iter().all(|sentinel| sentinel.redis_settings().password().is_none()));
    }

    #[test]
    fn a_cluster_is_named_by_some_of_its_servers() {
        let Some(Address::Cluster { seeds }) = Address::parse("redis+cluster://:secret@one:1,two") else {
            panic!("another form")
        };
        assert_eq!(hosts(&seeds), ["one:1", "two:6379"]);
        assert!(seeds.iter().all(|seed| seed.redis_settings().password() == Some("secret")));
    }

    #[test]
    fn other_forms_are_none() {
        for url in [
            "redis://",
            "redis://:6379",
            "redis://db:x",
            "redis://one,two:x",
            "rediss://",
            "redisss://db",
            "rediss+sentinel://one:1",
            "redis+sentinel://one:1",
            "redis+sentinel://one:1/",
            "redis+sentinel:///main",
            "redis+sentinel://one:1,/main",
            "redis+sentinel://one:x/main",
            "redis+sentinel://one:1/main/0",
            "redis+cluster://",
            "redis+cluster://one:1/main",
            "redis+cluster://one:1,",
        ] {
            assert!(Address::parse(url).is_none(), "{url}");
        }
    }
}

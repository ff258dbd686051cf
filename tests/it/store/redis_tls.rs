//! Redis through TLS: alone, behind Sentinel and as a cluster.

use std::path::Path;

use nchf::store::redis::{RedisStore, Settings};
use nchf::store::{Store, Version};

use super::place::{account, document, load, writes};
use super::redis::settings;
use super::server::{Program, Server, free_port};
use crate::support::authority::Authority;

/// A server, and where it speaks TLS. It speaks without, too, so that the tests can talk to it.
struct Encrypted {
    server: Server,
    port: u16,
}

impl Encrypted {
    /// `asks` says whether it lets in only those with a certificate of the same authority.
    fn start(authority: &Authority, directory: &Path, asks: bool, more: &[&str]) -> Self {
        let port = free_port();
        let options = tls_options(authority, directory, port, asks);
        let options: Vec<&str> = options.iter().map(String::as_str).chain(more.iter().copied()).collect();
        Self { server: Server::start(Program::redis(), &options), port }
    }

    fn settings(&self, scheme: &str) -> Settings {
        Settings { url: format!("{scheme}://127.0.0.1:{}", self.port), ..settings(&self.server) }
    }
}

fn tls_options(authority: &Authority, directory: &Path, port: u16, asks: bool) -> Vec<String> {
    let identity = authority.identity_of("127.0.0.1", directory);
    let option = |name: &str, value: String| [format!("--tls-{name}"), value];
    [
        option("port", port.to_string()),
        option("cert-file", identity.certificate.display().to_string()),
        option("key-file", identity.key.display().to_string()),
        option("ca-cert-file", authority.file(directory).display().to_string()),
        option("auth-clients", if asks { "yes" } else { "no" }.to_owned()),
    ]
    .concat()
}

async fn serves(settings: Settings) {
    let store = RedisStore::open(settings).await.unwrap();
    store.commit(&writes(account(7), Version::ABSENT, "account")).await.unwrap();
    assert_eq!(load(&store, account(7), None).await.account, document(1, "account"));
}

async fn refusal(settings: Settings) -> String {
    RedisStore::open(settings).await.err().expect("the store was reached").to_string()
}

#[tokio::test]
async fn a_redis_is_reached_by_those_who_trust_its_certificate() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let redis = Encrypted::start(&authority, directory.path(), false, &[]);
    let ca = Some(authority.file(directory.path()));
    serves(Settings { ca: ca.clone(), ..redis.settings("rediss") }).await;

    let strangers = tempfile::tempdir().unwrap();
    let foreign = Some(Authority::new().file(strangers.path()));
    for ca in [None, foreign] {
        let error = refusal(Settings { ca, ..redis.settings("rediss") }).await;
        assert!(error.contains("issuer is not among those of store.ca"), "{error}");
    }
    let by_name = format!("rediss://localhost:{}", redis.port);
    let error = refusal(Settings { ca: ca.clone(), url: by_name, ..redis.settings("rediss") }).await;
    assert!(error.contains("names another host"), "{error}");
    let missing = Some(directory.path().join("missing.pem"));
    let error = refusal(Settings { ca: missing, ..redis.settings("rediss") }).await;
    assert!(error.contains("missing.pem"), "{error}");
    let plain = format!("rediss://127.0.0.1:{}", redis.server.port());
    refusal(Settings { ca, url: plain, ..redis.settings("rediss") }).await;
}

#[tokio::test]
async fn a_redis_that_asks_who_comes_is_shown_a_certificate() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let redis = Encrypted::start(&authority, directory.path(), true, &[]);
    let ca = Some(authority.file(directory.path()));
    refusal(Settings { ca: ca.clone(), ..redis.settings("rediss") }).await;
    let identity = Some(authority.identity(directory.path()));
    serves(Settings { ca, identity, ..redis.settings("rediss") }).await;
}

#[tokio::test]
async fn all_servers_of_a_cluster_are_reached_through_tls() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let bus = free_port().to_string();
    let redis = Encrypted::start(
        &authority,
        directory.path(),
        false,
        &["--cluster-enabled", "yes", "--cluster-port", &bus, "--tls-cluster", "yes"],
    );
    redis.server.ask(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    let ca = Some(authority.file(directory.path()));
    serves(Settings { ca: ca.clone(), ..redis.settings("rediss+cluster") }).await;
    let error = refusal(redis.settings("rediss+cluster")).await;
    assert!(error.contains("store.ca"), "{error}");
}

#[tokio::test]
async fn sentinels_and_their_master_are_reached_through_tls() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let redis = Encrypted::start(&authority, directory.path(), false, &["--tls-replication", "yes"]);
    let port = free_port();
    let options = tls_options(&authority, directory.path(), port, false);
    let lines: Vec<_> =
        options.chunks(2).map(|option| format!("{} {}", option[0].trim_start_matches('-'), option[1])).collect();
    let more = format!("{}\ntls-replication yes", lines.join("\n"));
    let _sentinel = Server::sentinel_with(Program::redis(), redis.port, 1, &more);
    let url = format!("rediss+sentinel://127.0.0.1:{port}/main");
    let ca = Some(authority.file(directory.path()));
    serves(Settings { ca, url: url.clone(), ..redis.settings("rediss") }).await;
    let error = refusal(Settings { url, ..redis.settings("rediss") }).await;
    assert!(error.contains("store.ca"), "{error}");
}

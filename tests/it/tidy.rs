//! The structure, kept: imports go one way, each foreign library has one home, no file lies about that nothing includes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Each module of the crate, and what it may import besides itself. An import that is not here means that a type lives
/// in the wrong place.
const IMPORTS: &[(&str, &[&str])] = &[
    ("charging", &[]),
    ("cdr_file", &["charging"]),
    ("clock", &["charging"]),
    ("network", &[]),
    ("random", &[]),
    ("tls", &[]),
    ("store", &["charging", "clock", "network", "tls"]),
    ("notify", &["charging", "clock", "network", "random", "tls"]),
    ("config", &["cdr_file", "charging", "notify", "store"]),
    ("telemetry", &["charging", "config"]),
    ("request", &["charging", "store"]),
    ("turns", &["store"]),
    ("app", &["charging", "clock", "random", "request", "store", "telemetry", "turns"]),
    ("directory", &["app", "charging", "store"]),
    ("ledger", &["app", "charging", "store"]),
    ("transact", &["app", "charging", "request", "store", "turns"]),
    ("demo", &["app", "charging", "transact"]),
    ("http", &["app", "cdr_file", "charging", "config", "ledger", "store", "telemetry", "transact"]),
    ("audit", &["charging", "store"]),
    ("bench", &["charging", "clock", "tls"]),
    ("floor", &["charging", "clock", "config", "http", "serve", "store"]),
    ("workers", &["app", "cdr_file", "charging", "notify", "store", "telemetry", "transact"]),
    (
        "serve",
        &[
            "app",
            "cdr_file",
            "charging",
            "clock",
            "config",
            "demo",
            "http",
            "notify",
            "store",
            "telemetry",
            "tls",
            "workers",
        ],
    ),
];

/// Foreign crates that only one part of the tree may name.
const HOMES: &[(&str, &[&str])] = &[
    ("redis", &["store/redis"]),
    ("bb8", &["store/redis"]),
    ("bb8_redis", &["store/redis"]),
    ("redb", &["store/embedded"]),
    ("axum", &["http", "floor"]),
    ("utoipa", &["http"]),
    ("utoipa_axum", &["http"]),
    ("hyper", &["http", "bench", "notify"]),
    ("hyper_util", &["http", "bench", "notify"]),
    ("tokio_rustls", &["http", "bench", "notify", "store/redis", "tls"]),
    ("rmp_serde", &["store"]),
    ("toml", &["config"]),
    ("clap", &["main", "bench"]),
    ("anyhow", &["main", "serve", "floor"]),
];

struct Source {
    /// Below `src`, without `.rs`: `http/nchf/mod`.
    name: String,
    /// Without comments.
    code: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    find(&root, &mut files);
    let source = |file: &PathBuf| {
        let name = file.strip_prefix(&root).unwrap().with_extension("").display().to_string();
        let text = std::fs::read_to_string(file).unwrap();
        let without_comments = text.lines().map(|line| line.split("//").next().unwrap_or_default());
        Source { name, code: without_comments.collect::<Vec<_>>().join("\n") }
    };
    let sources: Vec<_> = files.iter().map(source).collect();
    assert!(sources.len() > 40, "only {} files found", sources.len());
    sources
}

fn find(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            find(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Names that follow `prefix` in the code as whole words: `crate::` gives the modules that are named.
fn named_after<'a>(code: &'a str, prefix: &str) -> BTreeSet<&'a str> {
    let rest = code.split(prefix).skip(1);
    rest.map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()).collect()
}

/// The crate is named: `redis::` or `use redis`, and not as a module of ours.
fn names_crate(code: &str, name: &str) -> bool {
    let path = format!("{name}::");
    code.match_indices(&path).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
    })
}

#[test]
fn imports_follow_the_arrows() {
    let allowed: BTreeMap<_, _> = IMPORTS.iter().copied().collect();
    let mut wrong = Vec::new();
    for Source { name, code } in sources() {
        let module = name.split('/').next().unwrap();
        if matches!(module, "lib" | "main") {
            continue;
        }
        let allowed = allowed.get(module).unwrap_or_else(|| panic!("{module} is not in the table of imports"));
        for imported in named_after(&code, "crate::") {
            if imported != module && !allowed.contains(&imported) && !imported.is_empty() {
                wrong.push(format!("{name} imports {imported}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What the core decides with. An audit that used any of it would make the same mistakes.
const RULES: &[&str] =
    &["decide", "explain", "grant", "maintain", "operator", "parts", "rating", "replay", "settle", "tariff", "work"];

#[test]
fn the_audit_shares_no_rule_with_the_core() {
    let mut wrong = Vec::new();
    for Source { name, code } in sources().iter().filter(|source| source.name.starts_with("audit/")) {
        let named = named_after(code, "charging::");
        wrong.extend(RULES.iter().filter(|rule| named.contains(**rule)).map(|rule| format!("{name} imports {rule}")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn each_library_has_its_home() {
    let mut wrong = Vec::new();
    for Source { name, code } in sources() {
        for (library, homes) in HOMES {
            let is_home = homes.iter().any(|home| name == *home || name.starts_with(&format!("{home}/")));
            // Modules of ours with a library's name are reached by `redis::` after `use crate::store::redis`.
            let is_our_module =
                code.contains(&format!("::{{self, {library}")) || code.contains(&format!("::{library}::"));
            if !is_home && !is_our_module && names_crate(&code, library) {
                wrong.push(format!("{name} names {library}, which belongs to {homes:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_file_is_included_by_a_module() {
    let sources = sources();
    let mut wrong = Vec::new();
    for Source { name, .. } in &sources {
        if matches!(name.as_str(), "lib" | "main") {
            continue;
        }
        let path = name.strip_suffix("/mod").unwrap_or(name);
        let (parent, module) = path.rsplit_once('/').unwrap_or(("lib", path));
        let parents = [parent.to_owned(), format!("{parent}/mod")];
        let declares =
            |source: &&Source| parents.contains(&source.name) && named_after(&source.code, "mod ").contains(module);
        if sources.iter().find(declares).is_none() {
            wrong.push(name.clone());
        }
    }
    assert!(wrong.is_empty(), "no module includes {wrong:?}");
}

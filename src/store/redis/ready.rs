//! Whether Redis' settings keep what the store promises. Every refusal is a sentence that says what to set.

use std::fmt;

use redis::cmd;

use super::connect::Links;
use super::history::Replication;
use super::node::Node;
use super::steps::Steps;
use super::{Settings, Topology, keys, reply};
use crate::store::{Applied, Durability, Error, Origin};

/// Checks every server that has keys.
pub async fn check(links: &Links, durability: Durability) -> Result<(), Error> {
    let (masters, _) = links.masters_now().await?;
    for node in masters {
        refuse_eviction(links, &node).await?;
        require(links, &node, durability).await?;
    }
    Ok(())
}

async fn refuse_eviction(links: &Links, node: &Node) -> Result<(), Error> {
    match info(links, node, "memory", "maxmemory_policy").await?.as_deref() {
        Some("noeviction") => Ok(()),
        Some(policy) => Err(not_ready(format!(
            "Redis has maxmemory-policy {policy} and would drop charging sessions when memory is short: set noeviction"
        ))),
        None => Err(not_ready("Redis does not tell its maxmemory-policy, which must be noeviction")),
    }
}

/// What the configured durability needs of Redis' settings.
async fn require(links: &Links, node: &Node, durability: Durability) -> Result<(), Error> {
    match durability {
        Durability::Memory => Ok(()),
        Durability::Fsync => require_fsync(links, node).await,
        Durability::Replicated => require_replicas(links, node).await,
    }
}

async fn require_fsync(links: &Links, node: &Node) -> Result<(), Error> {
    let appends = info(links, node, "persistence", "aof_enabled").await?;
    let policy = setting(links, node, "appendfsync").await?;
    if appends.as_deref() == Some("1") && policy.as_deref() == Some("always") {
        return Ok(());
    }
    Err(not_ready(format!(
        "store.durability is fsync, and Redis has {} and appendfsync {}: set appendonly yes and appendfsync always, or \
         choose another durability",
        if appends.as_deref() == Some("1") { "appendonly yes" } else { "appendonly no" },
        policy.as_deref().unwrap_or("unknown"),
    )))
}

/// What is waited for must be all that can be promoted, and a master that nobody follows must refuse writes by itself.
async fn require_replicas(links: &Links, node: &Node) -> Result<(), Error> {
    let needed = links.replicas();
    let found = reply::text(links.aside_at(node, cmd("INFO").arg("replication")).await?)?;
    let found = Replication::read(&found).ok_or_else(|| not_ready("Redis does not tell its replicas"))?;
    let (known, lost) = links.known_replicas(&found.history).await?;
    let known = known.max(found.replicas);
    if known > needed {
        return Err(not_ready(format!(
            "the master has {known} replicas and store.replicas is {needed}: one that is not waited for may be promoted; \
             set store.replicas to the number of all of them, or make the sentinels forget one that is gone (SENTINEL RESET)"
        )));
    }
    if found.replicas < needed.saturating_sub(lost).max(1) {
        return Err(not_ready(format!(
            "{} of {needed} replicas follow the master, and nothing can be answered before all do that could replace it: \
             bring them back, or set store.replicas when one is gone for good",
            found.replicas
        )));
    }
    if links.is_cluster() && setting(links, node, "cluster-allow-replica-migration").await?.as_deref() != Some("no") {
        return Err(not_ready(
            "store.durability is replicated, and the cluster may give a master other replicas than were counted: set \
             cluster-allow-replica-migration no",
        ));
    }
    for (name, allowed) in [("min-replicas-to-write", 1..=needed), ("min-replicas-max-lag", 1..=u32::MAX)] {
        let value = setting(links, node, name).await?;
        if !value.as_deref().and_then(|value| value.parse().ok()).is_some_and(|value| allowed.contains(&value)) {
            return Err(not_ready(format!(
                "store.durability is replicated, and Redis has {name} {}: set min-replicas-to-write from 1 to {needed} and \
                 min-replicas-max-lag above 0, so that a master that is cut off stops taking writes",
                value.as_deref().unwrap_or("unknown"),
            )));
        }
    }
    Ok(())
}

/// Makes sure that what was written to a new store is on all replicas.
pub async fn keep_identity(links: &Links) -> Result<(), Error> {
    if links.replicas() > 0 {
        links
            .commit(keys::slot_of(keys::FORMAT), Steps::touching(keys::FORMAT_TOUCHED.to_owned()).call(), Origin::ANY)
            .await?;
    }
    Ok(())
}

/// What cannot be promised by this kind of Redis.
pub fn refuse_promise(settings: &Settings) -> Result<(), Error> {
    let is_replicated = settings.durability == Durability::Replicated;
    if is_replicated && Topology::of(&settings.url) == Some(Topology::Single) {
        return Err(not_ready(
            "store.durability is replicated, which a single Redis cannot promise: choose fsync or memory, or name its \
             sentinels",
        ));
    }
    if is_replicated && settings.replicas == 0 {
        return Err(not_ready(
            "store.durability is replicated, which needs store.replicas: the number of all replicas of a master",
        ));
    }
    Ok(())
}

async fn setting(links: &Links, node: &Node, name: &str) -> Result<Option<Box<str>>, Error> {
    let found = reply::array(links.aside_at(node, cmd("CONFIG").arg("GET").arg(name)).await?)?;
    found.into_iter().nth(1).map(reply::text).transpose()
}

/// One line of a section of INFO.
async fn info(links: &Links, node: &Node, section: &str, name: &str) -> Result<Option<Box<str>>, Error> {
    let answer = reply::text(links.aside_at(node, cmd("INFO").arg(section)).await?)?;
    Ok(answer
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value.into()))
}

pub fn not_ready(sentence: impl fmt::Display) -> Error {
    Error::unavailable(Applied::No, sentence)
}

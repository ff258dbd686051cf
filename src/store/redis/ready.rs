//! Whether Redis' settings keep what the store promises. Every refusal is a sentence that says what to set.

use std::fmt;

use redis::cmd;

use super::connect::Links;
use super::reply;
use crate::store::{Applied, Durability, Error};

pub async fn refuse_eviction(links: &Links) -> Result<(), Error> {
    match info(links, "memory", "maxmemory_policy").await?.as_deref() {
        Some("noeviction") => Ok(()),
        Some(policy) => Err(not_ready(format!(
            "Redis has maxmemory-policy {policy} and would drop charging sessions when memory is short: set noeviction"
        ))),
        None => Err(not_ready("Redis does not tell its maxmemory-policy, which must be noeviction")),
    }
}

/// What the configured durability needs of Redis' settings.
pub async fn require(links: &Links, durability: Durability) -> Result<(), Error> {
    match durability {
        Durability::Memory => Ok(()),
        Durability::Fsync => require_fsync(links).await,
        Durability::Replicated => refuse_replicated(durability),
    }
}

async fn require_fsync(links: &Links) -> Result<(), Error> {
    let appends = info(links, "persistence", "aof_enabled").await?;
    let policy = reply::array(links.aside(cmd("CONFIG").arg("GET").arg("appendfsync")).await?)?;
    let policy = policy.into_iter().nth(1).map(reply::text).transpose()?;
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

pub fn refuse_replicated(durability: Durability) -> Result<(), Error> {
    match durability {
        Durability::Memory | Durability::Fsync => Ok(()),
        Durability::Replicated => Err(not_ready(
            "store.durability is replicated, which needs store.replicas and is not available on a single Redis: choose \
             fsync or memory",
        )),
    }
}

/// One line of a section of INFO.
async fn info(links: &Links, section: &str, name: &str) -> Result<Option<Box<str>>, Error> {
    let answer = reply::text(links.aside(cmd("INFO").arg(section)).await?)?;
    Ok(answer
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value.into()))
}

pub fn not_ready(sentence: impl fmt::Display) -> Error {
    Error::unavailable(Applied::No, sentence)
}

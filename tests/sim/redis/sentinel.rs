//! A sentinel, as far as clients ask it.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::command::is;
use super::resp::Reply;
use super::{Directory, Flavour, ServerId, Settings, Topology};

/// The name of the master that all of them watch.
pub const MASTER_NAME: &str = "main";

pub struct Sentinel {
    pub is_alive: bool,
    pub is_frozen: bool,
    pub incarnation: u64,
    /// Who is the master, as far as this one knows, and since which failover.
    pub master: ServerId,
    pub epoch: u64,
    /// Servers that it cannot reach.
    pub down: BTreeSet<ServerId>,
}

impl Sentinel {
    pub fn new(master: ServerId) -> Self {
        Self { is_alive: true, is_frozen: false, incarnation: 0, master, epoch: 0, down: BTreeSet::new() }
    }

    /// `None` for what the model does not know.
    pub fn answer(&self, words: &[Bytes], settings: &Settings, directory: &Directory) -> Option<Reply> {
        Some(match words {
            [ping] if is(ping, "PING") => Reply::Status("PONG".into()),
            [client, setinfo, ..] if is(client, "CLIENT") && is(setinfo, "SETINFO") => match settings.flavour {
                Flavour::Redis70 => Reply::error("ERR unknown subcommand 'SETINFO'. Try CLIENT HELP."),
                Flavour::Valkey9 => Reply::OK,
            },
            [role] if is(role, "ROLE") => Reply::Array(vec![Reply::text("sentinel"), Reply::texts([MASTER_NAME])]),
            [sentinel, master, name] if is(sentinel, "SENTINEL") && is(master, "MASTER") => {
                if name == MASTER_NAME {
                    self.describe(settings, directory)
                } else {
                    Reply::error("ERR No such master with that name")
                }
            }
            [sentinel, replicas, name] if is(sentinel, "SENTINEL") && is(replicas, "REPLICAS") => {
                if name == MASTER_NAME {
                    let others = (0..directory.servers()).map(ServerId).filter(|server| *server != self.master);
                    Reply::Array(others.map(|replica| self.describe_replica(replica, directory)).collect())
                } else {
                    Reply::error("ERR No such master with that name")
                }
            }
            [sentinel, address, name] if is(sentinel, "SENTINEL") && is(address, "GET-MASTER-ADDR-BY-NAME") => {
                if name == MASTER_NAME {
                    let (host, port) = directory.address(self.master);
                    Reply::texts([host, &port.to_string()])
                } else {
                    Reply::NilArray
                }
            }
            _ => return None,
        })
    }

    fn describe_replica(&self, replica: ServerId, directory: &Directory) -> Reply {
        let (host, port) = directory.address(replica);
        let (port, name) = (port.to_string(), format!("{host}:{port}"));
        let flags = if self.down.contains(&replica) { "s_down,slave" } else { "slave" };
        Reply::texts([
            "name",
            &name,
            "ip",
            host,
            "port",
            &port,
            "runid",
            directory.name(replica),
            "flags",
            flags,
            "role-reported",
            "slave",
            "slave-priority",
            "100",
        ])
    }

    fn describe(&self, settings: &Settings, directory: &Directory) -> Reply {
        let (host, port) = directory.address(self.master);
        let (port, epoch) = (port.to_string(), self.epoch.to_string());
        let Topology::Sentinel { replicas, sentinels } = settings.topology else { return Reply::Nil };
        let (replicas, others) = (replicas.to_string(), (sentinels - 1).to_string());
        let quorum = (sentinels / 2 + 1).to_string();
        Reply::texts([
            "name",
            MASTER_NAME,
            "ip",
            host,
            "port",
            &port,
            "runid",
            directory.name(self.master),
            "flags",
            "master",
            "role-reported",
            "master",
            "config-epoch",
            &epoch,
            "num-slaves",
            &replicas,
            "num-other-sentinels",
            &others,
            "quorum",
            &quorum,
        ])
    }
}

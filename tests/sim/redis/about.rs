//! What a server tells of itself.

use bytes::Bytes;

use super::cluster::slot_of;
use super::command::is;
use super::keyspace::{Answer, Fault};
use super::resp::Reply;
use super::script::Library;
use super::server::{Role, Server};
use super::{AppendFsync, Flavour, ServerId, number};

impl Server {
    /// Everything that speaks of the server itself.
    pub fn tell(&self, words: &[Bytes]) -> Answer {
        let mut spelt = words[0].to_vec();
        spelt.make_ascii_lowercase();
        match (&spelt[..], &words[1..]) {
            (b"ping", []) => Ok(Reply::Status("PONG".into())),
            (b"ping", [text]) => Ok(Reply::Bulk(text.clone())),
            (b"ping", _) => Err(Fault::arity("ping")),
            // As part of a transaction it comes too late.
            (b"asking", _) if self.view.is_some() => Ok(Reply::OK),
            (b"asking" | b"cluster", _) if self.view.is_none() => {
                Err(Fault::of("ERR This instance has cluster support disabled"))
            }
            (b"cluster", [sub]) if is(sub, "INFO") => Ok(Reply::text(self.cluster_info())),
            (b"cluster", [sub]) if is(sub, "SLOTS") => Ok(self.cluster_slots()),
            (b"cluster", [sub]) if is(sub, "MYID") => Ok(Reply::text(self.directory.name(self.id))),
            (b"cluster", [sub, key]) if is(sub, "KEYSLOT") => Ok(Reply::Int(i64::from(slot_of(key)))),
            (b"client", [_, option, value]) => set_client_info(option, value),
            (b"config", [_, names @ ..]) => {
                let mut found = Vec::new();
                for name in names {
                    let value = self.setting(name).ok_or_else(|| Fault::unmodelled("a setting"))?;
                    found.extend([Reply::Bulk(name.clone()), Reply::text(value)]);
                }
                Ok(Reply::Array(found))
            }
            (b"info", []) => Err(Fault::unmodelled("INFO without a section")),
            (b"info", sections) => Ok(Reply::text(self.info(sections))),
            (b"role", _) => Ok(self.tell_role()),
            (b"select", [database]) => self.select(database),
            (b"auth", [_]) => Err(Fault::of(NO_PASSWORD)),
            (b"auth", [user, _]) if user == "default" => Ok(Reply::OK),
            (b"auth", [_, _]) => Err(Fault::of("WRONGPASS invalid username-password pair or user is disabled.")),
            (b"auth", _) => Err(Fault::SYNTAX),
            (b"hello", [version]) if version == "2" => Ok(self.hello()),
            (b"hello", [_, _, ..]) => Err(Fault::unmodelled("HELLO with options")),
            (b"hello", _) => Err(Fault::of("NOPROTO unsupported protocol version")),
            _ => Err(Fault::unmodelled("a command")),
        }
    }

    fn select(&self, database: &[u8]) -> Answer {
        match number::integer(database) {
            Some(0) => Ok(Reply::OK),
            Some(1..) if self.view.is_some() && self.settings.flavour == Flavour::Redis70 => {
                Err(Fault::of("ERR SELECT is not allowed in cluster mode"))
            }
            Some(1..) if self.view.is_some() => Err(Fault::of("ERR DB index is out of range")),
            Some(1..16) => Err(Fault::unmodelled("other databases than the first")),
            Some(_) => Err(Fault::of("ERR DB index is out of range")),
            None => Err(Fault::of("ERR value is not an integer or out of range")),
        }
    }

    fn hello(&self) -> Reply {
        let text = |text: &str| Reply::text(text);
        let flavour = self.settings.flavour;
        // Where Lua is one.
        let lua = || {
            let none = Reply::Array(Vec::new());
            Reply::Array(vec![
                text("name"),
                text("lua"),
                text("ver"),
                Reply::Int(1),
                text("path"),
                text("lua"),
                text("args"),
                none,
            ])
        };
        let modules = if flavour == Flavour::Valkey9 { vec![lua()] } else { Vec::new() };
        let mode = if self.view.is_some() { "cluster" } else { "standalone" };
        let server = flavour.name().to_ascii_lowercase();
        let role = if self.role == Role::Master { "master" } else { "replica" };
        Reply::Array(vec![
            text("server"),
            text(&server),
            text("version"),
            text(flavour.version()),
            text("proto"),
            Reply::Int(2),
            text("id"),
            Reply::Int(1),
            text("mode"),
            text(mode),
            text("role"),
            text(role),
            text("modules"),
            Reply::Array(modules),
        ])
    }

    fn setting(&self, name: &[u8]) -> Option<String> {
        let settings = &self.settings;
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        Some(match name.as_str() {
            "appendfsync" => match settings.appendfsync {
                AppendFsync::Always => "always".into(),
                // What is set where nothing is appended.
                AppendFsync::Everysec | AppendFsync::Off => "everysec".into(),
                AppendFsync::No => "no".into(),
            },
            "appendonly" => if settings.appendfsync == AppendFsync::Off { "no" } else { "yes" }.into(),
            "maxmemory-policy" => "noeviction".into(),
            "min-replicas-to-write" => self.min_replicas_to_write.to_string(),
            "min-replicas-max-lag" => settings.min_replicas_max_lag_secs.to_string(),
            "cluster-allow-replica-migration" => "no".into(),
            _ => return None,
        })
    }

    fn tell_role(&self) -> Reply {
        match self.role {
            Role::Master => {
                let replicas = self.followers.iter().map(|(id, follower)| {
                    let (host, port) = self.directory.address(id);
                    Reply::texts([host, &port.to_string(), &follower.acknowledged.to_string()])
                });
                let offset = Reply::Int(self.history.offset as i64);
                Reply::Array(vec![Reply::text("master"), offset, Reply::Array(replicas.collect())])
            }
            Role::Replica(master) => {
                let (host, port) = self.directory.address(master);
                let state = if self.followers.is_linked { "connected" } else { "connect" };
                let offset = if self.followers.is_linked { self.history.offset as i64 } else { -1 };
                let port = Reply::Int(i64::from(port));
                Reply::Array(vec![
                    Reply::text("slave"),
                    Reply::text(host),
                    port,
                    Reply::text(state),
                    Reply::Int(offset),
                ])
            }
        }
    }

    fn info(&self, sections: &[Bytes]) -> String {
        let mut info = String::new();
        for section in sections {
            let section = if is(section, "replication") {
                self.replication_info()
            } else if is(section, "memory") {
                "# Memory\r\nmaxmemory_policy:noeviction\r\n".into()
            } else if is(section, "persistence") {
                let appends = u8::from(self.settings.appendfsync != AppendFsync::Off);
                let loading = u8::from(self.troubles.loading);
                format!("# Persistence\r\nloading:{loading}\r\naof_enabled:{appends}\r\n")
            } else {
                continue;
            };
            if !info.is_empty() {
                info.push_str("\r\n");
            }
            info.push_str(&section);
        }
        info
    }

    fn replication_info(&self) -> String {
        let mut lines = vec!["# Replication".to_owned()];
        let offset = self.history.offset;
        match self.role {
            Role::Master => lines.push("role:master".into()),
            Role::Replica(master) => {
                let (host, port) = self.directory.address(master);
                let link = if self.followers.is_linked { "up" } else { "down" };
                lines.extend([
                    "role:slave".into(),
                    format!("master_host:{host}"),
                    format!("master_port:{port}"),
                    format!("master_link_status:{link}"),
                    format!("slave_read_repl_offset:{offset}"),
                    format!("slave_repl_offset:{offset}"),
                    "slave_read_only:1".into(),
                ]);
            }
        }
        lines.push(format!("connected_slaves:{}", self.followers.iter().count()));
        if self.role == Role::Master && self.min_replicas_to_write > 0 {
            lines.push(format!("min_slaves_good_slaves:{}", self.followers.good));
        }
        for (number, (id, follower)) in self.followers.iter().enumerate() {
            let (host, port) = self.directory.address(id);
            let (offset, lag) = (follower.acknowledged, follower.lag_secs(self.keys.now as u64));
            lines.push(format!("slave{number}:ip={host},port={port},state=online,offset={offset},lag={lag}"));
        }
        lines.extend([
            "master_failover_state:no-failover".into(),
            format!("master_replid:{}", self.history.name),
            format!("master_replid2:{}", self.history.before),
            format!("master_repl_offset:{offset}"),
            format!("second_repl_offset:{}", self.history.left_before_at.map_or(-1, |at| at as i64)),
        ]);
        lines.push(String::new());
        lines.join("\r\n")
    }

    fn cluster_info(&self) -> String {
        let Some(view) = &self.view else { return String::new() };
        let state = if view.is_down { "fail" } else { "ok" };
        let masters = self.directory.shards();
        format!(
            "cluster_state:{state}\r\ncluster_slots_assigned:16384\r\ncluster_slots_ok:16384\r\ncluster_slots_pfail:0\r\n\
             cluster_slots_fail:0\r\ncluster_known_nodes:{}\r\ncluster_size:{masters}\r\ncluster_current_epoch:{}\r\n",
            self.directory.servers(),
            view.epoch,
        )
    }

    fn cluster_slots(&self) -> Reply {
        let Some(view) = &self.view else { return Reply::Nil };
        let server = |id: ServerId| {
            let (host, port) = self.directory.address(id);
            let name = Reply::text(self.directory.name(id));
            Reply::Array(vec![Reply::text(host), Reply::Int(i64::from(port)), name, Reply::Array(Vec::new())])
        };
        let mut ranges = Vec::new();
        let mut first = 0;
        for owned in view.owners.chunk_by(|one, next| one == next) {
            let (owner, last) = (owned[0], first + owned.len() - 1);
            let mut range = vec![Reply::Int(first as i64), Reply::Int(last as i64), server(owner)];
            range.extend(self.directory.beside(owner).map(server));
            ranges.push(Reply::Array(range));
            first = last + 1;
        }
        Reply::Array(ranges)
    }

    pub fn list_functions(&self, options: &[Bytes]) -> Answer {
        let (mut wanted, mut with_code) = (None, false);
        let mut options = options.iter();
        while let Some(option) = options.next() {
            if is(option, "WITHCODE") && !with_code {
                with_code = true;
            } else if is(option, "LIBRARYNAME") && wanted.is_none() {
                let name = options.next().ok_or_else(|| Fault::of("ERR library name argument was not given"))?;
                if name.contains(&b'*') || name.contains(&b'?') {
                    return Err(Fault::unmodelled("patterns of library names"));
                }
                wanted = Some(name);
            } else {
                return Err(Fault::of(format!("ERR Unknown argument {}", number::quoted(option))));
            }
        }
        let libraries = self.libraries.values().filter(|library| wanted.is_none_or(|name| *name == library.name));
        Ok(Reply::Array(libraries.map(|library| described(library, with_code)).collect()))
    }
}

const NO_PASSWORD: &str = "ERR AUTH <password> called without any password configured for the default user. Are you sure \
                           your configuration is correct?";

fn set_client_info(option: &[u8], value: &[u8]) -> Answer {
    let name = number::quoted(option);
    if !["lib-name", "lib-ver"].iter().any(|known| is(option, known)) {
        return Err(Fault::of(format!("ERR Unrecognized option '{name}'")));
    }
    if value.iter().all(u8::is_ascii_graphic) {
        return Ok(Reply::OK);
    }
    Err(Fault::of(format!("ERR {name} cannot contain spaces, newlines or special characters.")))
}

fn described(library: &Library, with_code: bool) -> Reply {
    let functions = library.functions.iter().map(|function| {
        let flags = if function.may_write {
            Reply::Array(Vec::new())
        } else {
            Reply::Array(vec![Reply::Status("no-writes".into())])
        };
        let name = Reply::Bulk(function.name.clone());
        Reply::Array(vec![
            Reply::text("name"),
            name,
            Reply::text("description"),
            Reply::Nil,
            Reply::text("flags"),
            flags,
        ])
    });
    let mut parts = vec![
        Reply::text("library_name"),
        Reply::Bulk(library.name.clone()),
        Reply::text("engine"),
        Reply::text("LUA"),
        Reply::text("functions"),
        Reply::Array(functions.collect()),
    ];
    if with_code {
        parts.extend([Reply::text("library_code"), Reply::Bulk(library.code.clone())]);
    }
    Reply::Array(parts)
}

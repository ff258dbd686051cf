//! A folder on a disk that crashes and fails: what was not made durable is lost in a crash, wholly, partly or not at all.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nchf::cdr_file::files::{Files, Place};
use uuid::Uuid;

/// What a disk and the system's memory hold.
#[derive(Default)]
pub struct Disk {
    names: BTreeMap<String, usize>,
    inodes: Vec<Inode>,
    /// Changes of names since they were last made durable.
    pending: Vec<Change>,
    durable_names: BTreeMap<String, usize>,
    /// Files that mediation took, as they were then.
    pub collected: BTreeMap<String, Vec<u8>>,
    pub operations: usize,
    /// What the operation of this number meets.
    pub fault: Option<(usize, Fault)>,
    pub is_down: bool,
    /// Tells it from other disks.
    pub number: u128,
    /// Says that something is durable and does nothing for it.
    pub lies: bool,
    /// Grows with each crash: what processes from before still want is not done.
    life: u64,
    is_open: bool,
}

#[derive(Clone, Default)]
struct Inode {
    bytes: Vec<u8>,
    durable: Vec<u8>,
}

#[derive(Clone)]
enum Change {
    Link(String, usize),
    Unlink(String),
    Rename(String, String),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// Nothing answers from this operation on, which may still have had its effect.
    Crash { effective: bool },
    /// The one operation fails; of a write, half is done.
    Fails(io::ErrorKind),
}

/// What a crash does to what was not durable.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Loss {
    /// The process was killed: the system still has everything.
    Nothing,
    Everything,
    /// Each change by the toss of a coin, of bytes any beginning.
    Some(u64),
}

impl Disk {
    /// Ends whatever process had the folder, and is there again for the next one.
    pub fn restart(&mut self, loss: Loss) {
        let mut coins = match loss {
            Loss::Some(seed) => seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            Loss::Nothing | Loss::Everything => 0,
        };
        let mut toss = || {
            coins ^= coins << 13;
            coins ^= coins >> 7;
            coins ^= coins << 17;
            coins
        };
        if loss != Loss::Nothing {
            let mut names = self.durable_names.clone();
            for change in std::mem::take(&mut self.pending) {
                if loss == Loss::Everything || toss() % 2 == 0 {
                    continue;
                }
                change.apply(&mut names);
            }
            for inode in &mut self.inodes {
                let kept = inode.bytes.iter().zip(&inode.durable).take_while(|(one, other)| one == other).count();
                let fresh = inode.bytes.len().max(inode.durable.len()) - kept;
                let reaches = if loss == Loss::Everything { 0 } else { toss() as usize % (fresh + 1) };
                let is_as_synced = inode.bytes == inode.durable || reaches == 0;
                inode.bytes = if is_as_synced {
                    inode.durable.clone()
                } else {
                    inode.bytes.iter().copied().take(kept + reaches).collect()
                };
                inode.durable = inode.bytes.clone();
            }
            self.durable_names = names.clone();
            self.names = names;
        }
        self.fault = None;
        self.is_down = false;
        self.is_open = false;
        self.life += 1;
    }

    /// Mediation takes every file that has its name.
    pub fn collect(&mut self) {
        let visible: Vec<String> = self.names.keys().filter(|name| !name.starts_with('.')).cloned().collect();
        for name in visible {
            let bytes = self.inodes[self.names[&name]].bytes.clone();
            let before = self.collected.insert(name.clone(), bytes.clone());
            assert!(before.is_none_or(|before| before == bytes), "{name} was published twice, and differs");
            let change = Change::Unlink(name);
            change.apply(&mut self.names);
            self.pending.push(change);
        }
    }
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Link(name, inode) => drop(names.insert(name.clone(), *inode)),
            Self::Unlink(name) => drop(names.remove(name)),
            Self::Rename(from, to) => {
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
        }
    }
}

/// A disk that several may hold on to.
#[derive(Clone, Default)]
pub struct Shared(Arc<Mutex<Disk>>);

impl Shared {
    pub fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The folder, for a process that ends with the disk's next restart.
    pub fn hold(&self) -> Held {
        Held { disk: self.clone(), life: self.disk().life }
    }
}

impl Place for Shared {
    type Folder = Held;

    const WAITS_FOR_DISK: bool = false;

    fn open(&self) -> io::Result<Option<Held>> {
        let was_open = std::mem::replace(&mut self.disk().is_open, true);
        Ok((!was_open).then(|| self.hold()))
    }

    fn name(&self) -> String {
        "the simulated folder".to_owned()
    }
}

/// A process's hold on the folder.
#[derive(Clone)]
pub struct Held {
    disk: Shared,
    life: u64,
}

impl Held {
    /// Counts an operation and meets its fate; `effect` is told whether only half of it shall happen.
    fn operate<T>(&self, effect: impl FnOnce(&mut Disk, bool) -> T) -> io::Result<T> {
        let disk = &mut *self.disk.disk();
        if disk.is_down || disk.life != self.life {
            return Err(io::Error::other("the machine is down"));
        }
        let fault = disk.fault.filter(|(at, _)| *at == disk.operations).map(|(_, fault)| fault);
        disk.operations += 1;
        match fault {
            None => Ok(effect(disk, false)),
            Some(Fault::Fails(kind)) => {
                disk.fault = None;
                if kind != io::ErrorKind::PermissionDenied {
                    effect(disk, true);
                }
                Err(kind.into())
            }
            Some(Fault::Crash { effective }) => {
                disk.is_down = true;
                if effective {
                    effect(disk, false);
                }
                Err(io::Error::other("the machine went down"))
            }
        }
    }

    fn change(&self, change: Change) -> io::Result<()> {
        self.operate(|disk, fails| {
            if !fails {
                change.apply(&mut disk.names);
                disk.pending.push(change);
            }
        })
    }
}

impl Files for Held {
    type File = usize;

    fn create(&mut self, name: &str) -> io::Result<usize> {
        let inode = self.operate(|disk, _| {
            disk.inodes.push(Inode::default());
            disk.inodes.len() - 1
        })?;
        self.change(Change::Link(name.to_owned(), inode))?;
        Ok(inode)
    }

    fn write(&mut self, file: &mut usize, bytes: &[u8]) -> io::Result<()> {
        self.operate(|disk, fails| {
            let written = if fails { bytes.len() / 2 } else { bytes.len() };
            disk.inodes[*file].bytes.extend_from_slice(&bytes[..written]);
        })
    }

    fn overwrite(&mut self, file: &mut usize, bytes: &[u8]) -> io::Result<()> {
        self.operate(|disk, fails| {
            let written = if fails { bytes.len() / 2 } else { bytes.len() };
            disk.inodes[*file].bytes[..written].copy_from_slice(&bytes[..written]);
        })
    }

    fn sync(&mut self, file: &mut usize) -> io::Result<()> {
        self.operate(|disk, fails| {
            let inode = &mut disk.inodes[*file];
            // A sync that fails may have lost what it was to keep, and the next one will not say so.
            if fails {
                inode.bytes = inode.durable.clone();
            } else if !disk.lies {
                inode.durable = inode.bytes.clone();
            }
        })
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        {
            let disk = self.disk.disk();
            let is_gone = disk.is_down || disk.life != self.life;
            assert!(is_gone || disk.names.contains_key(from), "{from} is not there");
        }
        self.change(Change::Rename(from.to_owned(), to.to_owned()))
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.change(Change::Unlink(name.to_owned()))
    }

    fn read(&mut self, name: &str) -> io::Result<Option<Vec<u8>>> {
        self.operate(|disk, _| disk.names.get(name).map(|inode| disk.inodes[*inode].bytes.clone()))
    }

    fn new_name(&self) -> Uuid {
        Uuid::from_u128(self.disk.disk().number)
    }

    fn names(&mut self) -> io::Result<Vec<String>> {
        self.operate(|disk, _| disk.names.keys().cloned().collect())
    }

    fn sync_names(&mut self) -> io::Result<()> {
        self.operate(|disk, fails| {
            if !fails && !disk.lies {
                disk.pending.clear();
                disk.durable_names = disk.names.clone();
            }
        })
    }
}

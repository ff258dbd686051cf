//! A disk that can fail and lose power.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use redb::StorageBackend;

/// Clones share the same bytes.
#[derive(Clone, Debug, Default)]
pub struct Disk(Arc<(Mutex<State>, Condvar)>);

#[derive(Debug, Default)]
struct State {
    /// What a read sees.
    bytes: Vec<u8>,
    /// What survives a power cut for certain.
    synced: Vec<u8>,
    /// What was done since, in order; a power cut keeps any part of it.
    unsynced: Vec<Change>,
    /// Changes and syncs so far.
    operations: usize,
    /// From this operation on, all of them fail.
    fails_at: Option<usize>,
    fails_next_sync: bool,
    syncs: usize,
    /// How many syncs may still pass; the others wait. `None` holds nobody up.
    syncs_left: Option<usize>,
}

#[derive(Debug)]
enum Change {
    Length(usize),
    Bytes(usize, Vec<u8>),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Length(length) => bytes.resize(*length, 0),
            Self::Bytes(at, data) => {
                let length = bytes.len().max(at + data.len());
                bytes.resize(length, 0);
                bytes[*at..at + data.len()].copy_from_slice(data);
            }
        }
    }
}

impl Disk {
    pub fn holding(bytes: Vec<u8>) -> Self {
        let disk = Self::default();
        disk.state().synced = bytes.clone();
        disk.state().bytes = bytes;
        disk
    }

    pub fn fails_at(&self, operation: usize) {
        self.state().fails_at = Some(operation);
    }

    pub fn has_failed(&self) -> bool {
        let state = self.state();
        state.fails_at.is_some_and(|at| at <= state.operations)
    }

    pub fn fail_next_sync(&self) {
        self.state().fails_next_sync = true;
    }

    /// Lets so many syncs pass and holds up those behind them; `None` lets all of them pass.
    pub fn let_pass(&self, syncs: Option<usize>) {
        self.state().syncs_left = syncs;
        self.0.1.notify_all();
    }

    /// Syncs that have begun.
    pub fn syncs(&self) -> usize {
        self.state().syncs
    }

    pub fn synced(&self) -> Vec<u8> {
        self.state().synced.clone()
    }

    /// What a power cut leaves: all that was synced and a random part of the rest, sectors of it torn apart.
    pub fn after_power_cut(&self, seed: u64) -> Vec<u8> {
        let mut random = seed;
        let state = self.state();
        let mut bytes = state.synced.clone();
        for change in &state.unsynced {
            match change {
                Change::Length(_) => change.apply(&mut bytes),
                Change::Bytes(at, data) => {
                    for (sector, data) in data.chunks(512).enumerate() {
                        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                        if random >> 63 == 1 {
                            Change::Bytes(at + sector * 512, data.to_vec()).apply(&mut bytes);
                        }
                    }
                }
            }
        }
        bytes
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap()
    }

    fn change(&self, change: Change) -> io::Result<()> {
        let mut state = self.state();
        state.operation()?;
        change.apply(&mut state.bytes);
        state.unsynced.push(change);
        Ok(())
    }
}

impl State {
    fn operation(&mut self) -> io::Result<()> {
        self.operations += 1;
        if self.fails_at.is_some_and(|at| at <= self.operations) {
            return Err(io::Error::other("the disk is broken"));
        }
        Ok(())
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let at = usize::try_from(offset).unwrap();
        let state = self.state();
        let found = state.bytes.get(at..at + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Change::Length(usize::try_from(len).unwrap()))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state();
        state.syncs += 1;
        state = self.0.1.wait_while(state, |state| state.syncs_left == Some(0)).unwrap();
        state.syncs_left = state.syncs_left.map(|left| left - 1);
        state.operation()?;
        if std::mem::take(&mut state.fails_next_sync) {
            return Err(io::Error::other("the disk could not sync"));
        }
        let done = std::mem::take(&mut state.unsynced);
        done.iter().for_each(|change| change.apply(&mut state.synced));
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Change::Bytes(usize::try_from(offset).unwrap(), data.to_vec()))
    }
}

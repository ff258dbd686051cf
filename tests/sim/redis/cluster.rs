//! Which server of a cluster has which slot, by the word of each of them.

use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;

use super::ServerId;

pub const SLOTS: usize = 16384;

/// By the tag of the key, if it has one, else by all of it.
pub fn slot_of(key: &[u8]) -> u16 {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        rest.iter().position(|byte| *byte == b'}').map(|length| &rest[..length])
    });
    crc16(tag.filter(|tag| !tag.is_empty()).unwrap_or(key)) % SLOTS as u16
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    const STEPS: [u16; 16] = {
        let mut steps = [0; 16];
        let mut at = 0;
        while at < 16 {
            let mut step = (at as u16) << 12;
            let mut bit = 0;
            while bit < 4 {
                step = if step & 0x8000 == 0 { step << 1 } else { (step << 1) ^ 0x1021 };
                bit += 1;
            }
            steps[at] = step;
            at += 1;
        }
        steps
    };
    let step = |crc: u16, half: u8| (crc << 4) ^ STEPS[usize::from((crc >> 12) as u8 ^ half)];
    bytes.iter().fold(0, |crc, byte| step(step(crc, byte >> 4), byte & 15))
}

/// What a server knows of the cluster. It may be old.
#[derive(Clone)]
pub struct View {
    pub owners: Rc<Vec<ServerId>>,
    pub epoch: u64,
    /// Slots that leave this server, and those that come to it.
    pub migrating: BTreeMap<u16, ServerId>,
    pub importing: BTreeMap<u16, ServerId>,
    /// It does not see enough of the cluster to serve anything.
    pub is_down: bool,
}

/// Why a server does not serve keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detour {
    /// Not all in one slot.
    Apart,
    Down,
    /// The slot is that server's.
    Elsewhere(u16, ServerId),
    /// The slot is on its way, and these keys are not here.
    Importing(u16, ServerId),
    /// Some are here, and some are not.
    Halfway,
    /// A script went from one slot to another.
    Strayed,
}

/// The keys that a server has.
#[derive(Clone)]
pub struct Local {
    pub view: Rc<View>,
    pub me: ServerId,
    /// The client was sent here by the server that had the slot.
    pub is_asking: bool,
    /// Whether a script may go from one slot to another, as those may that are no functions.
    pub may_stray: bool,
    /// The slot of what a script was given, or touched first.
    pub slot: Option<u16>,
}

impl Local {
    /// Whether these keys are served here; `has` answers what is there.
    pub fn route<'k>(
        &self,
        keys: impl Iterator<Item = &'k Bytes>,
        has: impl Fn(&Bytes) -> bool,
    ) -> Result<Option<u16>, Detour> {
        let (mut first, mut missing, mut present, mut several) = (None::<(u16, &Bytes)>, 0, 0, false);
        for key in keys {
            let slot = slot_of(key);
            match first {
                None => first = Some((slot, key)),
                Some((other, _)) if other != slot => return Err(Detour::Apart),
                Some((_, other)) => several |= other != key,
            }
            *if has(key) { &mut present } else { &mut missing } += 1;
        }
        let Some((slot, _)) = first else { return Ok(None) };
        if self.view.is_down {
            return Err(Detour::Down);
        }
        let owner = self.view.owners[usize::from(slot)];
        if owner == self.me {
            return match self.view.migrating.get(&slot) {
                // Not even a part is answered while others may be anywhere.
                Some(_) if missing > 0 && present > 0 => Err(Detour::Halfway),
                Some(to) if missing > 0 => Err(Detour::Importing(slot, *to)),
                _ => Ok(Some(slot)),
            };
        }
        if self.is_asking && self.view.importing.contains_key(&slot) {
            return if several && missing > 0 { Err(Detour::Halfway) } else { Ok(Some(slot)) };
        }
        Err(Detour::Elsewhere(slot, owner))
    }

    /// As [`Local::route`], for a script that must stay within one slot.
    pub fn check(&mut self, keys: &[Bytes], has: impl Fn(&Bytes) -> bool) -> Result<(), Detour> {
        if let Some(slot) = self.route(keys.iter(), has)? {
            if !self.may_stray && self.slot.is_some_and(|first| first != slot) {
                return Err(Detour::Strayed);
            }
            self.slot = Some(slot);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_servers() {
        let slots = ["foo", "{foo}bar", "a{foo}{x}", "a{}foo", "123456789"].map(|key| slot_of(key.as_bytes()));
        assert_eq!(slots, [12182, 12182, 12182, 16292, 0x31c3]);
    }
}

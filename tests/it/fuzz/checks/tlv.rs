//! A walk over BER (X.690 8.1), as strict as a decoder may be: definite lengths in the fewest octets, nothing left over.

pub struct Tlv<'o> {
    pub tag: u32,
    pub is_constructed: bool,
    pub content: &'o [u8],
}

impl<'o> Tlv<'o> {
    /// The values that stand one after the other in `octets`.
    pub fn all(mut octets: &'o [u8]) -> Vec<Self> {
        let mut found = Vec::new();
        while !octets.is_empty() {
            let (one, rest) = Self::first(octets);
            found.push(one);
            octets = rest;
        }
        found
    }

    fn first(octets: &'o [u8]) -> (Self, &'o [u8]) {
        let (first, mut rest) = octets.split_first().expect("a value has a tag");
        let mut tag = u32::from(first & 0x1f);
        if tag == 0x1f {
            tag = 0;
            loop {
                let (octet, after) = rest.split_first().expect("a tag has an end");
                tag = tag.checked_mul(128).expect("a tag fits") | u32::from(octet & 0x7f);
                rest = after;
                if octet & 0x80 == 0 {
                    break;
                }
            }
            assert!(tag >= 31, "a long tag that need not be long");
        }
        let (length, mut rest) = rest.split_first().expect("a value has a length");
        let mut length = usize::from(*length);
        if length & 0x80 != 0 {
            let (octets, after) = rest.split_at(length & 0x7f);
            assert!((1..=4).contains(&octets.len()) && octets[0] != 0, "a length in too many octets, or in none");
            length = octets.iter().fold(0, |length, octet| length << 8 | usize::from(*octet));
            assert!(length >= 0x80, "a long length that need not be long");
            rest = after;
        }
        assert!(length <= rest.len(), "a value is longer than what it stands in");
        let (content, rest) = rest.split_at(length);
        (Self { tag, is_constructed: first & 0x20 != 0, content }, rest)
    }

    /// Looks at everything inside.
    pub fn walk(&self) {
        if self.is_constructed {
            Self::all(self.content).iter().for_each(Self::walk);
        }
    }

    pub fn field(&self, tag: u32) -> Option<Self> {
        Self::all(self.content).into_iter().find(|one| one.tag == tag)
    }
}

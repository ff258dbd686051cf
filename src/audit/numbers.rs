//! Which numbers of a recording network function were seen, when they run from 0 to 4294967295 and start again.

use std::collections::BTreeMap;

/// Seen numbers as stretches without holes: few, however many numbers there are.
#[derive(Clone, Debug, Default)]
pub struct Numbers {
    /// First and last number of each stretch.
    stretches: BTreeMap<u32, u32>,
}

impl Numbers {
    /// `false` if it was seen before.
    pub fn insert(&mut self, number: u32) -> bool {
        if self.contains(number) {
            return false;
        }
        let before = self.stretches.range(..number).next_back().map(|(first, last)| (*first, *last));
        let first = match before {
            Some((first, last)) if last.checked_add(1) == Some(number) => first,
            Some(_) | None => number,
        };
        let after = number.checked_add(1).and_then(|next| self.stretches.remove(&next));
        self.stretches.insert(first, after.unwrap_or(number));
        true
    }

    pub fn contains(&self, number: u32) -> bool {
        self.stretches.range(..=number).next_back().is_some_and(|(_, last)| number <= *last)
    }

    /// First and last number, in the order in which they were given; `None` when none was seen. They begin behind the
    /// largest gap, since they start again after the largest number.
    pub fn bounds(&self) -> Option<(u32, u32)> {
        let (first, before) = self.gaps().max_by_key(|(first, before)| before.wrapping_sub(*first))?;
        Some((before, first.wrapping_sub(1)))
    }

    /// The numbers missing between the first and the last: first and last of each hole.
    pub fn holes(&self) -> Vec<(u32, u32)> {
        let Some((begin, _)) = self.bounds() else { return Vec::new() };
        let holes = self.gaps().filter(|(_, before)| *before != begin);
        let mut holes: Vec<_> = holes.map(|(first, before)| (first, before.wrapping_sub(1))).collect();
        holes.sort_by_key(|(first, _)| first.wrapping_sub(begin));
        holes
    }

    /// Whether a number is one of those from the first to the last, seen or not.
    pub fn encloses(&self, number: u32) -> bool {
        self.bounds().is_some_and(|(first, last)| number.wrapping_sub(first) <= last.wrapping_sub(first))
    }

    /// What lies between the stretches, around the largest number too: its first number, and the first one behind it.
    fn gaps(&self) -> impl Iterator<Item = (u32, u32)> {
        let next = self.stretches.keys().skip(1).chain(self.stretches.keys().take(1));
        let gaps = self.stretches.values().zip(next).map(|(last, next)| (last.wrapping_add(1), *next));
        // A stretch that ends with the largest number goes on with zero.
        let is_round = self.stretches.len() > 1;
        gaps.filter(move |(first, before)| first != before || !is_round)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(all: impl IntoIterator<Item = u32>) -> Numbers {
        let mut numbers = Numbers::default();
        all.into_iter().for_each(|number| assert!(numbers.insert(number), "{number}"));
        numbers
    }

    #[test]
    fn numbers_without_a_hole_are_one_stretch_in_whatever_order_they_come() {
        let mut numbers = numbers([3, 5, 4, 7, 6]);
        assert_eq!((numbers.bounds(), numbers.holes()), (Some((3, 7)), vec![]));
        assert!((3..=7).all(|number| !numbers.insert(number)));
        assert!(numbers.encloses(3) && numbers.encloses(7) && !numbers.encloses(2) && !numbers.encloses(8));
    }

    #[test]
    fn holes_are_named_from_the_first_to_the_last_missing_number() {
        let numbers = numbers((10..20).chain(21..30).chain(33..40));
        assert_eq!((numbers.bounds(), numbers.holes()), (Some((10, 39)), vec![(20, 20), (30, 32)]));
        assert!(numbers.encloses(31) && !numbers.contains(31));
    }

    #[test]
    fn numbers_start_again_after_the_largest() {
        let around = numbers((0..5).chain(u32::MAX - 5..=u32::MAX));
        assert_eq!((around.bounds(), around.holes()), (Some((u32::MAX - 5, 4)), vec![]));
        let with_a_hole = numbers((2..5).chain(u32::MAX - 5..=u32::MAX - 1));
        assert_eq!(with_a_hole.bounds(), Some((u32::MAX - 5, 4)));
        assert_eq!(with_a_hole.holes(), [(u32::MAX, 1)]);
        assert!(with_a_hole.encloses(0) && !with_a_hole.encloses(5));
    }

    #[test]
    fn one_number_or_none_has_no_hole() {
        assert_eq!((numbers([]).bounds(), numbers([]).holes()), (None, vec![]));
        for number in [0, 7, u32::MAX] {
            assert_eq!((numbers([number]).bounds(), numbers([number]).holes()), (Some((number, number)), vec![]));
        }
    }
}

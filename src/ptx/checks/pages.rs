//! A memory's pages by their numbers: what is known of those that were touched.

use std::collections::HashMap;

/// Pages that are remembered beside the map, by a hash of their number.
const NEAR: usize = 64;

#[derive(Clone)]
pub(super) struct Pages<P> {
    index: HashMap<u64, u32>,
    pages: Vec<P>,
    near: [(u64, u32); NEAR],
}

impl<P> Default for Pages<P> {
    fn default() -> Pages<P> {
        Pages { index: HashMap::new(), pages: Vec::new(), near: [(u64::MAX, 0); NEAR] }
    }
}

impl<P> Pages<P> {
    /// Where the page is that has this number.
    #[inline(always)]
    pub(super) fn find(&mut self, number: u64) -> Option<usize> {
        // Fibonacci hashing: rows of a matrix lie apart by powers of two, and shall not meet in one place.
        let slot = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58) as usize % NEAR;
        let (near, at) = self.near[slot];
        if near == number { Some(at as usize) } else { self.search(number, slot) }
    }

    fn search(&mut self, number: u64, slot: usize) -> Option<usize> {
        let at = *self.index.get(&number)?;
        self.near[slot] = (number, at);
        Some(at as usize)
    }

    /// The same; a page that is not there is made by `new`.
    #[inline(always)]
    pub(super) fn place(&mut self, number: u64, new: impl FnOnce() -> P) -> usize {
        match self.find(number) {
            Some(at) => at,
            None => self.add(number, new()),
        }
    }

    #[cold]
    fn add(&mut self, number: u64, page: P) -> usize {
        self.pages.push(page);
        let at = self.pages.len() - 1;
        self.index.insert(number, at as u32);
        at
    }
}

impl<P> std::ops::Index<usize> for Pages<P> {
    type Output = P;
    #[inline(always)]
    fn index(&self, at: usize) -> &P {
        &self.pages[at]
    }
}

impl<P> std::ops::IndexMut<usize> for Pages<P> {
    #[inline(always)]
    fn index_mut(&mut self, at: usize) -> &mut P {
        &mut self.pages[at]
    }
}

//! Which bytes have been written: a bit a byte.

use super::pages::Pages;

/// Bytes of a page.
const PAGE: u64 = 4096;

enum Page {
    All,
    Some(Box<[u64; 64]>),
}

/// Bytes of device memory that the host or a kernel has written. Outlives a launch.
#[derive(Default)]
pub struct Written(Pages<Page>);

/// Bits `from .. from + n` of a word; `n` at most 64.
fn ones(from: u64, n: u64) -> u64 {
    let all = if n >= 64 { u64::MAX } else { (1 << n) - 1 };
    all << from
}

impl Written {
    /// These bytes have been written.
    pub fn write(&mut self, address: u64, bytes: u64) {
        self.change(address, bytes, true);
    }
    /// What these bytes hold is arbitrary, as in a new allocation.
    pub fn forget(&mut self, address: u64, bytes: u64) {
        self.change(address, bytes, false);
    }

    fn page(&mut self, number: u64, new: bool) -> Option<usize> {
        match new {
            true => Some(self.0.place(number, || Page::Some(Box::new([0; 64])))),
            false => self.0.find(number),
        }
    }

    fn change(&mut self, address: u64, bytes: u64, on: bool) {
        let (mut at, end) = (address, address.saturating_add(bytes));
        while at < end {
            let stop = (at / PAGE + 1).saturating_mul(PAGE).min(end);
            if let Some(p) = self.page(at / PAGE, on) {
                let page = &mut self.0[p];
                match (&mut *page, on) {
                    (Page::All, true) => {}
                    (_, true) if stop - at == PAGE => *page = Page::All,
                    (Page::All, false) => {
                        let mut bits = Box::new([u64::MAX; 64]);
                        set(&mut bits[..], at % PAGE, stop - at, false);
                        *page = Page::Some(bits);
                    }
                    (Page::Some(bits), on) => set(&mut bits[..], at % PAGE, stop - at, on),
                }
            }
            at = stop;
        }
    }

    /// The lanes of `mask` whose words, `count` of them side by side from word `first` + `at` on, someone has not written yet.
    pub(super) fn lacking(&mut self, first: u64, at: &[u32; 32], count: u64, mask: u32) -> u32 {
        let mut lacking = 0;
        for l in (0..32).filter(|l| mask >> l & 1 == 1) {
            // Aligned for all of them, so they lie within 64 bytes.
            let missing = self.missing(4 * (first + u64::from(at[l])), 4 * count as u32);
            lacking |= u32::from(missing.is_some()) << l;
        }
        lacking
    }

    /// Such words have been written.
    pub(super) fn write_words(&mut self, first: u64, at: &[u32; 32], count: u64, mask: u32) {
        for l in (0..32).filter(|l| mask >> l & 1 == 1) {
            self.write(4 * (first + u64::from(at[l])), 4 * count);
        }
    }

    /// True when all of these bytes have been written.
    pub(super) fn has(&mut self, address: u64, bytes: u64) -> bool {
        let end = address.saturating_add(bytes);
        let mut at = address;
        while at < end {
            let stop = (at / PAGE + 1).saturating_mul(PAGE).min(end);
            match self.page(at / PAGE, false).map(|p| &self.0[p]) {
                None => return false,
                Some(Page::All) => {}
                Some(Page::Some(bits)) => {
                    let whole = |w: u64| {
                        let (from, to) = (at.max(64 * w), stop.min(64 * (w + 1)));
                        !bits[(w % 64) as usize] & ones(from % 64, to - from) == 0
                    };
                    if !(at / 64..stop.div_ceil(64)).all(whole) {
                        return false;
                    }
                }
            }
            at = stop;
        }
        true
    }

    /// The bytes of this range that nobody has written: where each run of them begins in it, and how long it is.
    pub fn gaps(&mut self, address: u64, bytes: u64) -> Vec<(u64, u64)> {
        let (mut at, end, mut gaps) = (address, address.saturating_add(bytes), Vec::<(u64, u64)>::new());
        while at < end {
            let page = self.page(at / PAGE, false).map(|p| &self.0[p]);
            let (stop, missing) = match page {
                Some(Page::Some(bits)) => {
                    // As far as its bits are alike.
                    let word = bits[(at % PAGE / 64) as usize] >> (at % 64);
                    let ones = word.trailing_ones().max((!word).trailing_ones()).min(64 - (at % 64) as u32);
                    (at + u64::from(ones), word & 1 == 0)
                }
                none => ((at / PAGE + 1).saturating_mul(PAGE), none.is_none()),
            };
            let stop = stop.min(end);
            match gaps.last_mut().filter(|(from, n)| address + from + n == at) {
                Some((_, n)) if missing => *n += stop - at,
                _ if missing => gaps.push((at - address, stop - at)),
                _ => {}
            }
            at = stop;
        }
        gaps
    }

    /// The first of a few bytes (an access: they do not cross 64) that nobody has written.
    pub(super) fn missing(&mut self, address: u64, bytes: u32) -> Option<u64> {
        let Some(p) = self.page(address / PAGE, false) else { return Some(address) };
        let Page::Some(bits) = &self.0[p] else { return None };
        let from = address % 64;
        let want = ones(from, bytes.into());
        let lack = want & !bits[(address % PAGE / 64) as usize];
        (lack != 0).then(|| address + u64::from(lack.trailing_zeros()) - from)
    }
}

fn set(bits: &mut [u64], at: u64, bytes: u64, on: bool) {
    let (mut at, end) = (at, at + bytes);
    while at < end {
        let stop = ((at / 64 + 1) * 64).min(end);
        let mask = ones(at % 64, stop - at);
        let word = &mut bits[(at / 64) as usize];
        *word = if on { *word | mask } else { *word & !mask };
        at = stop;
    }
}

/// Bytes of local memory that each lane of a warp has written: a bit a lane.
#[derive(Default)]
pub(super) struct Lanes(Vec<u32>);

impl Lanes {
    fn range(&mut self, at: u64, bytes: u32) -> &mut [u32] {
        let end = at as usize + bytes as usize;
        if self.0.len() < end {
            self.0.resize(end, 0);
        }
        &mut self.0[at as usize..end]
    }
    /// Lane `lane` has written these bytes.
    pub(super) fn write(&mut self, at: u64, bytes: u32, lane: usize) {
        self.range(at, bytes).iter_mut().for_each(|b| *b |= 1 << lane);
    }
    /// The first of these bytes that the lane has not written.
    pub(super) fn missing(&mut self, at: u64, bytes: u32, lane: usize) -> Option<u64> {
        self.range(at, bytes).iter().position(|b| b >> lane & 1 == 0).map(|i| at + i as u64)
    }
    /// These bytes are new in these lanes.
    pub(super) fn forget(&mut self, at: u32, bytes: u32, lanes: u32) {
        self.range(at.into(), bytes).iter_mut().for_each(|b| *b &= !lanes);
    }
    /// Bytes are copied in these lanes.
    pub(super) fn copy(&mut self, from: u32, to: u32, bytes: u32, lanes: u32) {
        let old = self.range(from.into(), bytes).to_vec();
        for (b, old) in self.range(to.into(), bytes).iter_mut().zip(old) {
            *b = *b & !lanes | old & lanes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_known_one_by_one_and_across_pages() {
        let mut w = Written::default();
        assert_eq!(w.missing(1 << 40, 4), Some(1 << 40));
        let base = (1 << 40) + 4000;
        w.write(base, 10_000);
        assert_eq!(w.missing(base - 8, 8), Some(base - 8));
        assert!((0..1250).all(|i| w.missing(base + 8 * i, 8).is_none()));
        assert_eq!(w.missing(base + 10_000, 1), Some(base + 10_000));
        w.forget(base + 5000, 3);
        assert_eq!(w.missing(base + 5000, 4), Some(base + 5000));
        assert_eq!(w.missing(base + 4996, 4), None);
        w.write(base + 5000, 2);
        assert_eq!(w.missing(base + 5000, 4), Some(base + 5002));
        assert_eq!(w.gaps(base - 9000, 25_000), [(0, 9000), (9000 + 5002, 1), (19_000, 6000)]);
        w.write(base, 0);
        assert_eq!(w.missing(base + 5000, 2), None);
        assert!(
            w.has(base, 5002) && !w.has(base, 5003) && w.has(base + 5003, 4997) && !w.has(base + 5003, 4998)
        );
        let at = std::array::from_fn(|l| 1248 + 2 * l as u32);
        assert_eq!(w.lacking(base / 4, &at, 2, u32::MAX), 1 << 1);
    }

    #[test]
    fn lanes_have_local_memory_of_their_own() {
        let mut l = Lanes::default();
        l.write(8, 4, 3);
        assert_eq!(l.missing(8, 4, 3), None);
        assert_eq!((l.missing(8, 4, 2), l.missing(8, 8, 3)), (Some(8), Some(12)));
        l.copy(8, 100, 4, 1 << 3);
        assert_eq!((l.missing(100, 4, 3), l.missing(100, 4, 2)), (None, Some(100)));
        l.forget(100, 2, u32::MAX);
        assert_eq!(l.missing(100, 4, 3), Some(100));
    }
}

//! A place where one thread lends bytes to another: the receiver reads them where they lie, so that nothing is copied.
//!
//! The sender stays in [`Place::lend`] until the bytes were read or it has taken them back, so they cannot go away.
#![allow(unsafe_code, reason = "a slice is lent to another thread for a time that no lifetime can say")]

use super::tag::Tag;
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicU8, Ordering};

const EMPTY: u8 = 0;
const LENT: u8 = 1;
const READING: u8 = 2;

struct Lent {
    tag: Tag,
    data: *const [u8],
}

/// One direction between two threads.
#[repr(align(128))] // a cache line of its own, and the one that processors fetch with it
pub(super) struct Place {
    state: AtomicU8,
    lent: UnsafeCell<Option<Lent>>,
}

// SAFETY: `lent` is written only by the one sender while `state` is EMPTY (see `lend`) and read only by whoever moved
// `state` from LENT to READING; the state's release and acquire order both. The pointer in it is that of a slice of plain
// bytes, alive while the state is LENT or READING.
unsafe impl Sync for Place {}
// SAFETY: as above; a Place that is EMPTY holds no pointer that is used.
unsafe impl Send for Place {}

impl Place {
    pub(super) const fn new() -> Place {
        Place { state: AtomicU8::new(EMPTY), lent: UnsafeCell::new(None) }
    }

    /// Lends `data` while `body` runs, which is told by its argument whether they have been read. At the end, also by a
    /// panic, what was not read is taken back. Only one thread ever lends at a place, which `&mut Lender` sees to.
    pub(super) fn lend<R>(
        &self,
        _: &mut Lender,
        tag: Tag,
        data: &[u8],
        body: impl FnOnce(&dyn Fn() -> bool) -> R,
    ) -> R {
        struct Back<'a>(&'a AtomicU8);
        impl Drop for Back<'_> {
            fn drop(&mut self) {
                // Whoever reads does nothing else meanwhile, and will be done soon.
                while self.0.compare_exchange(LENT, EMPTY, Ordering::AcqRel, Ordering::Acquire)
                    == Err(READING)
                {
                    std::thread::yield_now();
                }
            }
        }
        debug_assert_eq!(self.state.load(Ordering::Relaxed), EMPTY);
        // SAFETY: the state is EMPTY: no reader looks, and this is the only sender (`Lender`).
        unsafe { *self.lent.get() = Some(Lent { tag, data }) };
        self.state.store(LENT, Ordering::Release);
        let _back = Back(&self.state);
        body(&|| self.state.load(Ordering::Acquire) == EMPTY)
    }

    /// Reads what is lent by `read`, in place; None where nothing is.
    pub(super) fn take<R>(&self, read: impl FnOnce(&Tag, &[u8]) -> R) -> Option<R> {
        struct Done<'a>(&'a AtomicU8);
        impl Drop for Done<'_> {
            fn drop(&mut self) {
                self.0.store(EMPTY, Ordering::Release);
            }
        }
        self.state.compare_exchange(LENT, READING, Ordering::Acquire, Ordering::Relaxed).ok()?;
        let _done = Done(&self.state);
        // SAFETY: the state is READING, by this thread: the sender neither writes `lent` nor leaves `lend`, which holds
        // the borrow of `data`, before `_done` is dropped.
        let lent = unsafe { (*self.lent.get()).as_ref() }?;
        // SAFETY: as above.
        let data = unsafe { &*lent.data };
        Some(read(&lent.tag, data))
    }
}

/// The right to lend, of one sender.
pub(super) struct Lender(pub(super) ());

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::{Algorithm, Call};
    use crate::shape::DType;

    fn tag() -> Tag {
        let (call, dtype, reduce, algorithm) = (Call::Send, DType::U8, None, Algorithm::Ring);
        Tag { context: 0, sequence: 0, call, dtype, reduce, algorithm, root: 0, count: 0 }
    }

    #[test]
    fn what_was_not_read_is_taken_back() {
        let (place, mut lender) = (Place::new(), Lender(()));
        place.lend(&mut lender, tag(), &[1, 2], |read| assert!(!read()));
        assert!(place.take(|_, _| ()).is_none());
        let panics =
            std::panic::AssertUnwindSafe(|| place.lend(&mut lender, tag(), &[3], |_| panic!("planted")));
        assert!(std::panic::catch_unwind(panics).is_err());
        assert!(place.take(|_, _| ()).is_none());
    }

    /// The lender gives up at once, again and again, while the other reads: its bytes, freed right after, are never seen
    /// changed. Under AddressSanitizer or valgrind a lender that did not wait for the reader would show.
    #[test]
    fn a_lender_waits_for_the_reader() {
        let place = Place::new();
        std::thread::scope(|s| {
            let reader = s.spawn(|| {
                let mut seen = 0;
                while seen < 1000 {
                    let all_same = place.take(|_, data| data.iter().all(|b| *b == data[0]));
                    match all_same {
                        Some(same) => {
                            assert!(same);
                            seen += 1;
                        }
                        None => std::hint::spin_loop(),
                    }
                }
            });
            let mut lender = Lender(());
            let mut i = 0u8;
            while !reader.is_finished() {
                i = i.wrapping_add(1);
                let mut data = vec![i; 4096];
                place.lend(&mut lender, tag(), &data, |_| std::thread::yield_now());
                data.fill(i.wrapping_add(1));
                std::hint::black_box(&data);
            }
        });
    }
}

//! [`Cut`]: the piece of a larger array that a slot holds, where several ranks share a model.

use crate::error::Result;
use crate::shape::Shape;
use std::ops::Range;

/// A piece of an array: along one axis the array is `sections` sections of one length, each of which is cut into `of` pieces;
/// this is piece `part` of each of them. (Queries, keys and values of a projection are three sections, so that a rank's piece
/// has its heads of all three.) Pieces may differ by one in length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Shape of the whole array.
    pub whole: Shape,
    axis: usize,
    sections: usize,
    part: usize,
    of: usize,
}

impl Cut {
    /// Piece `part` of `of`.
    ///
    /// # Errors
    /// When the extents are impossible.
    pub fn new(whole: &[usize], axis: usize, sections: usize, (part, of): (usize, usize)) -> Result<Cut> {
        Ok(Cut { whole: Shape::new(whole)?, axis, sections: sections.max(1), part, of: of.max(1) })
    }

    /// The piece of each section.
    pub fn range(&self) -> Range<usize> {
        let n = self.whole.dims()[self.axis] / self.sections;
        self.part * n / self.of..(self.part + 1) * n / self.of
    }

    /// Extents of the piece.
    pub fn dims(&self) -> Vec<usize> {
        let mut dims = self.whole.dims().to_vec();
        dims[self.axis] = self.sections * self.range().len();
        dims
    }

    /// Stretches of memory: first element in the whole, first element in the piece, length.
    fn runs(&self) -> impl Iterator<Item = (usize, usize, usize)> + use<> {
        let dims = self.whole.dims();
        let (before, n): (usize, usize) = (dims[..self.axis].iter().product(), dims[self.axis]);
        let inner: usize = dims[self.axis + 1..].iter().product();
        let (range, section) = (self.range(), n / self.sections);
        (0..before * self.sections).map(move |i| {
            let len = range.len() * inner;
            ((i * section + range.start) * inner, i * len, len)
        })
    }

    /// The piece of `whole`.
    pub fn take<T: Copy>(&self, whole: &[T]) -> Vec<T> {
        self.runs().flat_map(|(at, _, len)| &whole[at..at + len]).copied().collect()
    }

    /// Puts the piece where it belongs in `whole`.
    pub fn put<T: Copy>(&self, piece: &[T], whole: &mut [T]) {
        for (to, from, len) in self.runs() {
            whole[to..to + len].copy_from_slice(&piece[from..from + len]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_disjoint_cover_the_whole_and_keep_sections_apart() {
        for (dims, axis, sections) in
            [(vec![6, 4], 0, 3), (vec![4, 6], 1, 1), (vec![7], 0, 1), (vec![2, 12, 3], 1, 2)]
        {
            let n: usize = dims.iter().product();
            let whole: Vec<usize> = (0..n).collect();
            for of in [1, 2, 3] {
                let mut back = vec![usize::MAX; n];
                for part in 0..of {
                    let cut = Cut::new(&dims, axis, sections, (part, of)).unwrap();
                    let piece = cut.take(&whole);
                    assert_eq!(piece.len(), cut.dims().iter().product::<usize>());
                    cut.put(&piece, &mut back);
                }
                assert_eq!(back, whole);
            }
        }
        // Two heads of two rows each in queries, keys and values: the second rank has rows 2, 3 of each.
        let cut = Cut::new(&[12, 1], 0, 3, (1, 2)).unwrap();
        assert_eq!(cut.take(&(0..12).collect::<Vec<_>>()), [2, 3, 6, 7, 10, 11]);
    }
}

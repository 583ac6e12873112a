//! Shapes, element types, and the pair of them ([`Spec`]) that ops reason about before memory is taken.

use crate::error::{Error, Result};
use std::fmt;

/// Largest number of axes.
pub const MAX_RANK: usize = 6;

/// Element type of a tensor or of a stored field.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    /// 32-bit float: the type that training runs in.
    F32,
    /// 64-bit float: the type that gradients are checked in.
    F64,
    /// 32-bit signed integer: ids and labels.
    I32,
    /// Byte: images, masks, small vocabularies.
    U8,
    /// 16-bit unsigned integer, storage only: token ids on disk.
    U16,
    /// bfloat16, storage only.
    Bf16,
    /// IEEE half, storage only.
    F16,
}

impl DType {
    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            DType::F64 => 8,
            DType::F32 | DType::I32 => 4,
            DType::U16 | DType::Bf16 | DType::F16 => 2,
            DType::U8 => 1,
        }
    }
    /// True for the types that carry gradients.
    pub const fn is_real(self) -> bool {
        matches!(self, DType::F32 | DType::F64)
    }
    /// Lower-case name, as used in files and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F64 => "f64",
            DType::I32 => "i32",
            DType::U8 => "u8",
            DType::U16 => "u16",
            DType::Bf16 => "bf16",
            DType::F16 => "f16",
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Extents of a row-major tensor, at most [`MAX_RANK`] of them; a scalar has none.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    rank: u8,
    dims: [usize; MAX_RANK],
}

impl Shape {
    /// Shape of a scalar.
    pub const SCALAR: Shape = Shape { rank: 0, dims: [1; MAX_RANK] };

    /// Shape with the given extents. Errors when there are more than [`MAX_RANK`] axes or more elements than `usize` holds.
    pub fn new(dims: &[usize]) -> Result<Shape> {
        if dims.len() > MAX_RANK {
            return Err(Error::shape(
                "shape",
                format!("{dims:?} has {} axes, at most {MAX_RANK} are supported", dims.len()),
            ));
        }
        let mut len = 1usize;
        for &d in dims {
            len = len.checked_mul(d).filter(|&n| n <= isize::MAX as usize / 8).ok_or_else(|| {
                Error::shape("shape", format!("{dims:?} has more elements than memory can address"))
            })?;
        }
        let mut s = Shape::SCALAR;
        s.rank = dims.len() as u8;
        s.dims[..dims.len()].copy_from_slice(dims);
        Ok(s)
    }
    /// Extents.
    pub fn dims(&self) -> &[usize] {
        &self.dims[..self.rank as usize]
    }
    /// Number of axes.
    pub fn rank(&self) -> usize {
        self.rank as usize
    }
    /// Number of elements (1 for a scalar).
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.dims().iter().product()
    }
    /// Extent of the last axis (1 for a scalar).
    pub fn last(&self) -> usize {
        self.dims().last().copied().unwrap_or(1)
    }
    /// Elements before `axis`, extent of `axis`, elements after it: the three loops that any reduction over one axis needs.
    pub fn around(&self, axis: usize) -> (usize, usize, usize) {
        let d = self.dims();
        (d[..axis].iter().product(), d[axis], d[axis + 1..].iter().product())
    }
    /// The axis that `dim` names, counted from the end when negative. `op` is named in the error.
    pub fn axis(&self, op: &str, dim: i64) -> Result<usize> {
        let rank = self.rank() as i64;
        let axis = if dim < 0 { dim + rank } else { dim };
        if axis < 0 || axis >= rank {
            return Err(Error::attr(
                op,
                "dim",
                format!("is {dim}, but input of shape {self} has axes {}..{}", -rank, rank - 1),
            ));
        }
        Ok(axis as usize)
    }
    /// This shape with `axis` set to `n`.
    pub fn with(&self, axis: usize, n: usize) -> Shape {
        let mut s = *self;
        s.dims[axis] = n;
        s
    }
    /// This shape without `axis`.
    pub fn without(&self, axis: usize) -> Shape {
        let mut s = Shape { rank: self.rank - 1, ..Shape::SCALAR };
        let (d, n) = (self.dims(), self.rank() - 1);
        s.dims[..axis].copy_from_slice(&d[..axis]);
        s.dims[axis..n].copy_from_slice(&d[axis + 1..]);
        s
    }
    /// NumPy broadcasting: axes are aligned at the end, an extent of 1 stretches. `op` is named in the error.
    pub fn broadcast(op: &str, a: Shape, b: Shape) -> Result<Shape> {
        let rank = a.rank().max(b.rank());
        let mut out = Shape { rank: rank as u8, ..Shape::SCALAR };
        for k in 0..rank {
            let of = |s: &Shape| if k < s.rank() { s.dims[s.rank() - 1 - k] } else { 1 };
            out.dims[rank - 1 - k] = match (of(&a), of(&b)) {
                (x, y) if x == y => x,
                (1, y) => y,
                (x, 1) => x,
                _ => {
                    return Err(Error::shape(
                        op,
                        format!(
                            "shapes {a} and {b} do not broadcast (axes are aligned at the end; extents must be equal or 1)"
                        ),
                    ));
                }
            };
        }
        Shape::new(out.dims())
    }
    // ANCHOR: strides
    /// Row-major strides in elements; the axes that `self` lacks or that have extent 1 get stride 0 when seen as `out`.
    pub fn strides_as(&self, out: &Shape) -> [usize; MAX_RANK] {
        let mut strides = [0; MAX_RANK];
        let mut step = 1;
        for k in 0..self.rank() {
            let n = self.dims[self.rank() - 1 - k];
            strides[out.rank() - 1 - k] = if n == 1 { 0 } else { step };
            step *= n;
        }
        strides
    }
    // ANCHOR_END: strides
}

impl TryFrom<&[usize]> for Shape {
    type Error = Error;
    fn try_from(dims: &[usize]) -> Result<Shape> {
        Shape::new(dims)
    }
}
impl<const N: usize> TryFrom<[usize; N]> for Shape {
    type Error = Error;
    fn try_from(dims: [usize; N]) -> Result<Shape> {
        Shape::new(&dims)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.dims())
    }
}
impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.dims())
    }
}

/// Element type and shape of a tensor that may not exist yet.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Spec {
    /// Element type.
    pub dtype: DType,
    /// Extents.
    pub shape: Shape,
}

impl Spec {
    /// Spec of the given type and extents.
    pub fn new(dtype: DType, dims: &[usize]) -> Result<Spec> {
        Ok(Spec { dtype, shape: Shape::new(dims)? })
    }
    /// The same type with another shape.
    pub fn with_shape(self, shape: Shape) -> Spec {
        Spec { shape, ..self }
    }
    /// Bytes of the elements.
    pub fn bytes(&self) -> usize {
        self.shape.len() * self.dtype.size()
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.dtype, self.shape)
    }
}
impl fmt::Debug for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcast_follows_numpy() {
        let s = |d: &[usize]| Shape::new(d).unwrap();
        assert_eq!(Shape::broadcast("add", s(&[3, 1, 5]), s(&[4, 1])).unwrap(), s(&[3, 4, 5]));
        assert_eq!(Shape::broadcast("add", s(&[]), s(&[2])).unwrap(), s(&[2]));
        let e = Shape::broadcast("add", s(&[3, 2]), s(&[4])).unwrap_err().to_string();
        assert!(e.contains("add") && e.contains("[3, 2]") && e.contains("[4]"), "{e}");
    }

    #[test]
    fn absurd_extents_are_an_error_not_an_overflow() {
        assert!(Shape::new(&[usize::MAX, 2]).is_err());
        assert!(Shape::new(&[1 << 40, 1 << 40]).is_err());
    }
}

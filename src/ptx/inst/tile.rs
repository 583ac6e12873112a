//! What tiles of matrices there are in the registers of a warp: element types, shapes, and the registers that hold them.

use crate::ptx::ast::Operand;
use crate::ptx::float::tensor::Element;
use crate::ptx::lower::Inst;
use crate::ptx::text::Read;
use crate::ptx::types::Type;

/// Types of fragments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Of(Element),
    F32,
    F64,
    S32,
}

/// Their names.
pub(super) const KINDS: [(&str, Kind); 12] = [
    ("f16", Kind::Of(Element::F16)),
    ("bf16", Kind::Of(Element::Bf16)),
    ("tf32", Kind::Of(Element::Tf32)),
    ("f32", Kind::F32),
    ("f64", Kind::F64),
    ("s32", Kind::S32),
    ("e4m3", Kind::Of(Element::E4m3)),
    ("e5m2", Kind::Of(Element::E5m2)),
    ("s8", Kind::Of(Element::S8)),
    ("u8", Kind::Of(Element::U8)),
    ("s4", Kind::Of(Element::S4)),
    ("u4", Kind::Of(Element::U4)),
];

impl Kind {
    /// Elements of a register.
    pub(super) fn each(self) -> u32 {
        match self {
            Kind::Of(e) => e.each() as u32,
            _ => 1,
        }
    }
    /// Type of a register that holds it.
    pub(super) fn register(self) -> Type {
        match self {
            Kind::Of(_) => Type::B32,
            Kind::F32 => Type::F32,
            Kind::F64 => Type::F64,
            Kind::S32 => Type::S32,
        }
    }
}

/// m, n and k of a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) m: u32,
    pub(super) n: u32,
    pub(super) k: u32,
}

/// The shapes that there are, of `mma` and `wmma`.
const SHAPES: [(&str, (u32, u32, u32)); 12] = [
    ("m8n8k4", (8, 8, 4)),
    ("m8n8k16", (8, 8, 16)),
    ("m8n8k32", (8, 8, 32)),
    ("m16n8k4", (16, 8, 4)),
    ("m16n8k8", (16, 8, 8)),
    ("m16n8k16", (16, 8, 16)),
    ("m16n8k32", (16, 8, 32)),
    ("m16n8k64", (16, 8, 64)),
    ("m16n16k16", (16, 16, 16)),
    ("m32n8k16", (32, 8, 16)),
    ("m8n32k16", (8, 32, 16)),
    ("m16n16k8", (16, 16, 8)),
];

impl Shape {
    /// Takes the suffix that names the shape.
    pub(super) fn take(i: &mut Inst<'_, '_, '_>) -> Read<Shape> {
        match i.pick(&SHAPES) {
            Some((m, n, k)) => Ok(Shape { m, n, k }),
            _ => i.unsupported(),
        }
    }
    /// True when an instruction of this shape has A and B of this kind: `mma`'s n is 8, of which `wmma` has f64 and 4 bits.
    pub(super) fn holds(self, kind: Kind, wmma: bool) -> bool {
        let Shape { m, n, k } = self;
        let tile = (m, n) == (16, 8);
        let small = (m, n) == (8, 8);
        let large = (m, n) != (8, 8) && m * n == 256 && k == 16;
        match (kind, wmma) {
            (Kind::Of(Element::F16 | Element::Bf16), false) => tile && matches!(k, 8 | 16),
            (Kind::Of(Element::Tf32), false) => tile && matches!(k, 4 | 8),
            (Kind::Of(Element::E4m3 | Element::E5m2), false) => tile && matches!(k, 16 | 32),
            (Kind::Of(Element::S8 | Element::U8), false) => tile && matches!(k, 16 | 32) || small && k == 16,
            (Kind::Of(Element::S4 | Element::U4), false) => tile && matches!(k, 32 | 64) || small && k == 32,
            (Kind::F64, false) => tile && matches!(k, 4 | 8 | 16) || small && k == 4,
            (Kind::Of(Element::Tf32), true) => (m, n, k) == (16, 16, 8),
            (Kind::Of(Element::F16 | Element::Bf16 | Element::S8 | Element::U8), true) => large,
            (Kind::F64, true) => small && k == 4,
            (Kind::Of(Element::S4 | Element::U4), true) => small && k == 32,
            _ => false,
        }
    }
    /// Registers of A that count.
    pub(super) fn left(self, kind: Kind) -> u32 {
        self.m * self.k / (32 * kind.each())
    }
    /// Registers of B that count.
    pub(super) fn right(self, kind: Kind) -> u32 {
        self.n * self.k / (32 * kind.each())
    }
    /// Registers of C or D: only halves share one there.
    pub(super) fn sums(self, kind: Kind) -> u32 {
        self.m * self.n / (32 * kind.each())
    }
}

/// Slots of the registers of operand `o`, of which there are `n`.
pub(super) fn registers(
    i: &mut Inst<'_, '_, '_>,
    o: usize,
    n: u32,
    kind: Kind,
    write: bool,
) -> Read<Vec<u32>> {
    let parts: Vec<&Operand<'_>> = match i.operand(o)? {
        Operand::Vector(all, _) => all.iter().collect(),
        one => vec![one],
    };
    if parts.len() != n as usize {
        return i.refuse(format!(
            "`{}` has {n} registers in operand {} and not {}",
            i.whole(),
            o + 1,
            parts.len()
        ));
    }
    let ty = kind.register();
    let one = |p| if write { i.write(p, ty, false) } else { i.read(p, ty, false) };
    parts.into_iter().map(one).map(|found| found.map(|(slot, _)| slot)).collect()
}

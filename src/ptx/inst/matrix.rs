//! Products of matrices in the registers of a warp: `mma`, `wmma.mma` (PTX ISA 9.0, section 9.7.15).
//!
//! A tile of m × n is made of blocks of 16 × 8 (8 × 8 where m is 8), one product of `float::tensor` each. Registers of A
//! come block by block down, those of B block by block across, those of C and D by rows of blocks. For `mma` there is one
//! block and the layout is that of the ISA; what a `wmma` fragment looks like is nobody's business but that of
//! `fragment.rs`, which uses the same one.

use super::control::together;
use super::tile::{KINDS, Kind, Shape, registers};
use crate::ptx::float::tensor::{Element, Lanes, Sums, multiply, multiply_doubles, multiply_integers};
use crate::ptx::lower::{Inst, Slots};
use crate::ptx::run::row::{Bits, LANES, put};
use crate::ptx::run::{Counts, Cx, Flow, Op, Run};
use crate::ptx::text::Read;

/// How a product is to be done, in the lower half of its op's `imm`.
#[derive(Clone, Copy)]
struct Plan(u64);

impl Plan {
    fn new(shape: Shape, halves: [bool; 2], saturate: bool) -> Plan {
        let flops = u64::from(2 * shape.m * shape.n * shape.k);
        let flags = u64::from(halves[0]) << 24 | u64::from(halves[1]) << 25 | u64::from(saturate) << 26;
        Plan(flops << 32 | u64::from(shape.m | shape.n << 8 | shape.k << 16) | flags)
    }
    fn shape(self) -> Shape {
        let part = |at: u32| (self.0 >> at & 255) as u32;
        Shape { m: part(0), n: part(8), k: part(16) }
    }
    /// C (0) or D (1) holds f16.
    fn halves(self, which: u32) -> bool {
        self.0 >> (24 + which) & 1 == 1
    }
    fn saturates(self) -> bool {
        self.0 >> 26 & 1 == 1
    }
}

/// Lowers `mma.sync` and `wmma.mma.sync`.
pub(super) fn lower(i: &mut Inst<'_, '_, '_>) -> Read<()> {
    let wmma = i.opcode() == "wmma";
    if !i.take("sync") || !(i.take("aligned") || wmma) {
        return i.unsupported();
    }
    let shape = Shape::take(i)?;
    // The order of a fragment was settled when it was loaded; `mma` has one only.
    match wmma {
        true => i.ignore(&["row", "col", "mma"]),
        false if !i.take("row") || !i.take("col") => return i.unsupported(),
        false => {}
    }
    let mut kinds = Vec::new();
    while let Some(kind) = i.pick(&KINDS) {
        kinds.push(kind);
    }
    let f16 = Kind::Of(Element::F16);
    let (d, a, b, c) = match kinds[..] {
        [d, a, b, c] => (d, a, b, c),
        [d, c] if wmma => (d, f16, f16, c),
        _ => return i.unsupported(),
    };
    let saturate = i.take("satfinite");
    let Some(run) = body(d, a, b, c).filter(|_| shape.holds(a, wmma)) else { return i.unsupported() };
    match a {
        Kind::F64 => i.ignore(&["rn"]),
        // Of floats, what cannot be held becomes infinite unless this says otherwise.
        Kind::Of(e) if saturate && !e.is_integer() => return i.unsupported(),
        _ => {}
    }
    i.wants(4)?;
    // Fragments of f16 are held twice or more often where 8 registers are too many.
    let (na, nb) = if wmma && a == f16 { (8, 8) } else { (shape.left(a), shape.right(b)) };
    let mut all = registers(i, 1, na, a, false)?;
    all.truncate(shape.left(a) as usize);
    let mut right = registers(i, 2, nb, b, false)?;
    right.truncate(shape.right(b) as usize);
    all.extend(right);
    all.extend(registers(i, 3, shape.sums(c), c, false)?);
    all.extend(registers(i, 0, shape.sums(d), d, true)?);
    let list = i.list(&all);
    let mask = i.constant(u32::MAX.into(), false);
    let plan = Plan::new(shape, [c == f16, d == f16], saturate);
    let code = |kind| if let Kind::Of(e) = kind { e as u32 } else { 0 };
    i.emit(
        run,
        Counts::Matrix,
        Slots { a: code(a), b: code(b), c: mask, list, imm: plan.0, ..Slots::default() },
    );
    Ok(())
}

/// What runs for these types.
fn body(d: Kind, a: Kind, b: Kind, c: Kind) -> Option<Run> {
    let f16 = Kind::Of(Element::F16);
    let float = |k| k == f16 || k == Kind::F32;
    let byte = |k| matches!(k, Kind::Of(Element::E4m3 | Element::E5m2));
    let same = |x: Kind, y: Kind| match (x, y) {
        (Kind::Of(x), Kind::Of(y)) => x.is_integer() && y.is_integer() && x.each() == y.each(),
        _ => false,
    };
    match (d, a, b, c) {
        (Kind::F64, Kind::F64, Kind::F64, Kind::F64) => Some(doubles),
        (Kind::S32, a, b, Kind::S32) if same(a, b) => Some(integers),
        (d, a, b, c) if a == f16 && b == f16 && float(d) && float(c) => Some(floats),
        (d, a, b, c) if byte(a) && byte(b) && float(d) && float(c) => Some(floats),
        (Kind::F32, Kind::Of(Element::Bf16 | Element::Tf32), b, Kind::F32) if a == b => Some(floats),
        _ => None,
    }
}

const ELEMENTS: [Element; 9] = [
    Element::F16,
    Element::Bf16,
    Element::Tf32,
    Element::E4m3,
    Element::E5m2,
    Element::S8,
    Element::U8,
    Element::S4,
    Element::U4,
];

/// Elements of A and B.
#[inline(always)]
fn elements(op: &Op) -> [Element; 2] {
    [op.a, op.b].map(|code| ELEMENTS[code as usize % ELEMENTS.len()])
}

/// Most registers of an operand.
const MOST: usize = 8;

/// The blocks of a tile: each is handed the registers of A and B and the place in C and D.
struct Blocks {
    /// A has 16 rows in each.
    two: bool,
    /// Blocks down and across.
    down: usize,
    across: usize,
    /// Registers of A and B of a block.
    left: usize,
    right: usize,
}

impl Blocks {
    #[inline(always)]
    fn new(shape: Shape, each: usize) -> Blocks {
        let (m, n, k) = (shape.m as usize, shape.n as usize, shape.k as usize);
        let two = m >= 16;
        let high = if two { 16 } else { 8 };
        Blocks { two, down: m / high, across: n / 8, left: high * k / (32 * each), right: k / (4 * each) }
    }
    /// Registers of all of A and B.
    #[inline(always)]
    fn all(&self) -> (usize, usize) {
        (self.down * self.left, self.across * self.right)
    }
    #[inline(always)]
    fn high(&self) -> usize {
        1 + usize::from(self.two)
    }
}

/// The registers from `at` on in the op's list, of `n` that count.
#[inline(always)]
fn rows<'r, B: Bits, const N: usize>(cx: &'r Cx<'_>, op: &Op, at: usize, n: usize) -> [&'r [B; LANES]; N] {
    std::array::from_fn(|r| B::read(cx.rows, cx.listed(op, at + r.min(n - 1))))
}

fn floats(cx: &mut Cx<'_>, op: &Op) -> Flow {
    if let Some(flow) = together(cx, op, op.c) {
        return flow;
    }
    let (plan, pair) = (Plan(op.imm), elements(op));
    let blocks = Blocks::new(plan.shape(), pair[0].each());
    let ((na, nb), n) = (blocks.all(), 2 * blocks.high());
    let (ec, ed) = (1 + usize::from(plan.halves(0)), 1 + usize::from(plan.halves(1)));
    let count = blocks.down * blocks.across * n;
    let to = na + nb + count / ec;
    if count <= 4 && ec * ed == 1 {
        // The usual: one block, sums in f32.
        let c = rows::<u32, 4>(cx, op, na + nb, count);
        let mut d: Sums<f32> = [*c[0], *c[1], *c[2], *c[3]].map(bytemuck::cast);
        let (a, b) = (rows::<u32, 4>(cx, op, 0, na), rows::<u32, 4>(cx, op, na, nb));
        multiply(pair, &a[..na], &b[..nb], blocks.two, &mut d);
        for (r, y) in d.iter().enumerate().take(count) {
            put::<u32>(cx.rows, cx.listed(op, to + r), bytemuck::cast(*y), cx.mask);
        }
        return Flow::Next;
    }
    let (a, b) = (rows::<u32, MOST>(cx, op, 0, na), rows::<u32, MOST>(cx, op, na, nb));
    let mut out = [[0; LANES]; MOST];
    for (block, left, right) in each_block(&blocks, &a, &b) {
        let c = rows::<u32, 4>(cx, op, na + nb + block * n / ec, n / ec);
        let mut d = sums(&c, n, ec == 2);
        multiply(pair, left, right, blocks.two, &mut d);
        results(&d, ed == 2, &mut out[block * n / ed..][..n / ed]);
    }
    for (r, y) in out.iter().enumerate().take(count / ed) {
        put(cx.rows, cx.listed(op, to + r), *y, cx.mask);
    }
    Flow::Next
}

/// Number, registers of A and registers of B of each block.
fn each_block<'r, T>(
    blocks: &Blocks,
    a: &'r [T; MOST],
    b: &'r [T; MOST],
) -> impl Iterator<Item = (usize, &'r [T], &'r [T])> {
    let &Blocks { down, across, left, right, .. } = blocks;
    (0..down * across).map(move |k| (k, &a[k / across * left..][..left], &b[k % across * right..][..right]))
}

/// C's elements, `n` for each lane, out of as many registers, or half as many where two share one.
fn sums(c: &[&Lanes; 4], n: usize, halves: bool) -> Sums<f32> {
    let half = |v: u32| half::f16::from_bits(v as u16).to_f32();
    let mut d = [[0.0; LANES]; 4];
    for (i, d) in d.iter_mut().enumerate().take(n) {
        *d = match halves {
            false => bytemuck::cast(*c[i]),
            true => c[i / 2].map(|v| half(v >> (16 * (i % 2)))),
        };
    }
    d
}

/// D's elements into registers.
fn results(d: &Sums<f32>, halves: bool, to: &mut [Lanes]) {
    let half = |v: f32| u32::from(half::f16::from_f32(v).to_bits());
    for (i, to) in to.iter_mut().enumerate() {
        *to = match halves {
            false => bytemuck::cast(d[i]),
            true => std::array::from_fn(|l| half(d[2 * i][l]) | half(d[2 * i + 1][l]) << 16),
        };
    }
}

fn integers(cx: &mut Cx<'_>, op: &Op) -> Flow {
    if let Some(flow) = together(cx, op, op.c) {
        return flow;
    }
    let (plan, pair) = (Plan(op.imm), elements(op));
    let blocks = Blocks::new(plan.shape(), pair[0].each());
    let ((na, nb), n) = (blocks.all(), 2 * blocks.high());
    let (a, b) = (rows::<u32, MOST>(cx, op, 0, na), rows::<u32, MOST>(cx, op, na, nb));
    let count = blocks.down * blocks.across * n;
    let mut out: [Lanes; MOST] = [[0; LANES]; MOST];
    for (block, left, right) in each_block(&blocks, &a, &b) {
        let c = rows::<u32, 4>(cx, op, na + nb + block * n, n);
        let mut d: Sums<i32> = std::array::from_fn(|i| bytemuck::cast(*c[i]));
        multiply_integers(pair, [left, right], blocks.two, plan.saturates(), &mut d);
        for (out, d) in out[block * n..][..n].iter_mut().zip(d) {
            *out = bytemuck::cast(d);
        }
    }
    for (r, y) in out.iter().enumerate().take(count) {
        put(cx.rows, cx.listed(op, na + nb + count + r), *y, cx.mask);
    }
    Flow::Next
}

/// There is no tile of f64 with more than one block.
fn doubles(cx: &mut Cx<'_>, op: &Op) -> Flow {
    if let Some(flow) = together(cx, op, op.c) {
        return flow;
    }
    let blocks = Blocks::new(Plan(op.imm).shape(), 1);
    let ((na, nb), n) = (blocks.all(), 2 * blocks.high());
    let (a, b) = (rows::<u64, MOST>(cx, op, 0, na), rows::<u64, MOST>(cx, op, na, nb));
    let c = rows::<u64, 4>(cx, op, na + nb, n);
    let mut d: Sums<f64> = std::array::from_fn(|i| bytemuck::cast(*c[i]));
    multiply_doubles(&a[..na], &b[..nb], blocks.two, &mut d);
    for (r, y) in d.iter().enumerate().take(n) {
        put::<u64>(cx.rows, cx.listed(op, na + nb + n + r), bytemuck::cast(*y), cx.mask);
    }
    Flow::Next
}

//! Products of small matrices that a warp holds in its registers, as `mma.sync` and `wmma` compute them.
//!
//! Registers come as rows of 32 lanes. In a fragment, lane l = 4 g + t holds, of register r, elements of row g (plus 8 in
//! odd registers of A) from column E t on (plus 4 E for each further pair of registers), where E elements share a
//! register; of B the same with rows and columns exchanged (PTX ISA, matrix fragments). Sums run over k in order, fused in
//! f32: the ISA leaves order and width open, so a kernel must not lean on either.

use super::format::Byte;
use crate::vectorized;

/// One 32-bit register of 32 lanes.
pub type Lanes = [u32; 32];

/// Elements of A and B.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as in PTX")]
pub enum Element {
    F16,
    Bf16,
    Tf32,
    E4m3,
    E5m2,
    S8,
    U8,
    S4,
    U4,
}

impl Element {
    /// Elements of a 32-bit register.
    pub fn each(self) -> usize {
        match self {
            Element::Tf32 => 1,
            Element::F16 | Element::Bf16 => 2,
            Element::E4m3 | Element::E5m2 | Element::S8 | Element::U8 => 4,
            Element::S4 | Element::U4 => 8,
        }
    }
    /// True for the elements whose sums are integers.
    pub fn is_integer(self) -> bool {
        matches!(self, Element::S8 | Element::U8 | Element::S4 | Element::U4)
    }
    /// Element `j` of a register, as a float.
    #[inline(always)]
    pub fn float(self, register: u32, j: usize) -> f32 {
        match self {
            Element::F16 => half::f16::from_bits((register >> (16 * j)) as u16).to_f32(),
            Element::Bf16 => f32::from_bits(register >> (16 * j) << 16),
            Element::Tf32 => f32::from_bits(register & !0x1fff),
            Element::E4m3 => Byte::E4m3.value((register >> (8 * j)) as u8) as f32,
            Element::E5m2 => Byte::E5m2.value((register >> (8 * j)) as u8) as f32,
            _ => self.integer(register, j) as f32,
        }
    }
    /// Element `j` of a register, as an integer.
    #[inline(always)]
    pub fn integer(self, register: u32, j: usize) -> i32 {
        match self {
            Element::S8 => i32::from((register >> (8 * j)) as i8),
            Element::S4 => (register << (28 - 4 * j)) as i32 >> 28,
            Element::U4 => (register >> (4 * j) & 15) as i32,
            _ => (register >> (8 * j) & 255) as i32,
        }
    }
}

/// Numbers whose products are summed.
pub trait Number: Copy + Default + 'static {
    /// a b + c: fused, or modulo 2³².
    fn fused(a: Self, b: Self, c: Self) -> Self;
}
impl Number for f32 {
    #[inline(always)]
    fn fused(a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }
}
impl Number for f64 {
    #[inline(always)]
    fn fused(a: f64, b: f64, c: f64) -> f64 {
        a.mul_add(b, c)
    }
}
impl Number for i32 {
    #[inline(always)]
    fn fused(a: i32, b: i32, c: i32) -> i32 {
        a.wrapping_mul(b).wrapping_add(c)
    }
}

/// What A and B hold, as a type: the loops are compiled for each.
trait Elements: 'static {
    /// A register of one lane.
    type Word: Copy + 'static;
    /// What an element becomes.
    type T: Number;
    /// Element by element of a register, what the lanes hold.
    type Parts: AsRef<[[Self::T; 32]]> + AsMut<[[Self::T; 32]]> + Default;
    /// Element `j` of a register of A.
    fn a(v: Self::Word, j: usize) -> Self::T;
    /// Element `j` of a register of B.
    fn b(v: Self::Word, j: usize) -> Self::T;
}

macro_rules! elements { ($($name:ident: $word:ty => $t:ty, $each:literal, |$v:ident, $j:ident| $a:expr, $b:expr;)*) => { $(
    struct $name;
    impl Elements for $name {
        type Word = $word;
        type T = $t;
        type Parts = [[$t; 32]; $each];
        #[inline(always)]
        fn a($v: $word, $j: usize) -> $t { $a }
        #[inline(always)]
        fn b($v: $word, $j: usize) -> $t { $b }
    }
)* } }
elements! {
    Halves: u32 => f32, 2, |v, j| half_of(v >> (16 * j)), half_of(v >> (16 * j));
    Brains: u32 => f32, 2, |v, j| f32::from_bits(v >> (16 * j) << 16), f32::from_bits(v >> (16 * j) << 16);
    Tensors: u32 => f32, 1, |v, _j| f32::from_bits(v & !0x1fff), f32::from_bits(v & !0x1fff);
    Doubles: u64 => f64, 1, |v, _j| f64::from_bits(v), f64::from_bits(v);
    E4E4: u32 => f32, 4, |v, j| Element::E4m3.float(v, j), Element::E4m3.float(v, j);
    E4E5: u32 => f32, 4, |v, j| Element::E4m3.float(v, j), Element::E5m2.float(v, j);
    E5E4: u32 => f32, 4, |v, j| Element::E5m2.float(v, j), Element::E4m3.float(v, j);
    E5E5: u32 => f32, 4, |v, j| Element::E5m2.float(v, j), Element::E5m2.float(v, j);
    S8S8: u32 => i32, 4, |v, j| Element::S8.integer(v, j), Element::S8.integer(v, j);
    S8U8: u32 => i32, 4, |v, j| Element::S8.integer(v, j), Element::U8.integer(v, j);
    U8S8: u32 => i32, 4, |v, j| Element::U8.integer(v, j), Element::S8.integer(v, j);
    U8U8: u32 => i32, 4, |v, j| Element::U8.integer(v, j), Element::U8.integer(v, j);
    S4S4: u32 => i32, 8, |v, j| Element::S4.integer(v, j), Element::S4.integer(v, j);
    S4U4: u32 => i32, 8, |v, j| Element::S4.integer(v, j), Element::U4.integer(v, j);
    U4S4: u32 => i32, 8, |v, j| Element::U4.integer(v, j), Element::S4.integer(v, j);
    U4U4: u32 => i32, 8, |v, j| Element::U4.integer(v, j), Element::U4.integer(v, j);
}

/// The f16 in the lower half of `v`, without a branch: its exponent is moved by a product, which is exact.
#[inline(always)]
fn half_of(v: u32) -> f32 {
    let magnitude = f32::from_bits((v & 0x7fff) << 13) * f32::from_bits((127 + 112) << 23);
    let special = if v & 0x7c00 == 0x7c00 { 0x7f80_0000 } else { 0 };
    f32::from_bits(magnitude.to_bits() | special | (v & 0x8000) << 16)
}

/// C and D as lanes hold them, see [`place`]: registers of rows 0 to 7, then those of rows 8 to 15; of even columns, then
/// of odd ones.
pub type Sums<T> = [[T; 32]; 4];

/// Where lane l has element i of C and D: (row, column).
#[inline(always)]
pub fn place(l: usize, i: usize) -> (usize, usize) {
    (l / 4 + 8 * (i / 2), 2 * (l % 4) + i % 2)
}

/// x₀ x₁₆ x₁ x₁₇ …: as lanes are numbered by 5 bits, the first bit becomes the last.
#[inline(always)]
fn interleaved<T: Number>(x: &[T; 32]) -> [T; 32] {
    let mut y = [T::default(); 32];
    for i in 0..16 {
        (y[2 * i], y[2 * i + 1]) = (x[i], x[16 + i]);
    }
    y
}

/// Adds to eight or sixteen rows of sums the products at depth T of the four that x and y hold.
#[inline(always)]
fn outer<const T: usize, N: Number>(x: [&[N; 32]; 2], y: &[N; 32], d: &mut Sums<N>) {
    let [low, high] = x;
    for l in 0..32 {
        d[0][l] = N::fused(low[l & !3 | T], y[4 * T + l % 4], d[0][l]);
    }
    for l in 0..32 {
        d[1][l] = N::fused(low[l & !3 | T], y[16 + 4 * T + l % 4], d[1][l]);
    }
    for l in 0..32 {
        d[2][l] = N::fused(high[l & !3 | T], y[4 * T + l % 4], d[2][l]);
    }
    for l in 0..32 {
        d[3][l] = N::fused(high[l & !3 | T], y[16 + 4 * T + l % 4], d[3][l]);
    }
}

vectorized! {
    /// The elements of a register of A: lane 4 g + t has depth t of row g.
    fn left<E: Elements>(a: &[E::Word; 32], to: &mut [[E::T; 32]]) {
        for (j, to) in to.iter_mut().enumerate() {
            for l in 0..32 {
                to[l] = E::a(a[l], j);
            }
        }
    }
    /// The elements of a register of B, where lane 4 g + t has depth t of column g, as depth t of the even columns and
    /// then of the odd ones: the number of column g = 2 c + h goes from 4 g + t to 16 h + 4 t + c.
    fn right<E: Elements>(b: &[E::Word; 32], to: &mut [[E::T; 32]]) {
        for (j, to) in to.iter_mut().enumerate() {
            let mut one = [E::T::default(); 32];
            for l in 0..32 {
                one[l] = E::b(b[l], j);
            }
            *to = interleaved(&interleaved(&one));
        }
    }
    /// Adds all products of such elements of rows 0 to 7 and 8 to 15, depth by depth.
    fn accumulate<N: Number>(low: &[[N; 32]], high: &[[N; 32]], y: &[[N; 32]], d: &mut Sums<N>) {
        let mut s = *d;
        for ((low, high), y) in low.iter().zip(high).zip(y) {
            outer::<0, N>([low, high], y, &mut s);
        }
        for ((low, high), y) in low.iter().zip(high).zip(y) {
            outer::<1, N>([low, high], y, &mut s);
        }
        for ((low, high), y) in low.iter().zip(high).zip(y) {
            outer::<2, N>([low, high], y, &mut s);
        }
        for ((low, high), y) in low.iter().zip(high).zip(y) {
            outer::<3, N>([low, high], y, &mut s);
        }
        *d = s;
    }
}

/// d += a b. Not one vectorised function: compilers that see where elements come from make worse of it. Where A has 8
/// rows only, the other sums are of no use.
fn product<E: Elements>(a: &[&[E::Word; 32]], b: &[&[E::Word; 32]], two: bool, d: &mut Sums<E::T>) {
    let (mut low, mut high, mut y) = (E::Parts::default(), E::Parts::default(), E::Parts::default());
    for (a, b) in a.chunks_exact(1 + usize::from(two)).zip(b) {
        left::<E>(a[0], low.as_mut());
        if two {
            left::<E>(a[1], high.as_mut());
        }
        right::<E>(b, y.as_mut());
        accumulate(low.as_ref(), high.as_ref(), y.as_ref(), d);
    }
}

/// d = a b + d of float elements. `two`: A has 16 rows, else 8.
pub fn multiply([ea, eb]: [Element; 2], a: &[&Lanes], b: &[&Lanes], two: bool, d: &mut Sums<f32>) {
    match (ea, eb) {
        (Element::F16, _) => product::<Halves>(a, b, two, d),
        (Element::Bf16, _) => product::<Brains>(a, b, two, d),
        (Element::E4m3, Element::E5m2) => product::<E4E5>(a, b, two, d),
        (Element::E4m3, _) => product::<E4E4>(a, b, two, d),
        (Element::E5m2, Element::E4m3) => product::<E5E4>(a, b, two, d),
        (Element::E5m2, _) => product::<E5E5>(a, b, two, d),
        _ => product::<Tensors>(a, b, two, d),
    }
}

/// d = a b + d in f64.
pub fn multiply_doubles(a: &[&[u64; 32]], b: &[&[u64; 32]], two: bool, d: &mut Sums<f64>) {
    product::<Doubles>(a, b, two, d);
}

/// d = a b + d of integer elements: `.satfinite` clamps each final sum, else it wraps.
pub fn multiply_integers(
    [ea, eb]: [Element; 2],
    [a, b]: [&[&Lanes]; 2],
    two: bool,
    saturate: bool,
    d: &mut Sums<i32>,
) {
    use Element::{S4, S8, U4, U8};
    // Sums of products alone fit: 64 of 15², 32 of 255² at most.
    let mut sums: Sums<i32> = [[0; 32]; 4];
    match (ea, eb) {
        (S8, U8) => product::<S8U8>(a, b, two, &mut sums),
        (S8, _) => product::<S8S8>(a, b, two, &mut sums),
        (U8, S8) => product::<U8S8>(a, b, two, &mut sums),
        (U8, _) => product::<U8U8>(a, b, two, &mut sums),
        (S4, U4) => product::<S4U4>(a, b, two, &mut sums),
        (S4, _) => product::<S4S4>(a, b, two, &mut sums),
        (_, S4) => product::<U4S4>(a, b, two, &mut sums),
        _ => product::<U4U4>(a, b, two, &mut sums),
    }
    for (d, s) in d.iter_mut().flatten().zip(sums.iter().flatten()) {
        *d = if saturate { d.saturating_add(*s) } else { d.wrapping_add(*s) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Small integers, which every element type holds and whose sums are exact.
    fn entry(i: usize, j: usize, low: i32) -> i32 {
        ((i * 7 + j * 5) % 6) as i32 + low
    }

    fn bits(e: Element, v: i32) -> u32 {
        match e {
            Element::F16 => half::f16::from_f32(v as f32).to_bits().into(),
            Element::Bf16 => (v as f32).to_bits() >> 16,
            Element::Tf32 => (v as f32).to_bits() | 0x1abc, // what lies below the 10 bits does not count
            Element::E4m3 => Byte::E4m3.of(v.into()).into(),
            Element::E5m2 => Byte::E5m2.of(v.into()).into(),
            Element::S8 | Element::U8 => v as u32 & 255,
            Element::S4 | Element::U4 => v as u32 & 15,
        }
    }

    /// Registers of a fragment as the tables of the ISA give them: lane l, register r, element j to (row, column).
    fn fragment(e: Element, n: usize, at: impl Fn(usize, usize, usize) -> i32) -> Vec<Lanes> {
        let width = 32 / e.each();
        let word = |l, r| (0..e.each()).fold(0, |w, j| w | bits(e, at(l, r, j)) << (width * j % 32));
        (0..n).map(|r| std::array::from_fn(|l| word(l, r))).collect()
    }

    fn check(e: Element, k: usize) {
        let each = e.each();
        let low = if matches!(e, Element::U8 | Element::U4) { 0 } else { -3 };
        // mma.m16n8k16 of f16: a2, a3 are row g + 8; a4 … a7 are 8 columns on. The others alike, 4 E columns on.
        let a = fragment(e, k / (2 * each), |l, r, j| {
            let (g, t) = (l / 4, l % 4);
            entry(if r % 2 == 0 { g } else { g + 8 }, t * each + j + if r < 2 { 0 } else { 4 * each }, low)
        });
        let b =
            fragment(e, k / (4 * each), |l, r, j| entry(40 + l % 4 * each + j + r * 4 * each, l / 4, low));
        let (a, b): (Vec<&Lanes>, Vec<&Lanes>) = (a.iter().collect(), b.iter().collect());
        let want =
            |i: usize, j: usize| (0..k).map(|p| entry(i, p, low) * entry(40 + p, j, low)).sum::<i32>() + 1;
        let (mut floats, mut integers) = ([[1.0; 32]; 4], [[1; 32]; 4]);
        if e.is_integer() {
            multiply_integers([e, e], [&a, &b], true, false, &mut integers);
        } else {
            multiply([e, e], &a, &b, true, &mut floats);
        }
        for (i, l) in (0..4).flat_map(|i| (0..32).map(move |l| (i, l))) {
            let got = if e.is_integer() { integers[i][l] } else { floats[i][l] as i32 };
            let (row, column) = place(l, i);
            assert_eq!(got, want(row, column), "{e:?} k {k} at {row}, {column}");
        }
    }

    #[test]
    fn every_element_type_and_depth_multiplies() {
        use Element::*;
        for (e, k) in
            [(F16, 16), (F16, 8), (Bf16, 16), (Bf16, 8), (Tf32, 8), (Tf32, 4), (E4m3, 32), (E5m2, 16)]
        {
            check(e, k);
        }
        for (e, k) in [(S8, 32), (S8, 16), (U8, 32), (U8, 16), (S4, 64), (S4, 32), (U4, 64)] {
            check(e, k);
        }
    }

    #[test]
    fn every_half_becomes_the_f32_it_is() {
        for v in 0..=u16::MAX {
            let (got, want) = (half_of(0xabcd_0000 | u32::from(v)), half::f16::from_bits(v).to_f32());
            assert!(got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(), "{v:#x}: {got} {want}");
        }
    }

    #[test]
    fn sums_of_integers_wrap_or_stay_at_the_end() {
        let ones: Lanes = [0x0101_0101; 32];
        let (a, b) = ([&ones, &ones], [&ones]);
        let mut d = [[i32::MAX; 32]; 4];
        multiply_integers([Element::S8; 2], [&a, &b], true, true, &mut d);
        assert_eq!(d, [[i32::MAX; 32]; 4]);
        multiply_integers([Element::S8; 2], [&a, &b], true, false, &mut d);
        assert_eq!(d, [[i32::MIN + 15; 32]; 4]);
    }

    #[test]
    fn every_place_of_a_result_has_one_owner() {
        let mut seen = [[0; 8]; 16];
        (0..32).flat_map(|l| (0..4).map(move |i| place(l, i))).for_each(|(r, c)| seen[r][c] += 1);
        assert_eq!(seen, [[1; 8]; 16]);
        assert_eq!([place(5, 0), place(5, 3)], [(1, 2), (9, 3)]);
    }
}

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

/// Largest k of an `mma`, of 4-bit elements.
pub const MOST_K: usize = 64;
/// A as 16 rows, of which the first k columns count.
pub type Left<T> = [[T; MOST_K]; 16];
/// B as rows of 8.
pub type Right<T> = [[T; 8]; MOST_K];
/// C and D.
pub type Sums<T> = [[T; 8]; 16];

/// Spreads A's registers. `two` rows of 8: false for the shapes with m = 8.
#[inline(always)]
pub fn left<T: Copy>(
    registers: &[&Lanes],
    each: usize,
    two: bool,
    to: &mut Left<T>,
    of: impl Fn(u32, usize) -> T,
) {
    for (r, lanes) in registers.iter().enumerate() {
        let (down, across) = if two { (8 * (r & 1), r >> 1) } else { (0, r) };
        for (l, &v) in lanes.iter().enumerate() {
            for j in 0..each {
                to[l / 4 + down][each * (l % 4) + j + 4 * each * across] = of(v, j);
            }
        }
    }
}

/// Spreads B's registers.
#[inline(always)]
pub fn right<T: Copy>(registers: &[&Lanes], each: usize, to: &mut Right<T>, of: impl Fn(u32, usize) -> T) {
    for (r, lanes) in registers.iter().enumerate() {
        for (l, &v) in lanes.iter().enumerate() {
            for j in 0..each {
                to[each * (l % 4) + j + 4 * each * r][l / 4] = of(v, j);
            }
        }
    }
}

/// Where lane l has element i of C and D: (row, column).
#[inline(always)]
pub fn place(l: usize, i: usize) -> (usize, usize) {
    (l / 4 + 8 * (i / 2), 2 * (l % 4) + i % 2)
}

vectorized! {
    /// d += a b in f32, over the first k columns of a.
    fn product(a: &Left<f32>, b: &Right<f32>, k: usize, d: &mut Sums<f32>) {
        for (row, sums) in a.iter().zip(d.iter_mut()) {
            let mut s = *sums;
            for p in 0..k.min(MOST_K) {
                for j in 0..8 {
                    s[j] = row[p].mul_add(b[p][j], s[j]);
                }
            }
            *sums = s;
        }
    }
}

/// d = a b + d of float elements.
pub fn multiply(element: Element, a: &[&Lanes], b: &[&Lanes], k: usize, d: &mut Sums<f32>) {
    let (mut x, mut y): (Left<f32>, Right<f32>) = ([[0.0; MOST_K]; 16], [[0.0; 8]; MOST_K]);
    let each = element.each();
    match element {
        // The usual ones get loops of their own.
        Element::F16 => {
            left(a, 2, true, &mut x, |v, j| Element::F16.float(v, j));
            right(b, 2, &mut y, |v, j| Element::F16.float(v, j));
        }
        Element::Bf16 => {
            left(a, 2, true, &mut x, |v, j| Element::Bf16.float(v, j));
            right(b, 2, &mut y, |v, j| Element::Bf16.float(v, j));
        }
        Element::Tf32 => {
            left(a, 1, true, &mut x, |v, j| Element::Tf32.float(v, j));
            right(b, 1, &mut y, |v, j| Element::Tf32.float(v, j));
        }
        _ => {
            left(a, each, true, &mut x, |v, j| element.float(v, j));
            right(b, each, &mut y, |v, j| element.float(v, j));
        }
    }
    product(&x, &y, k, d);
}

/// d = a b + d of integer elements: `.satfinite` clamps each final sum, else it wraps.
pub fn multiply_integers(
    [ea, eb]: [Element; 2],
    [a, b]: [&[&Lanes]; 2],
    (k, two): (usize, bool),
    saturate: bool,
    d: &mut Sums<i32>,
) {
    let (mut x, mut y): (Left<i32>, Right<i32>) = ([[0; MOST_K]; 16], [[0; 8]; MOST_K]);
    left(a, ea.each(), two, &mut x, |v, j| ea.integer(v, j));
    right(b, eb.each(), &mut y, |v, j| eb.integer(v, j));
    for (row, sums) in x.iter().zip(d.iter_mut()) {
        for (j, sum) in sums.iter_mut().enumerate() {
            let exact = i64::from(*sum) + (0..k).map(|p| i64::from(row[p] * y[p][j])).sum::<i64>();
            *sum = if saturate { exact.clamp(i32::MIN.into(), i32::MAX.into()) as i32 } else { exact as i32 };
        }
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
        let (mut floats, mut integers) = ([[1.0; 8]; 16], [[1; 8]; 16]);
        if e.is_integer() {
            multiply_integers([e, e], [&a, &b], (k, true), false, &mut integers);
        } else {
            multiply(e, &a, &b, k, &mut floats);
        }
        for i in 0..16 {
            for j in 0..8 {
                let got = if e.is_integer() { integers[i][j] } else { floats[i][j] as i32 };
                assert_eq!(got, want(i, j), "{e:?} k {k} at {i}, {j}");
            }
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
    fn sums_of_integers_wrap_or_stay_at_the_end() {
        let ones: Lanes = [0x0101_0101; 32];
        let (a, b) = ([&ones, &ones], [&ones]);
        let mut d = [[i32::MAX; 8]; 16];
        multiply_integers([Element::S8; 2], [&a, &b], (16, true), true, &mut d);
        assert_eq!(d, [[i32::MAX; 8]; 16]);
        multiply_integers([Element::S8; 2], [&a, &b], (16, true), false, &mut d);
        assert_eq!(d, [[i32::MIN + 15; 8]; 16]);
    }

    #[test]
    fn every_place_of_a_result_has_one_owner() {
        let mut seen = [[0; 8]; 16];
        (0..32).flat_map(|l| (0..4).map(move |i| place(l, i))).for_each(|(r, c)| seen[r][c] += 1);
        assert_eq!(seen, [[1; 8]; 16]);
        assert_eq!([place(5, 0), place(5, 3)], [(1, 2), (9, 3)]);
    }
}

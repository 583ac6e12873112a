//! Example calls.

use super::super::{Fill, Sample};

/// A mask of samples written down: `x` for a token that is there.
fn tokens(samples: &[&str]) -> Fill {
    let value = |c: char| if c == 'x' { 0.0 } else { f64::NEG_INFINITY };
    Fill::Values(samples.iter().flat_map(|s| s.chars()).map(value).collect())
}

/// A mask of `samples` that lack every third of their `tokens`, each from another one on.
fn thirds(samples: usize, tokens: usize) -> Fill {
    let value = |i: usize| if (i / tokens + i % tokens).is_multiple_of(3) { f64::NEG_INFINITY } else { 0.0 };
    Fill::Values((0..samples * tokens).map(value).collect())
}

pub(super) fn all() -> Vec<Sample> {
    // [B, H], [Ta, Tb], [d, e]
    let of = |note, [b, h]: [usize; 2], [ta, tb]: [usize; 2], [d, e]: [usize; 2]| {
        Sample::new(note).normal(&[b, h, ta, d]).normal(&[b, h, tb, d]).normal(&[b, h, ta, e]).normal(&[b, h, tb, e])
    };
    let large = |note, b: usize, t: [usize; 2]| of(note, [b, 4], t, [16, 16]).large();
    vec![
        of("both ways", [2, 2], [3, 5], [4, 2]),
        of("one token each", [1, 2], [1, 1], [3, 3]),
        of("one token meets many", [1, 1], [1, 17], [2, 3]),
        of("more rows than a block", [1, 1], [67, 6], [3, 2]),
        of("more columns than a warp", [1, 1], [4, 70], [5, 1]),
        of("wide heads", [1, 1], [3, 4], [66, 35]),
        of("masked, samples without tokens", [4, 2], [4, 3], [3, 2])
            .input(&[4, 1, 1, 4], tokens(&["xx.x", ".x..", "....", "xxxx"]))
            .input(&[4, 1, 1, 3], tokens(&["x.x", "...", "xxx", ".xx"])),
        of("queries masked alone, one mask for all", [2, 1], [5, 3], [2, 2])
            .input(&[1, 1, 1, 5], tokens(&["x..xx"])),
        of("masked, more than a block", [2, 1], [70, 36], [2, 3])
            .input(&[2, 1, 1, 70], thirds(2, 70))
            .input(&[1, 1, 1, 36], thirds(1, 36)),
        large("256 x 4 heads, 16 and 8 tokens", 256, [16, 8]),
        large("256 x 4 heads, 16 and 8 tokens, masked", 256, [16, 8])
            .input(&[256, 1, 1, 16], thirds(256, 16))
            .input(&[256, 1, 1, 8], thirds(256, 8)),
        large("256 x 4 heads, 16 and 16 tokens", 256, [16, 16]),
        large("64 x 4 heads, 64 and 64 tokens", 64, [64, 64]),
        large("8 x 4 heads, 256 and 256 tokens", 8, [256, 256]),
    ]
}

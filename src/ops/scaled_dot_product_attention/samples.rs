//! Example calls.

use super::super::{Fill, Sample};

/// A mask of samples written down: `x` for a key that is there.
fn keys(samples: &[&str]) -> Fill {
    let value = |c: char| if c == 'x' { 0.0 } else { f64::NEG_INFINITY };
    Fill::Values(samples.iter().flat_map(|s| s.chars()).map(value).collect())
}

/// A mask of `samples` that lack every third of their `tokens` keys, each from another one on.
fn thirds(samples: usize, tokens: usize) -> Fill {
    let value = |i: usize| if (i / tokens + i % tokens).is_multiple_of(3) { f64::NEG_INFINITY } else { 0.0 };
    Fill::Values((0..samples * tokens).map(value).collect())
}

pub(super) fn all() -> Vec<Sample> {
    let qkv = |note, q: [usize; 4], k: [usize; 4]| Sample::new(note).normal(&q).normal(&k).normal(&k);
    vec![
        qkv("causal", [2, 2, 5, 4], [2, 2, 5, 4]).attr("is_causal", true),
        qkv("full", [1, 2, 3, 4], [1, 2, 6, 4]),
        qkv("causal, several tiles", [1, 1, 70, 2], [1, 1, 70, 2]).attr("is_causal", true),
        qkv("grouped queries, more keys than a tile", [1, 4, 3, 2], [1, 2, 67, 2]),
        qkv("causal, more queries than keys", [1, 1, 6, 3], [1, 1, 4, 3]).attr("is_causal", true),
        qkv("one token", [2, 1, 1, 3], [2, 1, 1, 3]).attr("is_causal", true),
        qkv("a width of 5, grouped, causal, tails of tiles", [1, 2, 65, 5], [1, 1, 65, 5]).attr("is_causal", true),
        qkv("a width of 1, causal, five tiles", [1, 1, 130, 1], [1, 1, 130, 1]).attr("is_causal", true),
        qkv("a width of 32, grouped, more keys than queries", [1, 2, 5, 32], [1, 1, 35, 32]),
        qkv("a width of 36, causal, more queries than keys", [1, 1, 66, 36], [1, 1, 5, 36]).attr("is_causal", true),
        qkv("a width of 64, causal", [1, 1, 34, 64], [1, 1, 34, 64]).attr("is_causal", true),
        qkv("a width of 66, causal, grouped", [1, 2, 6, 66], [1, 1, 6, 66]).attr("is_causal", true),
        qkv("masked, one sample without keys", [3, 2, 4, 5], [3, 2, 6, 5])
            .input(&[3, 1, 1, 6], keys(&["x.xx.x", "......", "...x.."])),
        qkv("masked, causal, one mask for all, queries that see nothing", [2, 1, 9, 3], [2, 1, 7, 3])
            .attr("is_causal", true)
            .input(&[1, 1, 1, 7], keys(&["..x.xx."])),
        qkv("masked, causal, grouped, several tiles", [1, 2, 70, 2], [1, 1, 100, 2])
            .attr("is_causal", true)
            .input(&[1, 1, 1, 100], thirds(1, 100)),
        qkv("masked, several tiles", [2, 1, 66, 33], [2, 1, 101, 33]).input(&[2, 1, 1, 101], thirds(2, 101)),
        qkv("masked, a width of 66, grouped", [2, 2, 3, 66], [2, 1, 40, 66]).input(&[2, 1, 1, 40], thirds(2, 40)),
        qkv("masked, causal, a width of 65", [2, 1, 5, 65], [2, 1, 4, 65])
            .attr("is_causal", true)
            .input(&[2, 1, 1, 4], keys(&[".xx.", "...."])),
        qkv("256 x 4 heads x 16 x 16", [256, 4, 16, 16], [256, 4, 16, 16]).large(),
        qkv("256 x 4 heads x 16 x 16, masked", [256, 4, 16, 16], [256, 4, 16, 16])
            .input(&[256, 1, 1, 16], thirds(256, 16))
            .large(),
        qkv("16 x 4 heads x 256 x 32", [16, 4, 256, 32], [16, 4, 256, 32]).attr("is_causal", true).large(),
        qkv("1 x 4 heads x 1024 x 64", [1, 4, 1024, 64], [1, 4, 1024, 64]).attr("is_causal", true).large(),
        qkv("1 x 4 heads x 2048 x 64", [1, 4, 2048, 64], [1, 4, 2048, 64]).attr("is_causal", true).large(),
        qkv("1 x 4 heads x 4096 x 64", [1, 4, 4096, 64], [1, 4, 4096, 64]).attr("is_causal", true).large(),
        qkv("1 x 4 heads x 8192 x 64", [1, 4, 8192, 64], [1, 4, 8192, 64]).attr("is_causal", true).large(),
    ]
}

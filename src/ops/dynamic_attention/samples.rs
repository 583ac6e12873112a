//! Example calls.

use super::{Fill, Sample};

/// Query and key heads with a span of `low` to `high`.
fn windowed(note: &'static str, q: [usize; 4], k: [usize; 4], [low, high]: [f64; 2]) -> Sample {
    Sample::new(note).normal(&q).normal(&k).normal(&k).input(&q[..3], Fill::Uniform(low, high))
}

/// For each of `heads` × `tokens` queries up to `count` of the blocks before its own, every third, from another one each.
fn lists(heads: usize, tokens: usize, block: usize, count: usize) -> Fill {
    let list = |n: usize| {
        let own = n % tokens / block;
        let mut list: Vec<i32> = (0..own).filter(|b| (b + n).is_multiple_of(3)).take(count).map(|b| b as i32).collect();
        list.resize(count, -1);
        list
    };
    Fill::Ints((0..heads * tokens).flat_map(list).collect())
}

pub(super) fn all() -> Vec<Sample> {
    let small = |note, t: usize| windowed(note, [1, 2, t, 2], [1, 2, t, 2], [0.5, 6.5]);
    let large = |note, t: usize| {
        windowed(note, [1, 4, t, 64], [1, 4, t, 64], [255.0, 255.0]).attr("ramp", 1).large()
    };
    let routed = |t: usize| lists(4, t, 64, 8);
    vec![
        small("window", 9).attr("ramp", 3),
        small("window, several tiles", 70).attr("ramp", 4),
        small("both sides", 9).attr("ramp", 3).attr("is_causal", false),
        windowed("short ramp", [1, 1, 40, 3], [1, 1, 40, 3], [4.2, 4.8]).attr("ramp", 1),
        windowed("grouped queries", [2, 4, 5, 3], [2, 2, 5, 3], [0.5, 3.0]).attr("ramp", 2),
        windowed("later queries of more keys", [1, 1, 3, 2], [1, 1, 7, 2], [0.5, 3.0]).attr("ramp", 2).attr("offset", 4),
        windowed("two sequences", [1, 2, 6, 2], [1, 2, 4, 2], [0.5, 9.0]).attr("is_causal", false),
        windowed("one token", [2, 1, 1, 3], [2, 1, 1, 3], [0.5, 2.0]),
        small("routed", 50).attr("ramp", 3).attr("block", 16).input(&[1, 2, 50, 2], lists(2, 50, 16, 2)),
        windowed("wider heads, later queries, routed", [1, 2, 20, 4], [1, 1, 40, 4], [0.5, 6.5])
            .attr("ramp", 3)
            .attr("offset", 20)
            .attr("block", 16)
            .input(&[1, 2, 20, 2], lists(2, 20, 16, 2)),
        small("two windows", 20)
            .attr("ramp", 3)
            .input(&[1, 2, 20, 0], Fill::Ints(vec![]))
            .input(&[1, 2, 20], Fill::Uniform(0.0, 20.0))
            .input(&[1, 2, 20], Fill::Uniform(0.3, 3.0)),
        small("a Gaussian second window, and routed", 50)
            .attr("ramp", 3)
            .attr("block", 16)
            .attr("place", "gaussian")
            .input(&[1, 2, 50, 2], lists(2, 50, 16, 2))
            .input(&[1, 2, 50], Fill::Uniform(0.0, 50.0))
            .input(&[1, 2, 50], Fill::Uniform(0.4, 4.0)),
        large("window 256, 1 x 4 heads x 8192 x 64", 8192),
        large("window 256, 1 x 4 heads x 16384 x 64", 16384),
        large("window 256 and 8 blocks, 1 x 4 heads x 16384 x 64", 16384).input(&[1, 4, 16384, 8], routed(16384)),
    ]
}

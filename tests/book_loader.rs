//! The chapter "Data without copying": its numbers by hand and its exercises.

use ringtape::data::Permutation;
use std::collections::BTreeSet;

/// One round over two halves of two bits.
fn round(x: u32, f: impl Fn(u32) -> u32) -> u32 {
    let (l, r) = (x >> 2, x & 3);
    r << 2 | (l ^ f(r) & 3)
}

#[test]
fn exercise_1_a_round_is_a_permutation_whatever_its_function() {
    assert_eq!(round(6, |r| r + 1), 10);
    assert_eq!((10 & 3) ^ ((10 >> 2) + 1), 1); // back: l of 6
    for f in [|r| r + 1, |_| 0, |r| r * r, |r| 3 - r] {
        assert_eq!((0..16).map(|x| round(x, f)).collect::<BTreeSet<_>>().len(), 16);
    }
    // f = 0 exchanges halves: twice, and nothing has happened.
    assert!((0..16).all(|x| round(round(x, |_| 0), |_| 0) == x));
}

/// Walks from different samples never share a step, as they lie on cycles between one sample and the next. So all of them
/// together take no more steps than the domain has numbers, and that has less than 4n.
#[test]
fn exercise_2_a_walk_takes_less_than_four_steps() {
    for n in [65u32, 100, 200, 256] {
        let permute = |x: u32| {
            (0..8).fold(x, |x, k| {
                let (l, r) = (x >> 4, x & 15);
                r << 4 | (l ^ ((r + 16 * k).wrapping_mul(0x9E37_79B9) >> 13) & 15)
            })
        };
        let mut steps = 0;
        for start in 0..n {
            let mut x = permute(start);
            steps += 1;
            while x >= n {
                (x, steps) = (permute(x), steps + 1);
            }
        }
        assert!(steps <= 256 && steps >= n, "{n}: {steps}");
        assert!(f64::from(steps) / f64::from(n) < 4.0);
        let order = (0..u64::from(n)).map(|i| Permutation::new(7, 0, n.into()).index(i));
        assert_eq!(order.collect::<BTreeSet<_>>().len(), n as usize);
    }
}

#[test]
fn exercise_3_each_sample_comes_once_an_epoch_and_epochs_differ() {
    let order = |epoch| (0..1000).map(|i| Permutation::new(1, epoch, 1000).index(i)).collect::<Vec<_>>();
    for epoch in 0..3 {
        assert_eq!(order(epoch).iter().collect::<BTreeSet<_>>().len(), 1000);
    }
    assert_ne!(order(0), order(1));
}

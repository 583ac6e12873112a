//! Sums and gathers among ranks, some of whom share a node.

use super::{Cluster, Link};
use crate::comm::{Algorithm, Fit};

/// Ranks that sum or gather together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// All of them.
    pub size: usize,
    /// Those of one node; divides `size`.
    pub within: usize,
}

impl Group {
    /// `size` ranks of which at most `room` have room in a node; as many share one as divide the size.
    pub fn new(size: usize, room: usize) -> Group {
        let within = (1..=room.clamp(1, size)).rev().find(|n| size.is_multiple_of(*n)).unwrap_or(1);
        Group { size, within }
    }

    /// Seconds of an all-reduce of `bytes`: reduce-scatter within each node, a sum of each part between nodes, all-gather
    /// within.
    pub fn all_reduce(&self, c: &Cluster, bytes: f64) -> f64 {
        let nodes = self.size / self.within;
        if nodes == 1 {
            return sum(&c.within, c.gamma, self.size, bytes);
        }
        // ANCHOR: hierarchy
        let part = bytes / self.within as f64;
        let summed = (bytes - part) * c.gamma;
        2.0 * scatter(&c.within, self.within, bytes) + summed + sum(&c.between, c.gamma, nodes, part)
        // ANCHOR_END: hierarchy
    }

    /// Seconds of an all-gather of `bytes` in all. A reduce-scatter takes as long and sums besides.
    pub fn gather(&self, c: &Cluster, bytes: f64) -> f64 {
        let part = bytes / self.within as f64;
        scatter(&c.within, self.within, bytes) + scatter(&c.between, self.size / self.within, part)
    }

    /// Seconds of a reduce-scatter of `bytes` in all.
    pub fn reduce_scatter(&self, c: &Cluster, bytes: f64) -> f64 {
        let p = self.size as f64;
        self.gather(c, bytes) + (p - 1.0) / p * bytes * c.gamma
    }
}

/// Half a ring.
fn scatter(link: &Link, p: usize, bytes: f64) -> f64 {
    let n = p as f64;
    (n - 1.0) * link.alpha + (n - 1.0) / n * bytes * link.beta
}

/// An all-reduce by the cheaper of ringtape's two ways.
fn sum(link: &Link, gamma: f64, p: usize, bytes: f64) -> f64 {
    if p == 1 {
        return 0.0;
    }
    let fit = Fit { alpha: link.alpha, beta: link.beta, gamma, crossover: 0 };
    fit.all_reduce(Algorithm::Ring, p, bytes).min(fit.all_reduce(Algorithm::Tree, p, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(within: [f64; 2], between: [f64; 2], gamma: f64) -> Cluster {
        let link = |[alpha, beta]: [f64; 2]| Link { alpha, beta };
        let c = Cluster::named("small").unwrap().unwrap();
        Cluster { within: link(within), between: link(between), gamma, ..c }
    }

    #[test]
    fn one_node_is_the_ring() {
        let c = cluster([1e-6, 1e-9], [9.0, 9.0], 1e-10);
        // 2·7·1 µs + 2·7/8·8 MB·1 ns + 7/8·8 MB·0.1 ns.
        let t = Group::new(8, 8).all_reduce(&c, 8e6);
        assert!((t - (14e-6 + 14e-3 + 0.7e-3)).abs() < 1e-12, "{t}");
        // Of eight bytes, three doublings wait less.
        let t = Group::new(8, 8).all_reduce(&c, 8.0);
        assert!((t - 3.0 * (1e-6 + 8e-9 + 8e-10)).abs() < 1e-15, "{t}");
    }

    #[test]
    fn a_hierarchy_of_equal_links_moves_what_the_ring_moves() {
        // Without α: 2(l−1)/l·N + 2(k−1)/k·N/l = 2(kl−1)/(kl)·N.
        let c = cluster([0.0, 1e-9], [0.0, 1e-9], 2e-9);
        for (size, room) in [(16, 4), (24, 8), (12, 12), (7, 3)] {
            let t = Group::new(size, room).all_reduce(&c, 1e6);
            let p = size as f64;
            let ring = (2.0 * 1e-9 + 2e-9) * (p - 1.0) / p * 1e6;
            assert!((t / ring - 1.0).abs() < 1e-12, "{size} in {room}: {t}, {ring}");
            let halves =
                Group::new(size, room).gather(&c, 1e6) + Group::new(size, room).reduce_scatter(&c, 1e6);
            assert!((halves / ring - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn rooms_that_do_not_divide() {
        assert_eq!(Group::new(12, 8), Group { size: 12, within: 6 });
        assert_eq!(Group::new(7, 4), Group { size: 7, within: 1 });
        assert_eq!(Group::new(4, 0).within, 1);
        assert_eq!(Group::new(1, 8).all_reduce(&cluster([1.0; 2], [1.0; 2], 1.0), 1e6), 0.0);
    }
}

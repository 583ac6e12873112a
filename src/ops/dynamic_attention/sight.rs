//! Which keys a query sees, and how much of each: the rule of `mod.rs` for one row, and for a tile of 64 queries the
//! tiles of keys that any of them sees, in order, each once.

use super::DynamicAttention;
use crate::kernel::Real;
use crate::vectorized;

/// Queries of one tile, and keys at most.
pub(super) const TILE: usize = 64;

/// 1 − e^-4.5 and e^-4.5: the Gaussian is cut at 3σ, where it is lowered to 0.
pub(super) const CUT: [f64; 2] = [0.988_891_003_461_757_7, 0.011_108_996_538_242_306];

/// What holds for all heads.
#[derive(Clone, Copy)]
pub(super) struct Rules<T> {
    pub(super) tq: usize,
    pub(super) tk: usize,
    pub(super) d: usize,
    /// Query heads that share a key head.
    pub(super) group: usize,
    /// Keys of a routed block, and of a tile: the whole block or a part of it.
    pub(super) block: usize,
    pub(super) tile: usize,
    /// Entries of a query's list of blocks.
    pub(super) count: usize,
    /// Position of the first query among the keys.
    pub(super) offset: usize,
    pub(super) ramp: T,
    pub(super) causal: bool,
    pub(super) gaussian: bool,
    pub(super) scale: T,
}

impl<T: Real> Rules<T> {
    pub(super) fn new(extents: &[usize], ramp: T, causal: bool, gaussian: bool) -> Rules<T> {
        let &[tq, tk, d, group, block, count, offset] = extents else { panic!("the op gives seven extents") };
        let (tile, scale) = (block.min(TILE), T::of(1.0 / (d as f64).sqrt()));
        Rules { tq, tk, d, group, block, tile, count, offset, ramp, causal, gaussian, scale }
    }
    pub(super) fn tiles(&self) -> usize {
        self.tk.div_ceil(self.tile)
    }
    /// Keys of tile `t`.
    pub(super) fn cols(&self, t: usize) -> usize {
        self.tile.min(self.tk - t * self.tile)
    }
    /// Work of one head in about nanoseconds, as far as extents tell.
    pub(super) fn work(&self) -> usize {
        self.tq * self.d * (self.count * self.block + 4 * TILE).min(self.tk) / 16
    }
}

/// Parameters of the windows and lists of blocks, of the queries of one head.
#[derive(Clone, Copy)]
pub(super) struct Windows<'a, T> {
    pub(super) span: &'a [T],
    pub(super) blocks: &'a [i32],
    /// Empty without a second window.
    pub(super) center: &'a [T],
    pub(super) width: &'a [T],
}

impl<'a, T: Real> Windows<'a, T> {
    /// Those of head `h`.
    pub(super) fn head(&self, h: usize, r: &Rules<T>) -> Windows<'a, T> {
        let of = |x: &'a [T]| if x.is_empty() { x } else { &x[h * r.tq..][..r.tq] };
        let (blocks, n) = (self.blocks, r.tq * r.count);
        let blocks = if blocks.is_empty() { blocks } else { &blocks[h * n..][..n] };
        Windows { span: of(self.span), blocks, center: of(self.center), width: of(self.width) }
    }
}

/// A range of keys.
type Keys = (usize, usize);

/// The windows of one query.
#[derive(Clone, Copy)]
pub(super) struct Row<T> {
    /// Position.
    pub(super) at: T,
    pub(super) span: T,
    pub(super) center: T,
    pub(super) width: T,
    /// Keys beyond this are not seen: those of the future.
    limit: usize,
    /// Keys of the first window, those of them that count in full, and keys of the second window.
    size: Keys,
    full: Keys,
    place: Keys,
}

/// Integers j of 0..limit with |j − middle| < reach.
fn within<T: Real>(middle: T, reach: T, limit: usize) -> Keys {
    let (low, high) = (middle.f64() - reach.f64(), middle.f64() + reach.f64());
    if low.is_nan() || high.is_nan() {
        return (limit.saturating_sub(1), limit); // its weight will be NaN
    }
    // A cast from f64 ends at 0 and at the largest number.
    let start = if low < 0.0 { 0 } else { (low.floor() as usize).saturating_add(1).min(limit) };
    (start, (high.ceil().max(0.0) as usize).min(limit).max(start))
}

/// Integers j of 0..limit with |j − middle| ≤ reach.
fn full<T: Real>(middle: T, reach: T, limit: usize) -> Keys {
    let (low, high) = (middle.f64() - reach.f64(), middle.f64() + reach.f64());
    if low.is_nan() || high.is_nan() {
        return (0, 0);
    }
    let start = (low.ceil().max(0.0) as usize).min(limit);
    (start, if high < 0.0 { start } else { (high.floor() as usize + 1).min(limit).max(start) })
}

/// max(x, 0), NaN if that.
fn positive<T: Real>(x: T) -> T {
    if x < T::ZERO { T::ZERO } else { x }
}

impl<T: Real> Row<T> {
    fn new(r: &Rules<T>, w: &Windows<'_, T>, i: usize) -> Row<T> {
        let position = i + r.offset;
        let limit = if r.causal { r.tk.min(position + 1) } else { r.tk };
        let (at, span) = (T::of(position as f64), positive(w.span[i]));
        let (center, width, place) = match w.center.get(i) {
            None => (T::ZERO, T::ZERO, (0, 0)),
            Some(&c) => {
                let width = positive(w.width[i]);
                let reach = if r.gaussian { width * T::of(3.0) } else { width + r.ramp };
                (c, width, within(c, reach, limit))
            }
        };
        let (size, full) = (within(at, span + r.ramp, limit), full(at, span, limit));
        Row { at, span, center, width, limit, size, full, place }
    }

    /// True when the second window sees any key.
    pub(super) fn has_place(&self) -> bool {
        self.place.0 < self.place.1
    }

    /// Keys of the tile start..start + cols that have a weight, as a range within it, and whether all of them weigh 1.
    fn look(&self, start: usize, cols: usize, routed: bool) -> (Keys, bool) {
        let clip = |(a, b): Keys| (a.clamp(start, start + cols) - start, b.clamp(start, start + cols) - start);
        let (whole, size, place) = (clip((0, self.limit)), clip(self.size), clip(self.place));
        if routed {
            return (whole, true);
        }
        let (ones, empty) = (clip(self.full), |(a, b): Keys| a >= b);
        let hull = match (empty(size), empty(place)) {
            (_, true) => size,
            (true, false) => place,
            (false, false) => (size.0.min(place.0), size.1.max(place.1)),
        };
        (hull, empty(hull) || hull == ones)
    }
}

/// What a tile of queries sees of one tile of keys.
pub(super) struct Sight<T> {
    /// Rows of the tile of queries that see any of it, ascending.
    pub(super) rows: Vec<usize>,
    /// Of each of them the keys seen, as a range within the tile.
    pub(super) seen: Vec<Keys>,
    /// Of each of them the weights μ, [`TILE`] apart; empty when all that is seen weighs 1.
    pub(super) weights: Vec<T>,
    /// Of each of them whether the tile was routed to.
    pub(super) routed: Vec<bool>,
    windows: Vec<Row<T>>,
    marks: Vec<u64>,
    lists: Vec<u64>,
}

impl<T: Real> Sight<T> {
    pub(super) fn new(r: &Rules<T>) -> Sight<T> {
        let some = || Vec::with_capacity(TILE);
        let (marks, lists) = (vec![0; r.tiles().div_ceil(64)], vec![0; if r.count > 0 { r.tiles() } else { 0 }]);
        let (rows, seen, routed, windows) = (some(), Vec::with_capacity(TILE), Vec::with_capacity(TILE), vec![]);
        Sight { rows, seen, weights: vec![], routed, windows, marks, lists }
    }

    /// The windows of row `i` of the tile.
    pub(super) fn window(&self, i: usize) -> &Row<T> {
        &self.windows[i]
    }

    /// Takes up the queries first..first + rows of a head.
    pub(super) fn begin(&mut self, r: &Rules<T>, w: &Windows<'_, T>, first: usize, rows: usize) {
        self.windows.clear();
        for i in 0..rows {
            let row = Row::new(r, w, first + i);
            for (start, end) in [row.size, row.place] {
                if start < end {
                    (start / r.tile..=(end - 1) / r.tile).for_each(|t| self.mark(t));
                }
            }
            self.windows.push(row);
            let list = if r.count == 0 { &[][..] } else { &w.blocks[(first + i) * r.count..][..r.count] };
            for &b in list.iter().take_while(|b| **b >= 0) {
                let start = b as usize * r.block;
                let tiles = start / r.tile..(start + r.block).min(row.limit).div_ceil(r.tile);
                tiles.for_each(|t| {
                    self.mark(t);
                    self.lists[t] |= 1 << i;
                });
            }
        }
    }

    fn mark(&mut self, t: usize) {
        self.marks[t / 64] |= 1 << (t % 64);
    }

    /// Goes on to the next tile of keys that any query sees, and gives its number.
    pub(super) fn next(&mut self, r: &Rules<T>) -> Option<usize> {
        loop {
            let word = self.marks.iter().position(|w| *w != 0)?;
            let t = word * 64 + self.marks[word].trailing_zeros() as usize;
            self.marks[word] &= self.marks[word] - 1;
            let list = self.lists.get_mut(t).map_or(0, std::mem::take);
            if self.look(r, t, list) {
                return Some(t);
            }
        }
    }

    fn look(&mut self, r: &Rules<T>, t: usize, list: u64) -> bool {
        let (start, cols) = (t * r.tile, r.cols(t));
        self.rows.clear();
        self.seen.clear();
        self.routed.clear();
        self.weights.clear();
        let mut plain = true;
        for (i, row) in self.windows.iter().enumerate() {
            let routed = list >> i & 1 == 1;
            let (seen, ones) = row.look(start, cols, routed);
            if seen.0 < seen.1 {
                self.rows.push(i);
                self.seen.push(seen);
                self.routed.push(routed);
                plain &= ones;
            }
        }
        if !plain {
            self.weights.resize(self.rows.len() * TILE, T::ZERO);
            for (k, weights) in self.weights.as_chunks_mut::<TILE>().0.iter_mut().enumerate() {
                let (row, (a, b)) = (&self.windows[self.rows[k]], self.seen[k]);
                if self.routed[k] {
                    weights[a..b].fill(T::ONE);
                } else {
                    weigh(r, row, start, weights);
                    weights[..a].fill(T::ZERO);
                    weights[b..].fill(T::ZERO);
                }
            }
        }
        !self.rows.is_empty()
    }
}

/// μ of the first window at distance `x`: 1 to `span`, then down to 0 over `ramp`.
#[inline(always)]
pub(super) fn slope<T: Real>(x: T, span: T, ramp: T, inverse: T) -> T {
    let m = (ramp + span - x) * inverse;
    let m = if m < T::ZERO { T::ZERO } else { m };
    if m > T::ONE { T::ONE } else { m }
}

/// μ of a Gaussian second window: (e^(−x²/2σ²) − e^-4.5)/(1 − e^-4.5), 0 from 3σ on. Also e^(−x²/2σ²)/(1 − e^-4.5).
#[inline(always)]
pub(super) fn bell<T: Real>(x: T, sigma: T) -> (T, T) {
    let g = (-(x * x) / (sigma * sigma * T::of(2.0))).exp() / T::of(CUT[0]);
    let m = g - T::of(CUT[1] / CUT[0]);
    (if m < T::ZERO { T::ZERO } else { m }, g)
}

vectorized! {
    /// μ of a query for the keys from `start` on.
    fn weigh<T: Real>(r: &Rules<T>, row: &Row<T>, start: usize, weights: &mut [T; TILE]) {
        let inverse = T::ONE / r.ramp;
        for (l, w) in weights.iter_mut().enumerate() {
            *w = slope((row.at - T::of((start + l) as f64)).abs(), row.span, r.ramp, inverse);
        }
        if row.has_place() {
            for (l, w) in weights.iter_mut().enumerate() {
                let x = row.center - T::of((start + l) as f64);
                let m = if r.gaussian { bell(x, row.width).0 } else { slope(x.abs(), row.width, r.ramp, inverse) };
                *w = m.max_nan(*w);
            }
        }
    }
}

/// μ of query `i` for each of the first `keys` keys, by the rule of [`DynamicAttention`]: for reports and tests. `place` is
/// middle and half width of the second window, `list` the blocks routed to.
pub fn membership(
    op: &DynamicAttention,
    keys: usize,
    i: usize,
    span: f64,
    place: Option<(f64, f64)>,
    list: &[i32],
) -> Vec<f64> {
    let at = i + op.offset;
    let weigh = |j: usize| {
        if op.is_causal && j > at {
            return 0.0;
        }
        if list.contains(&((j / op.block) as i32)) {
            return 1.0;
        }
        let size = slope(at.abs_diff(j) as f64, positive(span), op.ramp, 1.0 / op.ramp);
        let second = place.map_or(0.0, |(center, width)| match op.gaussian {
            true if width <= 0.0 => 0.0,
            true => bell(center - j as f64, width).0,
            false => slope((center - j as f64).abs(), positive(width), op.ramp, 1.0 / op.ramp),
        });
        size.max(second)
    };
    (0..keys).map(weigh).collect()
}

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
    /// Keys up to here are not in the future of query `i`.
    fn limit(&self, i: usize) -> usize {
        if self.causal { self.tk.min(i + self.offset + 1) } else { self.tk }
    }
    /// Queries of one unit of work, of so many heads: few enough that there is work for every thread. It depends on extents
    /// alone, as the order of sums does.
    pub(super) fn unit(&self, heads: usize) -> usize {
        TILE * (heads * self.tq.div_ceil(TILE) / 16).clamp(4, self.together() / TILE)
    }
    /// Queries that go to routed blocks together: so many that each block finds a tile of them, so that products stay large
    /// and blocks are fetched once for many queries, however long the sequence is.
    pub(super) fn together(&self) -> usize {
        let blocks = self.tk.div_ceil(self.block);
        TILE * blocks.checked_div(self.count).map_or(4, |tiles| tiles.clamp(32, 256))
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
    /// The blocks that query `i` of the head is routed to.
    fn list(&self, r: &Rules<T>, i: usize) -> &'a [i32] {
        if r.count == 0 { &[] } else { &self.blocks[i * r.count..][..r.count] }
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
        let limit = r.limit(i);
        let (at, span) = (T::of((i + r.offset) as f64), positive(w.span[i]));
        let (center, width, place) = match w.center.get(i) {
            None => (T::ZERO, T::ZERO, (0, 0)),
            Some(&c) => {
                let width = positive(w.width[i]);
                let reach = if r.gaussian { width * T::of(3.0) } else { width + r.ramp };
                (c, width, within(c, reach, limit))
            }
        };
        let (size, full) = (within(at, span + r.ramp, limit), full(at, span, limit));
        Row { at, span, center, width, size, full, place }
    }

    /// True when the second window sees any key.
    pub(super) fn has_place(&self) -> bool {
        self.place.0 < self.place.1
    }

    /// Keys of the tile start..start + cols that have a weight, as a range within it, and whether all of them weigh 1.
    fn look(&self, start: usize, cols: usize) -> (Keys, bool) {
        let clip = |(a, b): Keys| (a.clamp(start, start + cols) - start, b.clamp(start, start + cols) - start);
        let (size, place) = (clip(self.size), clip(self.place));
        let (ones, empty) = (clip(self.full), |(a, b): Keys| a >= b);
        let hull = match (empty(size), empty(place)) {
            (_, true) => size,
            (true, false) => place,
            (false, false) => (size.0.min(place.0), size.1.max(place.1)),
        };
        (hull, empty(hull) || hull == ones)
    }
}

/// What some queries see of one tile of keys.
pub(super) struct Seen<'a, T> {
    /// Rows of the unit that see any of it, ascending, at most [`TILE`].
    pub(super) rows: &'a [usize],
    /// Of each of them the keys seen, as a range within the tile.
    pub(super) keys: &'a [Keys],
    /// Of each of them the weights μ, [`TILE`] apart; empty when all that is seen weighs 1.
    pub(super) weights: &'a [T],
}

/// The windows of a tile of queries: the tiles of keys that any of them sees, one after the other. A tile that a query is
/// routed to is left to [`Routed`].
pub(super) struct Sight<T> {
    rows: Vec<usize>,
    seen: Vec<Keys>,
    weights: Vec<T>,
    windows: Vec<Row<T>>,
    marks: Vec<u64>,
    /// Number of the first query in its head and in its unit.
    first: usize,
    start: usize,
}

impl<T: Real> Sight<T> {
    pub(super) fn new(r: &Rules<T>) -> Sight<T> {
        let (rows, seen, windows) = (Vec::with_capacity(TILE), Vec::with_capacity(TILE), Vec::with_capacity(TILE));
        Sight { rows, seen, weights: vec![], windows, marks: vec![0; r.tiles().div_ceil(64)], first: 0, start: 0 }
    }

    /// Takes up `rows` queries of a head from query `first` + `start` on: those from row `start` of the unit that begins with
    /// `first`.
    pub(super) fn begin(&mut self, r: &Rules<T>, w: &Windows<'_, T>, first: usize, start: usize, rows: usize) {
        (self.first, self.start) = (first + start, start);
        self.windows.clear();
        for i in 0..rows {
            let row = Row::new(r, w, self.first + i);
            for (start, end) in [row.size, row.place] {
                if start < end {
                    (start / r.tile..=(end - 1) / r.tile).for_each(|t| self.marks[t / 64] |= 1 << (t % 64));
                }
            }
            self.windows.push(row);
        }
    }

    /// Goes on to the next tile of keys that any query sees, and gives its number.
    pub(super) fn next(&mut self, r: &Rules<T>, w: &Windows<'_, T>) -> Option<usize> {
        loop {
            let word = self.marks.iter().position(|w| *w != 0)?;
            let t = word * 64 + self.marks[word].trailing_zeros() as usize;
            self.marks[word] &= self.marks[word] - 1;
            if self.look(r, w, t) {
                return Some(t);
            }
        }
    }

    /// What is seen of that tile.
    pub(super) fn seen(&self) -> Seen<'_, T> {
        Seen { rows: &self.rows, keys: &self.seen, weights: &self.weights }
    }

    /// The windows of each row that sees it.
    pub(super) fn windows(&self) -> impl Iterator<Item = (usize, &Row<T>)> {
        self.rows.iter().map(|&i| (i, &self.windows[i - self.start]))
    }

    fn look(&mut self, r: &Rules<T>, w: &Windows<'_, T>, t: usize) -> bool {
        let (start, cols) = (t * r.tile, r.cols(t));
        let block = (start / r.block) as i32;
        self.rows.clear();
        self.seen.clear();
        self.weights.clear();
        let mut plain = true;
        for (i, row) in self.windows.iter().enumerate() {
            let (seen, ones) = row.look(start, cols);
            if seen.0 < seen.1 && !w.list(r, self.first + i).contains(&block) {
                self.rows.push(self.start + i);
                self.seen.push(seen);
                plain &= ones;
            }
        }
        if !plain {
            self.weights.resize(self.rows.len() * TILE, T::ZERO);
            for (k, weights) in self.weights.as_chunks_mut::<TILE>().0.iter_mut().enumerate() {
                let (row, (a, b)) = (&self.windows[self.rows[k] - self.start], self.seen[k]);
                weigh(r, row, start, weights);
                weights[..a].fill(T::ZERO);
                weights[b..].fill(T::ZERO);
            }
        }
        !self.rows.is_empty()
    }
}

/// The routed blocks of a unit of queries: for each block the rows that are routed to it, so that products are of many rows
/// though the queries of a tile may go to blocks far apart.
pub(super) struct Routed {
    /// Where the rows of each block begin, and the end of the last.
    starts: Vec<usize>,
    rows: Vec<usize>,
}

impl Routed {
    /// Those of the `n` queries of a head from `first` on.
    pub(super) fn new<T: Real>(r: &Rules<T>, w: &Windows<'_, T>, first: usize, n: usize) -> Routed {
        if r.count == 0 {
            return Routed { starts: vec![0], rows: vec![] };
        }
        let list = |i: usize| w.list(r, first + i).iter().take_while(|b| **b >= 0).map(|b| *b as usize);
        let mut starts = vec![0; r.tk.div_ceil(r.block) + 1];
        (0..n).flat_map(list).for_each(|b| starts[b + 1] += 1);
        (1..starts.len()).for_each(|b| starts[b] += starts[b - 1]);
        let (mut next, mut rows) = (starts.clone(), vec![0; starts[starts.len() - 1]]);
        for i in 0..n {
            for b in list(i) {
                rows[next[b]] = i;
                next[b] += 1;
            }
        }
        Routed { starts, rows }
    }

    /// Calls `f` with each tile of keys that rows are routed to, in order, and up to [`TILE`] of the rows at a time.
    pub(super) fn each<T: Real>(&self, r: &Rules<T>, first: usize, mut f: impl FnMut(usize, &Seen<'_, T>)) {
        let mut keys = Vec::with_capacity(TILE);
        for (b, span) in self.starts.windows(2).enumerate() {
            for t in b * r.block / r.tile..r.tiles().min((b + 1) * r.block / r.tile) {
                let (start, cols) = (t * r.tile, r.cols(t));
                for rows in self.rows[span[0]..span[1]].chunks(TILE) {
                    // Of the own block a query sees no key after it; and maybe no key of a tile.
                    let seen = |i: &usize| r.limit(first + i).clamp(start, start + cols) - start;
                    let blind = rows.iter().take_while(|i| seen(i) == 0).count();
                    let rows = &rows[blind..];
                    keys.clear();
                    keys.extend(rows.iter().map(|i| (0, seen(i))));
                    if !rows.is_empty() {
                        f(t, &Seen { rows, keys: &keys, weights: &[] });
                    }
                }
            }
        }
    }
}

// ANCHOR: slope
/// μ of the first window at distance `x`: 1 to `span`, then down to 0 over `ramp`.
#[inline(always)]
pub(super) fn slope<T: Real>(x: T, span: T, ramp: T, inverse: T) -> T {
    let m = (ramp + span - x) * inverse;
    let m = if m < T::ZERO { T::ZERO } else { m };
    if m > T::ONE { T::ONE } else { m }
}
// ANCHOR_END: slope

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

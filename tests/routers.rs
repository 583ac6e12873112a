//! Hashing and routers against what theory and plain loops say.

use proptest::prelude::*;
use ringtape::device::Device;
use ringtape::error::Result;
use ringtape::nn::DynamicConfig;
use ringtape::nn::router::{self, Ask, Layer, Router};
use ringtape::ops::block_mass::BlockMass;
use ringtape::ops::lsh_vote::LshVote;
use ringtape::ops::mean_pool_gate::MeanPoolGate;
use ringtape::ops::sort_chunk::SortChunk;
use ringtape::ops::top_blocks::TopBlocks;
use ringtape::optim;
use ringtape::rng::Key;
use ringtape::shape::DType;
use ringtape::tape::{Grads, Params, ParamsBuilder, Tape, Var};
use ringtape::tensor::Tensor;

fn run(f: impl for<'t> Fn(&'t Tape) -> Result<Var<'t>>) -> Result<Vec<i32>> {
    let params = Params::none(&Device::cpu());
    let tape = Tape::eval(&params);
    Ok(f(&tape)?.value().as_slice::<i32>()?.to_vec())
}

fn reals(v: &[f64], dims: &[usize]) -> Tensor {
    Tensor::from_f64(&Device::cpu(), DType::F64, v, dims).unwrap()
}

fn ints(v: &[i32], dims: &[usize]) -> Tensor {
    Tensor::from_slice(&Device::cpu(), v, dims).unwrap()
}

/// Two vectors at angle θ share a bucket of two with probability 1 − θ/π, one of four with (1 − θ/π)².
#[test]
fn collisions_follow_the_angle() {
    const ROUNDS: usize = 64;
    const DRAWS: usize = 200; // 12,800 rotations: a standard error of at most 0.0045
    for theta in [0.2f64, 0.7, 1.3, 2.0, 2.8] {
        for (n, want) in
            [(1, 1.0 - theta / std::f64::consts::PI), (2, (1.0 - theta / std::f64::consts::PI).powi(2))]
        {
            let mut equal = 0;
            for draw in 0..DRAWS {
                let mut rng = Key::named(draw as u64, "collisions").rng();
                let rotations: Vec<f64> = (0..ROUNDS * 3 * n).map(|_| rng.normal()).collect();
                let x = [1.0, 0.0, 0.0, theta.cos(), theta.sin(), 0.0];
                let buckets = run(|tape| {
                    tape.constant(reals(&x, &[2, 3]))
                        .lsh_hash(&tape.constant(reals(&rotations, &[ROUNDS, 1, 3, n])), None)
                });
                let buckets = buckets.unwrap();
                equal += (0..ROUNDS).filter(|r| buckets[*r] == buckets[ROUNDS + r]).count();
            }
            let share = equal as f64 / (ROUNDS * DRAWS) as f64;
            assert!((share - want).abs() < 0.018, "{n} columns at {theta}: {share}, theory says {want}");
        }
    }
}

/// With a bound, a longer key of the same direction is the nearer one to a query: it shares more buckets.
#[test]
fn with_a_bound_length_counts() {
    let mut rng = Key::named(3, "lengths").rng();
    let rotations: Vec<f64> = (0..64 * 4 * 2).map(|_| rng.normal()).collect();
    let hash = |x: &[f64], bound: bool| {
        run(|tape| {
            let m = tape.constant(reals(&[2.0], &[1]));
            let r = tape.constant(reals(&rotations, &[64, 1, 4, 2]));
            tape.constant(reals(x, &[1, 3])).lsh_hash(&r, bound.then_some(&m))
        })
        .unwrap()
    };
    let query = hash(&[0.6, 0.0, 0.8], false);
    let shares = |key: Vec<i32>| key.iter().zip(&query).filter(|(a, b)| a == b).count();
    let (long, short) = (shares(hash(&[1.2, 0.0, 1.6], true)), shares(hash(&[0.3, 0.0, 0.4], true)));
    assert_eq!(long, 64, "as long as the bound: the query's own direction");
    assert!(short < 50, "{short} of 64");
}

/// Votes of a sorted row, a number and its votes for each block, from the words of the definition.
fn neighbours(v: &[i32], rounds: usize, i: usize, op: &SortChunk) -> Vec<(usize, usize)> {
    let tokens = v.len() / rounds;
    let mut votes = vec![0; tokens.div_ceil(op.block)];
    for r in 0..rounds {
        let mut row: Vec<(i32, usize)> = (0..tokens).map(|j| (v[j * rounds + r], j)).collect();
        row.sort();
        let chunk = |place: usize| place / op.chunk;
        let own = chunk(row.iter().position(|t| t.1 == i).unwrap());
        let near =
            row.iter().enumerate().filter(|(place, _)| (chunk(*place)..=chunk(*place) + 1).contains(&own));
        near.filter(|(_, t)| t.0 == v[i * rounds + r]).for_each(|(_, t)| votes[t.1 / op.block] += 1);
    }
    let own = i / op.block;
    let fits = |b: usize| if op.is_causal { b + op.skip.max(1) <= own } else { b.abs_diff(own) >= op.skip };
    votes.into_iter().enumerate().filter(|&(b, n)| n > 0 && fits(b)).collect()
}

/// The blocks of most votes, counted over every block.
fn voted(q: &[i32], k: &[i32], rounds: usize, op: &LshVote) -> Vec<i32> {
    let (tq, tk) = (q.len() / rounds, k.len() / rounds);
    let mut lists = Vec::new();
    for i in 0..tq {
        let own = (i + op.offset) / op.block;
        let votes = |b: usize| {
            (b * op.block..tk.min((b + 1) * op.block))
                .map(|j| (0..rounds).filter(|r| k[j * rounds + r] == q[i * rounds + r]).count())
                .sum::<usize>()
        };
        let fits =
            |b: &usize| if op.is_causal { b + op.skip.max(1) <= own } else { b.abs_diff(own) >= op.skip };
        let mut found: Vec<(usize, usize)> =
            (0..tk.div_ceil(op.block)).filter(fits).map(|b| (votes(b), b)).filter(|v| v.0 > 0).collect();
        found.sort_by(|a, b| b.cmp(a));
        let mut list: Vec<i32> = found.iter().take(op.count).map(|v| v.1 as i32).collect();
        list.sort();
        list.resize(op.count, -1);
        lists.extend(list);
    }
    lists
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Where lists are read whole, votes are those over every block.
    #[test]
    fn votes_are_those_over_every_block(
        seed: u64, tq in 1usize..40, tk in 1usize..90, rounds in 1usize..4, buckets in 1i32..9,
        block in 1usize..9, count in 1usize..6, skip in 0usize..4, offset in 0usize..60, is_causal: bool,
    ) {
        let mut rng = Key::named(seed, "votes").rng();
        let mut draw = |n: usize| (0..n).map(|_| rng.below(buckets as u64) as i32).collect::<Vec<_>>();
        let (q, k) = (draw(tq * rounds), draw(tk * rounds));
        let op = LshVote { buckets: buckets as usize, block, count, reach: 90, skip, offset, is_causal };
        let got = run(|tape| {
            let k = tape.constant(ints(&k, &[1, 1, tk, rounds]));
            tape.constant(ints(&q, &[1, 1, tq, rounds])).lsh_vote(&k, op)
        });
        prop_assert_eq!(got.unwrap(), voted(&q, &k, rounds, &op));
    }

    #[test]
    fn sorted_votes_are_those_of_the_definition(
        seed: u64, tokens in 1usize..90, rounds in 1usize..4, buckets in 1i32..9, chunk in 1usize..30,
        block in 1usize..9, count in 1usize..6, skip in 0usize..4, is_causal: bool,
    ) {
        let mut rng = Key::named(seed, "sort").rng();
        let v: Vec<i32> = (0..tokens * rounds).map(|_| rng.below(buckets as u64) as i32).collect();
        let op = SortChunk { buckets: buckets as usize, chunk, block, count, skip, is_causal };
        let got = run(|tape| tape.constant(ints(&v, &[1, 1, tokens, rounds])).sort_chunk(op)).unwrap();
        for (i, list) in got.chunks(count).enumerate() {
            let mut found = neighbours(&v, rounds, i, &op);
            found.sort_by_key(|&(b, n)| std::cmp::Reverse((n, b)));
            let mut want: Vec<i32> = found.iter().take(count).map(|f| f.0 as i32).collect();
            want.sort();
            want.resize(count, -1);
            prop_assert_eq!(list, want, "query {}", i);
        }
    }

    #[test]
    fn the_blocks_of_largest_score_are_taken(
        seed: u64, tq in 1usize..20, n in 0usize..70, block in 1usize..5, count in 1usize..6, skip in 0usize..4,
        offset in 0usize..60, is_causal: bool,
    ) {
        let mut rng = Key::named(seed, "top").rng();
        // Few values, so that equal ones meet; some are no numbers.
        let v: Vec<f64> = (0..tq * n).map(|_| [f64::NAN, f64::NEG_INFINITY, -1.0, 0.0, 2.0][rng.below(5) as usize]).collect();
        let op = TopBlocks { block, count, skip, offset, is_causal, heads: 2 };
        let got = run(|tape| tape.constant(reals(&v, &[1, tq, n])).top_blocks(op)).unwrap();
        prop_assert_eq!(&got[..tq * count], &got[tq * count..], "heads have the same lists");
        for (i, list) in got.chunks(count).take(tq).enumerate() {
            let own = (i + offset) / block;
            let fits = |b: &usize| if is_causal { b + skip.max(1) <= own } else { b.abs_diff(own) >= skip };
            let score = |b: usize| v[i * n + b];
            let mut all: Vec<usize> = (0..n).filter(fits).filter(|&b| score(b) >= -1.0).collect();
            all.sort_by(|a, b| score(*b).total_cmp(&score(*a)).then(b.cmp(a)));
            let mut want: Vec<i32> = all.iter().take(count).map(|b| *b as i32).collect();
            want.sort();
            want.resize(count, -1);
            prop_assert_eq!(list, want, "query {}", i);
        }
    }

    /// What comes later changes no list of a causal query, with short lists too.
    #[test]
    fn later_keys_change_no_earlier_list(seed: u64, t in 1usize..120, reach in 1usize..6) {
        let mut rng = Key::named(seed, "later").rng();
        let v: Vec<i32> = (0..240).map(|_| rng.below(5) as i32).collect();
        let op = LshVote { buckets: 5, block: 4, count: 3, reach, ..LshVote::default() };
        let route = |v: &[i32]| run(|tape| {
            let k = tape.constant(ints(v, &[1, 1, 120, 2]));
            k.lsh_vote(&k, op)
        }).unwrap();
        let mut other = v.clone();
        other[2 * t..].iter_mut().for_each(|c| *c = (*c + 1) % 5);
        prop_assert_eq!(&route(&v)[..3 * t], &route(&other)[..3 * t]);
    }
}

/// Why the router `sort` cannot write a text: where the last token moves to a smaller bucket, chunks of the larger one begin
/// a place later, and token 0 comes near to query 6. But no list ever shows what is not before its query.
#[test]
fn a_later_token_moves_chunks_but_is_never_seen() {
    let op = SortChunk { buckets: 2, chunk: 2, block: 1, count: 3, ..SortChunk::default() };
    let sixth = |last: i32| {
        let v = [1, 0, 0, 0, 1, 1, 1, last];
        run(|tape| tape.constant(ints(&v, &[1, 1, 8, 1])).sort_chunk(op)).unwrap()[18..21].to_vec()
    };
    assert_eq!(sixth(1), [4, 5, -1], "sorted: 1 2 | 3 0 | 4 5 | 6 7");
    assert_eq!(sixth(0), [0, 4, 5], "sorted: 1 2 | 3 7 | 0 4 | 5 6");
    let v: Vec<i32> = (0..240).map(|i| (i * i / 7 + i) % 5).collect();
    let op = SortChunk { buckets: 5, chunk: 6, block: 4, count: 3, ..SortChunk::default() };
    let route = |v: &[i32]| run(|tape| tape.constant(ints(v, &[1, 1, 120, 2])).sort_chunk(op)).unwrap();
    let before = route(&v);
    let mut changed = 0;
    for t in [40, 80, 119] {
        let mut other = v.clone();
        other[2 * t..].iter_mut().for_each(|c| *c = (*c + 1) % 5);
        let after = route(&other);
        changed += (0..3 * t).filter(|&n| before[n] != after[n]).count();
        for (i, list) in after.chunks(3).enumerate() {
            assert!(list.iter().all(|&b| b < (i / 4) as i32), "query {i}: {list:?}");
        }
    }
    assert!(changed > 0, "else it were causal, and could generate");
}

#[test]
fn the_gate_takes_the_blocks_of_best_mean() {
    let mut rng = Key::named(5, "gate").rng();
    let (t, d, block) = (70, 3, 8);
    let x: Vec<f64> = (0..t * d).map(|_| rng.normal()).collect();
    let op = MeanPoolGate { block, count: 3, ..MeanPoolGate::default() };
    let got = run(|tape| {
        let x = tape.constant(reals(&x, &[1, 1, t, d]));
        x.mean_pool_gate(&x, op)
    });
    for (i, list) in got.unwrap().chunks(3).enumerate() {
        let score = |b: usize| -> f64 {
            let mean = |c: usize| (0..block).map(|j| x[(b * block + j) * d + c]).sum::<f64>() / block as f64;
            (0..d).map(|c| x[i * d + c] * mean(c)).sum()
        };
        let mut all: Vec<usize> = (0..i / block).collect();
        all.sort_by(|a, b| score(*b).total_cmp(&score(*a)));
        let mut want: Vec<i32> = all.iter().take(3).map(|b| *b as i32).collect();
        want.sort();
        want.resize(3, -1);
        assert_eq!(list, want, "query {i}");
    }
}

fn normal(name: &str, n: usize, scale: f64) -> Vec<f64> {
    let mut rng = Key::named(11, name).rng();
    (0..n).map(|_| scale * rng.normal()).collect()
}

/// y[i] = x[i]·w for rows x [_, dim] and w [dim, width].
fn mapped(x: &[f64], w: &[f64], dim: usize) -> Vec<f64> {
    let width = w.len() / dim;
    let at = |i: usize, c: usize| (0..dim).map(|k| x[i * dim + k] * w[k * width + c]).sum();
    (0..x.len() / dim * width).map(|n| at(n / width, n % width)).collect()
}

#[test]
fn mass_is_the_softmax_summed_over_blocks_and_heads() {
    let (heads, tq, tk, d) = (2, 30, 53, 3);
    let (q, k) = (normal("q", heads * tq * d, 2.0), normal("k", tk * d, 2.0));
    let op = BlockMass { block: 8, skip: 2, offset: 23, is_causal: true };
    let params = Params::none(&Device::cpu());
    let tape = Tape::eval(&params);
    let key = tape.constant(reals(&k, &[1, 1, tk, d]));
    let got =
        tape.constant(reals(&q, &[1, heads, tq, d])).block_mass(&key, op).unwrap().value().to_f64().unwrap();
    for (i, row) in got.chunks(7).enumerate() {
        let mut mass = [0.0; 7];
        for h in 0..heads {
            let score = |j: usize| {
                (0..d).map(|c| q[(h * tq + i) * d + c] * k[j * d + c]).sum::<f64>() / (d as f64).sqrt()
            };
            let weights: Vec<f64> = (0..=i + 23).map(|j| score(j).exp()).collect();
            let whole: f64 = weights.iter().sum();
            weights.iter().enumerate().for_each(|(j, w)| mass[j / 8] += w / whole);
        }
        let far = (0..7).filter(|b| b + 2 <= (i + 23) / 8).map(|b| mass[b]).sum::<f64>();
        for (b, &m) in row.iter().enumerate() {
            let want = if b + 2 <= (i + 23) / 8 { mass[b] / far } else { 0.0 };
            assert!((m - want).abs() < 1e-12, "query {i}, block {b}: {m} {want}");
        }
    }
}

/// A fixed layer of 64 tokens in 16 blocks, whose attention prefers some blocks.
struct Fixed {
    c: DynamicConfig,
    x: Vec<f64>,
    q: Vec<f64>,
    k: Vec<f64>,
}

const TOKENS: usize = 64;
const DIM: usize = 8;

impl Fixed {
    fn new() -> Fixed {
        let c = DynamicConfig { block: 4, blocks: 2, index_heads: 4, index_width: 8, ..Default::default() };
        // Tokens of a block are alike, as the topic of a passage would make them.
        let (topics, own) = (normal("topics", TOKENS / 4 * DIM, 1.0), normal("own", TOKENS * DIM, 0.3));
        let x: Vec<f64> = (0..TOKENS * DIM).map(|n| topics[n / (4 * DIM) * DIM + n % DIM] + own[n]).collect();
        let [q, k] = ["to q", "to k"].map(|name| mapped(&x, &normal(name, DIM * 4, 1.0), DIM));
        Fixed { c, x, q, k }
    }

    /// The router's lists and its loss, and the mass that lies in the lists, a mean over the queries with candidates.
    fn route(&self, router: &dyn Router, tape: &Tape, grads: Option<&mut Grads>) -> (Option<f64>, f64) {
        let real = |v: &[f64], dims: &[usize]| {
            tape.constant(Tensor::from_f64(&Device::cpu(), DType::F32, v, dims).unwrap())
        };
        let (q, k) = (real(&self.q, &[1, 1, TOKENS, 4]), real(&self.k, &[1, 1, TOKENS, 4]));
        let x = real(&self.x, &[1, TOKENS, DIM]);
        let ask = Ask { query: &q, key: &k, turned: [&q, &k], x: &x, offset: 0, skip: 1, memory: None };
        let (lists, loss) = router.route(ask).unwrap();
        if let Some(grads) = grads {
            tape.backward(loss.as_ref().unwrap(), grads).unwrap();
        }
        let mass = q.block_mass(&k, BlockMass { block: 4, ..BlockMass::default() }).unwrap();
        let (mass, lists) =
            (mass.value().to_f64().unwrap(), lists.value().as_slice::<i32>().unwrap().to_vec());
        let listed =
            |i: usize| lists[2 * i..2 * i + 2].iter().filter(|b| **b >= 0).map(move |b| 16 * i + *b as usize);
        let recall = (4..TOKENS).flat_map(listed).map(|at| mass[at]).sum::<f64>() / (TOKENS - 4) as f64;
        (loss.map(|l| l.value().item().unwrap()), recall)
    }
}

/// From random maps on, without a time of dense attention first.
#[test]
fn an_indexer_learns_where_attention_goes() {
    let fixed = Fixed::new();
    let mut p = ParamsBuilder::new(&Device::cpu(), DType::F32, 5);
    let layer = Layer { c: &fixed.c, name: "router", index: 0, dim: DIM, heads: 1 };
    let router = (router::find("indexer").unwrap().unwrap().build)(&layer, &mut p).unwrap();
    let mut params = p.build().unwrap();
    let mut adamw = optim::find("adamw", &[]).unwrap().build_with::<&str, &str>(&[], &params).unwrap();
    let (none, before) = fixed.route(&*router, &Tape::eval(&params), None);
    assert_eq!(none, None, "evaluation adds nothing to the loss");
    let mut losses = Vec::new();
    for step in 0..100 {
        let mut grads = Grads::new(&params).unwrap();
        losses.push(fixed.route(&*router, &Tape::train(&params, 1, step), Some(&mut grads)).0.unwrap());
        adamw.step(&mut params, &grads, 0.02).unwrap();
    }
    let (_, after) = fixed.route(&*router, &Tape::eval(&params), None);
    let (first, last) = (losses[0], losses[99]);
    println!("loss {first:.3} to {last:.3}, recall {before:.3} to {after:.3}");
    assert!(losses.iter().all(|l| *l >= -1e-6), "a divergence is not negative");
    assert!(last < 0.5 * first, "loss {first} to {last}");
    assert!(after > before + 0.2, "recall {before} to {after}");
}

#[test]
fn bad_buckets_and_settings_are_named() {
    let vote = |op: LshVote, v: &[i32]| {
        let e = run(|tape| {
            let k = tape.constant(ints(v, &[1, 1, v.len() / 2, 2]));
            k.lsh_vote(&k, op)
        });
        e.unwrap_err().to_string()
    };
    let op = LshVote { buckets: 4, ..LshVote::default() };
    let e = vote(op, &[0, 1, 2, 4]);
    assert!(e.contains("lsh_vote: id 4 at [0, 0, 1, 1] is not in 0..4"), "{e}");
    let e = vote(LshVote { reach: 300, ..op }, &[0, 1]);
    assert!(e.contains("reach") && e.contains("is 300, but must be 1 to 256 with 2 rounds"), "{e}");
    let e = vote(LshVote { block: 0, ..op }, &[0, 1]);
    assert!(e.contains("block") && e.contains("is 0"), "{e}");
    let sort = |op: SortChunk, v: &[i32]| {
        let e = run(|tape| tape.constant(ints(v, &[1, 1, v.len(), 1])).sort_chunk(op));
        e.unwrap_err().to_string()
    };
    let e = sort(SortChunk { buckets: 3, ..SortChunk::default() }, &[0, 3]);
    assert!(e.contains("sort_chunk: id 3 at [0, 0, 1, 0] is not in 0..3"), "{e}");
    let e = sort(SortChunk { chunk: 0, ..SortChunk::default() }, &[0]);
    assert!(e.contains("chunk") && e.contains("is 0, but must be 1 to 65536"), "{e}");
    let hash = |dims: &[usize]| {
        let n = dims.iter().product();
        let e = run(|tape| {
            let r = tape.constant(reals(&vec![0.5; n], dims));
            tape.constant(reals(&[1.0; 6], &[2, 3])).lsh_hash(&r, None)
        });
        e.unwrap_err().to_string()
    };
    let e = hash(&[65, 1, 3, 2]);
    assert!(e.contains("[65, 1, 3, 2]") && e.contains("rounds·hashes up to 64"), "{e}");
    let e = hash(&[1, 4, 3, 32]);
    assert!(e.contains("2^20"), "{e}");
    let e = hash(&[1, 1, 2, 2]);
    assert!(e.contains("d is 3"), "{e}");
}

//! What every transport must do: collectives against plain loops, bit by bit, and the bytes that they may send.

use ringtape::comm::{Algorithm, Communicator, Number, Reduce};
use ringtape::error::{Error, Result};
use ringtape::rng::Key;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};

/// What a rank of a test does.
pub type Body<'a> = &'a (dyn Fn(Communicator) -> Result<()> + Sync);
/// Runs a body on so many ranks.
pub type Run<'a> = &'a dyn Fn(usize, Body<'_>) -> Vec<Result<()>>;

/// Values of `rank`: normal, over many orders of magnitude, so that every order of adding has bits of its own.
pub fn values(rank: usize, n: usize) -> Vec<f32> {
    let mut rng = Key::new(7, rank as u64).rng();
    (0..n).map(|_| (rng.normal() * 10f64.powf(6.0 * rng.uniform())) as f32).collect()
}

/// The left fold of element by element over ranks `first`, `first + 1`, … of `p`.
fn fold(p: usize, first: usize, i: usize, all: &[Vec<f32>], f: impl Fn(f32, f32) -> f32) -> f32 {
    (1..p).fold(all[first % p][i], |sum, k| f(sum, all[(first + k) % p][i]))
}

/// The chunk of `n` elements, cut for `p`, in which element `i` lies.
fn chunk(p: usize, n: usize, i: usize) -> usize {
    let (each, more) = (n / p, n % p);
    if i < more * (each + 1) { i / (each + 1) } else { more + (i - more * (each + 1)) / each }
}

type Known = Mutex<HashMap<(usize, usize, u8), Arc<Vec<f32>>>>;

/// What the ring must give. All ranks of a test ask for the same, so it is made once.
pub fn ring_fold(p: usize, n: usize, reduce: Reduce) -> Arc<Vec<f32>> {
    static KNOWN: LazyLock<Known> = LazyLock::new(Known::default);
    KNOWN
        .lock()
        .unwrap()
        .entry((p, n, reduce as u8))
        .or_insert_with(|| Arc::new(make_fold(p, n, reduce)))
        .clone()
}

fn make_fold(p: usize, n: usize, reduce: Reduce) -> Vec<f32> {
    let all: Vec<_> = (0..p).map(|r| values(r, n)).collect();
    let one = |i| match reduce {
        Reduce::Sum => fold(p, chunk(p, n, i), i, &all, |a, b| a + b),
        Reduce::Mean => fold(p, chunk(p, n, i), i, &all, |a, b| a + b) / p as f32,
        Reduce::Max => fold(p, 0, i, &all, f32::max),
    };
    (0..n).map(one).collect()
}

/// What the tree must give: ranks beyond the power of two join theirs first, then halves of halves.
pub fn tree_fold(p: usize, n: usize) -> Vec<f32> {
    let core = 1 << p.ilog2();
    let all: Vec<_> = (0..p).map(|r| values(r, n)).collect();
    let one = |i: usize| {
        let mut level: Vec<f32> =
            (0..core).map(|r| if r + core < p { all[r][i] + all[r + core][i] } else { all[r][i] }).collect();
        while level.len() > 1 {
            level = level.chunks(2).map(|pair| pair[0] + pair[1]).collect();
        }
        level[0]
    };
    (0..n).map(one).collect()
}

pub fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|v| v.to_bits()).collect()
}

/// 0, 1, one less than the ranks, primes, and more than a piece of any transport.
pub fn sizes(p: usize) -> Vec<usize> {
    vec![0, 1, p - 1, p, 7, 101, 16_411, 150_001]
}

pub fn all_ok(results: Vec<Result<()>>) {
    for (rank, r) in results.into_iter().enumerate() {
        r.unwrap_or_else(|e| panic!("rank {rank}: {e}"));
    }
}

/// Everything below on `p` ranks.
pub fn all(run: Run<'_>, p: usize) {
    all_ok(run(p, &everything));
}

/// A rank's part in it.
pub fn everything(mut world: Communicator) -> Result<()> {
    let p = world.size();
    ring_equals_the_fold(&mut world, p)?;
    tree_equals_its_fold(&mut world, p)?;
    others(&mut world, p)?;
    messages(&mut world, p)?;
    splits(&mut world, p)?;
    world.barrier()
}

/// Ring arithmetic, and the bytes that it takes: 2(p−1)·4n in all, each rank within two chunks of the mean.
fn ring_equals_the_fold(world: &mut Communicator, p: usize) -> Result<()> {
    world.set_algorithm(Some(Algorithm::Ring));
    for n in sizes(p) {
        for reduce in [Reduce::Sum, Reduce::Max, Reduce::Mean] {
            let (mut x, before) = (values(world.rank(), n), world.sent());
            world.all_reduce(&mut x, reduce)?;
            assert_eq!(bits(&x), bits(&ring_fold(p, n, reduce)), "{p} ranks, {n} elements, {reduce:?}");
            let bytes = world.sent() - before;
            let mut total = [bytes as f64];
            world.all_reduce(&mut total, Reduce::Sum)?;
            assert_eq!(total[0], (2 * (p - 1) * 4 * n) as f64, "{p} ranks, {n} elements");
            let two_chunks = (2 * 4 * n.div_ceil(p)) as f64;
            assert!((bytes as f64 - total[0] / p as f64).abs() <= two_chunks, "{bytes} of {}", total[0]);
        }
    }
    Ok(())
}

fn tree_equals_its_fold(world: &mut Communicator, p: usize) -> Result<()> {
    world.set_algorithm(Some(Algorithm::Tree));
    for n in [0, 1, 101, 16_411] {
        let mut x = values(world.rank(), n);
        world.all_reduce(&mut x, Reduce::Sum)?;
        assert_eq!(bits(&x), bits(&tree_fold(p, n)), "{p} ranks, {n} elements");
        let mut x = values(world.rank(), n);
        world.all_reduce(&mut x, Reduce::Max)?;
        assert_eq!(bits(&x), bits(&ring_fold(p, n, Reduce::Max)));
    }
    world.set_algorithm(None);
    Ok(())
}

/// x · (1 over ranks) in an order that does not matter: small integers.
fn small<T: Number + From<u8>>(rank: usize, n: usize) -> Vec<T> {
    (0..n).map(|i| T::from(((rank * 31 + i) % 5) as u8)).collect()
}

fn others(world: &mut Communicator, p: usize) -> Result<()> {
    let me = world.rank();
    for algorithm in [Algorithm::Ring, Algorithm::Tree] {
        world.set_algorithm(Some(algorithm));
        for root in 0..p {
            for n in [0, 1, 103, if root == p - 1 { 40_009 } else { 2 }] {
                let mut x = values(me, n);
                world.broadcast(&mut x, root)?;
                assert_eq!(bits(&x), bits(&values(root, n)), "broadcast {algorithm:?} from {root} of {n}");
                let mut x = small::<f64>(me, n);
                world.reduce(&mut x, Reduce::Sum, root)?;
                let want: Vec<f64> =
                    (0..n).map(|i| (0..p).map(|r| ((r * 31 + i) % 5) as f64).sum()).collect();
                assert!(me != root || x == want, "reduce {algorithm:?} to {root} of {n}");
            }
        }
    }
    world.set_algorithm(None);
    for n in [0, 1, p, 1009] {
        let mut x = small::<i32>(me, n);
        let own = world.reduce_scatter(&mut x, Reduce::Sum)?;
        assert_eq!(own, world.part(me, n));
        let want: Vec<i32> = (0..n).map(|i| (0..p).map(|r| ((r * 31 + i) % 5) as i32).sum()).collect();
        assert_eq!(x[own.clone()], want[own], "reduce_scatter of {n}");
        world.all_gather_parts(&mut x)?;
        assert_eq!(x, want, "all_gather_parts of {n}");
        let mut all = vec![0f32; n * p];
        world.all_gather(&values(me, n), &mut all)?;
        let want: Vec<f32> = (0..p).flat_map(|r| values(r, n)).collect();
        assert_eq!(bits(&all), bits(&want), "all_gather of {n}");
        let out: Vec<u16> = (0..p * n).map(|i| (1000 * me + i) as u16).collect();
        let mut into = vec![0u16; p * n];
        world.all_to_all(&out, &mut into)?;
        let want: Vec<u16> =
            (0..p * n).map(|i| (1000 * (i / n.max(1)) + me * n + i % n.max(1)) as u16).collect();
        assert_eq!(into, want, "all_to_all of {n}");
    }
    Ok(())
}

fn messages(world: &mut Communicator, p: usize) -> Result<()> {
    let me = world.rank();
    for n in [0, 1, 300_007] {
        if p == 1 {
            break;
        }
        let mut x = vec![0f32; n];
        world.exchange((me + 1) % p, &values(me, n), (me + p - 1) % p, &mut x, 5)?;
        assert_eq!(bits(&x), bits(&values((me + p - 1) % p, n)));
        match me {
            0 => world.send(1, 9, &values(3, n))?,
            1 => {
                world.recv(0, 9, &mut x)?;
                assert_eq!(bits(&x), bits(&values(3, n)));
            }
            _ => {}
        }
    }
    let itself = world.send(me, 0, &[1u8]).unwrap_err();
    assert!(matches!(itself, Error::Attr { .. }) && itself.to_string().contains("itself"), "{itself}");
    let nobody = world.broadcast(&mut [1u8], p).unwrap_err();
    assert!(nobody.to_string().contains(&format!("rank {p}, of {p} ranks")), "{nobody}");
    let mean = world.all_reduce(&mut [1i32], Reduce::Mean).unwrap_err();
    assert!(mean.to_string().contains("i32"), "{mean}");
    Ok(())
}

fn splits(world: &mut Communicator, p: usize) -> Result<()> {
    let me = world.rank();
    // Even and odd ranks, each in reversed order; the last rank joins none.
    let color = (me + 1 < p || p == 1).then_some((me % 2) as u32);
    let Some(mut half) = world.split(color, -(me as i32))? else { return Ok(()) };
    let members: Vec<usize> = (0..p).rev().filter(|r| r % 2 == me % 2 && (r + 1 < p || p == 1)).collect();
    assert_eq!((half.size(), members[half.rank()]), (members.len(), me));
    let mut x = vec![0i32; members.len()];
    half.all_gather(&[me as i32], &mut x)?;
    assert_eq!(x, members.iter().map(|r| *r as i32).collect::<Vec<_>>());
    let mut sum = vec![me as f64; 3000];
    half.all_reduce(&mut sum, Reduce::Sum)?;
    assert_eq!(sum[2999], members.iter().sum::<usize>() as f64);
    half.barrier()
}

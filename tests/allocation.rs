//! What a training step takes from the system once it runs: no memory for tensors, and few small allocations, as many in
//! each step.

use ringtape::device::Device;
use ringtape::error::Result;
use ringtape::shape::DType;
use ringtape::tape::{Grads, Init, Params, ParamsBuilder, Role, Tape, Var};
use ringtape::tensor::Tensor;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

mod counting {
    //! The system's allocator, counting.
    #![allow(
        unsafe_code,
        reason = "a global allocator is an unsafe trait; this one only counts and passes on"
    )]

    use super::{AtomicU64, Relaxed};
    use std::alloc::{GlobalAlloc, Layout, System};

    pub(crate) static COUNT: AtomicU64 = AtomicU64::new(0);

    struct Counting;

    // SAFETY: every call goes to the system's allocator with the arguments that were given.
    unsafe impl GlobalAlloc for Counting {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            COUNT.fetch_add(1, Relaxed);
            // SAFETY: the caller's promise is passed on.
            unsafe { System.alloc(layout) }
        }
        unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
            COUNT.fetch_add(1, Relaxed);
            // SAFETY: the caller's promise is passed on.
            unsafe { System.alloc_zeroed(layout) }
        }
        unsafe fn realloc(&self, p: *mut u8, layout: Layout, size: usize) -> *mut u8 {
            COUNT.fetch_add(1, Relaxed);
            // SAFETY: the caller's promise is passed on.
            unsafe { System.realloc(p, layout, size) }
        }
        unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
            // SAFETY: the caller's promise is passed on.
            unsafe { System.dealloc(p, layout) }
        }
    }

    #[global_allocator]
    static ALLOCATOR: Counting = Counting;
}

const BATCH: usize = 4;
const TIME: usize = 32;
const DIM: usize = 64;
const HEADS: usize = 4;
const VOCABULARY: usize = 50;
const LAYERS: usize = 3;

fn params(device: &Device) -> Result<Params> {
    let mut b = ParamsBuilder::new(device, DType::F32, 1);
    let mut add = |name: String, dims: &[usize]| {
        let (init, role) = if dims.len() == 2 {
            (Init::Normal(0.05), Role::Decay)
        } else {
            (Init::Constant(1.0), Role::Plain)
        };
        b.add(name, dims, init, role).map(drop)
    };
    add("token".into(), &[VOCABULARY, DIM])?;
    add("head".into(), &[VOCABULARY, DIM])?;
    for i in 0..LAYERS {
        add(format!("{i}.qkv"), &[3 * DIM, DIM])?;
        add(format!("{i}.out"), &[DIM, DIM])?;
        add(format!("{i}.up"), &[4 * DIM, DIM])?;
        add(format!("{i}.up.bias"), &[4 * DIM])?;
        add(format!("{i}.down"), &[DIM, 4 * DIM])?;
        add(format!("{i}.norm"), &[DIM])?;
    }
    b.build()
}

fn param<'t>(tape: &'t Tape, name: &str) -> Var<'t> {
    tape.param(tape.params().find(name).expect("the test's parameters have this slot"))
}

/// A transformer block: attention over heads, then two layers.
fn block<'t>(tape: &'t Tape, i: usize, x: &Var<'t>) -> Result<Var<'t>> {
    let named = |name: &str| param(tape, &format!("{i}.{name}"));
    let heads = |x: &Var<'t>| x.reshape(&[BATCH, TIME, HEADS, DIM / HEADS])?.permute(&[0, 2, 1, 3]);
    let qkv = x.layer_norm(Some(&named("norm")), None, 1e-5)?.linear(&named("qkv"), None)?.split(DIM, -1)?;
    let (q, k, v) = (heads(&qkv[0])?, heads(&qkv[1])?, heads(&qkv[2])?);
    let y =
        q.scaled_dot_product_attention(&k, &v, true)?.permute(&[0, 2, 1, 3])?.reshape(&[BATCH, TIME, DIM])?;
    let y = y.linear(&named("out"), None)?;
    y.linear(&named("up"), Some(&named("up.bias")))?.relu()?.linear(&named("down"), None)
}

/// One step of gradient descent on the loss of guessing the next id; returns the loss and the number of nodes.
fn step(
    params: &mut Params,
    grads: &mut Grads,
    ids: &Tensor,
    targets: &Tensor,
    n: u64,
) -> Result<(f64, u64)> {
    let tape = Tape::train(params, 0, n);
    let mut x = tape.constant(ids.clone()).embedding(&param(&tape, "token"))?;
    for i in 0..LAYERS {
        x = block(&tape, i, &x)?;
    }
    let loss = x.linear(&param(&tape, "head"), None)?.cross_entropy(&tape.constant(targets.clone()))?;
    tape.backward(&loss, grads)?;
    let (value, nodes) = (loss.value().item()?, tape.len() as u64);
    drop((x, loss));
    drop(tape);
    for i in 0..params.segments().len() {
        let Some(g) = grads.segment::<f32>(i) else { continue };
        let w = params.segment_mut(i).as_mut_slice::<f32>()?;
        w.iter_mut().zip(g).for_each(|(w, g)| *w -= 0.1 * g);
    }
    Ok((value, nodes))
}

/// Allocations of a step for each node of its tape (seen: 13): the op itself, handles of values and gradients, a share of
/// the sweep, the names that this test formats.
const PER_NODE: u64 = 16;

/// Two steps differ by no more than this: the queue of the thread pool takes a block for every few dozen jobs.
const SPREAD: u64 = 8;

#[test]
fn a_step_after_the_second_takes_no_tensor_memory_and_counts_the_same() {
    let device = Device::new_cpu();
    let mut params = params(&device).unwrap();
    let mut grads = Grads::new(&params).unwrap();
    let ids: Vec<i32> = (0..BATCH * TIME).map(|i| (i * i % VOCABULARY) as i32).collect();
    let next: Vec<i32> = (0..BATCH * TIME).map(|i| ((i + 1) * (i + 1) % VOCABULARY) as i32).collect();
    let ids = Tensor::from_slice(&device, &ids, &[BATCH, TIME]).unwrap();
    let next = Tensor::from_slice(&device, &next, &[BATCH, TIME]).unwrap();
    let (mut losses, mut allocations, mut misses) = (Vec::new(), Vec::new(), Vec::new());
    let mut nodes = 0;
    for n in 0..12 {
        let (count, stats) = (counting::COUNT.load(Relaxed), device.stats());
        let (loss, n) = step(&mut params, &mut grads, &ids, &next, n).unwrap();
        allocations.push(counting::COUNT.load(Relaxed) - count);
        misses.push(device.stats().misses - stats.misses);
        losses.push(loss);
        nodes = n;
    }
    println!(
        "allocations {allocations:?}\npool misses {misses:?}\n{nodes} nodes; loss {} … {}",
        losses[0], losses[11]
    );
    assert!(losses[11] < losses[0] - 0.05, "the step trains: {losses:?}");
    assert_eq!(misses[2..], [0; 10], "pool misses after the second step");
    let (least, most) = (allocations[2..].iter().min().unwrap(), allocations[2..].iter().max().unwrap());
    assert!(most - least <= SPREAD, "{allocations:?}");
    assert!(*most <= PER_NODE * nodes, "{most} allocations for {nodes} nodes");
}

//! What a training step takes from the system once it runs: no memory for tensors, and few small allocations, as many in
//! each step.

use ringtape::device::Device;
use ringtape::error::Result;
use ringtape::nn::fusion::{Form, FusionConfig, FusionMode, Modality};
use ringtape::nn::{self, Io, Model, ModelConfig, ModelKind};
use ringtape::shape::DType;
use ringtape::tape::{Grads, Params, ParamsBuilder, Tape};
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

/// What a model is trained on: inputs and targets of one batch.
struct Task {
    name: &'static str,
    model: Model,
    params: Params,
    inputs: Vec<Tensor>,
    target: Tensor,
}

impl Task {
    fn new(name: &'static str, config: ModelConfig, io: Io, checkpoint: bool) -> Task {
        let device = Device::new_cpu();
        let mut b = ParamsBuilder::new(&device, DType::F32, 1);
        let model = nn::build(&config, &io, checkpoint, &mut b).unwrap();
        let ids = |n: usize, limit: usize, dims: &[usize]| {
            let v: Vec<i32> = (0..n).map(|i| (i * i % limit) as i32).collect();
            Tensor::from_slice(&device, &v, dims).unwrap()
        };
        let reals = |shape: &[usize]| {
            let dims: Vec<usize> = [32].iter().chain(shape).copied().collect();
            let x: Vec<f32> =
                (0..dims.iter().product()).map(|i| ((i * 37 % 100) as f32 - 50.0) / 50.0).collect();
            Tensor::from_slice(&device, &x, &dims).unwrap()
        };
        let (inputs, target) = match io {
            Io::Tokens { vocabulary } => {
                let dims = [4, config.context];
                let n = dims[0] * dims[1];
                (vec![ids(n, vocabulary, &dims)], ids(n, vocabulary - 1, &dims))
            }
            Io::Samples { ref shape, outputs } => (vec![reals(shape)], ids(32, outputs, &[32])),
            Io::Modalities { ref modalities, outputs } => {
                let values = modalities.iter().map(|m| match m.form {
                    Form::Image(shape) => reals(&shape),
                    Form::Sound(shape) => reals(&shape),
                    Form::Text { length, vocabulary } => ids(32 * length, vocabulary, &[32, length]),
                });
                (values.collect(), ids(32, outputs, &[32]))
            }
        };
        Task { name, model, params: b.build().unwrap(), inputs, target }
    }

    /// One step of gradient descent; returns the loss and the number of nodes.
    fn step(&mut self, grads: &mut Grads, n: u64) -> Result<(f64, u64)> {
        let tape = Tape::train(&self.params, 0, n);
        let values: Vec<_> = self.inputs.iter().map(|x| Some(tape.constant(x.clone()))).collect();
        let y = self.model.predict(&values)?.output;
        drop(values);
        let loss = y.cross_entropy(&tape.constant(self.target.clone()))?;
        tape.backward(&loss, grads)?;
        let (value, nodes) = (loss.value().item()?, tape.len() as u64);
        drop((y, loss));
        drop(tape);
        for i in 0..self.params.segments().len() {
            let Some(g) = grads.segment::<f32>(i) else { continue };
            let w = self.params.segment_mut(i).as_mut_slice::<f32>()?;
            w.iter_mut().zip(g).for_each(|(w, g)| *w -= 0.05 * g);
        }
        Ok((value, nodes))
    }

    /// Trains for some steps; the first two may take what they need, the rest must be alike. Returns how many allocations
    /// the last step made, and on how many nodes.
    fn run(&mut self) -> (u64, u64) {
        let device = self.params.device().clone();
        let mut grads = Grads::new(&self.params).unwrap();
        let (mut losses, mut allocations, mut misses, mut nodes) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for n in 0..12 {
            let (count, stats) = (counting::COUNT.load(Relaxed), device.stats());
            let (loss, on) = self.step(&mut grads, n).unwrap();
            allocations.push(counting::COUNT.load(Relaxed) - count);
            misses.push(device.stats().misses - stats.misses);
            losses.push(loss);
            nodes = on;
        }
        let (name, last) = (self.name, losses[11]);
        println!(
            "{name}: {nodes} nodes, loss {:.4} to {last:.4}\n  allocations {allocations:?}\n  misses {misses:?}",
            losses[0]
        );
        assert!(last < losses[0], "{name} trains: {losses:?}");
        assert_eq!(misses[2..], [0; 10], "{name}: pool misses after the second step");
        let (least, most) = (allocations[2..].iter().min().unwrap(), allocations[2..].iter().max().unwrap());
        assert!(most - least <= SPREAD, "{name}: {allocations:?}");
        (*most, nodes)
    }
}

/// Two steps differ by no more than this: the queue of the thread pool takes a block for every few dozen jobs.
const SPREAD: u64 = 8;

/// Allocations for each node of the tape of a plain step: the op itself, handles of values and gradients, a share of the
/// sweep. A checkpointed part runs its inside twice behind one node.
const PER_NODE: u64 = 14;

#[test]
fn a_step_after_the_second_takes_no_tensor_memory_and_allocates_the_same() {
    let gpt = || ModelConfig { layers: 3, dim: 64, heads: 4, context: 32, ..ModelConfig::default() };
    let text = || Io::Tokens { vocabulary: 50 };
    let (plain, nodes) = Task::new("gpt", gpt(), text(), false).run();
    assert!(plain <= PER_NODE * nodes, "{plain} allocations for {nodes} nodes");
    let (replayed, fewer) = Task::new("gpt, checkpointed", gpt(), text(), true).run();
    assert!(
        fewer < nodes && replayed <= 2 * PER_NODE * nodes,
        "{replayed} allocations for {nodes} nodes, {fewer} kept"
    );
    let mlp = ModelConfig { kind: ModelKind::Mlp, layers: 2, dim: 64, ..ModelConfig::default() };
    let (tiny, nodes) = Task::new("mlp", mlp, Io::Samples { shape: vec![64], outputs: 10 }, false).run();
    assert!(tiny <= PER_NODE * nodes, "{tiny} allocations for {nodes} nodes");
    let cnn = ModelConfig { kind: ModelKind::Cnn, layers: 2, dim: 16, ..ModelConfig::default() };
    let (images, nodes) =
        Task::new("cnn", cnn, Io::Samples { shape: vec![1, 8, 8], outputs: 10 }, false).run();
    assert!(images <= PER_NODE * nodes, "{images} allocations for {nodes} nodes");
    let fused = FusionConfig { patch: 4, modality_dropout: 0.3, ..FusionConfig::default() };
    let (kind, fusion) = (ModelKind::Fusion, FusionMode::Experts);
    let fusion = ModelConfig { kind, fusion, fused, layers: 2, dim: 32, heads: 2, ..ModelConfig::default() };
    let image = Modality { name: "image".into(), form: Form::Image([1, 8, 8]) };
    let words = Modality { name: "words".into(), form: Form::Text { length: 6, vocabulary: 9 } };
    let io = Io::Modalities { modalities: vec![image, words], outputs: 10 };
    let (several, nodes) = Task::new("fusion", fusion, io, false).run();
    assert!(several <= PER_NODE * nodes, "{several} allocations for {nodes} nodes");
}

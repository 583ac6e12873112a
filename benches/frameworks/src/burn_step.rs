//! Seconds of training steps of the character GPT in burn, on its CPU backend flex: forward, backward, AdamW, in f32.
//!
//! `burn_step WIDTH STEPS` prints one JSON object; `RAYON_NUM_THREADS` sets the threads.

mod ids;

use burn::module::{Initializer, Module};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{Embedding, EmbeddingConfig, Gelu, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Device, Int, Tensor, TensorData};
use ids::{BATCH, CONTEXT, LAYERS, VOCABULARY};

#[derive(Module, Debug)]
struct Block {
    norm1: LayerNorm,
    norm2: LayerNorm,
    qkv: Linear,
    out: Linear,
    up: Linear,
    down: Linear,
}

#[derive(Module, Debug)]
struct Gpt {
    token: Embedding,
    position: Embedding,
    blocks: Vec<Block>,
    norm: LayerNorm,
    head: Linear,
}

const NORMAL: Initializer = Initializer::Normal { mean: 0.0, std: 0.02 };

impl Block {
    fn new(dim: usize, device: &Device) -> Block {
        let linear = |i: usize, o: usize| LinearConfig::new(i, o).with_initializer(NORMAL).init(device);
        Block {
            norm1: LayerNormConfig::new(dim).init(device),
            norm2: LayerNormConfig::new(dim).init(device),
            qkv: linear(dim, 3 * dim),
            out: linear(dim, dim),
            up: linear(dim, 4 * dim),
            down: linear(4 * dim, dim),
        }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let dim = x.dims()[2];
        let qkv = self.qkv.forward(self.norm1.forward(x.clone()));
        let part = |i: usize| {
            let one = qkv.clone().narrow(2, i * dim, dim);
            one.reshape([BATCH, CONTEXT, dim / 32, 32]).swap_dims(1, 2)
        };
        let options = AttentionModuleOptions { is_causal: true, ..Default::default() };
        let seen = attention(part(0), part(1), part(2), None, None, options);
        let x = x + self.out.forward(seen.swap_dims(1, 2).reshape([BATCH, CONTEXT, dim]));
        let up = self.up.forward(self.norm2.forward(x.clone()));
        x + self.down.forward(Gelu::new_approximate().forward(up))
    }
}

impl Gpt {
    fn new(dim: usize, device: &Device) -> Gpt {
        let table = |n: usize| EmbeddingConfig::new(n, dim).with_initializer(NORMAL).init(device);
        Gpt {
            token: table(VOCABULARY),
            position: table(CONTEXT),
            blocks: (0..LAYERS).map(|_| Block::new(dim, device)).collect(),
            norm: LayerNormConfig::new(dim).init(device),
            head: LinearConfig::new(dim, VOCABULARY).with_bias(false).with_initializer(NORMAL).init(device),
        }
    }

    fn loss(&self, input: Tensor<2, Int>, target: Tensor<2, Int>) -> Tensor<1> {
        let device = input.device();
        let places = Tensor::<1, Int>::arange(0..CONTEXT as i64, &device).unsqueeze::<2>();
        let mut x = self.token.forward(input) + self.position.forward(places);
        for block in &self.blocks {
            x = block.forward(x);
        }
        let y = self.head.forward(self.norm.forward(x)).reshape([BATCH * CONTEXT, VOCABULARY]);
        CrossEntropyLossConfig::new().init(&device).forward(y, target.reshape([BATCH * CONTEXT]))
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (dim, steps) = ids::args()?;
    let device = Device::flex().autodiff();
    let mut model = Gpt::new(dim, &device);
    let mut optimizer = AdamWConfig::new().with_weight_decay(0.1).init();
    ids::measure("burn", steps, |input, target| {
        let tensor = |ids: Vec<u32>| {
            let ids: Vec<i32> = ids.into_iter().map(|id| id as i32).collect();
            Tensor::<2, Int>::from_data(TensorData::new(ids, [BATCH, CONTEXT]), &device)
        };
        let loss = model.loss(tensor(input), tensor(target));
        let grads = GradientsParams::from_grads(loss.backward(), &model);
        model = optimizer.step(3e-4, model.clone(), grads);
        Ok(loss.into_scalar::<f32>())
    })
}

//! Seconds of training steps of the character GPT in candle: forward, backward, AdamW on the CPU, in f32.
//!
//! `candle_step WIDTH STEPS` prints one JSON object; `RAYON_NUM_THREADS` sets the threads. Softmax and layer norm are
//! candle's differentiable ones: its fused ones have no backward.

mod ids;

use candle_core::{D, Device, Result, Tensor};
use candle_nn::ops::{layer_norm_slow, softmax};
use candle_nn::{AdamW, Embedding, Init, Linear, Module, Optimizer, ParamsAdamW, VarBuilder, VarMap};
use ids::{BATCH, CONTEXT, LAYERS, VOCABULARY};

struct Norm(Tensor, Tensor);

impl Norm {
    fn new(dim: usize, vb: VarBuilder<'_>) -> Result<Norm> {
        Ok(Norm(vb.get_with_hints(dim, "weight", Init::Const(1.0))?, vb.get_with_hints(dim, "bias", Init::Const(0.0))?))
    }
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        layer_norm_slow(x, &self.0, &self.1, 1e-5)
    }
}

struct Block {
    norms: [Norm; 2],
    qkv: Linear,
    out: Linear,
    up: Linear,
    down: Linear,
}

struct Gpt {
    token: Embedding,
    position: Tensor,
    blocks: Vec<Block>,
    norm: Norm,
    head: Linear,
    mask: Tensor,
    dim: usize,
}

const NORMAL: Init = Init::Randn { mean: 0.0, stdev: 0.02 };

fn linear(i: usize, o: usize, vb: VarBuilder<'_>) -> Result<Linear> {
    let bias = vb.get_with_hints(o, "bias", Init::Const(0.0))?;
    Ok(Linear::new(vb.get_with_hints((o, i), "weight", NORMAL)?, Some(bias)))
}

impl Gpt {
    fn new(dim: usize, vb: VarBuilder<'_>) -> Result<Gpt> {
        let block = |i: usize| {
            let vb = vb.pp(i);
            Ok(Block {
                norms: [Norm::new(dim, vb.pp("norm1"))?, Norm::new(dim, vb.pp("norm2"))?],
                qkv: linear(dim, 3 * dim, vb.pp("qkv"))?,
                out: linear(dim, dim, vb.pp("out"))?,
                up: linear(dim, 4 * dim, vb.pp("up"))?,
                down: linear(4 * dim, dim, vb.pp("down"))?,
            })
        };
        let later = |k: usize| if k % CONTEXT > k / CONTEXT { f32::NEG_INFINITY } else { 0.0 };
        let mask: Vec<f32> = (0..CONTEXT * CONTEXT).map(later).collect();
        Ok(Gpt {
            token: Embedding::new(vb.get_with_hints((VOCABULARY, dim), "token", NORMAL)?, dim),
            position: vb.get_with_hints((CONTEXT, dim), "position", NORMAL)?,
            blocks: (0..LAYERS).map(block).collect::<Result<_>>()?,
            norm: Norm::new(dim, vb.pp("norm"))?,
            head: Linear::new(vb.get_with_hints((VOCABULARY, dim), "head", NORMAL)?, None),
            mask: Tensor::from_vec(mask, (CONTEXT, CONTEXT), vb.device())?,
            dim,
        })
    }

    fn attention(&self, block: &Block, x: &Tensor) -> Result<Tensor> {
        let (heads, high) = (self.dim / 32, 32);
        let qkv = block.qkv.forward(x)?;
        let part = |i: usize| {
            let one = qkv.narrow(D::Minus1, i * self.dim, self.dim)?;
            one.reshape((BATCH, CONTEXT, heads, high))?.transpose(1, 2)?.contiguous()
        };
        let (q, k, v) = (part(0)?, part(1)?, part(2)?);
        let scores = (q.matmul(&k.transpose(2, 3)?)? * (1.0 / (high as f64).sqrt()))?;
        let weights = softmax(&scores.broadcast_add(&self.mask)?, D::Minus1)?;
        block.out.forward(&weights.matmul(&v)?.transpose(1, 2)?.reshape((BATCH, CONTEXT, self.dim))?)
    }

    fn loss(&self, input: &Tensor, target: &Tensor) -> Result<Tensor> {
        let mut x = self.token.forward(input)?.broadcast_add(&self.position)?;
        for block in &self.blocks {
            x = (&x + self.attention(block, &block.norms[0].forward(&x)?)?)?;
            let up = block.up.forward(&block.norms[1].forward(&x)?)?.gelu()?;
            x = (&x + block.down.forward(&up)?)?;
        }
        let y = self.head.forward(&self.norm.forward(&x)?)?;
        candle_nn::loss::cross_entropy(&y.reshape((BATCH * CONTEXT, VOCABULARY))?, &target.flatten_all()?)
    }
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let (dim, steps) = ids::args()?;
    let device = Device::Cpu;
    let vars = VarMap::new();
    let model = Gpt::new(dim, VarBuilder::from_varmap(&vars, candle_core::DType::F32, &device))?;
    let params = ParamsAdamW { lr: 3e-4, weight_decay: 0.1, ..ParamsAdamW::default() };
    let mut optimizer = AdamW::new(vars.all_vars(), params)?;
    ids::measure("candle", steps, |input, target| {
        let tensor = |ids: Vec<u32>| Tensor::from_vec(ids, (BATCH, CONTEXT), &device);
        let loss = model.loss(&tensor(input)?, &tensor(target)?)?;
        optimizer.backward_step(&loss)?;
        Ok(loss.to_scalar::<f32>()?)
    })
}

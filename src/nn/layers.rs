//! Layers: a few slots each, and the op that uses them.

use super::parallel::{Share, Vocabulary};
use super::{Activation, Module, Norm, join, param};
use crate::error::Result;
use crate::ops::threshold_relu::ThresholdRelu;
use crate::tape::{Cut, Init, ParamsBuilder, Role, Slot, Var};

/// y = x·Wᵀ + b.
#[derive(Clone, Debug)]
pub struct Linear {
    weight: Slot,
    bias: Option<Slot>,
    across: Across,
}

/// How ranks share a linear layer.
#[derive(Clone, Debug)]
enum Across {
    /// Each has all of it.
    Whole,
    /// Each has some of the outputs.
    Columns(Share),
    /// Each has some of the inputs.
    Rows(Share),
}

impl Linear {
    /// `name.weight` `[output, input]` with weight decay, and `name.bias` `[output]`, zero at first.
    pub fn new(p: &mut ParamsBuilder, name: &str, input: usize, output: usize, init: Init) -> Result<Linear> {
        Linear::biased(p, name, input, output, init, 0.0)
    }
    /// With a bias that begins at `start`.
    pub fn biased(
        p: &mut ParamsBuilder,
        name: &str,
        input: usize,
        output: usize,
        init: Init,
        start: f64,
    ) -> Result<Linear> {
        let weight = p.add(join(name, "weight"), &[output, input], init, Role::Decay)?;
        let bias = Some(p.add(join(name, "bias"), &[output], Init::Constant(start), Role::Plain)?);
        Ok(Linear { weight, bias, across: Across::Whole })
    }
    /// Without a bias.
    pub fn unbiased(
        p: &mut ParamsBuilder,
        name: &str,
        input: usize,
        output: usize,
        init: Init,
    ) -> Result<Linear> {
        let weight = p.add(join(name, "weight"), &[output, input], init, Role::Decay)?;
        Ok(Linear { weight, bias: None, across: Across::Whole })
    }
    /// A linear layer that shares the weight of an embedding.
    pub fn tied(embedding: &Embedding) -> Linear {
        let across = match &embedding.vocabulary {
            Some(v) => Across::Columns(v.share.clone()),
            None => Across::Whole,
        };
        Linear { weight: embedding.weight, bias: None, across }
    }
    /// A layer of which each rank of `share` has some of the outputs: of each of `sections` equal sections of them its piece.
    /// Its outputs are this rank's.
    pub fn columns(
        p: &mut ParamsBuilder,
        name: &str,
        [input, output]: [usize; 2],
        init: Init,
        sections: usize,
        share: &Share,
    ) -> Result<Linear> {
        if share.size == 1 {
            return Linear::new(p, name, input, output, init);
        }
        let cut = |whole: &[usize]| Cut::new(whole, 0, sections, share.place());
        let weight = p.add_piece(join(name, "weight"), cut(&[output, input])?, init, Role::Decay)?;
        let bias = p.add_piece(join(name, "bias"), cut(&[output])?, Init::Constant(0.0), Role::Plain)?;
        Ok(Linear { weight, bias: Some(bias), across: Across::Columns(share.clone()) })
    }
    /// A layer of which each rank of `share` has some of the inputs. Every rank gets its outputs, added up.
    pub fn rows(
        p: &mut ParamsBuilder,
        name: &str,
        [input, output]: [usize; 2],
        init: Init,
        share: &Share,
    ) -> Result<Linear> {
        if share.size == 1 {
            return Linear::new(p, name, input, output, init);
        }
        let cut = Cut::new(&[output, input], 1, 1, share.place())?;
        let weight = p.add_piece(join(name, "weight"), cut, init, Role::Decay)?;
        let bias = p.add(join(name, "bias"), &[output], Init::Constant(0.0), Role::Plain)?;
        Ok(Linear { weight, bias: Some(bias), across: Across::Rows(share.clone()) })
    }
    /// From [.., dim] to the logits of this rank's symbols, without bias.
    pub fn to_symbols(
        p: &mut ParamsBuilder,
        name: &str,
        [dim, symbols]: [usize; 2],
        init: Init,
        share: &Share,
    ) -> Result<Linear> {
        if share.size == 1 {
            return Linear::unbiased(p, name, dim, symbols, init);
        }
        let cut = Cut::new(&[symbols, dim], 0, 1, share.place())?;
        let weight = p.add_piece(join(name, "weight"), cut, init, Role::Decay)?;
        Ok(Linear { weight, bias: None, across: Across::Columns(share.clone()) })
    }
}

impl Module for Linear {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        let (weight, bias) = (param(x, self.weight), self.bias.map(|b| param(x, b)));
        match &self.across {
            Across::Whole => x.linear(&weight, bias.as_ref()),
            Across::Columns(share) => share.copy(x)?.linear(&weight, bias.as_ref()),
            Across::Rows(share) => {
                let y = share.reduce(&x.linear(&weight, None)?)?;
                bias.map_or(Ok(y.clone()), |b| y.add(&b))
            }
        }
    }
}

/// Uniform in ±1/√fan_in: what torch gives linear and convolution layers.
pub(super) fn fan_in(n: usize) -> Init {
    Init::Uniform(1.0 / (n.max(1) as f64).sqrt())
}

/// A vector for each id.
#[derive(Clone, Debug)]
pub struct Embedding {
    pub(super) weight: Slot,
    /// Where ranks share it.
    pub(super) vocabulary: Option<Vocabulary>,
}

impl Embedding {
    /// `name.weight` [count, dim], normal with standard deviation 0.02 (Radford et al. 2019).
    pub fn new(p: &mut ParamsBuilder, name: &str, count: usize, dim: usize) -> Result<Embedding> {
        Embedding::begun(p, name, count, dim, Init::Normal(0.02))
    }
    /// With other initial values.
    pub fn begun(
        p: &mut ParamsBuilder,
        name: &str,
        count: usize,
        dim: usize,
        init: Init,
    ) -> Result<Embedding> {
        let weight = p.add(join(name, "weight"), &[count, dim], init, Role::Decay)?;
        Ok(Embedding { weight, vocabulary: None })
    }
    /// [`Embedding::new`] of which each rank of `share` has some rows.
    pub fn shared(
        p: &mut ParamsBuilder,
        name: &str,
        count: usize,
        dim: usize,
        share: &Share,
    ) -> Result<Embedding> {
        if share.size == 1 {
            return Embedding::new(p, name, count, dim);
        }
        let cut = Cut::new(&[count, dim], 0, 1, share.place())?;
        let vocabulary = Vocabulary::shared(count, share)?;
        let weight = p.add_piece(join(name, "weight"), cut, Init::Normal(0.02), Role::Decay)?;
        Ok(Embedding { weight, vocabulary })
    }
    /// Rows `start..start + n`, as [n, dim].
    pub fn rows<'t>(&self, x: &Var<'t>, start: usize, n: usize) -> Result<Var<'t>> {
        param(x, self.weight).narrow(0, start, n)
    }
}

impl Module for Embedding {
    fn forward<'t>(&self, ids: &Var<'t>) -> Result<Var<'t>> {
        let weight = param(ids, self.weight);
        match &self.vocabulary {
            None => ids.embedding(&weight),
            Some(vocabulary) => vocabulary.embed(ids, &weight),
        }
    }
}

/// Layer norm or RMS norm over the last axis.
#[derive(Clone, Debug)]
pub struct NormLayer {
    weight: Slot,
    bias: Option<Slot>,
}

const EPS: f64 = 1e-5;

impl NormLayer {
    /// RMS norm with `name.weight` that begins at `scale`.
    pub fn scaled(p: &mut ParamsBuilder, name: &str, dim: usize, scale: f64) -> Result<NormLayer> {
        let weight = p.add(join(name, "weight"), &[dim], Init::Constant(scale), Role::Plain)?;
        Ok(NormLayer { weight, bias: None })
    }
    /// `name.weight` of ones and, for layer norm, `name.bias` of zeros.
    pub fn new(p: &mut ParamsBuilder, name: &str, kind: Norm, dim: usize) -> Result<NormLayer> {
        let weight = p.add(join(name, "weight"), &[dim], Init::Constant(1.0), Role::Plain)?;
        let bias = match kind {
            Norm::Layer => Some(p.add(join(name, "bias"), &[dim], Init::Constant(0.0), Role::Plain)?),
            Norm::Rms => None,
        };
        Ok(NormLayer { weight, bias })
    }
}

impl Module for NormLayer {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        let weight = param(x, self.weight);
        match self.bias {
            Some(b) => x.layer_norm(Some(&weight), Some(&param(x, b)), EPS),
            None => x.rms_norm(Some(&weight), Some(EPS)),
        }
    }
}

impl Module for Activation {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        match self {
            Activation::Gelu => x.gelu(),
            Activation::GeluTanh => x.gelu_tanh(),
            Activation::Relu => x.relu(),
            Activation::Silu => x.silu(),
            // Without rules that remember: each row its own threshold.
            Activation::Sparse => x.threshold_relu(None, ThresholdRelu::default()),
        }
    }
}

/// Zeroes a share `p` of the values while training and scales the rest by 1/(1 − p).
#[derive(Clone, Copy, Debug)]
pub struct Dropout(pub f64);

impl Module for Dropout {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        if self.0 == 0.0 || !x.tape().is_training() { Ok(x.clone()) } else { x.dropout(self.0) }
    }
}

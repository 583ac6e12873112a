//! Extractors: from the values of one modality to tokens [B, T, dim], each with a learned vector of its place added.
//!
//! | modality | field | tokens |
//! |---|---|---|
//! | image | [channels, height, width] | patches of p × p, by one linear map (a convolution of stride p); or a small CNN, whose last map is cut into its places |
//! | sound | [frames, coefficients] | so many frames, by one linear map |
//! | text | ids [length], 0 fills up | a vector for each symbol; 0 is masked |

use super::attend::plain;
use super::stream::Stream;
use super::{FusionConfig, ImageExtractor};
use crate::error::{Error, Result};
use crate::nn::layers::fan_in;
use crate::nn::{Embedding, Linear, ModelConfig, Module, join, param};
use crate::ops::conv2d::Conv2d;
use crate::ops::max_pool2d::Pool;
use crate::tape::{Init, ParamsBuilder, Role, Slot, Var};
use crate::tensor::Tensor;

/// What the values of a modality are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// Channels, height, width.
    Image([usize; 3]),
    /// Frames, coefficients of each.
    Sound([usize; 2]),
    /// Ids of so many symbols; 0 stands where a text is shorter.
    Text {
        /// Ids of a sample.
        length: usize,
        /// Number of symbols, 0 among them.
        vocabulary: usize,
    },
}

/// One modality of a sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Modality {
    /// Name of its field.
    pub name: String,
    /// What its values are.
    pub form: Form,
}

/// The extractor of one modality.
pub(super) struct Extractor {
    modality: Modality,
    body: Body,
    /// [T, dim].
    position: Slot,
    tokens: usize,
    /// Rows and columns of tokens.
    grid: [usize; 2],
}

enum Body {
    /// Kernels and biases of convolutions, all but the last followed by relu and pooling.
    Convolutions(Vec<([Slot; 2], Conv2d)>),
    /// A linear map of so many values.
    Frames(Linear, usize),
    Symbols(Embedding, usize),
}

/// Channels of the CNN's first convolution; the second has twice as many.
const CHANNELS: usize = 16;

impl Extractor {
    /// Slots `NAME.extract.…` and `NAME.position`.
    pub(super) fn new(c: &ModelConfig, m: &Modality, p: &mut ParamsBuilder) -> Result<Extractor> {
        let f = &c.fused;
        let at = |what: &str| format!("{}.extract{what}", m.name);
        let (body, grid) = match m.form {
            Form::Image(shape) => convolutions(c.dim, f, m, shape, p)?,
            Form::Sound([frames, width]) => {
                if !frames.is_multiple_of(f.frames) {
                    let what =
                        format!("is {}, which does not divide the {frames} frames of `{}`", f.frames, m.name);
                    return Err(Error::config("model.fused.frames", what));
                }
                let values = f.frames * width;
                (
                    Body::Frames(Linear::new(p, &at(""), values, c.dim, fan_in(values))?, values),
                    [1, frames / f.frames],
                )
            }
            Form::Text { length, vocabulary } => (
                Body::Symbols(Embedding::begun(p, &at(""), vocabulary, c.dim, plain(c.dim))?, vocabulary),
                [1, length],
            ),
        };
        let tokens = grid[0] * grid[1];
        let position = p.add(format!("{}.position", m.name), &[tokens, c.dim], plain(c.dim), Role::Plain)?;
        Ok(Extractor { modality: m.clone(), body, position, tokens, grid })
    }

    /// Rows and columns of tokens.
    pub(super) fn grid(&self) -> [usize; 2] {
        self.grid
    }

    pub(super) fn name(&self) -> &str {
        &self.modality.name
    }

    /// Tokens of values [B, …].
    pub(super) fn forward<'t>(&self, x: &Var<'t>) -> Result<Stream<'t>> {
        self.expect(x)?;
        let batch = x.dims()[0];
        let (tokens, mask) = match &self.body {
            Body::Convolutions(layers) => {
                let mut h = x.clone();
                for (i, ([weight, bias], op)) in layers.iter().enumerate() {
                    h = h.conv2d(&param(x, *weight), Some(&param(x, *bias)), *op)?;
                    if i + 1 < layers.len() {
                        h = h.relu()?.max_pool2d(Pool::square(2))?;
                    }
                }
                let dim = h.dims()[1];
                (h.reshape(&[batch, dim, self.tokens])?.permute(&[0, 2, 1])?, None)
            }
            Body::Frames(linear, values) => {
                (linear.forward(&x.reshape(&[batch, self.tokens, *values])?)?, None)
            }
            Body::Symbols(embedding, vocabulary) => {
                (embedding.forward(x)?, Some(padding(x, *vocabulary)?.reshape(&[batch, 1, 1, self.tokens])?))
            }
        };
        Ok(Stream { x: tokens.add(&param(x, self.position))?, mask, here: None })
    }

    /// An error that says what values this modality takes.
    fn expect(&self, x: &Var<'_>) -> Result<()> {
        let wanted: Vec<usize> = match self.modality.form {
            Form::Image(shape) => shape.to_vec(),
            Form::Sound(shape) => shape.to_vec(),
            Form::Text { length, .. } => vec![length],
        };
        if x.dims().get(1..) == Some(&wanted) {
            return Ok(());
        }
        let what = format!("`{}` has shape {}, but samples must be {wanted:?}", self.name(), x.shape());
        Err(Error::shape("fusion", what))
    }
}

/// What is added to the scores of keys: -∞ where an id is 0.
fn padding<'t>(ids: &Var<'t>, vocabulary: usize) -> Result<Var<'t>> {
    let tape = ids.tape();
    let mut mask = vec![0.0; vocabulary];
    mask[0] = f64::NEG_INFINITY;
    let table = Tensor::from_f64(tape.device(), tape.params().dtype(), &mask, &[vocabulary, 1])?;
    ids.embedding(&tape.constant(table))
}

/// The convolutions of an image's extractor, and the rows and columns of tokens that they give.
fn convolutions(
    dim: usize,
    f: &FusionConfig,
    m: &Modality,
    [channels, mut height, mut width]: [usize; 3],
    p: &mut ParamsBuilder,
) -> Result<(Body, [usize; 2])> {
    let same = Conv2d { padding: [1; 2], ..Conv2d::default() };
    let plan = match f.image {
        ImageExtractor::Patches => {
            if !height.is_multiple_of(f.patch) || !width.is_multiple_of(f.patch) {
                let what = format!(
                    "is {}, which does not divide the {height} × {width} pixels of `{}`",
                    f.patch, m.name
                );
                return Err(Error::config("model.fused.patch", what));
            }
            (height, width) = (height / f.patch, width / f.patch);
            vec![(dim, f.patch, Conv2d { stride: [f.patch; 2], ..Conv2d::default() })]
        }
        ImageExtractor::Cnn => {
            if height < 4 || width < 4 {
                let what = format!(
                    "is cnn, but `{}` has {height} × {width} pixels, which cannot be halved twice",
                    m.name
                );
                return Err(Error::config("model.fused.image", what));
            }
            (height, width) = ((height / 4).div_ceil(2), (width / 4).div_ceil(2));
            let last = Conv2d { stride: [2; 2], ..same };
            vec![(CHANNELS, 3, same), (2 * CHANNELS, 3, same), (dim, 3, last)]
        }
    };
    let mut layers = Vec::new();
    let mut from = channels;
    for (i, (to, side, op)) in plan.into_iter().enumerate() {
        let name = join(&join(&m.name, "extract"), &i.to_string());
        let weight =
            p.add(join(&name, "weight"), &[to, from, side, side], fan_in(from * side * side), Role::Decay)?;
        let bias = p.add(join(&name, "bias"), &[to], Init::Constant(0.0), Role::Plain)?;
        layers.push(([weight, bias], op));
        from = to;
    }
    Ok((Body::Convolutions(layers), [height, width]))
}

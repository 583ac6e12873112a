//! What samples are made of: pictures and recordings by class, those for training apart from those held out.

use crate::data::pack::Inputs;
use crate::data::pack::labels;
use crate::data::pack::speech::{Recordings, fit};
use crate::data::readers::read_idx;
use crate::error::{Error, Result};
use crate::rng::Rng;
use half::f16;

/// Items of ten classes, each with the same number of values, and where those of a class are.
#[derive(Clone)]
pub(crate) struct Pool<T> {
    pub(crate) values: Vec<T>,
    each: usize,
    classes: [Vec<usize>; 10],
}

impl<T> Pool<T> {
    pub(crate) fn new(values: Vec<T>, labels: &[u8]) -> Pool<T> {
        let each = values.len() / labels.len().max(1);
        let mut classes: [Vec<usize>; 10] = Default::default();
        for (k, &label) in labels.iter().enumerate() {
            classes[usize::from(label)].push(k);
        }
        Pool { values, each, classes }
    }
    /// One of `class`.
    pub(crate) fn draw(&self, rng: &mut Rng, class: u8) -> &[T] {
        let all = &self.classes[usize::from(class)];
        let k = all[rng.below(all.len() as u64) as usize];
        &self.values[k * self.each..][..self.each]
    }
}

/// Sources for training, and those held out.
#[derive(Clone)]
pub(crate) struct Halves<T> {
    pub(crate) train: Pool<T>,
    pub(crate) test: Pool<T>,
}

impl<T> Halves<T> {
    /// The half of sample `n`, of which those below `train` are for training.
    pub(crate) fn of(&self, n: u64, train: u64) -> &Pool<T> {
        if n < train { &self.train } else { &self.test }
    }
}

/// Pixels of a side of MNIST's pictures, and of Fashion-MNIST's.
pub(crate) const SIDE: usize = 28;

/// The pictures of `set` (mnist, fashion).
pub(crate) fn pictures(inputs: &Inputs, set: &str) -> Result<Halves<u8>> {
    let pool = |part: &str| {
        let file = |kind: &str| inputs.get(&format!("{set}/{part}-{kind}-ubyte.gz"));
        let (images, classes) = (file("images-idx3")?, file("labels-idx1")?);
        let pixels = read_idx(&images.path, &images.bytes)?;
        let read = read_idx(&classes.path, &classes.bytes)?.to_i32(&classes.path)?;
        let found = labels(&classes.path, &read, 10)?;
        if pixels.shape != [found.len(), SIDE, SIDE] || (0..10).any(|c| !found.contains(&c)) {
            let what = format!("pictures {:?} and {} labels", pixels.shape, found.len());
            return Err(Error::data(&images.path, None, what));
        }
        Ok(Pool::new(pixels.data, &found))
    };
    Ok(Halves { train: pool("train10k")?, test: pool("t10k")? })
}

/// Spoken digits, each cut to the same number of frames or filled up with the mean frame.
#[derive(Clone)]
pub(crate) struct Voices {
    pub(crate) recordings: Halves<f32>,
    pub(crate) width: usize,
    /// Of each coefficient over the frames for training. Numbers of f16, so that a stored mean is 0 in a batch.
    pub(crate) mean: Vec<f32>,
    pub(crate) std: Vec<f32>,
}

/// The recordings of `fsdd`, as `frames` frames each.
pub(crate) fn voices(inputs: &Inputs, frames: usize) -> Result<Voices> {
    let all = Recordings::read(inputs.get("fsdd/digits.npz")?)?;
    let (mean, std) = all.statistics();
    let mean: Vec<f32> = mean.into_iter().map(|m| f16::from_f32(m).to_f32()).collect();
    let n = all.train();
    let pool = |skip: usize, take: usize| {
        let fitted = all.iter().skip(skip).take(take).flat_map(|r| fit(r, frames, &mean)).collect();
        Pool::new(fitted, &all.labels[skip..skip + take])
    };
    let recordings = Halves { train: pool(0, n), test: pool(n, all.labels.len() - n) };
    Ok(Voices { recordings, width: all.width, mean, std })
}

//! What a loader draws from: samples of a packed set, windows of a token stream, or a type of your own.

use crate::data::convert::{Out, widen};
use crate::data::header::{Field, Kind, Split};
use crate::data::rtd::Rtd;
use crate::error::{Error, Result};
use crate::rng::Key;
use crate::shape::Spec;
use std::cell::RefCell;
use std::sync::Arc;

/// One named part of a sample, as batches give it.
#[derive(Clone, PartialEq, Debug)]
pub struct Column {
    /// Name in the batch.
    pub name: String,
    /// Element type (f32 or i32) and extents of one sample; a batch has one more axis in front.
    pub spec: Spec,
}

/// Which pass of which run a sample is read for: augmentation and window offsets may depend on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pass {
    /// Seed of the run.
    pub seed: u64,
    /// Epoch.
    pub epoch: u64,
}

/// A set of samples that can be read in any order from any thread. `read` must be a pure function of its
/// arguments: batches may be made ahead, again, or on another machine.
pub trait Dataset: Send + Sync {
    /// Samples of an epoch.
    fn len(&self) -> u64;
    /// True when there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// What each sample holds, in order. By convention the input of a model comes first.
    fn fields(&self) -> &[Column];
    /// Reads sample `index` into `out`, one entry a field.
    fn read(&self, pass: Pass, index: u64, out: &mut [Out<'_>]) -> Result<()>;
    /// Identity of the contents, kept in snapshots: a resume on other data is an error.
    fn hash(&self) -> [u8; 32];
    /// Asked at the start of each epoch: has somebody changed the data?
    fn still_intact(&self) -> Result<()> {
        Ok(())
    }
}

macro_rules! forward {
    ($($holder:ty),*) => { $(
        impl<D: Dataset + ?Sized> Dataset for $holder {
            fn len(&self) -> u64 {
                (**self).len()
            }
            fn fields(&self) -> &[Column] {
                (**self).fields()
            }
            fn read(&self, pass: Pass, index: u64, out: &mut [Out<'_>]) -> Result<()> {
                (**self).read(pass, index, out)
            }
            fn hash(&self) -> [u8; 32] {
                (**self).hash()
            }
            fn still_intact(&self) -> Result<()> {
                (**self).still_intact()
            }
        }
    )* };
}
forward!(Arc<D>, Box<D>);

/// Lends a buffer that each thread keeps, for `data.map=read`.
fn with_scratch<R>(f: impl FnOnce(&mut Vec<u8>) -> R) -> R {
    thread_local!(static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) });
    SCRATCH.with_borrow_mut(f)
}

/// The fixed-size samples of one split of a packed set. What a sample lacks (see [`Rtd::presence`]) is given as zeros, whatever
/// is stored there.
#[derive(Clone, Debug)]
pub struct Samples {
    set: Arc<Rtd>,
    split: Split,
    fields: Vec<Field>,
    /// For each field the one that says which samples have it.
    presence: Vec<Option<Field>>,
    columns: Vec<Column>,
}

impl Samples {
    /// Every field of `split` (`train`, `val`, `test`, `all`).
    pub fn new(set: Arc<Rtd>, split: &str) -> Result<Samples> {
        let names: Vec<String> = set.header().fields.iter().map(|f| f.name.clone()).collect();
        Samples::select(set, split, &names)
    }
    /// The named fields, in that order.
    pub fn select<S: AsRef<str>>(set: Arc<Rtd>, split: &str, names: &[S]) -> Result<Samples> {
        let split = set.split(split)?;
        let fields = names.iter().map(|n| set.field(n.as_ref()).cloned()).collect::<Result<Vec<_>>>()?;
        if fields.iter().any(|f| f.kind == Kind::Tokens) {
            let what = "is a token stream, from which windows are drawn, not samples (use Windows)";
            return Err(Error::data(set.path(), None, what));
        }
        let column =
            |f: &Field| Ok(Column { name: f.name.clone(), spec: Spec::new(f.batch_dtype(), &f.dims())? });
        let columns = fields.iter().map(column).collect::<Result<_>>()?;
        let presence = fields.iter().map(|f| Ok(set.presence(&f.name)?.cloned())).collect::<Result<_>>()?;
        Ok(Samples { set, split, fields, presence, columns })
    }
    /// The packed set.
    pub fn set(&self) -> &Arc<Rtd> {
        &self.set
    }
}

impl Dataset for Samples {
    fn len(&self) -> u64 {
        self.split.count
    }
    fn fields(&self) -> &[Column] {
        &self.columns
    }
    fn read(&self, _: Pass, index: u64, out: &mut [Out<'_>]) -> Result<()> {
        let sample = self.split.start + index;
        with_scratch(|scratch| {
            for ((field, presence), out) in self.fields.iter().zip(&self.presence).zip(out) {
                if let Some(presence) = presence {
                    let mut there = [0];
                    let stored = self.set.samples(presence, sample, 1, scratch)?;
                    widen(self.set.path(), presence, sample, stored, Out::I32(&mut there))?;
                    if there == [0] {
                        out.reborrow().clear();
                        continue;
                    }
                }
                let stored = self.set.samples(field, sample, 1, scratch)?;
                widen(self.set.path(), field, sample * field.elements(), stored, out.reborrow())?;
            }
            Ok(())
        })
    }
    fn hash(&self) -> [u8; 32] {
        self.set.hash()
    }
    fn still_intact(&self) -> Result<()> {
        self.set.still_intact()
    }
}

/// Target that a loss must skip, as PyTorch's `ignore_index`: used where windows of an evaluation overlap.
pub const IGNORE: i32 = -100;

/// Windows of `context` tokens of one split of a token stream: `input`, and `target`, the same one token
/// later.
///
/// Training windows lie side by side at stride `context`, and where the first begins is drawn anew for each
/// epoch (0..context), so that over epochs a token is met at every position; up to `2·context − 2` tokens at
/// the two ends of the split are left out of an epoch. Evaluation windows begin at the split's start and
/// cover it exactly: the last one is moved back to end with the split, and targets that the window before had
/// already are [`IGNORE`].
#[derive(Clone, Debug)]
pub struct Windows {
    set: Arc<Rtd>,
    split: Split,
    field: Field,
    context: u64,
    exact: bool,
    columns: Vec<Column>,
}

impl Windows {
    /// Windows for training.
    pub fn training(set: Arc<Rtd>, split: &str, context: usize) -> Result<Windows> {
        Windows::new(set, split, context, false)
    }
    /// Windows for evaluation, to be read in order: every token of the split but its first is a target
    /// exactly once.
    pub fn evaluation(set: Arc<Rtd>, split: &str, context: usize) -> Result<Windows> {
        Windows::new(set, split, context, true)
    }

    fn new(set: Arc<Rtd>, split: &str, context: usize, exact: bool) -> Result<Windows> {
        let split = set.split(split)?;
        let field = set.header().fields[0].clone();
        if field.kind != Kind::Tokens {
            let what = format!("`{}` holds samples, not a token stream (use Samples)", field.name);
            return Err(Error::data(set.path(), None, what));
        }
        if context == 0 || split.count <= context as u64 {
            let what = format!(
                "is {context}, but a window takes context + 1 tokens and split `{}` of {} has {}",
                split.name,
                set.path().display(),
                split.count
            );
            return Err(Error::config("model.context", what));
        }
        let spec = Spec::new(crate::shape::DType::I32, &[context])?;
        let column = |name: &str| Column { name: name.into(), spec };
        let columns = vec![column("input"), column("target")];
        Ok(Windows { set, split, field, context: context as u64, exact, columns })
    }

    /// The packed set.
    pub fn set(&self) -> &Arc<Rtd> {
        &self.set
    }
    /// Targets of an epoch: what a mean loss over an evaluation is a mean of.
    pub fn targets(&self) -> u64 {
        if self.exact { self.split.count - 1 } else { self.len() * self.context }
    }
    /// First token of window `index`, counted from the start of the split.
    fn start(&self, pass: Pass, index: u64) -> u64 {
        let usable = self.split.count - 1;
        if self.exact {
            return (index * self.context).min(usable - self.context);
        }
        let choices = (usable - self.len() * self.context + 1).min(self.context);
        Key::named(pass.seed, "data.offset").block(pass.epoch)[0] as u64 % choices + index * self.context
    }
}

impl Dataset for Windows {
    fn len(&self) -> u64 {
        let usable = self.split.count - 1;
        if self.exact {
            return usable.div_ceil(self.context);
        }
        // Room for any offset, so that each epoch has the same length.
        ((usable - (self.context - 1).min(usable)) / self.context).max(1)
    }
    fn fields(&self) -> &[Column] {
        &self.columns
    }
    fn read(&self, pass: Pass, index: u64, out: &mut [Out<'_>]) -> Result<()> {
        let start = self.start(pass, index);
        let first = self.split.start + start;
        let size = self.field.dtype.size();
        with_scratch(|scratch| {
            let stored = self.set.samples(&self.field, first, self.context + 1, scratch)?;
            let path = self.set.path();
            let [input, target] = out else {
                return Err(Error::shape("batch", "windows fill two fields, input and target"));
            };
            widen(path, &self.field, first, &stored[..stored.len() - size], input.reborrow())?;
            widen(path, &self.field, first + 1, &stored[size..], target.reborrow())
        })?;
        if let (true, [_, Out::I32(target)]) = (self.exact, out) {
            let again = index * self.context - start;
            target[..again as usize].fill(IGNORE);
        }
        Ok(())
    }
    fn hash(&self) -> [u8; 32] {
        self.set.hash()
    }
    fn still_intact(&self) -> Result<()> {
        self.set.still_intact()
    }
}

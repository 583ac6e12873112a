//! Snapshots: `step-N/` with `model.safetensors`, `optimizer.safetensors` (both open in Python) and `state.bin`, whole or
//! not at all.
//!
//! Saving writes into `step-N.tmp/`, syncs every file and the folder, renames the folder, and syncs its parent; so after a
//! crash or power loss there is the old snapshot, the new one, or both, never a part under the final name. Loading
//! recomputes every checksum; a damaged snapshot is passed over, with a notice, for the one before.
//!
//! Where a codec makes gradients smaller, `codec.safetensors` has what each rank has not sent yet, as `rank/R/error/NAME` and the
//! like; where ranks step apart, `ranks.safetensors` has what the optimizer of each remembers.

pub use super::state::{Kept, State};
use super::state::{decode, encode};
use crate::error::{Error, Result};
use crate::optim::Optimizer;
use crate::tape::Params;
use crate::tensor::Tensor;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// What ranks have not sent yet, where a codec makes gradients smaller.
const CODEC: &str = "codec.safetensors";
/// The file of what each rank keeps.
fn file(kept: &Kept) -> &'static str {
    if super::asynchronous::belongs(kept) { super::asynchronous::FILE } else { CODEC }
}

const FILES: [&str; 2] = ["model.safetensors", "optimizer.safetensors"];

/// Name of the folder of step `n`.
pub fn name(n: u64) -> String {
    format!("step-{n}")
}

/// Saves a snapshot into `dir/step-N`; `kept` is what ranks have not sent yet, where `state` says that there is such. On any error
/// the folder of the snapshot is as it was before.
pub fn save(
    dir: &Path,
    params: &Params,
    optimizer: &mut dyn Optimizer,
    state: &State,
    kept: &[(String, Vec<f32>)],
) -> Result<PathBuf> {
    let path = dir.join(name(state.step));
    let tmp = dir.join(format!("{}.tmp", name(state.step)));
    let result = write_all(&tmp, params, optimizer, state, kept).and_then(|()| {
        if path.exists() {
            // Only a damaged one can be here: a whole one would have been taken up, and the run be past it.
            fs::remove_dir_all(&path).map_err(|e| Error::io(&path, e))?;
        }
        fs::rename(&tmp, &path).map_err(|e| Error::io(&path, e))?;
        sync(dir)
    });
    if result.is_err() {
        // The first error is the one that matters.
        let _ = fs::remove_dir_all(&tmp);
    }
    result.map(|()| path)
}

fn write_all(
    tmp: &Path,
    params: &Params,
    optimizer: &mut dyn Optimizer,
    state: &State,
    kept: &[(String, Vec<f32>)],
) -> Result<()> {
    if tmp.exists() {
        fs::remove_dir_all(tmp).map_err(|e| Error::io(tmp, e))?;
    }
    fs::create_dir(tmp).map_err(|e| Error::io(tmp, e))?;
    // What is used goes into the model's file; where that is a mean, the weights in training stand beside the state.
    let averaged = optimizer.averaged(params)?;
    let used = averaged.as_ref().unwrap_or(params);
    let weights: Vec<(String, Tensor)> =
        used.all().map(|s| (used.info(s).name.clone(), used.get(s))).collect();
    let state_arrays = optimizer.state().into_iter().map(|(n, t)| (n, t.clone()));
    let trained = (0..params.segments().len()).filter(|_| averaged.is_some());
    let trained = trained.map(|i| (in_training(i), params.segment(i).clone()));
    let arrays: Vec<(String, Tensor)> = state_arrays.chain(trained).collect();
    let (optimizer_steps, numbers) = (optimizer.steps(), optimizer.numbers().to_vec());
    let mut state = State { optimizer_steps, numbers, ..state.clone() };
    for ((file, tensors), sum) in FILES.iter().zip([&weights, &arrays]).zip(&mut state.sums) {
        let bytes = to_safetensors(tensors, &tmp.join(file))?;
        *sum = Sha256::digest(&bytes).into();
        write_synced(&tmp.join(file), &bytes)?;
    }
    if let Some(codec) = &mut state.codec {
        let file = tmp.join(file(codec));
        let bytes = floats_to_safetensors(kept, &file)?;
        codec.sum = Sha256::digest(&bytes).into();
        write_synced(&file, &bytes)?;
    }
    write_synced(&tmp.join("state.bin"), &encode(&state)?)?;
    sync(tmp)
}

/// Name of the weights in training of segment `i`, where they are not those that are used.
fn in_training(i: usize) -> String {
    format!("w.{i}")
}

fn to_safetensors(tensors: &[(String, Tensor)], path: &Path) -> Result<Vec<u8>> {
    let bad = |e: safetensors::SafeTensorError| Error::snapshot(path, e.to_string());
    let host: Vec<Tensor> = tensors.iter().map(|(_, t)| t.to_host()).collect::<Result<_>>()?;
    let mut views = Vec::new();
    for ((name, _), t) in tensors.iter().zip(&host) {
        let dtype = match t.dtype() {
            crate::shape::DType::F64 => Dtype::F64,
            _ => Dtype::F32,
        };
        views.push((name.as_str(), TensorView::new(dtype, t.dims().to_vec(), t.as_bytes()?).map_err(bad)?));
    }
    safetensors::serialize(views, None).map_err(bad)
}

fn floats_to_safetensors(arrays: &[(String, Vec<f32>)], path: &Path) -> Result<Vec<u8>> {
    let bad = |e: safetensors::SafeTensorError| Error::snapshot(path, e.to_string());
    let mut views = Vec::new();
    for (name, x) in arrays {
        let view = TensorView::new(Dtype::F32, vec![x.len()], bytemuck::cast_slice(x)).map_err(bad)?;
        views.push((name.as_str(), view));
    }
    safetensors::serialize(views, None).map_err(bad)
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || -> std::io::Result<()> {
        let mut f = File::create(path)?;
        f.write_all(bytes)?;
        f.sync_all()
    };
    write().map_err(|e| Error::io(path, e))
}

fn sync(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(|e| Error::io(dir, e))
}

/// A snapshot whose checksums were verified.
pub struct Snapshot {
    /// Its folder.
    pub path: PathBuf,
    /// What is no tensor.
    pub state: State,
    pub(super) files: [Vec<u8>; 2],
    /// What ranks have not sent yet; empty where the state tells of none.
    pub(super) codec: Vec<u8>,
}

/// What [`Snapshot::lend_params`] left over, by name.
#[derive(Default)]
pub struct Left {
    /// Weights of the model that the snapshot has not.
    pub fresh: Vec<String>,
    /// Weights of the snapshot that the model has not.
    pub unused: Vec<String>,
}

/// What [`load_latest`] found.
pub struct Found {
    /// The newest complete snapshot.
    pub snapshot: Option<Snapshot>,
    /// Damaged ones that were passed over, leftovers that were swept.
    pub notices: Vec<String>,
}

/// Steps of the snapshots in `dir`, newest first.
pub fn steps(dir: &Path) -> Result<Vec<u64>> {
    let entries = fs::read_dir(dir).map_err(|e| Error::io(dir, e))?;
    let names = entries.flatten().filter_map(|e| e.file_name().into_string().ok());
    let mut steps: Vec<u64> = names.filter_map(|n| n.strip_prefix("step-")?.parse().ok()).collect();
    steps.sort_unstable_by(|a, b| b.cmp(a));
    Ok(steps)
}

/// Loads the newest snapshot in `dir` that is complete. When there are snapshots and every one is damaged, that is an error.
pub fn load_latest(dir: &Path) -> Result<Found> {
    let mut notices = Vec::new();
    let mut first_error = None;
    for step in steps(dir)? {
        match Snapshot::load(&dir.join(name(step))) {
            Ok(snapshot) => return Ok(Found { snapshot: Some(snapshot), notices }),
            Err(e @ Error::OutOfMemory { .. }) => return Err(e),
            Err(e) => {
                notices.push(format!("{e}; trying the snapshot before it"));
                first_error.get_or_insert(e);
            }
        }
    }
    match first_error {
        None => Ok(Found { snapshot: None, notices }),
        Some(e) => Err(Error::snapshot(
            dir,
            format!("no snapshot is whole: {e}; restore one from a copy, or start a new run"),
        )),
    }
}

/// Removes leftovers of saves that were killed. Called by whoever holds the run's lock.
pub fn sweep(dir: &Path) -> Result<()> {
    for e in fs::read_dir(dir).map_err(|e| Error::io(dir, e))?.flatten() {
        let name = e.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("step-") && name.ends_with(".tmp") {
            fs::remove_dir_all(e.path()).map_err(|err| Error::io(e.path(), err))?;
        }
    }
    Ok(())
}

/// Removes snapshots older than that of step `current`, but for the newest `keep` (`current` counts) and `best`. Those of
/// later steps are left alone: a run that went back behind them found them damaged, and will replace them.
pub fn prune(dir: &Path, current: u64, keep: usize, best: Option<u64>) -> Result<()> {
    let older = steps(dir)?.into_iter().filter(|s| *s < current);
    for step in older.skip(keep.max(1) - 1).filter(|s| Some(*s) != best) {
        let path = dir.join(name(step));
        fs::remove_dir_all(&path).map_err(|e| Error::io(&path, e))?;
    }
    Ok(())
}

impl Snapshot {
    /// Loads a snapshot's folder and verifies all of it.
    pub fn load(path: &Path) -> Result<Snapshot> {
        let read = |file: &str| {
            let file = path.join(file);
            crate::data::readers::read_file(&file).map_err(|e| match e {
                // Says nothing about the snapshot.
                Error::OutOfMemory { .. } => e,
                e => Error::snapshot(path, format!("cannot be read: {e}")),
            })
        };
        let state = decode(&read("state.bin")?).map_err(|e| Error::snapshot(path.join("state.bin"), e))?;
        let files = [read(FILES[0])?, read(FILES[1])?];
        for ((file, bytes), sum) in FILES.iter().zip(&files).zip(&state.sums) {
            if Sha256::digest(bytes)[..] != *sum {
                return Err(Error::snapshot(path.join(file), "is damaged (its checksum differs)"));
            }
        }
        let codec = state.codec.as_ref().map_or(Ok(vec![]), |kept| read(file(kept)))?;
        if let Some(kept) = state.codec.as_ref().filter(|kept| Sha256::digest(&codec)[..] != kept.sum) {
            return Err(Error::snapshot(path.join(file(kept)), "is damaged (its checksum differs)"));
        }
        Ok(Snapshot { path: path.into(), state, files, codec })
    }

    /// What `rank` keeps, by the names of its codec or mode.
    pub(super) fn kept_by(&self, rank: usize) -> Result<Vec<(String, Vec<f32>)>> {
        let path = self.path.join(self.state.codec.as_ref().map_or(CODEC, file));
        let (tensors, prefix) = (parse(&self.codec, &path)?, format!("rank/{rank}/"));
        let mut all = Vec::new();
        for (name, view) in tensors.iter() {
            if let Some(name) = name.strip_prefix(&prefix) {
                let wrong =
                    || Error::snapshot(&path, format!("`{name}` of rank {rank} is {:?}", view.dtype()));
                let x =
                    (view.dtype() == Dtype::F32).then(|| view.data().as_chunks::<4>().0).ok_or_else(wrong)?;
                all.push((name.to_string(), x.iter().map(|&b| f32::from_le_bytes(b)).collect()));
            }
        }
        all.sort_by(|a: &(String, _), b| a.0.cmp(&b.0));
        Ok(all)
    }

    /// Puts the weights into `params`. A model of another form is an error that names the first slot that differs.
    pub fn restore_params(&self, params: &mut Params) -> Result<()> {
        let path = self.path.join(FILES[0]);
        let tensors = parse(&self.files[0], &path)?;
        for slot in params.all() {
            let info = params.info(slot);
            let view = tensors.tensor(&info.name).map_err(|_| {
                let what =
                    format!("has no weights `{}`; the run's config.toml describes another model", info.name);
                Error::snapshot(&path, what)
            })?;
            let t = tensor(&view, params, &path, &info.name, info.shape.dims())?;
            params.set(slot, &t)?;
        }
        if tensors.len() != params.slots().len() {
            let known = |n: &&&str| params.find(n).is_none();
            let names = tensors.names();
            let extra = names.iter().find(known).map_or("", |n| n);
            return Err(Error::snapshot(
                &path,
                format!("holds weights `{extra}` that the model does not have"),
            ));
        }
        Ok(())
    }

    /// Puts those weights into `params` that it has by name; tells which it has not, and which were not wanted. Errors if a
    /// weight has another shape, or if `params` has none of them.
    pub fn lend_params(&self, params: &mut Params) -> Result<Left> {
        let path = self.path.join(FILES[0]);
        let tensors = parse(&self.files[0], &path)?;
        let mut left = Left::default();
        for slot in params.all() {
            let (name, shape) = (params.info(slot).name.clone(), params.info(slot).shape);
            match tensors.tensor(&name) {
                Ok(view) => params.set(slot, &tensor(&view, params, &path, &name, shape.dims())?)?,
                Err(_) => left.fresh.push(name),
            }
        }
        left.unused =
            tensors.names().iter().filter(|n| params.find(n).is_none()).map(|n| n.to_string()).collect();
        left.unused.sort();
        if left.fresh.len() == params.slots().len() {
            return Err(Error::snapshot(&path, "has no weights of the names that this model has"));
        }
        Ok(left)
    }

    /// Puts weights and optimizer state back.
    pub fn restore(&self, params: &mut Params, optimizer: &mut dyn Optimizer) -> Result<()> {
        self.restore_params(params)?;
        if self.state.optimizer != optimizer.name() {
            let what = format!(
                "was made with optimizer.name = \"{}\", but the configuration says \"{}\"; set it back, or start a new run",
                self.state.optimizer,
                optimizer.name()
            );
            return Err(Error::snapshot(&self.path, what));
        }
        let path = self.path.join(FILES[1]);
        let tensors = parse(&self.files[1], &path)?;
        let (arrays, steps) = optimizer.state_mut();
        for (name, array) in arrays {
            let missing = |_| Error::snapshot(&path, format!("has no state `{name}` of the optimizer"));
            let view = tensors.tensor(&name).map_err(missing)?;
            *array = tensor(&view, params, &path, &name, array.dims())?;
        }
        *steps = self.state.optimizer_steps;
        let numbers = optimizer.numbers();
        if numbers.len() != self.state.numbers.len() {
            let what =
                format!("has {} numbers of the optimizer, not {}", self.state.numbers.len(), numbers.len());
            return Err(Error::snapshot(&self.path, what));
        }
        numbers.copy_from_slice(&self.state.numbers);
        if optimizer.averaged(params)?.is_some() {
            for i in 0..params.segments().len() {
                let (name, dims) = (in_training(i), params.segment(i).dims().to_vec());
                let missing = |_| Error::snapshot(&path, format!("has no weights in training `{name}`"));
                let t = tensor(&tensors.tensor(&name).map_err(missing)?, params, &path, &name, &dims)?;
                params.segment_mut(i).copy_from(0, &t)?;
            }
        }
        Ok(())
    }
}

fn parse<'b>(bytes: &'b [u8], path: &Path) -> Result<SafeTensors<'b>> {
    SafeTensors::deserialize(bytes).map_err(|e| Error::snapshot(path, format!("is damaged: {e}")))
}

/// A tensor of the type of `params` from a view of a file, which must have extents `dims`.
fn tensor(view: &TensorView<'_>, params: &Params, path: &Path, name: &str, dims: &[usize]) -> Result<Tensor> {
    let spec = crate::shape::Spec::new(params.dtype(), dims)?;
    let same_type = matches!((view.dtype(), spec.dtype.size()), (Dtype::F32, 4) | (Dtype::F64, 8));
    if view.shape() != dims || !same_type {
        let what =
            format!("`{name}` is {:?}{:?}, but the configuration wants {spec}", view.dtype(), view.shape());
        return Err(Error::snapshot(path, what));
    }
    let mut t = Tensor::empty(params.device(), spec)?;
    t.write_bytes(0, view.data())?;
    Ok(t)
}

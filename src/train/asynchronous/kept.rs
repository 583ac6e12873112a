//! What snapshots hold of ranks that step apart: what the optimizer of each remembers, and the outer momentum. Weights are
//! common when a snapshot is made, and rank 0's optimizer is where that of a run of one rank is.

use super::super::journal::collect;
use super::super::snapshot::{Kept, Snapshot};
use super::super::{Config, Team};
use super::Local;
use crate::error::{Error, Result};
use crate::optim::Optimizer;
use crate::tensor::Tensor;

/// Its file.
pub(in super::super) const FILE: &str = "ranks.safetensors";
/// What the names of an optimizer's arrays begin with.
const INNER: &str = "optimizer/";
/// Its numbers, each as four of 16 bits, which f32 holds exactly.
const NUMBERS: &str = "numbers";
/// What the names of the outer momentum begin with.
const OUTER: &str = "outer/momentum.";

type Arrays = Vec<(String, Vec<f32>)>;

/// True where what is kept is not a codec's, but that of ranks that step apart.
pub(in super::super) fn belongs(kept: &Kept) -> bool {
    ["local_sgd", "diloco"].contains(&kept.name.as_str())
}

impl Local {
    /// What all ranks keep, on the rank that leads; all call it.
    pub(in super::super) fn kept(
        &self,
        team: &Team,
        optimizer: &mut dyn Optimizer,
    ) -> Result<Option<(Kept, Arrays)>> {
        let mine = if team.leads() { vec![] } else { inner(optimizer)? };
        let (me, size, bytes) = (team.rank(), team.size(), crate::wire::encode(&mine)?);
        let others = team.patiently(move |c| collect(c, me, size, bytes))?;
        if !team.leads() {
            return Ok(None);
        }
        let mut all: Arrays = Vec::new();
        for (i, v) in self.momentum.iter().enumerate() {
            all.push((format!("rank/0/{OUTER}{i}"), v.clone()));
        }
        for (bytes, rank) in others.iter().zip(1..) {
            let one: Arrays = crate::wire::decode(bytes, bytes.len() as u64)
                .map_err(|e| Error::RanksDisagree(format!("what rank {rank} keeps {e}")))?;
            all.extend(one.into_iter().map(|(name, x)| (format!("rank/{rank}/{name}"), x)));
        }
        let kept = Kept::new(self.mode.name(), size as u64);
        Ok(Some((kept, all)))
    }

    /// Takes up what the ranks of a snapshot kept, if they kept anything. A wish to begin without it is granted once. Gives what
    /// people should know.
    ///
    /// # Errors
    /// Another number of ranks, by key.
    pub(in super::super) fn restore(
        &mut self,
        config: &mut Config,
        team: &Team,
        optimizer: &mut dyn Optimizer,
        snapshot: Option<&Snapshot>,
    ) -> Result<Option<String>> {
        let reset = std::mem::take(&mut config.asynchronous.reset);
        let kept = snapshot.and_then(|s| Some((s, s.state.codec.as_ref().filter(|k| belongs(k))?)));
        let Some((snapshot, kept)) = kept else { return Ok(None) };
        for (name, x) in snapshot.kept_by(0)? {
            let at = name.strip_prefix(OUTER).and_then(|i| self.momentum.get_mut(i.parse::<usize>().ok()?));
            let at = at.filter(|v| v.len() == x.len()).ok_or_else(|| alien(snapshot, &name))?;
            at.copy_from_slice(&x);
        }
        if reset {
            let what = "asynchronous.reset: every rank goes on with what the optimizer of rank 0 remembers";
            return Ok(Some(what.into()));
        }
        if kept.ranks != team.size() as u64 {
            let what = format!(
                "is false, but {} holds what the optimizer of each of {} ranks remembers, and {} would go on; start {}, or set \
                 asynchronous.reset = true, and all go on with that of rank 0",
                snapshot.path.display(),
                kept.ranks,
                team.size(),
                kept.ranks
            );
            return Err(Error::config("asynchronous.reset", what));
        }
        if team.leads() { Ok(None) } else { take_up(snapshot, team.rank(), optimizer).map(|()| None) }
    }
}

/// What an optimizer remembers beside its number of steps, which is that of all.
fn inner(optimizer: &mut dyn Optimizer) -> Result<Arrays> {
    let mut all: Arrays = Vec::new();
    for (name, t) in optimizer.state() {
        all.push((format!("{INNER}{name}"), t.to_host()?.as_slice::<f32>()?.to_vec()));
    }
    let halves = |x: &f64| {
        let bits = x.to_bits();
        [48, 32, 16, 0].map(|at| (bits >> at & 0xffff) as f32)
    };
    let numbers: Vec<f32> = optimizer.numbers().iter().flat_map(halves).collect();
    if !numbers.is_empty() {
        all.push((format!("{INNER}{NUMBERS}"), numbers));
    }
    Ok(all)
}

fn take_up(snapshot: &Snapshot, rank: usize, optimizer: &mut dyn Optimizer) -> Result<()> {
    for (name, x) in snapshot.kept_by(rank)? {
        let wrong = || alien(snapshot, &format!("{name} of rank {rank}"));
        let name = name.strip_prefix(INNER).ok_or_else(wrong)?;
        if name == NUMBERS {
            let (values, _) = x.as_chunks::<4>();
            let own = optimizer.numbers();
            if own.len() != values.len() {
                return Err(wrong());
            }
            let whole = |v: &[f32; 4]| f64::from_bits(v.iter().fold(0, |bits, &x| bits << 16 | x as u64));
            own.iter_mut().zip(values).for_each(|(x, v)| *x = whole(v));
            continue;
        }
        let (arrays, _) = optimizer.state_mut();
        let (_, array) = arrays.into_iter().find(|(n, _)| n == name).ok_or_else(wrong)?;
        if array.len() != x.len() {
            return Err(wrong());
        }
        *array = Tensor::from_slice(array.device(), &x, array.dims())?;
    }
    Ok(())
}

fn alien(snapshot: &Snapshot, name: &str) -> Error {
    Error::snapshot(snapshot.path.join(FILE), format!("holds `{name}`, which this run has no place for"))
}

/// What people should know where the snapshot is of ranks that stepped apart, and those that go on do not.
pub(super) fn left_behind(config: &mut Config, snapshot: Option<&Snapshot>) -> Option<String> {
    config.asynchronous.reset = false;
    let kept = snapshot?.state.codec.as_ref().filter(|k| belongs(k))?;
    let (ranks, mode) = (kept.ranks, &kept.name);
    Some(format!(
        "asynchronous.mode: what the optimizers of {ranks} ranks remember of {mode} is left behind but for rank 0's"
    ))
}

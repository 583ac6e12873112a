//! The codec of a run: gradients that ranks sum approximately, what each rank has not sent yet, and how snapshots keep that.

use super::config::CodecConfig;
use super::journal::collect;
use super::snapshot::{Kept, Snapshot};
use super::{Config, Team};
use crate::comm::Communicator;
use crate::comm::codec::{self, Codec, Entry, Param};
use crate::error::{Error, Result};
use crate::tape::{Params, Slot};
use crate::tensor::Tensor;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A codec at work, and the parameters of one bucket.
#[derive(Clone)]
pub(super) struct Coding {
    codec: Arc<Mutex<Box<dyn Codec>>>,
    params: Arc<[Param]>,
}

impl Coding {
    /// The bucket's gradients of this rank become nearly their sum over ranks.
    pub(super) fn all_reduce(&self, world: &mut Communicator, x: &mut Tensor) -> Result<()> {
        lock(&self.codec).all_reduce_of(world, &self.params, x)
    }
}

fn lock(codec: &Mutex<Box<dyn Codec>>) -> MutexGuard<'_, Box<dyn Codec>> {
    codec.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The codec of a run.
pub(super) struct Coder {
    name: &'static str,
    codec: Arc<Mutex<Box<dyn Codec>>>,
    buckets: Vec<Arc<[Param]>>,
}

impl Coder {
    fn new(name: &'static str, codec: Box<dyn Codec>, params: &Params, buckets: &[Vec<Slot>]) -> Coder {
        let of = |slots: &Vec<Slot>| {
            let mut at = 0;
            let one = |slot: &Slot| {
                let info = params.info(*slot);
                let param = Param { name: info.name.clone(), at, dims: info.shape.dims().to_vec() };
                at = param.range().end;
                param
            };
            slots.iter().map(one).collect()
        };
        Coder { name, codec: Arc::new(Mutex::new(codec)), buckets: buckets.iter().map(of).collect() }
    }

    /// For bucket `i`.
    pub(super) fn of(&self, i: usize) -> Coding {
        Coding { codec: self.codec.clone(), params: self.buckets[i].clone() }
    }
}

/// What one rank has to keep.
type Arrays = Vec<(String, Vec<f32>)>;

impl Team {
    /// This team with codecs of another crate, which `codec.name` finds before ringtape's own.
    pub fn with_codecs(mut self, codecs: &[&'static Entry]) -> Team {
        self.codecs = codecs.to_vec();
        self
    }

    /// The codec that `config` names, new; None where there is none.
    pub(super) fn codec(&self, config: &CodecConfig) -> Result<Option<(&'static str, Box<dyn Codec>)>> {
        if config.is_none() {
            return Ok(None);
        }
        let entry = codec::find(&config.name, &self.codecs)?;
        Ok(Some((entry.name, entry.build_with(&config.attrs())?)))
    }

    /// Has gradients go by the codec of `config`, if it names one and there are ranks to send to, and takes up what the codec
    /// of the snapshot kept. A wish to begin without that is granted once. Gives what people should know.
    pub(super) fn encode(
        &mut self,
        config: &mut Config,
        params: &Params,
        snapshot: Option<&Snapshot>,
    ) -> Result<Option<String>> {
        let reset = std::mem::take(&mut config.codec.reset);
        let built = self.codec(&config.codec)?.filter(|_| self.size() > 1);
        let kept = snapshot.and_then(|s| Some((s, s.state.codec.as_ref()?)));
        if let (Some((snapshot, kept)), false) = (kept, reset) {
            self.expect_like(kept, snapshot, config, built.as_ref().map(|(name, _)| *name))?;
        }
        let Some((name, codec)) = built else {
            let idle = !config.codec.is_none();
            let what = || {
                format!("codec.name = \"{}\": one rank has nothing to send, so it is off", config.codec.name)
            };
            return Ok(idle.then(what));
        };
        let rank = self.rank();
        let Some(sums) = &mut self.sums else { return Ok(None) };
        let coder = Coder::new(name, codec, params, &sums.slots());
        let mut notice = None;
        match kept {
            Some((_, kept)) if reset => {
                notice = Some(format!("codec.reset: what `{}` had not sent yet is left behind", kept.name));
            }
            Some((snapshot, _)) => {
                let all: Vec<Param> = coder.buckets.iter().flat_map(|b| b.iter().cloned()).collect();
                lock(&coder.codec).restore(&all, snapshot.kept_by(rank)?)?;
            }
            None => {}
        }
        sums.coder = Some(coder);
        Ok(notice)
    }

    /// Error unless ranks and codec are those of the snapshot: each rank has its own of what was not sent.
    fn expect_like(&self, kept: &Kept, at: &Snapshot, config: &Config, codec: Option<&str>) -> Result<()> {
        let (path, name, ranks) = (at.path.display(), &kept.name, kept.ranks);
        let leave = "or codec.reset = true to leave it behind";
        if config.codec.name != *name {
            let what = format!(
                "is {}, but {path} holds what `{name}` has not sent yet; set it back to {name}, {leave}",
                config.codec.name
            );
            return Err(Error::config("codec.name", what));
        }
        if codec.is_none() || ranks != self.size() as u64 {
            let what = format!(
                "is false, but {path} holds what each of {ranks} ranks has not sent yet, and {} would go on; start {ranks}, \
                 {leave}",
                self.size()
            );
            return Err(Error::config("codec.reset", what));
        }
        Ok(())
    }

    /// Step `step` (from 0) begins.
    pub(super) fn begin(&self, step: u64) {
        if let Some(coder) = self.sums.as_ref().and_then(|s| s.coder.as_ref()) {
            lock(&coder.codec).begin(step);
        }
    }

    /// What the codecs of all ranks keep, on the rank that leads; all call it. None where there is nothing to keep.
    pub(super) fn kept(&self) -> Result<Option<(Kept, Arrays)>> {
        let Some(coder) = self.sums.as_ref().and_then(|s| s.coder.as_ref()) else { return Ok(None) };
        let mine = lock(&coder.codec).state()?;
        let (me, size, bytes) = (self.rank(), self.size(), crate::wire::encode(&mine)?);
        let others = self.patiently(move |c| collect(c, me, size, bytes))?;
        if !self.leads() {
            return Ok(None);
        }
        let mut all = named(0, mine);
        for (bytes, rank) in others.iter().zip(1..) {
            let one: Arrays = crate::wire::decode(bytes, bytes.len() as u64)
                .map_err(|e| Error::RanksDisagree(format!("what rank {rank} keeps {e}")))?;
            all.extend(named(rank, one));
        }
        let kept = Kept { name: coder.name.into(), ranks: size as u64, sum: [0; 32] };
        Ok((!all.is_empty()).then_some((kept, all)))
    }
}

/// Names in the file of a snapshot.
fn named(rank: usize, arrays: Arrays) -> Arrays {
    arrays.into_iter().map(|(name, x)| (format!("rank/{rank}/{name}"), x)).collect()
}

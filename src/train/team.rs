//! [`Team`]: the ranks that train one model together, and which of them this is. Alone it is one rank, and asks nobody.
//!
//! Every rank has all weights and a contiguous share of each batch. What a step needs of the whole batch is agreed here: the
//! gradient (`buckets.rs`, `sums.rs`), the loss, changes of state, a wish to stop, trouble. All ranks then do the same step.

use super::Config;
use super::asynchronous;
use super::balance::{Speed, evenly};
use super::config::DataConfig;
use super::mesh::Mesh;
use super::sent::Ring;
use super::slow::Slow;
use super::sums::Sums;
use super::trace::Trace;
use crate::comm::{Algorithm, Communicator, DeviceRing, Fit, Group, Reduce, codec};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::nn::ModelKind;
use crate::tape::Params;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Time that ranks wait for the slowest in a step, its data included. A rank that is gone or stopped is noticed by its silence,
/// much earlier.
const STEP: Duration = Duration::from_secs(600);
/// The same where one rank may do something long: an evaluation, a snapshot, the end of a run.
const PAUSE: Duration = Duration::from_secs(24 * 3600);

/// The ranks of a run.
pub struct Team {
    /// All ranks.
    pub(super) world: Option<Group>,
    /// Those that this one sums its gradients with.
    pub(super) data: Option<Group>,
    /// Where ranks share a model.
    pub(super) mesh: Option<Mesh>,
    /// The ring between the ranks' devices, and this rank's device.
    pub(super) ring: Option<(Ring, Device)>,
    rank: usize,
    size: usize,
    /// How gradients are summed, where there are several ranks or parts of a batch.
    pub(super) sums: Option<Sums>,
    /// Codecs of another crate.
    pub(super) codecs: Vec<&'static codec::Entry>,
    pub(super) trace: Option<Trace>,
    pub(super) journal: Option<(File, PathBuf)>,
    /// Time spent waiting for others since the last line of the journal.
    pub(super) waited: Duration,
    /// Ranks do not sum every gradient.
    pub(super) apart: bool,
    /// Targets that this rank had since ranks that are apart met.
    pub(super) counted: f64,
    pub(super) slow: Slow,
    pub(super) speed: Speed,
}

impl Team {
    /// One rank.
    pub fn alone() -> Team {
        let (world, data, mesh, ring, sums) = (None, None, None, None, None);
        let (codecs, trace, journal) = (vec![], None, None);
        let (waited, slow, speed) = (Duration::ZERO, Slow::default(), Speed::default());
        let (apart, counted) = (false, 0.0);
        Team {
            world,
            data,
            mesh,
            ring,
            rank: 0,
            size: 1,
            sums,
            codecs,
            trace,
            journal,
            waited,
            apart,
            counted,
            slow,
            speed,
        }
    }

    /// This rank of those that `world` is of.
    ///
    /// # Errors
    /// When the system starts no thread.
    pub fn of(mut world: Communicator) -> Result<Team> {
        world.set_deadline(STEP);
        let (rank, size) = (world.rank(), world.size());
        let world = Group::of(world)?;
        let slow = Slow::from_variables(rank, |name| std::env::var(name).ok())?;
        Ok(Team { data: Some(world.clone()), world: Some(world), rank, size, slow, ..Team::alone() })
    }

    /// This rank of those that `world` is of, threads of one process, each on a device of its own: it trains on the device of
    /// `ring`, by which gradients are summed without the host.
    ///
    /// # Errors
    /// Those of [`Team::of`].
    pub fn on_device(world: Communicator, mut ring: DeviceRing) -> Result<Team> {
        ring.set_deadline(STEP);
        let device = ring.device().clone();
        Ok(Team { ring: Some((Arc::new(Mutex::new(ring)), device)), ..Team::of(world)? })
    }

    /// The device that this rank trains on.
    pub(super) fn device(&self, config: &Config) -> Result<Device> {
        self.ring.as_ref().map_or_else(|| Device::open(&config.device), |(_, device)| Ok(device.clone()))
    }

    /// Number of this rank, from 0.
    pub fn rank(&self) -> usize {
        self.rank
    }
    /// Number of ranks.
    pub fn size(&self) -> usize {
        self.size
    }
    /// True on the rank that writes the run's files.
    pub fn leads(&self) -> bool {
        self.rank == 0
    }

    /// What all ranks must have configured alike, as a hash; threads, device, and where data lie and how they are read may differ.
    pub fn fingerprint(config: &Config) -> String {
        let mut own = Config { threads: 0, device: String::new(), ..config.clone() };
        (own.data.path, own.data.map) = (String::new(), DataConfig::default().map);
        let hash = Sha256::digest(own.to_toml().as_bytes());
        hash[..8].iter().map(|b| format!("{b:02x}")).collect()
    }

    /// Errors where these ranks cannot train `config`.
    pub(super) fn check(&self, config: &Config) -> Result<()> {
        Team::fits(config, self.size)?;
        self.codec(&config.codec).map(drop)
    }

    /// Errors, by key, where `p` ranks cannot train `config`.
    pub fn fits(config: &Config, p: usize) -> Result<()> {
        config.mesh.fits(p)?;
        let (batch, shards) = (config.batch_size, config.micro_shards);
        let p = config.mesh.replicas(p);
        if batch < p {
            let what = format!("is {batch}, but each of {p} ranks needs at least one sample of a batch");
            return Err(Error::config("batch_size", what));
        }
        if config.balance && shards < p {
            let what = format!(
                "is {shards}, but each of {p} ranks needs at least one; set it to a power of two above {p}"
            );
            return Err(Error::config("micro_shards", what));
        }
        if shards > 0 && !config.balance && (!p.is_power_of_two() || !shards.is_multiple_of(p)) {
            let what = format!(
                "is {shards}, which {p} ranks cannot share as a tree; start 1, 2, 4, … of them, or set it to 0"
            );
            return Err(Error::config("micro_shards", what));
        }
        if config.model.kind == ModelKind::Pair && (p > 1 || shards > 0) {
            let what = "is pair, whose loss compares all samples of a batch, so the batch cannot be cut for several ranks or \
                        micro_shards; train it in one process";
            return Err(Error::config("model.kind", what));
        }
        Ok(())
    }

    /// Where ring and tree cross, as configured, or as measured now: then `config` says it from now on, and so does the run's
    /// config.toml, since it decides about bits. Gives what was measured, for people.
    pub(super) fn fit(&mut self, config: &mut Config) -> Result<Option<String>> {
        if self.size == 1 {
            return Ok(None);
        }
        let mut told = None;
        if config.crossover == 0 {
            let fit = self.call(Fit::measure)?;
            // TOML has numbers up to 2^63; 0 would be measured again.
            config.crossover = fit.crossover.clamp(1, i64::MAX as u64);
            // Between devices gradients go round the ring whatever their length.
            told = self.ring.is_none().then(|| format!("{} ranks: {fit}", self.size));
        }
        let crossover = config.crossover;
        self.call(move |c| {
            c.set_crossover(crossover);
            Ok(())
        })?;
        Ok(told)
    }

    /// Gets ready to train `params`, whose values on rank 0 all ranks take over, in the run folder `dir`.
    pub(super) fn prepare(&mut self, config: &Config, params: &mut Params, dir: &Path) -> Result<()> {
        let tree = config.micro_shards > 0;
        self.apart = asynchronous::apart(config, self);
        // Parts are those of the ring, which is how devices sum whatever the length.
        let rings = self.ring.is_some() && config.zero > 0;
        let algorithm = if tree { Some(Algorithm::Tree) } else { rings.then_some(Algorithm::Ring) };
        if self.size > 1 {
            self.call(move |c| {
                c.set_algorithm(algorithm);
                Ok(())
            })?;
            self.spread(params)?;
            let path = dir.join("ranks").join(format!("rank-{}.log", self.rank));
            let open = || -> std::io::Result<File> {
                std::fs::create_dir_all(dir.join("ranks"))?;
                File::options().create(true).append(true).open(&path)
            };
            self.journal = Some((open().map_err(|e| Error::io(&path, e))?, path));
        }
        self.meet()?;
        let zero = Instant::now();
        self.trace = (config.trace > 0).then(|| Trace::new(self.rank, config.trace, zero));
        Ok(())
    }

    /// The ring between the devices of the ranks that sum their gradients with this one.
    pub(super) fn ring(&self) -> Option<Ring> {
        match (&self.mesh, &self.data) {
            (Some(_), Some(data)) => data.ring(),
            _ => self.ring.as_ref().map(|(ring, _)| ring.clone()),
        }
    }

    /// All rings between devices that this rank is in.
    pub(super) fn rings(&self) -> Vec<Ring> {
        let mesh = self.mesh.iter().flat_map(Mesh::groups).filter_map(Group::ring);
        self.ring().into_iter().chain(mesh).collect()
    }

    /// Gets ready to sum the gradients of `params`, what this rank trains.
    pub(super) fn sum_gradients_of(&mut self, config: &Config, params: &Params) -> Result<()> {
        let tree = config.micro_shards > 0;
        if self.size == 1 && !tree || self.apart {
            return Ok(());
        }
        let parts = (config.micro_shards / self.size).max(1);
        let bytes = (config.bucket_mb * (1u64 << 20) as f64) as usize;
        // The tree of micro-shards is one of messages of the host, and so do ranks hand round weights.
        let plain = self.size > 1 && !tree && config.codec.is_none() && config.zero == 0;
        let by = self.ring().filter(|_| plain);
        let coded = self.size > 1 && self.codec(&config.codec)?.is_some_and(|(_, c)| c.works_on_devices());
        // Where a ring or a codec works there gradients stay on the device; all else is summed on the host.
        let device = if by.is_some() || coded { params.device().clone() } else { Device::cpu() };
        let mut sums = Sums::new(params, bytes, parts, self.replica(), (&device, by));
        if config.balance && self.size > 1 {
            sums.deal(evenly(config.micro_shards, self.size));
        }
        self.sums = Some(sums);
        Ok(())
    }

    /// Gives all ranks the weights and states of rank 0.
    pub(super) fn spread(&self, params: &mut Params) -> Result<()> {
        for i in 0..params.segments().len() {
            let mut bytes = params.segment(i).to_host()?.as_bytes()?.to_vec();
            let bytes = self.patiently(move |c| c.broadcast(&mut bytes, 0).map(|()| bytes))?;
            if !self.leads() {
                params.segment_mut(i).write_bytes(0, &bytes)?;
            }
        }
        Ok(())
    }

    /// Has all ranks make a call, and waits for it.
    pub(super) fn call<R: Send + 'static>(
        &self,
        errand: impl FnOnce(&mut Communicator) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        match &self.world {
            Some(world) => world.call(errand),
            None => Err(Error::Usage("there is no other rank to talk to".into())),
        }
    }

    /// What `find` gives on rank 0, on every rank. It is called there only.
    ///
    /// # Errors
    /// Those of `find` on rank 0, upon which the others are left alone.
    pub fn share<T: Serialize + DeserializeOwned>(&self, find: impl FnOnce() -> Result<T>) -> Result<T> {
        if self.size == 1 {
            return find();
        }
        let found = if self.leads() { Some(find()?) } else { None };
        let bytes = self.share_bytes(found.as_ref().map_or(Ok(vec![]), crate::wire::encode)?)?;
        let limit = bytes.len() as u64;
        found.map_or_else(
            || {
                crate::wire::decode(&bytes, limit)
                    .map_err(|e| Error::RanksDisagree(format!("what rank 0 sent {e}")))
            },
            Ok,
        )
    }

    /// The bytes of rank 0, on every rank.
    pub(super) fn share_bytes(&self, mut bytes: Vec<u8>) -> Result<Vec<u8>> {
        self.patiently(move |c| {
            let mut len = (bytes.len() as u64).to_le_bytes();
            c.broadcast(&mut len, 0)?;
            bytes.resize(u64::from_le_bytes(len) as usize, 0);
            c.broadcast(&mut bytes, 0)?;
            Ok(bytes)
        })
    }

    /// [`Team::call`] for a call to which ranks may come late.
    pub(super) fn patiently<R: Send + 'static>(
        &self,
        errand: impl FnOnce(&mut Communicator) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        self.call(move |c| {
            c.set_deadline(PAUSE);
            let result = errand(c);
            c.set_deadline(STEP);
            result
        })
    }

    /// Waits until all ranks are here, however long one of them has had something else to do.
    pub(super) fn meet(&self) -> Result<()> {
        if self.size == 1 { Ok(()) } else { self.patiently(Communicator::barrier) }
    }

    /// Adds up over ranks numbers of which each rank has its own and 0 for the others: exactly, so the order does not matter.
    pub(super) fn complete(&self, mut numbers: Vec<f64>) -> Result<Vec<f64>> {
        if self.size == 1 {
            return Ok(numbers);
        }
        self.patiently(move |c| c.all_reduce(&mut numbers, Reduce::Sum).map(|()| numbers))
    }

    /// The records of all ranks, one after the other.
    pub(super) fn gather<T: crate::tensor::Element + Default>(&self, mine: Vec<T>) -> Result<Vec<T>> {
        if self.size == 1 {
            return Ok(mine);
        }
        let size = self.size;
        self.call(move |c| {
            let mut all = vec![T::default(); size * mine.len()];
            c.all_gather(&mine, &mut all).map(|()| all)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::threads;

    #[test]
    fn what_rank_0_finds_all_get() {
        let found = threads::run(3, |world| {
            let team = Team::of(world)?;
            let rank = team.rank();
            let shared = team.share(|| if rank == 0 { Ok(vec![7u64, 8]) } else { panic!("asked") })?;
            assert_eq!(team.complete(vec![(rank as f64), 0.5])?, [3.0, 1.5]);
            Ok(shared)
        });
        assert!(found.into_iter().all(|f| f.unwrap() == [7, 8]));
        assert_eq!(Team::alone().share(|| Ok(5u8)).unwrap(), 5);
    }

    #[test]
    fn only_what_must_agree_is_in_the_fingerprint() {
        let of = |settings: &[&str]| {
            let settings: Vec<String> = settings.iter().map(|s| s.to_string()).collect();
            Team::fingerprint(&Config::default().with(&settings).unwrap())
        };
        assert_eq!(of(&[]), of(&["threads=3", "device=soft:0", "data.path=elsewhere.rtd", "data.map=read"]));
        for other in ["seed=2", "bucket_mb=3", "model.dim=64", "micro_shards=2", "data.input=x"] {
            assert_ne!(of(&[]), of(&[other]), "{other}");
        }
    }
}

//! Runs by ranks that are threads, and what they end with.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "a test fails by panic, and uses some of this"
)]

use ringtape::comm::{device_ring, threads};
use ringtape::data::{About, Field, Writer};
use ringtape::device::soft::{self, Machine, Settings};
use ringtape::error::Result;
use ringtape::shape::DType;
use ringtape::train::{Config, Metrics, Observer, Run, Stop, Team};
use std::path::Path;
use std::sync::{Arc, Mutex};

pub const SMALL: &[&str] =
    &["steps=20", "eval_batches=3", "eval_every=10", "snapshot_every=0", "log_every=1"];
pub const QUICK: &[&str] = &["keep_snapshots=9", "schedule.warmup_steps=2", "tensorboard=false"];

pub fn config(parts: &[&[&str]]) -> Config {
    let all: Vec<String> =
        [SMALL, QUICK].iter().chain(parts).flat_map(|p| p.iter()).map(|s| s.to_string()).collect();
    Config::resolve(None, &all).unwrap()
}

pub const GPT: &[&str] =
    &["model.layers=1", "model.dim=16", "model.heads=2", "model.context=16", "batch_size=7"];
/// Every step's numbers; asks to stop after a step, where it is told to.
pub struct Seen(Vec<Metrics>, Option<(u64, Stop)>);
impl Observer for Seen {
    fn on_step(&mut self, m: &Metrics) {
        self.0.push(m.clone());
        if let Some((step, stop)) = &self.1
            && *step == m.step
        {
            stop.request(15);
        }
    }
}

/// What a rank ended with: its numbers, and the bytes of its weights.
pub type End = (Vec<Metrics>, Vec<u8>);

pub fn go(run: Result<Run>, stop_at: Option<u64>) -> (Result<()>, End) {
    let mut run = match run {
        Ok(run) => run,
        Err(e) => return (Err(e), (vec![], vec![])),
    };
    let stop = Stop::never();
    let mut seen = Seen(vec![], stop_at.map(|step| (step, stop.clone())));
    let end = run.train(&stop, &mut seen).map(drop);
    let params = run.params();
    let bytes = (0..params.segments().len())
        .flat_map(|i| params.segment(i).to_host().unwrap().as_bytes().unwrap().to_vec())
        .collect();
    (end, (seen.0, bytes))
}

pub fn by(p: usize, config: &Config, at: &Path) -> Vec<(Result<()>, End)> {
    let ranks = threads::run(p, |world| Ok(go(Run::create_by(Team::of(world)?, config.clone(), at), None)));
    ranks.into_iter().map(Result::unwrap).collect()
}

pub fn alone(config: &Config, at: &Path) -> End {
    let (end, found) = go(Run::create(config.clone(), at), None);
    end.unwrap();
    found
}

pub fn near(a: f64, b: f64, what: &str) {
    assert!((a - b).abs() <= 1e-5 * a.abs().max(b.abs()), "{what}: {a} and {b}");
}

/// Starts or resumes by `p` ranks; rank p − 1 is asked to stop after `stop`.
pub fn leg(p: usize, config: &Config, at: &Path, stop: Option<u64>) -> Vec<Result<()>> {
    let resumes = at.join("config.toml").exists();
    let ends = threads::run(p, |world| {
        let team = Team::of(world)?;
        let stop = stop.filter(|_| team.rank() == p - 1);
        let run = if resumes {
            Run::resume_by(at, |_| Ok(()), |_| Ok(team))
        } else {
            Run::create_by(team, config.clone(), at)
        };
        Ok(go(run, stop).0)
    });
    ends.into_iter().map(Result::unwrap).collect()
}

/// By `p` ranks on devices of one machine, joined by a ring or, without it, by messages of the host.
pub fn on_devices(p: usize, ring: bool, config: &Config, at: &Path) -> Vec<(Result<()>, End)> {
    let machine = Arc::new(Machine::new(Settings { check: true, seed: 3, ..Settings::default() }));
    let devices: Vec<_> = (0..p).map(|r| soft::device(&machine, r as u32).unwrap()).collect();
    let rings = device_ring::open(&devices).unwrap();
    let rings: Vec<_> = rings.into_iter().map(|r| Mutex::new(Some(r))).collect();
    let ranks = threads::run(p, |world| {
        let rank = world.rank();
        let config = Config { device: format!("soft:{rank}"), ..config.clone() };
        let team = match rings[rank].lock().unwrap().take().filter(|_| ring) {
            Some(ring) => Team::on_device(world, ring)?,
            None => Team::of(world)?,
        };
        Ok(go(Run::create_by(team, config, at), None))
    });
    ranks.into_iter().map(Result::unwrap).collect()
}

/// Losses, norms and held-out losses of a grid are those of one rank.
pub fn same_numbers(p: usize, mesh: &[&str], parts: &[&[&str]]) {
    let d = tempfile::tempdir().unwrap();
    let (one, _) = alone(&config(parts), &d.path().join("1"));
    assert!(one[0].loss > one[19].loss, "it learns");
    let all: Vec<&[&str]> = parts.iter().copied().chain([mesh]).collect();
    let ends = by(p, &config(&all), &d.path().join("grid"));
    let failed: Vec<String> =
        ends.iter().filter_map(|(end, _)| end.as_ref().err().map(|e| e.to_string())).collect();
    assert!(failed.is_empty(), "{mesh:?}: {failed:?}");
    for (rank, (_, (seen, bytes))) in ends.iter().enumerate() {
        assert!(*bytes == ends[0].1.1, "rank {rank} puts other weights together");
        assert_eq!(seen.len(), 20);
        for (a, b) in one.iter().zip(seen) {
            near(a.loss, b.loss, &format!("{mesh:?} {parts:?}: loss of step {}", a.step));
            assert!((a.grad_norm / b.grad_norm - 1.0).abs() < 1e-3, "{a:?} {b:?}");
            near(a.val_loss.unwrap_or(0.0), b.val_loss.unwrap_or(0.0), "held-out loss");
        }
    }
}

/// 40 samples to train on, of which number 17 holds a NaN, and 8 others.
pub fn spoilt(at: &Path) {
    let mut w = Writer::create(at, About::default()).unwrap();
    w.field(Field::samples("features", DType::F32, &[4])).unwrap();
    for i in 0..48 {
        let bad = if i == 17 { f32::NAN } else { 1.0 };
        let row = [i as f32 / 48.0, bad, (i % 3) as f32, 0.5];
        row.iter().for_each(|x| w.write(&x.to_le_bytes()).unwrap());
    }
    w.field(Field { bound: 3, ..Field::samples("label", DType::U8, &[]) }).unwrap();
    (0..48u8).for_each(|i| w.write(&[i % 3]).unwrap());
    w.split("train", 0, 40);
    w.split("val", 40, 8);
    w.finish().unwrap();
}

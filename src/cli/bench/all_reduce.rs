//! All-reduce between threads, through shared memory and over TCP. Rank 0 measures, and has the others follow: before each
//! turn it sends them the length. With a device, between devices: a thread each, started anew for each turn.

use super::super::ranks::{Children, Job, start};
use super::Case;
use crate::comm::{Communicator, DeviceRing, Meeting, Place, Reduce, Way, device_ring, threads};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::shape::{DType, Spec};
use crate::tensor::Tensor;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lengths in MiB.
const SIZES: [usize; 3] = [1, 16, 64];
/// While other cases have their turn the ranks of this one wait.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// Ranks that follow rank 0, which lives here.
struct World {
    zero: Mutex<Communicator>,
    x: Mutex<Vec<f32>>,
    /// Keeps the other ranks running; the last holder ends them.
    _others: Arc<Mutex<Children>>,
}

impl Drop for World {
    fn drop(&mut self) {
        let zero = self.zero.get_mut().unwrap_or_else(PoisonError::into_inner);
        // Others that are gone already need no order to stop.
        let _ = zero.broadcast(&mut [-1], 0);
    }
}

/// All cases, of the job at `place`, or of one of `ranks` ranks that is started for them.
pub(super) fn cases(place: Option<Place>, ranks: usize) -> Result<Vec<Case<'static>>> {
    let others = Arc::new(Mutex::new(Children::default()));
    let (place, secret) = match place {
        Some(place) => (place, None),
        None => {
            let job = Job::new(ranks, None)?;
            let mut children = others.lock().unwrap_or_else(PoisonError::into_inner);
            for rank in 1..ranks {
                let mut command = job.command(rank, &["bench", "all-reduce"])?;
                children.0.push(start(&mut command, rank)?);
            }
            (job.place(0), Some(job.secret))
        }
    };
    let mut worlds = vec![("threads", among_threads(place.world)?)];
    for (name, way) in ways(&place)? {
        worlds.push((name, meeting(&place, way, secret.clone())?.join()?));
    }
    let mut cases = Vec::new();
    for (name, mut zero) in worlds {
        zero.set_deadline(PATIENCE);
        let (zero, x) = (Mutex::new(zero), Mutex::new(Vec::new()));
        let world = Arc::new(World { zero, x, _others: others.clone() });
        cases.extend(SIZES.map(|mib| case(name, mib, place.world, world.clone())));
    }
    Ok(cases)
}

/// All cases of the ring between devices 0 to `ranks` − 1 of the kind of `device`.
pub(super) fn between(device: &Device, ranks: usize) -> Result<Vec<Case<'static>>> {
    let kind = device.name().split(':').next().unwrap_or_default().to_string();
    let open = |rank| Device::open(&format!("{kind}:{rank}"));
    let devices = (0..ranks).map(open).collect::<Result<Vec<_>>>()?;
    let rings = Arc::new(Mutex::new(device_ring::open(&devices)?));
    let cases = SIZES.map(|mib| {
        let (rings, devices) = (rings.clone(), devices.clone());
        let mut tensors = Vec::new();
        let run = move || {
            if tensors.is_empty() {
                let zeros = |d| Tensor::zeros(d, Spec::new(DType::F32, &[mib << 18])?);
                tensors = devices.iter().map(zeros).collect::<Result<_>>()?;
            }
            let mut rings = rings.lock().unwrap_or_else(PoisonError::into_inner);
            together(&mut rings, &mut tensors)
        };
        let what = format!("{kind} devices, {ranks} ranks, {mib} MiB");
        let bus = 2.0 * (ranks - 1) as f64 / ranks as f64 * (mib << 20) as f64;
        Case { run: Box::new(run), bytes: bus, ..Case::timed("all-reduce", &what, || Ok(())) }
    });
    Ok(cases.into())
}

fn together(rings: &mut [DeviceRing], tensors: &mut [Tensor]) -> Result<Duration> {
    let start = Instant::now();
    std::thread::scope(|scope| {
        let body = |(ring, x): (_, _)| spawn_in(scope, ring, x);
        let all: Vec<_> = rings.iter_mut().zip(tensors).map(body).collect::<Result<_>>()?;
        all.into_iter().try_for_each(|t| t.join().unwrap_or_else(|e| std::panic::resume_unwind(e)))
    })?;
    Ok(start.elapsed())
}

fn spawn_in<'s>(
    scope: &'s std::thread::Scope<'s, '_>,
    ring: &'s mut DeviceRing,
    x: &'s mut Tensor,
) -> Result<std::thread::ScopedJoinHandle<'s, Result<()>>> {
    let thread = std::thread::Builder::new();
    thread.spawn_scoped(scope, move || ring.all_reduce(x)).map_err(|e| Error::no_thread("a rank", &e))
}

fn case(name: &str, mib: usize, p: usize, world: Arc<World>) -> Case<'static> {
    let bytes = mib << 20;
    let run = move || {
        let mut zero = world.zero.lock().unwrap_or_else(PoisonError::into_inner);
        let mut x = world.x.lock().unwrap_or_else(PoisonError::into_inner);
        zero.broadcast(&mut [mib as i32], 0)?;
        turn(&mut zero, &mut x, mib)
    };
    let what = format!("{name}, {p} ranks, {mib} MiB");
    // Bus bandwidth: what every rank must send, over the time.
    let bus = 2.0 * (p - 1) as f64 / p as f64 * bytes as f64;
    Case { run: Box::new(run), bytes: bus, ..Case::timed("all-reduce", &what, || Ok(())) }
}

/// The time from when all are there.
fn turn(world: &mut Communicator, x: &mut Vec<f32>, mib: usize) -> Result<Duration> {
    x.resize(mib << 18, 0.0);
    world.barrier()?;
    let start = Instant::now();
    world.all_reduce(x, Reduce::Sum)?;
    Ok(start.elapsed())
}

/// Follows rank 0 until it says stop.
fn follow(mut world: Communicator) -> Result<()> {
    world.set_deadline(PATIENCE);
    let mut x = Vec::new();
    loop {
        let mut order = [0];
        world.broadcast(&mut order, 0)?;
        match usize::try_from(order[0]) {
            Ok(mib) => turn(&mut world, &mut x, mib)?,
            Err(_) => return Ok(()),
        };
    }
}

fn among_threads(p: usize) -> Result<Communicator> {
    let mut all = threads::open(p).into_iter();
    let zero = all.next().map(Communicator::new);
    for transport in all {
        let body = move || follow(Communicator::new(transport));
        std::thread::Builder::new().spawn(body).map_err(|e| Error::no_thread("a rank", &e))?;
    }
    zero.ok_or_else(|| Error::Usage("all-reduce needs a rank".into()))
}

/// Where the environment asks for MPI, that alone: it has one world a process. (How `bench` is called decides the rest.)
fn ways(place: &Place) -> Result<Vec<(&'static str, Way)>> {
    let asked = match std::env::var(crate::comm::secret::VARIABLE) {
        Ok(_) => Meeting::from_variables(place, "", "", |name| std::env::var(name).ok())?.plane,
        Err(_) => None,
    };
    Ok(match asked {
        Some(way @ Way::Mpi) => vec![("MPI's messages", way)],
        Some(way @ Way::MpiSums) => vec![("MPI's all-reduce", way)],
        _ => vec![("shared memory", Way::Shm), ("TCP", Way::Tcp)],
    })
}

fn meeting(place: &Place, way: Way, secret: Option<String>) -> Result<Meeting> {
    let get = |name: &str| match (name, &secret) {
        (crate::comm::secret::VARIABLE, Some(secret)) if !secret.is_empty() => Some(secret.clone()),
        _ => std::env::var(name).ok(),
    };
    let what = format!("all-reduce over {way:?}");
    Ok(Meeting { plane: Some(way), ..Meeting::from_variables(place, &what, "", get)? })
}

/// A rank other than 0: follows it in both worlds.
pub(super) fn serve(place: &Place) -> Result<()> {
    let joined = |(_, way)| meeting(place, way, None)?.join();
    let mut all = ways(place)?.into_iter().map(joined).collect::<Result<Vec<_>>>()?;
    let Some(mine) = all.pop() else { return Ok(()) };
    let spawn = |world| std::thread::Builder::new().spawn(move || follow(world));
    let others = all.into_iter().map(spawn).collect::<std::io::Result<Vec<_>>>();
    let others = others.map_err(|e| Error::no_thread("a rank", &e))?;
    follow(mine)?;
    others.into_iter().try_for_each(|other| other.join().unwrap_or_else(|e| std::panic::resume_unwind(e)))
}

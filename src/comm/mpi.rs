//! Ranks that an MPI has started, and that send by it: where a cluster's network is known to its MPI alone. Rendezvous, signs
//! of life and the verdict go their own way as ever; data go by MPI's messages, two for each piece: its head, its bytes.
//!
//! MPI takes a rank that fails for the end of the job, so an error ends all of it: MPI_Abort, with the exit code of a failed
//! rank.

use super::control::Control;
use super::frame::{HEAD, Head};
use super::number::Number;
use super::pieces::{Arriving, Leaving, Side};
use super::rendezvous::{Meeting, Party};
use super::tag::Reduce;
use super::transport::{Incoming, Job, Outgoing, Transport, Wait, spins};
use super::watch::Watch;
use crate::error::{Error, Result};
use crate::shape::DType;
use bytemuck::cast_slice_mut;
use mpi::Threading;
use mpi::collective::SystemOperation;
use mpi::environment::Universe;
use mpi::request;
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, CommunicatorCollectives, Destination, Equivalence, Source};
use std::cell::RefCell;
use std::time::Duration;

/// Bytes of a piece.
const PIECE: usize = 1 << 20;
/// Time for what a rank sent before it left to arrive.
const ARRIVAL: Duration = Duration::from_secs(2);
/// MPI's tags of the two messages of a piece.
const HEADS: i32 = 1;
const BODIES: i32 = 2;

thread_local! {
    /// MPI, in the thread that began it, which must end it.
    static MPI: RefCell<Option<Universe>> = const { RefCell::new(None) };
}

/// Ends MPI, if this thread has begun it and all went well.
pub(super) fn leave() {
    MPI.with_borrow_mut(|universe| drop(universe.take()));
}

/// One rank of an MPI job.
pub(super) struct Mpi {
    rank: usize,
    world: usize,
    watch: Watch,
    /// Whether sums of all ranks are MPI's own.
    own_sums: bool,
    /// A piece that is to be summed; words, so that elements are aligned.
    staging: Vec<u64>,
    sent: u64,
    spins: u32,
    _control: Control,
}

impl Mpi {
    pub(super) fn new(m: &Meeting, party: Party, own_sums: bool) -> Result<Mpi> {
        let trouble = |what: String| Err(Error::Rendezvous(what));
        if MPI.with_borrow(Option::is_none) {
            // The communicator is used by one thread after the other.
            let Some((universe, level)) = mpi::initialize_with_threading(Threading::Serialized) else {
                return trouble("MPI was begun already, by another thread".into());
            };
            if level < Threading::Serialized {
                return trouble("this MPI serves the main thread alone".into());
            }
            MPI.set(Some(universe));
        }
        let all = SimpleCommunicator::world();
        let (rank, world) = (all.rank() as usize, all.size() as usize);
        if (rank, world) != (m.rank, m.world) {
            let what = format!(
                "MPI says rank {rank} of {world}, the launcher's variables {} of {}",
                m.rank, m.world
            );
            return trouble(format!("{what}: was it started by this MPI's mpirun?"));
        }
        let watch = Watch::new(m.world);
        let control = Control::start(&watch, m.rank, party.links, m.silence)
            .map_err(|e| Error::no_thread("the control of ranks", &e))?;
        let (staging, spins) = (vec![0; PIECE / 8], spins(m.world));
        Ok(Mpi { rank, world, watch, own_sums, staging, sent: 0, spins, _control: control })
    }

    /// One piece out while one comes in.
    fn piece(
        &mut self,
        side: &Side<'_>,
        wait: &mut Wait<'_>,
        leaving: Option<&mut Leaving<'_>>,
        arriving: Option<&mut Arriving<'_>>,
    ) {
        let all = SimpleCommunicator::world();
        let staging: &mut [u8] = cast_slice_mut(&mut self.staging);
        let piece = leaving.as_ref().map(|l| (l.to, l.total(), l.piece(PIECE)));
        let head = piece.map(|(_, total, (at, bytes))| Head::of(side.job.tag, total, at, bytes).encode());
        request::scope(|scope| {
            let mut out = Vec::new();
            if let (Some((to, _, (_, bytes))), Some(head)) = (&piece, &head) {
                let to = all.process_at_rank(*to as i32);
                out.push(to.immediate_send_with_tag(scope, &head[..], HEADS));
                out.push(to.immediate_send_with_tag(scope, *bytes, BODIES));
            }
            let mut coming = arriving.map(|a| Coming { a, head: None });
            loop {
                let before = out.len();
                out = out.into_iter().filter_map(|request| request.test().err()).collect();
                let moved = coming.as_mut().is_some_and(|c| c.look(&all, side, staging));
                coming = coming.filter(|c| !moved || c.head.is_some());
                if out.is_empty() && coming.is_none() {
                    break;
                }
                wait.from = coming.as_ref().map(|c| c.a.from);
                wait.to = piece.map(|(to, ..)| to).filter(|_| !out.is_empty());
                if moved || out.len() < before {
                    wait.progress();
                } else if let Err(e) = wait.pause() {
                    give_up(&e);
                }
            }
        });
        if let (Some(l), Some((_, _, (_, bytes)))) = (leaving, piece) {
            l.gone(bytes.len());
        }
    }
}

/// A piece that comes.
struct Coming<'a, 'b> {
    a: &'a mut Arriving<'b>,
    /// Its head, until its bytes are there.
    head: Option<Head>,
}

impl Coming<'_, '_> {
    /// Takes what has come; says whether anything has. With its bytes the piece is in its place, and the head gone.
    fn look(&mut self, all: &SimpleCommunicator, side: &Side<'_>, staging: &mut [u8]) -> bool {
        let from = all.process_at_rank(self.a.from as i32);
        let Some(h) = self.head else {
            let Some((message, _)) = from.immediate_matched_probe_with_tag(HEADS) else { return false };
            let mut bytes = [0; HEAD];
            message.matched_receive_into(&mut bytes[..]);
            let decoded = Head::decode(&bytes).ok_or_else(|| side.damaged(self.a.from));
            match decoded.and_then(|h| self.a.check(side, &h, PIECE).map(|()| h)) {
                Ok(h) => self.head = Some(h),
                Err(e) => give_up(&e),
            }
            return true;
        };
        let Some((message, _)) = from.immediate_matched_probe_with_tag(BODIES) else { return false };
        let body = &mut staging[..h.len as usize];
        message.matched_receive_into(body);
        if !h.fits(body) {
            give_up(&side.damaged(self.a.from));
        }
        self.a.take(body);
        self.head = None;
        true
    }
}

/// Says what went wrong and ends the job: messages that are under way cannot be taken back.
fn give_up(e: &Error) -> ! {
    eprintln!("error: {e}");
    SimpleCommunicator::world().abort(e.exit_code())
}

impl Transport for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }
    fn world(&self) -> usize {
        self.world
    }
    fn watch(&self) -> &Watch {
        &self.watch
    }
    fn sent(&self) -> u64 {
        self.sent
    }

    fn exchange(&mut self, job: &Job, out: Option<Outgoing<'_>>, into: Option<Incoming<'_>>) -> Result<()> {
        let watch = self.watch.clone();
        let side = Side { watch: &watch, rank: self.rank, job };
        let mut wait = Wait::new(&watch, self.rank, job, self.spins);
        wait.patience = ARRIVAL;
        let (mut leaving, mut arriving) = (out.map(Leaving::new), into.map(Arriving::new));
        self.sent += leaving.as_ref().map_or(0, Leaving::total) as u64;
        loop {
            let l = leaving.as_mut().filter(|l| !l.done);
            let a = arriving.as_mut().filter(|a| !a.done);
            if l.is_none() && a.is_none() {
                return Ok(());
            }
            self.piece(&side, &mut wait, l, a);
        }
    }

    fn all_reduce(&mut self, dtype: DType, reduce: Reduce, x: &mut [u8]) -> Option<Result<()>> {
        if !self.own_sums {
            return None;
        }
        let n = self.world;
        match dtype {
            DType::F32 => sums::<f32>(reduce, cast_slice_mut(x), n),
            DType::F64 => sums::<f64>(reduce, cast_slice_mut(x), n),
            DType::I32 => sums::<i32>(reduce, cast_slice_mut(x), n),
            _ => return None,
        }
        Some(Ok(()))
    }
}

/// MPI_Allreduce. Its order of sums is its own affair.
fn sums<T: Number + Equivalence>(reduce: Reduce, x: &mut [T], n: usize) {
    let mine = x.to_vec();
    let op = if reduce == Reduce::Max { SystemOperation::max() } else { SystemOperation::sum() };
    SimpleCommunicator::world().all_reduce_into(&mine[..], x, op);
    super::number::finish(reduce, x, n);
}

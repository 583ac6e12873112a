//! [`Communicator`]: a group of ranks and the calls that all of them make together.

use super::cx::{Cx, part};
use super::number::{Number, allowed};
use super::tag::{Algorithm, Call, Reduce, Tag};
use super::transport::{Job, Transport};
use super::watch::Watch;
use super::{ring, shards, tree};
use crate::error::{Error, Result};
use crate::shape::DType;
use crate::tensor::Element;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Time that a collective may take, the wait for the slowest rank included.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Messages of up to this many bytes go by the tree, longer ones round the ring, where nothing was measured.
pub const CROSSOVER: u64 = 8 << 10;

/// A group of ranks. Every member makes the same calls in the same order; a member that does not is told, with both
/// calls named, and so is one whose lengths or types differ. After an error the whole job is over, on every rank.
pub struct Communicator {
    transport: Arc<Mutex<Box<dyn Transport>>>,
    ranks: Vec<usize>,
    me: usize,
    context: u32,
    calls: u64,
    deadline: Duration,
    algorithm: Option<Algorithm>,
    crossover: u64,
}

impl Communicator {
    /// All ranks of a transport: MPI_COMM_WORLD.
    pub fn new(transport: impl Transport + 'static) -> Communicator {
        let (me, ranks) = (transport.rank(), (0..transport.world()).collect());
        Communicator {
            transport: Arc::new(Mutex::new(Box::new(transport))),
            ranks,
            me,
            context: 0,
            calls: 0,
            deadline: DEADLINE,
            algorithm: None,
            crossover: CROSSOVER,
        }
    }

    /// Number of this rank in the group, from 0.
    pub fn rank(&self) -> usize {
        self.me
    }

    /// Number of ranks in the group.
    pub fn size(&self) -> usize {
        self.ranks.len()
    }

    /// Sets the time that each later call may take, the wait for the slowest rank included.
    pub fn set_deadline(&mut self, deadline: Duration) {
        self.deadline = deadline;
    }

    /// Has every later call go this way; None chooses by length. The same on all ranks, and part of the result's bits.
    pub fn set_algorithm(&mut self, algorithm: Option<Algorithm>) {
        self.algorithm = algorithm;
    }

    /// Has messages of up to `bytes` go by the tree and longer ones round the ring. The same on all ranks, and part of the
    /// result's bits: see [`Fit`](super::Fit).
    pub fn set_crossover(&mut self, bytes: u64) {
        self.crossover = bytes;
    }

    /// Where the others stand, and the verdict if one failed: for who talks to them beside these calls.
    pub fn watch(&self) -> Watch {
        self.transport.lock().unwrap_or_else(PoisonError::into_inner).watch().clone()
    }

    /// Bytes of payload that this rank has sent so far, in all groups.
    pub fn sent(&self) -> u64 {
        self.transport.lock().unwrap_or_else(PoisonError::into_inner).sent()
    }

    /// The part of `n` elements that belongs to `rank` in [`Communicator::reduce_scatter`].
    pub fn part(&self, rank: usize, n: usize) -> Range<usize> {
        part(rank, self.size(), n)
    }

    /// Sends `data` to rank `to`, which receives with the same `tag`. Returns when `data` may be used again.
    pub fn send<T: Element>(&mut self, to: usize, tag: u32, data: &[T]) -> Result<()> {
        self.other("send", "to", to)?;
        let tag = self.tag::<T>(Call::Send, data.len(), None, tag as usize);
        self.run(tag, |cx| cx.send(to, data))
    }

    /// Receives from rank `from` what it sends with the same `tag` and of the same length.
    pub fn recv<T: Element>(&mut self, from: usize, tag: u32, data: &mut [T]) -> Result<()> {
        self.other("recv", "from", from)?;
        let tag = self.tag::<T>(Call::Send, data.len(), None, tag as usize);
        self.run(tag, |cx| cx.recv(from, data, None))
    }

    /// Sends `out` to one rank and receives as much from another at the same time: MPI_Sendrecv.
    pub fn exchange<T: Element>(
        &mut self,
        to: usize,
        out: &[T],
        from: usize,
        data: &mut [T],
        tag: u32,
    ) -> Result<()> {
        self.other("exchange", "to", to)?;
        self.other("exchange", "from", from)?;
        if out.len() != data.len() {
            let what = format!("{} elements out and {} in, but both must be as many", out.len(), data.len());
            return Err(Error::shape("exchange", what));
        }
        let tag = self.tag::<T>(Call::Send, data.len(), None, tag as usize);
        self.run(tag, |cx| cx.exchange(to, out, from, data, None))
    }

    /// Returns when every rank has called it.
    pub fn barrier(&mut self) -> Result<()> {
        let tag = self.tag::<u8>(Call::Barrier, 0, None, 0);
        self.run(tag, tree::barrier)
    }

    /// Gives every rank what `root` has.
    pub fn broadcast<T: Element>(&mut self, x: &mut [T], root: usize) -> Result<()> {
        self.known("broadcast", "root", root)?;
        let tag = self.tag::<T>(Call::Broadcast, x.len(), None, root);
        self.run(tag, |cx| match tag.algorithm {
            Algorithm::Ring => ring::broadcast(cx, x, root),
            Algorithm::Tree => tree::broadcast(cx, x, root),
        })
    }

    /// Gives `root` the sum, maximum or mean over ranks of each element; `x` of the others holds what was on the way.
    pub fn reduce<T: Number>(&mut self, x: &mut [T], reduce: Reduce, root: usize) -> Result<()> {
        self.known("reduce", "root", root)?;
        allowed::<T>("reduce", reduce)?;
        let tag = self.tag::<T>(Call::Reduce, x.len(), Some(reduce), root);
        self.run(tag, |cx| match tag.algorithm {
            Algorithm::Ring => ring::reduce(cx, x, reduce, root),
            Algorithm::Tree => tree::reduce(cx, x, reduce, root),
        })
    }

    /// Gives every rank the sum, maximum or mean over ranks of each element: the same bits everywhere.
    pub fn all_reduce<T: Number>(&mut self, x: &mut [T], reduce: Reduce) -> Result<()> {
        allowed::<T>("all_reduce", reduce)?;
        let tag = self.tag::<T>(Call::AllReduce, x.len(), Some(reduce), 0);
        self.run(tag, |cx| match tag.algorithm {
            _ if let Some(done) = cx.by_the_transport(x, reduce) => done,
            Algorithm::Ring => ring::all_reduce(cx, x, reduce),
            Algorithm::Tree => tree::all_reduce(cx, x, reduce),
        })
    }

    /// Reduces over ranks, of which each gets its part of the result, in place: the range is returned, and the rest of `x`
    /// holds what was on the way.
    pub fn reduce_scatter<T: Number>(&mut self, x: &mut [T], reduce: Reduce) -> Result<Range<usize>> {
        allowed::<T>("reduce_scatter", reduce)?;
        let tag = self.tag::<T>(Call::ReduceScatter, x.len(), Some(reduce), 0);
        self.run(tag, |cx| ring::reduce_scatter(cx, x, reduce, 0))?;
        Ok(self.part(self.me, x.len()))
    }

    /// Gives every rank all parts of `x`, of which each has its own ([`Communicator::part`]): undoes the scattering of
    /// [`Communicator::reduce_scatter`].
    pub fn all_gather_parts<T: Element>(&mut self, x: &mut [T]) -> Result<()> {
        let tag = self.tag::<T>(Call::AllGather, x.len(), None, 0);
        self.run(tag, |cx| ring::all_gather(cx, x, 0))
    }

    /// The first half of [`Communicator::all_reduce`]: each rank gets its part of the result ([`Communicator::owned`]), with the
    /// bits that it has there, in place; the rest of `x` is scratch.
    pub fn all_reduce_part<T: Number>(&mut self, x: &mut [T], reduce: Reduce) -> Result<()> {
        allowed::<T>("all_reduce", reduce)?;
        let algorithm = self.tag::<T>(Call::AllReduce, x.len(), None, 0).algorithm;
        // A root that no reduce-scatter has: another call.
        let tag = Tag { algorithm, ..self.tag::<T>(Call::ReduceScatter, x.len(), Some(reduce), 1) };
        self.run(tag, |cx| match tag.algorithm {
            _ if let Some(done) = cx.by_the_transport(x, reduce) => done,
            Algorithm::Ring => ring::reduce_scatter(cx, x, reduce, 1),
            Algorithm::Tree => tree::all_reduce(cx, x, reduce),
        })
    }

    /// Sums over the tree of all shards, of which rank r has `dealt[r]`, and in `below` and `x` its sums of the largest subtrees in
    /// them, as [`Climb`](super::Climb) gives them. Gives every rank the sum in `x`, or, `scattered`, its part ([`Communicator::owned`]).
    /// The bits are the same however shards are dealt out.
    pub fn all_reduce_shards<T: Number>(
        &mut self,
        dealt: &[Range<usize>],
        below: &[&[T]],
        x: &mut [T],
        scattered: bool,
    ) -> Result<()> {
        let (call, name) =
            (if scattered { Call::ReduceScatter } else { Call::AllReduce }, shards::name(dealt));
        let tag = self.tag::<T>(call, x.len(), Some(Reduce::Sum), name as usize);
        self.run(tag, |cx| shards::all_reduce(cx, dealt, below, x, scattered))
    }

    /// The second half of [`Communicator::all_reduce`]: gives every rank all parts of `x`, of which each has its own
    /// ([`Communicator::owned`]), whatever became of them since.
    pub fn all_reduce_rest<T: Element>(&mut self, x: &mut [T]) -> Result<()> {
        let tag = self.tag::<T>(Call::AllGather, x.len(), None, 1);
        self.run(tag, |cx| ring::all_gather(cx, x, 1))
    }

    /// The part of `n` elements whose sum rank `rank` of `ranks` has between the halves of an all-reduce.
    pub fn owned(rank: usize, ranks: usize, n: usize) -> Range<usize> {
        part((rank + 1) % ranks, ranks, n)
    }

    /// Gives every rank the `mine` of all, one after the other in order of rank: `all` is that much longer.
    pub fn all_gather<T: Element>(&mut self, mine: &[T], all: &mut [T]) -> Result<()> {
        self.gather(Call::AllGather, mine, all)
    }

    fn gather<T: Element>(&mut self, call: Call, mine: &[T], all: &mut [T]) -> Result<()> {
        let (p, n) = (self.size(), mine.len());
        if all.len() != p * n {
            let what = format!("{} elements of {p} ranks each fill {}, not {}", n, p * n, all.len());
            return Err(Error::shape("all_gather", what));
        }
        all[self.me * n..][..n].copy_from_slice(mine);
        let tag = self.tag::<T>(call, all.len(), None, 0);
        self.run(tag, |cx| ring::all_gather(cx, all, 0))
    }

    /// Block j of `out` goes to rank j, and block j of `into` comes from it: a transposition over ranks.
    pub fn all_to_all<T: Element>(&mut self, out: &[T], into: &mut [T]) -> Result<()> {
        let (p, me) = (self.size(), self.me);
        if out.len() != into.len() || !out.len().is_multiple_of(p) {
            let what =
                format!("{} elements out and {} in are not {p} equal blocks each", out.len(), into.len());
            return Err(Error::shape("all_to_all", what));
        }
        let n = out.len() / p;
        let block = |i: usize| i * n..(i + 1) * n;
        let tag = self.tag::<T>(Call::AllToAll, out.len(), None, 0);
        into[block(me)].copy_from_slice(&out[block(me)]);
        self.run(tag, |cx| {
            (1..p).try_for_each(|step| {
                let (to, from) = ((me + step) % p, (me + p - step) % p);
                cx.exchange(to, &out[block(to)], from, &mut into[block(from)], None)
            })
        })
    }

    /// Cuts the group: ranks of one `color` make a group of their own, in order of `key`, then of rank. None joins none.
    pub fn split(&mut self, color: Option<u32>, key: i32) -> Result<Option<Communicator>> {
        let color = match color.map(i32::try_from) {
            None => -1,
            Some(Ok(c)) => c,
            Some(Err(_)) => return Err(Error::attr("split", "color", "must be less than 2^31")),
        };
        let mut all = vec![0; 2 * self.size()];
        let call = self.calls;
        self.gather(Call::Split, &[color, key], &mut all)?;
        if color < 0 {
            return Ok(None);
        }
        let mut members: Vec<usize> = (0..self.size()).filter(|&r| all[2 * r] == color).collect();
        members.sort_by_key(|&r| (all[2 * r + 1], r));
        Ok(Some(Communicator {
            transport: self.transport.clone(),
            me: members.iter().position(|&r| r == self.me).unwrap_or_default(), // it is one of them
            ranks: members.iter().map(|&r| self.ranks[r]).collect(),
            context: child(self.context, call, color),
            calls: 0,
            deadline: self.deadline,
            algorithm: self.algorithm,
            crossover: self.crossover,
        }))
    }

    fn known(&self, call: &str, name: &str, rank: usize) -> Result<()> {
        if rank < self.size() {
            return Ok(());
        }
        Err(Error::attr(call, name, format!("is rank {rank}, of {} ranks", self.size())))
    }

    fn other(&self, call: &str, name: &str, rank: usize) -> Result<()> {
        self.known(call, name, rank)?;
        if rank != self.me {
            return Ok(());
        }
        Err(Error::attr(call, name, format!("is rank {rank} itself, which has its data already")))
    }

    fn tag<T: Element>(&self, call: Call, count: usize, reduce: Option<Reduce>, root: usize) -> Tag {
        let short = (count * T::DTYPE.size()) as u64 <= self.crossover;
        let by_length = if short { Algorithm::Tree } else { Algorithm::Ring };
        let algorithm = match call {
            Call::AllReduce | Call::Reduce | Call::Broadcast => self.algorithm.unwrap_or(by_length),
            _ => Algorithm::Ring,
        };
        let sequence = if call == Call::Send { 0 } else { self.calls + 1 };
        let dtype = if call == Call::Barrier { DType::U8 } else { T::DTYPE };
        let (root, count) = (root as u32, count as u64);
        Tag { context: self.context, sequence, call, dtype, reduce, algorithm, root, count }
    }

    fn run(&mut self, tag: Tag, body: impl FnOnce(&mut Cx<'_>) -> Result<()>) -> Result<()> {
        let mut transport = self.transport.lock().unwrap_or_else(PoisonError::into_inner);
        transport.watch().check()?;
        if tag.call != Call::Send {
            self.calls += 1;
            transport.watch().enter(transport.rank(), tag);
        }
        if self.ranks.len() == 1 && tag.call != Call::Send {
            // Alone: what a rank has is the result; the mean over one is the number itself.
            return Ok(());
        }
        let transport = &mut **transport;
        body(&mut Cx { transport, ranks: &self.ranks, me: self.me, job: Job::new(tag, self.deadline) })
    }
}

/// A number for the group that `color` gets of the split that was call `call`: the same on all of its ranks, and not 0.
fn child(parent: u32, call: u64, color: i32) -> u32 {
    let name = format!("{parent} {call} {color}");
    let key = crate::rng::Key::named(0, &name);
    key.word(0) | 1
}

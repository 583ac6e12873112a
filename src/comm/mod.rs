//! Ranks that compute together: messages, and collectives made of them.
//!
//! A *rank* is a thread or process with a number; `world` of them run the same program on parts of the data. What they must
//! agree on (a gradient, say) goes through a [`Communicator`], whose names and meaning are MPI's. Underneath, a
//! [`Transport`] carries bytes.
//!
//! | file | holds |
//! |---|---|
//! | `communicator.rs` | [`Communicator`]: the calls |
//! | `ring.rs`, `tree.rs` | the algorithms; the ring by hand with three ranks |
//! | `shards.rs` | sums over a fixed tree, whichever rank has which leaves |
//! | `fit.rs` | [`Fit`]: what messages cost here, and whether ring or tree |
//! | `codec/` | [`codec`](mod@codec): sums of which fewer bytes are sent |
//! | `device_ring.rs` | [`DeviceRing`]: the ring between devices, without the host |
//! | `number.rs` | what can be reduced, and how |
//! | `cx.rs` | a collective under way: typed messages |
//! | `courier.rs`, `group.rs` | [`Courier`]: calls on a thread of their own; [`Group`]: of some of the ranks |
//! | `tag.rs` | [`Tag`]: which call, carried by each message |
//! | `watch.rs` | [`Watch`]: where every rank stands; the verdict when one fails |
//! | `transport.rs` | [`Transport`]: what carries bytes must do; waiting by a deadline |
//! | `threads.rs`, `lend.rs` | ranks that are threads of one process |
//! | `job.rs` | [`Place`]: which rank this is, by whatever launcher |
//! | `rendezvous.rs`, `hello.rs`, `secret.rs` | [`Meeting`]: how processes find each other, and keep strangers out |
//! | `control.rs`, `link.rs` | signs of life, and the verdict, beside the data |
//! | `pieces.rs`, `frame.rs` | messages in pieces with checksums |
//! | `tcp.rs` | ranks that are processes anywhere |
//! | `mpi.rs` | ranks that an MPI started (feature `mpi`) |
//! | `shm.rs`, `segment.rs`, `plane.rs` | ranks that are processes of one host |
//!
//! # What it costs
//!
//! A message of N bytes takes α + Nβ: α seconds to get going, whatever its length, and β for each byte. Sums cost γ a byte.
//!
//! | all-reduce of N bytes on p ranks | time |
//! |---|---|
//! | all to rank 0, and back | 2(p−1)(α + Nβ) + (p−1)Nγ |
//! | tree (recursive doubling) | ⌈log₂ p⌉(α + Nβ + Nγ) |
//! | ring | 2(p−1)α + 2((p−1)/p)Nβ + ((p−1)/p)Nγ |
//!
//! No algorithm moves less than 2((p−1)/p)N bytes a rank: each chunk must leave the ranks that do not own its sum, and come
//! back. The ring moves exactly that, so it wins when N is large; the tree waits least, so it wins when N is small. That
//! is also why *bus bandwidth*, 2((p−1)/p)N / time, is what `bench all-reduce` prints: it says how near the wires an
//! all-reduce comes, whatever p.
//!
//! # What it promises
//!
//! The bits of a result depend on the number of ranks, the values and their count, never on timing. A call ends by its
//! deadline. A rank that dies, stops, is cut off, or calls something else is an error on every other rank, which names it.
//!
//! ```
//! use ringtape::comm::{Reduce, threads};
//! let sums = threads::run(3, |mut world| {
//!     let mut x = vec![world.rank() as f32; 1000];
//!     world.all_reduce(&mut x, Reduce::Sum)?;
//!     Ok(x[999])
//! });
//! assert!(sums.into_iter().all(|s| s.unwrap() == 0.0 + 1.0 + 2.0));
//! ```

pub mod codec;
mod communicator;
mod control;
mod courier;
#[cfg(test)]
mod cuts;
mod cx;
pub mod device_ring;
#[cfg(test)]
mod faults;
mod fit;
mod frame;
mod group;
mod hello;
pub mod job;
mod lend;
mod link;
#[cfg(feature = "mpi")]
mod mpi;
mod number;
mod pieces;
mod plane;
mod rendezvous;
mod ring;
pub mod secret;
mod segment;
mod shards;
mod shm;
mod tag;
mod tcp;
pub mod threads;
mod transport;
mod tree;
mod watch;

pub use communicator::{CROSSOVER, Communicator, DEADLINE};
pub use courier::{Courier, Promise};
pub use device_ring::DeviceRing;
pub use fit::Fit;
pub use group::Group;
pub use job::Place;
pub use number::Number;
pub use rendezvous::{Meeting, Way};
pub use secret::Secret;
pub use shards::Climb;
pub use tag::{Algorithm, Call, Reduce, Tag};
pub use transport::{Combine, Incoming, Job, Outgoing, Transport};
pub use watch::{Failure, Suspicion, Watch};

/// What is to be done by the thread that joined, after all went well: MPI wants to be ended.
pub fn leave() {
    #[cfg(feature = "mpi")]
    mpi::leave();
}

//! [`Group`]: some of the ranks of a world, whose calls go by the world's courier.

use super::communicator::Communicator;
use super::courier::{Courier, Promise};
use super::device_ring::DeviceRing;
use super::number::Number;
use super::tag::Reduce;
use crate::error::Result;
use crate::shape::DType;
use crate::tensor::Tensor;
use std::sync::{Arc, Mutex, PoisonError};

/// Ranks that talk while they compute: all of a world, or those that [`Group::split`] puts together. `clone` is cheap.
///
/// The calls of all groups of a rank are done one after the other, in the order in which they were given, whichever group they
/// are for. So ranks that give their calls in the order of one program never wait for each other in a circle, in whatever
/// groups they meet.
#[derive(Clone)]
pub struct Group {
    courier: Arc<Courier>,
    /// None: the world. The courier's errands alone lock it.
    part: Option<Arc<Mutex<Communicator>>>,
    /// Between the devices of these ranks.
    ring: Option<Arc<Mutex<DeviceRing>>>,
    rank: usize,
    size: usize,
}

impl Group {
    /// All ranks of `world`, which goes to a thread of its own.
    ///
    /// # Errors
    /// When the system starts no thread.
    pub fn of(world: Communicator) -> Result<Group> {
        let (rank, size) = (world.rank(), world.size());
        Ok(Group { courier: Arc::new(Courier::new(world)?), part: None, ring: None, rank, size })
    }

    /// [`Communicator::split`]: the ranks of one `color`, in order of `key`.
    ///
    /// # Errors
    /// Those of the call.
    pub fn split(&self, color: u32, key: i32) -> Result<Group> {
        let part = self.call(move |c| c.split(Some(color), key))?;
        let (rank, size) = part.as_ref().map_or((0, 1), |c| (c.rank(), c.size()));
        let part = part.map(|c| Arc::new(Mutex::new(c)));
        Ok(Group { courier: self.courier.clone(), part, ring: None, rank, size })
    }

    /// The same ranks, whose devices `ring` joins.
    pub fn with_ring(self, ring: DeviceRing) -> Group {
        Group { ring: Some(Arc::new(Mutex::new(ring))), ..self }
    }

    /// The ring between their devices.
    pub fn ring(&self) -> Option<Arc<Mutex<DeviceRing>>> {
        self.ring.clone()
    }

    /// The sum of `x` over the ranks: round the ring between their devices where there is one, else by way of the host.
    ///
    /// # Errors
    /// Those of the call, and of the device.
    pub fn sum(&self, x: &Tensor) -> Result<Tensor> {
        match self.ring() {
            Some(ring) if x.dtype() == DType::F32 && !x.device().is_host() => {
                let mut sum = x.deep_clone()?;
                self.call(move |_| {
                    ring.lock().unwrap_or_else(PoisonError::into_inner).all_reduce(&mut sum)?;
                    Ok(sum)
                })
            }
            _ => self.reduced(x, Reduce::Sum),
        }
    }

    /// `x` of all ranks as one, by way of the host.
    ///
    /// # Errors
    /// Those of the call, and of the device.
    pub fn reduced(&self, x: &Tensor, reduce: Reduce) -> Result<Tensor> {
        match x.dtype() {
            DType::F64 => self.reduced_of::<f64>(x, reduce),
            _ => self.reduced_of::<f32>(x, reduce),
        }
    }

    fn reduced_of<T: Number>(&self, x: &Tensor, reduce: Reduce) -> Result<Tensor> {
        let mut all = x.to_host()?.as_slice::<T>()?.to_vec();
        let all = self.call(move |c| c.all_reduce(&mut all, reduce).map(|()| all))?;
        Tensor::from_slice(x.device(), &all, x.dims())
    }

    /// Number of this rank in the group, from 0.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Number of ranks in the group.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Has `errand` done after those before it, and returns at once.
    pub fn send<R: Send + 'static>(
        &self,
        errand: impl FnOnce(&mut Communicator) -> Result<R> + Send + 'static,
    ) -> Promise<R> {
        match self.part.clone() {
            None => self.courier.send(errand),
            Some(part) => {
                self.courier.send(move |_| errand(&mut part.lock().unwrap_or_else(PoisonError::into_inner)))
            }
        }
    }

    /// [`Group::send`], and waits.
    ///
    /// # Errors
    /// Those of `errand`.
    pub fn call<R: Send + 'static>(
        &self,
        errand: impl FnOnce(&mut Communicator) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        self.send(errand).wait()
    }
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "rank {} of {}", self.rank, self.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::threads;

    #[test]
    fn groups_of_one_world_keep_apart_and_their_calls_keep_their_order() {
        // A grid of 2 × 3: rows and columns sum at once, ranks of a column begin with its sum while those of others wait.
        let found = threads::run(6, |world| {
            let all = Group::of(world)?;
            let (row, column) = (all.rank() / 3, all.rank() % 3);
            let (rows, columns) = (all.split(row as u32, 0)?, all.split(column as u32, 0)?);
            assert_eq!((rows.rank(), rows.size(), columns.rank(), columns.size()), (column, 3, row, 2));
            let sum = |group: &Group, x: f32| {
                group.send(move |c| {
                    let mut x = [x];
                    c.all_reduce(&mut x, Reduce::Sum).map(|()| x[0])
                })
            };
            let me = all.rank() as f32;
            let sums = [sum(&columns, me), sum(&rows, me), sum(&all, me), sum(&columns, 1.0)];
            sums.into_iter().map(Promise::wait).collect::<Result<Vec<_>>>()
        });
        for (rank, sums) in found.into_iter().enumerate() {
            let (row, column) = ((rank / 3) as f32, (rank % 3) as f32);
            assert_eq!(sums.unwrap(), [2.0 * column + 3.0, 9.0 * row + 3.0, 15.0, 2.0]);
        }
    }
}

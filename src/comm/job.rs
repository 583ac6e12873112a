//! Which rank is this, of how many, and where is rank 0? Launchers say so by environment variables, and by nothing else, so
//! none of them needs to be linked.
//!
//! | launcher | rank | world | rank on this host |
//! |---|---|---|---|
//! | `ringtape launch`, torchrun | `RANK` | `WORLD_SIZE` | `LOCAL_RANK` |
//! | Slurm (`srun`) | `SLURM_PROCID` | `SLURM_NTASKS` | `SLURM_LOCALID` |
//! | OpenMPI (`mpirun`) | `OMPI_COMM_WORLD_RANK` | `OMPI_COMM_WORLD_SIZE` | `OMPI_COMM_WORLD_LOCAL_RANK` |
//! | MPICH and other PMI | `PMI_RANK` | `PMI_SIZE` | `MPI_LOCALRANKID` |
//!
//! The first row whose rank is set counts. Rank 0 listens at `MASTER_ADDR`:`MASTER_PORT` (127.0.0.1:29400 when they
//! are not set). Under torchrun the port is taken by its own store, so ours is the next.

use super::communicator::Communicator;
use super::plane::Plane;
use super::rendezvous::{Meeting, Way, meet};
use super::secret::Secret;
use super::shm::Shm;
use super::tcp::Tcp;
use crate::error::{Error, Result};
use std::time::Duration;

/// Rows of the table above.
const LAUNCHERS: [[&str; 3]; 4] = [
    ["RANK", "WORLD_SIZE", "LOCAL_RANK"],
    ["SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"],
    ["OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"],
    ["PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"],
];
/// Port of rank 0 when none is named.
const PORT: u16 = 29_400;
/// Set by torchrun.
const TORCHRUN: &str = "TORCHELASTIC_RUN_ID";
/// Variable that chooses the way of the data: `auto`, `shm` or `tcp`; `mpi` or `mpi-sums` with the feature `mpi`.
pub const TRANSPORT: &str = "RINGTAPE_TRANSPORT";
/// Variable with the seconds that all ranks may take to come.
pub const TIMEOUT: &str = "RINGTAPE_TIMEOUT";
/// Variable with the seconds of silence after which a rank counts as stopped or cut off.
pub const SILENCE: &str = "RINGTAPE_SILENCE";

/// The place of this process in a job.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// Number of this rank.
    pub rank: usize,
    /// Number of ranks.
    pub world: usize,
    /// Number of this rank among those of its host.
    pub local: usize,
    /// Where rank 0 listens, `host:port`.
    pub address: String,
}

impl Place {
    /// From the environment, by `get` of a variable's name; None where no launcher says which rank this is: a Slurm allocation
    /// tells its shell how many tasks it is for, and makes it none of them. A rank without a world is an error.
    pub fn from_variables(get: impl Fn(&str) -> Option<String>) -> Result<Option<Place>> {
        let number = |name: &str| -> Result<Option<usize>> {
            let parse = |text: String| {
                let wrong = || Error::Usage(format!("{name}={text} is no number"));
                text.trim().parse().map_err(|_| wrong())
            };
            get(name).map(parse).transpose()
        };
        for [rank, world, local] in LAUNCHERS {
            let (r, w) = match (number(rank)?, number(world)?) {
                (None, _) => continue,
                (Some(r), Some(w)) => (r, w),
                (_, None) => return Err(Error::Usage(format!("{rank} is set, but {world} is not"))),
            };
            if r >= w || w > u32::MAX as usize {
                return Err(Error::Usage(format!("{rank}={r} is no rank of {world}={w}")));
            }
            let local = number(local)?.unwrap_or(r);
            return Ok(Some(Place { rank: r, world: w, local, address: address(&get)? }));
        }
        Ok(None)
    }
}

fn address(get: &impl Fn(&str) -> Option<String>) -> Result<String> {
    let host = get("MASTER_ADDR").unwrap_or_else(|| "127.0.0.1".into());
    let port = match get("MASTER_PORT") {
        None => PORT,
        Some(text) => {
            let wrong = || Error::Usage(format!("MASTER_PORT={text} is no port"));
            let port: u16 = text.trim().parse().map_err(|_| wrong())?;
            if get(TORCHRUN).is_some() { port.checked_add(1).ok_or_else(wrong)? } else { port }
        }
    };
    // An address of IPv6 stands in brackets before a port.
    Ok(if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
}

fn seconds(get: &impl Fn(&str) -> Option<String>, name: &str, default: f64) -> Result<Duration> {
    let value = match get(name) {
        None => Some(default),
        Some(text) => text.trim().parse().ok().filter(|s| (0.1..=86_400.0).contains(s)),
    };
    value.map(Duration::from_secs_f64).ok_or_else(|| Error::Usage(format!("{name} is no number of seconds")))
}

impl Meeting {
    /// As the environment says, for ranks that agree in `config` and `dataset` (hashes, or any text).
    pub fn from_variables(
        place: &Place,
        config: &str,
        dataset: &str,
        get: impl Fn(&str) -> Option<String>,
    ) -> Result<Meeting> {
        let plane = match get(TRANSPORT).as_deref() {
            None | Some("auto") => None,
            Some("shm") => Some(Way::Shm),
            Some("tcp") => Some(Way::Tcp),
            Some(name @ ("mpi" | "mpi-sums")) if cfg!(feature = "mpi") => {
                Some(if name == "mpi" { Way::Mpi } else { Way::MpiSums })
            }
            Some(other) => {
                let ways = "auto, shm or tcp, and mpi or mpi-sums in a build with --features mpi";
                return Err(Error::Usage(format!("{TRANSPORT}={other}: {ways}")));
            }
        };
        Ok(Meeting {
            rank: place.rank,
            world: place.world,
            address: place.address.clone(),
            secret: Secret::from_variables(&get)?,
            config: config.into(),
            dataset: dataset.into(),
            timeout: seconds(&get, TIMEOUT, 60.0)?,
            plane,
            silence: seconds(&get, SILENCE, 2.0)?,
        })
    }

    /// Meets the other ranks. Errors of the rendezvous have exit code 3.
    pub fn join(&self) -> Result<Communicator> {
        let mut party = meet(self)?;
        match (&party.table.plane, party.shared.take()) {
            (Plane::Shm { .. }, Some(shared)) => Ok(Communicator::new(Shm::new(self, party, shared)?)),
            #[cfg(feature = "mpi")]
            (&Plane::Mpi(sums), _) => Ok(Communicator::new(super::mpi::Mpi::new(self, party, sums)?)),
            _ => Ok(Communicator::new(Tcp::new(self, party)?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(set: &[(&str, &str)]) -> Result<Option<Place>> {
        Place::from_variables(|name| set.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).into()))
    }

    #[test]
    fn every_launcher_is_understood_and_the_first_counts() {
        assert_eq!(place(&[]).unwrap(), None);
        for [r, w, l] in LAUNCHERS {
            let found = place(&[(r, "2"), (w, "4"), (l, "1")]).unwrap().unwrap();
            assert_eq!((found.rank, found.world, found.local), (2, 4, 1), "{r}");
            assert_eq!(found.address, "127.0.0.1:29400");
            assert!(place(&[(r, "2")]).unwrap_err().to_string().contains(w));
            assert_eq!(place(&[(w, "2")]).unwrap(), None);
            assert!(place(&[(r, "4"), (w, "4")]).is_err() && place(&[(r, "x"), (w, "4")]).is_err());
        }
        let both = [("PMI_RANK", "0"), ("PMI_SIZE", "1"), ("RANK", "3"), ("WORLD_SIZE", "5")];
        assert_eq!(place(&both).unwrap().unwrap().rank, 3);
    }

    #[test]
    fn the_port_is_the_next_under_torchrun() {
        let set = [("RANK", "0"), ("WORLD_SIZE", "1"), ("MASTER_ADDR", "::1"), ("MASTER_PORT", "500")];
        assert_eq!(place(&set).unwrap().unwrap().address, "[::1]:500");
        let mut all = set.to_vec();
        all.push((TORCHRUN, "x"));
        assert_eq!(place(&all).unwrap().unwrap().address, "[::1]:501");
        all[3] = ("MASTER_PORT", "65535");
        assert!(place(&all).is_err());
    }
}

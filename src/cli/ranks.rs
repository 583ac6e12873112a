//! This program again, as ranks of a job on this host.

use crate::comm::{Place, Secret, secret};
use crate::error::{Error, Result};
use std::ffi::OsStr;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

/// Where a new job meets, and its secret.
pub(super) struct Job {
    pub(super) world: usize,
    pub(super) address: String,
    pub(super) secret: String,
}

impl Job {
    /// A job of `world` ranks that meets at a port of this host that is free, or at `port`.
    pub(super) fn new(world: usize, port: Option<u16>) -> Result<Job> {
        const HERE: &str = "127.0.0.1";
        let free = || TcpListener::bind((HERE, 0)).and_then(|l| l.local_addr()).map(|a| a.port());
        let port = match port {
            Some(port) => port,
            None => free().map_err(|e| Error::Rendezvous(format!("no port is free: {e}")))?,
        };
        let known = [secret::VARIABLE, secret::FILE].iter().any(|name| std::env::var_os(name).is_some());
        let secret = match known {
            true => String::new(),
            false => Secret::draw()?,
        };
        Ok(Job { world, address: format!("{HERE}:{port}"), secret })
    }

    /// Variables that tell a process that it is `rank`; a secret that the user set stays.
    pub(super) fn variables(&self, rank: usize) -> Vec<(&'static str, String)> {
        let (host, port) = self.address.split_once(':').unwrap_or_default();
        let mut set = vec![
            ("RANK", rank.to_string()),
            ("WORLD_SIZE", self.world.to_string()),
            ("LOCAL_RANK", rank.to_string()),
            ("MASTER_ADDR", host.to_string()),
            ("MASTER_PORT", port.to_string()),
        ];
        if !self.secret.is_empty() {
            set.push((secret::VARIABLE, self.secret.clone()));
        }
        set
    }

    pub(super) fn place(&self, rank: usize) -> Place {
        Place { rank, world: self.world, local: rank, address: self.address.clone() }
    }

    /// This program with `args`, as `rank`: in a process group of its own, so that a signal of the terminal reaches the one
    /// who launched it alone, who passes it on once. Ranks share the processors, unless the user said how many threads.
    pub(super) fn command<S: AsRef<OsStr>>(&self, rank: usize, args: &[S]) -> Result<Command> {
        use std::os::unix::process::CommandExt;
        let program = std::env::current_exe().map_err(|e| Error::io("this program", e))?;
        let mut command = Command::new(program);
        command.args(args).envs(self.variables(rank)).stdin(Stdio::null()).process_group(0);
        // Set by torchrun around us, it would move the port.
        command.env_remove("TORCHELASTIC_RUN_ID");
        if std::env::var_os("RAYON_NUM_THREADS").is_none() {
            let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
            command.env("RAYON_NUM_THREADS", (cores / self.world).max(1).to_string());
        }
        Ok(command)
    }
}

/// Starts it.
pub(super) fn start(command: &mut Command, rank: usize) -> Result<Child> {
    command.spawn().map_err(|e| Error::Usage(format!("rank {rank} cannot be started: {e}")))
}

/// Processes that do not outlive their holder.
#[derive(Default)]
pub(super) struct Children(pub(super) Vec<Child>);

impl Drop for Children {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // One that has ended is not harmed.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

//! Ranks that are processes: this program starts itself, once for each rank, with a variable that names what to do.

use super::suite;
use ringtape::comm::{Communicator, Meeting, Place, Reduce};
use ringtape::error::Result;
use std::io::Read;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Names what a rank does; absent in the test program itself.
pub const BODY: &str = "RINGTAPE_TEST_BODY";
pub const WAYS: [&str; 2] = ["shm", "tcp"];
pub const SECRET: &str = "a secret of tests";

/// What rank 2 calls instead of what the others call, and both as errors have them.
pub const ODD: [(&str, [&str; 2]); 6] = [
    (
        "differ",
        ["all_reduce(sum) of 3000 f32 by ring, call 2", "all_reduce(sum) of 4000 f32 by ring, call 2"],
    ),
    (
        "odd type",
        ["all_reduce(sum) of 4000 i32 by ring, call 2", "all_reduce(sum) of 4000 f32 by ring, call 2"],
    ),
    ("odd reduction", ["all_reduce(max) of 4000 f32", "all_reduce(sum) of 4000 f32"]),
    // A root is through once its messages have gone, and may be in the call after it.
    ("odd root", ["", "broadcast of 4000 f32 with root 1"]),
    ("odd call", ["reduce(sum) of 4000 f32 with root 0", "all_reduce(sum) of 4000 f32"]),
    ("odd order", ["barrier, call 2", "all_reduce(sum) of 4000 f32 by ring, call 2"]),
];

fn body(name: &str, mut world: Communicator) -> Result<()> {
    match name {
        "everything" => suite::everything(world),
        // Until somebody fails.
        "forever" => loop {
            world.all_reduce(&mut vec![1f32; 300_000], Reduce::Sum)?;
        },
        // As above; rank 1 stays away for longer than the limit of silence every now and then, but lives.
        "slowly" => {
            for i in 0..3 {
                if world.rank() == 1 {
                    std::thread::sleep(Duration::from_millis(900 + i));
                }
                world.all_reduce(&mut vec![1f32; 3000], Reduce::Sum)?;
            }
            Ok(())
        }
        // A hundred short steps, each as long as rank 1 takes; another sum would be seen.
        "steps" => {
            for step in 0..100 {
                if world.rank() == 1 {
                    std::thread::sleep(Duration::from_millis(20));
                }
                let mut x = vec![(step + world.rank()) as f32; 10_000];
                world.all_reduce(&mut x, Reduce::Sum)?;
                let (p, sum) = (world.size(), x[9_999] as usize);
                assert_eq!(sum, p * step + p * (p - 1) / 2);
            }
            Ok(())
        }
        "differ" => {
            world.barrier()?;
            let n = if world.rank() == 2 { 3000 } else { 4000 };
            world.all_reduce(&mut vec![1f32; n], Reduce::Sum)?;
            world.barrier()
        }
        // As above, but for what rank 2 calls: see [`ODD`].
        "odd type" | "odd reduction" | "odd root" | "odd call" | "odd order" => {
            world.barrier()?;
            let mut x = vec![1f32; 4000];
            match (world.rank(), name) {
                (2, "odd type") => world.all_reduce(&mut vec![1i32; 4000], Reduce::Sum)?,
                (2, "odd reduction") => world.all_reduce(&mut x, Reduce::Max)?,
                (2, "odd call") => world.reduce(&mut x, Reduce::Sum, 0)?,
                (2, "odd order") => world.barrier()?,
                (2, _) => world.broadcast(&mut x, 2)?,
                (_, "odd root") => world.broadcast(&mut x, 1)?,
                _ => world.all_reduce(&mut x, Reduce::Sum)?,
            }
            world.barrier()
        }
        "crosswise" => {
            world.set_deadline(Duration::from_secs(20));
            // All but rank 1 wait round the ring for it, and it waits for rank 3.
            match world.rank() {
                1 => world.broadcast(&mut [0f32; 9000], 3)?,
                _ => world.all_reduce(&mut [0f32; 9000], Reduce::Sum)?,
            }
            world.barrier()
        }
        "meet" => world.barrier(),
        "sums" => {
            let (p, me) = (world.size(), world.rank());
            let mut x = suite::values(me, 5000);
            world.all_reduce(&mut x, Reduce::Mean)?;
            let all: Vec<Vec<f32>> = (0..p).map(|r| suite::values(r, 5000)).collect();
            for (i, x) in x.iter().enumerate() {
                let each = || all.iter().map(|v| f64::from(v[i]));
                let (mean, size) = (each().sum::<f64>() / p as f64, each().map(f64::abs).sum::<f64>());
                assert!((f64::from(*x) - mean).abs() <= 1e-6 * size, "{i}: {x}, not {mean}");
            }
            Ok(())
        }
        other => panic!("no body is named {other}"),
    }
}

/// A rank's `main`. Does nothing in the test program itself.
#[test]
fn rank() {
    let Ok(name) = std::env::var(BODY) else { return };
    let get = |name: &str| std::env::var(name).ok();
    let joined = || -> Result<Communicator> {
        let place = Place::from_variables(get)?.expect("the test has set one");
        let config = get("TEST_CONFIG").unwrap_or_default();
        Meeting::from_variables(&place, &config, &get("TEST_DATASET").unwrap_or_default(), get)?.join()
    };
    let done = joined().and_then(|world| {
        eprintln!("joined");
        body(&name, world)
    });
    if let Err(e) = done {
        eprintln!("error: {e}");
        std::process::exit(e.exit_code());
    }
    ringtape::comm::leave();
    std::process::exit(0);
}

/// A port that was free a moment ago.
pub fn port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Processes that are killed when a test ends early.
pub struct Job(pub Vec<Option<Child>>);

impl Drop for Job {
    fn drop(&mut self) {
        for child in self.0.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A rank of `world`, not yet started.
pub fn command(body: &str, way: &str, port: u16, rank: usize, world: usize) -> Command {
    let mut c = Command::new(std::env::current_exe().unwrap());
    c.args(["--exact", "processes::rank", "--nocapture"]);
    c.env(BODY, body).env("RINGTAPE_TRANSPORT", way).env("RINGTAPE_SECRET", SECRET);
    c.env("RANK", rank.to_string()).env("WORLD_SIZE", world.to_string());
    c.env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", port.to_string());
    c.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    c
}

pub fn start(body: &str, way: &str, world: usize) -> Job {
    let port = port();
    Job((0..world).map(|r| Some(command(body, way, port, r, world).spawn().unwrap())).collect())
}

impl Job {
    pub fn id(&self, rank: usize) -> u32 {
        self.0[rank].as_ref().unwrap().id()
    }

    pub fn signal(&self, rank: usize, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.id(rank).to_string()]).status();
        assert!(sent.unwrap().success());
    }

    /// Waits until every rank has met the others.
    #[track_caller]
    pub fn joined(&mut self) {
        for (rank, child) in self.0.iter_mut().enumerate() {
            let words = child.as_mut().unwrap().stderr.as_mut().unwrap();
            let mut said = Vec::new();
            let mut byte = [0];
            while !said.ends_with(b"joined\n") {
                let n = words.read(&mut byte).unwrap();
                assert!(n == 1, "rank {rank} did not join: {}", String::from_utf8_lossy(&said));
                said.push(byte[0]);
            }
        }
    }

    /// Exit code and words of `rank`; panics when it has not ended after `limit`.
    #[track_caller]
    pub fn end(&mut self, rank: usize, limit: Duration) -> (Option<i32>, String) {
        let start = Instant::now();
        while self.0[rank].as_mut().unwrap().try_wait().unwrap().is_none() {
            assert!(start.elapsed() < limit, "rank {rank} runs on after {limit:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
        let Output { status, stderr, .. } = self.0[rank].take().unwrap().wait_with_output().unwrap();
        (status.code(), String::from_utf8_lossy(&stderr).into_owned())
    }

    /// Every rank but `without` ends within `limit` of now by exit code `code` and says all of `words`.
    #[track_caller]
    pub fn all_end(
        &mut self,
        without: Option<usize>,
        limit: Duration,
        code: i32,
        words: &[&str],
    ) -> Duration {
        let start = Instant::now();
        for rank in (0..self.0.len()).filter(|r| Some(*r) != without) {
            let (ended, said) =
                self.end(rank, limit.saturating_sub(start.elapsed()) + Duration::from_millis(1));
            assert_eq!(ended, Some(code), "rank {rank}: {said}");
            for word in words {
                assert!(said.contains(word), "rank {rank} does not say `{word}`: {said}");
            }
        }
        start.elapsed()
    }
}

const LONG: Duration = Duration::from_secs(120);

#[test]
fn collectives_between_processes_through_shared_memory() {
    for p in [1, 2, 3, 5] {
        start("everything", "shm", p).all_end(None, LONG, 0, &[]);
    }
}

#[test]
fn collectives_between_processes_over_tcp() {
    for p in [1, 2, 3, 5] {
        start("everything", "tcp", p).all_end(None, LONG, 0, &[]);
    }
}

#[test]
fn a_slow_rank_is_waited_for() {
    for way in WAYS {
        let port = port();
        let one = |r| {
            let mut c = command("slowly", way, port, r, 3);
            Some(c.env("RINGTAPE_SILENCE", "0.5").spawn().unwrap())
        };
        Job((0..3).map(one).collect()).all_end(None, LONG, 0, &[]);
    }
}

//! Ranks that are threads.

use super::suite::{self, all_ok, bits, ring_fold, values};
use ringtape::comm::{Algorithm, Communicator, Incoming, Job, Outgoing, Reduce, Transport, Watch, threads};
use ringtape::error::{Error, Result};
use ringtape::rng::{Key, Rng};
use std::time::{Duration, Instant};

#[test]
fn collectives_on_1_2_3_5_and_8_threads() {
    for p in [1, 2, 3, 5, 8] {
        suite::all(&|p, body| threads::run(p, body), p);
    }
}

/// Sleeps before and after what it passes on, drawn by rank.
struct Delayed<T>(T, Rng);

impl<T> Delayed<T> {
    fn sleep(&mut self) {
        std::thread::sleep(Duration::from_micros(self.1.below(3000)));
    }
}

impl<T: Transport> Transport for Delayed<T> {
    fn rank(&self) -> usize {
        self.0.rank()
    }
    fn world(&self) -> usize {
        self.0.world()
    }
    fn watch(&self) -> &Watch {
        self.0.watch()
    }
    fn sent(&self) -> u64 {
        self.0.sent()
    }
    fn exchange(&mut self, job: &Job, out: Option<Outgoing<'_>>, into: Option<Incoming<'_>>) -> Result<()> {
        self.sleep();
        let done = self.0.exchange(job, out, into);
        self.sleep();
        done
    }
}

/// Runs each transport in a thread of its own.
fn each<T: Transport + 'static>(
    transports: Vec<T>,
    body: impl Fn(Communicator) -> Result<()> + Sync,
) -> Vec<Result<()>> {
    std::thread::scope(|s| {
        let body = &body;
        let all: Vec<_> =
            transports.into_iter().map(|t| s.spawn(move || body(Communicator::new(t)))).collect();
        all.into_iter().map(|t| t.join().unwrap()).collect()
    })
}

#[test]
fn delays_change_no_bit() {
    for seed in 0..5 {
        let slow = |t: threads::Threads| {
            let rng = Key::new(seed, t.rank() as u64).rng();
            Delayed(t, rng)
        };
        let all = threads::open(5).into_iter().map(slow).collect();
        all_ok(each(all, |mut world| {
            for n in [3, 1009] {
                world.set_algorithm(Some(Algorithm::Ring));
                let mut x = values(world.rank(), n);
                world.all_reduce(&mut x, Reduce::Sum)?;
                assert_eq!(bits(&x), bits(&ring_fold(5, n, Reduce::Sum)));
                world.set_algorithm(Some(Algorithm::Tree));
                let mut x = values(world.rank(), n);
                world.all_reduce(&mut x, Reduce::Sum)?;
                assert_eq!(bits(&x), bits(&suite::tree_fold(5, n)));
            }
            Ok(())
        }));
    }
}

/// What a rank other than the rest calls, and a word of it.
type Odd = (&'static str, fn(&mut Communicator) -> Result<()>);

#[test]
fn whoever_calls_something_else_is_told_with_both_calls() {
    let odd: [Odd; 8] = [
        ("rank 2 calls all_reduce(sum) of 101 f32", |w| w.all_reduce(&mut [0f32; 101], Reduce::Sum)),
        ("rank 2 calls all_reduce(sum) of 5000 f32 by ring", |w| {
            w.all_reduce(&mut vec![0f32; 5000], Reduce::Sum)
        }),
        ("rank 2 calls all_reduce(max) of 100 f32", |w| w.all_reduce(&mut [0f32; 100], Reduce::Max)),
        ("rank 2 calls all_reduce(sum) of 100 i32", |w| w.all_reduce(&mut [0i32; 100], Reduce::Sum)),
        ("rank 2 calls broadcast of 100 f32 with root 0", |w| w.broadcast(&mut [0f32; 100], 0)),
        ("rank 2 calls broadcast of 100 f32 with root 2", |w| w.broadcast(&mut [0f32; 100], 2)),
        ("rank 2 calls barrier, call 1", |w| w.barrier()),
        ("rank 2 calls all_to_all of 100 f32", |w| w.all_to_all(&[0f32; 100], &mut [0f32; 100])),
    ];
    for (words, call) in odd {
        let start = Instant::now();
        let results = threads::run(4, |mut world| {
            // Whoever got through its part of the first meets the others in the second.
            match world.rank() {
                2 => call(&mut world)?,
                _ => world.all_reduce(&mut [1f32; 100], Reduce::Sum)?,
            }
            world.barrier()
        });
        for (rank, r) in results.into_iter().enumerate() {
            let e = r.expect_err(words);
            assert!(matches!(e, Error::RanksDisagree(_)) && e.exit_code() == 17, "rank {rank}: {e}");
            let text = e.to_string();
            assert!(
                text.contains(words) && text.contains("all_reduce(sum) of 100 f32 by tree"),
                "{rank}: {text}"
            );
        }
        assert!(start.elapsed() < Duration::from_secs(1), "{words}: {:?}", start.elapsed());
    }
}

/// Both sides of a message.
#[test]
fn messages_of_other_lengths_and_tags_are_errors_of_both() {
    for (tag, n, words) in [(3, 5, "send of 5 f32 with tag 3"), (4, 6, "send of 6 f32 with tag 4")] {
        let results = threads::run(2, |mut world| match world.rank() {
            0 => world.send(1, tag, &vec![0f32; n]),
            _ => world.recv(0, 3, &mut [0f32; 6]),
        });
        for r in results {
            let e = r.unwrap_err().to_string();
            assert!(e.contains(words) && e.contains("send of 6 f32 with tag 3"), "{e}");
        }
    }
}

#[track_caller]
fn names(results: Vec<Result<()>>, culprit: usize, words: &str) {
    for (rank, r) in results.into_iter().enumerate().filter(|(rank, _)| *rank != culprit) {
        let e = r.expect_err("the others cannot go on");
        assert_eq!(e.exit_code(), 17, "{e}");
        let named = matches!(e, Error::RankFailed { rank, .. } if rank == culprit);
        assert!(named && e.to_string().contains(words), "rank {rank}: {e}");
    }
}

#[test]
fn a_late_rank_is_named_by_all_at_the_deadline() {
    let start = Instant::now();
    let results = threads::run(5, |mut world| {
        world.set_deadline(Duration::from_millis(400));
        world.barrier()?;
        if world.rank() == 3 {
            std::thread::sleep(Duration::from_millis(1200));
        }
        world.all_reduce(&mut vec![1f32; 9000], Reduce::Sum)
    });
    // Rank 3 comes to a job that is over.
    assert!(results[3].as_ref().is_err_and(|e| e.to_string().starts_with("rank 3 failed")));
    names(results, 3, "did not come to all_reduce(sum) of 9000 f32 by ring, call 2 within 0.4 s");
    assert!(start.elapsed() < Duration::from_millis(1900), "{:?}", start.elapsed());
}

#[test]
fn a_rank_that_leaves_is_named_by_all_at_once() {
    let start = Instant::now();
    let results = threads::run(5, |mut world| {
        world.barrier()?;
        if world.rank() == 1 {
            return Ok(());
        }
        world.all_reduce(&mut vec![1f32; 9000], Reduce::Sum)
    });
    names(results, 1, "it has left");
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

#[test]
fn a_rank_that_panics_is_named_by_all() {
    let results = std::sync::Mutex::new(Vec::new());
    let panicked = std::panic::catch_unwind(|| {
        threads::run(3, |mut world| {
            let rank = world.rank();
            if rank == 2 {
                panic!("planted");
            }
            results.lock().unwrap().push(world.barrier());
            Ok(())
        })
    });
    assert!(panicked.is_err());
    names(results.into_inner().unwrap(), 2, "its thread panicked");
}

/// A rank may leave while others are still at work with each other.
#[test]
fn leaving_early_is_no_failure_where_nobody_waits() {
    all_ok(threads::run(3, |mut world| {
        let half = world.split((world.rank() < 2).then_some(0), 0)?;
        drop(world);
        let Some(mut half) = half else { return Ok(()) };
        std::thread::sleep(Duration::from_millis(20));
        half.all_reduce(&mut vec![1f32; 9000], Reduce::Sum)
    }));
}

/// Rank 1 has what it waits for and goes, while rank 0 still waits for rank 2.
#[test]
fn a_rank_that_has_read_its_message_may_leave_while_others_go_on() {
    for _ in 0..20 {
        let ends = threads::run(3, |mut world| {
            let mut x = [0.0f32];
            match world.rank() {
                0 => world.exchange(1, &[1.0], 2, &mut x, 7)?,
                1 => world.recv(0, 7, &mut x)?,
                _ => {
                    std::thread::sleep(Duration::from_millis(20));
                    world.send(0, 7, &[2.0f32])?;
                }
            }
            Ok(x[0])
        });
        let got: Vec<f32> = ends.into_iter().map(|e| e.unwrap()).collect();
        assert_eq!(got, [2.0, 1.0, 0.0]);
    }
}

//! Ranks that die, stop or do something else, while the others are in the middle of an all-reduce.

use super::late::Late;
use super::processes::{Job, ODD, WAYS, start};
use ringtape::rng::Key;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Lets the job run for a moment that differs by trial, once its ranks have met.
fn somewhere(job: &mut Job, seed: u64) {
    job.joined();
    let ms = 10 + Key::named(seed, "moment").rng().below(300);
    std::thread::sleep(Duration::from_millis(ms));
}

/// RINGTAPE_TRIALS sets how often; eight have every rank as victim, both ways.
#[test]
fn a_killed_rank_is_named_by_all_within_a_second() {
    let trials: usize = std::env::var("RINGTAPE_TRIALS").ok().and_then(|t| t.parse().ok()).unwrap_or(8);
    let late = Late::new();
    for trial in 0..trials {
        let (way, victim) = (WAYS[trial % 2], (trial / 2) % 4);
        let mut job = start("forever", way, 4);
        somewhere(&mut job, trial as u64);
        job.signal(victim, "KILL");
        let words = [&*format!("rank {victim} failed"), "process has ended"];
        let took = job.all_end(Some(victim), late.allow(Duration::from_secs(1)), 17, &words);
        eprintln!("trial {trial}: rank {victim} over {way}: {took:?}");
    }
    no_memory_is_left();
}

/// No file of shared memory survives its job.
fn no_memory_is_left() {
    let Ok(folder) = std::fs::read_dir("/dev/shm") else { return };
    for entry in folder.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        // Other tests may be in the middle of a rendezvous, which takes less.
        let age = entry.metadata().and_then(|m| m.modified()).ok().and_then(|m| m.elapsed().ok());
        let old = age.is_some_and(|a| a > Duration::from_secs(10));
        assert!(!(name.starts_with("ringtape-") && old), "{name} is left");
    }
}

#[test]
fn a_stopped_rank_is_named_by_all_within_three_seconds() {
    let late = Late::new();
    for (trial, victim) in [0, 2, 1, 3].into_iter().enumerate() {
        let way = WAYS[trial % 2];
        let mut job = start("forever", way, 4);
        somewhere(&mut job, trial as u64);
        job.signal(victim, "STOP");
        let words = [&*format!("rank {victim} failed"), "stopped, or cut off"];
        let took = job.all_end(Some(victim), late.allow(Duration::from_secs(3)), 17, &words);
        eprintln!("rank {victim} over {way}: {took:?}");
        job.signal(victim, "KILL");
    }
}

/// While four busy threads want the processors too, a rank that makes all others wait in each of a hundred steps, and
/// one that is stopped for less than the limit, are waited for.
#[test]
fn a_slow_rank_on_an_overloaded_machine_is_no_false_alarm() {
    let over = AtomicBool::new(false);
    std::thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        // The threads end when a check below fails, too.
        let end = std::panic::catch_unwind(|| {
            for way in WAYS {
                let mut job = start("steps", way, 4);
                job.joined();
                std::thread::sleep(Duration::from_millis(300));
                job.signal(2, "STOP");
                std::thread::sleep(Duration::from_millis(800));
                job.signal(2, "CONT");
                let took = job.all_end(None, Duration::from_secs(120), 0, &[]);
                eprintln!("over {way}: {took:?}");
            }
        });
        over.store(true, Ordering::Relaxed);
        end.unwrap();
    });
}

#[test]
fn ranks_that_disagree_are_named_by_all_with_both_calls() {
    let late = Late::new();
    for way in WAYS {
        for (body, [theirs, ours]) in ODD {
            let mut job = start(body, way, 4);
            job.joined();
            let both = ["ranks disagree", &format!("rank 2 calls {theirs}"), &format!(" calls {ours}")];
            let took = job.all_end(None, late.allow(Duration::from_secs(1)), 17, &both);
            eprintln!("{body} over {way}: {took:?}");
        }
        let both = ["rank 1 calls broadcast of 9000 f32 with root 3", "calls all_reduce(sum) of 9000 f32"];
        let mut job = start("crosswise", way, 4);
        job.joined();
        job.all_end(None, late.allow(Duration::from_secs(1)), 17, &both);
    }
}

//! Ranks that die, stop or do something else, while the others are in the middle of an all-reduce.

use super::processes::{Job, WAYS, start};
use ringtape::rng::Key;
use std::time::Duration;

/// Lets the job run for a moment that differs by trial.
fn somewhere(job: &Job, seed: u64) {
    assert!(job.0.len() > 1);
    let ms = 300 + Key::named(seed, "moment").rng().below(300);
    std::thread::sleep(Duration::from_millis(ms));
}

#[test]
fn a_killed_rank_is_named_by_all_within_a_second() {
    for trial in 0..20 {
        let (way, victim) = (WAYS[trial % 2], (trial / 2) % 4);
        let mut job = start("forever", way, 4);
        somewhere(&job, trial as u64);
        job.signal(victim, "KILL");
        let words = [&*format!("rank {victim} failed"), "process has ended"];
        let took = job.all_end(Some(victim), Duration::from_secs(1), 17, &words);
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
    for (trial, victim) in [0, 2, 1, 3].into_iter().enumerate() {
        let way = WAYS[trial % 2];
        let mut job = start("forever", way, 4);
        somewhere(&job, trial as u64);
        job.signal(victim, "STOP");
        let words = [&*format!("rank {victim} failed"), "stopped, or cut off"];
        let took = job.all_end(Some(victim), Duration::from_secs(3), 17, &words);
        eprintln!("rank {victim} over {way}: {took:?}");
        job.signal(victim, "KILL");
    }
}

#[test]
fn ranks_that_disagree_are_named_by_all_with_both_calls() {
    for way in WAYS {
        let both = [
            "ranks disagree",
            "calls all_reduce(sum) of 4000 f32 by ring, call 2",
            "rank 2 calls all_reduce(sum) of 3000 f32 by ring, call 2",
        ];
        let mut job = start("differ", way, 4);
        job.all_end(None, Duration::from_secs(5), 17, &both);
        let both = ["rank 1 calls broadcast of 9000 f32 with root 3", "calls all_reduce(sum) of 9000 f32"];
        let mut job = start("crosswise", way, 4);
        job.all_end(None, Duration::from_secs(5), 17, &both);
    }
}

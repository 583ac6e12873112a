//! `launch`: ranks as processes, seen from outside.
#![allow(clippy::unwrap_used, reason = "a test fails by panic")]

#[path = "cli_support/mod.rs"]
mod support;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::{finish, program, ringtape, wait_for};

/// Processes that `parent` started, each with its rank.
fn children(parent: u32) -> Vec<(u32, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(id) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // After the name, which stands in parentheses: state, parent.
        let of = stat.rsplit(')').next().and_then(|s| s.split_whitespace().nth(1)?.parse::<u32>().ok());
        if of == Some(parent) {
            let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            let text = String::from_utf8_lossy(&environment).into_owned();
            let rank = text.split('\0').find_map(|v| v.strip_prefix("RANK=")).unwrap_or_default().to_string();
            found.push((id, rank));
        }
    }
    found.sort_by(|a, b| a.1.cmp(&b.1));
    found
}

fn gone(id: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    stat.is_empty() || stat.rsplit(')').next().is_some_and(|s| s.trim_start().starts_with('Z'))
}

fn signal(id: u32, name: &str) {
    assert!(Command::new("kill").args([&format!("-{name}"), &id.to_string()]).status().unwrap().success());
}

/// A job that would go on for an hour, once its ranks have met.
fn long(n: usize) -> (Child, Vec<u32>) {
    let mut c = program();
    c.args(["launch", "-n", &n.to_string(), "--", "bench", "all-reduce", "--seconds", "3600"]);
    let job = c.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut ranks = Vec::new();
    wait_for("the ranks", Duration::from_secs(20), || {
        ranks = children(job.id());
        // Each has the memory of both meetings open when it has all its threads.
        let threads = |id: u32| std::fs::read_dir(format!("/proc/{id}/task")).map_or(0, |t| t.count());
        ranks.len() == n && ranks.iter().all(|(id, _)| threads(*id) >= 5)
    });
    std::thread::sleep(Duration::from_millis(300));
    (job, ranks.into_iter().map(|(id, _)| id).collect())
}

#[test]
fn every_rank_runs_the_verb_and_lines_say_whose_they_are() {
    let ran =
        ringtape(&["launch", "-n", "3", "--", "eval", "nowhere"]).fails(2, &["[1] error:", "[2] error:"]);
    assert_eq!(ran.err.matches("[0]").count(), 0, "{ran:?}");
    ringtape(&["launch", "-n", "2", "--tag", "--", "eval", "nowhere"])
        .fails(2, &["[0] error:", "[1] error:"]);
    let ran = ringtape(&["launch", "-n", "2", "--tag", "--", "op", "list"]).ok();
    assert!(ran.out.lines().all(|l| l.starts_with("[0] ") || l.starts_with("[1] ")), "{ran:?}");
    assert_eq!(ran.out.matches("[0] ").count(), ran.out.matches("[1] ").count());
}

#[test]
fn what_cannot_be_launched_is_a_usage_error() {
    ringtape(&["launch", "-n", "2", "--", "launch", "-n", "2", "--", "op", "list"])
        .fails(2, &["cannot launch"]);
    for bad in
        [&["launch", "-n", "0", "--", "op", "list"][..], &["launch", "-n", "2"], &["launch", "--", "op"]]
    {
        assert_eq!(ringtape(bad).code, Some(2), "{bad:?}");
    }
}

#[test]
fn a_killed_rank_ends_the_job_with_its_code_and_nobody_is_left() {
    let (job, ranks) = long(3);
    let start = Instant::now();
    signal(ranks[1], "KILL");
    let ran = finish(job).fails(137, &["rank 1 of the job ended with exit code 137"]);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    for words in ["error: rank 1 failed", "[2] error: rank 1 failed"] {
        assert!(ran.err.contains(words), "{words}: {ran:?}");
    }
    assert!(ranks.iter().all(|id| gone(*id)));
}

#[test]
fn a_signal_reaches_every_rank() {
    for (name, code) in [("INT", 130), ("TERM", 143)] {
        let (job, ranks) = long(2);
        let start = Instant::now();
        signal(job.id(), name);
        finish(job).fails(code, &[]);
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        assert!(ranks.iter().all(|id| gone(*id)));
    }
}

#[test]
fn variables_of_other_launchers_make_a_job_too() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let rank = |r: &str| {
        let mut c = program();
        c.args(["bench", "all-reduce", "--seconds", "0.01", "--json"]);
        c.env("SLURM_PROCID", r).env("SLURM_NTASKS", "2").env("SLURM_LOCALID", r);
        c.env("RINGTAPE_SECRET", "one of tests").env("MASTER_PORT", &port);
        c.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let (zero, one) = (rank("0"), rank("1"));
    let (zero, one) = (finish(zero).ok(), finish(one).ok());
    assert!(one.out.is_empty());
    for what in ["threads", "shared memory", "TCP"] {
        assert!(zero.out.contains(&format!("{what}, 2 ranks, 64 MiB")), "{zero:?}");
    }
    let mut half = program();
    half.args(["bench", "all-reduce"]).env("SLURM_PROCID", "0");
    let half = finish(half.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    half.fails(2, &["SLURM_PROCID is set, but SLURM_NTASKS is not"]);
}

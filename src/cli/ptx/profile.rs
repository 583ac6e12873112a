//! A profile in words, and what a kernel costs by its text.

use super::super::session::{Session, say, table};
use crate::check::ptx::{Outcome, Spent};
use crate::error::Result;
use crate::ptx::profile::traffic::{Banks, Sectors};
use crate::ptx::profile::{Line, Profile};
use crate::ptx::{self, cost};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Lines of the source that are shown.
const SHOWN: usize = 8;

/// Says what a launch cost.
pub(super) fn tell(session: &Session<'_>, o: &Outcome, spent: &Spent) -> Result<()> {
    let p = &spent.counted;
    say!(
        session,
        "\nprofile of {}: blocks {}, threads a block {}",
        o.kernel,
        count(p.blocks),
        p.block_threads
    )?;
    let shares = parts(&p.classes, p.warp_instructions);
    say!(session, "  instructions      {} of warps: {shares}", count(p.warp_instructions))?;
    let busy = percent(p.lanes_busy);
    let split = format!("branches {}, of which split a warp {}", count(p.branches), count(p.split_branches));
    say!(session, "  divergence        {busy} of the lanes take part; {split}")?;
    if p.all_flops() > 0 {
        let all: Vec<String> = p.flops.iter().map(|(kind, n)| format!("{} {kind}", count(*n))).collect();
        say!(session, "  operations        {}", all.join(", "))?;
    }
    memory(session, p)?;
    say!(session, "  barriers          {}", count(p.barriers))?;
    hot(session, p)?;
    estimates(session, spent)
}

fn memory(session: &Session<'_>, p: &Profile) -> Result<()> {
    let global = |what: &str, s: Sectors| {
        if s.is_empty() {
            return Ok(());
        }
        let each = s.sectors as f64 / s.requests as f64;
        let (n, asked, moved) = (count(s.requests), bytes(s.bytes), bytes(32 * s.sectors));
        let used = percent(s.efficiency());
        say!(
            session,
            "  {what:<18}{n} requests, {asked} asked for, {moved} moved: {each:.1} sectors a request, {used} of them used"
        )
    };
    global("global loads", p.global_loads)?;
    global("global stores", p.global_stores)?;
    global("global atomics", p.global_atomics)?;
    let shared = |what: &str, b: Banks| {
        if b.is_empty() {
            return Ok(());
        }
        let (n, passes, lost) = (count(b.requests), count(b.passes), count(b.conflicts()));
        say!(
            session,
            "  {what:<18}{n} requests, {passes} passes over the banks, {lost} of them by bank conflicts"
        )
    };
    shared("shared loads", p.shared_loads)?;
    shared("shared stores", p.shared_stores)?;
    shared("shared atomics", p.shared_atomics)?;
    if p.local_bytes > 0 {
        say!(session, "  local memory      {} read and written", bytes(p.local_bytes))?;
    }
    let (read, written) = (bytes(p.footprint_read), bytes(p.footprint_written));
    say!(session, "  footprint         {read} of global memory read, {written} written")
}

/// The lines that take most instructions, and those that waste most.
fn hot(session: &Session<'_>, p: &Profile) -> Result<()> {
    let mut lines: Vec<&Line> = p.lines.iter().collect();
    lines.sort_by_key(|l| std::cmp::Reverse((l.warps.max(l.global.sectors).max(l.shared.passes), l.line)));
    lines.truncate(SHOWN);
    let notes = |l: &Line| {
        let mut all = Vec::new();
        if !l.global.is_empty() {
            all.push(format!("{:.1} sectors a request", l.global.sectors as f64 / l.global.requests as f64));
        }
        if l.shared.conflicts() > 0 {
            all.push(format!("{:.1} passes a request", l.shared.passes as f64 / l.shared.requests as f64));
        }
        if l.splits > 0 {
            all.push(format!("splits {}", count(l.splits)));
        }
        all.join(", ")
    };
    let share = |l: &Line| percent(l.warps as f64 / p.warp_instructions.max(1) as f64);
    let rows: Vec<Vec<String>> =
        lines.iter().map(|l| vec![l.line.to_string(), share(l), code(&l.text), notes(l)]).collect();
    say!(session, "  the lines that cost most:")?;
    rows_of(session, &["line", "instructions", "", ""], &rows)
}

fn estimates(session: &Session<'_>, spent: &Spent) -> Result<()> {
    let row = |e: &ptx::profile::gpus::Estimate| {
        let o = &e.occupancy;
        vec![
            e.gpu.to_owned(),
            format!("{} ({})", percent(o.share), o.limit),
            format!("{:.2}", e.least_us),
            e.bound.to_owned(),
            format!("{:.2}", e.intensity),
            format!("{:.1}", e.ridge),
        ]
    };
    let rows: Vec<Vec<String>> = spent.estimates.iter().map(row).collect();
    say!(
        session,
        "  estimates from public figures, not measurements, without the µs of a launch itself; {} registers a thread assumed:",
        spent.registers
    )?;
    rows_of(session, &["GPU", "occupancy (limit)", "µs at least", "bound by", "FLOP a byte", "ridge"], &rows)
}

/// `ptx cost FILE…`
pub(super) fn costs(session: &Session<'_>, files: &[PathBuf], json: bool) -> Result<()> {
    let mut all = Vec::new();
    for file in files {
        let found = cost_of(file)?;
        if !json {
            found.iter().try_for_each(|c| tell_cost(session, file, c))?;
        }
        all.push(serde_json::json!({ "file": file.display().to_string(), "entries": found }));
    }
    if json {
        say!(session, "{}", super::super::json(&all)?)?;
    }
    Ok(())
}

fn cost_of(file: &Path) -> Result<Vec<cost::Cost>> {
    let text = crate::check::ptx::text(file)?;
    let name = file.display().to_string();
    let program = ptx::load(&name, &text)?;
    Ok(cost::costs(&program, &ptx::parse(&name, &text)?))
}

fn tell_cost(session: &Session<'_>, file: &Path, c: &cost::Cost) -> Result<()> {
    let n: u64 = c.instructions.values().sum();
    say!(session, "{}: {}: instructions {n}: {}", file.display(), c.entry, parts(&c.instructions, n))?;
    say!(
        session,
        "  threads a block {}, registers about {} a thread (an estimate; ptxas decides), shared {}, local {}",
        c.threads,
        c.registers,
        bytes(c.shared_bytes.into()),
        bytes(c.local_bytes.into())
    )?;
    let fit = c.occupancy.iter().map(|(gpu, o)| format!("{gpu} {} ({})", percent(o.share), o.limit));
    say!(session, "  occupancy at most {}", fit.collect::<Vec<_>>().join(", "))?;
    for l in &c.loops {
        let flops: Vec<String> = l.flops.iter().map(|(kind, n)| format!("{n} {kind} operations")).collect();
        let flops = if flops.is_empty() { "no arithmetic".to_owned() } else { flops.join(", ") };
        say!(
            session,
            "  loop at lines {} to {}: instructions {}; a thread and turn: {flops}, {} of global and {} of shared memory",
            l.from,
            l.to,
            l.instructions,
            bytes(l.global_bytes),
            bytes(l.shared_bytes)
        )?;
    }
    Ok(())
}

fn rows_of(session: &Session<'_>, head: &[&str], rows: &[Vec<String>]) -> Result<()> {
    table(head, rows).iter().try_for_each(|line| say!(session, "    {line}"))
}

/// A line without its comment.
pub(in crate::cli) fn code(text: &str) -> String {
    text.split("//").next().unwrap_or_default().trim().to_owned()
}

/// The largest shares first.
fn parts(of: &BTreeMap<&'static str, u64>, all: u64) -> String {
    let mut parts: Vec<_> = of.iter().filter(|(_, n)| **n > 0).collect();
    parts.sort_by_key(|(name, n)| (std::cmp::Reverse(**n), **name));
    let each = |(name, n): (&&str, &u64)| format!("{name} {}", percent(*n as f64 / all.max(1) as f64));
    parts.into_iter().map(each).collect::<Vec<_>>().join(", ")
}

fn percent(share: f64) -> String {
    match share * 100.0 {
        p if p > 0.0 && p < 0.95 => format!("{p:.1} %"),
        p => format!("{p:.0} %"),
    }
}

/// Digits in groups of three.
fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, d) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(d);
    }
    text
}

fn bytes(n: u64) -> String {
    match n {
        0..10_000 => format!("{n} B"),
        10_000..10_000_000 => format!("{:.1} KB", n as f64 / 1e3),
        _ => format!("{:.1} MB", n as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!((count(7), count(1000)), ("7".into(), "1,000".into()));
        assert_eq!(
            (percent(0.004), percent(1.0), percent(0.0)),
            ("0.4 %".into(), "100 %".into(), "0 %".into())
        );
        assert_eq!((bytes(256), bytes(12_300)), ("256 B".into(), "12.3 KB".into()));
    }
}

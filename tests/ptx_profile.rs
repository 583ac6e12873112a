//! What the profiler counts, against counts made by hand; what `ptx cost` reads from a text, against what ptxas reported.

use ringtape::check::ptx::{Exam, Outcome, Programs, read, run};
use ringtape::ptx::profile::{Profile, trace};
use ringtape::ptx::{self, cost};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Runs an entry of `KERNELS` and returns what was counted.
fn profiled(kernel: &str, grid: u32, block: u32, args: &str) -> Profile {
    outcome(kernel, grid, block, args, Exam { profile: true, ..Exam::default() }).profile.unwrap().counted
}

fn outcome(kernel: &str, grid: u32, block: u32, args: &str, exam: Exam) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("k.ptx"), KERNELS).unwrap();
    let manifest = format!(
        r#"{{"ptx": "k.ptx", "kernel": "{kernel}", "grid": [{grid}, 1, 1], "block": [{block}, 1, 1], "args": [{args}]}}"#
    );
    let file = folder.path().join("m.json");
    fs::write(&file, manifest).unwrap();
    let all = read(&file).unwrap();
    run(&mut Programs::default(), folder.path(), &all[0], exam).unwrap()
}

const KERNELS: &str = "
.version 7.0
.target sm_80
.address_size 64

// x[i * stride] is written, 4 bytes a thread.
.visible .entry strided(.param .u64 x, .param .u32 stride)
{
    .reg .u32 %i, %stride, %block, %threads;
    .reg .u64 %x, %off;
    ld.param.u64 %x, [x];
    ld.param.u32 %stride, [stride];
    mov.u32 %i, %tid.x;
    mov.u32 %block, %ctaid.x;
    mov.u32 %threads, %ntid.x;
    mad.lo.u32 %i, %block, %threads, %i;
    mul.lo.u32 %i, %i, %stride;
    mul.wide.u32 %off, %i, 4;
    add.u64 %x, %x, %off;
    st.global.u32 [%x], %i;
    ret;
}

// 16 bytes a thread.
.visible .entry vectors(.param .u64 x)
{
    .reg .u32 %i;
    .reg .u64 %x, %off;
    .reg .f32 %v<4>;
    ld.param.u64 %x, [x];
    mov.u32 %i, %tid.x;
    mul.wide.u32 %off, %i, 16;
    add.u64 %x, %x, %off;
    ld.global.v4.f32 {%v0, %v1, %v2, %v3}, [%x];
    fma.rn.f32 %v0, %v0, %v1, %v2;
    st.global.v4.f32 [%x], {%v0, %v1, %v2, %v3};
    ret;
}

// Thread i writes word i * stride of shared memory and reads word 0; only even threads take the branch.
.visible .entry banks(.param .u32 stride)
{
    .shared .align 16 .b8 tile[8448];
    .reg .u32 %i, %stride, %at, %base, %odd;
    .reg .pred %even;
    ld.param.u32 %stride, [stride];
    mov.u32 %i, %tid.x;
    mov.u32 %base, tile;
    mul.lo.u32 %at, %i, %stride;
    mad.lo.u32 %at, %at, 4, %base;
    st.shared.u32 [%at], %i;
    bar.sync 0;
    ld.shared.u32 %at, [tile];
    and.b32 %odd, %i, 1;
    setp.eq.u32 %even, %odd, 0;
    @%even bra DONE;
    add.u32 %i, %i, 1;
    add.u32 %i, %i, 1;
DONE:
    ret;
}

// The first warp works longer than the others before the barrier.
.visible .entry waits()
{
    .reg .u32 %i, %n;
    .reg .pred %more;
    mov.u32 %i, %tid.x;
    setp.ge.u32 %more, %i, 32;
    @%more bra MEET;
    mov.u32 %n, 0;
AGAIN:
    add.u32 %n, %n, 1;
    setp.lt.u32 %more, %n, 50;
    @%more bra AGAIN;
MEET:
    bar.sync 0;
    ret;
}
";

#[test]
fn sectors_follow_the_stride() {
    for (stride, sectors, used) in [(1, 4, 1.0), (2, 8, 0.5), (8, 32, 0.125), (32, 32, 0.125)] {
        let p = profiled("strided", 2, 64, &format!(r#"{{"alloc": 65536}}, {{"u32": {stride}}}"#));
        let s = p.global_stores;
        assert_eq!((s.requests, s.bytes, s.sectors), (4, 512, 4 * sectors), "stride {stride}");
        assert_eq!(s.efficiency(), used, "stride {stride}");
        assert_eq!(p.footprint_written, 32 * 4 * sectors);
        assert!(p.global_loads.is_empty());
        assert_eq!((p.blocks, p.block_threads), (2, 64));
    }
}

#[test]
fn a_vector_is_one_request() {
    let p = profiled("vectors", 1, 32, r#"{"alloc": 512}"#);
    for s in [p.global_loads, p.global_stores] {
        assert_eq!((s.requests, s.bytes, s.used, s.sectors), (1, 512, 512, 16));
    }
    assert_eq!(p.flops, BTreeMap::from([("f32", 64)]));
    assert_eq!((p.warp_instructions, p.thread_instructions, p.lanes_busy), (8, 256, 1.0));
    // Blocks that touch the same place move it again, and it is still the same place.
    let p = profiled("vectors", 3, 20, r#"{"alloc": 512}"#);
    assert_eq!((p.global_loads.sectors, p.footprint_read), (30, 320));
}

#[test]
fn lanes_that_want_different_words_of_a_bank_wait() {
    for (stride, passes) in [(1, 1), (2, 2), (3, 1), (4, 4), (16, 16), (32, 32), (33, 1)] {
        let p = profiled("banks", 1, 64, &format!(r#"{{"u32": {stride}}}"#));
        let s = p.shared_stores;
        assert_eq!((s.requests, s.least, s.passes), (2, 2, 2 * passes), "stride {stride}");
        // One word for all is a broadcast.
        assert_eq!((p.shared_loads.passes, p.shared_loads.conflicts()), (2, 0));
        assert_eq!(p.barriers, 1);
    }
}

#[test]
fn a_split_is_seen_at_its_line() {
    let p = profiled("banks", 1, 64, r#"{"u32": 1}"#);
    assert_eq!((p.branches, p.split_branches), (2, 2));
    let line = p.lines.iter().find(|l| l.text.contains("bra DONE")).unwrap();
    assert_eq!((line.splits, line.warps, line.threads), (2, 2, 32));
    let odd: Vec<_> = p.lines.iter().filter(|l| l.text == "add.u32 %i, %i, 1;").collect();
    assert_eq!(odd.iter().map(|l| (l.warps, l.threads)).collect::<Vec<_>>(), [(2, 32), (2, 32)]);
    assert!(p.lanes_busy < 0.9);
    assert_eq!(p.warp_instructions, p.classes.values().sum::<u64>());
}

/// Checks, counters and timeline see the same launch, and none of them hides it from another.
#[test]
fn watchers_stand_side_by_side() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ptx/faults");
    let manifest = &read(&corpus.join("race_shared.json")).unwrap()[0];
    let seen = |check, profile, trace: Option<usize>| {
        let exam = Exam { check, profile, trace, ..Exam::default() };
        run(&mut Programs::default(), &corpus, manifest, exam).unwrap()
    };
    let (all, checked, counted) =
        (seen(true, true, Some(0)), seen(true, false, None), seen(false, true, None));
    let faults = |o: &Outcome| o.faults.iter().map(|f| (f.kind, f.line)).collect::<Vec<_>>();
    assert_eq!(faults(&all), faults(&checked));
    assert_eq!(faults(&all).len(), 2);
    let json = |o: &Outcome| serde_json::to_value(o.profile.as_ref().unwrap()).unwrap();
    assert_eq!(json(&all), json(&counted));
    assert!(!all.trace.is_empty() && checked.trace.is_empty());
    assert!(json(&all)["estimates"][0]["is"].as_str().unwrap().contains("estimate"));
}

#[test]
fn the_timeline_shows_who_waits() {
    let o = outcome("waits", 1, 96, "", Exam { trace: Some(0), ..Exam::default() });
    let file = trace::file(&o.trace);
    let events = file["traceEvents"].as_array().unwrap();
    let waits: Vec<_> = events.iter().filter(|e| e["name"] == "waits at barrier 0").collect();
    // The first warp runs 4 + 3 · 50 instructions before the barrier, the others 3, and the barrier itself.
    assert_eq!(waits.iter().map(|e| e["tid"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2]);
    assert!(waits.iter().all(|e| e["dur"] == 151 && e["ts"] == 4), "{waits:?}");
}

#[test]
fn the_counted_product_is_the_product() {
    let ptx = Path::new(env!("CARGO_MANIFEST_DIR")).join("ptx/matmul_ladder.ptx");
    let folder = tempfile::tempdir().unwrap();
    fs::copy(ptx, folder.path().join("k.ptx")).unwrap();
    let counted = |kernel: &str, tile: u32, block: [u32; 2]| {
        let manifest = format!(
            r#"{{"ptx": "k.ptx", "kernel": "{kernel}", "grid": [{0}, {0}, 1], "block": [{1}, {2}, 1],
            "args": [{{"alloc": 65536}}, {{"alloc": 65536}}, {{"alloc": 65536}}, {{"u32": 128}}, {{"u32": 128}}, {{"u32": 128}}]}}"#,
            128 / tile,
            block[0],
            block[1],
        );
        let file = folder.path().join("m.json");
        fs::write(&file, manifest).unwrap();
        let exam = Exam { profile: true, ..Exam::default() };
        let o = run(&mut Programs::default(), folder.path(), &read(&file).unwrap()[0], exam).unwrap();
        assert!(o.faults.is_empty(), "{:?}", o.faults);
        o.profile.unwrap().counted
    };
    let naive = counted("matmul_naive", 16, [16, 16]);
    let tiled = counted("matmul_tiled", 16, [16, 16]);
    let vectors = counted("matmul_vectors", 64, [256, 1]);
    for p in [&naive, &tiled, &vectors] {
        assert_eq!(p.flops["f32"], 2 * 128 * 128 * 128);
        assert_eq!((p.footprint_read, p.footprint_written), (2 * 65536, 65536));
    }
    // Why anyone tiles: each element comes from global memory 128 times, 8 times, 2 times.
    let asked = |p: &Profile| p.global_loads.bytes / (2 * 65536);
    assert_eq!([&naive, &tiled, &vectors].map(asked), [128, 8, 2]);
}

/// The estimate of registers against the table that ptxas filled.
#[test]
fn registers_are_near_those_of_ptxas() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("ptx");
    let table = fs::read_to_string(root.join("README.md")).unwrap();
    let mut compared = 0;
    for line in table.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if !cells.get(2).is_some_and(|c| c.starts_with('`')) {
            continue;
        }
        let (file, entry) = (root.join(format!("{}.ptx", cells[1])), cells[2].trim_matches('`'));
        // Spliced modules are no files, or files with holes.
        let Ok(text) = fs::read_to_string(&file) else { continue };
        if text.contains("{{") {
            continue;
        }
        let program = ptx::load(cells[1], &text).unwrap();
        let all = cost::costs(&program, &ptx::parse(cells[1], &text).unwrap());
        let found = all.iter().find(|c| c.entry == entry).unwrap().registers as f64;
        let real: f64 = cells[4].parse().or_else(|_| cells[5].parse()).unwrap();
        assert!((0.45..1.8).contains(&(found / real)), "{entry}: {found}, and ptxas took {real}");
        compared += 1;
    }
    assert!(compared > 50, "{compared}");
}

#[test]
fn loops_are_found_with_what_they_move() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("ptx/matmul_ladder.ptx");
    let text = fs::read_to_string(path).unwrap();
    let program = ptx::load("ladder", &text).unwrap();
    let all = cost::costs(&program, &ptx::parse("ladder", &text).unwrap());
    let of = |name: &str| all.iter().find(|c| c.entry == name).unwrap();
    let naive = &of("matmul_naive").loops;
    assert_eq!(naive.len(), 1);
    assert_eq!((naive[0].flops["f32"], naive[0].global_bytes, naive[0].shared_bytes), (2, 8, 0));
    let inner = of("matmul_registers").loops.last().unwrap();
    assert_eq!((inner.flops["f32"], inner.global_bytes, inner.shared_bytes), (32, 0, 32));
}

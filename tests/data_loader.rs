//! The loader: the same batches whatever the prefetch, resumed exactly on any world size, nothing taken from
//! the system once it runs.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use ringtape::data::*;
use ringtape::device::Device;
use ringtape::error::{Error, Result};
use ringtape::shape::{DType, Spec};
use ringtape::tensor::Tensor;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// `n` samples: x = [k, k + 0.5] and label = k mod 7.
fn samples(folder: &Path, n: u64) -> Arc<Rtd> {
    let mut w = Writer::create(folder.join("samples.rtd"), About::default()).unwrap();
    w.field(Field::samples("x", DType::F32, &[2])).unwrap();
    for k in 0..n {
        w.write(&(k as f32).to_le_bytes()).unwrap();
        w.write(&(k as f32 + 0.5).to_le_bytes()).unwrap();
    }
    w.field(Field::samples("label", DType::U8, &[]).below(7)).unwrap();
    (0..n).for_each(|k| w.write(&[(k % 7) as u8]).unwrap());
    w.split("train", 0, n);
    Arc::new(Rtd::open(w.finish().unwrap(), Access::Mmap).unwrap())
}

/// A stream whose token at position k is k.
fn tokens(folder: &Path, n: u16, bound: u32) -> Arc<Rtd> {
    let mut w = Writer::create(folder.join("tokens.rtd"), About::default()).unwrap();
    w.field(Field::tokens(DType::U16, bound)).unwrap();
    (0..n).for_each(|k| w.write(&k.to_le_bytes()).unwrap());
    w.split("train", 0, n as u64);
    w.split("val", 10, n as u64 - 10);
    Arc::new(Rtd::open(w.finish().unwrap(), Access::Mmap).unwrap())
}

type Seen = (u64, Vec<f64>, Vec<f64>);

fn seen(b: &Batch) -> Seen {
    (b.epoch, b.get("x").unwrap().to_f64().unwrap(), b.get("label").unwrap().to_f64().unwrap())
}

fn options(batch: usize) -> LoaderOptions {
    LoaderOptions { batch, seed: 3, ..LoaderOptions::default() }
}

fn take(set: &Arc<Rtd>, o: &LoaderOptions, from: Option<Cursor>, n: usize) -> Vec<(Seen, Cursor)> {
    let data = Samples::new(set.clone(), "train").unwrap();
    let loader = match from {
        Some(cursor) => Loader::resume(data, &Device::cpu(), o, cursor).unwrap(),
        None => Loader::new(data, &Device::cpu(), o).unwrap(),
    };
    loader.take(n).map(|b| b.unwrap()).map(|b| (seen(&b), b.cursor)).collect()
}

#[test]
fn prefetch_does_not_change_the_batches() {
    let dir = tempfile::tempdir().unwrap();
    let set = samples(dir.path(), 103);
    let of = |prefetch| take(&set, &LoaderOptions { prefetch, ..options(10) }, None, 35);
    let here = of(0);
    assert_eq!(here.len(), 35);
    for prefetch in [1, 2, 7, 40] {
        assert_eq!(of(prefetch), here, "{prefetch}");
    }
    let first: Vec<f64> = here[..10].iter().flat_map(|((_, x, _), _)| x.iter().step_by(2).copied()).collect();
    let again: Vec<f64> =
        here[10..20].iter().flat_map(|((_, x, _), _)| x.iter().step_by(2).copied()).collect();
    let sorted = |v: &[f64]| {
        let mut v = v.to_vec();
        v.sort_by(f64::total_cmp);
        v.dedup();
        v
    };
    assert_eq!((sorted(&first).len(), sorted(&again).len()), (100, 100), "no sample twice an epoch");
    assert!(first != again && here[9].0.0 == 0 && here[10].0.0 == 1, "another epoch, another order");
    for ((_, x, label), _) in &here {
        assert!(
            x.iter().step_by(2).zip(label).all(|(x, l)| x % 7.0 == *l),
            "fields of one sample stay together"
        );
        assert!(x.chunks(2).all(|p| p[1] == p[0] + 0.5));
    }
}

#[test]
fn resumed_in_mid_epoch_goes_on_as_if_never_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let set = samples(dir.path(), 103);
    for last in [Last::Drop, Last::Short] {
        let o = LoaderOptions { last, ..options(8) };
        let whole = take(&set, &o, None, 40);
        for stop in [1, 5, 12, 13, 20, 39] {
            let cursor = whole[stop - 1].1;
            assert_eq!(take(&set, &o, Some(cursor), 40 - stop), whole[stop..], "{stop}");
            // The cursor goes through a snapshot.
            let stored = ringtape::wire::encode(&cursor).unwrap();
            assert_eq!(ringtape::wire::decode::<Cursor>(&stored, 1024).unwrap(), cursor);
        }
    }
}

#[test]
fn batches_dealt_out_are_all_batches_and_parts_of_one_are_its_rows() {
    let dir = tempfile::tempdir().unwrap();
    let set = samples(dir.path(), 103);
    let o = LoaderOptions { epochs: Some(1), ..LoaderOptions::evaluation(10) };
    let whole = take(&set, &o, None, 99);
    assert_eq!(whole.len(), 11);
    for turns in [1, 2, 3, 11, 20] {
        for turn in 0..turns {
            let mine = take(&set, &LoaderOptions { turn, turns, ..o.clone() }, None, 99);
            let dealt: Vec<_> = whole.iter().skip(turn as usize).step_by(turns as usize).cloned().collect();
            assert_eq!(mine, dealt, "turn {turn} of {turns}");
        }
    }
    let data = || Samples::new(set.clone(), "train").unwrap();
    let none = LoaderOptions { turn: 2, turns: 2, ..o.clone() };
    assert!(Loader::new(data(), &Device::cpu(), &none).is_err());
    let batch = Loader::new(data(), &Device::cpu(), &o).unwrap().next().unwrap().unwrap();
    let part = batch.part(3..7).unwrap();
    assert_eq!((part.len(), part.global, part.cursor), (4, 10, batch.cursor));
    assert_eq!(seen(&part).2, seen(&batch).2[3..7]);
    assert!(batch.part(8..11).is_err());
}

#[test]
fn ranks_see_slices_of_the_same_batches_and_a_resume_may_change_their_number() {
    let dir = tempfile::tempdir().unwrap();
    let set = samples(dir.path(), 103);
    let o = LoaderOptions { last: Last::Short, ..options(12) };
    let whole = take(&set, &o, None, 30);
    let joined = |world: usize, from: Option<Cursor>, n: usize| -> Vec<(Seen, Cursor)> {
        let ranks: Vec<_> =
            (0..world).map(|rank| take(&set, &LoaderOptions { rank, world, ..o.clone() }, from, n)).collect();
        let join = |k: usize| {
            let mut all = ranks[0][k].clone();
            for r in &ranks[1..] {
                assert_eq!((r[k].0.0, r[k].1), (all.0.0, all.1));
                all.0.1.extend(&r[k].0.1);
                all.0.2.extend(&r[k].0.2);
            }
            all
        };
        (0..n).map(join).collect()
    };
    for world in [2, 3, 5, 12] {
        assert_eq!(joined(world, None, 30), whole, "{world} ranks");
        assert_eq!(joined(world, Some(whole[4].1), 25), whole[5..], "1 rank, then {world}");
    }
}

#[test]
fn evaluation_gives_each_sample_once_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let set = samples(dir.path(), 103);
    let all = take(&set, &LoaderOptions::evaluation(25), None, 99);
    assert_eq!(all.iter().map(|((_, _, l), _)| l.len()).collect::<Vec<_>>(), [25, 25, 25, 25, 3]);
    let x: Vec<f64> = all.iter().flat_map(|((_, x, _), _)| x.iter().step_by(2).copied()).collect();
    assert_eq!(x, (0..103).map(f64::from).collect::<Vec<_>>());
}

#[test]
fn training_windows_are_shifted_by_one_and_begin_elsewhere_each_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let set = tokens(dir.path(), 1000, 1000);
    let windows = Windows::training(set, "train", 16).unwrap();
    assert_eq!(windows.len(), (999 - 15) / 16);
    let (n, mut offsets) = (windows.len() as usize, vec![]);
    let mut loader =
        Loader::new(windows, &Device::cpu(), &LoaderOptions { last: Last::Short, ..options(n) }).unwrap();
    for _ in 0..20 {
        let b = loader.next().unwrap().unwrap();
        let (x, y) = (b.get("input").unwrap(), b.get("target").unwrap());
        assert_eq!((x.spec(), y.spec()), (Spec::new(DType::I32, &[n, 16]).unwrap(), x.spec()));
        let (x, y) = (x.as_slice::<i32>().unwrap(), y.as_slice::<i32>().unwrap());
        assert!(x.iter().zip(y).all(|(x, y)| *y == x + 1));
        let mut starts: Vec<i32> = x.iter().step_by(16).copied().collect();
        starts.sort_unstable();
        assert!(starts.windows(2).all(|w| w[1] == w[0] + 16), "side by side");
        offsets.push(starts[0]);
    }
    assert!(offsets.iter().all(|o| (0..16).contains(o)));
    offsets.sort_unstable();
    offsets.dedup();
    assert!(offsets.len() > 5, "{offsets:?}");
}

#[test]
fn evaluation_windows_cover_every_target_exactly_once() {
    let dir = tempfile::tempdir().unwrap();
    let set = tokens(dir.path(), 200, 200);
    for context in [1, 2, 7, 16, 63, 94, 95, 189] {
        let windows = Windows::evaluation(set.clone(), "val", context).unwrap();
        let targets = windows.targets();
        let loader = Loader::new(windows, &Device::cpu(), &LoaderOptions::evaluation(4)).unwrap();
        let mut hit = HashMap::new();
        for b in loader {
            let b = b.unwrap();
            let x = b.get("input").unwrap().as_slice::<i32>().unwrap().to_vec();
            for (x, y) in x.iter().zip(b.get("target").unwrap().as_slice::<i32>().unwrap()) {
                assert!(*y == x + 1 || *y == IGNORE);
                *hit.entry(*y).or_insert(0) += 1;
            }
        }
        hit.remove(&IGNORE);
        assert!((11..200).all(|t| hit.get(&t) == Some(&1)), "{context}: {hit:?}");
        assert_eq!(hit.len() as u64, targets);
    }
    assert!(Windows::evaluation(set.clone(), "val", 190).unwrap_err().to_string().contains("model.context"));
    assert!(Windows::training(set.clone(), "val", 0).is_err());
    assert!(Samples::new(set, "val").unwrap_err().to_string().contains("Windows"));
}

#[test]
fn a_token_out_of_the_vocabulary_is_named_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let set = tokens(dir.path(), 100, 90);
    let windows = Windows::evaluation(set, "train", 8).unwrap();
    let mut loader = Loader::new(windows, &Device::cpu(), &LoaderOptions::evaluation(1)).unwrap();
    let errors: Vec<Error> = loader.by_ref().filter_map(|b| b.err()).collect();
    let e = errors[0].to_string();
    assert!(e.contains("tokens.rtd at byte 244") && e.contains("element 90") && e.contains("is 90"), "{e}");
    assert_eq!((errors.len(), errors[0].exit_code(), loader.cursor().sample_in_epoch), (1, 4, 11));
    assert!(loader.next().is_none(), "after an error it ends");
}

#[test]
fn resume_on_other_data_or_beyond_them_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let data = Samples::new(samples(dir.path(), 50), "train").unwrap();
    let cursor = Cursor { seed: 0, epoch: 0, sample_in_epoch: 0, dataset: data.hash() };
    let resume =
        |c| Loader::resume(data.clone(), &Device::cpu(), &options(5), c).err().map(|e| e.to_string());
    assert!(resume(Cursor { dataset: [1; 32], ..cursor }).unwrap().contains("SHA-256"));
    assert!(resume(Cursor { sample_in_epoch: 51, ..cursor }).unwrap().contains("cannot be resumed"));
    assert_eq!(resume(cursor), None);
    let zero = Loader::new(data.clone(), &Device::cpu(), &options(0)).err().unwrap();
    assert!(zero.to_string().contains("batch_size"), "{zero}");
}

/// A dataset from outside: proof of how far the thread is.
struct Counted(Arc<AtomicU64>, Vec<Column>);

impl Counted {
    fn new() -> (Counted, Arc<AtomicU64>) {
        let column = Column { name: "x".into(), spec: Spec::new(DType::F32, &[]).unwrap() };
        let reads = Arc::new(AtomicU64::new(0));
        (Counted(reads.clone(), vec![column]), reads)
    }
}

impl Dataset for Counted {
    fn len(&self) -> u64 {
        1 << 40
    }
    fn fields(&self) -> &[Column] {
        &self.1
    }
    fn read(&self, _: Pass, index: u64, out: &mut [Out<'_>]) -> Result<()> {
        self.0.fetch_add(1, Ordering::SeqCst);
        if let [Out::F32(x)] = out {
            x[0] = index as f32;
        }
        Ok(())
    }
    fn hash(&self) -> [u8; 32] {
        [7; 32]
    }
}

#[test]
fn dropping_the_loader_ends_its_thread() {
    for used in [0, 1, 5] {
        let (data, reads) = Counted::new();
        let mut loader = Loader::new(data, &Device::cpu(), &options(4)).unwrap();
        for _ in 0..used {
            loader.next().unwrap().unwrap();
        }
        drop(loader);
        // The thread owned the dataset; it is gone, so the count has one holder.
        assert_eq!(Arc::strong_count(&reads), 1);
        let after = reads.load(Ordering::SeqCst);
        assert!(after <= 4 * (used + 2 + 2), "{after} samples read for {used} batches: the queue is bounded");
    }
}

#[test]
fn steady_state_takes_no_memory_and_batches_are_what_they_were_while_held() {
    let dir = tempfile::tempdir().unwrap();
    let set = samples(dir.path(), 103);
    let device = Device::new_cpu();
    let data = Samples::new(set, "train").unwrap();
    let mut loader = Loader::new(data, &device, &LoaderOptions { last: Last::Short, ..options(10) }).unwrap();
    let misses = device.stats().misses;
    let mut before: Option<(Batch, Seen)> = None;
    for _ in 0..100 {
        let b = loader.next().unwrap().unwrap();
        if let Some((held, was)) = &before {
            assert_eq!(&seen(held), was, "a batch that is held is not written again");
        }
        let was = seen(&b);
        before = Some((b, was));
    }
    assert_eq!(device.stats().misses, misses);
    assert_eq!((loader.stats().batches, loader.stats().samples), (100, 9 * 103 + 10));
}

#[test]
fn batches_that_are_kept_stay_what_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let data = Samples::new(samples(dir.path(), 103), "train").unwrap();
    let loader = Loader::new(data.clone(), &Device::cpu(), &options(10)).unwrap();
    let kept: Vec<Batch> = loader.take(30).map(|b| b.unwrap()).collect();
    let fresh = Loader::new(data, &Device::cpu(), &LoaderOptions { prefetch: 0, ..options(10) }).unwrap();
    for (a, b) in kept.iter().zip(fresh) {
        assert_eq!(seen(a), seen(&b.unwrap()));
    }
    let names: Vec<&str> = kept[0].fields().map(|(n, _): (&str, &Tensor)| n).collect();
    assert_eq!((names, kept[0].len()), (vec!["x", "label"], 10));
    assert!(kept[0].get("y").unwrap_err().to_string().contains("x, label"));
}

#[test]
fn a_file_changed_under_the_run_is_reported_at_the_next_epoch() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let set = samples(dir.path(), 40);
    let data = Samples::new(set.clone(), "train").unwrap();
    let mut loader =
        Loader::new(data, &Device::cpu(), &LoaderOptions { prefetch: 0, ..options(10) }).unwrap();
    loader.next().unwrap().unwrap();
    std::fs::set_permissions(set.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(set.path()).unwrap();
    file.set_len(set.file_len() + 1).unwrap();
    let rest: Vec<_> = loader.collect();
    let e = rest.last().unwrap().as_ref().err().unwrap();
    assert!(rest.len() == 4 && e.to_string().contains("changed while it was in use"), "{e}");
    assert_eq!(e.exit_code(), 4);
}

#[test]
fn every_access_gives_the_same_batches() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("big.rtd");
    let mut w = Writer::create(&path, About::default()).unwrap();
    w.field(Field::samples("image", DType::U8, &[1, 32, 32]).normalised(vec![0.0], vec![255.0])).unwrap();
    (0..3000u32).for_each(|k| w.write(&[(k % 256) as u8; 1024]).unwrap());
    w.split("train", 0, 3000);
    w.finish().unwrap();
    let first = |access| {
        let set = Arc::new(Rtd::open(&path, access).unwrap());
        let data = Samples::new(set, "train").unwrap();
        let loader = Loader::new(data, &Device::cpu(), &options(64)).unwrap();
        loader.take(50).map(|b| b.unwrap().get("image").unwrap().to_f64().unwrap()).collect::<Vec<_>>()
    };
    let mapped = first(Access::Mmap);
    assert!(mapped == first(Access::Read) && mapped == first(Access::Sealed));
}

/// Not a test of its own: writes 384 MiB and reads a pass over them, in a process that may not have that much
/// memory.
#[test]
fn child_with_little_memory() {
    let Ok(folder) = std::env::var("RINGTAPE_TEST_LITTLE") else { return };
    assert!(Vec::<u8>::new().try_reserve_exact(300 << 20).is_err(), "the limit holds");
    let mut w = Writer::create(Path::new(&folder).join("large.rtd"), About::default()).unwrap();
    w.field(Field::samples("x", DType::U8, &[1 << 16]).normalised(vec![0.0], vec![255.0])).unwrap();
    let piece: Vec<u8> = (0..1 << 16).map(|k| (k % 253) as u8).collect();
    (0..6 << 10).for_each(|_| w.write(&piece).unwrap());
    w.split("train", 0, 6 << 10);
    let set = Arc::new(Rtd::open(w.finish().unwrap(), Access::Read).unwrap());
    let data = Samples::new(set, "train").unwrap();
    let o = LoaderOptions { epochs: Some(1), ..options(16) };
    let loader = Loader::new(data, &Device::cpu(), &o).unwrap();
    let total: usize = loader.map(|b| b.unwrap().len()).sum();
    assert_eq!(total, 6 << 10);
}

#[test]
fn a_set_larger_than_memory_streams() {
    let dir = tempfile::tempdir().unwrap();
    let out = std::process::Command::new("sh")
        .args(["-c", "ulimit -v 262144 && exec \"$0\" --exact child_with_little_memory"])
        .arg(std::env::current_exe().unwrap())
        .env("RINGTAPE_TEST_LITTLE", dir.path())
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
}

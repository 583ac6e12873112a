//! Packing takes memory for a piece of a file, never for the whole.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use ringtape::data::{Access, PackOptions, Rtd, pack_path};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

mod peak {
    //! The system's allocator, which keeps what is held now and what was held at most.
    #![allow(
        unsafe_code,
        reason = "a global allocator is an unsafe trait; this one only counts and passes on"
    )]

    use super::{AtomicUsize, Relaxed};
    use std::alloc::{GlobalAlloc, Layout, System};

    pub(crate) static HELD: AtomicUsize = AtomicUsize::new(0);
    pub(crate) static MOST: AtomicUsize = AtomicUsize::new(0);

    struct Counting;

    fn took(n: usize) {
        MOST.fetch_max(HELD.fetch_add(n, Relaxed) + n, Relaxed);
    }

    // SAFETY: every call goes to the system's allocator with the arguments that were given.
    unsafe impl GlobalAlloc for Counting {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            took(layout.size());
            // SAFETY: the caller's promise is passed on.
            unsafe { System.alloc(layout) }
        }
        unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
            took(layout.size());
            // SAFETY: the caller's promise is passed on.
            unsafe { System.alloc_zeroed(layout) }
        }
        unsafe fn realloc(&self, p: *mut u8, layout: Layout, size: usize) -> *mut u8 {
            took(size);
            HELD.fetch_sub(layout.size(), Relaxed);
            // SAFETY: the caller's promise is passed on.
            unsafe { System.realloc(p, layout, size) }
        }
        unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
            HELD.fetch_sub(layout.size(), Relaxed);
            // SAFETY: the caller's promise is passed on.
            unsafe { System.dealloc(p, layout) }
        }
    }

    #[global_allocator]
    static ALLOCATOR: Counting = Counting;
}

/// Size of each source, and what may be held in memory while it is packed.
const SOURCE: usize = 24 << 20;
const LIMIT: usize = 3 << 20;

/// Writes `bytes` again and again until `SOURCE` is reached; gives how often.
fn repeated(path: &Path, head: &[u8], bytes: &[u8]) -> usize {
    let times = SOURCE.div_ceil(bytes.len());
    let mut out = BufWriter::new(File::create(path).unwrap());
    out.write_all(head).unwrap();
    (0..times).for_each(|_| out.write_all(bytes).unwrap());
    out.flush().unwrap();
    times
}

/// Packs `name` and gives the samples of the set.
fn packed(dir: &Path, name: &str) -> u64 {
    let out = dir.join(format!("{name}.rtd"));
    let options = PackOptions { out: Some(out.clone()), ..PackOptions::default() };
    let before = peak::HELD.load(Relaxed);
    peak::MOST.store(before, Relaxed);
    pack_path(dir.join(name), &options).unwrap();
    let most = peak::MOST.load(Relaxed) - before;
    let size = std::fs::metadata(dir.join(name)).unwrap().len();
    println!("{name}: {size} bytes packed with {most} bytes of memory at most");
    assert!(size as usize >= SOURCE / 2 && most < LIMIT, "{name}: {most} bytes");
    assert!(most > 1000, "{name}: nothing was counted");
    let left: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!left.iter().any(|n| n.to_string_lossy().ends_with(".tmp")), "left behind: {left:?}");
    let set = Rtd::open(out, Access::Read).unwrap();
    set.verify().unwrap();
    set.header().count()
}

fn npy(shape: &str, descr: &str) -> Vec<u8> {
    let dict = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}");
    let mut head = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    head.extend(format!("{dict:<117}\n").into_bytes());
    head
}

/// One test, since the counters are those of the whole process.
#[test]
fn sources_larger_than_the_limit_are_packed_in_pieces() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();

    let line = "so wenig wie möglich 漢字 🙂, and as much as is needed\n".repeat(40);
    let times = repeated(&d.join("t.txt"), b"", line.as_bytes());
    assert_eq!(packed(d, "t.txt"), (times * line.chars().count()) as u64);

    let rows = b"1.5,-2,300.25,cat\n2.5,7,1e3,dog\n-0.5,0,4,\"wild, cat\"\n".repeat(20);
    let times = repeated(&d.join("t.csv"), b"a,b,c,kind\n", &rows);
    assert_eq!(packed(d, "t.csv"), 60 * times as u64);

    let rows = b"1.5\t-2\t300.25\t7.5\n2.5\t7\t1e3\t-8.5\n".repeat(20);
    let times = repeated(&d.join("t.tsv"), b"", &rows);
    assert_eq!(packed(d, "t.tsv"), 40 * times as u64);

    let n = SOURCE / 512;
    repeated(&d.join("reals.npy"), &npy(&format!("{n}, 128"), "<f4"), &1.5f32.to_le_bytes().repeat(128));
    assert_eq!(packed(d, "reals.npy"), n as u64);
    repeated(&d.join("wide.npy"), &npy(&format!("{}, 64", n), "<i8"), &7i64.to_le_bytes().repeat(64));
    assert_eq!(packed(d, "wide.npy"), n as u64);

    // One sample that is larger than the limit.
    repeated(&d.join("one.npy"), &npy(&format!("1, {}", SOURCE / 8), "<i8"), &7i64.to_le_bytes().repeat(64));
    assert_eq!(packed(d, "one.npy"), 1);

    let (n, end) = (SOURCE / 512, SOURCE / 512 * 512);
    let header = format!(
        r#"{{"x":{{"dtype":"F32","shape":[{n},128],"data_offsets":[0,{end}]}},"label":{{"dtype":"I64","shape":[{n}],"data_offsets":[{end},{}]}}}}"#,
        end + n * 8
    );
    let head = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
    repeated(&d.join("t.safetensors"), &head, &0.5f32.to_le_bytes().repeat(128));
    let mut file = File::options().append(true).open(d.join("t.safetensors")).unwrap();
    (0..n as i64).for_each(|k| file.write_all(&(k % 10).to_le_bytes()).unwrap());
    assert_eq!(packed(d, "t.safetensors"), n as u64);
}

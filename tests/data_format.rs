//! The packed format under every damage: each truncation, each flipped byte, hostile headers, truncation
//! while mapped.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use ringtape::data::{About, Access, Field, Header, Rtd, Writer};
use ringtape::error::Error;
use ringtape::shape::DType;
use std::path::{Path, PathBuf};

fn about() -> About {
    About { name: "t".into(), classes: vec!["no".into(), "yes".into()], ..About::default() }
}

/// Three samples of 2×3 bytes and a label: a gap of 46 bytes lies between the fields.
fn small(folder: &Path) -> PathBuf {
    let path = folder.join("small.rtd");
    let mut w = Writer::create(&path, about()).unwrap();
    w.field(Field::samples("image", DType::U8, &[2, 3]).normalised(vec![0.0], vec![255.0])).unwrap();
    (0..18u8).for_each(|b| w.write(&[b]).unwrap());
    w.field(Field::samples("label", DType::U8, &[]).below(2)).unwrap();
    w.write(&[1, 0, 1]).unwrap();
    w.split("train", 0, 2);
    w.split("val", 2, 1);
    w.finish().unwrap()
}

fn write(folder: &Path, bytes: &[u8]) -> PathBuf {
    let path = folder.join("changed.rtd");
    std::fs::write(&path, bytes).unwrap();
    path
}

/// Everything that the set says and holds; an error if any part of it is found damaged.
fn contents(path: &Path, access: Access) -> Result<(Header, Vec<Vec<u8>>), Error> {
    let set = Rtd::open(path, access)?;
    let mut scratch = vec![];
    let mut all = vec![];
    for f in &set.header().fields {
        all.push(set.samples(f, 0, f.count, &mut scratch)?.to_vec());
    }
    Ok((set.header().clone(), all))
}

#[test]
fn round_trip_in_every_access() {
    let dir = tempfile::tempdir().unwrap();
    let path = small(dir.path());
    for access in [Access::Mmap, Access::Read, Access::Sealed] {
        let set = Rtd::open(&path, access).unwrap();
        set.verify().unwrap();
        let (h, bytes) = contents(&path, access).unwrap();
        assert_eq!(bytes, [(0..18).collect::<Vec<u8>>(), vec![1, 0, 1]]);
        assert_eq!((h.fields[0].offset, h.fields[1].offset, h.count()), (64, 128, 3));
        assert_eq!(set.split("val").unwrap().start, 2);
        assert_eq!(set.held_out().unwrap().name, "val");
        assert_eq!(set.split("all").unwrap().count, 3);
        assert!(set.split("test").unwrap_err().to_string().contains("train, val, all"));
        assert!(set.field("x").unwrap_err().to_string().contains("image, label"));
        assert!(set.samples(&h.fields[1], 3, 1, &mut vec![]).is_err());
        assert!(set.samples(&h.fields[1], u64::MAX, 2, &mut vec![]).is_err());
    }
}

#[test]
fn written_read_only_and_nothing_is_left_of_a_set_that_is_not_finished() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = small(dir.path());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o444);
    let mut w = Writer::create(dir.path().join("half.rtd"), about()).unwrap();
    w.field(Field::samples("x", DType::F32, &[2])).unwrap();
    w.write(&[0; 12]).unwrap();
    assert!(w.finish().unwrap_err().to_string().contains("middle of a sample of 8 bytes"));
    drop(Writer::create(dir.path().join("half.rtd"), about()).unwrap());
    let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["small.rtd"]);
}

#[test]
fn litter_of_killed_writers_is_swept_and_living_ones_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(".small.rtd.1.0.tmp"), b"of a killed process").unwrap();
    std::fs::write(dir.path().join(".other.rtd.1.0.tmp"), b"not of this target").unwrap();
    let mut alive = Writer::create(dir.path().join("small.rtd"), about()).unwrap();
    small(dir.path());
    let mut names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names.len(), 3, "{names:?}");
    assert!(names[0] == ".other.rtd.1.0.tmp" && names[2] == "small.rtd", "{names:?}");
    alive.field(Field::samples("x", DType::U8, &[])).unwrap();
    alive.write(&[1]).unwrap();
    assert_eq!(Rtd::open(alive.finish().unwrap(), Access::Read).unwrap().header().count(), 1);
}

#[test]
fn same_contents_same_identity() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let bytes = [small(a.path()), small(b.path())].map(|p| std::fs::read(p).unwrap());
    assert_eq!(bytes[0], bytes[1]);
}

#[test]
fn every_truncation_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let good = std::fs::read(small(dir.path())).unwrap();
    for n in 0..good.len() {
        let path = write(dir.path(), &good[..n]);
        for access in [Access::Mmap, Access::Read, Access::Sealed] {
            let e = Rtd::open(&path, access).expect_err(&format!("{n} of {} bytes", good.len()));
            assert!(e.to_string().contains("changed.rtd"), "{e}");
            assert_eq!(e.exit_code(), 4, "{e}");
        }
    }
    let path = write(dir.path(), &[&good[..], &[0]].concat());
    assert!(Rtd::open(&path, Access::Mmap).is_err());
}

#[test]
fn every_flipped_byte_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let good = std::fs::read(small(dir.path())).unwrap();
    for k in 0..good.len() {
        for mask in [1, 0x80, 0xff] {
            let mut bytes = good.clone();
            bytes[k] ^= mask;
            let path = write(dir.path(), &bytes);
            let read = contents(&path, Access::Read);
            assert!(read.is_err(), "byte {k} ^ {mask:#x} was not noticed by reading");
            let verify = Rtd::open(&path, Access::Mmap).and_then(|s| s.verify());
            let e = verify.expect_err(&format!("byte {k} ^ {mask:#x} was not noticed by verify")).to_string();
            assert!(e.contains("changed.rtd"), "{e}");
        }
    }
}

#[test]
fn damage_is_found_in_the_block_that_is_touched_and_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("big.rtd");
    let mut w = Writer::create(&path, about()).unwrap();
    w.field(Field::samples("x", DType::U8, &[1 << 10])).unwrap();
    let piece: Vec<u8> = (0..3 << 20).map(|k| (k * 7 % 251) as u8).collect();
    piece.chunks(4099).for_each(|c| w.write(c).unwrap());
    w.write(&[5; 1024]).unwrap();
    w.finish().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[64 + (1 << 20) + 5] ^= 1; // in the second block of four
    let path = write(dir.path(), &bytes);
    for access in [Access::Mmap, Access::Read, Access::Sealed] {
        let set = Rtd::open(&path, access).unwrap();
        let (x, mut scratch) = (&set.header().fields[0], vec![]);
        assert_eq!(set.header().blocks.len(), 4);
        assert_eq!(set.samples(x, 0, 1, &mut scratch).unwrap()[..5], piece[..5]);
        assert_eq!(set.samples(x, 3072, 1, &mut scratch).unwrap(), [5; 1024]);
        let e = set.samples(x, 1023, 2, &mut scratch).unwrap_err().to_string();
        assert!(e.contains("at byte 1048640") && e.contains("damaged"), "{e}");
        assert!(set.verify().is_err());
    }
}

/// Headers with right checksums and hostile contents: each an error, at once, without memory being taken.
#[test]
fn hostile_headers() {
    let dir = tempfile::tempdir().unwrap();
    let good = Rtd::open(small(dir.path()), Access::Read).unwrap().header().clone();
    type Change = fn(&mut Header);
    let changes: &[(&str, Change)] = &[
        ("count 2^60", |h| h.fields.iter_mut().for_each(|f| f.count = 1 << 60)),
        ("count max", |h| h.fields.iter_mut().for_each(|f| f.count = u64::MAX)),
        ("one count", |h| h.fields[1].count = 2),
        ("shape overflow", |h| h.fields[0].shape = vec![1 << 40, 1 << 40]),
        ("zero extent", |h| h.fields.iter_mut().for_each(|f| (f.shape, f.count) = (vec![0], 1 << 60))),
        ("rank", |h| h.fields[0].shape = vec![1; 6]),
        ("offset in preamble", |h| h.fields[0].offset = 0),
        ("offset overlaps", |h| h.fields[1].offset = 64),
        ("offset unaligned", |h| h.fields[1].offset = 129),
        ("offset far", |h| h.fields[1].offset = 1 << 63),
        ("no fields", |h| h.fields.clear()),
        ("no name", |h| h.fields[0].name.clear()),
        ("same name", |h| h.fields[1].name = "image".into()),
        ("split outside", |h| h.splits[1].count = 2),
        ("split overflow", |h| (h.splits[1].start, h.splits[1].count) = (u64::MAX, 2)),
        ("split twice", |h| h.splits[1].name = "train".into()),
        ("blocks", |h| h.blocks.push(0)),
        ("no blocks", |h| h.blocks.clear()),
        ("deviation 0", |h| h.fields[0].std = vec![0.0]),
        ("deviation NaN", |h| h.fields[0].std = vec![f32::NAN]),
        ("deviations", |h| h.fields[0].std = vec![1.0, 1.0]),
        ("tokens with a shape", |h| h.fields[0].kind = ringtape::data::Kind::Tokens),
    ];
    let payload = &std::fs::read(dir.path().join("small.rtd")).unwrap()[64..131];
    for (name, change) in changes {
        let mut h = good.clone();
        change(&mut h);
        let path = write(dir.path(), &assemble(payload, &ringtape::wire::encode(&h).unwrap()));
        let e = Rtd::open(&path, Access::Mmap).expect_err(name);
        assert_eq!(e.exit_code(), 4, "{name}: {e}");
    }
    // The way that the hostile files are made gives a good file from a good header.
    let path = write(dir.path(), &assemble(payload, &ringtape::wire::encode(&good).unwrap()));
    Rtd::open(&path, Access::Mmap).unwrap().verify().unwrap();
}

/// Lengths inside the encoded header that promise 2^60 items.
#[test]
fn absurd_lengths_in_the_encoding() {
    let dir = tempfile::tempdir().unwrap();
    let good = Rtd::open(small(dir.path()), Access::Read).unwrap().header().clone();
    let payload = &std::fs::read(dir.path().join("small.rtd")).unwrap()[64..131];
    let header = ringtape::wire::encode(&good).unwrap();
    for at in 0..header.len() - 8 {
        for huge in [u64::MAX, 1 << 60, 1 << 40, 1 << 32] {
            let mut bytes = header.clone();
            bytes[at..at + 8].copy_from_slice(&huge.to_le_bytes());
            let path = write(dir.path(), &assemble(payload, &bytes));
            // Texts may change unnoticed here, since the checksum was made to fit; nothing else may.
            if let Ok(set) = Rtd::open(&path, Access::Read) {
                assert!(set.verify().is_err() || set.header() == &good, "{huge} at {at}");
            }
        }
    }
}

/// A file with the right checksums around any payload and header.
fn assemble(payload: &[u8], header: &[u8]) -> Vec<u8> {
    let mut b = vec![0; 64];
    b[..8].copy_from_slice(b"\x93RTD\r\n\x1a\n");
    b[8..12].copy_from_slice(&1u32.to_le_bytes());
    b[12..16].copy_from_slice(&crc32c::crc32c(header).to_le_bytes());
    b[16..24].copy_from_slice(&(64 + payload.len() as u64).to_le_bytes());
    b[24..32].copy_from_slice(&(header.len() as u64).to_le_bytes());
    let crc = crc32c::crc32c(&b[..60]);
    b[60..].copy_from_slice(&crc.to_le_bytes());
    [&b, payload, header].concat()
}

#[test]
fn what_is_not_a_set_is_refused_with_a_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let open = |p: &Path| Rtd::open(p, Access::Mmap).unwrap_err();
    let e = open(&dir.path().join("none.rtd"));
    assert!(e.to_string().contains("none.rtd") && e.exit_code() == 4, "{e}");
    assert!(open(dir.path()).to_string().contains("folder"));
    assert!(open(Path::new("/dev/zero")).to_string().contains("device"));
    assert!(open(&write(dir.path(), b"")).to_string().contains("too few"));
    assert!(open(&write(dir.path(), &[7; 500])).to_string().contains("data pack"));
    let mut newer = assemble(&[], &[]);
    newer[8] = 3;
    let crc = crc32c::crc32c(&newer[..60]);
    newer[60..].copy_from_slice(&crc.to_le_bytes());
    assert!(open(&write(dir.path(), &newer)).to_string().contains("version 3"));
    let fifo = dir.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    assert!(open(&fifo).to_string().contains("pipe"));
}

/// Not a test of its own: what the next test runs in another process. Maps the file, waits for it to be cut,
/// touches it.
#[test]
fn child_that_maps() {
    let Ok(path) = std::env::var("RINGTAPE_TEST_MAP") else { return };
    let access = std::env::var("RINGTAPE_TEST_ACCESS").unwrap().parse().unwrap();
    let set = Rtd::open(&path, access).unwrap();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(100).unwrap();
    let x = &set.header().fields[0];
    match set.samples(x, x.count - 1, 1, &mut vec![]) {
        Ok(bytes) => assert_eq!(bytes, [9; 4096]),
        Err(e) => {
            eprintln!("{e}");
            std::process::exit(e.exit_code());
        }
    }
    if let Err(e) = set.still_intact() {
        eprintln!("{e}");
        std::process::exit(e.exit_code());
    }
}

#[test]
fn truncation_while_open() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    for (access, code, text) in
        [("mmap", 4, "truncated while mapped"), ("read", 4, "truncated while it was read"), ("sealed", 0, "")]
    {
        let path = dir.path().join(format!("{access}.rtd"));
        let mut w = Writer::create(&path, about()).unwrap();
        w.field(Field::samples("x", DType::U8, &[4096])).unwrap();
        (0..50).for_each(|_| w.write(&[9; 4096]).unwrap());
        w.finish().unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let out = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_maps", "--nocapture"])
            .env("RINGTAPE_TEST_MAP", &path)
            .env("RINGTAPE_TEST_ACCESS", access)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(code), "{access}: {said}");
        let named = said.contains(text) && said.contains(path.to_str().unwrap());
        assert!(code == 0 || named, "{access}: {said}");
    }
}

#[test]
fn a_change_in_place_is_noticed_and_a_renamed_file_does_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let good = std::fs::read(small(dir.path())).unwrap();
    let path = write(dir.path(), &good);
    let set = Rtd::open(&path, Access::Mmap).unwrap();
    set.still_intact().unwrap();
    std::fs::rename(dir.path().join("small.rtd"), &path).unwrap();
    set.still_intact().unwrap();
    set.verify().unwrap();
    drop(set);
    let path = write(&dir.path().join("."), &good[..0]);
    std::fs::write(&path, &good).unwrap();
    let (mapped, sealed) =
        (Rtd::open(&path, Access::Mmap).unwrap(), Rtd::open(&path, Access::Sealed).unwrap());
    std::fs::OpenOptions::new().append(true).open(&path).unwrap().set_len(good.len() as u64 + 1).unwrap();
    let e = mapped.still_intact().unwrap_err().to_string();
    assert!(e.contains("changed while it was in use"), "{e}");
    sealed.still_intact().unwrap();
}

/// Alone in its process, since the table is the process's and other tests map files too.
#[test]
fn child_that_maps_too_much() {
    let Ok(path) = std::env::var("RINGTAPE_TEST_MANY") else { return };
    let mut open = vec![];
    let e = loop {
        match Rtd::open(&path, Access::Mmap) {
            Ok(set) => open.push(set),
            Err(e) => break e.to_string(),
        }
        assert!(open.len() <= 64);
    };
    assert!(open.len() == 64 && e.contains("data.map=read"), "{e}");
    assert!(Rtd::open(&path, Access::Read).is_ok());
    open.pop();
    assert!(Rtd::open(&path, Access::Mmap).is_ok());
}

#[test]
fn more_maps_than_the_table_holds_is_an_error_with_a_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let out = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_maps_too_much"])
        .env("RINGTAPE_TEST_MANY", small(dir.path()))
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
}

//! Readers of common formats: right values, and an error (never a panic, never absurd memory) for every
//! damage.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use ringtape::data::readers::*;
use ringtape::data::{Access, Dataset, PackOptions, Rtd, Samples, Vocabulary, Windows, pack_path};
use ringtape::error::{Error, Result};
use ringtape::shape::DType;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut e = flate2::write::GzEncoder::new(vec![], flate2::Compression::new(6));
    e.write_all(bytes).unwrap();
    e.finish().unwrap()
}

fn idx(dims: &[u32], data: &[u8]) -> Vec<u8> {
    let mut b = vec![0, 0, 8, dims.len() as u8];
    dims.iter().for_each(|d| b.extend(d.to_be_bytes()));
    b.extend(data);
    b
}

/// An `.npy` file of format version `version`, as numpy.save lays it out.
fn npy(version: u8, dict: &str, data: &[u8]) -> Vec<u8> {
    let mut b = vec![0x93];
    b.extend(b"NUMPY");
    b.extend([version, 0]);
    let prefix = if version == 1 { 10 } else { 12 };
    let len = (prefix + dict.len() + 1).next_multiple_of(64) - prefix;
    let lenb = (len as u32).to_le_bytes();
    b.extend(if version == 1 { &lenb[..2] } else { &lenb[..] });
    b.extend(format!("{dict:<0$}\n", len - 1).into_bytes());
    b.extend(data);
    b
}

fn f32s(v: &[f32]) -> Vec<u8> {
    v.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// A zip with one stored and one deflated entry, as numpy.savez(_compressed) writes them.
fn zip(entries: &[(&str, &[u8], bool)]) -> Vec<u8> {
    let (mut out, mut central) = (vec![], vec![]);
    for (name, data, deflate) in entries {
        let mut crc = flate2::Crc::new();
        crc.update(data);
        let packed = if *deflate {
            let mut e = flate2::write::DeflateEncoder::new(vec![], flate2::Compression::new(6));
            e.write_all(data).unwrap();
            e.finish().unwrap()
        } else {
            data.to_vec()
        };
        let mut common = vec![20, 0, 0, 0, 8 * *deflate as u8, 0, 0, 0, 33, 0];
        for v in [crc.sum(), packed.len() as u32, data.len() as u32] {
            common.extend(v.to_le_bytes());
        }
        common.extend((name.len() as u16).to_le_bytes());
        common.extend([0, 0]);
        central.extend(b"PK\x01\x02\x14\x00");
        central.extend(&common);
        central.extend([0; 10]);
        central.extend((out.len() as u32).to_le_bytes());
        central.extend(name.as_bytes());
        out.extend(b"PK\x03\x04");
        out.extend(&common);
        out.extend(name.as_bytes());
        out.extend(packed);
    }
    let at = out.len() as u32;
    out.extend(&central);
    out.extend(b"PK\x05\x06\0\0\0\0");
    let n = (entries.len() as u16).to_le_bytes();
    out.extend([n, n].concat());
    out.extend((central.len() as u32).to_le_bytes());
    out.extend(at.to_le_bytes());
    out.extend([0, 0]);
    out
}

fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

fn png(w: u32, h: u32, color: png::ColorType, data: &[u8]) -> Vec<u8> {
    let mut out = vec![];
    let mut e = png::Encoder::new(&mut out, w, h);
    e.set_color(color);
    e.set_depth(png::BitDepth::Eight);
    e.write_header().unwrap().write_image_data(data).unwrap();
    out
}

fn wav(samples: &[i16]) -> Vec<u8> {
    let mut out = std::io::Cursor::new(vec![]);
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: 8000,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut w = hound::WavWriter::new(&mut out, spec).unwrap();
    samples.iter().for_each(|&s| w.write_sample(s).unwrap());
    w.finalize().unwrap();
    out.into_inner()
}

fn shard(dir: &Path, bytes: &[u8]) -> Result<Vec<u32>> {
    let path = dir.join("t.bin");
    std::fs::write(&path, bytes).unwrap();
    let mut all = vec![];
    read_shard(&path)?.for_each(|t| {
        all.extend_from_slice(t);
        Ok(())
    })?;
    Ok(all)
}

fn headed(magic: i32, version: i32, count: i32, data: &[u8]) -> Vec<u8> {
    let mut b: Vec<u8> = [magic, version, count].iter().flat_map(|v| v.to_le_bytes()).collect();
    b.resize(1024, 0);
    b.extend(data);
    b
}

const P: &str = "some/file";

/// Every truncation and every flipped byte of a good file. `checked`: the format has checksums, so a flip
/// must be found or change nothing. Always: no panic, and errors that name the file.
fn sweep<T: PartialEq + std::fmt::Debug>(
    good: &[u8],
    truncated: bool,
    checked: bool,
    read: impl Fn(&[u8]) -> Result<T>,
) {
    let want = read(good).unwrap();
    let named = |e: &Error| {
        assert!(e.to_string().contains("file") || e.to_string().contains("t.bin"), "{e}");
        assert!(matches!(e.exit_code(), 4 | 5), "{e}");
    };
    for n in 0..good.len() {
        match read(&good[..n]) {
            Err(e) => named(&e),
            Ok(got) => assert!(!truncated, "{n} of {} bytes gave {got:?}", good.len()),
        }
    }
    for k in 0..good.len() {
        for mask in [1, 0x10, 0x80, 0xff] {
            let mut bytes = good.to_vec();
            bytes[k] ^= mask;
            match read(&bytes) {
                Err(e) => named(&e),
                Ok(got) => {
                    assert!(!checked || got == want, "byte {k} ^ {mask:#x} changed the result unnoticed")
                }
            }
        }
    }
}

#[test]
fn idx_sweep() {
    let read = |b: &[u8]| read_idx(Path::new(P), b);
    let plain = idx(&[2, 2, 3], &(0..12).collect::<Vec<u8>>());
    let a = read(&plain).unwrap();
    assert_eq!((a.shape.as_slice(), a.data.as_slice(), a.dtype), (&[2, 2, 3][..], &plain[16..], DType::U8));
    assert_eq!(read(&gz(&plain)).unwrap(), a);
    sweep(&plain, true, false, read);
    sweep(&gz(&plain), true, true, read);
    let e = read(&idx(&[3, 2], &[1, 2, 3, 4, 5])).unwrap_err().to_string();
    assert!(e.contains("some/file at byte 4") && e.contains("[3, 2]"), "{e}");
    assert!(read(&[&plain[..], &[0]].concat()).unwrap_err().to_string().contains("more bytes follow"));
}

#[test]
fn npy_sweep() {
    let read = |b: &[u8]| read_npy(Path::new(P), b);
    let dict = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }";
    let data = f32s(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    for version in [1, 2, 3] {
        let a = read(&npy(version, dict, &data)).unwrap();
        assert_eq!((a.shape, a.data, a.dtype), (vec![2, 3], data.clone(), DType::F32));
    }
    sweep(&npy(1, dict, &data), true, false, read);
    let of = |d: &str, data: &[u8]| {
        read(&npy(1, &format!("{{'descr': '{d}', 'fortran_order': False, 'shape': (2,), }}"), data))
    };
    let i8s: Vec<u8> = [-1i64, 7].iter().flat_map(|v| v.to_le_bytes()).collect();
    assert_eq!(of("<i8", &i8s).unwrap().to_i32(Path::new(P)).unwrap(), [-1, 7]);
    assert_eq!(of("|b1", &[1, 0]).unwrap().data, [1, 0]);
    let big: Vec<u8> = [1i64 << 40, 7].iter().flat_map(|v| v.to_le_bytes()).collect();
    assert!(of("<i8", &big).unwrap_err().to_string().contains("1099511627776 does not fit"));
    assert!(of(">f4", &[0; 8]).unwrap_err().to_string().contains("astype('<f4')"));
    assert!(of("|O", &[0; 2]).is_err());
    let column_major = dict.replace("False", "True");
    let e = read(&npy(1, &column_major, &data)).unwrap_err().to_string();
    assert!(e.contains("ascontiguousarray"), "{e}");
}

#[test]
fn npz_sweep() {
    let read = |b: &[u8]| read_npz(Path::new(P), b);
    let x = npy(1, "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", &f32s(&[1.5, 2.5]));
    let y = npy(1, "{'descr': '|u1', 'fortran_order': False, 'shape': (2,), }", &[3, 4]);
    let good = zip(&[("x.npy", &x, false), ("y.npy", &y, true)]);
    let arrays = read(&good).unwrap();
    assert_eq!(arrays.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>(), ["x", "y"]);
    assert_eq!((&arrays[0].1.data, &arrays[1].1.data), (&f32s(&[1.5, 2.5]), &vec![3, 4]));
    sweep(&good, true, false, read);
    // Names are outside the checksums of a zip; what the arrays hold is inside.
    let want: Vec<Array> = arrays.into_iter().map(|(_, a)| a).collect();
    for k in 0..good.len() {
        let mut bytes = good.clone();
        bytes[k] ^= 0xff;
        if let Ok(got) = read(&bytes) {
            assert!(got.iter().all(|(_, a)| want.contains(a)), "byte {k}");
        }
    }
    for name in ["../x.npy", "/x.npy", "a/../../x.npy"] {
        let e = read(&zip(&[(name, &x, true)])).unwrap_err().to_string();
        assert!(e.contains("leads out"), "{e}");
    }
}

#[test]
fn token_shards() {
    let dir = tempfile::tempdir().unwrap();
    let tokens: Vec<u8> = [1u16, 500, 65535].iter().flat_map(|t| t.to_le_bytes()).collect();
    let wide: Vec<u8> = [1u32, 70_000].iter().flat_map(|t| t.to_le_bytes()).collect();
    let read = |b: &[u8]| shard(dir.path(), b);
    assert_eq!(read(&tokens).unwrap(), [1, 500, 65535]);
    assert_eq!(read(&headed(20240520, 1, 3, &tokens)).unwrap(), [1, 500, 65535]);
    assert_eq!(read(&headed(20240520, 2, 2, &wide)).unwrap(), [1, 70_000]);
    for (bytes, text) in [
        (vec![], "empty"),
        (tokens[..5].to_vec(), "no whole number"),
        (headed(20240520, 3, 3, &tokens), "version 3"),
        (headed(20240520, 1, 4, &tokens), "4 tokens"),
        (headed(20240520, 1, i32::MAX, &tokens), "2147483647 tokens"),
        (headed(20240520, 1, -3, &tokens), "-3 tokens"),
        (headed(20240520, 1, 3, &tokens)[..900].to_vec(), "3 tokens"),
    ] {
        let e = read(&bytes).unwrap_err().to_string();
        assert!(e.contains("t.bin") && e.contains(text), "{e}");
    }
    // A bare stream has no length of its own: only whole tokens are asked for.
    sweep(&tokens, false, false, read);
    sweep(&headed(20240520, 1, 3, &tokens)[1000..], false, false, read);
    for n in 12..1030 {
        assert!(read(&headed(20240520, 1, 3, &tokens)[..n]).is_err(), "{n}");
    }
}

#[test]
fn csv_sweep() {
    let read = |b: &[u8]| {
        let t = read_csv(Path::new(P), b, true)?;
        Ok((t.columns.clone(), t.rows.clone()))
    };
    let good = b"a,b,c\n1,2,x\n4.5,-6,\"y, z\"\n";
    sweep(good, false, false, read);
    let t = read_csv(Path::new(P), good, true).unwrap();
    assert_eq!(
        (t.columns.join(" "), t.number(1, 0).unwrap(), t.rows[1][2].as_str()),
        ("a b c".into(), 4.5, "y, z")
    );
    assert!(t.number(0, 2).unwrap_err().to_string().contains("line 2, column `c`: \"x\""));
    assert!(t.column("d").unwrap_err().to_string().contains("a, b, c"));
    let e = read(b"a,b\n1,2\n3\n").unwrap_err().to_string();
    assert!(e.contains("some/file at byte 8") && e.contains("line: 3"), "{e}");
    assert!(read(b"a,b\n1,\xff\n").is_err());
    assert!(read(b"").is_err() && read(b"a,b\n").is_err());
}

#[test]
fn png_sweep() {
    let read = |b: &[u8]| read_png(Path::new(P), b);
    let grey = png(3, 2, png::ColorType::Grayscale, &[0, 50, 100, 150, 200, 250]);
    assert_eq!(read(&grey).unwrap().shape, [1, 2, 3]);
    assert_eq!(read(&grey).unwrap().data, [0, 50, 100, 150, 200, 250]);
    let rgba = png(2, 1, png::ColorType::Rgba, &[1, 2, 3, 255, 4, 5, 6, 0]);
    assert_eq!(
        (read(&rgba).unwrap().shape, read(&rgba).unwrap().data),
        (vec![3, 1, 2], vec![1, 4, 2, 5, 3, 6])
    );
    sweep(&grey, true, true, read);
}

#[test]
fn wav_sweep() {
    let read = |b: &[u8]| read_wav(Path::new(P), b);
    let good = wav(&[0, 16384, -32768, 1]);
    let w = read(&good).unwrap();
    assert_eq!((w.rate, w.samples), (8000, vec![0.0, 0.5, -1.0, 1.0 / 32768.0]));
    sweep(&good, true, false, read);
}

#[test]
fn text_sweep() {
    let read = |b: &[u8]| read_text(Path::new(P), b);
    assert_eq!(read("héllo".as_bytes()).unwrap(), "héllo");
    assert_eq!(read(&gz("héllo".as_bytes())).unwrap(), "héllo");
    sweep("héllo".as_bytes(), false, false, read);
    // The first byte of the magic gone, it is no gzip, and not UTF-8 either.
    sweep(&gz("héllo".as_bytes()), false, true, read);
    let e = read(b"abc\xffdef").unwrap_err().to_string();
    assert!(e.contains("some/file at byte 3") && e.contains("iconv"), "{e}");
}

#[test]
fn safetensors_sweep() {
    let read = |b: &[u8]| read_safetensors(Path::new(P), b);
    let header = r#"{"b":{"dtype":"I64","shape":[2],"data_offsets":[8,24]},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
    let data = [f32s(&[1.0, 2.0]), [3i64, -4].iter().flat_map(|v| v.to_le_bytes()).collect()].concat();
    let good = safetensors(header, &data);
    let arrays = read(&good).unwrap();
    assert_eq!((arrays[0].0.as_str(), arrays[0].1.to_f32(Path::new(P)).unwrap()), ("a", vec![1.0, 2.0]));
    assert_eq!((arrays[1].0.as_str(), arrays[1].1.to_i32(Path::new(P)).unwrap()), ("b", vec![3, -4]));
    sweep(&good, true, false, read);
}

/// One rule of the format each.
mod hostile_safetensors {
    use super::*;

    fn refused(bytes: &[u8]) {
        let e = read_safetensors(Path::new(P), bytes).unwrap_err();
        assert!(e.to_string().contains(P) && e.exit_code() == 4, "{e}");
    }
    fn one(dtype: &str, shape: &str, offsets: &str, data: &[u8]) {
        let h = format!(r#"{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#);
        refused(&safetensors(&h, data));
    }
    fn two(a: &str, b: &str, data: &[u8]) {
        let t = |o: &str| format!(r#"{{"dtype":"U8","shape":[4],"data_offsets":{o}}}"#);
        refused(&safetensors(&format!(r#"{{"a":{},"b":{}}}"#, t(a), t(b)), data));
    }

    #[test]
    fn shorter_than_its_length_field() {
        (0..8).for_each(|n| refused(&vec![0; n]));
    }
    #[test]
    fn header_longer_than_the_file() {
        refused(&[&1000u64.to_le_bytes()[..], b"{}"].concat());
    }
    #[test]
    fn header_of_2_to_the_63_bytes() {
        for n in [u64::MAX, 1 << 63, 1 << 40, 100_000_001] {
            refused(&[&n.to_le_bytes()[..], b"{}"].concat());
        }
    }
    #[test]
    fn header_is_not_utf8() {
        refused(&[&2u64.to_le_bytes()[..], &[0xff, 0xfe]].concat());
    }
    #[test]
    fn header_is_not_json() {
        ["{", "[]", "null", "7", "{\"a\":", "{\"a\":1}"].iter().for_each(|h| refused(&safetensors(h, &[])));
    }
    #[test]
    fn header_is_empty() {
        refused(&0u64.to_le_bytes());
    }
    #[test]
    fn nested_without_end() {
        refused(&safetensors(&"{\"a\":".repeat(100_000), &[]));
        refused(&safetensors(&"[".repeat(100_000), &[]));
    }
    #[test]
    fn a_field_is_missing() {
        refused(&safetensors(r#"{"a":{"dtype":"U8","shape":[1]}}"#, &[0]));
    }
    #[test]
    fn unknown_dtype() {
        one("F99", "[1]", "[0,4]", &[0; 4]);
    }
    #[test]
    fn dtype_that_ringtape_lacks() {
        one("U64", "[1]", "[0,8]", &[0; 8]);
    }
    #[test]
    fn negative_extent() {
        one("U8", "[-1]", "[0,1]", &[0]);
    }
    #[test]
    fn shape_and_offsets_disagree() {
        one("F32", "[2]", "[0,4]", &[0; 4]);
        one("F32", "[1]", "[0,8]", &[0; 8]);
    }
    #[test]
    fn elements_overflow() {
        one("F32", "[4294967296,4294967296]", "[0,4]", &[0; 4]);
        one("F32", "[9223372036854775807,2]", "[0,4]", &[0; 4]);
    }
    #[test]
    fn bytes_overflow() {
        one("F64", "[4611686018427387904]", "[0,8]", &[0; 8]);
    }
    #[test]
    fn begins_after_its_end() {
        one("U8", "[0]", "[1,0]", &[0]);
    }
    #[test]
    fn ends_after_the_file() {
        one("U8", "[4]", "[0,4]", &[0; 3]);
        one("U8", "[1099511627776]", "[0,1099511627776]", &[0; 3]);
    }
    #[test]
    fn bytes_that_no_tensor_owns() {
        one("U8", "[4]", "[0,4]", &[0; 5]);
        one("U8", "[4]", "[1,5]", &[0; 5]);
    }
    #[test]
    fn a_hole_between_tensors() {
        two("[0,4]", "[5,9]", &[0; 9]);
    }
    #[test]
    fn tensors_overlap() {
        two("[0,4]", "[2,6]", &[0; 6]);
        two("[0,4]", "[0,4]", &[0; 4]);
    }
    #[test]
    fn metadata_is_not_text() {
        refused(&safetensors(r#"{"__metadata__":{"a":1}}"#, &[]));
    }
}

/// Headers that claim enormous sizes in a few bytes.
fn hostile_claims() -> Vec<(&'static str, Result<()>)> {
    let p = Path::new(P);
    let npy_of = |shape: &str, d: &str| {
        npy(1, &format!("{{'descr': '{d}', 'fortran_order': False, 'shape': ({shape}), }}"), &[0; 16])
    };
    let mut wide_png = png(3, 2, png::ColorType::Grayscale, &[0; 6]);
    wide_png[16..24].copy_from_slice(&[0x7f, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff]);
    let mut crc = flate2::Crc::new();
    crc.update(&wide_png[12..29]);
    wide_png[29..33].copy_from_slice(&crc.sum().to_be_bytes());
    let mut long_wav = wav(&[1, 2]);
    long_wav[4..8].copy_from_slice(&[0xff; 4]);
    long_wav[40..44].copy_from_slice(&[0xfe, 0xff, 0xff, 0xff]);
    let mut big_zip = zip(&[("x.npy", &[0; 40], true)]);
    for at in 0..big_zip.len() - 4 {
        if big_zip[at..].starts_with(b"PK\x01\x02") {
            big_zip[at + 24..at + 28].copy_from_slice(&[0xfe, 0xff, 0xff, 0x7f]);
        }
    }
    vec![
        ("idx max", read_idx(p, &idx(&[u32::MAX; 6], &[0; 9])).map(drop)),
        ("idx 2^31", read_idx(p, &idx(&[1 << 31, 784], &[0; 9])).map(drop)),
        ("idx gz", read_idx(p, &gz(&idx(&[1 << 31, 784], &[0; 9]))).map(drop)),
        ("idx gz that fits deflate", read_idx(p, &gz(&idx(&[10_000], &[0; 9]))).map(drop)),
        ("npy 2^60", read_npy(p, &npy_of("1152921504606846976,", "<f4")).map(drop)),
        ("npy overflow", read_npy(p, &npy_of("4294967296, 4294967296, 4294967296", "<f8")).map(drop)),
        ("npy wide", read_npy(p, &npy_of("2,", "<f4000000000000")).map(drop)),
        ("npy digits", read_npy(p, &npy_of("99999999999999999999999", "<f4")).map(drop)),
        ("png", read_png(p, &wide_png).map(drop)),
        ("wav", read_wav(p, &long_wav).map(drop)),
        ("zip", read_npz(p, &big_zip).map(drop)),
        ("safetensors", read_safetensors(p, &[&(1u64 << 62).to_le_bytes()[..], b"{}"].concat()).map(drop)),
    ]
}

#[test]
fn child_that_reads_hostile_claims() {
    if std::env::var("RINGTAPE_TEST_HOSTILE").is_ok() {
        assert!(Vec::<u8>::new().try_reserve_exact(200 << 20).is_err(), "the limit holds");
    }
    for (name, result) in hostile_claims() {
        let e = result.expect_err(name);
        assert!(e.to_string().contains(P) && e.exit_code() == 4, "{name}: {e}");
    }
}

#[test]
fn hostile_claims_take_no_memory() {
    let out = std::process::Command::new("sh")
        .args([
            "-c",
            "ulimit -v 180000 && exec \"$0\" --exact child_that_reads_hostile_claims --test-threads=1",
        ])
        .arg(std::env::current_exe().unwrap())
        .env("RINGTAPE_TEST_HOSTILE", "1")
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
}

fn put(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, bytes).unwrap();
    path
}

fn packed(path: &Path, o: &PackOptions) -> Arc<Rtd> {
    let set = Rtd::open(pack_path(path, o).unwrap(), Access::Mmap).unwrap();
    set.verify().unwrap();
    Arc::new(set)
}

#[test]
fn a_users_files_are_packed() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let o = PackOptions { val: 0.25, ..PackOptions::default() };

    let set = packed(&put(d, "poem.txt", "abracadabra\n".repeat(10).as_bytes()), &o);
    assert_eq!(Vocabulary::from_header(set.header()).unwrap().symbols().concat(), "\nabcdr");
    assert_eq!((set.split("train").unwrap().count, set.split("val").unwrap().count), (90, 30));
    assert!(Windows::training(set, "train", 8).is_ok());

    let tokens: Vec<u8> = [1u16, 500, 2, 9].iter().flat_map(|t| t.to_le_bytes()).collect();
    let set = packed(&put(d, "ids.bin", &tokens), &o);
    assert_eq!((set.header().fields[0].bound, set.header().count()), (501, 4));
    let small = PackOptions { vocabulary: Some(500), out: Some(d.join("small.rtd")), ..o.clone() };
    let e = pack_path(d.join("ids.bin"), &small).unwrap_err().to_string();
    assert!(e.contains("token 1 is 500") && !d.join("small.rtd").exists(), "{e}");

    put(d, "my-labels-idx1-ubyte", &idx(&[4], &[0, 1, 2, 1]));
    let set = packed(&put(d, "my-images-idx3-ubyte.gz", &gz(&idx(&[4, 2, 2], &[7; 16]))), &o);
    assert_eq!(set.header().fields.len(), 1, "labels with another ending are not taken for its own");
    let set = packed(
        &put(d, "ours-images-idx3-ubyte", &idx(&[4, 2, 2], &[7; 16])),
        &PackOptions { labels: Some(d.join("my-labels-idx1-ubyte")), ..o.clone() },
    );
    assert_eq!(
        (set.field("image").unwrap().shape.clone(), set.field("label").unwrap().bound),
        (vec![1, 2, 2], 3)
    );

    let set = packed(&put(d, "t.csv", b"x,y,kind\n1,2,cat\n3,4,dog\n5,6,cat\n7,9,eel\n"), &o);
    assert_eq!(
        (set.header().about.classes.join(" "), set.field("features").unwrap().mean.len()),
        ("cat dog eel".into(), 2)
    );
    let o2 = PackOptions { target: Some("y".into()), out: Some(d.join("t2.rtd")), ..o.clone() };
    assert!(pack_path(d.join("t.csv"), &o2).unwrap_err().to_string().contains("column `kind`"));
    let set = packed(&put(d, "n.csv", b"1,2,0.5\n3,4,1.5\n5,6,2.5\n7,9,3.5\n"), &o);
    assert_eq!(set.field("target").unwrap().dtype, DType::F32);
    assert_eq!(Samples::new(set, "train").unwrap().fields()[0].spec.to_string(), "f32[2]");

    let x = npy(1, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 1), }", &f32s(&[1.5, 2.5]));
    let y = npy(1, "{'descr': '<i4', 'fortran_order': False, 'shape': (2,), }", &[0, 0, 0, 0, 1, 0, 0, 0]);
    let set = packed(&put(d, "two.npz", &zip(&[("x.npy", &x, false), ("label.npy", &y, true)])), &o);
    assert_eq!((set.header().count(), set.field("label").unwrap().bound), (2, 2));
    assert_eq!(packed(&put(d, "one.npy", &x), &o).header().count(), 2);

    for (name, v) in [("pets/cat/1.png", 10), ("pets/cat/2.png", 20), ("pets/dog/1.png", 30)] {
        put(d, name, &png(2, 2, png::ColorType::Grayscale, &[v; 4]));
    }
    let set = packed(&d.join("pets"), &o);
    assert_eq!((set.header().about.classes.join(" "), set.header().count()), ("cat dog".into(), 3));
    put(d, "pets/dog/2.png", &png(3, 2, png::ColorType::Grayscale, &[1; 6]));
    let again = PackOptions { out: Some(d.join("pets2.rtd")), ..o.clone() };
    assert!(pack_path(d.join("pets"), &again).unwrap_err().to_string().contains("one size"));
    assert!(!d.join("pets2.rtd").exists());

    let e = pack_path(d.join("poem.txt"), &o).unwrap_err();
    assert!(e.to_string().contains("exists already") && e.exit_code() == 2, "{e}");
    assert!(pack_path(put(d, "what.xyz", b"?"), &o).unwrap_err().to_string().contains("tells no format"));
}

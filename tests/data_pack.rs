//! What is packed comes out as it went in, whatever the order in which it is written.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use ringtape::data::{Access, PackOptions, Rtd, pack_path};
use std::io::Write;
use std::path::Path;

/// Packs `bytes` as the file `name`.
fn packed(dir: &Path, name: &str, bytes: &[u8], options: PackOptions) -> Rtd {
    std::fs::write(dir.join(name), bytes).unwrap();
    let out = dir.join(format!("{name}.rtd"));
    pack_path(dir.join(name), &PackOptions { out: Some(out.clone()), ..options }).unwrap();
    Rtd::open(out, Access::Read).unwrap()
}

fn stored(set: &Rtd, name: &str) -> Vec<u8> {
    let field = set.field(name).unwrap();
    set.samples(field, 0, field.count, &mut vec![]).unwrap().to_vec()
}

fn reals(set: &Rtd, name: &str) -> Vec<f32> {
    stored(set, name).as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect()
}

/// Rows `k, k / 2, name or number of k`, shuffled by packing, are found again each with its own parts.
#[test]
fn rows_of_a_table_stay_together() {
    let dir = tempfile::tempdir().unwrap();
    let n = 500;
    let names = ["ox", "ant", "cow"];
    let table = |tab: &str, target: &dyn Fn(usize) -> String| -> String {
        (0..n).map(|k| format!("{k}{tab}{}{tab}{}\n", k as f32 / 2.0, target(k))).collect()
    };
    let check = |set: &Rtd, target: &dyn Fn(usize) -> f32| {
        let label = set.field("label").is_ok();
        let targets: Vec<f32> = match label {
            true if set.field("label").unwrap().dtype == ringtape::shape::DType::U16 => {
                stored(set, "label").as_chunks().0.iter().map(|&b| u16::from_le_bytes(b) as f32).collect()
            }
            true => stored(set, "label").iter().map(|&b| b as f32).collect(),
            false => reals(set, "target"),
        };
        let features = reals(set, "features");
        let mut seen = vec![false; n];
        for (row, t) in features.chunks(2).zip(targets) {
            let k = row[0] as usize;
            assert_eq!((row[1], t), (k as f32 / 2.0, target(k)), "row {k}");
            assert!(!std::mem::replace(&mut seen[k], true), "row {k} twice");
        }
        assert!(seen.iter().all(|s| *s));
        assert!((0..n).any(|k| features[2 * k] != k as f32), "the order is that of the file");
        // Statistics are those of the training rows alone.
        let train = set.split("train").unwrap().count as usize;
        let mean = (0..train).map(|k| features[2 * k] as f64).sum::<f64>() / train as f64;
        assert!((set.field("features").unwrap().mean[0] as f64 - mean).abs() < 1e-3);
    };
    let o = PackOptions::default;
    let d = dir.path();
    let named = table(",", &|k| names[k % 3].into());
    let set = packed(d, "names.csv", format!("a,b,kind\n{named}").as_bytes(), o());
    assert_eq!(set.header().about.classes, ["ant", "cow", "ox"], "sorted");
    check(&set, &|k| [2.0, 0.0, 1.0][k % 3]);
    let set = packed(d, "tabs.tsv", table("\t", &|k| (k % 7).to_string()).as_bytes(), o());
    assert_eq!(set.header().about.classes.len(), 7);
    check(&set, &|k| (k % 7) as f32);
    let mut gz = flate2::write::GzEncoder::new(vec![], flate2::Compression::new(6));
    gz.write_all(table(",", &|k| format!("{}", k as f32 - 0.5)).as_bytes()).unwrap();
    let set = packed(d, "reals.csv.gz", &gz.finish().unwrap(), o());
    check(&set, &|k| k as f32 - 0.5);
}

#[test]
fn a_table_that_cannot_be_packed_is_named_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let refused = |name: &str, bytes: &[u8], words: &[&str]| {
        std::fs::write(d.join(name), bytes).unwrap();
        let e = pack_path(d.join(name), &PackOptions::default()).unwrap_err();
        assert!(words.iter().all(|w| e.to_string().contains(w)) && e.exit_code() == 4, "{e}");
        let left = std::fs::read_dir(d).unwrap().count();
        assert_eq!(
            left,
            std::fs::read_dir(d)
                .unwrap()
                .filter(|e| !e.as_ref().unwrap().file_name().to_string_lossy().contains("rtd"))
                .count()
        );
    };
    refused("a.csv", b"", &["a.csv", "no rows"]);
    refused("a.csv", b"x,y\n", &["a.csv", "no rows"]);
    refused("a.csv", b"x\n1\n", &["a.csv", "one column"]);
    refused("a.csv", b"x,y\n1,2\n3,cat\n", &["a.csv", "line 3", "`y`", "cat"]);
    refused("a.csv", b"x,y\n1,2\n3\n", &["a.csv", "line: 3"]);
    refused("a.tsv", b"x\ty\n1\t2\n\xff\t3\n", &["a.tsv"]);
    refused("a.csv.gz", b"\x1f\x8b\x08\x00garbage", &["a.csv.gz", "damaged"]);
    let many: String = (0..70_000).map(|k| format!("1,n{k}\n")).collect();
    refused("a.csv", many.as_bytes(), &["line 65537", "--target"]);
}

/// A text is read twice: pieces, ids and splits are those of the whole, gzip or not.
#[test]
fn texts_come_back_whole() {
    let dir = tempfile::tempdir().unwrap();
    let text = "aé漢🙂\nso wenig wie möglich\n".repeat(9000);
    let mut gz = flate2::write::GzEncoder::new(vec![], flate2::Compression::new(6));
    gz.write_all(text.as_bytes()).unwrap();
    for (name, bytes) in [("t.txt", text.as_bytes().to_vec()), ("z.txt.gz", gz.finish().unwrap())] {
        let set = packed(dir.path(), name, &bytes, PackOptions::default());
        let words = ringtape::data::Vocabulary::from_header(set.header()).unwrap();
        let ids: Vec<u32> = stored(&set, "tokens").iter().map(|&b| b.into()).collect();
        assert!(words.decode(&ids) == text, "{name}");
        assert!(set.header().about.vocabulary.is_sorted());
    }
}

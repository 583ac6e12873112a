//! The PTX reader against a corpus: what nvcc, Triton and people wrote is read, and wrong files are refused at the place
//! that the corpus names.

mod cli_support;

use cli_support::ringtape;
use std::fs;
use std::path::{Path, PathBuf};

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ptx")
}

fn ptx_files(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(corpus().join(folder)).unwrap();
    let mut found: Vec<_> = entries.map(|e| e.unwrap().path()).collect();
    found.retain(|p| p.extension().is_some_and(|e| e == "ptx"));
    found.sort();
    found
}

#[test]
fn every_file_of_the_corpus_is_read() {
    let mut entries = 0;
    for folder in ["cuda", "triton", "forms", "faults", "syntax"] {
        let files = ptx_files(folder);
        assert!(files.len() >= 10, "{folder} holds {} files", files.len());
        for file in files {
            let text = fs::read_to_string(&file).unwrap();
            match ringtape::ptx::parse(&file.display().to_string(), &text) {
                Ok(tree) => entries += tree.functions.iter().filter(|f| f.entry).count(),
                // A texture, planted so that it is refused.
                Err(e) if file.ends_with("faults/unsupported.ptx") => {
                    assert!(e.to_string().contains("`tex`"))
                }
                Err(e) => panic!("{e}"),
            }
        }
    }
    assert!(entries > 1000, "{entries}");
}

#[test]
fn wrong_files_are_refused_at_the_right_place() {
    let folder = corpus().join("syntax");
    let index = fs::read_to_string(folder.join("bad/index.json")).unwrap();
    let rows: Vec<serde_json::Value> = serde_json::from_str(&index).unwrap();
    let mut wrong = Vec::new();
    for row in &rows {
        let name = row["file"].as_str().unwrap();
        let text = fs::read_to_string(folder.join(name)).unwrap();
        let short = name.trim_start_matches("bad/").trim_end_matches(".ptx");
        let said = match ringtape::ptx::load(name, &text) {
            Ok(_) => {
                wrong.push(format!("{short}: accepted"));
                continue;
            }
            Err(e) => e.to_string(),
        };
        let place = row["line"].as_u64().map(|l| format!("{name}:{l}:{}:", row["column"]));
        let says = row["says"].as_str().unwrap_or_default();
        if place.is_some_and(|p| !said.starts_with(&p)) || !said.contains(says) {
            wrong.push(format!("{short}: {said} (wanted {row})"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_verb_lists_entries_and_names_the_place_of_an_error() {
    let good = corpus().join("triton/softmax.ptx");
    let good = good.to_str().unwrap();
    let ran = ringtape(&["ptx", "check", good]).ok();
    assert!(ran.out.contains("entries: 1") && ran.out.contains(".u64"), "{ran:?}");
    let json: serde_json::Value =
        serde_json::from_str(&ringtape(&["ptx", "check", good, "--json"]).ok().out).unwrap();
    assert!(json[0]["entries"][0]["params"][0]["bytes"] == 8, "{json}");
    let bad = corpus().join("syntax/bad/undeclared_register.ptx");
    ringtape(&["ptx", "check", bad.to_str().unwrap(), good])
        .fails(4, &["undeclared_register.ptx:10:17", "%zz"]);
    ringtape(&["ptx", "check", "no-such.ptx"]).fails(4, &["no-such.ptx"]);
}

/// Files of the corpus with bytes changed, cut out, doubled: read or refused, but never a panic.
#[test]
fn damaged_files_are_read_or_refused() {
    let files: Vec<Vec<u8>> = ["cuda", "triton", "faults", "syntax", "syntax/bad"]
        .iter()
        .flat_map(|folder| ptx_files(folder))
        .map(|f| fs::read(f).unwrap())
        .filter(|f| f.len() > 16 && f.len() < 20_000)
        .collect();
    let key = ringtape::rng::Key::named(1, "damaged ptx");
    let marks = b"{}[]()<>,;:.@!|%\"\\+-0fdx_ \n/*";
    let mut refused = 0;
    for case in 0..6000 {
        let [which, from, len, kind] = key.block(case).map(|w| w as usize);
        let mut text = files[which % files.len()].clone();
        let from = from % text.len();
        let to = (from + 1 + len % 12).min(text.len());
        match kind % 4 {
            0 => text[from] = marks[len % marks.len()],
            1 => drop(text.drain(from..to)),
            2 => {
                let part = text[from..to].to_vec();
                text.splice(from..from, part.repeat(1 + len / 12 % 40));
            }
            _ => text.truncate(from),
        }
        let text = String::from_utf8_lossy(&text);
        refused += u32::from(ringtape::ptx::parse("damaged.ptx", &text).is_err());
    }
    assert!(refused > 2000 && refused < 6000, "{refused} of 6000 refused");
}

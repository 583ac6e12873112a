//! Models of several modalities as a user meets them: `train` on a bundled set, `eval` of a sample of one's own, bad input.

mod cli_support;

use cli_support::{Ran, finish, program, ringtape_in};
use std::path::Path;
use std::process::Stdio;

const TINY: &str = "steps=2 batch_size=4 eval_batches=1 threads=1 tensorboard=false model.dim=8 model.heads=2 model.layers=1";

/// A tiny run of `recipe` in `dir/run`.
fn train(dir: &Path, recipe: &str, more: &[&str]) -> Ran {
    let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets").join(recipe);
    let mut args = vec!["train", recipe.to_str().unwrap(), "--out", "run", "--quiet"];
    for setting in TINY.split(' ').chain(more.iter().copied()) {
        args.extend(["--set", setting]);
    }
    ringtape_in(dir, &args)
}

fn recording(name: &str) -> String {
    format!("{}/datasets/allison/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn a_sample_of_ones_own_is_judged_by_what_is_given_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    train(d, "senses/experts.toml", &[]).ok();
    let summary: serde_json::Value =
        serde_json::from_slice(&std::fs::read(d.join("run/summary.json")).unwrap()).unwrap();
    let through = summary["modalities"].as_array().unwrap();
    let whole = through.iter().filter(|t| t["heads"] == false).count();
    assert_eq!(whole, 7, "every subset of three modalities: {summary}");

    let eval = |more: &[&str]| ringtape_in(d, &[&["eval", "run"], more].concat());
    let wav = recording("7.wav");
    let told = eval(&["--audio", &wav, "--text", "seven", "--json"]).ok();
    let verdict: serde_json::Value = serde_json::from_str(&told.out).unwrap();
    assert_eq!(verdict["given"], serde_json::json!(["audio", "text"]));
    let classes = verdict["classes"].as_array().unwrap();
    let sum: f64 = classes.iter().map(|c| c[1].as_f64().unwrap()).sum();
    assert!(classes.len() == 10 && (sum - 1.0).abs() < 1e-5, "{verdict}");
    // What is missing changes the verdict, and what is given alone is enough.
    let alone = eval(&["--text", "seven", "--json"]).ok();
    assert_ne!(told.out, alone.out);

    eval(&["--text", "a word that is too long for it"]).fails(2, &["letters"]);
    eval(&["--text", "se7en"]).fails(2, &["7"]);
    eval(&["--image", &wav]).fails(4, &["7.wav", "PNG"]);
    eval(&["--audio", "none.wav"]).fails(4, &["none.wav"]);
}

#[test]
fn what_does_not_fit_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    train(d, "senses/late.toml", &["data.input=image,audio,image"]).fails(2, &["data.input", "twice"]);
    train(d, "senses/late.toml", &["data.input=image,smell"]).fails(2, &["smell", "image, audio, text"]);
    train(d, "senses/late.toml", &["data.input=image,label"]).fails(2, &["label"]);
    train(d, "senses/late.toml", &["model.kind=cnn", "data.input=image,audio"])
        .fails(2, &["cnn", "reads one"]);
    train(d, "scenes/pair.toml", &["data.input=image"]).fails(2, &["pair reads two"]);
    train(d, "scenes/pair.toml", &["data.target=text"]).fails(2, &["data.target", "pair"]);
    train(d, "senses/late.toml", &["data.input=image,text"]).ok();
    let wav = recording("7.wav");
    ringtape_in(d, &["eval", "run", "--audio", &wav]).fails(2, &["--audio", "image, text"]);
}

#[test]
fn a_picture_and_a_sentence_find_each_other_or_not() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    train(d, "scenes/pair.toml", &["model.fused.image=patches", "model.fused.patch=28"]).ok();
    let summary: serde_json::Value =
        serde_json::from_slice(&std::fs::read(d.join("run/summary.json")).unwrap()).unwrap();
    for direction in summary["retrieval"].as_array().unwrap() {
        assert_eq!(direction["among"], 2000);
        let [first, five] = [0, 1].map(|i| direction["at"][i].as_f64().unwrap());
        // After two steps little more than by chance.
        assert!(first <= five && five < 0.05, "{direction}");
    }
    ringtape_in(d, &["eval", "run", "--text", "a seven"]).fails(2, &["no classes"]);
}

/// By several ranks `train` would train as many runs.
#[test]
fn training_refuses_to_be_one_of_several_ranks() {
    let dir = tempfile::tempdir().unwrap();
    let ran = ringtape_in(dir.path(), &["launch", "-n", "2", "--", "train", "--steps", "1"]);
    ran.fails(2, &["rank", "of 2"]);
    assert!(!dir.path().join("runs").exists());
    // An allocation for several tasks is none of them: what stops this run is its missing file.
    let child =
        program().env("SLURM_NTASKS", "4").args(["train", "none.toml"]).stderr(Stdio::piped()).spawn();
    let ran = finish(child.unwrap());
    assert!(ran.err.contains("none.toml") && !ran.err.contains("rank"), "{ran:?}");
}

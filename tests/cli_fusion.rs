//! Models of several modalities as a user meets them: `train` on a bundled set, `eval` of a sample of one's own, bad input.

mod cli_support;

use cli_support::{Ran, ringtape_in};
use std::path::Path;

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

/// Samples of a made set.
const SAMPLES: usize = 40;

/// Packs a set of pictures and tones, of which every third sample lacks the tone; there `filler` stands. `present` may change
/// what is said of that.
fn pack(dir: &Path, name: &str, filler: f32, present: impl Fn(usize) -> u8) -> Ran {
    use safetensors::tensor::{Dtype, TensorView, serialize};
    let label: Vec<u8> = (0..SAMPLES).map(|i| (i % 2) as u8).collect();
    let image: Vec<u8> = (0..SAMPLES * 64).map(|i| (i * 37 % 251) as u8 / (1 + label[i / 64])).collect();
    let tone = |i: usize| if (i / 12).is_multiple_of(3) { filler } else { (i as f32 * 0.7).sin() };
    let tone: Vec<u8> = (0..SAMPLES * 12).flat_map(|i| tone(i).to_le_bytes()).collect();
    let present: Vec<u8> = (0..SAMPLES).map(present).collect();
    let view = |dtype, dims: &[usize], data| TensorView::new(dtype, dims.to_vec(), data).unwrap();
    let all = [
        ("image", view(Dtype::U8, &[SAMPLES, 8, 8], &image)),
        ("label", view(Dtype::U8, &[SAMPLES], &label)),
        ("tone", view(Dtype::F32, &[SAMPLES, 4, 3], &tone)),
        ("tone_present", view(Dtype::U8, &[SAMPLES], &present)),
    ];
    std::fs::write(dir.join(format!("{name}.safetensors")), serialize(all, None).unwrap()).unwrap();
    ringtape_in(dir, &["data", "pack", &format!("{name}.safetensors")])
}

/// A tiny run in `dir/NAME-run` on the made set NAME.
fn train_on(dir: &Path, name: &str, more: &str) -> String {
    let (path, run) = (format!("data.path={name}.rtd"), format!("{name}-run"));
    let made = "steps=6 batch_size=8 model.kind=fusion model.fused.patch=4 model.fused.frames=2";
    let mut args = vec!["train", "--quiet", "--out", &run, "--set", &path];
    for setting in TINY.split(' ').chain(made.split(' ')).chain(more.split(' ')) {
        args.extend(["--set", setting]);
    }
    ringtape_in(dir, &args).ok();
    run
}

/// The bytes of the weights after a tiny run on the made set NAME, and what `eval` says of it.
fn weights_and_verdict(dir: &Path, name: &str) -> (Vec<u8>, String) {
    let more = "model.fusion=experts model.fused.modality_dropout=0.3 model.fused.head_loss=0.3";
    let run = train_on(dir, name, more);
    let weights = std::fs::read(dir.join(&run).join("step-6/model.safetensors")).unwrap();
    (weights, ringtape_in(dir, &["eval", &run, "--json"]).ok().out)
}

/// What stands in a set for a modality that a sample lacks is read by nobody, in training or in evaluation.
#[test]
fn a_sample_of_a_packed_set_may_lack_a_modality() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let lacking = |i: usize| u8::from(!i.is_multiple_of(3));
    pack(d, "zeros", 0.0, lacking).ok();
    pack(d, "nan", f32::NAN, lacking).ok();
    pack(d, "there", 0.0, |_| 1).ok();
    let (weights, verdict) = weights_and_verdict(d, "zeros");
    assert!(weights_and_verdict(d, "nan") == (weights.clone(), verdict.clone()), "what is absent was read");
    let (others, of_others) = weights_and_verdict(d, "there");
    assert!(others != weights && of_others != verdict, "a tone of zeros is no tone that lacks");

    // With the tone alone given only those count that have one.
    let verdict: serde_json::Value = serde_json::from_str(&verdict).unwrap();
    assert!(
        verdict["modalities"].as_array().unwrap().iter().all(|t| t["loss"].as_f64().unwrap().is_finite())
    );
    pack(d, "wrong", 0.0, |i| i as u8).fails(4, &["tone_present", "1 where it has `tone`"]);
    let alone = ["train", "--out", "x", "--set", "data.path=zeros.rtd", "--set", "model.kind=mlp"];
    let alone = [&alone[..], &["--set", "data.input=tone", "--set", "steps=1"]].concat();
    ringtape_in(d, &alone).fails(2, &["model.kind", "tone_present", "fusion"]);
}

/// The same weights with modalities kept from each other: other answers, and none where nothing met.
#[test]
fn what_modalities_tell_each_other_can_be_cut_and_drawn() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let modes = [
        ("early", true),
        ("early model.fused.cross=affinity", true),
        ("early model.fused.cross=projections", true),
        ("hybrid", true),
        ("experts", true),
        ("late", false),
    ];
    for (i, (mode, meets)) in modes.into_iter().enumerate() {
        let name = format!("made{i}");
        // Of four held-out samples one or two lack the tone.
        pack(d, &name, 0.0, |i| u8::from(!i.is_multiple_of(3))).ok();
        let run = train_on(d, &name, &format!("model.layers=2 model.fusion={mode}"));
        let loss = |more: &[&str]| {
            let ran = ringtape_in(d, &[&["eval", &run, "--json"], more].concat()).ok();
            serde_json::from_str::<serde_json::Value>(&ran.out).unwrap()["loss"].as_f64().unwrap()
        };
        assert_eq!(loss(&[]) != loss(&["--set", "model.fused.cut=true"]), meets, "{mode}");
        let drawn = ringtape_in(d, &["eval", &run, "--maps", "looks.svg"]);
        let report = std::fs::read_to_string(d.join(&run).join("report.html")).unwrap();
        assert_eq!(report.contains("Where it looks"), meets, "{mode}");
        if meets {
            drawn.ok();
            let svg = std::fs::read_to_string(d.join("looks.svg")).unwrap();
            let drawn = svg.matches("held-out sample").count();
            assert!((1..=3).contains(&drawn), "{mode}: those that have all, and three at most: {drawn}");
            assert!(report.contains(svg.trim_end()), "the report shows the same");
        } else {
            drawn.fails(2, &["modalities meet", "early"]);
        }
    }
}

/// A model of one sense judges a recording too, where its set says how sound becomes its values.
#[test]
fn a_recording_is_judged_by_a_model_of_fsdd() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    train(d, "fsdd/mlp.toml", &[]).ok();
    let told = ringtape_in(d, &["eval", "run", "--audio", &recording("7.wav"), "--json"]).ok();
    let verdict: serde_json::Value = serde_json::from_str(&told.out).unwrap();
    assert_eq!(verdict["given"], serde_json::json!(["mfcc"]));
}

//! `eval` as a user runs it: what it writes of every target.

mod cli_support;

use cli_support::ringtape_in;
use std::fs;

const SMALL: &str = "batch_size = 4\nsteps = 2\nthreads = 1\ndata.path = \"my.rtd\"\n\
                     [model]\nlayers = 1\ndim = 16\nheads = 2\ncontext = 8\n";

#[test]
fn the_losses_of_all_targets_have_the_mean_that_is_printed() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    fs::write(d.join("my.txt"), "the cat sat on the mat and the dog sat on the log. ".repeat(40)).unwrap();
    fs::write(d.join("small.toml"), SMALL).unwrap();
    ringtape_in(d, &["data", "pack", "my.txt"]).ok();
    ringtape_in(d, &["train", "small.toml", "--out", "run"]).ok();
    let told = ringtape_in(d, &["eval", "run", "--losses", "all.safetensors", "--json"]).ok().out;
    assert_eq!(ringtape_in(d, &["eval", "run", "--json"]).ok().out, told, "the same evaluation");
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();

    let bytes = fs::read(d.join("all.safetensors")).unwrap();
    let all = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let words = |name: &str| -> Vec<[u8; 4]> {
        let t = all.tensor(name).unwrap();
        assert_eq!(t.shape()[1], 8, "{name} is [sequences, length]");
        t.data().as_chunks::<4>().0.to_vec()
    };
    let ids = |name: &str| words(name).into_iter().map(i32::from_le_bytes).collect::<Vec<_>>();
    let (input, target) = (ids("input"), ids("target"));
    let loss: Vec<f32> = words("loss").into_iter().map(f32::from_le_bytes).collect();
    // Within a sequence each target is the next input.
    assert!((0..input.len() - 1).all(|i| i % 8 == 7 || target[i] < 0 || target[i] == input[i + 1]));
    let counted: Vec<f64> =
        loss.iter().zip(&target).filter(|(_, t)| **t >= 0).map(|(l, _)| f64::from(*l)).collect();
    assert_eq!(counted.len() as u64, told["targets"].as_u64().unwrap());
    let mean = counted.iter().sum::<f64>() / counted.len() as f64;
    assert!((mean - told["loss"].as_f64().unwrap()).abs() < 1e-5, "{mean} and {told}");

    ringtape_in(d, &["eval", "run", "--losses", "run"]).fails(2, &["is a folder"]);
}

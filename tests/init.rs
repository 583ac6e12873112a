//! The key `init`: a run that begins with the weights of another one.

use ringtape::train::{Config, Run, Stop};
use std::path::Path;

/// A run of a tiny transformer with `settings` in `dir`, to its end.
fn run(dir: &Path, settings: &[&str]) -> ringtape::error::Result<Run> {
    const SMALL: &[&str] = &[
        "steps=2",
        "batch_size=2",
        "eval_batches=1",
        "threads=1",
        "tensorboard=false",
        "model.layers=1",
        "model.dim=16",
        "model.heads=2",
        "model.context=8",
        "model.positions=rotary",
    ];
    let settings: Vec<String> = SMALL.iter().chain(settings).map(|s| s.to_string()).collect();
    let mut run = Run::create(Config::default().with(&settings)?, dir)?;
    run.train(&Stop::never(), &mut ringtape::train::Silent)?;
    Ok(run)
}

fn weight(run: &Run, name: &str) -> Vec<f32> {
    let params = run.params();
    let t = params.get(params.find(name).unwrap_or_else(|| panic!("no weights {name}")));
    t.to_host().unwrap().as_slice::<f32>().unwrap().to_vec()
}

#[test]
fn weights_of_the_same_name_come_along_and_the_others_begin_fresh() {
    let dir = tempfile::tempdir().unwrap();
    let first = run(&dir.path().join("a"), &[]).unwrap();
    let init = format!("init={}", dir.path().join("a").display());
    // A rate of nearly nothing: what the run ends with is what it began with.
    let wide = &[
        &init,
        "optimizer.lr=1e-30",
        "schedule.name=constant",
        "optimizer.weight_decay=0.0",
        "seed=7",
        "model.context=16",
    ];
    let mut more = wide.iter().map(|s| &s[..]).collect::<Vec<_>>();
    more.extend([
        "model.attention=window",
        "model.dynamic.window=4",
        "model.dynamic.span=head",
        "model.layers=2",
    ]);
    let second = run(&dir.path().join("b"), &more).unwrap();
    for name in ["token.weight", "blocks.0.attention.qkv.weight", "head.weight"] {
        assert_eq!(weight(&first, name), weight(&second, name), "{name}");
    }
    assert_ne!(weight(&second, "blocks.1.mlp.up.weight"), weight(&second, "blocks.0.mlp.up.weight"));
    let told = second.notices().join("\n");
    assert!(
        told.contains("after 2 steps") && told.contains("blocks.1.") && told.contains("begin fresh"),
        "{told}"
    );
}

#[test]
fn what_cannot_come_along_is_an_error_that_says_why() {
    let dir = tempfile::tempdir().unwrap();
    run(&dir.path().join("a"), &[]).unwrap();
    let init = format!("init={}", dir.path().join("a").display());
    let e = run(&dir.path().join("b"), &[&init, "model.dim=32"]).err().unwrap();
    assert!(e.to_string().contains("token") && e.to_string().contains("32"), "{e}");
    let e = run(&dir.path().join("c"), &["init=/nowhere/at/all"]).err().unwrap();
    assert!(e.to_string().contains("/nowhere/at/all"), "{e}");
}

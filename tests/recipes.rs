//! Every recipe beside its data can be read, and its data, model and optimizer fit together.

use ringtape::train::{Config, Run};
use std::path::{Path, PathBuf};

fn recipes() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets");
    let folders = std::fs::read_dir(root).unwrap().flatten().map(|e| e.path()).filter(|p| p.is_dir());
    let files =
        folders.flat_map(|f| std::fs::read_dir(f).unwrap().flatten().map(|e| e.path()).collect::<Vec<_>>());
    let mut found: Vec<PathBuf> = files.filter(|f| f.extension().is_some_and(|e| e == "toml")).collect();
    found.sort();
    found
}

#[test]
fn every_recipe_makes_a_run() {
    let d = tempfile::tempdir().unwrap();
    let all = recipes();
    assert!(all.len() >= 8, "{all:?}");
    for (i, recipe) in all.iter().enumerate() {
        let config =
            Config::resolve(Some(recipe), &[]).unwrap_or_else(|e| panic!("{}: {e}", recipe.display()));
        let named = recipe.parent().unwrap().file_name().unwrap().to_str().unwrap();
        assert_eq!(config.data.path, named, "{} trains on other data than those beside it", recipe.display());
        Run::create(config, &d.path().join(i.to_string()))
            .unwrap_or_else(|e| panic!("{}: {e}", recipe.display()));
    }
}

#[test]
fn the_main_recipe_is_the_default() {
    let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets/moby-dick/gpt.toml");
    assert_eq!(Config::resolve(Some(&recipe), &[]).unwrap(), Config::default());
}

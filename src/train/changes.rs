//! What a resumed run may change of its configuration, and the words for it.

use super::Config;
use crate::error::{Error, Result};

/// Keys whose change would make another run: other weights, other data, other state of the optimizer. (`data.path` is free:
/// a file may have moved, and what it holds is compared with the snapshot.)
const FIXED: [&str; 7] = ["seed", "init", "model", "freeze", "data.input", "data.target", "optimizer.name"];
/// Below them, and free.
const FREE: [&str; 1] = ["model.dropout"];

/// A key with its values before and after.
type Change = (String, toml::Value, toml::Value);

/// `key from -> to` for each key in which the two differ. Errors on one that the steps already done depend on.
pub(super) fn between(old: &Config, new: &Config) -> Result<Vec<String>> {
    let (mut before, mut after) = (Vec::new(), Vec::new());
    flatten("", &table(old)?, &mut before);
    flatten("", &table(new)?, &mut after);
    let value = |key: &String| after.iter().find(|(k, _)| k == key).map(|(_, v)| v.clone());
    let changed =
        before.iter().filter_map(|(k, v)| value(k).filter(|w| w != v).map(|w| (k.clone(), v.clone(), w)));
    changed.map(allowed).collect()
}

fn allowed((key, from, to): Change) -> Result<String> {
    let below =
        |name: &str| key.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    if FIXED.iter().any(|k| below(k)) && !FREE.contains(&key.as_str()) {
        let what = format!("is {to}, but the run was started with {from}; set it back, or start a new run");
        return Err(Error::config(&key, what));
    }
    Ok(format!("changed: {key} {from} -> {to}"))
}

fn table(config: &Config) -> Result<toml::Table> {
    let text = config.to_toml();
    text.parse().map_err(|e| Error::config("config.toml", format!("cannot be read back: {e}")))
}

/// Every value with its dotted key.
fn flatten(prefix: &str, table: &toml::Table, out: &mut Vec<(String, toml::Value)>) {
    for (k, v) in table {
        let key = if prefix.is_empty() { k.clone() } else { format!("{prefix}.{k}") };
        match v {
            toml::Value::Table(t) => flatten(&key, t, out),
            v => out.push((key, v.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(settings: &[&str]) -> Result<Vec<String>> {
        let settings: Vec<String> = settings.iter().map(|s| s.to_string()).collect();
        between(&Config::default(), &Config::default().with(&settings)?)
    }

    #[test]
    fn what_differs_is_told() {
        assert!(changed(&[]).unwrap().is_empty());
        let told = changed(&["batch_size=16", "optimizer.lr=0.001", "model.dropout=0.5"]).unwrap();
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(
            told.iter().any(|t| t.starts_with("changed: batch_size ") && t.ends_with(" -> 16")),
            "{told:?}"
        );
    }

    #[test]
    fn what_would_be_another_run_is_refused() {
        for setting in [
            "model.dim=64",
            "seed=9",
            "freeze=token",
            "optimizer.name=sgd",
            "data.target=label",
            "model.norm=rms",
        ] {
            let e = changed(&[setting]).unwrap_err();
            let key = setting.split('=').next().unwrap();
            assert_eq!(e.exit_code(), 2);
            assert!(e.to_string().contains(key) && e.to_string().contains("start a new run"), "{e}");
        }
    }
}

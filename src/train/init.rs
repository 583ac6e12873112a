//! Beginning with the weights of other runs: a model learns on short sequences, or on other data, before it learns here.

use super::{Config, snapshot};
use crate::error::{Error, Result};
use crate::tape::Params;
use std::path::Path;

/// Names told of weights that did not come along, at most.
const TOLD: usize = 4;

/// Puts the weights of the runs that `config.init` names, with commas between, where the model has weights of the same name; the
/// others stay as they were drawn, and of two runs that have a weight the later one counts. Gives what the user should know.
/// Errors if a weight has another shape, or if a run has none of the model's names. `resumed`: the run was begun before, and
/// has no snapshot of its own yet.
pub(super) fn begin(config: &Config, resumed: bool, params: &mut Params) -> Result<Vec<String>> {
    let mut notices = Vec::new();
    if resumed {
        notices.push("the run has no snapshot yet; it starts from step 0".to_string());
    }
    let mut fresh: Option<Vec<String>> = None;
    for name in config.init.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        let found = snapshot::load_latest(Path::new(name))?;
        let Some(snapshot) = found.snapshot else {
            let what = "has no snapshot; give the folder of a run that saved one, or remove it";
            return Err(Error::config("init", format!("names `{name}`, which {what}")));
        };
        let left = snapshot.lend_params(params)?;
        notices.extend(found.notices);
        notices.push(format!("weights begin as {name} has them after {} steps", snapshot.state.step));
        notices.extend(listed(&left.unused, &format!("of {name} are not used here")));
        fresh = Some(match fresh {
            None => left.fresh,
            Some(mut fresh) => {
                fresh.retain(|weight| left.fresh.contains(weight));
                fresh
            }
        });
    }
    notices.extend(listed(&fresh.unwrap_or_default(), "begin fresh, for no such run has any of that name"));
    Ok(notices)
}

/// Some of `names`, and `what` is to be said of them all.
fn listed(names: &[String], what: &str) -> Option<String> {
    let (told, more) = (names.len().min(TOLD), names.len().saturating_sub(TOLD));
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    (!names.is_empty()).then(|| format!("weights {}{more} {what}", names[..told].join(", ")))
}

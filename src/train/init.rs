//! Beginning with the weights of another run: a model learns on short sequences, or on other data, before it learns here.

use super::{Config, snapshot};
use crate::error::{Error, Result};
use crate::tape::Params;
use std::path::Path;

/// Names told of weights that did not come along, at most.
const TOLD: usize = 4;

/// Puts the weights of the run that `config.init` names where the model has weights of the same name; the others stay as they
/// were drawn. Gives what the user should know. Errors if a weight has another shape, or if none has a name of the model's.
/// `resumed`: the run was begun before, and has no snapshot of its own yet.
pub(super) fn begin(config: &Config, resumed: bool, params: &mut Params) -> Result<Vec<String>> {
    let again = resumed.then(|| "the run has no snapshot yet; it starts from step 0".to_string());
    if config.init.is_empty() {
        return Ok(again.into_iter().collect());
    }
    let dir = Path::new(&config.init);
    let found = snapshot::load_latest(dir)?;
    let Some(snapshot) = found.snapshot else {
        let what = "has no snapshot; give the folder of a run that saved one, or remove the key";
        return Err(Error::config("init", format!("is `{}`, which {what}", config.init)));
    };
    let left = snapshot.lend_params(params)?;
    let mut notices: Vec<String> = again.into_iter().chain(found.notices).collect();
    let step = snapshot.state.step;
    notices.push(format!("weights begin as {} has them after {step} steps", dir.display()));
    for (names, what) in
        [(left.fresh, "begin fresh, for that run has none of that name"), (left.unused, "are not used here")]
    {
        if !names.is_empty() {
            let more = names.len().saturating_sub(TOLD);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            notices.push(format!("weights {}{more} {what}", names[..names.len().min(TOLD)].join(", ")));
        }
    }
    Ok(notices)
}

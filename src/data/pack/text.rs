//! Text as a stream of token ids, one a character.

use crate::data::header::{Field, Header};
use crate::data::pack::Inputs;
use crate::data::readers::{expanded, for_each_text};
use crate::data::write::Writer;
use crate::error::{Error, Result};
use crate::shape::DType;
use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

/// Symbols and their ids: `encode` and `decode` of a set packed from text.
#[derive(Clone, Debug)]
pub struct Vocabulary {
    symbols: Vec<String>,
    ids: HashMap<char, u32>,
}

impl Vocabulary {
    /// The vocabulary that a packed set holds, if it was packed from text.
    pub fn from_header(header: &Header) -> Option<Vocabulary> {
        let symbols = &header.about.vocabulary;
        (!symbols.is_empty()).then(|| Vocabulary::new(symbols.clone()))
    }
    /// Symbols of one character each, in the order of their ids.
    pub fn new(symbols: Vec<String>) -> Vocabulary {
        let ids =
            symbols.iter().enumerate().filter_map(|(k, s)| Some((s.chars().next()?, k as u32))).collect();
        Vocabulary { symbols, ids }
    }
    /// Number of symbols.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.symbols.len()
    }
    /// Symbols in the order of their ids.
    pub fn symbols(&self) -> &[String] {
        &self.symbols
    }
    /// Ids of `text`. A character that the vocabulary lacks is an error that names it.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let id = |(at, c): (usize, char)| {
            self.ids.get(&c).copied().ok_or_else(|| {
                let n = self.symbols.len();
                Error::Usage(format!(
                    "character {c:?} at byte {at} is not one of the {n} symbols that the model knows"
                ))
            })
        };
        text.char_indices().map(id).collect()
    }
    /// Text of `ids`; an id that is out of range becomes U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        ids.iter().map(|&i| self.symbols.get(i as usize).map_or("\u{fffd}", String::as_str)).collect()
    }
}

/// Packs a text of any length; its last `val` (0 to 1) becomes the split `val`. `open` is called twice: the vocabulary
/// must be known before the first id is written.
pub(crate) fn pack<'a>(
    path: &Path,
    open: impl Fn() -> Result<Box<dyn Read + 'a>>,
    train: impl Fn(u64) -> u64,
    w: &mut Writer,
) -> Result<()> {
    let (vocabulary, count) = survey(path, open()?)?;
    let n = vocabulary.len();
    if n < 2 {
        return Err(Error::data(
            path,
            None,
            format!("the text has {n} distinct characters; at least 2 are needed"),
        ));
    }
    let dtype = match n {
        ..=256 => DType::U8,
        257..=65536 => DType::U16,
        _ => {
            let what = format!(
                "{n} distinct characters, at most 65536 can be packed; pack token ids (.bin) instead"
            );
            return Err(Error::data(path, None, what));
        }
    };
    w.field(Field::tokens(dtype, n as u32))?;
    let changed = || Error::data(path, None, "the text changed while it was packed; try again");
    let (mut ids, mut written) = (Vec::with_capacity(1 << 18), 0);
    for_each_text(path, open()?, |piece| {
        ids.clear();
        for c in piece.chars() {
            let id = vocabulary.ids.get(&c).ok_or_else(changed)?;
            ids.extend_from_slice(&id.to_le_bytes()[..dtype.size()]);
            written += 1;
        }
        w.write(&ids)
    })?;
    if written != count {
        return Err(changed());
    }
    w.about().vocabulary = vocabulary.symbols;
    let train = train(count);
    w.split("train", 0, train);
    if train < count {
        w.split("val", train, count - train);
    }
    Ok(())
}

/// The distinct characters of a text, in the order of their code points, and how many characters it has.
fn survey(path: &Path, source: impl Read) -> Result<(Vocabulary, u64)> {
    let (mut seen, mut count) = (vec![false; char::MAX as usize + 1], 0);
    for_each_text(path, source, |piece| {
        for c in piece.chars() {
            seen[c as usize] = true;
            count += 1;
        }
        Ok(())
    })?;
    let distinct = (0..).zip(&seen).filter(|(_, seen)| **seen).filter_map(|(k, _)| char::from_u32(k));
    Ok((Vocabulary::new(distinct.map(String::from).collect()), count))
}

/// A bundled text: the last tenth is held out.
pub(crate) fn bundled(inputs: &Inputs, w: &mut Writer) -> Result<()> {
    for input in inputs.iter() {
        let open = || expanded(&input.bytes[..]).map_err(|e| Error::io(&input.path, e));
        pack(&input.path, open, |n| n * 9 / 10, w)?;
    }
    Ok(())
}

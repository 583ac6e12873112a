//! Text as a stream of token ids, one a character.

use crate::data::header::{Field, Header};
use crate::data::pack::Inputs;
use crate::data::readers::read_text;
use crate::data::write::Writer;
use crate::error::{Error, Result};
use crate::shape::DType;
use std::collections::{BTreeSet, HashMap};
use std::path::Path;

/// Symbols and their ids: `encode` and `decode` of a set packed from text.
#[derive(Clone, Debug)]
pub struct Vocabulary {
    symbols: Vec<String>,
    ids: HashMap<char, u32>,
}

impl Vocabulary {
    /// The distinct characters of `text`, in the order of their code points.
    pub fn of(text: &str) -> Vocabulary {
        let distinct: BTreeSet<char> = text.chars().collect();
        Vocabulary::new(distinct.into_iter().map(String::from).collect())
    }
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

/// Packs `text`; its last `val` (0 to 1) becomes the split `val`.
pub(crate) fn pack(path: &Path, text: &str, train: impl Fn(u64) -> u64, w: &mut Writer) -> Result<()> {
    let vocabulary = Vocabulary::of(text);
    let count = text.chars().count() as u64;
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
    let mut piece = Vec::with_capacity(1 << 16);
    for c in text.chars() {
        let id = vocabulary.ids[&c];
        piece.extend_from_slice(&id.to_le_bytes()[..dtype.size()]);
        if piece.len() >= 1 << 16 {
            w.write(&piece)?;
            piece.clear();
        }
    }
    w.write(&piece)?;
    w.about().vocabulary = vocabulary.symbols;
    let train = train(count);
    w.split("train", 0, train);
    if train < count {
        w.split("val", train, count - train);
    }
    Ok(())
}

/// A bundled text: the last tenth is held out.
pub(crate) fn bundled(inputs: &Inputs, w: &mut Writer) -> Result<()> {
    for input in inputs.iter() {
        let text = read_text(&input.path, input.bytes.clone())?;
        pack(&input.path, &text, |n| n * 9 / 10, w)?;
    }
    Ok(())
}

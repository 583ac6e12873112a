//! How a user's own picture, recording or text becomes the values of a field: what a packed set says of it.

use crate::data::audio::Recipe;
use crate::data::header::{Field, Kind};
use crate::error::{Error, Result};
use crate::shape::DType;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Id of the padding behind a text that is shorter than its field. Its symbol is the empty text.
pub const PADDING: u32 = 0;

/// What makes the values of a field from a file or text of a user's. On disk a variant is its number here: new ones go
/// to the end.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum FrontEnd {
    /// A grey picture, a byte a pixel.
    Image {
        /// Value of a white pixel; black is 0.
        white: u8,
    },
    /// Sound, a row of coefficients a frame. A recording is cut to the frames of the field, or filled up with its mean.
    Audio(Recipe),
    /// Symbols, filled up with [`PADDING`].
    Text {
        /// Symbols in the order of their ids; the first is the padding, which is empty.
        vocabulary: Vec<String>,
        /// A symbol is a word, between blanks, not a letter.
        words: bool,
    },
}

impl FrontEnd {
    /// What is wrong with it for `field`.
    pub(crate) fn fault(&self, field: &Field) -> Option<String> {
        if field.kind != Kind::Samples {
            return Some("stands at a stream of tokens; samples are wanted".into());
        }
        let width = field.shape.last().copied().unwrap_or(0);
        match self {
            FrontEnd::Image { white } => {
                let grey = field.dtype == DType::U8 && field.shape.len() == 3 && field.shape[0] == 1;
                (!grey || *white == 0)
                    .then(|| format!("makes u8 [1, height, width], not {} {:?}", field.dtype, field.shape))
            }
            FrontEnd::Audio(recipe) => recipe.fault().or_else(|| {
                let makes = recipe.width() as u64;
                let filled = field.mean.len() as u64;
                (field.shape.len() != 2 || width != makes || !(filled == 1 || filled == makes)).then(|| {
                    let (shape, n) = (&field.shape, field.mean.len());
                    format!("makes rows of {makes}, not {shape:?} with {n} means")
                })
            }),
            FrontEnd::Text { vocabulary, .. } => {
                let sorted = {
                    let mut all: Vec<&str> = vocabulary.iter().map(String::as_str).collect();
                    all.sort_unstable();
                    all
                };
                let ids = field.dtype == DType::U8 && field.shape.len() == 1;
                let whole = field.bound as usize == vocabulary.len();
                let padded = vocabulary.first().is_some_and(String::is_empty);
                (!ids || !whole || !padded || sorted.windows(2).any(|w| w[0] == w[1])).then(|| {
                    let n = vocabulary.len();
                    let what = "makes u8 [length] of distinct symbols with the padding first";
                    format!(
                        "{what}; the field is {} {:?} below {} of {n}",
                        field.dtype, field.shape, field.bound
                    )
                })
            }
        }
    }

    /// Ids of `text`, as many as a field of `length` symbols has. A text that is too long or has an unknown symbol is an
    /// error that says so.
    pub fn encode(&self, text: &str, length: usize) -> Result<Vec<u8>> {
        let FrontEnd::Text { vocabulary, words } = self else {
            return Err(Error::Usage(format!("text for a field that is made from {self}")));
        };
        let symbols: Vec<&str> = if *words {
            text.split_whitespace().collect()
        } else {
            text.trim().split("").filter(|s| !s.is_empty()).collect()
        };
        let kind = if *words { "word" } else { "letter" };
        if symbols.is_empty() {
            return Err(Error::Usage(format!("the text is empty; at least one {kind} is wanted")));
        }
        if symbols.len() > length {
            let n = symbols.len();
            let what =
                format!("the text {text:?} has {n} {kind}s, the model takes at most {length}; shorten it");
            return Err(Error::Usage(what));
        }
        let id = |symbol: &&str| {
            let found = vocabulary.iter().position(|v| v == symbol).and_then(|k| u8::try_from(k).ok());
            found.ok_or_else(|| {
                let known = vocabulary[1..].join(if *words { ", " } else { "" });
                Error::Usage(format!(
                    "{kind} {symbol:?} of {text:?} is unknown to the model, which knows {known}"
                ))
            })
        };
        let mut ids = symbols.iter().map(id).collect::<Result<Vec<u8>>>()?;
        ids.resize(length, PADDING as u8);
        Ok(ids)
    }

    /// The text of `ids` without its padding; an id out of range becomes U+FFFD.
    pub fn decode(&self, ids: &[u8]) -> String {
        let FrontEnd::Text { vocabulary, words } = self else { return String::new() };
        let shown = ids.iter().filter(|&&id| u32::from(id) != PADDING);
        let symbol = |&id: &u8| vocabulary.get(usize::from(id)).map_or("\u{fffd}", String::as_str);
        shown.map(symbol).collect::<Vec<_>>().join(if *words { " " } else { "" })
    }
}

impl fmt::Display for FrontEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrontEnd::Image { white } => write!(f, "a grey picture, black 0 to white {white}"),
            FrontEnd::Audio(recipe) => recipe.fmt(f),
            FrontEnd::Text { vocabulary, words } => {
                let (kind, gap) = if *words { ("words", " ") } else { ("letters", "") };
                write!(f, "text of {} {kind}: {}", vocabulary.len() - 1, vocabulary[1..].join(gap))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letters() -> FrontEnd {
        FrontEnd::Text { vocabulary: ["", "a", "b", "ü"].map(String::from).to_vec(), words: false }
    }

    #[test]
    fn texts_are_encoded_filled_up_and_refused_with_their_symbol() {
        let t = letters();
        assert_eq!(t.encode("büa", 5).unwrap(), [2, 3, 1, 0, 0]);
        assert_eq!(t.decode(&[2, 3, 1, 0, 0]), "büa");
        let says = |text: &str, part: &str| {
            let e = t.encode(text, 3).unwrap_err().to_string();
            assert!(e.contains(part), "{e}");
        };
        says("abab", "4 letters, the model takes at most 3");
        says("ax", "letter \"x\"");
        says("", "empty");
        let w = FrontEnd::Text { vocabulary: ["", "plus", "a"].map(String::from).to_vec(), words: true };
        assert_eq!(w.encode(" a  plus a", 4).unwrap(), [2, 1, 2, 0]);
        assert_eq!(w.decode(&[2, 1, 2, 0]), "a plus a");
        let e = w.encode("a times a", 4).unwrap_err().to_string();
        assert!(e.contains("word \"times\"") && e.contains("plus, a"), "{e}");
    }

    #[test]
    fn a_front_end_must_fit_its_field() {
        let text = Field::samples("text", DType::U8, &[4]);
        assert_eq!(letters().fault(&text.clone().below(4)), None);
        assert!(letters().fault(&text.clone().below(5)).is_some(), "another number of symbols");
        let twice =
            FrontEnd::Text { vocabulary: ["", "a", "a", "b"].map(String::from).to_vec(), words: true };
        assert!(twice.fault(&text.below(4)).is_some());
        let image = FrontEnd::Image { white: 255 };
        assert_eq!(image.fault(&Field::samples("image", DType::U8, &[1, 8, 8])), None);
        assert!(image.fault(&Field::samples("image", DType::U8, &[3, 8, 8])).is_some());
        let sound = FrontEnd::Audio(Recipe::fsdd());
        let field = Field::samples("audio", DType::F16, &[24, 13]);
        assert!(sound.fault(&field).is_some(), "nothing to fill up with");
        let field = field.normalised(vec![0.0; 13], vec![1.0; 13]);
        assert_eq!(sound.fault(&field), None);
    }
}

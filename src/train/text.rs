//! Text to ids and back, by the vocabulary that a packed text carries.

use super::Task;
use crate::error::{Error, Result};
use std::collections::HashMap;

/// The symbols of a text, each one character.
pub struct Alphabet {
    symbols: Vec<String>,
    ids: HashMap<String, i32>,
}

impl Alphabet {
    /// The vocabulary of the task's data; None when they are no text or carry none.
    pub fn of(task: &Task) -> Option<Alphabet> {
        let symbols = task.set().header().about.vocabulary.clone();
        if symbols.is_empty() || !task.is_text() {
            return None;
        }
        let ids = symbols.iter().enumerate().map(|(i, s)| (s.clone(), i as i32)).collect();
        Some(Alphabet { symbols, ids })
    }

    /// Ids of the characters of `text`. A character that the model has never seen is an error that names it.
    pub fn encode(&self, text: &str) -> Result<Vec<i32>> {
        let mut buffer = [0; 4];
        let mut id = |(at, c): (usize, char)| {
            self.ids.get(c.encode_utf8(&mut buffer) as &str).copied().ok_or_else(|| {
                let known: String = self.symbols.iter().map(|s| s.escape_debug().to_string()).take(100).collect();
                Error::Usage(format!("character {c:?} (number {at} of the text) is not among the {} that the model knows: {known}", self.symbols.len()))
            })
        };
        text.chars().enumerate().map(&mut id).collect()
    }

    /// The text of one id.
    pub fn symbol(&self, id: i32) -> &str {
        usize::try_from(id).ok().and_then(|i| self.symbols.get(i)).map_or("\u{fffd}", String::as_str)
    }

    /// The text of `ids`.
    pub fn decode(&self, ids: &[i32]) -> String {
        ids.iter().map(|&id| self.symbol(id)).collect()
    }
}

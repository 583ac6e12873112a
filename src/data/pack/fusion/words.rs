//! Texts of the sets: number words in eight languages, and the alphabet that they are written in.

use crate::data::front_end::FrontEnd;

/// The digits 0 to 9, in a language a row: English, German, French, Spanish, Italian, Portuguese, Dutch, Swedish.
pub(crate) const NUMBERS: [[&str; 10]; 8] = [
    ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"],
    ["null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun"],
    ["zéro", "un", "deux", "trois", "quatre", "cinq", "six", "sept", "huit", "neuf"],
    ["cero", "uno", "dos", "tres", "cuatro", "cinco", "seis", "siete", "ocho", "nueve"],
    ["zero", "uno", "due", "tre", "quattro", "cinque", "sei", "sette", "otto", "nove"],
    ["zero", "um", "dois", "três", "quatro", "cinco", "seis", "sete", "oito", "nove"],
    ["nul", "één", "twee", "drie", "vier", "vijf", "zes", "zeven", "acht", "negen"],
    ["noll", "ett", "två", "tre", "fyra", "fem", "sex", "sju", "åtta", "nio"],
];

/// Letters of the longest of them.
pub(crate) const LONGEST: usize = 7;

/// Stands where a letter was lost.
pub(crate) const LOST: char = '_';

/// The padding, the lost letter, and every letter of [`NUMBERS`] in the order of code points.
pub(crate) fn letters() -> FrontEnd {
    let mut all: Vec<char> = NUMBERS.as_flattened().iter().flat_map(|w| w.chars()).collect();
    all.sort_unstable();
    all.dedup();
    let symbols = std::iter::once(String::new()).chain([LOST].into_iter().chain(all).map(String::from));
    FrontEnd::Text { vocabulary: symbols.collect(), words: false }
}

/// Words without blanks, the padding first.
pub(crate) fn vocabulary<'a>(words: impl Iterator<Item = &'a str>) -> FrontEnd {
    let vocabulary = std::iter::once("").chain(words).map(String::from).collect();
    FrontEnd::Text { vocabulary, words: true }
}

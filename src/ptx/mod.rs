//! The PTX language: text to tree, and the arithmetic that its instructions need. Knows no tensor.
//!
//! | file | holds |
//! |---|---|
//! | `text.rs` | where a byte stands, and errors that show the line |
//! | `types.rs` | types and state spaces |
//! | `ast.rs` | the tree |
//! | `parse/` | text to tree |
//! | `names.rs` | every name that is used is declared |
//! | `float/` | arithmetic of PTX: roundings, formats, approximate functions, matrix products of a warp |

pub mod ast;
pub mod float;
mod names;
mod parse;
mod text;
pub mod types;

use crate::error::Result;
use ast::Tree;

/// Reads PTX `text`, and checks that every name in it is declared; `name` is how errors call it.
///
/// # Errors
/// [`crate::error::Error::Ptx`] with line, column and the line itself, where the text is no PTX.
pub fn parse<'a>(name: &str, text: &'a str) -> Result<Tree<'a>> {
    parse::parse(text)
        .and_then(|tree| names::check(&tree).map(|()| tree))
        .map_err(|wrong| text::located(name, text, wrong))
}

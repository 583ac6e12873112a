//! The PTX language: text to tree, tree to program, and the executor that runs it. Knows no tensor.
//!
//! | file | holds |
//! |---|---|
//! | `text.rs` | where a byte stands, and errors that show the line |
//! | `types.rs` | types and state spaces |
//! | `ast.rs` | the tree |
//! | `parse/` | text to tree |
//! | `names.rs` | every name that is used is declared |
//! | `program.rs` | a module ready to run |
//! | `lower/` | tree to program |
//! | `inst/` | the instructions, one family a file |
//! | `checks/` | what a kernel does wrong without failing: bounds, uninitialised reads, races |
//! | `profile/` | what a launch costs, counted as it runs; estimates for GPUs |
//! | `cost/` | what a kernel costs, read from its text |
//! | `run/` | the executor: warps, blocks, grids, memory |
//! | `float/` | arithmetic of PTX: roundings, formats, approximate functions, matrix products of a warp |

pub mod ast;
pub mod checks;
pub mod cost;
pub mod float;
mod inst;
mod lower;
mod names;
mod parse;
pub mod profile;
pub mod program;
pub mod run;
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

/// Reads PTX `text` and makes it ready to run; `name` is how errors call it.
///
/// # Errors
/// As [`parse`], and for instructions that are not supported.
pub fn load(name: &str, text: &str) -> Result<program::Program> {
    let tree = parse(name, text)?;
    lower::lower(name, text, &tree).map_err(|wrong| text::located(name, text, wrong))
}

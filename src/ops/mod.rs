//! The operations: one file each, from top to bottom the formula, the kernels, the op, its method on
//! [`Var`](crate::tape::Var), its [`Entry`].
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | the list of ops, one line each |
//! | `entry.rs` | [`Entry`]: what is known of an op; from it come the exams, the benchmark, the `op` verb and the book's table |
//! | `sample.rs` | [`Sample`]: example inputs, described so that they can be made in any type |
//! | `ids.rs` | the range check of ids and labels |
//! | `lists.rs` | which blocks of keys a query may choose, and the list of those that it chose |
//! | `present.rs` | which tokens a sample has, by a padding mask |
//! | `rows.rs` | loops over rows, and sums over all rows in fixed blocks |
//! | `window.rs`, `patches.rs` | windows over images; what lies under them, as a matrix |
//! | `elementwise/` | what all unary and all binary elementwise ops share |
//! | `axes.rs` | what reductions share: their axes, folding and stretching |
//! | the rest | one op each |
//!
//! A new op is its own file (and its PTX) and one line in `ops!` below. An op of another crate is the same file there: it
//! needs no registration here; its crate hands its `Entry` to [`crate::check`] and to `cli::run_with`.

#![allow(rustdoc::broken_intra_doc_links, reason = "formulas index with brackets: y[i]")]

mod axes;
pub mod elementwise;
mod entry;
pub(crate) mod ids;
mod lists;
mod patches;
mod present;
mod range;
mod rows;
mod sample;
mod window;

pub use crate::attrs::{AttrDoc, Attrs, Kind};
pub use axes::Axes;
pub use entry::{Entry, Port, PortKind};
pub use sample::{Fill, Sample};

/// Declares the modules of the ops and the list [`ALL`] of their entries.
macro_rules! ops {
    ($($name:ident),* $(,)?) => {
        $(pub mod $name;)*
        /// Every op of ringtape.
        pub static ALL: &[&Entry] = &[$(&$name::ENTRY),*];
    };
}

ops! {
    abs,
    activity,
    add,
    amax,
    avg_pool2d,
    block_mass,
    cat,
    clamp,
    conv2d,
    cross_entropy,
    div,
    dropout,
    dynamic_attention,
    embedding,
    exp,
    gather,
    gelu,
    layer_norm,
    linear,
    log,
    log_softmax,
    lsh_hash,
    lsh_vote,
    matmul,
    max_pool2d,
    maximum,
    mean,
    mean_pool_gate,
    minimum,
    mse_loss,
    mul,
    narrow,
    neg,
    permute,
    pow,
    relu,
    reshape,
    rms_norm,
    rotary_embedding,
    scale,
    scaled_dot_product_attention,
    scatter_add,
    shared_attention,
    sigmoid,
    silu,
    softmax,
    sort_chunk,
    sparse_mlp,
    split,
    sqrt,
    sub,
    sum,
    tanh,
    threshold_relu,
    top_blocks,
    var,
    where_,
}

/// The op of this name among `extra` and [`ALL`], or an error that suggests the nearest name.
pub fn find(name: &str, extra: &[&'static Entry]) -> crate::error::Result<&'static Entry> {
    let all = || extra.iter().chain(ALL).copied();
    all().find(|e| e.name == name).ok_or_else(|| {
        let near = crate::attrs::nearest(name, all().map(|e| e.name));
        crate::error::Error::Usage(format!("no op is named `{name}`{near}; `op list` shows all"))
    })
}

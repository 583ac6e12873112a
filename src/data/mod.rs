//! Datasets: packed files that are mapped, an order of samples that needs no memory, batches made on a thread.
//!
//! | file | role |
//! |---|---|
//! | [`header`], `write`, `map`, `rtd` | the packed format `*.rtd`: layout and its checks; writing; mapping; reading |
//! | [`sampler`], [`dataset`], `convert` | the order of samples; what a loader draws from; stored elements to a batch's |
//! | [`loader`] | batches, made ahead on a thread |
//! | [`readers`] | IDX, NumPy, safetensors, CSV, PNG, WAV, text, token shards; tar and zip around them |

mod convert;
pub mod dataset;
pub mod header;
pub mod loader;
mod map;
mod path;
pub mod readers;
mod rtd;
pub mod sampler;
mod write;

pub use convert::Out;
pub use dataset::{Column, Dataset, IGNORE, Pass, Samples, Windows};
pub use header::{About, Field, Header, Kind, Split};
pub use loader::{Batch, Loader, LoaderOptions, LoaderStats};
pub use map::Access;
pub use path::{check_regular_file, open_regular, safe_path};
pub use rtd::Rtd;
pub use sampler::{Cursor, Last, Permutation, Plan, Sampler};
pub use write::Writer;

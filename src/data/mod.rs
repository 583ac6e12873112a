//! Datasets: packed files that are mapped, an order of samples without memory, batches made on a thread.
//!
//! | file | role |
//! |---|---|
//! | [`header`], `write`, `map`, `rtd` | the packed format `*.rtd`: layout, writing, mapping, reading |
//! | [`sampler`], [`dataset`], `convert` | the order of samples; what a loader draws from; stored types to a batch's |
//! | [`loader`], `stretch` | batches, made ahead on a thread; a part of their tokens |
//! | [`readers`] | IDX, NumPy, safetensors, CSV, PNG, WAV, text, token shards; tar and zip around them |
//! | [`audio`] | sound to frames of coefficients |
//! | [`foreign`] | a user's own file or text as one sample |
//! | `front_end` | what makes a field's values of a user's own file or text |
//! | `pack` | from those to packed sets: text, images, tables, sound; what a user has |
//! | `sets`, `bundled`, `fetched` | sets by name; packing on first use; full sets from packages |
//! | [`info`] | what the command line shows of a set |

pub mod audio;
mod bundled;
mod convert;
pub mod dataset;
mod fetched;
pub mod foreign;
mod front_end;
pub mod header;
pub mod info;
pub mod loader;
mod map;
mod pack;
mod path;
pub mod readers;
mod rtd;
pub mod sampler;
mod sets;
mod stretch;
mod write;

pub use bundled::{Packed, check_written, open, open_named, pack_from, pack_named};
pub use convert::Out;
pub use dataset::{Column, Dataset, IGNORE, Pass, Samples, Windows};
pub use front_end::{FrontEnd, PADDING};
pub use header::{About, Field, Header, Kind, Split};
pub use info::{Info, Listed, inspect, list, verify};
pub use loader::{Batch, Loader, LoaderOptions, LoaderStats};
pub use map::Access;
pub use pack::{PackOptions, Vocabulary, pack_path};
pub use path::{check_folder, check_regular_file, open_regular};
pub use rtd::Rtd;
pub use sampler::{Cursor, Last, Permutation, Plan, Sampler};
pub use write::Writer;

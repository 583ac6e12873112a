//! Datasets: packed files that are mapped, an order of samples that needs no memory, batches made on a thread.
//!
//! | file | role |
//! |---|---|
//! | [`header`], `write`, `map`, `rtd` | the packed format `*.rtd`: layout and its checks; writing; mapping; reading |

pub mod header;
mod map;
mod path;
mod rtd;
mod write;

pub use header::{About, Field, Header, Kind, Split};
pub use map::Access;
pub use path::{check_regular_file, open_regular, safe_path};
pub use rtd::Rtd;
pub use write::Writer;

//! The CUDA driver's symbols, as `cust` and other programs link to them: each passes on to the driver of this machine where
//! there is one, else to the software device in this process.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | which driver answers |
//! | `table.rs` | the list of functions, and a symbol for each |
//! | `ffi.rs` | the one place that follows a caller's pointers |
//! | `codes.rs` | CUresult: numbers, names, and what our errors become |
//! | `soft/` | the functions over the software device |
//!
//! `RUNTIME_CUDA=hw` insists on a real driver, `RUNTIME_CUDA=soft` on the software device. The signatures are those of
//! cuda.h 13; a function that the real driver lacks, or that the software device does not have, answers 801
//! (CUDA_ERROR_NOT_SUPPORTED).

mod codes;
mod ffi;
mod soft;
mod table;

pub use table::*;

use std::sync::OnceLock;
use table::Table;

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// The driver of this machine.
    Hardware,
    /// The software device.
    Software,
    /// Nobody: a real driver was asked for and there is none.
    Nobody,
}

struct Driver {
    table: Table,
    answers: Answers,
}

fn driver() -> &'static Driver {
    static DRIVER: OnceLock<Driver> = OnceLock::new();
    DRIVER.get_or_init(|| {
        let wish = std::env::var("RUNTIME_CUDA").unwrap_or_default();
        let real = if wish == "soft" { None } else { ffi::library("libcuda.so.1") };
        match real {
            Some(library) => Driver { table: Table::of(library), answers: Answers::Hardware },
            None if wish == "hw" => Driver { table: Table::missing(), answers: Answers::Nobody },
            None => Driver { table: Table::soft(), answers: Answers::Software },
        }
    })
}

/// Who answers the driver's functions in this process.
pub fn answers() -> Answers {
    driver().answers
}

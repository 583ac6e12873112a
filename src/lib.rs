//! ringtape: a machine-learning runtime written from scratch, and the book that teaches it.
//!
//! A module imports only modules of a lower rank (the number in brackets); siblings of one rank from 6 up do not see
//! each other. `tests/architecture.rs` reads every `crate::…` path and fails on a breach.
//!
//! | rank | module | what it holds |
//! |---|---|---|
//! | 0 | [`error`], [`rng`], [`shape`], [`simd`] | one error type; random numbers by counter; extents and element types; one loop for each instruction set |
//! | 1 | [`attrs`], [`ptx`], [`wire`] | attributes by name and as text; the PTX language; the one place that knows bincode |
//! | 2 | [`device`] | where memory lives, and its pool |
//! | 3 | [`tensor`] | buffers and handles to them |
//! | 4 | [`kernel`](mod@kernel) | one name, one argument list, a body per device; SIMD, threads, GEMM |
//! | 5 | [`tape`] | Tape, Var, Op, Params, Grads: reverse-mode differentiation |
//! | 6 | [`ops`], [`optim`], [`data`], [`comm`] | one file an op; one file an optimizer; mapped datasets; collectives between ranks |
//! | 7 | [`nn`], [`check`] | layers and models; the examiner |
//! | 8 | [`train`], [`plan`] | the loop, config, snapshots, metrics, report; what training on many devices would cost |
//! | 9 | [`cli`] | one file a verb |

// Of the library alone: a test that unwraps says where it failed.
#![warn(clippy::unwrap_used)]

pub mod attrs;
pub mod check;
pub mod cli;
pub mod comm;
pub mod data;
pub mod device;
pub mod error;
pub mod kernel;
pub mod nn;
pub mod ops;
pub mod optim;
pub mod plan;
pub mod ptx;
pub mod rng;
pub mod shape;
pub mod simd;
pub mod tape;
pub mod tensor;
pub mod train;
pub mod wire;

//! The `sawmill` command: its settings, its subcommands and the wiring of the roles.
//!
//! Promise: `main` of the two binaries is nothing but a call into this library. No promise: a stable Rust interface;
//! programs talk to Sawmill through the command line and `--output json`.

/// Entries and documents are many short-lived allocations on several threads, which the system's allocator is slow at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

pub mod cli;
pub mod commands;
pub mod config;
mod ends;
pub mod exit;
pub mod harness;
mod listening;
mod machine;
pub mod output;
pub mod roles;
mod runtime;
pub mod signals;
pub mod telemetry;
pub mod view;

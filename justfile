# What is done often. `just` alone lists it.

export CARGO_TARGET_DIR := env("CARGO_TARGET_DIR", home_directory() / ".cache/sawmill/target")

[private]
default:
    @just --list

# Build the commands, optimised
build:
    cargo build --release --bins

# Run all tests, or those that the arguments for nextest select
test *arguments:
    scripts/test {{ arguments }}

# Look for what the compiler, clippy and rustfmt object to
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings

# Format all sources
format:
    cargo fmt --all

# Check licences and advisories of the dependencies
deny:
    cargo deny check

# Measure the queue and its latency on this machine
bench *arguments:
    cargo run --release --bin sawmill -- bench queue {{ arguments }}
    cargo run --release --bin sawmill -- bench latency

# Hit a cluster under load with faults and look for what is lost; the arguments are those of scripts/chaos
chaos *arguments:
    scripts/chaos {{ arguments }}

# Build, start a mill, count status codes, show what happened
quickstart *files:
    scripts/quickstart {{ files }}

# What the continuous integration runs
ci:
    .ci/run

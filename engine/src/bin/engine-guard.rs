//! The guard and nothing else: what the tests of this crate re-execute where a real node re-executes itself.

fn main() {
    engine::guard::run_if_asked();
    eprintln!("this program only serves as the guard of commands that a node runs");
    std::process::exit(2);
}

//! The `ringtape` program: all of it is in [`ringtape::cli`], but for what happens when memory runs out.

mod memory;

fn main() {
    memory::install();
    std::process::exit(ringtape::cli::run())
}

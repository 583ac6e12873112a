//! The `ringtape` program: all of it is in [`ringtape::cli`].

fn main() {
    std::process::exit(ringtape::cli::run())
}

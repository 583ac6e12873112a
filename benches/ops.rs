//! `cargo bench`: the `bench` verb over every op and the matrix products; arguments go to the verb, as in
//! `cargo bench -- op softmax --seconds 2`.

fn main() {
    // Cargo adds --bench of its own.
    let given: Vec<_> = std::env::args_os().skip(1).filter(|a| a != "--bench").collect();
    let args = ["ringtape", "bench"].into_iter().map(Into::into).chain(given);
    std::process::exit(ringtape::cli::run_with(Default::default(), args))
}

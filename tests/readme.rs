//! The documents do not drift: commands exist, links resolve, code is the code that is tested, versions agree.

use std::fs;
use std::path::Path;

const DOCUMENTS: [&str; 4] = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benches/README.md"];

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The commands in the fenced `sh` blocks of `text`, without comments, as words.
fn commands(text: &str) -> Vec<Vec<String>> {
    let blocks = text.split("```").skip(1).step_by(2).filter_map(|b| b.strip_prefix("sh\n"));
    let lines = blocks.flat_map(|b| b.lines()).map(|l| l.split(" #").next().unwrap_or("").trim().to_string());
    lines.filter(|l| !l.is_empty()).map(|l| words(&l)).collect()
}

/// Words as a shell would cut them: quotes hold spaces together.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (vec![], String::new(), false);
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            ' ' if !quoted => words.extend(Some(std::mem::take(&mut word)).filter(|w| !w.is_empty())),
            c => word.push(c),
        }
    }
    words.extend(Some(word).filter(|w| !w.is_empty()));
    words
}

/// Each command of the documents parses by the program's own grammar: verbs, options and values.
#[test]
fn commands_are_what_the_program_takes() {
    let mut count = 0;
    for document in DOCUMENTS {
        for command in commands(&read(document)) {
            let args = match command.iter().map(String::as_str).collect::<Vec<_>>()[..] {
                ["ringtape", ..] => command.clone(),
                ["cargo", "run", "--release", "--", ref rest @ ..]
                | ["cargo", "bench", "--", ref rest @ ..] => {
                    let verb = if command[1] == "bench" { &["bench"][..] } else { &[] };
                    ["ringtape"].iter().chain(verb).chain(rest).map(|s| s.to_string()).collect()
                }
                ["cargo", "test" | "fmt" | "clippy" | "install" | "bench" | "build", ..] => continue,
                ["python", script, ..] => {
                    assert!(
                        Path::new(env!("CARGO_MANIFEST_DIR")).join(script).is_file(),
                        "{document}: no {script}"
                    );
                    continue;
                }
                _ => panic!("{document}: what is `{}`?", command.join(" ")),
            };
            count += 1;
            if let Err(e) = ringtape::cli::command().try_get_matches_from(&args) {
                assert!(!e.use_stderr(), "{document}: `{}` is refused:\n{e}", command.join(" "));
            }
        }
    }
    assert!(count >= 10, "the documents show only {count} commands");
}

/// Every relative link points to something in the repository.
#[test]
fn links_resolve() {
    for document in DOCUMENTS {
        let text = read(document);
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(document).parent().unwrap().to_path_buf();
        for (at, _) in text.match_indices("](") {
            let target = text[at + 2..].split(')').next().unwrap();
            let file = target.split('#').next().unwrap();
            if file.is_empty() || file.starts_with("http") {
                continue;
            }
            assert!(folder.join(file).exists(), "{document} links to {target}, which does not exist");
        }
    }
}

/// The worked example is the file that `tests/outside.rs` compiles and examines.
#[test]
fn the_worked_example_is_tested_code() {
    let code = read("tests/outside/softplus.rs");
    assert!(read("CONTRIBUTING.md").contains(code.trim_end()), "CONTRIBUTING.md shows another softplus.rs");
}

/// The newest released version in the changelog is the package's, with Unreleased above it.
#[test]
fn versions_agree() {
    let changelog = read("CHANGELOG.md");
    let heads: Vec<&str> = changelog
        .lines()
        .filter_map(|l| l.strip_prefix("## ["))
        .filter_map(|l| l.split(']').next())
        .collect();
    assert_eq!(heads.first(), Some(&"Unreleased"));
    assert_eq!(heads.get(1), Some(&env!("CARGO_PKG_VERSION")));
}

/// Every verb of the program is told of in the README or the changelog, and `help` knows each.
#[test]
fn every_verb_is_documented() {
    let documents: String = DOCUMENTS.iter().map(|d| read(d)).collect();
    for verb in ringtape::cli::command().get_subcommands().map(|v| v.get_name().to_string()) {
        let said =
            documents.contains(&format!("ringtape {verb}")) || documents.contains(&format!("`{verb}`"));
        assert!(said, "no document tells of `{verb}`");
    }
}

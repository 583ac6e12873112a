//! The book does not drift: its figures are what the program makes, its listings are files that exist and kernels that run,
//! its commands parse.

use ringtape::check::ptx::{Exam, Programs, read, run};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).into()
}

fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).unwrap();
    let mut all: Vec<_> = entries.map(|e| e.unwrap().path()).collect();
    all.retain(|p| p.extension().is_some_and(|e| e == ending));
    all.sort();
    all
}

/// Every include of a page: file and anchor.
fn includes(page: &Path) -> Vec<(PathBuf, Option<String>)> {
    let text = fs::read_to_string(page).unwrap();
    let inner = text.split("{{#include ").skip(1).map(|rest| rest.split("}}").next().unwrap().to_owned());
    let each = |what: String| match what.split_once(':') {
        Some((file, anchor)) => (page.parent().unwrap().join(file), Some(anchor.to_owned())),
        None => (page.parent().unwrap().join(what), None),
    };
    inner.map(each).collect()
}

/// What stands between ANCHOR and ANCHOR_END.
fn anchored(text: &str, anchor: &str) -> Option<String> {
    let ends = |line: &str, word: &str| line.trim_end().ends_with(&format!("{word}: {anchor}"));
    let inside = text.lines().skip_while(|l| !ends(l, "ANCHOR")).skip(1);
    let inside: Vec<&str> = inside.take_while(|l| !ends(l, "ANCHOR_END")).collect();
    let closed = text.lines().any(|l| ends(l, "ANCHOR_END"));
    (closed && !inside.is_empty()).then(|| inside.join("\n"))
}

#[test]
fn figures_are_what_the_program_makes() {
    let dir = root().join("book").into_os_string().into_string().unwrap();
    let args = ["ringtape", "book", "--check", "--dir", &dir].map(Into::into);
    assert_eq!(ringtape::cli::run_with(ringtape::cli::Extensions::default(), args), 0);
}

#[test]
fn every_include_has_its_text_and_every_anchor_is_included() {
    let mut used: BTreeMap<PathBuf, BTreeSet<String>> = BTreeMap::new();
    for page in files("book/src", "md") {
        for (file, anchor) in includes(&page) {
            let name = format!("{}: {}", page.display(), file.display());
            let file = file.canonicalize().unwrap_or_else(|e| panic!("{name}: {e}"));
            let text = fs::read_to_string(&file).unwrap();
            let used = used.entry(file).or_default();
            if let Some(anchor) = anchor {
                assert!(anchored(&text, &anchor).is_some(), "{name}:{anchor} is missing or empty");
                used.insert(anchor);
            }
        }
    }
    for (file, used) in &used {
        for line in fs::read_to_string(file).unwrap().lines() {
            if let Some((_, anchor)) = line.split_once("ANCHOR: ") {
                assert!(used.contains(anchor.trim()), "{}: no page includes {anchor}", file.display());
            }
        }
    }
    for figure in fs::read_dir(root().join("book/figures")).unwrap() {
        let figure = figure.unwrap().path().canonicalize().unwrap();
        assert!(used.contains_key(&figure), "no page shows {}", figure.display());
    }
}

/// Formulas are laid out by a program whose version must be that of the style sheet here: one number, wherever it stands.
#[test]
fn the_tools_have_one_version() {
    let read = |name: &str| fs::read_to_string(root().join(name)).unwrap();
    let ci = read(".ci/run");
    let version = |key: &str| {
        let line = ci.lines().find_map(|l| l.strip_prefix(&format!("{key}=")));
        line.unwrap_or_else(|| panic!("{key} is not in .ci/run")).to_owned()
    };
    let (mdbook, katex) = (version("MDBOOK"), version("KATEX"));
    assert!(read("book/src/introduction.md").contains(&format!("mdbook@{mdbook} mdbook-katex@{katex}")));
    assert!(read("book/theme/head.hbs").contains(&format!("mdbook-katex {katex}")));
    // Markup and style sheet are of one KaTeX too.
    let css = read("book/src/katex/katex.min.css");
    let style = css.split("katex-version:after{content:\"").nth(1).and_then(|v| v.split('"').next()).unwrap();
    assert!(read("book/theme/head.hbs").contains(&format!("KaTeX {style}, the version that")));
}

/// What a browser fetches for a page lies in the book's folder. Built pages are looked at by `.ci/run book`.
#[test]
fn pages_need_no_network() {
    let settings: toml::Table = fs::read_to_string(root().join("book/book.toml")).unwrap().parse().unwrap();
    let html = &settings["output"]["html"];
    assert_eq!(
        settings["preprocessor"]["katex"]["no-css"].as_bool(),
        Some(true),
        "its style sheet is on a CDN"
    );
    assert_eq!(html["playground"]["runnable"].as_bool(), Some(false), "code would be sent to a server");
    assert!(html.get("mathjax-support").is_none(), "MathJax is on a CDN");
    let away = |text: &str| {
        let text = text.replace(' ', "").replace('\'', "\"");
        ["src=\"http", "src=\"//", "url(http", "url(//", "@import", "](http"].iter().any(|s| text.contains(s))
            || text.split("<link").skip(1).any(|l| l.split('>').next().unwrap().contains("//"))
    };
    assert!(
        away("<script src='https://x.org/y.js'>") && away("<link rel=\"stylesheet\" href=\"//x.org/y.css\">")
    );
    for file in ["theme/head.hbs", "theme/ringtape.css", "src/katex/katex.min.css"] {
        assert!(!away(&fs::read_to_string(root().join("book").join(file)).unwrap()), "{file}");
    }
    // Links to other places are there to be followed; pictures and scripts are not.
    for page in files("book/src", "md") {
        let text = fs::read_to_string(&page).unwrap();
        let pictures = text.split("![").skip(1).any(|p| p.split(')').next().unwrap().contains("](http"));
        assert!(!pictures && !away(&text.replace("](http", "")), "{}", page.display());
    }
    let css = fs::read_to_string(root().join("book/src/katex/katex.min.css")).unwrap();
    let fonts: BTreeSet<&str> = css
        .split("url(")
        .skip(1)
        .map(|u| u.split(')').next().unwrap())
        .filter(|u| u.ends_with(".woff2"))
        .collect();
    assert_eq!(fonts.len(), 20);
    for font in fonts {
        assert!(root().join("book/src/katex").join(font).is_file(), "{font}");
    }
}

/// A formula wider than a telephone scrolls in itself, and `$$` stands alone in its line, so that it is a display.
#[test]
fn formulas_are_displays_that_scroll() {
    let css = fs::read_to_string(root().join("book/theme/ringtape.css")).unwrap();
    assert!(css.lines().any(|l| l.starts_with(".katex-display") && l.contains("overflow-x: auto")));
    let mut count = 0;
    for page in files("book/src", "md") {
        let text = fs::read_to_string(&page).unwrap();
        let marks = text.lines().filter(|l| l.contains("$$"));
        let marks: Vec<&str> = marks.collect();
        assert!(
            marks.iter().all(|l| *l == "$$") && marks.len().is_multiple_of(2),
            "{}: {marks:?}",
            page.display()
        );
        // In HTML, a tilde would begin what is struck through.
        let inside = text.split("$$\n").skip(1).step_by(2);
        assert!(inside.clone().all(|f| !f.contains("\\tilde") && !f.contains('~')), "{}", page.display());
        count += inside.count();
    }
    assert!(count >= 18, "{count} formulas");
}

#[test]
fn the_summary_lists_every_page() {
    let summary = fs::read_to_string(root().join("book/src/SUMMARY.md")).unwrap();
    for page in files("book/src", "md") {
        let name = page.file_name().unwrap().to_str().unwrap();
        assert!(name == "SUMMARY.md" || summary.contains(&format!("({name})")), "{name} is in no list");
    }
}

/// Where a chapter is on the map of the code stands below its title. What it says there is a figure, and compared as such.
#[test]
fn every_chapter_says_where_it_is() {
    let map = fs::read_to_string(root().join("book/figures/code_map.md")).unwrap();
    let mut count = 0;
    for page in files("book/src", "md") {
        let name = page.file_stem().unwrap().to_str().unwrap();
        // Pages that show no code.
        if ["SUMMARY", "introduction", "code", "claims", "glossary"].contains(&name) {
            continue;
        }
        let text = fs::read_to_string(&page).unwrap();
        let below = text.lines().nth(2);
        assert_eq!(below, Some(&*format!("{{{{#include ../figures/here_{name}.md}}}}")), "{name}");
        // It is there wherever it shows code from, and the line below its title says so.
        let here = fs::read_to_string(root().join(format!("book/figures/here_{name}.md"))).unwrap();
        for (file, _) in includes(&page) {
            let file = file.canonicalize().unwrap();
            let Ok(within) = file.strip_prefix(root().join("src")) else { continue };
            let module = within.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
            let row = map.lines().find(|l| l.contains(&format!("| `src/{module}` |"))).unwrap();
            assert!(row.contains(&format!("({name}.md)")), "{name}: {row}");
            assert!(here.contains(&format!(">{module}</b>")), "{name}: {module}");
        }
        assert!(map.contains(&format!("({name}.md)")), "{name} is not on the map");
        count += 1;
    }
    // Every module of the crate is a row, with what the crate's own table says of it.
    let lib = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let modules: Vec<&str> =
        lib.lines().filter_map(|l| l.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    assert!(modules.len() >= 20);
    for module in modules {
        let row = map.lines().find(|l| l.contains(&format!("| `src/{module}` |")));
        let holds = row.unwrap_or_else(|| panic!("{module} is not on the map")).split(" | ").nth(2).unwrap();
        assert!(!holds.is_empty() && lib.contains(holds), "{module}: {holds}");
    }
    let here = files("book/figures", "md").iter().filter(|f| f.to_str().unwrap().contains("/here_")).count();
    assert_eq!(here, count, "a line of a chapter that is not there any more");
}

#[test]
fn kernels_of_the_book_do_what_it_says() {
    let folder = root().join("book/kernels");
    let manifests = files("book/kernels", "json");
    assert!(manifests.len() >= 4);
    for file in manifests {
        // Its subject is what loads cost, not what they load.
        let check = !file.ends_with("memory.json");
        for m in read(&file).unwrap() {
            let o = run(&mut Programs::default(), &folder, &m, Exam { check, ..Exam::default() }).unwrap();
            assert!(o.passed(), "{}: {:?} {:?}", file.display(), o.faults, o.differences);
        }
    }
}

/// The exercise and the text say what happens when a line is changed: it does.
#[test]
fn the_faults_that_the_chapter_speaks_of_are_found() {
    let changed = |kernel: &str, from: &str, to: &str| {
        let folder = tempfile::tempdir().unwrap();
        let source = root().join("book/kernels");
        fs::create_dir(folder.path().join("data")).unwrap();
        for data in files("book/kernels/data", "npy") {
            fs::copy(&data, folder.path().join("data").join(data.file_name().unwrap())).unwrap();
        }
        let text = fs::read_to_string(source.join(format!("{kernel}.ptx"))).unwrap();
        assert!(text.contains(from));
        fs::write(folder.path().join(format!("{kernel}.ptx")), text.replace(from, to)).unwrap();
        let m = &read(&source.join(format!("{kernel}.json"))).unwrap()[0];
        let exam = Exam { check: true, ..Exam::default() };
        let o = run(&mut Programs::default(), folder.path(), m, exam).unwrap();
        o.faults.iter().map(|f| f.kind).collect::<BTreeSet<_>>()
    };
    assert_eq!(changed("first", "setp.ge.u32     %done", "setp.gt.u32     %done"), ["global-oob"].into());
    assert!(changed("sum", "    bar.sync        0;", "").contains("race-shared"));
}

#[test]
fn commands_of_the_book_parse() {
    let mut count = 0;
    for page in files("book/src", "md") {
        let text = fs::read_to_string(&page).unwrap();
        let blocks = text.split("```").skip(1).step_by(2).filter_map(|b| b.strip_prefix("sh\n"));
        let lines = blocks.flat_map(str::lines).map(|l| l.split(" #").next().unwrap());
        let ours = lines.map(|l| l.replace("cargo run --release --", "ringtape"));
        for line in ours.filter(|l| l.starts_with("ringtape ")) {
            let parsed = ringtape::cli::command().try_get_matches_from(line.split_whitespace());
            assert!(parsed.is_ok(), "{}: {line}", page.display());
            for file in line.split_whitespace().filter(|w| w.ends_with(".json")) {
                assert!(root().join(file).is_file(), "{}: no {file}", page.display());
            }
            count += 1;
        }
    }
    assert!(count >= 6);
}

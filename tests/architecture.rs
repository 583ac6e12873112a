//! The house rules that a compiler does not know: who may import whom, where `unsafe` may stand, how long a file may be,
//! and that no float is summed in an order that depends on threads.

#[path = "architecture/source.rs"]
mod source;

use source::{Source, block_end, is_word, line_of, words};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Files that may hold `unsafe`, each with its reason at its head.
const UNSAFE: &[&str] = &[
    "comm/lend.rs",
    "comm/segment.rs",
    "data/map.rs",
    "device/block.rs",
    "device/cuda.rs",
    "device/shim/ffi.rs",
    "device/shim/table.rs",
    "kernel/gemm/blocked.rs",
    "kernel/gemm/micro.rs",
    "kernel/gemm/mod.rs",
    "kernel/gemm/pack.rs",
    "kernel/gemm/pairs.rs",
    "kernel/gemm/vector.rs",
    "ptx/run/memory.rs",
    "simd.rs",
    "main.rs",
];
/// Longest file, in lines.
const FILE: usize = 400;
/// Longest function, in lines.
const FUNCTION: usize = 60;
/// Functions that are longer today. The list may shrink; a function on it that has become short fails the test.
const LONG: &[(&str, &str)] = &[];
/// Macros live at the root of the crate, but are the kernel module's.
const MACROS: &[(&str, &str)] = &[("kernel", "kernel"), ("vectorized", "simd")];

type Ranks = BTreeMap<String, u32>;

/// The ranks from the table in `src/lib.rs`: rows `| 4 | [`kernel`](…), … | what it holds |`.
fn ranks(lib: &str) -> Ranks {
    let mut ranks = Ranks::new();
    for row in lib.lines().filter_map(|l| l.strip_prefix("//! | ")) {
        let mut cells = row.split(" | ");
        let (Some(Ok(rank)), Some(modules)) = (cells.next().map(str::parse), cells.next()) else { continue };
        for name in modules.split(", ") {
            ranks.extend(name.split('`').nth(1).map(|name| (name.to_string(), rank)));
        }
    }
    ranks
}

/// Modules named in `crate::…` paths, `crate::{a, b::c}` included, with the line of each.
fn imports(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for at in words(code, "crate").filter(|&at| code[at..].starts_with("crate::")) {
        let rest = &code[at + "crate::".len()..];
        let line = line_of(code, at);
        let name = |s: &str| s.trim_start().split(|c| !is_word(c)).next().unwrap_or_default().to_string();
        if !rest.starts_with('{') {
            found.push((line, name(rest)));
            continue;
        }
        let end = block_end(rest, 0).unwrap_or(rest.len());
        let (mut depth, mut start) = (0, 1);
        for (i, c) in rest[..end].char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if (c == ',' && depth == 1) || (c == '}' && depth == 0) {
                found.push((line, name(&rest[start..i])));
                start = i + 1;
            }
        }
    }
    found.retain(|(_, name)| !name.is_empty());
    found
}

/// Breaches of the ranks in one file. `path` is relative to `src`, such as `ops/relu.rs`.
fn breaches(path: &str, source: &Source, ranks: &Ranks) -> Vec<String> {
    let own = path.split(['/', '.']).next().unwrap_or_default();
    let Some(&rank) = ranks.get(own) else {
        return vec![format!("{path}: `{own}` is not in the table of src/lib.rs")];
    };
    let code = source.product();
    let mut found = Vec::new();
    for (line, name) in imports(&code) {
        let module = MACROS.iter().find(|(m, _)| *m == name).map_or(name.as_str(), |(_, module)| module);
        match ranks.get(module) {
            None => found.push(format!("{path}:{line}: crate::{name} is not in the table of src/lib.rs")),
            Some(&r) if module != own && (r > rank || (r == rank && rank >= 6)) => {
                found.push(format!("{path}:{line}: `{own}` [{rank}] imports `{module}` [{r}]"));
            }
            _ => {}
        }
    }
    // `super::super::…` as long as the path of the module itself leads to the root of the crate, past this test.
    let depth = path.trim_end_matches("/mod.rs").split('/').count();
    for at in words(&code, "super").filter(|&at| !code[..at].ends_with("super::")) {
        let chain = code[at..].split("::").take_while(|s| *s == "super").count();
        if chain >= depth + inline_depth(&code, at) {
            found.push(format!(
                "{path}:{}: {chain} super:: leave the module; write crate::",
                line_of(&code, at)
            ));
        }
    }
    found
}

/// Number of modules written out in the file around byte `at`.
fn inline_depth(code: &str, at: usize) -> usize {
    let around = |&start: &usize| {
        let head = code[start..].split(['{', ';']).next().unwrap_or_default();
        code[start + head.len()..].starts_with('{') && block_end(code, start).is_some_and(|end| end > at)
    };
    words(&code[..at], "mod").filter(around).count()
}

/// Reductions at the end of a parallel iterator: rayon splits by load, so their order, and a float's bits, change.
fn reductions(path: &str, source: &Source) -> Vec<String> {
    const FORBIDDEN: &[&str] =
        &["sum", "product", "reduce", "reduce_with", "fold", "fold_with", "try_fold", "try_reduce"];
    let code = source.product();
    let mut found = Vec::new();
    let starts = ["par_", "into_par_iter"].iter().flat_map(|s| code.match_indices(s).map(|(at, _)| at));
    for at in starts.filter(|&at| !code[..at].ends_with(is_word)) {
        let mut depth = 0i32;
        for (i, c) in code[at..].char_indices() {
            match c {
                '(' | '[' | '{' => depth += 1,
                ')' | ']' | '}' => depth -= 1,
                '.' if depth == 0 => {
                    let method = code[at + i + 1..].split(|c| !is_word(c)).next().unwrap_or_default();
                    if FORBIDDEN.contains(&method) {
                        found.push(format!("{path}:{}: .{method}() over threads", line_of(&code, at + i)));
                    }
                }
                _ => {}
            }
            if depth < 0 || (c == ';' && depth == 0) {
                break;
            }
        }
    }
    found
}

/// `unsafe` outside the files that may hold it, or without a `SAFETY:` comment right above.
fn unsafety(path: &str, source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    let text: Vec<&str> = source.text.lines().map(str::trim).collect();
    let code: Vec<&str> = source.code.lines().map(str::trim).collect();
    for at in words(&source.code, "unsafe") {
        let line = line_of(&source.code, at);
        if !UNSAFE.contains(&path) {
            found.push(format!("{path}:{line}: unsafe in a file that is not on the list of this test"));
        }
        // An unsafe fn states what its caller owes; each use of it is a block of its own.
        let declares = source.code[at..].trim_start_matches("unsafe").trim_start().starts_with(['f', 'e']);
        let said = (0..line - 1)
            .rev()
            .take_while(|&l| {
                code[l].is_empty() || code[l].starts_with("#[") || !code[l].ends_with([';', '}', '{'])
            })
            .any(|l| text[l].contains("SAFETY:"));
        if !declares && !said {
            found.push(format!("{path}:{line}: unsafe without SAFETY:"));
        }
    }
    found
}

/// Functions of more than [`FUNCTION`] lines, by name.
fn long_functions(source: &Source) -> Vec<(String, usize)> {
    let code = source.product();
    let mut found = Vec::new();
    for at in words(&code, "fn") {
        let name: String = code[at + 2..].trim_start().chars().take_while(|&c| is_word(c)).collect();
        let Some(end) = block_end(&code, at).filter(|_| !name.is_empty()) else { continue };
        let lines = line_of(&code, end) - line_of(&code, at) + 1;
        if lines > FUNCTION {
            found.push((name, lines));
        }
    }
    found
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("the folder can be read").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Every file of `src` with its path there.
fn sources() -> Vec<(String, Source)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let read = |p: PathBuf| {
        let text = std::fs::read_to_string(&p).expect("source is UTF-8");
        let path = p.strip_prefix(&src).expect("the file was found there").to_string_lossy().into_owned();
        (path, Source::new(&text))
    };
    files(&src).into_iter().map(read).collect()
}

fn table() -> Ranks {
    let lib = sources().into_iter().find(|(p, _)| p == "lib.rs").expect("src/lib.rs exists").1;
    ranks(&lib.text)
}

fn every(check: impl Fn(&str, &Source) -> Vec<String>) {
    let found: Vec<String> = sources().iter().flat_map(|(path, source)| check(path, source)).collect();
    assert!(found.is_empty(), "{} breaches:\n{}", found.len(), found.join("\n"));
}

#[test]
fn modules_import_only_lower_ranks() {
    let table = table();
    assert!(table.len() >= 12 && table["error"] == 0 && table["cli"] == 9, "{table:?}");
    every(|path, source| match path {
        // The root declares the modules; the program runs the last of them.
        "lib.rs" | "main.rs" => vec![],
        _ => breaches(path, source, &table),
    });
}

#[test]
fn no_float_is_summed_by_load() {
    every(reductions);
}

#[test]
fn unsafe_stands_where_it_may_and_says_why() {
    every(unsafety);
    for path in UNSAFE {
        let found = sources().into_iter().find(|(p, _)| p == path);
        assert!(
            found.is_some_and(|(_, s)| words(&s.code, "unsafe").next().is_some()),
            "{path} needs no place here"
        );
    }
}

#[test]
fn files_and_functions_are_short() {
    every(|path, source| match source.text.lines().count() {
        n if n > FILE => vec![format!("{path}: {n} lines, at most {FILE}")],
        _ => vec![],
    });
    let listed = |path: &str, name: &str| LONG.contains(&(path, name));
    every(|path, source| {
        let long = long_functions(source).into_iter().filter(|(name, _)| !listed(path, name));
        long.map(|(name, n)| format!("{path}: fn {name} has {n} lines, at most {FUNCTION}")).collect()
    });
    for (path, name) in LONG {
        let found = sources().into_iter().find(|(p, _)| p == path).map(|(_, s)| long_functions(&s));
        assert!(
            found.is_some_and(|f| f.iter().any(|(n, _)| n == name)),
            "{path}: {name} is short now: take it off the list"
        );
    }
}

mod planted {
    //! The scanner finds what is planted, and nothing else.
    use super::*;

    fn table() -> Ranks {
        let rows = "//! | 0 | [`error`], [`shape`](mod@shape), [`simd`] | x |\n//! | 4 | [`kernel`] | x |\n//! | 6 | [`ops`], [`optim`] | x |\n\
                    //! | 7 | [`nn`] | x |\n//! |---|---|---|";
        ranks(rows)
    }

    fn found(path: &str, text: &str) -> usize {
        breaches(path, &Source::new(text), &table()).len()
    }

    #[test]
    fn a_table() {
        assert_eq!(
            table().into_iter().collect::<Vec<_>>(),
            [
                ("error".into(), 0),
                ("kernel".into(), 4),
                ("nn".into(), 7),
                ("ops".into(), 6),
                ("optim".into(), 6),
                ("shape".into(), 0),
                ("simd".into(), 0),
            ] as [(String, u32); 7]
        );
    }

    #[test]
    fn imports_of_higher_rank() {
        assert_eq!(found("ops/relu.rs", "use crate::error::Result; use crate::kernel::{Real, par};"), 0);
        assert_eq!(found("ops/relu.rs", "use crate::nn::Linear;"), 1);
        assert_eq!(found("ops/relu.rs", "use crate::{error::Error, nn::{Linear, Gpt}, kernel};"), 1);
        assert_eq!(found("ops/relu.rs", "use crate::{\n    kernel, vectorized,\n    optim,\n};"), 1);
        assert_eq!(found("ops/relu.rs", "fn f() { crate::nn::f(); crate::nn::g() }"), 2);
        assert_eq!(
            found("ops/relu.rs", "use crate::optim::Sgd;"),
            1,
            "siblings from rank 6 up do not see each other"
        );
        assert_eq!(found("ops/relu.rs", "use crate::ops::Entry;"), 0, "a module sees itself");
        assert_eq!(found("shape.rs", "use crate::error::Result;"), 0, "siblings below rank 6 do");
        assert_eq!(found("kernel/mod.rs", "macro_rules! k { () => { $crate::ops::f() } }"), 1);
        assert_eq!(found("ops/relu.rs", "use crate::nowhere::X;"), 1);
        assert_eq!(found("stray.rs", ""), 1);
        assert_eq!(found("ops/relu.rs", "// use crate::nn::X;\nconst S: &str = \"crate::nn\";"), 0);
        assert_eq!(found("ops/relu.rs", "#[cfg(test)]\nmod tests { use crate::nn::X; }"), 0);
    }

    #[test]
    fn ways_around_by_super() {
        assert_eq!(found("ops/mod.rs", "use super::nn::X;"), 1);
        assert_eq!(found("ops/relu.rs", "use super::Entry;"), 0);
        assert_eq!(found("ops/relu.rs", "use super::super::nn::X;"), 1);
        assert_eq!(found("ops/elementwise/unary.rs", "use super::super::Entry;"), 0);
        assert_eq!(found("ops/elementwise/unary.rs", "use super::super::super::nn::X;"), 1);
        assert_eq!(found("shape.rs", "use super::nn::X;"), 1);
        assert_eq!(found("kernel/mod.rs", "mod take { use super::Arg; }"), 0);
        assert_eq!(found("kernel/mod.rs", "mod take { use super::super::nn::X; }"), 1);
        assert_eq!(found("kernel/mod.rs", "mod take { use a; }\nmod b;\nuse super::nn::X;"), 1);
    }

    #[test]
    fn sums_over_threads() {
        let n = |text: &str| reductions("x.rs", &Source::new(text)).len();
        assert_eq!(n("let s: f32 = x.par_iter().sum();"), 1);
        assert_eq!(n("let s = x.par_chunks(4).map(|c| c[0]).reduce(|| 0.0, |a, b| a + b);"), 1);
        assert_eq!(n("let s = (0..n).into_par_iter()\n    .map(f)\n    .sum::<f64>();"), 1);
        assert_eq!(
            n("let p: Vec<f64> = x.par_chunks(4).map(|c| c.iter().sum()).collect(); let s = p.iter().sum();"),
            0
        );
        assert_eq!(n("f(x.par_chunks(4).map(g).collect()).sum()"), 0);
        assert_eq!(n("// x.par_iter().sum()"), 0);
    }

    #[test]
    fn unsafe_without_a_word() {
        let n = |path: &str, text: &str| unsafety(path, &Source::new(text)).len();
        let good = "fn f() {\n    // SAFETY: in bounds\n    // by the check above.\n    let x = g(unsafe { *p });\n}";
        assert_eq!(n("device/block.rs", good), 0);
        assert_eq!(n("ops/relu.rs", good), 1, "not its place");
        assert_eq!(n("device/block.rs", "fn f() {\n    let x = unsafe { *p };\n}"), 1);
        assert_eq!(
            n("device/block.rs", "// SAFETY: a\nlet a = unsafe { b };\nlet c = unsafe { d };"),
            1,
            "one word, two blocks"
        );
        assert_eq!(n("device/block.rs", "// SAFETY: sent whole\n#[allow(x)]\nunsafe impl Send for B {}"), 0);
        assert_eq!(n("device/block.rs", "unsafe impl Send for B {}"), 1);
        assert_eq!(n("ops/relu.rs", "#![allow(unsafe_code)] // unsafe\nlet s = \"unsafe\";"), 0);
    }

    #[test]
    fn long_functions_are_counted() {
        let body =
            |n: usize| format!("fn short() {{}}\nfn f(x: [u8; 2]) -> u8 {{\n{}}}\n", "    x;\n".repeat(n));
        assert!(long_functions(&Source::new(&body(FUNCTION - 2))).is_empty());
        assert_eq!(long_functions(&Source::new(&body(FUNCTION - 1))), [("f".to_string(), FUNCTION + 1)]);
    }
}

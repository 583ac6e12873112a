//! The map of the code, and for each chapter the place on it: the table of `src/lib.rs`, and what the pages show and speak of.

use super::Figures;
use crate::error::{Error, Result};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::Path;

/// A row of the table: rank, modules, what each holds.
struct Row {
    rank: String,
    modules: Vec<(String, String)>,
}

/// A page that has a place: title, file without its ending, modules that it shows code of or speaks of.
struct Chapter {
    title: String,
    name: String,
    modules: BTreeSet<String>,
}

/// `code_map.md`, and `here_NAME.md` for every chapter that shows code.
pub(super) fn figures(book: &Path) -> Result<Figures> {
    let rows = rows(&read(&book.join("../src/lib.rs"))?);
    let known: BTreeSet<&str> = rows.iter().flat_map(|r| &r.modules).map(|(name, _)| name.as_str()).collect();
    let mut chapters = Vec::new();
    let pages = listed(&read(&book.join("src/SUMMARY.md"))?);
    // The page of the map itself is nowhere on it.
    for (title, name) in pages.into_iter().filter(|(_, name)| name != "code") {
        let modules = modules_of(&read(&book.join(format!("src/{name}.md")))?, &known);
        chapters.push(Chapter { title, name, modules });
    }
    chapters.retain(|c| !c.modules.is_empty());
    let mut all = Figures::new();
    all.insert("code_map.md".into(), table(&rows, &chapters));
    for chapter in &chapters {
        all.insert(format!("here_{}.md", chapter.name), here(&rows, chapter));
    }
    Ok(all)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|e| Error::io(path, e))
}

/// Rows `//! | 4 | [`kernel`](…), … | what it holds; … |`.
fn rows(lib: &str) -> Vec<Row> {
    let cells = lib.lines().filter_map(|l| l.strip_prefix("//! | ")).map(|l| l.trim_end_matches(" |"));
    let rows = cells.filter_map(|row| {
        let mut cells = row.split(" | ");
        let (rank, modules, holds) = (cells.next()?, cells.next()?, cells.next()?);
        rank.parse::<u32>().ok()?;
        let names = modules.split(", ").filter_map(|m| m.split('`').nth(1)).map(String::from);
        let holds: Vec<&str> = holds.split("; ").collect();
        // One thing that a row of one module holds may have a semicolon of its own.
        let names: Vec<String> = names.collect();
        let of = |i: usize| {
            if names.len() == 1 { holds.join("; ") } else { (*holds.get(i).unwrap_or(&"")).into() }
        };
        let modules = names.iter().enumerate().map(|(i, name)| (name.clone(), of(i))).collect();
        Some(Row { rank: rank.into(), modules })
    });
    rows.collect()
}

/// Titles and names of the pages in reading order.
fn listed(summary: &str) -> Vec<(String, String)> {
    let link = |line: &str| {
        let (title, rest) = line.split_once('[')?.1.split_once("](")?;
        Some((title.into(), rest.split_once(".md)")?.0.into()))
    };
    summary.lines().filter_map(link).collect()
}

/// Modules whose files a page includes or names.
fn modules_of(page: &str, known: &BTreeSet<&str>) -> BTreeSet<String> {
    let after =
        page.split("src/").skip(1).map(|rest| rest.split(['/', '.', '`', ')', ' ']).next().unwrap_or(""));
    after.filter(|name| known.contains(name)).map(String::from).collect()
}

/// The whole map: every module with what it holds and the chapters that go there.
fn table(rows: &[Row], chapters: &[Chapter]) -> String {
    let mut text = String::from("| rank | module | what it holds | chapters |\n|--:|---|---|---|\n");
    for row in rows {
        for (i, (name, holds)) in row.modules.iter().enumerate() {
            let there = chapters.iter().filter(|c| c.modules.contains(name));
            let there: Vec<String> = there.map(|c| format!("[{}]({}.md)", c.title, c.name)).collect();
            let rank = if i == 0 { &row.rank } else { "" };
            let _ = writeln!(text, "| {rank} | `src/{name}` | {holds} | {} |", there.join(", "));
        }
    }
    text
}

/// The modules from the lowest rank up, with those of one chapter marked.
fn here(rows: &[Row], chapter: &Chapter) -> String {
    let mut text = String::from("<p class=\"here\"><a href=\"code.html\">You are here</a>:");
    for row in rows {
        text += " <span>";
        for (i, (name, holds)) in row.modules.iter().enumerate() {
            let gap = if i == 0 { "" } else { " " };
            let holds = holds.replace('"', "");
            let _ = match chapter.modules.contains(name) {
                true => write!(text, "{gap}<b title=\"{holds}\">{name}</b>"),
                false => write!(text, "{gap}<i title=\"{holds}\">{name}</i>"),
            };
        }
        text += "</span>";
    }
    text + "</p>\n"
}

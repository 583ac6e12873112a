//! Rust text as the architecture test reads it: comments and strings blanked, so that a word in them is no code.

/// One file: the text as it is, and its code with comments, strings and character literals as blanks (line for line).
pub(crate) struct Source {
    pub(crate) text: String,
    pub(crate) code: String,
}

impl Source {
    pub(crate) fn new(text: &str) -> Source {
        Source { text: text.into(), code: blank(text) }
    }

    /// The code without the modules that only tests see.
    pub(crate) fn product(&self) -> String {
        let mut code = self.code.clone();
        while let Some(at) = code.find("#[cfg(test)]") {
            let end = block_end(&code, at).unwrap_or(code.len());
            let gap: String = code[at..end].chars().map(|c| if c == '\n' { c } else { ' ' }).collect();
            code.replace_range(at..end, &gap);
        }
        code
    }
}

/// Number of the line that holds byte `at`, from 1.
pub(crate) fn line_of(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count() + 1
}

/// True for a character of a name.
pub(crate) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Positions at which `word` stands as a whole word.
pub(crate) fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(word)
        .map(|(at, _)| at)
        .filter(move |&at| !code[..at].ends_with(is_word) && !code[at + word.len()..].starts_with(is_word))
}

/// End of the item that starts at `at`: behind its block, or behind the `;` where it has none.
pub(crate) fn block_end(code: &str, at: usize) -> Option<usize> {
    let (mut depth, mut brackets) = (0usize, 0i32);
    for (i, c) in code[at..].char_indices() {
        match c {
            '(' | '[' => brackets += 1,
            ')' | ']' => brackets -= 1,
            '{' => depth += 1,
            '}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return Some(at + i + 1);
                }
            }
            ';' if depth == 0 && brackets == 0 => return Some(at + i + 1),
            _ => {}
        }
    }
    None
}

fn blank(text: &str) -> String {
    let c: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut i = 0;
    while i < c.len() {
        let n = span(&c, i);
        if n == 0 {
            // Every character one byte wide, so that positions in the code are positions of characters.
            out.push(if c[i].is_ascii() { c[i] } else { '_' });
            i += 1;
        } else {
            c[i..i + n].iter().for_each(|&c| out.push(if c == '\n' { '\n' } else { ' ' }));
            i += n;
        }
    }
    out
}

/// Length of the comment, string or character literal at `i`; 0 when there is none.
fn span(c: &[char], i: usize) -> usize {
    let starts = |s: &str| s.chars().enumerate().all(|(k, x)| c.get(i + k) == Some(&x));
    let until = |from: usize, stop: &dyn Fn(usize) -> Option<usize>| {
        (from..c.len()).find_map(stop).unwrap_or(c.len()) - i
    };
    if starts("//") {
        return until(i, &|k| (c[k] == '\n').then_some(k));
    }
    if starts("/*") {
        let mut depth = 0;
        for k in i..c.len() {
            match (c[k], c.get(k + 1)) {
                ('/', Some('*')) => depth += 1,
                ('*', Some('/')) => depth -= 1,
                _ => continue,
            }
            if depth == 0 {
                return k + 2 - i;
            }
        }
        return c.len() - i;
    }
    let inside_name = i > 0 && is_word(c[i - 1]);
    if !inside_name && (c[i] == 'r' || starts("br") || starts("cr")) {
        let from = i + if c[i] == 'r' { 1 } else { 2 };
        let hashes = c[from..].iter().take_while(|&&x| x == '#').count();
        if c.get(from + hashes) == Some(&'"') {
            let closes = |k: usize| {
                c[k] == '"' && c[k + 1..].iter().take(hashes).filter(|&&x| x == '#').count() == hashes
            };
            return until(from + hashes + 1, &|k| closes(k).then_some(k + 1 + hashes));
        }
    }
    if c[i] == '"' {
        let mut k = i + 1;
        while k < c.len() && c[k] != '"' {
            k += if c[k] == '\\' { 2 } else { 1 };
        }
        return (k + 1).min(c.len()) - i;
    }
    // 'x' and '\n' are literals; 'x without the closing quote is a lifetime.
    if c[i] == '\'' {
        if c.get(i + 1) == Some(&'\\') {
            return until(i + 3, &|k| (c[k] == '\'').then_some(k + 1));
        }
        if c.get(i + 2) == Some(&'\'') {
            return 3;
        }
    }
    0
}

#[test]
fn comments_and_strings_are_no_code() {
    let s = Source::new(
        "a // crate::x\nb /* crate::y /* nested */ */ c \"crate::z \\\" \" r#\"crate::\"w\"# d 'x' '\\'' <'t> é",
    );
    let words: Vec<&str> = s.code.split_whitespace().collect();
    assert_eq!(words, ["a", "b", "c", "d", "<'t>", "_"]);
    assert_eq!(s.code.lines().count(), 2);
    assert_eq!(Source::new("let for_r = \"x\";").code, "let for_r =    ;");
}

#[test]
fn test_modules_are_no_product() {
    let s = Source::new(
        "use a;\n#[cfg(test)]\nmod tests {\n  fn f() { use b; }\n}\nuse c;\n#[cfg(test)]\nuse d;\nuse e;",
    );
    let left: Vec<String> = s.product().split_whitespace().map(String::from).collect();
    assert_eq!(left, ["use", "a;", "use", "c;", "use", "e;"]);
    assert_eq!(s.product().lines().count(), 9);
}

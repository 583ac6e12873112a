//! Text to tokens. PTX is regular enough for one pass over bytes: words, dotted suffixes, numbers, strings, punctuation.

use std::ops::Range;

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A name: `add`, `%r1`, `$L__BB0_2`, `_`.
    Word,
    /// A dot and what hangs on it: `.global`, `.L2::128B`, `.x`.
    Suffix,
    /// An integer or float literal, as written.
    Number,
    /// Text in double quotes.
    Text,
    /// One character of punctuation.
    Mark(u8),
    /// The end.
    End,
}

/// A token: what it is and the bytes it covers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) start: u32,
    pub(super) end: u32,
}

impl Token {
    pub(super) fn range(&self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// Cuts text into tokens, one at a time.
pub(super) struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
}

/// Where and why text is no token.
pub(super) type Bad = (u32, &'static str);

const fn classes() -> [u8; 256] {
    let mut class = [0; 256];
    let mut c = 0;
    while c < 256 {
        let b = c as u8;
        class[c] = match b {
            b'0'..=b'9' => WORD | DIGIT,
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'$' => WORD | START,
            b'%' => START | WORD,
            b' ' | b'\t' | b'\r' | b'\n' | 0x0b | 0x0c => SPACE,
            _ => 0,
        };
        c += 1;
    }
    class
}
const WORD: u8 = 1;
const START: u8 = 2;
const DIGIT: u8 = 4;
const SPACE: u8 = 8;
static CLASS: [u8; 256] = classes();

fn is(b: u8, class: u8) -> bool {
    CLASS[b as usize] & class != 0
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Lexer<'a> {
        Lexer { text: text.as_bytes(), at: 0 }
    }

    /// Goes on from byte `at`.
    pub(super) fn jump(&mut self, at: usize) {
        self.at = at;
    }

    fn peek(&self, ahead: usize) -> u8 {
        self.text.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn skip_blank(&mut self) -> Result<(), Bad> {
        loop {
            while self.at < self.text.len() && is(self.text[self.at], SPACE) {
                self.at += 1;
            }
            match (self.peek(0), self.peek(1)) {
                (b'/', b'/') => {
                    let rest = &self.text[self.at..];
                    self.at += rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len());
                }
                (b'/', b'*') => {
                    let rest = &self.text[self.at + 2..];
                    match rest.windows(2).position(|w| w == b"*/") {
                        Some(n) => self.at += n + 4,
                        None => return Err((self.at as u32, "this comment is never closed")),
                    }
                }
                _ => return Ok(()),
            }
        }
    }

    fn run(&mut self, class: u8) {
        while self.at < self.text.len() && is(self.text[self.at], class) {
            self.at += 1;
        }
    }

    /// The next token.
    pub(super) fn next(&mut self) -> Result<Token, Bad> {
        self.skip_blank()?;
        let start = self.at;
        let kind = match self.peek(0) {
            0 if start >= self.text.len() => Kind::End,
            b'.' if is(self.peek(1), WORD) => {
                self.at += 1;
                self.run(WORD);
                while self.peek(0) == b':' && self.peek(1) == b':' && is(self.peek(2), WORD) {
                    self.at += 2;
                    self.run(WORD);
                }
                Kind::Suffix
            }
            b'"' => {
                self.at += 1;
                while self.peek(0) != b'"' {
                    if self.at >= self.text.len() || self.peek(0) == b'\n' {
                        return Err((start as u32, "this string is never closed"));
                    }
                    self.at += if self.peek(0) == b'\\' { 2 } else { 1 };
                }
                self.at += 1;
                Kind::Text
            }
            b if is(b, DIGIT) => {
                self.number();
                Kind::Number
            }
            b if is(b, START) => {
                self.at += 1;
                self.run(WORD);
                Kind::Word
            }
            b if b.is_ascii_graphic() => {
                self.at += 1;
                Kind::Mark(b)
            }
            _ => return Err((start as u32, "this is no character of PTX")),
        };
        self.at = self.at.min(self.text.len());
        Ok(Token { kind, start: start as u32, end: self.at as u32 })
    }

    /// `12`, `0x1f`, `0f3F800000`, `017U`, `1.5`, `2.5e-3`.
    fn number(&mut self) {
        let start = self.at;
        self.run(WORD);
        let hex = matches!(self.text.get(start + 1), Some(b'x' | b'X' | b'f' | b'F' | b'd' | b'D'));
        if hex && self.text[start] == b'0' {
            return;
        }
        if self.peek(0) == b'.' && is(self.peek(1), DIGIT) {
            self.at += 1;
            self.run(WORD);
        }
        let sign = matches!(self.peek(0), b'-' | b'+');
        if sign && matches!(self.text[self.at - 1], b'e' | b'E') && is(self.peek(1), DIGIT) {
            self.at += 1;
            self.run(DIGIT);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<&str> {
        let mut lexer = Lexer::new(text);
        let mut found = Vec::new();
        loop {
            let t = lexer.next().unwrap();
            if t.kind == Kind::End {
                return found;
            }
            found.push(&text[t.range()]);
        }
    }

    #[test]
    fn an_instruction_in_all_its_parts() {
        assert_eq!(
            words(
                "@!%p1 ld.global.L2::128B.v2.f32 {%f1,_}, [%rd1+-4]; // x\n$L:/*\n*/mov.f32 %a, 0f3F800000;"
            ),
            [
                "@",
                "!",
                "%p1",
                "ld",
                ".global",
                ".L2::128B",
                ".v2",
                ".f32",
                "{",
                "%f1",
                ",",
                "_",
                "}",
                ",",
                "[",
                "%rd1",
                "+",
                "-",
                "4",
                "]",
                ";",
                "$L",
                ":",
                "mov",
                ".f32",
                "%a",
                ",",
                "0f3F800000",
                ";"
            ]
        );
        assert_eq!(words("1.5 2e-3 0x1e-3 7U"), ["1.5", "2e-3", "0x1e", "-", "3", "7U"]);
    }

    #[test]
    fn what_is_never_closed() {
        assert_eq!(Lexer::new("  /* a").next().unwrap_err().0, 2);
        assert_eq!(Lexer::new("\"a\nb\"").next().unwrap_err().0, 0);
        assert!(Lexer::new("\u{e9}").next().is_err());
        assert!(Lexer::new("\"\\").next().is_err());
    }
}

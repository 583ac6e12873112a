//! Tokens to tree: one function a construct, one token of look-ahead.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | the parser's state, and the directives of a module |
//! | `lex.rs` | text to tokens |
//! | `declare.rs` | variables, registers, parameters, initial values |
//! | `body.rs` | functions, statements, instructions |
//! | `operand.rs` | operands and numbers |

mod body;
mod declare;
mod lex;
mod operand;

use super::ast::Tree;
use super::text::{Read, Wrong, wrong};
use lex::{Kind, Lexer, Token};

/// Deepest nesting of braces: more than any compiler writes, and little enough for a thread's stack.
const DEEPEST: u32 = 100;

/// Reads a source file.
pub(super) fn parse(text: &str) -> Read<Tree<'_>> {
    if text.len() > u32::MAX as usize / 2 {
        return wrong(0, "the text is longer than 2 GiB");
    }
    let mut p = Parser { text, lexer: Lexer::new(text), token: END, depth: 0 };
    p.advance()?;
    p.module()
}

const END: Token = Token { kind: Kind::End, start: 0, end: 0 };

struct Parser<'a> {
    text: &'a str,
    lexer: Lexer<'a>,
    token: Token,
    depth: u32,
}

impl<'a> Parser<'a> {
    fn advance(&mut self) -> Read<Token> {
        let next = self.lexer.next().map_err(|(at, what)| Wrong { at, what: what.into() })?;
        Ok(std::mem::replace(&mut self.token, next))
    }
    fn at(&self) -> u32 {
        self.token.start
    }
    fn of(&self, t: Token) -> &'a str {
        &self.text[t.range()]
    }
    /// The current token's text, for messages.
    fn seen(&self) -> String {
        match self.token.kind {
            Kind::End => "the end of the file".into(),
            _ => format!("`{}`", self.of(self.token)),
        }
    }
    fn wants<T>(&self, what: &str) -> Read<T> {
        wrong(self.at(), format!("{} stands where {what} is wanted", self.seen()))
    }
    fn is(&self, mark: u8) -> bool {
        self.token.kind == Kind::Mark(mark)
    }
    /// Takes `mark` if it is next.
    fn take(&mut self, mark: u8) -> Read<bool> {
        let found = self.is(mark);
        if found {
            self.advance()?;
        }
        Ok(found)
    }
    fn expect(&mut self, mark: u8) -> Read<()> {
        if self.take(mark)? { Ok(()) } else { self.wants(&format!("`{}`", mark as char)) }
    }
    fn word(&mut self, what: &str) -> Read<&'a str> {
        if self.token.kind != Kind::Word {
            return self.wants(what);
        }
        let t = self.advance()?;
        Ok(self.of(t))
    }
    /// The next token if it is a suffix, without its dot and without taking it.
    fn suffix(&self) -> Option<&'a str> {
        (self.token.kind == Kind::Suffix).then(|| &self.of(self.token)[1..])
    }
    /// Takes `.name` if it is next.
    fn take_suffix(&mut self, name: &str) -> Read<bool> {
        let found = self.suffix() == Some(name);
        if found {
            self.advance()?;
        }
        Ok(found)
    }
    fn integer(&mut self, what: &str) -> Read<u64> {
        let at = self.at();
        match self.literal()? {
            super::ast::Literal::Int(v) => Ok(v),
            _ => wrong(at, format!("{what} is no integer")),
        }
    }
    fn small(&mut self, what: &str) -> Read<u32> {
        let at = self.at();
        let v = self.integer(what)?;
        u32::try_from(v).or_else(|_| wrong(at, format!("{what} of {v} is too large")))
    }
    /// Skips what stands to the end of the line: `.loc` and `.file` end with it.
    fn skip_line(&mut self) -> Read<()> {
        let from = self.token.start as usize;
        let rest = &self.text.as_bytes()[from..];
        self.lexer.jump(from + rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len()));
        self.advance()?;
        Ok(())
    }
    fn skip_to_semicolon(&mut self) -> Read<()> {
        while !self.take(b';')? {
            if self.token.kind == Kind::End {
                return self.wants("`;`");
            }
            self.advance()?;
        }
        Ok(())
    }
    /// `.section .debug_str { … }`
    fn skip_section(&mut self) -> Read<()> {
        while !self.is(b'{') {
            if self.token.kind == Kind::End {
                return self.wants("`{`");
            }
            self.advance()?;
        }
        let mut depth = 0u32;
        loop {
            match self.token.kind {
                Kind::Mark(b'{') => depth += 1,
                Kind::Mark(b'}') => depth -= 1,
                Kind::End => return self.wants("`}`"),
                _ => {}
            }
            self.advance()?;
            if depth == 0 {
                return Ok(());
            }
        }
    }
    /// Runs `f` one brace deeper.
    fn deeper<T>(&mut self, f: impl FnOnce(&mut Self) -> Read<T>) -> Read<T> {
        if self.depth == DEEPEST {
            return wrong(self.at(), format!("braces are nested more than {DEEPEST} deep"));
        }
        self.depth += 1;
        let found = f(self);
        self.depth -= 1;
        found
    }

    fn module(&mut self) -> Read<Tree<'a>> {
        let mut tree = Tree::default();
        while self.token.kind != Kind::End {
            let Some(directive) = self.suffix() else { return self.wants("a directive") };
            match directive {
                "version" => {
                    self.advance()?;
                    tree.version = self.version()?;
                }
                "target" => {
                    self.advance()?;
                    tree.target = self.word("a target such as sm_80")?;
                    while self.take(b',')? {
                        self.word("a target option")?;
                    }
                }
                "address_size" => {
                    self.advance()?;
                    let at = self.at();
                    if self.integer("the address size")? != 64 {
                        return wrong(at, "only addresses of 64 bits are supported");
                    }
                }
                "file" | "loc" => self.skip_line()?,
                "section" => self.skip_section()?,
                "pragma" | "alias" => self.skip_to_semicolon()?,
                _ => self.declaration(&mut tree)?,
            }
        }
        if tree.version == (0, 0) {
            return wrong(0, "there is no .version directive");
        }
        Ok(tree)
    }

    fn version(&mut self) -> Read<(u32, u32)> {
        let (at, t) = (self.at(), self.advance()?);
        let parts = self.of(t).split_once('.').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        match parts {
            Some(v) => Ok(v),
            None => wrong(at, format!("`{}` is no version such as 7.0", self.of(t))),
        }
    }

    /// A function or a variable of module scope, after its linkage.
    fn declaration(&mut self, tree: &mut Tree<'a>) -> Read<()> {
        let mut external = false;
        loop {
            match self.suffix() {
                Some("visible" | "weak" | "common") => {}
                Some("extern") => external = true,
                Some("entry" | "func") => {
                    let f = self.function()?;
                    tree.functions.push(f);
                    return Ok(());
                }
                Some("global" | "const" | "shared") => return self.variables(external, &mut tree.variables),
                _ => return self.wants("a function or a variable"),
            }
            self.advance()?;
        }
    }
}

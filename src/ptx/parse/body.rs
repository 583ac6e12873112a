//! Functions, statements, instructions.

use super::super::ast::{Function, Instruction, Statement};
use super::super::text::{Read, wrong};
use super::Parser;
use super::lex::Kind;

/// Instructions whose operands are written in a way of their own.
const TEXTURE: &[&str] = &["tex", "tld4", "txq", "istypep", "suld", "sust", "sured", "suq"];

impl<'a> Parser<'a> {
    /// `.entry name (…) … { … }` or `.func (…) name (…) … { … }`; the current token is `.entry` or `.func`.
    pub(super) fn function(&mut self) -> Read<Function<'a>> {
        let entry = self.take_suffix("entry")?;
        if !entry {
            self.advance()?;
        }
        let returns = if !entry && self.is(b'(') { self.params()? } else { Vec::new() };
        let at = self.at();
        let name = self.word("the name of a function")?;
        let params = if self.is(b'(') { self.params()? } else { Vec::new() };
        let (required_block, most_threads, body) = (None, None, None);
        let mut f = Function { at, name, entry, returns, params, required_block, most_threads, body };
        while let Some(directive) = self.suffix() {
            match directive {
                "loc" => self.skip_line()?,
                "pragma" => self.skip_to_semicolon()?,
                _ => {
                    self.advance()?;
                    self.tuning(directive, &mut f)?;
                }
            }
        }
        if self.take(b';')? {
            return Ok(f);
        }
        self.expect(b'{')?;
        f.body = Some(self.block()?);
        Ok(f)
    }

    /// `.reqntid 16, 16` and its kin.
    fn tuning(&mut self, directive: &str, f: &mut Function<'a>) -> Read<()> {
        let mut numbers = [1; 3];
        let mut n = 0;
        while self.token.kind == Kind::Number && n < 3 {
            numbers[n] = self.small("a number of threads")?;
            n += 1;
            if n < 3 && !self.take(b',')? {
                break;
            }
        }
        match directive {
            "reqntid" => f.required_block = Some(numbers),
            "maxntid" => f.most_threads = Some(numbers),
            "minnctapersm"
            | "maxnctapersm"
            | "maxnreg"
            | "noreturn"
            | "abi_preserve"
            | "abi_preserve_control" => {}
            "reqnctapercluster" | "maxclusterrank" | "explicitcluster" | "blocksareclusters"
                if numbers == [1; 3] => {}
            _ => return self.wants(&format!("a body (`.{directive}` is not supported)")),
        }
        Ok(())
    }

    /// Statements up to the closing brace, which is taken.
    fn block(&mut self) -> Read<Vec<Statement<'a>>> {
        self.deeper(|p| {
            let mut body = Vec::new();
            while !p.take(b'}')? {
                p.statement(&mut body)?;
            }
            Ok(body)
        })
    }

    /// `.pragma "…";`, of which one kind says something about what a program does.
    fn pragma(&mut self) -> Read<Option<Statement<'a>>> {
        self.advance()?;
        let text = if self.token.kind == Kind::Text { self.of(self.token).trim_matches('"') } else { "" };
        self.skip_to_semicolon()?;
        let mask = text.strip_prefix("used_bytes_mask ").map(str::trim);
        let number = |m: &str| match m.strip_prefix("0x") {
            Some(hex) => u32::from_str_radix(hex, 16).ok(),
            None => m.parse().ok(),
        };
        Ok(mask.and_then(number).map(Statement::Used))
    }

    fn statement(&mut self, body: &mut Vec<Statement<'a>>) -> Read<()> {
        match self.token.kind {
            Kind::Mark(b'{') => {
                self.advance()?;
                let inner = self.block()?;
                body.push(Statement::Block(inner));
            }
            Kind::Mark(b';') => drop(self.advance()?),
            Kind::Suffix => match self.suffix().unwrap_or_default() {
                "loc" | "file" => self.skip_line()?,
                "section" => self.skip_section()?,
                "pragma" => body.extend(self.pragma()?),
                _ => {
                    let mut found = Vec::new();
                    self.variables(false, &mut found)?;
                    body.extend(found.into_iter().map(Statement::Variable));
                }
            },
            Kind::Mark(b'@') => {
                self.advance()?;
                let negated = self.take(b'!')?;
                let guard = self.word("a predicate")?;
                let at = self.at();
                let opcode = self.word("an instruction")?;
                let i = self.instruction(at, opcode, Some((guard, negated)))?;
                body.push(Statement::Instruction(i));
            }
            Kind::Word => {
                let at = self.at();
                let word = self.word("a statement")?;
                if self.take(b':')? {
                    self.labelled(word, at, body)?;
                } else {
                    let i = self.instruction(at, word, None)?;
                    body.push(Statement::Instruction(i));
                }
            }
            _ => return self.wants("a statement or `}`"),
        }
        Ok(())
    }

    /// What may follow `name:`.
    fn labelled(&mut self, name: &'a str, at: u32, body: &mut Vec<Statement<'a>>) -> Read<()> {
        match self.suffix() {
            Some("branchtargets") => {
                self.advance()?;
                let mut targets = vec![self.word("a label")?];
                while self.take(b',')? {
                    targets.push(self.word("a label")?);
                }
                self.expect(b';')?;
                body.push(Statement::Targets(name, targets));
            }
            Some("callprototype" | "calltargets") => {
                self.skip_to_semicolon()?;
                body.push(Statement::Prototype(name));
            }
            _ => body.push(Statement::Label(name, at)),
        }
        Ok(())
    }

    fn instruction(
        &mut self,
        at: u32,
        opcode: &'a str,
        guard: Option<(&'a str, bool)>,
    ) -> Read<Instruction<'a>> {
        if TEXTURE.contains(&opcode) {
            return wrong(at, format!("`{opcode}`: textures and surfaces are not supported"));
        }
        let mut suffixes = Vec::new();
        while let Some(s) = self.suffix() {
            suffixes.push(s);
            self.advance()?;
        }
        let mut operands = Vec::new();
        if !self.is(b';') {
            operands.push(self.operand()?);
            while self.take(b',')? {
                operands.push(self.operand()?);
            }
        }
        self.expect(b';')?;
        Ok(Instruction { at, guard, opcode, suffixes, operands })
    }
}

//! Variables, registers, parameters and initial values.

use super::super::ast::{Init, Literal, Variable};
use super::super::text::{Read, wrong};
use super::super::types::{Space, Type};
use super::Parser;
use super::lex::Kind;

impl<'a> Parser<'a> {
    /// `.space … .type name, name, …;` The current token is the space.
    pub(super) fn variables(&mut self, external: bool, into: &mut Vec<Variable<'a>>) -> Read<()> {
        let head = self.head(external)?;
        loop {
            into.push(self.named(&head)?);
            if !self.take(b',')? {
                return self.expect(b';');
            }
        }
    }

    /// `(.param .u64 a, .param .align 4 .b8 b[12])`
    pub(super) fn params(&mut self) -> Read<Vec<Variable<'a>>> {
        let mut found = Vec::new();
        self.expect(b'(')?;
        if self.take(b')')? {
            return Ok(found);
        }
        loop {
            let head = self.head(false)?;
            found.push(self.named(&head)?);
            if !self.take(b',')? {
                self.expect(b')')?;
                return Ok(found);
            }
        }
    }

    /// Everything before the name: space, alignment, type.
    fn head(&mut self, external: bool) -> Read<Variable<'a>> {
        let at = self.at();
        let Some(space) = self.suffix().and_then(Space::named) else { return self.wants("a state space") };
        self.advance()?;
        let (mut ty, mut lanes, mut align, mut pointer) = (None, 1, 0, false);
        while let Some(s) = self.suffix() {
            let at = self.at();
            self.advance()?;
            match s {
                "align" if pointer => drop(self.small("an alignment")?),
                "align" => {
                    align = self.small("an alignment")?;
                    if !align.is_power_of_two() {
                        return wrong(at, format!("an alignment of {align} is no power of two"));
                    }
                }
                "v2" => lanes = 2,
                "v4" => lanes = 4,
                "ptr" => pointer = true,
                "attribute" => {
                    while !self.take(b')')? {
                        if self.token.kind == Kind::End {
                            return self.wants("`)`");
                        }
                        self.advance()?;
                    }
                }
                _ if pointer && Space::named(s).is_some() => {}
                _ => match Type::named(s) {
                    Some(t) => ty = Some(t),
                    None => return wrong(at, format!("`.{s}` is no type")),
                },
            }
        }
        let Some(ty) = ty else { return self.wants("a type such as .u32") };
        if align == 0 {
            align = ty.bytes() * lanes;
        }
        let (name, family, extents, init) = ("", None, Vec::new(), Vec::new());
        Ok(Variable { at, space, ty, lanes, align, name, family, extents, init, external })
    }

    /// The name, and what follows it: `%r<5>`, `a[4][2]`, `= {1, 2}`.
    fn named(&mut self, head: &Variable<'a>) -> Read<Variable<'a>> {
        let mut v = head.clone();
        v.at = self.at();
        v.name = self.word("a name")?;
        if self.take(b'<')? {
            v.family = Some(self.small("the number of registers")?);
            self.expect(b'>')?;
        }
        while self.take(b'[')? {
            v.extents.push(if self.is(b']') { 0 } else { self.integer("an extent")? });
            self.expect(b']')?;
        }
        if self.take(b'=')? {
            self.initial(&mut v.init)?;
            let per = v.lanes as usize;
            if let Some(open) = v.extents.first_mut().filter(|e| **e == 0) {
                *open = (v.init.len() / per) as u64;
            }
        }
        Ok(v)
    }

    fn initial(&mut self, into: &mut Vec<Init<'a>>) -> Read<()> {
        match self.token.kind {
            Kind::Mark(b'{') => {
                self.advance()?;
                while !self.take(b'}')? {
                    self.deeper(|p| p.initial(into))?;
                    if !self.is(b'}') {
                        self.expect(b',')?;
                    }
                }
                return Ok(());
            }
            Kind::Text => {
                let t = self.advance()?;
                let quoted = self.of(t);
                into.push(Init::Text(&quoted[1..quoted.len() - 1]));
            }
            Kind::Word => {
                let at = self.at();
                let word = self.word("a name")?;
                let generic = word == "generic" && self.take(b'(')?;
                let name = if generic { self.word("a variable")? } else { word };
                if generic {
                    self.expect(b')')?;
                }
                let plus = if self.take(b'+')? { self.integer("an offset")? as i64 } else { 0 };
                into.push(Init::Address(name, plus, at));
            }
            _ => {
                let value: Literal = self.literal()?;
                into.push(Init::Value(value));
            }
        }
        Ok(())
    }
}

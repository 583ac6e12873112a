//! Operands and numbers.

use super::super::ast::{Literal, Operand};
use super::super::text::{Read, wrong};
use super::Parser;
use super::lex::Kind;

impl<'a> Parser<'a> {
    pub(super) fn operand(&mut self) -> Read<Operand<'a>> {
        let at = self.at();
        match self.token.kind {
            Kind::Mark(b'{') => {
                self.advance()?;
                Ok(Operand::Vector(self.several(b'}')?, at))
            }
            Kind::Mark(b'(') => {
                self.advance()?;
                Ok(Operand::List(self.several(b')')?, at))
            }
            Kind::Mark(b'[') => {
                self.advance()?;
                let found = self.address(at)?;
                self.expect(b']')?;
                Ok(found)
            }
            Kind::Mark(b'!') => {
                self.advance()?;
                Ok(Operand::Not(self.word("a predicate")?, at))
            }
            Kind::Word => self.name(at),
            Kind::Number | Kind::Mark(b'-' | b'+') => Ok(Operand::Value(self.literal()?, at)),
            _ => self.wants("an operand"),
        }
    }

    fn several(&mut self, close: u8) -> Read<Vec<Operand<'a>>> {
        self.deeper(|p| {
            let mut found = Vec::new();
            if p.take(close)? {
                return Ok(found);
            }
            loop {
                found.push(p.operand()?);
                if !p.take(b',')? {
                    p.expect(close)?;
                    return Ok(found);
                }
            }
        })
    }

    fn name(&mut self, at: u32) -> Read<Operand<'a>> {
        let name = self.word("a name")?;
        match self.token.kind {
            Kind::Suffix => {
                let part = self.suffix().unwrap_or_default();
                self.advance()?;
                Ok(Operand::Part(name, part, at))
            }
            Kind::Mark(b'|') => {
                self.advance()?;
                Ok(Operand::Pair(name, self.word("a second destination")?, at))
            }
            Kind::Mark(b'+' | b'-') => Ok(Operand::Offset(name, self.offset()?, at)),
            Kind::Mark(b'[') => {
                self.advance()?;
                let index = self.integer("the number of an element")? as i64;
                self.expect(b']')?;
                Ok(Operand::Element(name, index, at))
            }
            _ => Ok(Operand::Name(name, at)),
        }
    }

    /// What stands in brackets.
    fn address(&mut self, at: u32) -> Read<Operand<'a>> {
        if self.token.kind == Kind::Word {
            let base = self.word("an address")?;
            let offset = if self.is(b'+') || self.is(b'-') { self.offset()? } else { 0 };
            return Ok(Operand::Address(Some(base), offset, at));
        }
        if matches!(self.token.kind, Kind::Number | Kind::Mark(b'-')) {
            return Ok(Operand::Address(None, self.integer("an address")? as i64, at));
        }
        self.wants("an address")
    }

    /// `+4`, `-4`, `+-4`, `+8+4`
    fn offset(&mut self) -> Read<i64> {
        let mut sum = 0i64;
        while self.is(b'+') || self.is(b'-') {
            let minus = self.is(b'-');
            self.advance()?;
            let v = self.integer("an offset")? as i64;
            sum = if minus { sum.wrapping_sub(v) } else { sum.wrapping_add(v) };
        }
        Ok(sum)
    }

    /// A number with its sign.
    pub(super) fn literal(&mut self) -> Read<Literal> {
        let at = self.at();
        let mut negative = false;
        while self.is(b'-') || self.is(b'+') {
            negative ^= self.is(b'-');
            self.advance()?;
        }
        if self.token.kind != Kind::Number {
            return self.wants("a number");
        }
        let t = self.advance()?;
        let text = self.of(t);
        let Some(v) = number(text) else { return wrong(at, format!("`{text}` is no number")) };
        Ok(match v {
            Literal::Int(v) if negative => Literal::Int(v.wrapping_neg()),
            Literal::F32(b) if negative => Literal::F32(b ^ 1 << 31),
            Literal::F64(v) if negative => Literal::F64(-v),
            v => v,
        })
    }
}

/// `12`, `12U`, `0x1f`, `017`, `0b101`, `0f3F800000`, `0d3FF0000000000000`, `1.5e-3`.
fn number(text: &str) -> Option<Literal> {
    let lower = text.to_ascii_lowercase();
    let whole = lower.strip_suffix('u').unwrap_or(&lower);
    let based = |digits: &str, base| u64::from_str_radix(digits, base).ok().map(Literal::Int);
    if let Some(hex) = lower.strip_prefix("0f") {
        return (hex.len() == 8).then(|| u32::from_str_radix(hex, 16).ok().map(Literal::F32))?;
    }
    if let Some(hex) = lower.strip_prefix("0d") {
        return (hex.len() == 16)
            .then(|| u64::from_str_radix(hex, 16).ok().map(|b| Literal::F64(f64::from_bits(b))))?;
    }
    if let Some(hex) = whole.strip_prefix("0x") {
        return based(hex, 16);
    }
    if let Some(bits) = whole.strip_prefix("0b") {
        return based(bits, 2);
    }
    if whole.len() > 1 && whole.starts_with('0') && whole.bytes().all(|b| b.is_ascii_digit()) {
        return based(&whole[1..], 8);
    }
    if whole.bytes().all(|b| b.is_ascii_digit()) {
        return whole.parse().ok().map(Literal::Int);
    }
    lower.parse().ok().filter(|_| !lower.ends_with('.')).map(Literal::F64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_kind() {
        assert_eq!(number("0xFFFFFFFFFFFFFFFF"), Some(Literal::Int(u64::MAX)));
        assert_eq!(number("017"), Some(Literal::Int(15)));
        assert_eq!(number("0b101U"), Some(Literal::Int(5)));
        assert_eq!(number("0f3f800000"), Some(Literal::F32(0x3f80_0000)));
        assert_eq!(number("0dBFF0000000000000"), Some(Literal::F64(-1.0)));
        assert_eq!(number("2.5e-1"), Some(Literal::F64(0.25)));
        for bad in ["0x", "08", "0f12", "12ab", "18446744073709551616", "0b2", "1e"] {
            assert_eq!(number(bad), None, "{bad}");
        }
    }
}

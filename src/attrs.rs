//! Attributes of ops and optimizers by name and as text, the way that samples, configs and the command line give them.

use crate::error::{Error, Result};

/// What values an attribute takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An integer.
    Int,
    /// A real number.
    Real,
    /// `true` or `false`.
    Bool,
    /// Integers separated by commas.
    Ints,
    /// A 64-bit seed.
    Word,
    /// One of these words.
    Choice(&'static [&'static str]),
}

/// Documentation of one attribute.
#[derive(Clone, Copy, Debug)]
pub struct AttrDoc {
    /// Name, as in torch where the op exists there.
    pub name: &'static str,
    /// Values.
    pub kind: Kind,
    /// Value when not given; None when it must be given.
    pub default: Option<&'static str>,
    /// One line.
    pub doc: &'static str,
}

/// The attributes of one call: each documented one has a value.
#[derive(Clone, Debug)]
pub struct Attrs {
    op: &'static str,
    values: Vec<(&'static str, String)>,
}

/// `, did you mean …` for the candidate nearest to `name`, or nothing when none is near.
pub(crate) fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> String {
    candidates
        .map(|c| (strsim::damerau_levenshtein(name, c), c))
        .min()
        .filter(|(d, c)| *d <= 2.max(c.len() / 3))
        .map(|(_, c)| format!(", did you mean `{c}`?"))
        .unwrap_or_default()
}

impl Attrs {
    /// The attributes of `op` documented by `docs`, with the given values and defaults for the rest. Unknown names, missing
    /// values and values of the wrong kind are errors.
    pub fn new<N: AsRef<str>, V: AsRef<str>>(
        op: &'static str,
        docs: &[AttrDoc],
        given: &[(N, V)],
    ) -> Result<Attrs> {
        for (name, _) in given {
            if !docs.iter().any(|d| d.name == name.as_ref()) {
                let near = nearest(name.as_ref(), docs.iter().map(|d| d.name));
                let all: Vec<&str> = docs.iter().map(|d| d.name).collect();
                let takes = if all.is_empty() { "none".into() } else { all.join(", ") };
                return Err(Error::attr(op, name.as_ref(), format!("is unknown{near}; {op} takes {takes}")));
            }
        }
        let mut values = Vec::new();
        for d in docs {
            let value =
                given.iter().rev().find(|(n, _)| n.as_ref() == d.name).map(|(_, v)| v.as_ref()).or(d.default);
            let value = value.ok_or_else(|| Error::attr(op, d.name, "must be given"))?;
            values.push((d.name, value.to_string()));
        }
        let attrs = Attrs { op, values };
        for d in docs {
            attrs.validate(d)?;
        }
        Ok(attrs)
    }

    fn validate(&self, d: &AttrDoc) -> Result<()> {
        match d.kind {
            Kind::Int => self.int(d.name).map(drop),
            Kind::Real => self.real(d.name).map(drop),
            Kind::Bool => self.flag(d.name).map(drop),
            Kind::Ints => self.ints(d.name).map(drop),
            Kind::Word => self.word(d.name).map(drop),
            Kind::Choice(all) if all.contains(&self.text(d.name)) => Ok(()),
            Kind::Choice(all) => Err(self.bad(d.name, &format!("one of {}", all.join(", ")))),
        }
    }

    fn bad(&self, name: &str, want: &str) -> Error {
        Error::attr(self.op, name, format!("is `{}`, but must be {want}", self.text(name)))
    }

    /// The attribute as text. Panics when it is not documented: a bug of the op.
    pub fn text(&self, name: &str) -> &str {
        let found = self.values.iter().find(|(n, _)| *n == name);
        found
            .map(|(_, v)| v.as_str())
            .unwrap_or_else(|| panic!("op {} documents no attribute `{name}`", self.op))
    }
    /// The attribute as an integer.
    pub fn int(&self, name: &str) -> Result<i64> {
        self.text(name).parse().map_err(|_| self.bad(name, "an integer"))
    }
    /// The attribute as an extent or count.
    pub fn size(&self, name: &str) -> Result<usize> {
        self.text(name).parse().map_err(|_| self.bad(name, "an integer, 0 or more"))
    }
    /// The attribute as a real number (`inf`, `-inf` allowed).
    pub fn real(&self, name: &str) -> Result<f64> {
        self.text(name).parse().map_err(|_| self.bad(name, "a number"))
    }
    /// The attribute as a switch.
    pub fn flag(&self, name: &str) -> Result<bool> {
        match self.text(name) {
            "true" | "True" | "1" => Ok(true),
            "false" | "False" | "0" => Ok(false),
            _ => Err(self.bad(name, "true or false")),
        }
    }
    /// The attribute as a 64-bit word.
    pub fn word(&self, name: &str) -> Result<u64> {
        self.text(name).parse().map_err(|_| self.bad(name, "an integer, 0 or more"))
    }
    /// The attribute as a list of integers: `1,2` or `[1, 2]`; empty text is the empty list.
    pub fn ints(&self, name: &str) -> Result<Vec<i64>> {
        let text = self.text(name).trim().trim_start_matches(['[', '(']).trim_end_matches([']', ')']);
        let parts = text.split(',').map(str::trim).filter(|p| !p.is_empty());
        parts.map(|p| p.parse().map_err(|_| self.bad(name, "integers separated by commas"))).collect()
    }
}

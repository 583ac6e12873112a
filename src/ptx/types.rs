//! Types and state spaces of PTX (PTX ISA 9.0, sections 5.1 and 5.2).

use std::fmt;

/// A fundamental type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "named as in PTX")]
#[rustfmt::skip]
pub enum Type {
    Pred,
    B8, B16, B32, B64, B128,
    U8, U16, U32, U64,
    S8, S16, S32, S64,
    F16, F16x2, Bf16, Bf16x2, Tf32, F32, F64,
    E4m3x2, E5m2x2,
}

/// What the bits of a type mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as in PTX")]
pub enum Class {
    Pred,
    Bits,
    Unsigned,
    Signed,
    Float,
}

const NAMES: [(Type, &str, u32); 23] = [
    (Type::Pred, "pred", 4),
    (Type::B8, "b8", 1),
    (Type::B16, "b16", 2),
    (Type::B32, "b32", 4),
    (Type::B64, "b64", 8),
    (Type::B128, "b128", 16),
    (Type::U8, "u8", 1),
    (Type::U16, "u16", 2),
    (Type::U32, "u32", 4),
    (Type::U64, "u64", 8),
    (Type::S8, "s8", 1),
    (Type::S16, "s16", 2),
    (Type::S32, "s32", 4),
    (Type::S64, "s64", 8),
    (Type::F16, "f16", 2),
    (Type::F16x2, "f16x2", 4),
    (Type::Bf16, "bf16", 2),
    (Type::Bf16x2, "bf16x2", 4),
    (Type::Tf32, "tf32", 4),
    (Type::F32, "f32", 4),
    (Type::F64, "f64", 8),
    (Type::E4m3x2, "e4m3x2", 2),
    (Type::E5m2x2, "e5m2x2", 2),
];

impl Type {
    /// The type named so (without the dot).
    pub fn named(name: &str) -> Option<Type> {
        NAMES.iter().find(|(_, n, _)| *n == name).map(|(t, ..)| *t)
    }
    fn row(self) -> &'static (Type, &'static str, u32) {
        &NAMES[self as usize]
    }
    /// Bytes of one element.
    pub fn bytes(self) -> u32 {
        self.row().2
    }
    /// Name without the dot.
    pub fn name(self) -> &'static str {
        self.row().1
    }
    /// What its bits mean.
    pub fn class(self) -> Class {
        use Type::*;
        match self {
            Pred => Class::Pred,
            B8 | B16 | B32 | B64 | B128 => Class::Bits,
            U8 | U16 | U32 | U64 => Class::Unsigned,
            S8 | S16 | S32 | S64 => Class::Signed,
            _ => Class::Float,
        }
    }
    /// True for `.s8` … `.s64`.
    pub fn is_signed(self) -> bool {
        self.class() == Class::Signed
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, ".{}", self.name())
    }
}

/// A state space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "named as in PTX")]
pub enum Space {
    Reg,
    Const,
    Global,
    Local,
    Param,
    Shared,
    Generic,
}

impl Space {
    /// The space named so (without the dot); `::cta` and the like are part of the name in PTX and mean this block here.
    pub fn named(name: &str) -> Option<Space> {
        Some(match name {
            "reg" => Space::Reg,
            "const" => Space::Const,
            "global" => Space::Global,
            "local" => Space::Local,
            "param" | "param::entry" | "param::func" => Space::Param,
            "shared" | "shared::cta" => Space::Shared,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_enum() {
        for (i, (t, name, _)) in NAMES.iter().enumerate() {
            assert_eq!(*t as usize, i, "{name}");
            assert_eq!(Type::named(name), Some(*t));
        }
    }
}

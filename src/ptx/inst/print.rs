//! `printf`: the device function `vprintf(format, arguments)`.

use crate::ptx::inst::control::told;
use crate::ptx::inst::memory::{Where, active};
use crate::ptx::run::spaces::{LOCAL, SHARED, WINDOW};
use crate::ptx::run::{Cx, Event, FaultKind, Flow, Op};
use std::sync::PoisonError;

/// Longest text that is read.
const LONGEST: usize = 4096;

/// Prints what each active lane prints. The op's list begins `2, format, arguments`: where the caller keeps the two
/// addresses in its local memory; then `1, result`.
pub(super) fn run(cx: &mut Cx<'_>, op: &Op) -> Flow {
    let base = cx.local_base;
    let (format, args) = (base + cx.listed(op, 1) as u32, base + cx.listed(op, 2) as u32);
    let result = (cx.listed(op, 3) > 0).then(|| base + cx.listed(op, 4) as u32);
    for l in active(cx.mask) {
        let (format, args) = (cx.local.load(format, 8, l), cx.local.load(args, 8, l));
        let Some(text) = text(cx, format, l) else {
            let what = format!("the format of printf at {format:#x} is no readable text");
            return cx.fail(op, FaultKind::GlobalOutOfBounds, l, format, what);
        };
        if let Some(size) = unknown_size(&text) {
            let what = format!("printf has `%{size}`, and CUDA knows the sizes h, l and ll alone");
            return cx.fail(op, FaultKind::Unsupported, l, format, what);
        }
        let line = formatted(cx, &text, args, l);
        cx.launch.printed.lock().unwrap_or_else(PoisonError::into_inner).push_str(&line);
        if let Some(at) = result {
            cx.local.store(at, 4, l, 0);
        }
    }
    if let Some(at) = result {
        told(cx, cx.mask, Event::Wrote(at, 4));
    }
    Flow::Next
}

/// A size that C knows and CUDA does not: an H200 takes the wrong arguments from there on, with an illegal access in the end.
fn unknown_size(format: &str) -> Option<char> {
    format.replace("%%", "").split('%').skip(1).find_map(|rest| {
        let rest = rest.trim_start_matches(|c: char| "-+ #.*".contains(c) || c.is_ascii_digit());
        rest.chars().next().filter(|c| "zjtL".contains(*c))
    })
}

/// A value at a generic address, when it can be read.
fn read(cx: &Cx<'_>, at: u64, bytes: u32, lane: usize) -> Option<u64> {
    let (space, at, end) = match at {
        a if a.wrapping_sub(SHARED) < WINDOW => (Where::Shared, a - SHARED, cx.shared.bytes.into()),
        a if a.wrapping_sub(LOCAL) < WINDOW => (Where::Local, a - LOCAL, cx.local.bytes()),
        a => (Where::Global, a, u64::MAX),
    };
    let fits = at.is_multiple_of(bytes.into()) && at < end && end - at >= u64::from(bytes);
    let there = space != Where::Global || super::memory::device(cx, at, bytes.into()).is_some();
    (fits && there).then(|| super::memory::fetch(cx, space, at, bytes, lane))
}

fn text(cx: &Cx<'_>, at: u64, lane: usize) -> Option<String> {
    let mut bytes = Vec::new();
    for k in 0..LONGEST as u64 {
        match read(cx, at.wrapping_add(k), 1, lane)? {
            0 => break,
            b => bytes.push(b as u8),
        }
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// One conversion of a format: flags, width, precision, letter.
struct Conversion {
    left: bool,
    zero: bool,
    plus: bool,
    alternate: bool,
    width: usize,
    precision: Option<usize>,
    long: bool,
    letter: char,
}

fn formatted(cx: &Cx<'_>, format: &str, args: u64, lane: usize) -> String {
    let mut out = String::new();
    let mut chars = format.chars().peekable();
    let mut at = args;
    let mut next = |bytes: u64| {
        at = at.next_multiple_of(bytes);
        at += bytes;
        read(cx, at - bytes, bytes as u32, lane).unwrap_or_default()
    };
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let Some(f) = conversion(&mut chars, &mut next) else { continue };
        let body = match f.letter {
            '%' => "%".into(),
            'd' | 'i' => {
                let v = if f.long { next(8) as i64 } else { i64::from(next(4) as i32) };
                signed(&f, v < 0, v.unsigned_abs().to_string())
            }
            'u' => digits(&f, if f.long { next(8) } else { next(4) }.to_string()),
            'x' | 'X' | 'o' => {
                let v = if f.long { next(8) } else { next(4) };
                let text = match f.letter {
                    'x' => format!("{}{v:x}", if f.alternate { "0x" } else { "" }),
                    'X' => format!("{}{v:X}", if f.alternate { "0X" } else { "" }),
                    _ => format!("{v:o}"),
                };
                digits(&f, text)
            }
            'c' => char::from(next(4) as u8).to_string(),
            'p' => format!("{:#x}", next(8)),
            's' => text(cx, next(8), lane).unwrap_or_else(|| "(null)".into()),
            _ => float(&f, f64::from_bits(next(8))),
        };
        out.push_str(&padded(&f, body));
    }
    out
}

fn conversion(
    chars: &mut std::iter::Peekable<std::str::Chars<'_>>,
    next: &mut impl FnMut(u64) -> u64,
) -> Option<Conversion> {
    let mut f = Conversion {
        left: false,
        zero: false,
        plus: false,
        alternate: false,
        width: 0,
        precision: None,
        long: false,
        letter: '%',
    };
    while let Some(&c) = chars.peek() {
        match c {
            '-' => f.left = true,
            '0' => f.zero = true,
            '+' => f.plus = true,
            '#' => f.alternate = true,
            ' ' => {}
            _ => break,
        }
        chars.next();
    }
    let mut number = |chars: &mut std::iter::Peekable<std::str::Chars<'_>>| {
        if chars.next_if_eq(&'*').is_some() {
            return next(4) as usize;
        }
        let mut n = 0usize;
        while let Some(d) = chars.next_if(char::is_ascii_digit) {
            n = (n * 10 + d as usize - '0' as usize).min(LONGEST);
        }
        n
    };
    f.width = number(chars).min(LONGEST);
    if chars.next_if_eq(&'.').is_some() {
        f.precision = Some(number(chars).min(LONGEST));
    }
    while let Some(c) = chars.next_if(|c| "lh".contains(*c)) {
        f.long |= c == 'l';
    }
    f.letter = chars.next()?;
    Some(f)
}

fn digits(f: &Conversion, text: String) -> String {
    let n = f.precision.unwrap_or(0);
    format!("{}{text}", "0".repeat(n.saturating_sub(text.len())))
}

fn signed(f: &Conversion, minus: bool, text: String) -> String {
    let sign = if minus {
        "-"
    } else if f.plus {
        "+"
    } else {
        ""
    };
    format!("{sign}{}", digits(f, text))
}

fn float(f: &Conversion, v: f64) -> String {
    let p = f.precision.unwrap_or(6);
    let minus = v.is_sign_negative() && !v.is_nan();
    let sign = if minus {
        "-"
    } else if f.plus {
        "+"
    } else {
        ""
    };
    let a = v.abs();
    let body = match f.letter {
        _ if v.is_nan() => "nan".into(),
        _ if v.is_infinite() => "inf".into(),
        'e' | 'E' => exponent(a, p),
        'g' | 'G' => general(a, p.max(1)),
        _ => format!("{a:.p$}"),
    };
    let body = if f.letter.is_ascii_uppercase() { body.to_uppercase() } else { body };
    format!("{sign}{body}")
}

fn exponent(a: f64, p: usize) -> String {
    let text = format!("{a:.p$e}");
    let (digits, e) = text.split_once('e').unwrap_or((&text, "0"));
    let e: i32 = e.parse().unwrap_or(0);
    format!("{digits}e{}{:02}", if e < 0 { '-' } else { '+' }, e.abs())
}

fn general(a: f64, p: usize) -> String {
    let e: i32 = format!("{a:.*e}", p - 1).split_once('e').and_then(|(_, e)| e.parse().ok()).unwrap_or(0);
    let trim = |t: &str| match t.contains('.') {
        true => t.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => t.to_owned(),
    };
    if e < -4 || e >= p as i32 {
        let text = exponent(a, p - 1);
        let (digits, e) = text.split_once('e').unwrap_or((&text, "+00"));
        return format!("{}e{e}", trim(digits));
    }
    trim(&format!("{a:.*}", (p as i32 - 1 - e).max(0) as usize))
}

fn padded(f: &Conversion, body: String) -> String {
    let n = f.width.saturating_sub(body.chars().count());
    let number = !matches!(f.letter, 's' | 'c' | '%');
    match (f.left, f.zero && number && f.precision.is_none_or(|_| "feEgG".contains(f.letter))) {
        (true, _) => body + &" ".repeat(n),
        (_, true) => {
            let (sign, rest) = body.split_at(usize::from(body.starts_with(['-', '+'])));
            format!("{sign}{}{rest}", "0".repeat(n))
        }
        _ => " ".repeat(n) + &body,
    }
}

//! The chapter "Writing an op": its numbers, its patches, its exercises. `book/op/follow.sh` does what it says, in a clone.

use ringtape::check;
use ringtape::device::soft::{self, Machine};
use ringtape::kernel::Real;
use ringtape::ops::elementwise::{Keeps, Map, Unary};
use ringtape::ops::{Entry, Fill, Sample};
use std::fs;
use std::path::Path;
use std::sync::Arc;

#[allow(unreachable_pub, dead_code, reason = "written as the file of another crate")]
#[path = "../book/op/hardswish.rs"]
mod hardswish;

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// mish and its slope as they are defined, by softplus and tanh.
fn mish(x: f64) -> [f64; 2] {
    let w = x.exp().ln_1p().tanh();
    [x * w, w + x * (1.0 - w * w) / (1.0 + (-x).exp())]
}

/// The chapter's second formula.
fn fraction(x: f64) -> [f64; 2] {
    let e = (-x.abs()).exp();
    let (n, k) = match x >= 0.0 {
        true => (1.0 + 2.0 * e, 4.0 * e * e * (1.0 + e)),
        false => (e * (e + 2.0), 4.0 * e * (1.0 + e)),
    };
    let d = if x >= 0.0 { n + 2.0 * e * e } else { n + 2.0 };
    [x * n / d, n / d + x * k / (d * d)]
}

#[test]
fn both_formulas_are_mish_and_the_numbers_by_hand_are_right() {
    for x in [-30.0, -5.0, -1.0, -0.1, 0.0, 0.3, 1.0, 5.0, 30.0] {
        for (a, b) in mish(x).iter().zip(fraction(x)) {
            assert!((a - b).abs() < 1e-12, "{x}: {a} {b}");
        }
    }
    let chapter = read("book/src/writing_an_op.md");
    let says = |number: f64, text: &str| {
        assert_eq!(format!("{number:.4}").replacen("0.", ".", 1), text);
        assert!(chapter.contains(&text.replace('-', "−")), "{text}");
    };
    let [y, slope] = mish(1.0);
    says(y, ".8651");
    says(slope, "1.0490");
    says(slope - y, ".1839");
    says(mish(-1.0)[0], "-.3034");
    assert!((mish(0.0)[1] - 0.6).abs() < 1e-12 && chapter.contains("3/5 = .6"));
    let least = (-300..0).map(|i| mish(f64::from(i) / 100.0)[0]).fold(0.0, f64::min);
    assert!((least + 0.31).abs() < 0.005 && chapter.contains("−0.31"), "{least}");
    // The first formula's n overflows where the chapter says.
    assert!((44f32.exp() * 44f32.exp()).is_finite() && (45f32.exp() * 45f32.exp()).is_infinite());
}

/// What a patch takes for granted stands in the file that it changes, and what it adds does not.
#[test]
fn the_patches_apply() {
    for name in ["list", "reference"] {
        let patch = read(&format!("book/op/{name}.patch"));
        let file = patch.lines().find_map(|l| l.strip_prefix("+++ b/")).unwrap();
        let hunk = patch.lines().skip_while(|l| !l.starts_with("@@")).skip(1);
        let (mut before, mut added) = (String::new(), 0);
        for line in hunk {
            match line.split_at(1) {
                ("+", text) => {
                    added += 1;
                    assert!(!read(file).contains(&format!("\n{text}\n")), "{file} has {text}");
                }
                (" ", text) => before += &format!("{text}\n"),
                _ => panic!("{name}: {line}"),
            }
        }
        assert_eq!(added, 1, "{name}");
        assert!(read(file).contains(&before), "{file} has changed around the line that {name}.patch adds");
    }
}

#[test]
fn hardswish_passes_every_exam() {
    let verdicts = check::all(&hardswish::ENTRY);
    assert_eq!(verdicts.len(), 9);
    let device = soft::device(&Machine::strict(), 0).unwrap();
    for v in verdicts.iter().chain(&check::on_device(&hardswish::ENTRY, &device)) {
        assert_eq!(v.failure, None, "{} / {}", v.exam, v.sample);
    }
}

/// mish with a slope that forgets that w changes too.
#[derive(Debug, Clone, Copy)]
struct Forgets;

impl Unary for Forgets {
    const NAME: &'static str = "forgets";
    const ENTRIES: [&'static str; 2] = ["forgets_forward", "forgets_backward"];
    const KEEPS: Keeps = Keeps::Input;
    fn value<T: Real>(x: T, _: [T; 2]) -> T {
        x * (T::ONE + x.exp()).ln().tanh()
    }
    fn slope<T: Real>(x: T, _: [T; 2]) -> T {
        (T::ONE + x.exp()).ln().tanh()
    }
}

static FORGETS: Entry = Map::<Forgets>::entry(
    "y = x * w",
    &[],
    |_| Ok(Arc::new(Map(Forgets))),
    || vec![Sample::new("some").input(&[4], Fill::Values(vec![-1.5, -0.5, 0.5, 1.5]))],
);

/// Exercise 3: differences of the value notice. Precision and contract compare the slope with itself.
#[test]
fn exercise_3_only_the_gradient_exam_notices_a_slope_that_is_wrong() {
    let failed: Vec<_> = check::all(&FORGETS).into_iter().filter(|v| v.failure.is_some()).collect();
    assert_eq!(failed.iter().map(|v| v.exam).collect::<Vec<_>>(), ["gradient"]);
}

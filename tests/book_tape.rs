//! The chapter "The tape": its listing, its numbers by hand, its exercises.

use ringtape::device::Device;
use ringtape::shape::DType;
use ringtape::tape::{Grads, Params, Tape};
use ringtape::tensor::Tensor;
use std::fs;
use std::path::Path;

#[allow(unreachable_pub, reason = "written as a library of its own")]
#[path = "../book/listings/scalar_tape.rs"]
mod scalar_tape;

/// The network of the chapter on its own tape: h = tanh(w·x), y = h + h·x. Gives y and its derivatives by w and by x.
fn by_listing(w: f64, x: f64) -> [f64; 3] {
    let mut tape = scalar_tape::Tape::default();
    let (w, x) = (tape.leaf(w), tape.leaf(x));
    let product = tape.mul(w, x);
    let h = tape.tanh(product);
    let again = tape.mul(h, x);
    let y = tape.add(h, again);
    let gradients = tape.backward(y);
    [tape.value(y), gradients[w], gradients[x]]
}

/// The same on ringtape's.
fn by_ringtape(w: f64, x: f64) -> [f64; 3] {
    let params = Params::none(&Device::cpu());
    let tape = Tape::new(&params);
    let number =
        |v: f64| tape.leaf(Tensor::from_f64(&Device::cpu(), DType::F64, &[v], &[]).unwrap()).unwrap();
    let (w, x) = (number(w), number(x));
    let h = w.mul(&x).unwrap().tanh().unwrap();
    let y = h.add(&h.mul(&x).unwrap()).unwrap();
    let leaves = tape.backward(&y, &mut Grads::new(&params).unwrap()).unwrap();
    let of = |leaf| leaves.get(leaf).unwrap().item().unwrap();
    [y.value().item().unwrap(), of(&w), of(&x)]
}

#[test]
fn two_tapes_and_differences_agree() {
    for (w, x) in [(0.5, 2.0), (-1.5, 0.7), (3.0, -0.1), (0.0, 0.0)] {
        let [y, dw, dx] = by_listing(w, x);
        for (a, b) in by_ringtape(w, x).iter().zip([y, dw, dx]) {
            assert!((a - b).abs() < 1e-14, "{w}, {x}: {a} {b}");
        }
        let h = 1e-6;
        let slope = |up: [f64; 3], down: [f64; 3]| (up[0] - down[0]) / (2.0 * h);
        assert!((dw - slope(by_listing(w + h, x), by_listing(w - h, x))).abs() < 1e-8);
        assert!((dx - slope(by_listing(w, x + h), by_listing(w, x - h))).abs() < 1e-8);
    }
}

#[test]
fn the_numbers_by_hand_are_right() {
    let chapter = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("book/src/tape.md")).unwrap();
    let [y, dw, dx] = by_listing(0.5, 2.0);
    let h = 1f64.tanh();
    for (number, text) in [(h, "0.7616"), (2.0 * h, "1.5232"), (y, "2.2848"), (3.0 * (1.0 - h * h), "1.2599")]
    {
        assert_eq!(format!("{number:.4}"), text);
        assert!(chapter.contains(text), "{text}");
    }
    for (number, text) in [(dw, "2.5198"), (dx, "1.3916")] {
        assert_eq!(format!("{number:.4}"), text);
        assert!(chapter.contains(text), "{text}");
    }
}

/// Exercise 1: a derivative carried forward, beside its value. One pass gives one of them.
#[derive(Clone, Copy)]
struct Dual(f64, f64);

impl Dual {
    fn add(self, o: Dual) -> Dual {
        Dual(self.0 + o.0, self.1 + o.1)
    }
    fn mul(self, o: Dual) -> Dual {
        Dual(self.0 * o.0, self.1 * o.0 + self.0 * o.1)
    }
    fn tanh(self) -> Dual {
        let y = self.0.tanh();
        Dual(y, self.1 * (1.0 - y * y))
    }
}

#[test]
fn exercise_1_forward_mode_needs_a_pass_for_each_input() {
    let run = |w: Dual, x: Dual| {
        let h = w.mul(x).tanh();
        h.add(h.mul(x)).1
    };
    let [_, dw, dx] = by_listing(0.5, 2.0);
    assert!((run(Dual(0.5, 1.0), Dual(2.0, 0.0)) - dw).abs() < 1e-14);
    assert!((run(Dual(0.5, 0.0), Dual(2.0, 1.0)) - dx).abs() < 1e-14);
}

/// Exercise 2: with `=` for `+=` the path through the first use of a value is lost.
#[test]
fn exercise_2_what_is_used_twice_needs_a_sum() {
    let mut tape = scalar_tape::Tape::default();
    let x = tape.leaf(3.0);
    let square = tape.mul(x, x);
    assert_eq!(tape.backward(square)[x], 6.0);
}

/// Exercise 4: a tape that was swept has released what its nodes kept.
#[test]
fn exercise_4_a_tape_is_swept_once() {
    let params = Params::none(&Device::cpu());
    let tape = Tape::new(&params);
    let x = tape.leaf(Tensor::from_f64(&Device::cpu(), DType::F64, &[2.0], &[]).unwrap()).unwrap();
    let y = x.mul(&x).unwrap();
    let mut grads = Grads::new(&params).unwrap();
    tape.backward(&y, &mut grads).unwrap();
    assert!(tape.backward(&y, &mut grads).unwrap_err().to_string().contains("swept before"));
}

/// Exercise 5: n/k tensors at the borders of parts and k inside the part that backward is at.
#[test]
fn exercise_5_parts_of_root_n_keep_least() {
    let kept = |n: usize, k: usize| n.div_ceil(k) + k;
    for n in [16, 100, 400] {
        let best = (1..=n).min_by_key(|&k| kept(n, k)).unwrap();
        assert_eq!((best, kept(n, best)), (n.isqrt(), 2 * n.isqrt()), "{n}");
    }
}

//! The chapter "Numbers and tensors": its sums by hand and its exercises.

use half::bf16;
use ringtape::device::Device;
use ringtape::shape::Shape;
use ringtape::tensor::Tensor;

/// Where an element stands, by the formula of the chapter.
fn place(extents: &[usize], index: &[usize]) -> usize {
    (0..extents.len()).map(|k| index[k] * extents[k + 1..].iter().product::<usize>()).sum()
}

#[test]
fn the_places_by_hand_are_those_of_ringtape() {
    assert_eq!(place(&[2, 3, 4], &[1, 2, 3]), 23);
    let shape = |d: &[usize]| Shape::new(d).unwrap();
    assert_eq!(shape(&[2, 3, 4]).strides_as(&shape(&[2, 3, 4]))[..3], [12, 4, 1]);
    assert_eq!(shape(&[4, 1]).strides_as(&shape(&[3, 4, 5]))[..3], [0, 1, 0]);
}

/// x with three decimal digits.
fn three(x: f64) -> f64 {
    format!("{x:.2e}").parse().unwrap()
}

#[test]
fn three_digits_lose_what_comes_last() {
    let from_the_left = (0..5).fold(1.0, |sum, _| three(sum + 0.004));
    let small_first = three(1.0 + (0..5).fold(0.0, |sum, _| three(sum + 0.004)));
    assert_eq!((from_the_left, small_first), (1.0, 1.02));
}

#[test]
fn what_is_shared_is_not_written() {
    let mut t = Tensor::from_slice(&Device::cpu(), &[1f32, 2.0, 3.0, 4.0], &[2, 2]).unwrap();
    let row = t.rows(1, 1).unwrap();
    assert_eq!(row.as_slice::<f32>().unwrap(), [3.0, 4.0]);
    assert!(t.as_mut_slice::<f32>().is_err());
    drop(row);
    t.as_mut_slice::<f32>().unwrap()[2] = 5.0;
}

#[test]
fn exercise_1_counting_ends() {
    let n = 2f32.powi(24);
    assert!(n + 1.0 == n && (n - 1.0) + 1.0 == n);
    let n = bf16::from_f32(256.0);
    assert!(n + bf16::ONE == n && n - bf16::ONE != n);
}

#[test]
fn exercise_2_places() {
    assert_eq!(place(&[3, 4, 5], &[2, 0, 1]), 41);
    assert_eq!(place(&[3, 4, 5], &[1, 3, 2]), 37);
}

#[test]
fn exercise_3_adding_by_strides() {
    let (a, b) = ([1, 2, 3], [10, 20, 30, 40]);
    let (extents, a_strides, b_strides) = ([3, 4], [1, 0], [0, 1]);
    let mut sum = [0; 12];
    for (i, sum) in sum.iter_mut().enumerate() {
        let index = [i / extents[1], i % extents[1]];
        let at = |strides: [usize; 2]| index[0] * strides[0] + index[1] * strides[1];
        *sum = a[at(a_strides)] + b[at(b_strides)];
    }
    assert_eq!(sum, [11, 21, 31, 41, 12, 22, 32, 42, 13, 23, 33, 43]);
}

#[test]
fn exercise_4_kahans_sum() {
    let (mut sum, mut lost) = (0f32, 0f32);
    for _ in 0..10_000_000 {
        let x = 0.1 - lost;
        let next = sum + x;
        (lost, sum) = ((next - sum) - x, next);
    }
    let exact = f64::from(0.1f32) * 1e7;
    assert!((f64::from(sum) - exact).abs() / exact < 1e-7, "{sum}");
}

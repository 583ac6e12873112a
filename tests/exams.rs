//! Every op takes every exam, from its entry alone.

use ringtape::{check, ops};

#[test]
fn every_op_passes_every_exam() {
    let mut failures = Vec::new();
    let mut count = 0;
    for entry in ops::ALL {
        assert!((entry.samples)().iter().any(|s| !s.large), "{} has no small sample", entry.name);
        for v in check::all(entry) {
            count += 1;
            if let Some(f) = v.failure {
                failures.push(format!("{} / {} / {}: {f}", v.op, v.exam, v.sample));
            }
        }
    }
    assert!(failures.is_empty(), "{} of {count} exams failed:\n{}", failures.len(), failures.join("\n"));
}

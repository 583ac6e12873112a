//! Ids and labels come from outside, so every op that reads memory or counts by them checks them before it
//! launches a kernel on the CPU: its kernels return nothing and index freely.

use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Error unless every element of `ids` (i32) lies in 0..`limit` or equals `ignore`. The first offender is
/// named with its position and value.
pub(crate) fn check_ids(op: &'static str, ids: &Tensor, limit: usize, ignore: Option<i32>) -> Result<()> {
    if !ids.device().is_host() {
        return Ok(()); // a look would bring them back to the host at every step: the kernels of a GPU trap instead
    }
    let v = ids.as_slice::<i32>()?;
    // A negative id is huge as u32; no i32 reaches a limit beyond i32::MAX.
    let limit32 = u32::try_from(limit).unwrap_or(u32::MAX).min(1 << 31);
    let bad = |&id: &i32| id as u32 >= limit32 && Some(id) != ignore;
    // Two loops: the counting one has no early exit, so it becomes vector instructions; the search runs only
    // to report.
    if v.iter().fold(false, |any, id| any | bad(id)) {
        let at = v.iter().position(bad).expect("the loop above found one");
        return Err(Error::Id { op: op.into(), at: place(at, ids.dims()), value: v[at].into(), limit });
    }
    Ok(())
}

/// Indices of element `at` along each axis of `dims`.
fn place(mut at: usize, dims: &[usize]) -> Vec<usize> {
    let mut index = vec![0; dims.len()];
    for (i, &n) in index.iter_mut().zip(dims).rev() {
        (*i, at) = (at % n, at / n);
    }
    index
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;

    #[test]
    fn an_id_out_of_range_is_named_with_place_value_and_limit() {
        let ids = |v: &[i32]| Tensor::from_slice(&Device::cpu(), v, &[2, 3]).unwrap();
        assert!(check_ids("embedding", &ids(&[0, 1, 2, 3, 4, 4]), 5, None).is_ok());
        let e = check_ids("embedding", &ids(&[0, 1, 2, 3, 4, 5]), 5, None).unwrap_err();
        assert_eq!(e.to_string(), "embedding: id 5 at [1, 2] is not in 0..5");
        assert_eq!(e.exit_code(), 4);
        let e = check_ids("gather", &ids(&[0, -1, 2, 3, 4, 9]), 5, None).unwrap_err();
        assert!(e.to_string().contains("id -1 at [0, 1]"), "{e}");
        assert!(check_ids("cross_entropy", &ids(&[0, -100, 2, 3, -100, 1]), 5, Some(-100)).is_ok());
        assert!(check_ids("cross_entropy", &ids(&[0, -100, 2, 3, -99, 1]), 5, Some(-100)).is_err());
        assert!(check_ids("embedding", &ids(&[0; 6]), 0, None).is_err());
    }
}

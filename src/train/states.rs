//! Changes of state, such as a running mean, that parts of a batch ask for, made one.

use super::Team;
use crate::comm::{Climb, Reduce};
use crate::error::{Error, Result};
use crate::tape::{Change, Merge, Slot};
use crate::tensor::Tensor;

impl Team {
    /// What parts ask of states, each with its weight, as one: means by the tree of parts and ranks, or the largest.
    pub(super) fn merge(&self, parts: Vec<(f64, Vec<Change>)>) -> Result<Vec<Change>> {
        let Some((_, like)) = parts.first() else { return Ok(vec![]) };
        let mut like: Vec<Change> = like.clone();
        // Of several changes of a slot the last counts.
        let last = |all: &[Change], slot: Slot| all.iter().rfind(|c| c.slot == slot).cloned();
        let mut known: Vec<Slot> = Vec::new();
        like.retain(|c| {
            !known.contains(&c.slot) && {
                known.push(c.slot);
                true
            }
        });
        let (mut means, mut tops): (Climb<Vec<f64>>, Vec<f64>) = (Climb::default(), vec![]);
        let first = self.sums.as_ref().map_or(0, |s| s.shards().start);
        for (i, (weight, changes)) in parts.iter().enumerate() {
            let (mut mean, mut top) = (Vec::new(), Vec::new());
            for want in &like {
                let Some(c) = last(changes, want.slot) else {
                    return Err(Error::RanksDisagree("parts of a batch change different states".into()));
                };
                match want.merge {
                    Merge::Mean => mean.extend(c.value.to_f64()?.into_iter().map(|x| x * weight)),
                    Merge::Largest => top.extend(c.value.to_f64()?),
                }
            }
            means.push(first + i, mean, |before, mut mean| {
                mean.iter_mut().zip(before).for_each(|(x, y)| *x += y);
                Ok(mean)
            })?;
            tops.resize(top.len(), f64::NEG_INFINITY);
            tops.iter_mut().zip(top).for_each(|(x, y)| *x = x.max(y));
        }
        let mean = self.summed(means.take())?;
        let (mut mean, mut top) = (&mean[..], &self.reduced(tops, Reduce::Max)?[..]);
        for c in &mut like {
            let from = if c.merge == Merge::Mean { &mut mean } else { &mut top };
            let (values, rest) = from.split_at(c.value.len());
            *from = rest;
            c.value = Tensor::from_f64(c.value.device(), c.value.dtype(), values, c.value.dims())?;
        }
        Ok(like)
    }

    /// The sum over the tree, from the subtrees of this rank.
    fn summed(&self, mut subtrees: Vec<Vec<f64>>) -> Result<Vec<f64>> {
        let mut x = subtrees.pop().unwrap_or_default();
        let (Some(data), Some(dealt)) = (&self.data, self.sums.as_ref().and_then(|s| s.dealt().cloned()))
        else {
            return self.reduced(x, Reduce::Sum);
        };
        if x.is_empty() {
            return Ok(x);
        }
        data.call(move |c| {
            let below: Vec<&[f64]> = subtrees.iter().map(|s| &s[..]).collect();
            c.all_reduce_shards(&dealt, &below, &mut x, false).map(|()| x)
        })
    }

    fn reduced(&self, mut x: Vec<f64>, reduce: Reduce) -> Result<Vec<f64>> {
        if x.is_empty() || self.size() == 1 {
            return Ok(x);
        }
        self.call(move |c| c.all_reduce(&mut x, reduce).map(|()| x))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::threads;
    use crate::device::Device;
    use crate::shape::DType;
    use crate::tape::{Init, Params, ParamsBuilder, Role};

    fn params() -> Params {
        let mut b = ParamsBuilder::new(&Device::new_cpu(), DType::F32, 1);
        b.add("mean", &[2], Init::Constant(0.0), Role::State).unwrap();
        b.add("top", &[1], Init::Constant(0.0), Role::State).unwrap();
        b.build().unwrap()
    }

    #[test]
    fn states_are_merged_by_samples_or_the_largest_and_the_last_change_of_a_slot_counts() {
        let found = threads::run(3, |world| {
            let (team, params, r) = (Team::of(world)?, params(), 0.0);
            let rank = team.rank() as f64;
            let of = |name: &str, values: &[f64], merge| Change {
                slot: params.find(name).unwrap(),
                value: Tensor::from_f64(params.device(), DType::F32, values, &[values.len()]).unwrap(),
                merge,
            };
            let changes = vec![
                of("mean", &[r, 99.0], Merge::Mean),
                of("top", &[5.0 - rank], Merge::Largest),
                of("mean", &[rank, 10.0 * rank], Merge::Mean),
            ];
            let merged = team.merge(vec![([0.5, 0.25, 0.25][team.rank()], changes)])?;
            Ok(merged.iter().map(|c| c.value.to_f64().unwrap()).collect::<Vec<_>>())
        });
        for merged in found {
            assert_eq!(merged.unwrap(), [vec![0.75, 7.5], vec![5.0]]);
        }
    }
}

//! Which hidden units are at work: counted on given data, not guessed from the settings.

use super::{Activation, Gpt, Mlp, Model, Module};
use crate::error::Result;
use crate::tape::{Params, Tape, Var};
use crate::tensor::Tensor;
use serde::{Deserialize, Serialize};

/// What the hidden units of one layer did over the rows (tokens, samples) that were looked at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerActivity {
    /// Number of the layer.
    pub layer: usize,
    /// Hidden units.
    pub units: usize,
    /// Share of units that were not 0, a mean over rows.
    pub density: f64,
    /// The same for the row with the fewest, and with the most.
    pub range: [f64; 2],
    /// The same for rows a tenth, half and nine tenths of the way from the fewest to the most.
    #[serde(default)]
    pub tenths: [f64; 3],
    /// Units that were 0 in every row.
    pub dead: usize,
    /// Units that were 0 in every row the time before, and now are not; None the first time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revived: Option<usize>,
    /// Units that were 0 in none.
    pub always_on: usize,
    /// How unequally units fire: 0 where all fire equally often, near 1 where a few do it all (Gini coefficient).
    pub gini: f64,
}

/// Counts of the layers so far.
#[derive(Debug, Default)]
pub struct Census {
    layers: Vec<Layer>,
}

#[derive(Debug)]
struct Layer {
    rows: u64,
    fired: Vec<u64>,
    /// Rows by how many units were active in them.
    by_active: Vec<u64>,
}

/// Of each layer, which units were dead when they were counted last.
pub type DeadUnits = Vec<Vec<bool>>;

impl Model {
    /// True when its hidden units can be 0, so that there is something to count.
    pub fn has_silent_units(&self) -> bool {
        let silent = |f: Activation| matches!(f, Activation::Relu | Activation::Sparse);
        match self {
            Model::Gpt(m) => m.blocks.first().is_some_and(|b| silent(b.activation())),
            Model::Mlp(m) => m.activation().is_some_and(silent),
            Model::Cnn(_) | Model::Fusion(_) | Model::Pair(_) => false,
        }
    }

    /// Counts the hidden units that are not 0 for input `x`.
    pub fn count(&self, params: &Params, x: &Tensor, census: &mut Census) -> Result<()> {
        let tape = Tape::eval(params);
        let x = tape.constant(x.clone());
        let hidden = match self {
            Model::Gpt(m) => m.hidden(&x)?,
            Model::Mlp(m) => m.hidden(&x)?,
            Model::Cnn(_) | Model::Fusion(_) | Model::Pair(_) => vec![],
        };
        hidden.iter().enumerate().try_for_each(|(i, h)| census.add(i, h.value()))
    }
}

impl Gpt {
    /// The hidden units of each block's MLP, for ids [B, T].
    fn hidden<'t>(&self, ids: &Var<'t>) -> Result<Vec<Var<'t>>> {
        let mut x = self.embed(ids, 0, &[])?;
        let mut all = Vec::new();
        for block in &self.blocks {
            let (y, hidden) = block.look(&x)?;
            all.push(hidden);
            x = y;
        }
        Ok(all)
    }
}

impl Mlp {
    /// The hidden units of each layer.
    fn hidden<'t>(&self, x: &Var<'t>) -> Result<Vec<Var<'t>>> {
        let mut h = self.flat(x)?;
        let mut all = Vec::new();
        for (layer, f) in &self.hidden {
            h = f.forward(&layer.forward(&h)?)?.0;
            all.push(h.clone());
        }
        Ok(all)
    }
}

impl Census {
    /// Adds hidden units [.., units] of layer `i`.
    fn add(&mut self, i: usize, h: &Tensor) -> Result<()> {
        let (h, units) = (h.to_host()?, h.shape().last());
        if self.layers.len() <= i {
            self.layers.push(Layer { rows: 0, fired: vec![0; units], by_active: vec![0; units + 1] });
        }
        let layer = &mut self.layers[i];
        for row in h.to_f64()?.chunks_exact(units.max(1)) {
            let mut active = 0;
            for (fired, x) in layer.fired.iter_mut().zip(row) {
                if *x != 0.0 {
                    (*fired, active) = (*fired + 1, active + 1);
                }
            }
            layer.by_active[active] += 1;
            layer.rows += 1;
        }
        Ok(())
    }

    /// What was counted, layer by layer, and since `before`, which becomes what is dead now.
    pub fn report(&self, before: &mut DeadUnits) -> Vec<LayerActivity> {
        let found = self.layers.iter().enumerate().map(|(i, layer)| layer.report(i, before.get(i))).collect();
        *before = self.layers.iter().map(|l| l.fired.iter().map(|n| *n == 0).collect()).collect();
        found
    }
}

impl Layer {
    fn report(&self, layer: usize, before: Option<&Vec<bool>>) -> LayerActivity {
        let (units, rows) = (self.fired.len(), self.rows);
        let all = (units as f64).max(1.0);
        let total: u64 = self.fired.iter().sum();
        LayerActivity {
            layer,
            units,
            density: total as f64 / (all * (rows as f64).max(1.0)),
            range: [0.0, 1.0].map(|share| self.quantile(share) as f64 / all),
            tenths: [0.1, 0.5, 0.9].map(|share| self.quantile(share) as f64 / all),
            dead: self.fired.iter().filter(|n| **n == 0).count(),
            revived: before.map(|b| self.fired.iter().zip(b).filter(|(n, dead)| **n > 0 && **dead).count()),
            always_on: self.fired.iter().filter(|n| **n == rows).count(),
            gini: gini(&self.fired),
        }
    }
}

impl Layer {
    /// Active units of the row that stands so far along when rows are sorted by them.
    fn quantile(&self, share: f64) -> usize {
        let place = (share * (self.rows.max(1) - 1) as f64).round() as u64;
        let mut passed = 0;
        let reached = |n: &u64| {
            passed += n;
            passed > place
        };
        self.by_active.iter().position(reached).unwrap_or(0)
    }
}

/// Gini coefficient of counts; 0 where there is nothing to share.
fn gini(counts: &[u64]) -> f64 {
    let mut sorted = counts.to_vec();
    sorted.sort_unstable();
    let (n, total) = (sorted.len() as f64, sorted.iter().sum::<u64>() as f64);
    if total == 0.0 {
        return 0.0;
    }
    let weighted: f64 = sorted.iter().enumerate().map(|(i, c)| (i + 1) as f64 * *c as f64).sum();
    2.0 * weighted / (n * total) - (n + 1.0) / n
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;

    #[test]
    fn units_are_counted_over_all_rows() {
        let mut census = Census::default();
        for rows in
            [[[0.0, 1.0, 2.0, 0.0], [0.0, -1.0, 0.0, 0.0]], [[0.0, 3.0, 0.0, 0.0], [0.0, 3.0, 1.0, 5.0]]]
        {
            let flat: Vec<f32> = rows.iter().flatten().copied().collect();
            census.add(0, &Tensor::from_slice(&Device::cpu(), &flat, &[2, 4]).unwrap()).unwrap();
        }
        let mut silent = DeadUnits::new();
        let [found] = &census.report(&mut silent)[..] else { panic!("one layer") };
        assert_eq!((found.units, found.dead, found.always_on, found.revived), (4, 1, 1, None));
        // Rows with 2, 1, 1 and 3 active units.
        assert_eq!((found.density, found.range, found.tenths), (7.0 / 16.0, [0.25, 0.75], [0.25, 0.5, 0.75]));
        assert_eq!(silent, [[true, false, false, false]]);
        // Counts 0, 1, 2, 4: 2·(1·0 + 2·1 + 3·2 + 4·4)/(4·7) − 5/4.
        assert!((found.gini - (48.0 / 28.0 - 1.25)).abs() < 1e-12);
        let mut later = Census::default();
        let flat = [5.0f32, 0.0, 0.0, 1.0];
        later.add(0, &Tensor::from_slice(&Device::cpu(), &flat, &[1, 4]).unwrap()).unwrap();
        let [found] = &later.report(&mut silent)[..] else { panic!("one layer") };
        assert_eq!((found.dead, found.revived), (2, Some(1)));
        assert_eq!(silent, [[false, true, true, false]]);
        assert_eq!((gini(&[5, 5, 5]), gini(&[0, 0])), (0.0, 0.0));
    }
}

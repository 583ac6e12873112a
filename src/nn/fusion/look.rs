//! Where tokens look: how much attention some give to those of a modality.

use super::stream::Stream;
use crate::error::Result;
use crate::tape::Var;

/// Where some tokens look among those of one modality, in one layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Map {
    /// Layer, from 0.
    pub layer: usize,
    /// Whose tokens look: a modality, the token that gathers what logits are read from, the bottleneck.
    pub from: String,
    /// Number of the modality that is looked at.
    pub to: usize,
    /// The share of attention of each of its tokens, the mean over heads and over the tokens that look. What is missing to 1 goes
    /// to other tokens.
    pub weights: Vec<f64>,
}

/// Tokens of a row that belong together.
pub(super) struct Group {
    pub(super) name: String,
    /// None for tokens that are parameters.
    pub(super) modality: Option<usize>,
    /// Places in the row.
    pub(super) tokens: Vec<usize>,
}

/// The groups of each row of tokens: the token that gathers, then those of one modality, or of all where they are one row;
/// `own` tokens in front of each modality's are not made of its values, and left out.
pub(super) fn groups(
    rows: &[Stream<'_>],
    streams: &[(usize, Stream<'_>)],
    names: &[&str],
    one_row: bool,
    own: usize,
) -> Result<Vec<Vec<Group>>> {
    let all = |row: &Stream<'_>, of: &[(usize, Stream<'_>)]| -> Result<Vec<Group>> {
        let name = if one_row { "summary".into() } else { format!("summary of {}", names[of[0].0]) };
        let mut groups = vec![Group { name, modality: None, tokens: vec![0] }];
        let mut at = 1;
        for (m, s) in of {
            let next = at + s.x.dims()[1];
            let tokens = (at + own..next).collect();
            groups.push(Group { name: names[*m].into(), modality: Some(*m), tokens });
            at = next;
        }
        debug_assert_eq!(at, row.x.dims()[1]);
        Ok(groups)
    };
    if one_row {
        return Ok(vec![all(&rows[0], streams)?]);
    }
    rows.iter().zip(streams).map(|(row, one)| all(row, std::slice::from_ref(one))).collect()
}

/// How each group of `from` looks at each modality of `to`, by weights [1, T_a, T_b].
pub(super) fn between<'g>(
    layer: usize,
    from: impl IntoIterator<Item = &'g Group>,
    to: &[Group],
    w: &Var<'_>,
) -> Result<Vec<Map>> {
    let columns = w.dims()[2];
    let w = w.value().to_host()?.to_f64()?;
    let mut maps = Vec::new();
    for from in from {
        for g in to {
            let Some(modality) = g.modality else { continue };
            let mean = |&j: &usize| {
                from.tokens.iter().map(|i| w[i * columns + j]).sum::<f64>() / from.tokens.len() as f64
            };
            let weights = g.tokens.iter().map(mean).collect();
            maps.push(Map { layer, from: from.name.clone(), to: modality, weights });
        }
    }
    Ok(maps)
}

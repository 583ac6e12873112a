//! Why is this gradient missing or zero? And the graph as DOT.

use super::{Grads, Step, Tape, Var, VarId};
use crate::error::Result;
use crate::tensor::Tensor;
use std::collections::HashMap;
use std::fmt;

/// One step on the way from the loss back to the value that was asked about.
#[derive(Clone, Debug)]
pub struct Hop {
    /// Node on the tape.
    pub node: usize,
    /// What the node does.
    pub name: String,
    /// Largest |gradient| of the node's output; None when none arrived.
    pub gradient: Option<f64>,
}

/// What [`Tape::explain`] found.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The answer in one sentence.
    pub verdict: String,
    /// The path from the loss to the value, or as far as it goes.
    pub path: Vec<Hop>,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.verdict)?;
        for hop in &self.path {
            let g = hop.gradient.map_or("no gradient arrives".into(), |g| format!("max |gradient| {g:.3e}"));
            writeln!(f, "  node {:>4}  {:<32} {g}", hop.node, hop.name)?;
        }
        Ok(())
    }
}

impl Tape {
    /// Says why the gradient of `loss` with respect to `target` is missing, zero or not finite, with the path and the op
    /// where it changes. Runs a backward pass (into gradients of its own), so call it instead of [`Tape::backward`].
    pub fn explain(&self, loss: &Var<'_>, target: &Var<'_>) -> Result<Explanation> {
        let Some(id) = target.id else {
            let verdict = "the value is a constant on this tape: it came from constant(), detach() or an evaluation tape";
            return Ok(Explanation { verdict: verdict.into(), path: vec![] });
        };
        let Some(loss_id) = loss.id else {
            let verdict = "the loss is a constant: every path into it was detached or not recorded";
            return Ok(Explanation { verdict: verdict.into(), path: vec![] });
        };
        let Some(path) = self.path(loss_id, id) else { return Ok(self.no_path(id)) };
        let mut seen: HashMap<VarId, f64> = HashMap::new();
        let mut note = |id: VarId, t: Option<&Tensor>| {
            if let Some(v) = t.and_then(|t| t.to_f64().ok()) {
                let largest =
                    v.iter().fold(0.0f64, |m, x| if x.is_nan() { f64::NAN } else { m.max(x.abs()) });
                seen.insert(id, largest);
            }
        };
        let seeds = vec![(loss_id, Tensor::full(self.device(), loss.value.spec(), 1.0)?)];
        let mut grads = Grads::new(&self.params)?;
        grads.begin(&self.params)?;
        let swept = self.sweep(seeds, &mut grads, &mut [], (&mut Some(&mut note), &mut None));
        let hops: Vec<Hop> = path.iter().map(|&v| self.hop(v, seen.get(&v).copied())).collect();
        let lost = hops.windows(2).find(|w| {
            w[0].gradient.is_some_and(|g| g != 0.0)
                && w[1].gradient.is_none_or(|g| g == 0.0 || !g.is_finite())
        });
        let verdict = match (&swept, lost) {
            (Err(e), _) => format!("the backward pass failed: {e}"),
            (_, Some(w)) => {
                let how = match w[1].gradient {
                    None => "does not pass on the gradient",
                    Some(g) if g.is_finite() => "turns it to zero",
                    Some(_) => "makes it NaN or infinite",
                };
                format!("the gradient is lost at node {}: {} {how} (its slope there)", w[0].node, w[0].name)
            }
            _ => match hops.last().and_then(|h| h.gradient) {
                Some(g) => format!("the gradient arrives: max |gradient| {g:.3e}"),
                None => "no gradient arrives".into(),
            },
        };
        Ok(Explanation { verdict, path: hops })
    }

    fn hop(&self, id: VarId, gradient: Option<f64>) -> Hop {
        let nodes = self.nodes.borrow();
        let node = nodes.partition_point(|n| n.first <= id) - 1;
        // Detach nodes have no outputs and share `first` with their successor; the owner is the last with outputs.
        let node = (0..=node).rev().find(|&n| nodes[n].outputs > 0).unwrap_or(node);
        Hop { node, name: self.label(&nodes[node].step), gradient }
    }

    fn label(&self, step: &Step) -> String {
        match step {
            Step::Param(s) => format!("parameter {}", self.params.info(*s).name),
            Step::Leaf => "leaf".into(),
            Step::Op(op) => format!("op {}", op.name()),
            Step::Replay(_) => "checkpoint".into(),
            Step::Detach => "detach".into(),
        }
    }

    /// A path of values from `from` back to `to`, breadth first.
    fn path(&self, from: VarId, to: VarId) -> Option<Vec<VarId>> {
        let nodes = self.nodes.borrow();
        let mut next: HashMap<VarId, VarId> = HashMap::new(); // towards `from`
        // Walking the list backwards visits every user of a value before the value itself.
        let mut reached: std::collections::HashSet<VarId> = [from].into();
        for n in nodes.iter().rev() {
            let Some(out) = (n.first..n.first + n.outputs).find(|id| reached.contains(id)) else { continue };
            for id in n.inputs.iter().flatten() {
                if reached.insert(*id) {
                    next.insert(*id, out);
                }
            }
        }
        let mut path = vec![to];
        while *path.last()? != from {
            path.push(*next.get(path.last()?)?);
        }
        path.reverse();
        Some(path)
    }

    fn no_path(&self, id: VarId) -> Explanation {
        let nodes = self.nodes.borrow();
        let users = nodes.iter().enumerate().filter(|(_, n)| n.inputs.contains(&Some(id)));
        let path: Vec<Hop> =
            users.map(|(i, n)| Hop { node: i, name: self.label(&n.step), gradient: None }).collect();
        let verdict = match path.iter().find(|h| h.name == "detach") {
            Some(h) => format!("no path leads from the loss to the value: it was detached at node {}", h.node),
            None if path.is_empty() => "no path leads from the loss to the value: nothing on the tape uses it".into(),
            None => "no path leads from the loss to the value: the results of the nodes below do not reach the loss".into(),
        };
        Explanation { verdict, path }
    }

    /// The recorded graph in the DOT language of Graphviz.
    pub fn to_dot(&self) -> String {
        let (nodes, specs) = (self.nodes.borrow(), self.specs.borrow());
        let mut owner = vec![0usize; specs.len()];
        let mut dot =
            String::from("digraph tape {\n  rankdir=LR;\n  node [shape=box, fontname=\"monospace\"];\n");
        for (i, n) in nodes.iter().enumerate() {
            (n.first..n.first + n.outputs).for_each(|id| owner[id as usize] = i);
            let shapes: Vec<String> =
                (n.first..n.first + n.outputs).map(|id| specs[id as usize].to_string()).collect();
            let label = self.label(&n.step).replace('"', "\\\"");
            dot += &format!("  n{i} [label=\"{label}\\n{}\"];\n", shapes.join(" "));
            for id in n.inputs.iter().flatten() {
                dot += &format!("  n{} -> n{i};\n", owner[*id as usize]);
            }
        }
        dot + "}\n"
    }
}

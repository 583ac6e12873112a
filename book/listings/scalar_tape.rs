//! Reverse mode on numbers: all of the idea of `src/tape`, and nothing else.

// ANCHOR: record
/// What was done: for each input, its place on the tape and the slope with respect to it.
struct Node {
    inputs: Vec<(usize, f64)>,
}

/// Values and how they came about, in the order in which that happened.
#[derive(Default)]
pub struct Tape {
    values: Vec<f64>,
    nodes: Vec<Node>,
}

impl Tape {
    fn push(&mut self, value: f64, inputs: Vec<(usize, f64)>) -> usize {
        self.values.push(value);
        self.nodes.push(Node { inputs });
        self.nodes.len() - 1
    }
    /// A number that was given.
    pub fn leaf(&mut self, value: f64) -> usize {
        self.push(value, vec![])
    }
    /// a + b.
    pub fn add(&mut self, a: usize, b: usize) -> usize {
        self.push(self.values[a] + self.values[b], vec![(a, 1.0), (b, 1.0)])
    }
    /// a·b.
    pub fn mul(&mut self, a: usize, b: usize) -> usize {
        let (x, y) = (self.values[a], self.values[b]);
        self.push(x * y, vec![(a, y), (b, x)])
    }
    /// tanh a.
    pub fn tanh(&mut self, a: usize) -> usize {
        let y = self.values[a].tanh();
        self.push(y, vec![(a, 1.0 - y * y)])
    }
    /// The number at a place.
    pub fn value(&self, at: usize) -> f64 {
        self.values[at]
    }
}
// ANCHOR_END: record

impl Tape {
    // ANCHOR: backward
    /// The derivative of the value at `end` with respect to every value before it.
    pub fn backward(&self, end: usize) -> Vec<f64> {
        let mut gradients = vec![0.0; self.nodes.len()];
        gradients[end] = 1.0;
        for (at, node) in self.nodes.iter().enumerate().rev() {
            for &(input, slope) in &node.inputs {
                gradients[input] += gradients[at] * slope;
            }
        }
        gradients
    }
    // ANCHOR_END: backward
}

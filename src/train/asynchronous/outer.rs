//! The outer step: where ranks went on average is a gradient at the weights that they set out from.

/// Momentum SGD in Nesterov's form, as torch.optim.SGD has it: v ← μv + Δ; w ← w − η(Δ + μv). With η = 1 and μ = 0 the new
/// weights are the mean of the ranks'.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outer {
    /// η.
    pub(super) lr: f32,
    /// μ.
    pub(super) momentum: f32,
}

impl Outer {
    // ANCHOR: outer
    /// Moves the common weights `w` by `delta` = w − mean of the ranks' weights; `v` lasts from meeting to meeting.
    pub(super) fn step(self, w: &mut [f32], v: &mut [f32], delta: &[f32]) {
        for ((w, v), d) in w.iter_mut().zip(v).zip(delta) {
            *v = self.momentum * *v + d;
            *w -= self.lr * (d + self.momentum * *v);
        }
    }
    // ANCHOR_END: outer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exercise_of_the_outer_step() {
        // The mean of .8 and .4 is .6: Δ = .4.
        let (mut w, mut v) = ([1.0f32], [0.2f32]);
        Outer { lr: 0.5, momentum: 0.5 }.step(&mut w, &mut v, &[0.4]);
        // v = .1 + .4 = .5; w = 1 - .5 · (.4 + .25) = .675.
        assert!((v[0] - 0.5).abs() < 1e-6 && (w[0] - 0.675).abs() < 1e-6, "{v:?} {w:?}");
        // The chapter's own numbers.
        let (mut w, mut v) = ([2.0f32], [0.0f32]);
        Outer { lr: 0.7, momentum: 0.9 }.step(&mut w, &mut v, &[0.7]);
        assert!((w[0] - 1.069).abs() < 1e-6, "{w:?}");
    }

    #[test]
    fn without_momentum_it_is_the_mean_and_with_it_what_torch_computes() {
        let (mut w, mut v) = ([3.0f32, -1.0], [0.0f32; 2]);
        Outer { lr: 1.0, momentum: 0.0 }.step(&mut w, &mut v, &[0.5, -2.0]);
        assert_eq!(w, [2.5, 1.0]);
        // torch.optim.SGD([w], lr=.7, momentum=.9, nesterov=True) from w = 1, gradients 1, .5, -.25.
        let (mut w, mut v) = ([1.0f32], [0.0f32]);
        let seen = [1.0f32, 0.5, -0.25].map(|d| {
            Outer { lr: 0.7, momentum: 0.9 }.step(&mut w, &mut v, &[d]);
            w[0]
        });
        let torch = [-0.33f32, -1.562, -2.0233];
        seen.iter().zip(torch).for_each(|(a, b)| assert!((a - b).abs() < 1e-5, "{seen:?}"));
    }
}

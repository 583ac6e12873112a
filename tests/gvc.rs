//! The gradient-variance controller: what it must do and must not do, on problems whose answer is known.

use ringtape::device::Device;
use ringtape::optim::{self, ControllerConfig, ControllerName, Gvc, Optimizer, Step, gvc::Decision};
use ringtape::rng::Key;
use ringtape::shape::DType;
use ringtape::tape::{Grads, Init, Params, ParamsBuilder, Role};
use ringtape::tensor::Tensor;

fn gvc() -> ControllerConfig {
    ControllerConfig { name: ControllerName::Gvc, ..ControllerConfig::default() }
}

/// One slot of weights under an optimizer and a controller.
struct Walk {
    params: Params,
    grads: Grads,
    optimizer: Box<dyn Optimizer>,
    controller: Gvc,
    decisions: Vec<(u64, Decision)>,
    step: u64,
}

impl Walk {
    fn new(name: &str, attrs: &[(&str, &str)], start: &[f64], config: &ControllerConfig) -> Walk {
        let mut b = ParamsBuilder::new(&Device::cpu(), DType::F64, 0);
        let slot = b.add("w", &[start.len()], Init::Constant(0.0), Role::Plain).unwrap();
        let mut params = b.build().unwrap();
        let t = Tensor::from_slice(&Device::cpu(), start, &[start.len()]).unwrap();
        params.set(slot, &t).unwrap();
        let optimizer = optim::find(name, &[]).unwrap().build_with(attrs, &params).unwrap();
        let (grads, controller) = (Grads::new(&params).unwrap(), config.build().unwrap().unwrap());
        Walk { params, grads, optimizer, controller, decisions: vec![], step: 0 }
    }
    fn weights(&self) -> Vec<f64> {
        self.params.segment(0).to_f64().unwrap()
    }
    /// One step of rate `lr` times the controller's scale; `watch` changes the slope that the controller is shown.
    fn step(&mut self, g: &[f64], loss: f64, lr: f64, watch: impl Fn(f64) -> f64) {
        self.grads.segment_mut::<f64>(0).unwrap()[..g.len()].copy_from_slice(g);
        let how = Step { slope: true, ..Step::new(lr * self.controller.scale()) };
        let slope = self.optimizer.advance(&mut self.params, &self.grads, how).unwrap();
        self.step += 1;
        let decided = slope.and_then(|d| self.controller.observe(watch(d), loss));
        self.decisions.extend(decided.map(|d| (self.step, d)));
    }
    fn cuts(&self) -> usize {
        self.decisions.iter().filter(|(_, d)| d.cut).count()
    }
}

const OPTIMIZERS: [(&str, f64); 6] =
    [("sgd", 0.01), ("adam", 0.01), ("adamw", 0.01), ("adabelief", 0.01), ("lion", 0.001), ("m_svag", 0.01)];

#[test]
fn pure_noise_is_cut_as_one_over_the_steps() {
    for (name, lr) in OPTIMIZERS {
        let mut w = Walk::new(name, &[], &[0.0; 40], &gvc());
        let mut rng = Key::named(1, name).rng();
        let mut scales = Vec::new();
        for t in 1..=30_000u64 {
            let g: Vec<f64> = (0..40).map(|_| rng.normal()).collect();
            w.step(&g, rng.normal(), lr, |d| d);
            if [3_000, 30_000].contains(&t) {
                scales.push(w.controller.scale());
            }
        }
        // Every window a cut: 1/(1 + 0.43·t/100) = 0.072 and 0.0077; every second one half as fast.
        assert!((0.03..=0.5).contains(&scales[0]), "{name}: {scales:?}");
        assert!((0.003..=0.08).contains(&scales[1]), "{name}: {scales:?}");
    }
}

#[test]
fn noiseless_descent_is_never_cut() {
    // Condition 10,000, at and far below the fastest stable rate; a bowl that halves its gradient at each step.
    let curvatures: Vec<f64> = (0..30).map(|i| 10f64.powf(-4.0 * i as f64 / 29.0)).collect();
    for (lr, curvatures) in [(1.0, &curvatures[..]), (0.05, &curvatures), (0.5, &[1.0; 4])] {
        let mut w = Walk::new("sgd", &[], &vec![1.0; curvatures.len()], &gvc());
        for _ in 0..5_000 {
            let g: Vec<f64> = w.weights().iter().zip(curvatures).map(|(w, h)| h * w).collect();
            let loss = w.weights().iter().zip(&g).map(|(w, g)| 0.5 * w * g).sum();
            w.step(&g, loss, lr, |d| d);
        }
        assert_eq!(w.cuts(), 0, "rate {lr}: {:?}", w.decisions);
        assert!(w.decisions.len() >= 49);
    }
    // Rosenbrock's valley, which bends: as long as the loss falls.
    for (name, lr) in [("adamw", 1e-4), ("adabelief", 1e-4), ("adam", 1e-4)] {
        let mut w = Walk::new(name, &[("eps", "1e-12")], &[-1.2, 1.0], &gvc());
        for _ in 0..9_000 {
            let (x, y) = (w.weights()[0], w.weights()[1]);
            let bend = y - x * x;
            let loss = (1.0 - x).powi(2) + 100.0 * bend * bend;
            w.step(&[-2.0 * (1.0 - x) - 400.0 * x * bend, 200.0 * bend], loss, lr, |d| d);
        }
        assert_eq!(w.cuts(), 0, "{name}: {:?}", w.decisions.iter().find(|(_, d)| d.cut));
    }
}

/// A quadratic with curvatures 0.03 to 1 and noise; gives the excess loss at the end and the walk.
fn noisy(
    name: &str,
    attrs: &[(&str, &str)],
    lr: f64,
    steps: u64,
    scale: f64,
    watch: impl Fn(f64) -> f64,
) -> (f64, Walk) {
    let curvatures: Vec<f64> = (0..20).map(|i| 0.03 + 0.97 * i as f64 / 19.0).collect();
    let mut w = Walk::new(name, attrs, &[3.0; 20], &gvc());
    let mut rng = Key::new(7, 7).rng();
    let mut excess = 0.0;
    for t in 1..=steps {
        let at = w.weights();
        let g: Vec<f64> =
            at.iter().zip(&curvatures).map(|(w, h)| scale * (h * w + 0.5 * rng.normal())).collect();
        // Of a batch: its noise is a tilt of the loss.
        let loss = at.iter().zip(&curvatures).zip(&g).map(|((w, h), g)| w * (g - 0.5 * scale * h * w)).sum();
        w.step(&g, loss, lr, &watch);
        if t > steps - steps / 10 {
            let loss: f64 = w.weights().iter().zip(&curvatures).map(|(w, h)| 0.5 * h * w * w).sum();
            excess += loss / (steps / 10) as f64;
        }
    }
    (excess, w)
}

#[test]
fn no_decision_depends_on_the_scale_of_the_loss() {
    for (name, plain, scaled) in [
        ("adamw", ("eps", "1e-8"), ("eps", "1.024e-5")),
        ("adabelief", ("eps", "1e-16"), ("eps", "1.048576e-10")),
    ] {
        let (_, a) = noisy(name, &[plain], 0.03, 6_000, 1.0, |d| d);
        let (_, b) = noisy(name, &[scaled], 0.03, 6_000, 1024.0, |d| d);
        assert!(a.cuts() > 3, "{name}");
        assert_eq!(a.decisions.len(), b.decisions.len(), "{name}");
        for ((s, a), (t, b)) in a.decisions.iter().zip(&b.decisions) {
            assert!(s == t && a.cut == b.cut && a.scale == b.scale && (a.z - b.z).abs() < 1e-6, "{name}");
        }
    }
}

#[test]
fn it_reaches_below_the_floor_of_a_constant_rate_and_not_without_its_slopes() {
    for (name, lr) in [("sgd", 0.3), ("adamw", 0.1)] {
        let (cut, walk) = noisy(name, &[], lr, 20_000, 1.0, |d| d);
        // Slopes without their sign say nothing: the rate stays.
        let (constant, blind) = noisy(name, &[], lr, 20_000, 1.0, f64::abs);
        assert_eq!((blind.cuts(), blind.controller.scale()), (0, 1.0), "{name}");
        assert!(walk.cuts() > 5 && cut < 0.1 * constant, "{name}: {cut} with cuts, {constant} without");
        // Of the horizon nothing is known: ten times the steps, about a tenth of the excess.
        let (early, _) = noisy(name, &[], lr, 2_000, 1.0, |d| d);
        assert!(cut < 0.3 * early, "{name}: {early} after 2,000 steps, {cut} after 20,000");
    }
}

#[test]
fn a_rate_above_the_edge_of_stability_is_found_at_the_first_look() {
    // (Adam at a rate of 10 is no such case: it leaps once, and then its losses fall, so that nothing asks for a cut.)
    // Curvatures of 0.1 and 1: SGD is stable below a rate of 2. Losses grow by 1.4² a step until the cut to 0.7·2.4 = 1.68.
    let mut w = Walk::new("sgd", &[("momentum", "0")], &[1.0, 1.0], &gvc());
    for _ in 0..400 {
        let g: Vec<f64> = w.weights().iter().zip([0.1, 1.0]).map(|(w, h)| h * w).collect();
        let loss = w.weights().iter().zip(&g).map(|(w, g)| 0.5 * w * g).sum();
        w.step(&g, loss, 2.4, |d| d);
    }
    let (step, first) = w.decisions[0];
    assert!(first.cut && step <= 21, "first decision at step {step}: {first:?}");
    assert!(
        w.cuts() == 1 && w.weights().iter().all(|w| w.abs() < 1e-6),
        "{:?}: {:?}",
        w.weights(),
        w.decisions
    );
}

#[test]
fn it_goes_on_from_its_state_to_the_bit() {
    let mut rng = Key::new(3, 3).rng();
    let slopes: Vec<[f64; 2]> = (0..5_000).map(|_| [rng.normal() + 0.05, rng.normal()]).collect();
    let mut whole = gvc().build().unwrap().unwrap();
    let all: Vec<_> = slopes.iter().map(|&[d, l]| whole.observe(d, l)).collect();
    let mut first = gvc().build().unwrap().unwrap();
    let mut got: Vec<_> = slopes[..1_234].iter().map(|&[d, l]| first.observe(d, l)).collect();
    let mut second = gvc().build().unwrap().unwrap();
    second.restore(first.state().clone());
    got.extend(slopes[1_234..].iter().map(|&[d, l]| second.observe(d, l)));
    assert_eq!(all, got);
    assert!(all.iter().flatten().any(|d| d.cut) && all.iter().flatten().any(|d| !d.cut));
}

#[test]
fn impossible_settings_are_named() {
    let bad = |c: ControllerConfig| c.build().unwrap_err().to_string();
    assert!(bad(ControllerConfig { window: 5, ..gvc() }).contains("controller.window"));
    assert!(bad(ControllerConfig { factor: 1.0, ..gvc() }).contains("controller.factor"));
    assert!(bad(ControllerConfig { factor: f64::NAN, ..gvc() }).contains("controller.factor"));
    assert!(bad(ControllerConfig { threshold: 9.0, ..gvc() }).contains("controller.threshold"));
    assert!(bad(ControllerConfig { threshold: f64::NAN, ..gvc() }).contains("controller.threshold"));
    assert!(bad(ControllerConfig { fall: f64::NAN, ..gvc() }).contains("controller.fall"));
    assert!(bad(ControllerConfig { raise: -1.0, ..gvc() }).contains("controller.raise"));
}

/// Across a steep valley every step goes too far, along it every step gets on: not a reason to cut while losses fall.
#[test]
fn slopes_alone_cut_nothing_while_losses_fall() {
    for (falls, cuts) in [(1.0, 0), (0.0, 5)] {
        let mut controller = gvc().build().unwrap().unwrap();
        let mut rng = Key::new(4, 4).rng();
        let observed: Vec<_> = (0..3_000)
            .filter_map(|t| {
                controller.observe(-1.0 + 0.1 * rng.normal(), rng.normal() - falls * 0.02 * t as f64)
            })
            .collect();
        let found = observed.iter().filter(|d| d.cut).count();
        assert!(found >= cuts && (cuts > 0 || found == 0), "{found} cuts: {observed:?}");
    }
}

#[test]
fn raising_finds_a_rate_from_one_that_is_far_too_low() {
    let mut low = Walk::new("sgd", &[], &[1.0; 4], &gvc());
    let mut raised = Walk::new("sgd", &[], &[1.0; 4], &ControllerConfig { raise: 3.0, ..gvc() });
    for w in [&mut low, &mut raised] {
        for _ in 0..3_000 {
            let g = w.weights();
            let loss = g.iter().map(|g| 0.5 * g * g).sum();
            w.step(&g, loss, 1e-5, |d| d);
        }
    }
    assert!(low.weights()[0] > 0.9 && raised.weights()[0] < 1e-3, "{:?}", raised.weights());
}

//! Layers of windowed and dynamic attention in a whole model: gradients, the cache, recomputation, the future, and what
//! a config may not say.

mod common;

use common::compare_gradients;
use ringtape::device::Device;
use ringtape::nn::attention::{Dense, Form, Place, Span, notice};
use ringtape::nn::{
    self, Attention, DynamicConfig, Gpt, Io, Model, ModelConfig, Module, Positions, Sampler, is_dense,
};
use ringtape::shape::DType;
use ringtape::tape::{Grads, Params, ParamsBuilder, Tape, Var};
use ringtape::tensor::Tensor;

const SYMBOLS: usize = 7;

fn windows() -> DynamicConfig {
    DynamicConfig {
        window: 4,
        ramp: 3.0,
        width: 5.0,
        block: 16,
        blocks: 2,
        dense: Dense::Never,
        ..Default::default()
    }
}

fn config(dynamic: DynamicConfig, router: &str) -> ModelConfig {
    ModelConfig {
        layers: 2,
        dim: 8,
        heads: 2,
        context: 80,
        attention: Attention::Dynamic,
        router: router.into(),
        dynamic,
        ..ModelConfig::default()
    }
}

fn model(config: &ModelConfig, checkpoint: bool, dtype: DType) -> (Gpt, Params) {
    let mut p = ParamsBuilder::new(&Device::cpu(), dtype, 11);
    let Model::Gpt(gpt) = nn::build(config, &Io::Tokens { vocabulary: SYMBOLS }, checkpoint, &mut p).unwrap()
    else {
        panic!("a gpt was asked for")
    };
    (*gpt, p.build().unwrap())
}

/// Every kind of window, with and without routers.
fn configs() -> Vec<(&'static str, ModelConfig)> {
    let w = windows;
    let place = |place, form, span| DynamicConfig { place, form, span, ..w() };
    let lag = place(Place::Lag, Form::Gaussian, Span::Head);
    let shifted = |c| ModelConfig { shift: 3, qk_norm: true, positions: Positions::Rotary, ..c };
    let sorted = DynamicConfig { hashes: 1, buckets: 4, chunk: 8, ..w() };
    vec![
        ("window", ModelConfig { attention: Attention::Window, ..config(w(), "none") }),
        ("learned span", config(w(), "none")),
        ("span of each token", config(DynamicConfig { span: Span::Token, ..w() }, "none")),
        ("lag", config(lag.clone(), "none")),
        ("predicted place", config(place(Place::Predicted, Form::Ramp, Span::Fixed), "none")),
        ("lsh", config(w(), "lsh")),
        ("lsh by lengths too, a lag", config(DynamicConfig { lengths: true, ..lag }, "lsh")),
        ("lsh, shift, normalised queries and keys", shifted(config(w(), "lsh"))),
        ("gate", config(w(), "gate")),
        ("lsh, shared keys", config(DynamicConfig { shared_keys: true, ..w() }, "lsh")),
        ("lsh, a recall head, turned others", shifted(ModelConfig { recall_heads: 1, ..config(w(), "lsh") })),
        ("window, recall heads alone", shifted(ModelConfig { recall_heads: 2, ..config(w(), "none") })),
        ("indexer", config(DynamicConfig { index_heads: 2, index_width: 3, ..w() }, "indexer")),
        ("random", config(w(), "random")),
        ("sort", config(sorted.clone(), "sort")),
        ("sort, shift, normalised queries", shifted(config(sorted, "sort"))),
    ]
}

/// Without `sort`, whose choice of blocks depends on later tokens: see `router::SORT`.
fn causal_configs() -> impl Iterator<Item = (&'static str, ModelConfig)> {
    configs().into_iter().filter(|(_, c)| c.router != "sort")
}

fn text(n: usize, seed: usize) -> Vec<i32> {
    (0..n).map(|i| ((i * i * 5 + i / 3 + seed * i) % SYMBOLS) as i32).collect()
}

fn ids(v: &[i32]) -> Tensor {
    Tensor::from_slice(&Device::cpu(), v, &[1, v.len()]).unwrap()
}

fn loss<'t>(gpt: &Gpt, tape: &'t Tape, v: &[i32]) -> Var<'t> {
    let (logits, penalty) = gpt.forward_penalised(&tape.constant(ids(&v[..v.len() - 1]))).unwrap();
    let loss = logits.cross_entropy(&tape.constant(ids(&v[1..]))).unwrap();
    match penalty {
        Some(p) => loss.add(&p).unwrap(),
        None => loss,
    }
}

fn gradients(gpt: &Gpt, params: &Params, tape: &Tape, v: &[i32]) -> Grads {
    let mut grads = Grads::new(params).unwrap();
    tape.backward(&loss(gpt, tape, v), &mut grads).unwrap();
    grads
}

/// Central differences on a few elements of every slot, in f64.
#[test]
fn every_parameter_of_windows_has_the_right_gradient() {
    for (what, config) in configs() {
        let config = ModelConfig { dynamic: DynamicConfig { penalty: 0.3, ..config.dynamic }, ..config };
        let (gpt, mut params) = model(&config, false, DType::F64);
        // Off the kinks of a window that begins at a whole number.
        for slot in
            params.all().filter(|&s| params.info(s).name.contains("attention.span")).collect::<Vec<_>>()
        {
            let old = params.get(slot).deep_clone().unwrap();
            let x: Vec<f64> = old.to_f64().unwrap().iter().map(|x| x + 0.037).collect();
            params.set(slot, &Tensor::from_slice(&Device::cpu(), &x, old.dims()).unwrap()).unwrap();
        }
        let v = text(60, 1);
        let grads = gradients(&gpt, &params, &Tape::new(&params), &v);
        let loss = |params: &Params| loss(&gpt, &Tape::new(params), &v).value().item().unwrap();
        compare_gradients(what, &mut params, &grads, [1e-6, 2e-6], loss);
    }
}

#[test]
fn every_trained_parameter_gets_a_gradient() {
    for (what, config) in configs() {
        let (gpt, params) = model(&config, false, DType::F32);
        let grads = gradients(&gpt, &params, &Tape::train(&params, 3, 1), &text(60, 1));
        assert!(grads.missing().is_empty(), "{what}: no gradient reached {:?}", grads.missing());
        let spans = params.all().filter(|&s| {
            let name = &params.info(s).name;
            name.contains("attention.span")
                || name.contains("attention.lag")
                || name.contains("attention.width")
        });
        for slot in spans.filter(|&s| !params.info(s).name.ends_with("weight")) {
            let g = grads.get(slot).unwrap().to_f64().unwrap();
            assert!(g.iter().any(|g| *g != 0.0), "{what}: {} does not learn", params.info(slot).name);
        }
    }
}

/// Hashing draws new rotations at each step: the recomputation in backward must draw the same.
#[test]
fn recomputing_layers_changes_no_bit() {
    for (what, config) in configs() {
        let (plain, params) = model(&config, false, DType::F32);
        let (replayed, _) = model(&config, true, DType::F32);
        let v = text(60, 2);
        let [a, b] = [&plain, &replayed].map(|m| gradients(m, &params, &Tape::train(&params, 3, 5), &v));
        for slot in params.all().filter(|&s| a.get(s).is_some()) {
            let bytes = |g: &Grads| g.get(slot).unwrap().as_bytes().unwrap().to_vec();
            assert_eq!(bytes(&a), bytes(&b), "{what}: {}", params.info(slot).name);
        }
    }
}

fn logits(gpt: &Gpt, params: &Params, v: &[i32]) -> Vec<f64> {
    let tape = Tape::eval(params);
    gpt.forward(&tape.constant(ids(v))).unwrap().value().to_f64().unwrap()
}

#[test]
fn a_token_changes_no_bit_of_what_stands_before_it() {
    for (what, config) in causal_configs() {
        let (gpt, mut params) = model(&config, false, DType::F32);
        // Wide attention, so that a leak would show.
        for slot in params.all().collect::<Vec<_>>() {
            if params.info(slot).name.contains("qkv") {
                let x: Vec<f64> = params.get(slot).to_f64().unwrap().iter().map(|x| x * 40.0).collect();
                let t = Tensor::from_f64(&Device::cpu(), DType::F32, &x, params.get(slot).dims()).unwrap();
                params.set(slot, &t).unwrap();
            }
        }
        let v = text(80, 3);
        let before = logits(&gpt, &params, &v);
        for t in [1, 16, 33, 64, 79] {
            let mut other = v.clone();
            other[t] = (other[t] + 1) % SYMBOLS as i32;
            let after = logits(&gpt, &params, &other);
            assert_eq!(before[..t * SYMBOLS], after[..t * SYMBOLS], "{what}: token {t}");
            assert_ne!(before[t * SYMBOLS..], after[t * SYMBOLS..], "{what}: token {t}");
        }
    }
}

#[test]
fn cached_logits_equal_uncached_ones() {
    for (what, config) in causal_configs() {
        let (gpt, params) = model(&config, false, DType::F32);
        let v = text(75, 4);
        let mut cache = gpt.cache();
        let mut last = gpt.feed(&params, &mut cache, &v[..40]).unwrap();
        for n in 40..75 {
            let full = logits(&gpt, &params, &v[..n]);
            let cached = last.to_f64().unwrap();
            for (a, b) in cached.iter().zip(&full[(n - 1) * SYMBOLS..]) {
                assert!((a - b).abs() < 1e-5, "{what}, token {n}: {a} cached, {b} uncached");
            }
            last = gpt.feed(&params, &mut cache, &v[n..=n]).unwrap();
        }
    }
}

#[test]
fn a_router_that_looks_ahead_is_refused_by_generation_and_inspected_all_the_same() {
    for (what, config) in configs().into_iter().filter(|(_, c)| c.router == "sort") {
        let (gpt, params) = model(&config, false, DType::F32);
        let e = gpt.feed(&params, &mut gpt.cache(), &text(20, 4)).unwrap_err().to_string();
        assert!(
            e.contains("model.router") && e.contains("`sort`") && e.contains("lsh, gate, indexer"),
            "{what}: {e}"
        );
        let sampler = Sampler { temperature: 0.0, top_k: 0, seed: 1 };
        assert!(gpt.generate(&params, &[1], 1, &sampler, |_| panic!("no token may come")).is_err());
        let heads = gpt.inspect(&params, &ids(&text(75, 4))).unwrap();
        assert!(heads.iter().any(|h| h.blocks.unwrap() > 0.0), "{what}: no block was routed");
        assert!(gpt.router().unwrap().notice().unwrap().contains("sort"));
    }
    assert!(
        causal_configs()
            .all(|(_, c)| model(&c, false, DType::F32).0.router().is_none_or(|r| r.notice().is_none()))
    );
}

/// Twice the loss of the indexer is twice the gradient of its maps and the same bits of every other: neither the layer's
/// input nor its attention learns from it. A text too short to choose from gives it a gradient too, of 0.
#[test]
fn the_loss_of_an_indexer_reaches_its_own_maps_alone() {
    let of = |index_loss| {
        let config = config(DynamicConfig { index_loss, ..windows() }, "indexer");
        let (gpt, params) = model(&config, false, DType::F32);
        let grads = gradients(&gpt, &params, &Tape::train(&params, 3, 5), &text(60, 2));
        let all =
            params.all().map(|s| (params.info(s).name.clone(), grads.get(s).unwrap().to_f64().unwrap()));
        all.collect::<Vec<_>>()
    };
    for ((name, once), (_, twice)) in of(1.0).into_iter().zip(of(2.0)) {
        let own = name.contains("attention.router");
        let want: Vec<f64> = once.iter().map(|g| if own { 2.0 * g } else { *g }).collect();
        assert_eq!(twice, want, "{name}");
        assert!(once.iter().any(|g| *g != 0.0), "{name} does not learn");
    }
    let (gpt, params) = model(&config(windows(), "indexer"), false, DType::F32);
    for n in [10, 20] {
        let grads = gradients(&gpt, &params, &Tape::train(&params, 3, 1), &text(n, 1));
        assert!(grads.missing().is_empty(), "{n} tokens: {:?}", grads.missing());
    }
}

/// Where keys are queries, the layer has no weights for keys, and a query's product with itself is its length.
#[test]
fn keys_of_sorted_layers_are_their_queries() {
    let find = |c: &ModelConfig, name: &str| {
        let (_, params) = model(c, false, DType::F32);
        let found = params.all().find(|&s| params.info(s).name == name);
        found.map(|s| params.get(s).dims().to_vec())
    };
    let (lsh, sort) = (config(windows(), "lsh"), config(windows(), "sort"));
    assert_eq!(find(&lsh, "blocks.0.attention.qkv.weight"), Some(vec![24, 8]));
    assert_eq!(find(&sort, "blocks.0.attention.qv.weight"), Some(vec![16, 8]));
    assert_eq!(find(&sort, "blocks.0.attention.qkv.weight"), None);
    // Dense attention in its place has keys of its own, and can generate.
    let short = ModelConfig { dynamic: DynamicConfig { dense: Dense::Auto, ..windows() }, ..sort };
    assert!(is_dense(&short));
    assert_eq!(find(&short, "blocks.0.attention.qkv.weight"), Some(vec![24, 8]));
    let (gpt, params) = model(&short, false, DType::F32);
    assert!(gpt.feed(&params, &mut gpt.cache(), &text(20, 4)).is_ok());
}

/// The report is held against sums over all keys, for one head of known windows.
#[test]
fn density_is_what_a_window_of_four_sees() {
    let (gpt, params) = model(&configs()[0].1, false, DType::F32);
    let heads = gpt.inspect(&params, &ids(&text(60, 5))).unwrap();
    assert_eq!(heads.len(), 4);
    let seen: usize = (0..60).map(|i: usize| (i + 1).min(4)).sum();
    for h in heads {
        assert_eq!((h.span, h.lag, h.blocks), (3.0, None, None));
        assert!((h.density - seen as f64 / (60.0 * 61.0 / 2.0)).abs() < 1e-12, "{h:?}");
        // Weights are small at first, so attention is nearly even and recall is near the mean share of keys.
        let even: f64 = (0..60).map(|i| f64::min(4.0 / (i + 1) as f64, 1.0)).sum::<f64>() / 60.0;
        assert!((h.recall - even).abs() < 0.01, "{h:?} {even}");
    }
}

#[test]
fn short_contexts_are_dense_unless_told_otherwise() {
    let auto = |context, router| ModelConfig {
        context,
        dynamic: DynamicConfig { window: 64, ..Default::default() },
        ..config(windows(), router)
    };
    assert!(is_dense(&auto(128, "none")) && !is_dense(&auto(256, "none")));
    assert!(is_dense(&auto(1024, "lsh")) && !is_dense(&auto(2048, "lsh")));
    assert!(!is_dense(&config(windows(), "lsh")));
    let said = notice(&auto(128, "none")).unwrap();
    assert!(said.contains("model.context is 128") && said.contains("model.dynamic.dense"), "{said}");
    assert_eq!(notice(&auto(256, "none")), None);
}

#[test]
fn impossible_windows_name_their_key() {
    let base = || config(windows(), "lsh");
    let dynamic = |d| ModelConfig { dynamic: d, ..base() };
    let bad = |c: ModelConfig, key: &str, value: &str| {
        let e = c.validate().unwrap_err().to_string();
        assert!(e.contains(key) && e.contains(value), "{e}");
    };
    assert!(base().validate().is_ok());
    bad(dynamic(DynamicConfig { window: 0, ..windows() }), "model.dynamic.window", "is 0");
    bad(dynamic(DynamicConfig { window: 81, ..windows() }), "model.dynamic.window", "is 81");
    bad(dynamic(DynamicConfig { rounds: 65, ..windows() }), "model.dynamic.rounds", "is 65");
    bad(dynamic(DynamicConfig { rounds: 40, hashes: 2, ..windows() }), "model.dynamic.hashes", "is 2");
    bad(dynamic(DynamicConfig { buckets: 7, ..windows() }), "model.dynamic.buckets", "is 7");
    bad(dynamic(DynamicConfig { block: 48, ..windows() }), "model.dynamic.block", "is 48");
    bad(dynamic(DynamicConfig { chunk: 0, ..windows() }), "model.dynamic.chunk", "is 0");
    bad(dynamic(DynamicConfig { index_loss: 0.0, ..windows() }), "model.dynamic.index_loss", "is 0");
    bad(dynamic(DynamicConfig { index_heads: 0, ..windows() }), "model.dynamic.index_heads", "is 0");
    bad(dynamic(DynamicConfig { ramp: 0.0, ..windows() }), "model.dynamic.ramp", "is 0");
    bad(dynamic(DynamicConfig { penalty: f64::NAN, ..windows() }), "model.dynamic.penalty", "NaN");
    bad(
        dynamic(DynamicConfig { width: 90.0, place: Place::Lag, ..windows() }),
        "model.dynamic.width",
        "is 90",
    );
    bad(ModelConfig { router: "lhs".into(), ..base() }, "model.router", "did you mean `lsh`");
    bad(ModelConfig { attention: Attention::Dense, ..base() }, "model.router", "lsh");
    bad(ModelConfig { attention: Attention::Window, ..base() }, "model.router", "lsh");
}

//! What the `bench` verb does not run: AdamW over the weights of a GPT or over one large matrix; random windows of a packed
//! file of 2 GB, and all of it in order. `pytorch_adamw.py` and `numpy_loader.py` run it in turns with the same work there,
//! `cold_loader.py` beside `dd`.
//!
//! ```sh
//! cargo bench --bench parts -- adamw gpt 4 128     # layers, width
//! cargo bench --bench parts -- adamw matrix 8192
//! cargo bench --bench parts -- pack FILE           # 2^30 tokens of two bytes
//! cargo bench --bench parts -- loader FILE
//! cargo bench --bench parts -- epoch FILE mmap     # data.map: mmap, read, sealed
//! ```
//! Prints JSON: seconds of a run, median and fastest; of `epoch`, seconds and bytes of one pass.

use ringtape::cli::bench::{Case, Timing, measure};
use ringtape::data::{About, Access, Field, Loader, LoaderOptions, Permutation, Rtd, Windows, Writer};
use ringtape::device::Device;
use ringtape::error::Result;
use ringtape::optim;
use ringtape::rng::Key;
use ringtape::shape::DType;
use ringtape::tape::{Grads, Init, Params, ParamsBuilder, Role};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

const WINDOW: usize = 1024;
const BATCH: usize = 16;
const SECONDS: f64 = 0.5;

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    // Cargo adds --bench of its own.
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let timings = match args[..] {
        ["adamw", "gpt", layers, dim] => adamw(gpt(layers.parse()?, dim.parse()?)?)?,
        ["adamw", "matrix", n] => adamw(matrix(n.parse()?)?)?,
        ["pack", path] => return Ok(pack(path)?),
        ["loader", path] => loader(path)?,
        ["epoch", path, access] => return Ok(epoch(path, access.parse()?)?),
        _ => vec![], // as `cargo bench` runs it, with nothing asked for
    };
    println!("{}", serde_json::to_string(&timings)?);
    Ok(())
}

/// The weights of a character GPT: context and vocabulary 256, biases and norms beside the matrices.
fn gpt(layers: usize, dim: usize) -> Result<Params> {
    let mut p = ParamsBuilder::new(&Device::cpu(), DType::F32, 0);
    let mut add = |name: String, dims: &[usize]| {
        let role = if dims.len() > 1 { Role::Decay } else { Role::Plain };
        p.add(name, dims, Init::Normal(0.02), role)
    };
    add("token".into(), &[256, dim])?;
    add("position".into(), &[256, dim])?;
    for i in 0..layers {
        for (name, rows, columns) in
            [("qkv", 3 * dim, dim), ("out", dim, dim), ("up", 4 * dim, dim), ("down", dim, 4 * dim)]
        {
            add(format!("{i}.{name}.weight"), &[rows, columns])?;
            add(format!("{i}.{name}.bias"), &[rows])?;
        }
        for norm in ["norm1", "norm2"] {
            add(format!("{i}.{norm}.weight"), &[dim])?;
            add(format!("{i}.{norm}.bias"), &[dim])?;
        }
    }
    add("norm.weight".into(), &[dim])?;
    add("norm.bias".into(), &[dim])?;
    add("head".into(), &[256, dim])?;
    p.build()
}

fn matrix(n: usize) -> Result<Params> {
    let mut p = ParamsBuilder::new(&Device::cpu(), DType::F32, 0);
    p.add("weight", &[n, n], Init::Normal(0.02), Role::Decay)?;
    p.build()
}

fn adamw(mut params: Params) -> Result<Vec<Timing>> {
    let mut grads = Grads::new(&params)?;
    for i in 0..params.segments().len() {
        let Some(g) = grads.segment_mut::<f32>(i) else { continue };
        g.iter_mut().enumerate().for_each(|(k, g)| *g = ((k * 37 % 101) as f32 - 50.0) * 1e-3);
    }
    let mut optimizer = optim::find("adamw", &[])?.build_with(&[("weight_decay", "0.1")], &params)?;
    let (elements, slots) = (params.trained_len() as f64, params.slots().len());
    let case = Case::timed("adamw", &format!("{elements} weights in {slots} slots"), || {
        optimizer.step(&mut params, &grads, 3e-4)
    });
    // w, g, m and v are read; w, m and v are written.
    measure(vec![Case { elements, bytes: 28.0 * elements, ..case }], SECONDS)
}

fn pack(path: &str) -> Result<()> {
    let mut w = Writer::create(path, About { name: "random tokens".into(), ..About::default() })?;
    w.field(Field::tokens(DType::U16, 50_257))?;
    let key = Key::new(0, 0);
    for piece in 0..1_u64 << 10 {
        let words = (0..1_u64 << 18).map(|i| key.block(piece << 18 | i));
        let tokens = words.flatten().map(|word| ((u64::from(word) * 50_257) >> 32) as u16);
        let bytes: Vec<u8> = tokens.flat_map(u16::to_le_bytes).collect();
        w.write(&bytes)?;
    }
    let count = w.count();
    w.split("train", 0, count);
    w.finish()?;
    let set = Rtd::open(path, Access::Mmap)?;
    println!("{}", serde_json::json!({ "offset": set.header().fields[0].offset, "tokens": count }));
    Ok(())
}

fn loader(path: &str) -> Result<Vec<Timing>> {
    let set = Arc::new(Rtd::open(path, Access::Mmap)?);
    let field = set.header().fields[0].clone();
    // Each page is touched once, and each checksum compared: what is timed is a warm page cache.
    let (mut scratch, step) = (vec![], 1 << 20);
    for first in (0..field.count).step_by(step) {
        black_box(sum(set.samples(&field, first, (step as u64).min(field.count - first), &mut scratch)?));
    }
    let windows = field.count / WINDOW as u64;
    let order = Permutation::new(1, 0, windows);
    let (views, mut at) = (set.clone(), 0);
    let case = Case::timed("views", "16 x 1024 u16", move || {
        for _ in 0..BATCH {
            let first = order.index(at % windows) * WINDOW as u64;
            black_box(sum(views.samples(&field, first, WINDOW as u64, &mut scratch)?));
            at += 1;
        }
        Ok(())
    });
    let mut cases = vec![case];
    for prefetch in [0, 2] {
        let options = LoaderOptions { batch: BATCH, prefetch, ..LoaderOptions::default() };
        let data = Windows::training(set.clone(), "train", WINDOW)?;
        let mut loader = Loader::new(data, &Device::cpu(), &options)?;
        cases.push(Case::timed(
            "loader",
            &format!("16 x 1024 i32, input and target, prefetch {prefetch}"),
            move || {
                let batch = loader.next().expect("loaders go on for ever")?;
                for (_, tensor) in batch.fields() {
                    black_box(tensor.as_slice::<i32>()?.iter().map(|&id| i64::from(id)).sum::<i64>());
                }
                Ok(())
            },
        ));
    }
    measure(cases, SECONDS)
}

/// One pass in file order, as an evaluation makes it, each number of each batch looked at.
fn epoch(path: &str, access: Access) -> Result<()> {
    let start = Instant::now();
    let set = Arc::new(Rtd::open(path, access)?);
    let bytes = set.header().fields[0].bytes();
    let data = Windows::evaluation(set, "train", WINDOW)?;
    for batch in Loader::new(data, &Device::cpu(), &LoaderOptions::evaluation(BATCH))? {
        for (_, tensor) in batch?.fields() {
            black_box(tensor.as_slice::<i32>()?.iter().map(|&id| i64::from(id)).sum::<i64>());
        }
    }
    println!("{}", serde_json::json!({ "seconds": start.elapsed().as_secs_f64(), "bytes": bytes }));
    Ok(())
}

/// Sum of stored tokens.
fn sum(bytes: &[u8]) -> u64 {
    let (tokens, _) = bytes.as_chunks::<2>();
    tokens
        .chunks(WINDOW)
        .map(|c| u64::from(c.iter().map(|&b| u32::from(u16::from_le_bytes(b))).sum::<u32>()))
        .sum()
}

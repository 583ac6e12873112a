//! `optim list` and `optim NAME`: an optimizer on given weights and gradients, to be compared with any other program's.

use super::session::{Session, note, say};
use super::tensors::{self, Source, listed};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::ops::PortKind;
use crate::optim::{self, Entry, Probe, Step};
use crate::shape::{DType, Spec};
use crate::tape::{Grads, Init, Params, ParamsBuilder, Role};
use crate::tensor::Tensor;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  ringtape optim list
  ringtape optim adamw --in x.safetensors --out y.safetensors --attr lr=1e-2 --attr betas=0.9,0.99
  ringtape optim sgd   --in x.safetensors --out y.safetensors --attr lr=0.1 --attr momentum=0.9

x holds `w`, the weights at the start, and `g` [steps, …shape of w], the gradient of each step; for an optimizer that takes
two gradients a step (vsgd_fd) also `g_fd`, shaped as g, the second ones. y will hold `w` [steps, …shape of w], the weights
after each step. Attributes are those of torch.optim; lr is 1e-3 when not given.";

/// List the optimizers, or run one on weights and gradients from a safetensors file
#[derive(clap::Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct Args {
    #[command(subcommand)]
    list: Option<List>,
    #[command(flatten)]
    run: Option<Steps>,
}

#[derive(clap::Subcommand)]
enum List {
    /// List every optimizer: attributes with defaults, state
    List {
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(clap::Args)]
struct Steps {
    /// Name of the optimizer
    #[arg(required = true)]
    name: String,
    /// Safetensors file with `w` and `g`
    #[arg(long = "in", value_name = "X.safetensors", required = true)]
    input: PathBuf,
    /// File to write the weights after each step to
    #[arg(long = "out", value_name = "Y.safetensors", required = true)]
    output: PathBuf,
    /// An attribute, as `optim list` names it; may be repeated
    #[arg(long = "attr", value_name = "K=V", value_parser = super::key_value)]
    attrs: Vec<(String, String)>,
    /// Element type to compute in
    #[arg(long, default_value = "f32", value_parser = ["f32", "f64"])]
    dtype: String,
}

/// Learning rate of torch.optim when none is given.
const LR: f64 = 1e-3;

pub(super) fn run(session: &Session<'_>, args: Args) -> Result<()> {
    match (args.list, args.run) {
        (Some(List::List { json }), _) => list(session, json),
        (None, Some(steps)) => compute(session, steps),
        // clap's requirements do not let this through.
        (None, None) => Err(Error::Usage("name an optimizer, or `optim list`".into())),
    }
}

fn list(session: &Session<'_>, json: bool) -> Result<()> {
    let entries = || session.extensions.optimizers.iter().chain(optim::ALL);
    if json {
        let attr = |a: &crate::attrs::AttrDoc| serde_json::json!({ "name": a.name, "default": a.default, "doc": a.doc });
        let row = |e: &&'static Entry| {
            let attrs: Vec<_> = e.attrs.iter().map(attr).collect();
            serde_json::json!({ "name": e.name, "doc": e.doc, "state": e.state, "attrs": attrs })
        };
        let all: Vec<_> = entries().map(row).collect();
        return say!(session, "{}", super::json(&all)?);
    }
    for e in entries() {
        let attrs: Vec<String> =
            e.attrs.iter().map(|a| format!("{}={}", a.name, a.default.unwrap_or("?"))).collect();
        say!(session, "{}(lr={LR}, {})", e.name, attrs.join(", "))?;
        say!(session, "    {}; keeps {}", e.doc, e.state)?;
        for a in e.attrs {
            say!(session, "    {}: {}", a.name, a.doc)?;
        }
    }
    Ok(())
}

/// The learning rate, and the attributes that the optimizer itself takes; `betas=a,b` is what torch calls beta1 and beta2.
fn attributes(given: &[(String, String)]) -> Result<(f64, Vec<(String, String)>)> {
    let (mut lr, mut rest) = (LR, Vec::new());
    for (key, value) in given {
        match key.as_str() {
            "lr" => {
                let parsed = value.parse().ok().filter(|x: &f64| x.is_finite() && *x > 0.0);
                lr = parsed.ok_or_else(|| {
                    Error::Usage(format!("attribute `lr` is `{value}`, but must be a number above 0, as 0.001: at 0 nothing is learned"))
                })?;
            }
            "betas" => {
                let bare = value.trim_matches(['(', ')', '[', ']', ' ']);
                let (a, b) = bare.split_once(',').ok_or_else(|| {
                    Error::Usage(format!(
                        "attribute `betas` is `{value}`, but must be two numbers: 0.9,0.999"
                    ))
                })?;
                rest.push(("beta1".into(), a.trim().into()));
                rest.push(("beta2".into(), b.trim().into()));
            }
            _ => rest.push((key.clone(), value.clone())),
        }
    }
    Ok((lr, rest))
}

fn compute(session: &Session<'_>, args: Steps) -> Result<()> {
    let entry = optim::find(&args.name, session.extensions.optimizers)?;
    let (lr, attrs) = attributes(&args.attrs)?;
    let dtype = if args.dtype == "f64" { DType::F64 } else { DType::F32 };
    let device = Device::cpu();
    let source = Source::read(&args.input)?;
    let file = source.open()?;
    if let Some(other) = file.names().into_iter().find(|n| !matches!(*n, "w" | "g" | "g_fd")) {
        let what = format!("takes no tensor `{other}`; it takes {}", listed(&["w", "g", "g_fd"]));
        return Err(Error::shape(entry.name, what));
    }
    let w = file.get(&device, "w", PortKind::Real, dtype)?;
    let g = file.get(&device, "g", PortKind::Real, dtype)?;
    if g.dims().is_empty() || g.dims()[1..] != *w.dims() {
        let what =
            format!("g has shape {}, but must be [steps, …] with {} for each step", g.shape(), w.shape());
        return Err(Error::shape(entry.name, what));
    }
    let second = match file.names().contains(&"g_fd") {
        true => Some(file.get(&device, "g_fd", PortKind::Real, dtype)?),
        false => None,
    };
    if let Some(second) = second.as_ref().filter(|s| s.dims() != g.dims()) {
        let what = format!("g_fd has shape {}, but must be shaped as g, {}", second.shape(), g.shape());
        return Err(Error::shape(entry.name, what));
    }
    let result = walk(entry, &attrs, lr, &w, &g, second.as_ref())?;
    tensors::write(&args.output, &args.input, &[("w".into(), result)])?;
    note!(session, "wrote w {} to {}", g.spec(), args.output.display());
    Ok(())
}

/// The weights after each step.
fn walk(
    entry: &Entry,
    attrs: &[(String, String)],
    lr: f64,
    w: &Tensor,
    g: &Tensor,
    second: Option<&Tensor>,
) -> Result<Tensor> {
    let mut builder = ParamsBuilder::new(w.device(), w.dtype(), 0);
    // Decayed if the optimizer decays: torch has one group for all.
    let slot = builder.add("w", w.dims(), Init::Constant(0.0), Role::Decay)?;
    let mut params = builder.build()?;
    params.set(slot, w)?;
    let mut optimizer = entry.build_with(attrs, &params)?;
    let mut grads = Grads::new(&params)?;
    let mut walked = Tensor::empty(w.device(), Spec::new(w.dtype(), g.dims())?)?;
    let n = w.len();
    for i in 0..g.dims()[0] {
        let fill = |grads: &mut Grads, from: &Tensor| {
            let segment = grads.flat_mut(0).ok_or_else(|| Error::shape(entry.name, "w holds no element"))?;
            segment.copy_from(0, &from.window(i * n, &[n])?)
        };
        fill(&mut grads, g)?;
        let mut probe = second.map(|s| move |_: &Params, grads: &mut Grads| fill(grads, s));
        let probe = probe.as_mut().map(|p| p as &mut Probe<'_>);
        optimizer.advance(&mut params, &grads, Step { probe, ..Step::new(lr) })?;
        walked.copy_from(i * n, &params.get(slot))?;
    }
    Ok(walked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn torch_attributes_are_understood() {
        let given = |k: &str, v: &str| attributes(&[(k.into(), v.into())]);
        let (lr, rest) = given("betas", "(0.9, 0.95)").unwrap();
        assert_eq!(lr, LR);
        assert_eq!(rest, [("beta1".into(), "0.9".into()), ("beta2".into(), "0.95".into())]);
        assert_eq!(given("lr", "0.5").unwrap().0, 0.5);
        assert!(
            given("lr", "fast").is_err()
                && given("lr", "nan").is_err()
                && given("lr", "0").is_err()
                && given("betas", "1").is_err()
        );
    }
}

//! `op list` and `op NAME`: any op on tensors from a file, forward and, when asked, backward.

use super::session::{Session, note, say};
use super::tensors::{self, Named, Source, listed};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::ops::{self, Entry, Kind, Port, PortKind};
use crate::shape::DType;
use crate::tape::{Grads, Params, Tape, Var};
use crate::tensor::Tensor;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  ringtape op list                                          names, inputs, attributes, formulas
  ringtape op relu --in x.safetensors --out y.safetensors   x holds `input`; y will hold `output`
  ringtape op softmax --in x.safetensors --out y.safetensors --attr dim=-1 --grad
        x also holds `dy`, the gradient of the output; y also holds `dinput`

Tensors are named as `op list` says. Inputs or outputs of any number are numbered: outputs.0, outputs.1, … With
--grad, the gradient of a single output is `dy`, of several `d<output>`; gradients of inputs are `d<input>`. Indices may be of any
integer type and are checked to fit i32; conditions are BOOL or U8. Half precision is widened.";

/// List the operations, or run one on tensors from a safetensors file
#[derive(clap::Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct Args {
    #[command(subcommand)]
    list: Option<List>,
    #[command(flatten)]
    run: Option<Run>,
}

#[derive(clap::Subcommand)]
enum List {
    /// List every operation: inputs, attributes with defaults, outputs, formula
    List {
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(clap::Args)]
struct Run {
    /// Name of the op
    #[arg(required = true)]
    name: String,
    /// Safetensors file with the inputs, by name
    #[arg(long = "in", value_name = "X.safetensors", required = true)]
    input: PathBuf,
    /// File to write the outputs to
    #[arg(long = "out", value_name = "Y.safetensors", required = true)]
    output: PathBuf,
    /// An attribute, as `op list` names it; may be repeated
    #[arg(long = "attr", value_name = "K=V", value_parser = super::key_value)]
    attrs: Vec<(String, String)>,
    /// Also compute the gradient of every real input
    #[arg(long)]
    grad: bool,
    /// Element type to compute in
    #[arg(long, default_value = "f32", value_parser = ["f32", "f64"])]
    dtype: String,
    /// Device to compute on
    #[arg(long, default_value = "cpu")]
    device: String,
}

pub(super) fn run(session: &Session<'_>, args: Args) -> Result<()> {
    match (args.list, args.run) {
        (Some(List::List { json }), _) => list(session, json),
        (None, Some(run)) => compute(session, run),
        // clap's requirements do not let this through.
        (None, None) => Err(Error::Usage("name an op, or `op list`".into())),
    }
}

/// One op for programs.
#[derive(serde::Serialize)]
struct Listed {
    name: &'static str,
    doc: &'static str,
    inputs: Vec<serde_json::Value>,
    outputs: &'static [&'static str],
    attrs: Vec<serde_json::Value>,
}

fn list(session: &Session<'_>, json: bool) -> Result<()> {
    let entries = || session.extensions.ops.iter().chain(ops::ALL);
    if json {
        let all: Vec<Listed> = entries().map(|e| row(e)).collect();
        return say!(session, "{}", super::json(&all)?);
    }
    for e in entries() {
        say!(session, "{}", signature(e))?;
        say!(session, "    {}", e.doc)?;
        for a in e.attrs {
            let default = match a.default {
                None => "must be given".into(),
                Some("") => "may be left out".into(),
                Some(d) => format!("default {d}"),
            };
            say!(session, "    {}: {}, {default}: {}", a.name, kind(a.kind), a.doc)?;
        }
    }
    note!(
        session,
        "\n{} ops; [x] may be left out. `ringtape help op` shows how to run one.",
        entries().count()
    );
    Ok(())
}

/// `layer_norm(input, [weight], [bias]; normalized_shape, eps=1e-5) -> output`.
fn signature(e: &Entry) -> String {
    let port = |p: &Port| {
        let kind = match p.kind {
            PortKind::Real => "",
            PortKind::Constant => ": constant",
            PortKind::Ids => ": ids",
            PortKind::Mask => ": mask",
        };
        let name = if p.variadic { format!("{0}.0, {0}.1, …", p.name) } else { p.name.to_string() };
        let name = name + kind;
        if p.optional { format!("[{name}]") } else { name }
    };
    let inputs: Vec<String> = e.inputs.iter().map(port).collect();
    let attr = |a: &ops::AttrDoc| match a.default {
        None => a.name.into(),
        Some("") => format!("[{}]", a.name),
        Some(d) => format!("{}={d}", a.name),
    };
    let attrs: Vec<String> = e.attrs.iter().map(attr).collect();
    let semicolon = if attrs.is_empty() { "" } else { "; " };
    format!("{}({}{semicolon}{}) -> {}", e.name, inputs.join(", "), attrs.join(", "), e.outputs.join(", "))
}

fn kind(k: Kind) -> String {
    match k {
        Kind::Int => "integer".into(),
        Kind::Real => "number".into(),
        Kind::Bool => "true|false".into(),
        Kind::Ints => "integers".into(),
        Kind::Word => "64-bit integer".into(),
        Kind::Choice(all) => all.join("|"),
    }
}

fn row(e: &Entry) -> Listed {
    let port = |p: &Port| {
        let kind = match p.kind {
            PortKind::Real => "real",
            PortKind::Constant => "constant",
            PortKind::Ids => "ids",
            PortKind::Mask => "mask",
        };
        serde_json::json!({ "name": p.name, "kind": kind, "optional": p.optional, "variadic": p.variadic })
    };
    let attr = |a: &ops::AttrDoc| serde_json::json!({ "name": a.name, "kind": kind(a.kind), "default": a.default, "doc": a.doc });
    Listed {
        name: e.name,
        doc: e.doc,
        inputs: e.inputs.iter().map(port).collect(),
        outputs: e.outputs,
        attrs: e.attrs.iter().map(attr).collect(),
    }
}

fn compute(session: &Session<'_>, args: Run) -> Result<()> {
    let device = Device::open(&args.device)?;
    let entry = ops::find(&args.name, session.extensions.ops)?;
    let op = entry.build_with(&args.attrs)?;
    let dtype = if args.dtype == "f64" { DType::F64 } else { DType::F32 };
    let source = Source::read(&args.input)?;
    let file = source.open()?;
    let inputs = gather(entry, &file, &device, dtype)?;

    let params = Params::none(&device);
    let tape = if args.grad { Tape::new(&params) } else { Tape::eval(&params) };
    let variable = |(_, kind, t): &(String, PortKind, Tensor)| match kind {
        PortKind::Real => tape.leaf(t.clone()),
        _ => Ok(tape.constant(t.clone())),
    };
    let vars: Vec<Var<'_>> = inputs.iter().map(variable).collect::<Result<_>>()?;
    let y = tape.apply_arc(op, &vars.iter().collect::<Vec<_>>())?;
    let names = output_names(entry, y.len());
    reject_unknown(entry, &file, &inputs, &names)?;

    let mut results: Vec<(String, Tensor)> = Vec::new();
    if args.grad {
        results = gradients(&tape, &params, &file, &inputs, &vars, &names, &y)?;
    }
    results.splice(0..0, names.into_iter().zip(y.iter().map(|v| v.value().clone())));
    tensors::write(&args.output, &args.input, &results)?;
    let made: Vec<String> = results.iter().map(|(n, t)| format!("{n} {}", t.spec())).collect();
    note!(session, "wrote {} to {}", made.join(", "), args.output.display());
    Ok(())
}

/// The inputs of `entry` in order, each with its name in the file.
fn gather(
    entry: &Entry,
    file: &Named<'_>,
    device: &Device,
    dtype: DType,
) -> Result<Vec<(String, PortKind, Tensor)>> {
    let mut found = Vec::new();
    for port in entry.inputs {
        let get = |name: String| Ok((name.clone(), port.kind, file.get(device, &name, port.kind, dtype)?));
        if port.variadic {
            let first = found.len();
            while found.len() == first || file.has(&entry.input_name(found.len())) {
                found.push(get(entry.input_name(found.len()))?);
            }
        } else if !port.optional || file.has(port.name) {
            // Inputs are told apart by position: one after a gap would be taken for the one that is missing.
            if let Some(gap) = entry.inputs.get(found.len()).filter(|p| p.name != port.name) {
                let what = format!("`{}` is given without `{}` before it", port.name, gap.name);
                return Err(Error::shape(entry.name, what));
            }
            found.push(get(port.name.into())?);
        }
    }
    Ok(found)
}

fn output_names(entry: &Entry, n: usize) -> Vec<String> {
    if entry.outputs == ["outputs"] {
        return (0..n).map(|i| format!("outputs.{i}")).collect();
    }
    entry.outputs.iter().map(|s| s.to_string()).collect()
}

/// Name of the gradient of output `i` in the file.
fn gradient_name(names: &[String], i: usize) -> String {
    if names.len() == 1 { "dy".into() } else { format!("d{}", names[i]) }
}

/// A name that the op does not know would be left unread without a word: it is most likely a misspelt optional input.
fn reject_unknown(
    entry: &Entry,
    file: &Named<'_>,
    inputs: &[(String, PortKind, Tensor)],
    outputs: &[String],
) -> Result<()> {
    let mut known: Vec<String> = inputs.iter().map(|(n, ..)| n.clone()).collect();
    known.extend(entry.inputs.iter().map(|p| p.name.to_string()));
    known.extend((0..outputs.len()).map(|i| gradient_name(outputs, i)));
    known.extend(outputs.iter().map(|o| format!("d{o}")));
    match file.names().into_iter().find(|n| !known.iter().any(|k| k == n)) {
        None => Ok(()),
        Some(n) => {
            let takes: Vec<&str> = entry.inputs.iter().map(|p| p.name).collect();
            Err(Error::shape(entry.name, format!("takes no tensor `{n}`; it takes {}", listed(&takes))))
        }
    }
}

/// The gradient of every real input, given those of the outputs.
fn gradients(
    tape: &Tape,
    params: &Params,
    file: &Named<'_>,
    inputs: &[(String, PortKind, Tensor)],
    vars: &[Var<'_>],
    names: &[String],
    y: &[Var<'_>],
) -> Result<Vec<(String, Tensor)>> {
    let differentiable: Vec<usize> = (0..y.len()).filter(|&i| y[i].has_gradient()).collect();
    let mut seeds = Vec::new();
    for &i in &differentiable {
        let (short, long) = (gradient_name(names, i), format!("d{}", names[i]));
        let name = if file.has(&short) || !file.has(&long) { short } else { long };
        // Of several outputs, those without a gradient in the file get none; of one, it must be there.
        if differentiable.len() > 1 && !file.has(&name) {
            continue;
        }
        let value = y[i].value();
        let dy = file.get(tape.device(), &name, PortKind::Real, value.dtype())?;
        if dy.shape() != value.shape() {
            let what = format!("`{name}` has shape {}, but `{}` has {}", dy.shape(), names[i], value.shape());
            return Err(Error::shape("op --grad", what));
        }
        seeds.push((&y[i], dy));
    }
    if seeds.is_empty() {
        let wanted: Vec<String> = differentiable.iter().map(|&i| gradient_name(names, i)).collect();
        let what = format!("--grad needs the gradient of an output in the file: {}", listed(&wanted));
        return Err(Error::Usage(what));
    }
    let leaves = tape.backward_from(&seeds, &mut Grads::new(params)?)?;
    let mut results = Vec::new();
    for ((name, kind, t), v) in inputs.iter().zip(vars) {
        if *kind == PortKind::Real {
            // No gradient reached it: it is zero.
            let d = leaves.get(v).cloned().map_or_else(|| Tensor::zeros(t.device(), t.spec()), Ok)?;
            results.push((format!("d{name}"), d));
        }
    }
    Ok(results)
}

//! `op`, `check`, `devices`, `completions` and `bench` as a user runs them: results, and what bad input gets.

mod cli_support;

use cli_support::{contents, program, ringtape, ringtape_in};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use std::fs;
use std::path::Path;
use std::process::Stdio;

/// A tensor to be stored: name, type, shape, bytes.
type Stored<'a> = (&'a str, Dtype, &'a [usize], Vec<u8>);

fn f32s(v: &[f32]) -> Vec<u8> {
    v.iter().flat_map(|x| x.to_le_bytes()).collect()
}
fn f64s(v: &[f64]) -> Vec<u8> {
    v.iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn store(path: &Path, tensors: &[Stored<'_>]) {
    let view = |(name, dtype, dims, bytes): &Stored<'_>| {
        let bytes: &'static [u8] = bytes.clone().leak();
        (name.to_string(), TensorView::new(*dtype, dims.to_vec(), bytes).unwrap())
    };
    fs::write(path, safetensors::serialize(tensors.iter().map(view), None).unwrap()).unwrap();
}

fn load(path: &Path, name: &str) -> (Vec<usize>, Vec<f64>) {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let t = file.tensor(name).unwrap_or_else(|_| panic!("no `{name}` in {:?}", file.names()));
    let values = match t.dtype() {
        Dtype::F32 => t.data().chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()) as f64).collect(),
        Dtype::F64 => t.data().chunks(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect(),
        d => panic!("{name} is {d:?}"),
    };
    (t.shape().to_vec(), values)
}

/// A folder with `x.safetensors`.
fn folder(tensors: &[Stored<'_>]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    store(&dir.path().join("x.safetensors"), tensors);
    dir
}

const IO: [&str; 4] = ["--in", "x.safetensors", "--out", "y.safetensors"];

fn op(dir: &Path, name: &str, more: &[&str]) -> cli_support::Ran {
    ringtape_in(dir, &[&["op", name][..], &IO, more].concat())
}

#[test]
fn forward_and_gradient_of_a_product_by_hand() {
    let dir = folder(&[
        ("input", Dtype::F64, &[1, 2], f64s(&[2.0, 3.0])),
        ("other", Dtype::F64, &[2, 1], f64s(&[5.0, 7.0])),
        ("dy", Dtype::F64, &[1, 1], f64s(&[10.0])),
    ]);
    let y = dir.path().join("y.safetensors");
    let ran = op(dir.path(), "matmul", &["--grad", "--dtype", "f64"]).ok();
    assert!(ran.err.contains("dinput f64[1, 2]"), "{}", ran.err);
    assert_eq!(load(&y, "output"), (vec![1, 1], vec![31.0]));
    assert_eq!(load(&y, "dinput"), (vec![1, 2], vec![50.0, 70.0]));
    assert_eq!(load(&y, "dother"), (vec![2, 1], vec![20.0, 30.0]));
    // The same without --grad: one tensor, quiet, f32, and an attribute.
    let square = [
        ("input", Dtype::F32, &[2, 1][..], f32s(&[2.0, 3.0])),
        ("other", Dtype::F32, &[2, 1], f32s(&[5.0, 7.0])),
    ];
    store(&dir.path().join("x.safetensors"), &square);
    let ran = op(dir.path(), "matmul", &["--quiet", "--attr", "transpose_input=true"]).ok();
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("", ""));
    assert_eq!(load(&y, "output"), (vec![1, 1], vec![31.0]));
    assert_eq!(SafeTensors::deserialize(&fs::read(&y).unwrap()).unwrap().len(), 1);
}

#[test]
fn lists_indices_and_conditions_are_found_by_name() {
    let i64s = |v: &[i64]| v.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let dir = folder(&[
        ("inputs.0", Dtype::F32, &[2], f32s(&[1.0, 2.0])),
        ("inputs.1", Dtype::F32, &[1], f32s(&[3.0])),
        ("dy", Dtype::F32, &[3], f32s(&[7.0, 8.0, 9.0])),
    ]);
    let (d, y) = (dir.path(), dir.path().join("y.safetensors"));
    op(d, "cat", &["--grad"]).ok();
    assert_eq!(load(&y, "output").1, [1.0, 2.0, 3.0]);
    assert_eq!((load(&y, "dinputs.0").1, load(&y, "dinputs.1").1), (vec![7.0, 8.0], vec![9.0]));
    // Several outputs are numbered, and so are their gradients; one that is not given counts as zero.
    let x = [
        ("input", Dtype::F32, &[3][..], f32s(&[1.0, 2.0, 3.0])),
        ("doutputs.1", Dtype::F32, &[1], f32s(&[5.0])),
    ];
    store(&d.join("x.safetensors"), &x);
    op(d, "split", &["--attr", "split_size_or_sections=2", "--grad"]).ok();
    assert_eq!((load(&y, "outputs.0").1, load(&y, "outputs.1").1), (vec![1.0, 2.0], vec![3.0]));
    assert_eq!(load(&y, "dinput").1, [0.0, 0.0, 5.0]);
    // Indices of 64 bits are narrowed when they fit, and named when they do not or leave the table.
    let table = || ("weight", Dtype::F32, &[2, 1][..], f32s(&[10.0, 20.0]));
    let embed = |id: i64| {
        store(&d.join("x.safetensors"), &[("input", Dtype::I64, &[1], i64s(&[id])), table()]);
        op(d, "embedding", &[])
    };
    embed(1).ok();
    assert_eq!(load(&y, "output"), (vec![1, 1], vec![20.0]));
    embed(1 << 33).fails(4, &["x.safetensors", "`input`", "8589934592", "i32"]);
    let outside = embed(2);
    assert!(matches!(outside.code, Some(2 | 4)), "{outside:?}");
    assert!(outside.err.contains("embedding") && outside.err.contains('2'), "{outside:?}");
    // The optimizers go the same way.
    let steps = [("w", Dtype::F32, &[1][..], f32s(&[1.0])), ("g", Dtype::F32, &[2, 1], f32s(&[1.0, 2.0]))];
    store(&d.join("x.safetensors"), &steps);
    let optim = |more: &[&str]| ringtape_in(d, &[&["optim", "sgd"][..], &IO, more].concat());
    optim(&["--attr", "lr=0.5", "--attr", "momentum=0.5"]).ok();
    // v = 1, w = 1 - 0.5; v = 0.5 + 2, w = 0.5 - 1.25.
    assert_eq!(load(&y, "w"), (vec![2, 1], vec![0.5, -0.75]));
    optim(&["--attr", "momentun=0.5"]).fails(2, &["momentun", "did you mean `momentum`"]);
    optim(&["--attr", "lr=fast"]).fails(2, &["lr", "fast"]);
    optim(&["--attr", "lr=0"]).fails(2, &["lr", "`0`", "above 0"]);
    store(
        &d.join("x.safetensors"),
        &[("w", Dtype::F32, &[2], f32s(&[1.0; 2])), ("g", Dtype::F32, &[2, 1], f32s(&[1.0; 2]))],
    );
    optim(&[]).fails(2, &["sgd", "[2, 1]", "[2]"]);
}

#[test]
fn an_optimizer_of_two_gradients_takes_the_second_from_the_file() {
    let one = |name: &'static str, values: &[f32]| {
        let dims: &'static [usize] = if name == "w" { &[1] } else { &[2, 1] };
        (name, Dtype::F32, dims, f32s(values))
    };
    let dir = folder(&[one("w", &[1.0]), one("g", &[1.0, 1.0]), one("g_fd", &[3.0, 3.0])]);
    let (d, y) = (dir.path(), dir.path().join("y.safetensors"));
    let words = ["optim", "vsgd_fd", "--attr", "lr=1", "--attr", "slow_start=2"];
    let optim = || ringtape_in(d, &[&words[..], &IO].concat());
    optim().ok();
    // k = |1 - 3| / |1| = 2 both times. Means g, g², k, k²: 1, 2, 2, 8, so w = 1 - 2/8 · 1/2; then with share 1/1.5 of the new
    // ones 1, 4/3, 2, 16/3, so w = 7/8 - 2·3/16 · 3/4.
    let (dims, w) = load(&y, "w");
    assert!(dims == [2, 1] && w[0] == 0.875 && (w[1] - 0.59375).abs() < 1e-6, "{w:?}");
    // Without it the error says what is missing; another shape is named.
    store(&d.join("x.safetensors"), &[one("w", &[1.0]), one("g", &[1.0, 1.0])]);
    optim().fails(2, &["vsgd_fd", "`g_fd`"]);
    let short = ("g_fd", Dtype::F32, &[1, 1][..], f32s(&[3.0]));
    store(&d.join("x.safetensors"), &[one("w", &[1.0]), one("g", &[1.0, 1.0]), short]);
    optim().fails(2, &["g_fd", "[1, 1]", "[2, 1]"]);
}

#[test]
fn half_precision_widens_and_nan_passes_through() {
    let halves: Vec<u8> =
        [1.5f32, -2.0].iter().flat_map(|&x| half::bf16::from_f32(x).to_le_bytes()).collect();
    let dir = folder(&[("input", Dtype::BF16, &[2], halves)]);
    op(dir.path(), "relu", &[]).ok();
    assert_eq!(load(&dir.path().join("y.safetensors"), "output").1, [1.5, 0.0]);
    store(&dir.path().join("x.safetensors"), &[("input", Dtype::F32, &[1], f32s(&[f32::NAN]))]);
    op(dir.path(), "relu", &[]).ok();
    assert!(load(&dir.path().join("y.safetensors"), "output").1[0].is_nan());
}

#[test]
fn wrong_names_shapes_types_and_attributes_are_named() {
    let dir = folder(&[
        ("input", Dtype::F32, &[2, 3], f32s(&[0.0; 6])),
        ("other", Dtype::F32, &[2, 3], f32s(&[0.0; 6])),
    ]);
    let d = dir.path();
    let before = contents(d);
    op(d, "matmul", &[]).fails(2, &["matmul", "[2, 3]"]);
    op(d, "relu", &[]).fails(2, &["relu", "`other`", "`input`"]);
    op(d, "rleu", &[]).fails(2, &["`rleu`", "did you mean `relu`", "op list"]);
    op(d, "matmul", &["--attr", "transpose_othr=true"])
        .fails(2, &["transpose_othr", "did you mean `transpose_other`"]);
    op(d, "matmul", &["--attr", "transpose_other=maybe"]).fails(2, &["`maybe`", "true or false"]);
    op(d, "matmul", &["--attr", "transpose_other"]).fails(2, &["key=value"]);
    op(d, "matmul", &["--dtype", "f16"]).fails(2, &["f16", "f32", "f64"]);
    op(d, "matmul", &["--device", "cuda"]).fails(2, &["cuda", "--device cpu"]);
    op(d, "matmul", &["--device", "gpu9"]).fails(2, &["gpu9", "--device cpu"]);
    op(d, "matmul", &["--attr", "transpose_other=true", "--grad"])
        .fails(4, &["x.safetensors", "`dy` is missing"]);
    ringtape_in(d, &["op", "relu", "--in", "x.safetensors"]).fails(2, &["--out"]);
    ringtape_in(d, &["op", "relu", "--in", "absent.safetensors", "--out", "y"])
        .fails(4, &["absent.safetensors", "no such file"]);
    ringtape_in(d, &["op", "relu", "--in", ".", "--out", "y"]).fails(4, &["not a regular file"]);
    assert_eq!(contents(d), before, "a refused run writes nothing");
    // A missing input, a wrong type, and a gradient of the wrong shape.
    store(&d.join("x.safetensors"), &[("input", Dtype::I64, &[1], 5i64.to_le_bytes().to_vec())]);
    op(d, "relu", &[]).fails(4, &["`input`", "I64", "must be real"]);
    op(d, "matmul", &[]).fails(4, &["x.safetensors"]);
    store(&d.join("x.safetensors"), &[("inptu", Dtype::F32, &[1], f32s(&[1.0]))]);
    op(d, "relu", &[]).fails(4, &["`input` is missing", "`inptu`"]);
    let wrong =
        [("input", Dtype::F32, &[2][..], f32s(&[1.0, 2.0])), ("dy", Dtype::F32, &[3], f32s(&[1.0; 3]))];
    store(&d.join("x.safetensors"), &wrong);
    op(d, "relu", &["--grad"]).fails(2, &["`dy` has shape [3]", "[2]"]);
    // More axes than tensors have, and a size that no memory holds.
    store(&d.join("x.safetensors"), &[("input", Dtype::F32, &[1; 7], f32s(&[1.0]))]);
    op(d, "relu", &[]).fails(4, &["7 axes"]);
}

#[test]
fn the_input_is_never_overwritten_and_the_output_is_whole_or_absent() {
    let dir = folder(&[("input", Dtype::F32, &[2], f32s(&[1.0, 2.0]))]);
    let d = dir.path();
    let before = contents(d);
    let to = |out: &str| ringtape_in(d, &["op", "relu", "--in", "x.safetensors", "--out", out]);
    to("x.safetensors").fails(2, &["is the input file"]);
    to("./././x.safetensors").fails(2, &["is the input file"]);
    to(".").fails(2, &["folder"]);
    to("no/such/folder/y").fails(4, &["no/such/folder/y"]);
    assert_eq!(contents(d), before);
    // A link to the input is replaced, not followed.
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("x.safetensors", d.join("link")).unwrap();
        let _ = to("link");
        assert_eq!(contents(d).iter().find(|f| f.0 == before[0].0), before.first());
    }
}

/// Rules of the format, each broken once: an error of exit code 4 that names the file, quickly, and no panic.
#[test]
fn hostile_safetensors_are_refused() {
    let dir = folder(&[("input", Dtype::F32, &[2, 2], f32s(&[1.0; 4]))]);
    let good = fs::read(dir.path().join("x.safetensors")).unwrap();
    let with = |header: &str, data: usize| {
        let mut b = (header.len() as u64).to_le_bytes().to_vec();
        b.extend(header.as_bytes());
        b.resize(b.len() + data, 0);
        b
    };
    let tensor = |dtype: &str, shape: &str, range: &str| {
        format!(r#"{{"input":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{range}}}}}"#)
    };
    let overlap = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"input":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let twice = r#"{"input":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"input":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#;
    let mut cases: Vec<(String, Vec<u8>)> = vec![
        ("empty".into(), vec![]),
        ("header length past the end".into(), u64::MAX.to_le_bytes().to_vec()),
        ("header of 4 GiB".into(), [&(1u64 << 32).to_le_bytes()[..], b"{}"].concat()),
        ("header that is no JSON".into(), with("{\"input\":", 0)),
        ("header that is not UTF-8".into(), [&2u64.to_le_bytes()[..], &[0xff, 0xfe]].concat()),
        ("no header at all".into(), f32s(&[1.0; 64])),
        (
            "extents that overflow".into(),
            with(&tensor("F32", "[4294967296,4294967296,4294967296]", "[0,4]"), 4),
        ),
        ("negative extent".into(), with(&tensor("F32", "[-1]", "[0,4]"), 4)),
        ("shape of more than the data".into(), with(&tensor("F32", "[1000000]", "[0,4]"), 4)),
        ("offsets past the end".into(), with(&tensor("F32", "[100]", "[0,400]"), 4)),
        ("offsets reversed".into(), with(&tensor("F32", "[1]", "[4,0]"), 4)),
        ("a hole before the data".into(), with(&tensor("F32", "[1]", "[4,8]"), 8)),
        ("bytes after the data".into(), with(&tensor("F32", "[1]", "[0,4]"), 64)),
        ("overlapping tensors".into(), with(overlap, 4)),
        ("the same name twice".into(), with(twice, 8)),
        ("unknown type".into(), with(&tensor("F33", "[1]", "[0,4]"), 4)),
        ("deep nesting".into(), with(&"[".repeat(100_000), 0)),
    ];
    cases.extend((0..good.len()).map(|n| (format!("cut to {n} bytes"), good[..n].to_vec())));
    let x = dir.path().join("x.safetensors");
    for (what, bytes) in cases {
        fs::write(&x, bytes).unwrap();
        let start = std::time::Instant::now();
        let ran = op(dir.path(), "relu", &[]);
        assert_eq!(ran.code, Some(4), "{what}: {ran:?}");
        assert!(ran.err.contains("x.safetensors"), "{what}: {ran:?}");
        assert!(start.elapsed().as_secs() < 5, "{what} took {:?}", start.elapsed());
    }
    assert!(!dir.path().join("y.safetensors").exists());
}

/// A byte changed anywhere gives an error or a result, never a crash.
#[test]
fn flipped_bytes_never_crash() {
    let dir = folder(&[("input", Dtype::F32, &[2, 2], f32s(&[1.0; 4]))]);
    let x = dir.path().join("x.safetensors");
    let good = fs::read(&x).unwrap();
    for i in 0..good.len() {
        let mut bad = good.clone();
        bad[i] ^= 1 << (i % 8);
        fs::write(&x, bad).unwrap();
        let ran = op(dir.path(), "relu", &[]);
        assert!(matches!(ran.code, Some(0 | 2 | 4)), "byte {i}: {ran:?}");
    }
}

#[test]
fn lists_tables_and_scripts() {
    let list = ringtape(&["op", "list"]).ok().out;
    assert!(list.contains("relu(input) -> output") && list.contains("transpose_other=false"), "{list}");
    let json: serde_json::Value =
        serde_json::from_str(&ringtape(&["op", "list", "--json"]).ok().out).unwrap();
    assert!(
        json.as_array().unwrap().iter().any(|o| o["name"] == "matmul" && o["inputs"][1]["name"] == "other")
    );
    let check = ringtape(&["check", "relu"]).ok();
    assert!(check.out.contains("gradient") && check.out.contains("pass"), "{check:?}");
    let json: serde_json::Value =
        serde_json::from_str(&ringtape(&["check", "relu", "--json"]).ok().out).unwrap();
    assert!(json.as_array().unwrap().iter().all(|v| v["failure"].is_null()));
    ringtape(&["check", "relux"]).fails(2, &["did you mean `relu`"]);
    ringtape(&["check", "--device", "cuda"]).fails(2, &["cuda"]);
    let devices = ringtape(&["devices"]).ok().out;
    assert!(
        devices.contains("cpu") && devices.contains("cores") && devices.contains("not built"),
        "{devices}"
    );
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(ringtape(&["completions", shell]).ok().out.contains("ringtape"), "{shell}");
    }
    ringtape(&["completions", "dos"]).fails(2, &["dos", "bash"]);
    ringtape(&["bench", "warp"]).fails(2, &["`warp`", "gemm"]);
    ringtape(&["bench", "--seconds", "-1"]).fails(2, &["-1"]);
    let bench = ringtape(&["bench", "op", "relu", "--seconds", "0.001", "--json"]).ok();
    let json: serde_json::Value = serde_json::from_str(&bench.out).unwrap();
    let cases = json["cases"].as_array().unwrap();
    assert!(cases.iter().any(|c| c["name"] == "relu" && c["median"].as_f64().unwrap() > 0.0), "{json}");
}

/// A reader that goes away early is no error: `ringtape op list | head -1`.
#[test]
fn a_closed_pipe_is_quiet() {
    for args in [&["op", "list"][..], &["--help"], &["completions", "bash"], &["check", "relu"]] {
        let mut child = program().args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let ran = cli_support::finish(child);
        assert_eq!(ran.code, Some(0), "{args:?}: {ran:?}");
        assert!(!ran.err.contains("error"), "{args:?}: {ran:?}");
    }
}

/// Where the system can pretend a full disk, the exit code says so.
#[test]
#[cfg(target_os = "linux")]
fn a_full_output_is_five() {
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let child = program().args(["op", "list"]).stdout(full).stderr(Stdio::piped()).spawn().unwrap();
    cli_support::finish(child).fails(5, &["standard output", "No space left"]);
}

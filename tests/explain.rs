//! Why is this gradient missing or zero? And the graph as DOT.

mod common;

use common::{Odd, Oddity, add, tensor, total};
use ringtape::device::Device;
use ringtape::shape::DType;
use ringtape::tape::{Explanation, Init, Params, ParamsBuilder, Role, Tape};

fn names(e: &Explanation) -> Vec<&str> {
    e.path.iter().map(|h| h.name.as_str()).collect()
}

fn none() -> Params {
    Params::none(&Device::cpu())
}

#[test]
fn a_gradient_that_arrives() {
    let params = none();
    let tape = Tape::new(&params);
    let x = tape.leaf(tensor(&[-3.0, 2.0], &[1, 2])).unwrap();
    let loss = total(&x.relu().unwrap()).unwrap();
    let e = tape.explain(&loss, &x).unwrap();
    assert!(e.verdict.contains("arrives: max |gradient| 1.000e0"), "{e}");
    assert_eq!(names(&e), ["op test_total", "op relu", "leaf"]);
    assert_eq!(e.path.iter().map(|h| h.node).collect::<Vec<_>>(), [2, 1, 0]);
    assert!(e.path.iter().all(|h| h.gradient == Some(1.0)));
}

#[test]
fn a_slope_of_zero_is_named_with_its_node() {
    let params = none();
    let tape = Tape::new(&params);
    let x = tape.leaf(tensor(&[-3.0, -2.0], &[1, 2])).unwrap();
    let y = add(&x, &x).unwrap();
    let loss = total(&y.relu().unwrap()).unwrap();
    let e = tape.explain(&loss, &x).unwrap();
    assert!(e.verdict.contains("node 2: op relu turns it to zero"), "{e}");
    assert_eq!(names(&e), ["op test_total", "op relu", "op test_add", "leaf"]);
    assert_eq!(
        e.path.iter().map(|h| h.gradient).collect::<Vec<_>>(),
        [Some(1.0), Some(1.0), Some(0.0), Some(0.0)]
    );
    assert!(e.to_string().contains("max |gradient| 0.000e0"), "{e}");
}

#[test]
fn a_gradient_of_nan_is_named_with_its_node() {
    let params = none();
    let tape = Tape::new(&params);
    let x = tape.leaf(tensor(&[1.0, 2.0], &[1, 2])).unwrap();
    let y = tape.apply1(Odd(Oddity::Nan), &[&x.relu().unwrap(), &x]).unwrap();
    let e = tape.explain(&total(&y).unwrap(), &x).unwrap();
    assert!(e.verdict.contains("node 2: op test_odd makes it NaN"), "{e}");
    assert_eq!(names(&e)[..2], ["op test_total", "op test_odd"]);
}

#[test]
fn an_op_that_says_zero_is_named() {
    let params = none();
    let tape = Tape::new(&params);
    let (x, z) = (tape.leaf(tensor(&[1.0], &[1])).unwrap(), tape.leaf(tensor(&[1.0], &[1])).unwrap());
    let y = tape.apply1(Odd(Oddity::Zero), &[&x, &z]).unwrap();
    let e = tape.explain(&y, &z).unwrap();
    assert!(e.verdict.contains("node 2: op test_odd does not pass on the gradient"), "{e}");
    assert_eq!(names(&e), ["op test_odd", "leaf"]);
    assert!(e.to_string().contains("no gradient arrives"), "{e}");
}

#[test]
fn an_op_that_forgets_is_named() {
    let params = none();
    let tape = Tape::new(&params);
    let (x, z) = (tape.leaf(tensor(&[1.0], &[1])).unwrap(), tape.leaf(tensor(&[1.0], &[1])).unwrap());
    let y = tape.apply1(Odd(Oddity::Forgets), &[&x, &z]).unwrap();
    let e = tape.explain(&y, &z).unwrap();
    assert!(e.verdict.contains("failed") && e.verdict.contains("test_odd"), "{e}");
}

#[test]
fn a_detached_value() {
    let params = none();
    let tape = Tape::new(&params);
    let (x, w) = (tape.leaf(tensor(&[1.0], &[1])).unwrap(), tape.leaf(tensor(&[1.0], &[1])).unwrap());
    let loss = add(&x.detach(), &w).unwrap();
    let e = tape.explain(&loss, &x).unwrap();
    assert!(e.verdict.contains("no path") && e.verdict.contains("detached at node 2"), "{e}");
    assert_eq!(names(&e), ["detach"]);
    // Nodes are still counted right behind the detach, which has no output.
    let e = tape.explain(&loss, &w).unwrap();
    assert_eq!(
        e.path.iter().map(|h| (h.node, h.name.as_str())).collect::<Vec<_>>(),
        [(3, "op test_add"), (1, "leaf")]
    );
    let constant = x.detach();
    assert!(tape.explain(&loss, &constant).unwrap().verdict.contains("constant"));
    assert!(tape.explain(&constant, &x).unwrap().verdict.contains("the loss is a constant"));
}

#[test]
fn an_unused_value_and_an_unused_result() {
    let params = none();
    let tape = Tape::new(&params);
    let [x, y, w] = [1.0, 2.0, 3.0].map(|v| tape.leaf(tensor(&[v], &[1])).unwrap());
    let _aside = y.relu().unwrap();
    let loss = w.relu().unwrap();
    // An explanation without a path sweeps nothing, so one tape answers both questions.
    let e = tape.explain(&loss, &x).unwrap();
    assert!(e.verdict.contains("nothing on the tape uses it") && e.path.is_empty(), "{e}");
    let e = tape.explain(&loss, &y).unwrap();
    assert!(e.verdict.contains("do not reach the loss"), "{e}");
    assert_eq!(names(&e), ["op relu"]);
}

#[test]
fn parameters_and_checkpoints_have_names() {
    let mut b = ParamsBuilder::new(&Device::cpu(), DType::F64, 0);
    let w = b.add("layer.\"w\"", &[1, 1], Init::Constant(2.0), Role::Decay).unwrap();
    let params = b.build().unwrap();
    let tape = Tape::new(&params);
    let p = tape.param(w);
    let y = tape.checkpoint(&[&p], |_, v| Ok(smallvec::smallvec![v[0].relu()?])).unwrap().remove(0);
    let dot = tape.to_dot();
    let e = tape.explain(&y, &p).unwrap();
    assert_eq!(names(&e), ["checkpoint", "parameter layer.\"w\""]);
    check_dot(&dot, 2, 1);
}

/// Counts nodes and edges the way a reader of DOT would: quoted labels closed, every edge between declared nodes.
fn check_dot(dot: &str, nodes: usize, edges: usize) {
    let mut lines = dot.lines();
    assert_eq!(lines.next(), Some("digraph tape {"));
    assert_eq!(dot.lines().last(), Some("}"));
    let (mut declared, mut drawn) = (Vec::new(), 0);
    for line in lines.map(str::trim).filter(|l| l.starts_with('n') && !l.starts_with("node ")) {
        assert!(line.ends_with(';'), "{line}");
        if let Some((from, to)) = line.trim_end_matches(';').split_once(" -> ") {
            assert!([from, to].iter().all(|n| declared.iter().any(|d| d == n)), "{line}: unknown node");
            drawn += 1;
        } else {
            let (name, label) = line.split_once(" [label=\"").expect("a declaration");
            let label = label.strip_suffix("\"];").expect("a closed label");
            assert!(!label.replace("\\\"", "").contains('"'), "{line}: a quote inside the label");
            declared.push(name.to_string());
        }
    }
    assert_eq!((declared.len(), drawn), (nodes, edges), "{dot}");
}

#[test]
fn the_graph_as_dot() {
    let params = none();
    let tape = Tape::new(&params);
    assert_eq!(tape.to_dot().lines().filter(|l| l.contains("->")).count(), 0);
    let x = tape.leaf(tensor(&[1.0], &[1, 1])).unwrap();
    let y = x.matmul(&x).unwrap().matmul(&tape.constant(tensor(&[1.0], &[1, 1]))).unwrap();
    let z = add(&y, &x.detach()).unwrap();
    total(&z).unwrap();
    // leaf, two products, detach, sum of two, total; the square has two edges, the constant none.
    check_dot(&tape.to_dot(), 6, 6);
    assert!(tape.to_dot().contains("op matmul\\nf64[1, 1]"));
}

//! What an instruction computes, from its name.

/// Arithmetic of one instruction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Type, and operations of one lane, or of the whole warp.
    pub flops: Option<(&'static str, u64)>,
    /// A matrix product: the warp computes it together.
    pub whole_warp: bool,
}

impl Work {
    /// Of the instruction `name`, suffixes included: `fma.rn.f32`.
    pub fn of(name: &str) -> Work {
        let mut parts = name.split('.');
        let opcode = parts.next().unwrap_or_default();
        let suffixes: Vec<&str> = parts.collect();
        match opcode {
            "mma" | "wmma" if suffixes.contains(&"mma") || opcode == "mma" => matrix(&suffixes),
            "add" | "sub" | "mul" | "div" | "fma" => {
                let Some(kind) = suffixes.iter().find_map(|s| float(s)) else { return Work::default() };
                let (lanes, each) =
                    (if name.contains("x2") { 2 } else { 1 }, if opcode == "fma" { 2 } else { 1 });
                Work { flops: Some((kind, lanes * each)), whole_warp: false }
            }
            _ => Work::default(),
        }
    }
}

fn float(suffix: &str) -> Option<&'static str> {
    match suffix {
        "f32" | "f32x2" => Some("f32"),
        "f64" => Some("f64"),
        "f16" | "f16x2" | "bf16" | "bf16x2" => Some("f16"),
        _ => None,
    }
}

/// `mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32`: 2·m·n·k operations of the type of A.
fn matrix(suffixes: &[&str]) -> Work {
    let shape = suffixes.iter().find_map(|s| {
        let (m, rest) = s.strip_prefix('m')?.split_once('n')?;
        let (n, k) = rest.split_once('k')?;
        Some(2 * m.parse::<u64>().ok()? * n.parse::<u64>().ok()? * k.parse::<u64>().ok()?)
    });
    let has = |wanted: &[&str]| suffixes.iter().any(|s| wanted.contains(s));
    let kind = if has(&["tf32"]) {
        "tf32 matrix"
    } else if has(&["bf16"]) {
        "bf16 matrix"
    } else if has(&["f64"]) {
        "f64 matrix"
    } else if has(&["s8", "u8", "s4", "u4", "b1"]) {
        "integer matrix"
    } else {
        "f16 matrix"
    };
    Work { flops: shape.map(|n| (kind, n)), whole_warp: true }
}

#[cfg(test)]
mod tests {
    use super::Work;

    #[test]
    fn operations_are_counted_by_the_name() {
        let flops = |name| Work::of(name).flops;
        assert_eq!(flops("fma.rn.f32"), Some(("f32", 2)));
        assert_eq!(flops("add.rn.bf16x2"), Some(("f16", 2)));
        assert_eq!(flops("fma.rn.f16x2"), Some(("f16", 4)));
        assert_eq!(flops("div.rn.f64"), Some(("f64", 1)));
        assert_eq!(flops("mul.wide.u32"), None);
        assert_eq!(flops("setp.lt.f32"), None);
        let mma = "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32";
        assert_eq!(flops(mma), Some(("tf32 matrix", 2048)));
        assert_eq!(flops("wmma.mma.sync.aligned.row.col.m16n16k16.f32.f32"), Some(("f16 matrix", 8192)));
        assert_eq!(flops("wmma.load.a.sync.aligned.row.m16n16k16.f16"), None);
    }
}

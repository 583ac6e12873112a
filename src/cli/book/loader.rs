//! Figure of the chapter on data: the order of some samples, by the permutation that loaders use.

use super::Figures;
use crate::data::Permutation;
use std::fmt::Write;

const SAMPLES: u64 = 12;

pub(super) fn figures() -> Figures {
    let mut text = String::from("seed epoch  sample at position 0, 1, …\n");
    for (seed, epoch) in [(1, 0), (1, 1), (2, 0)] {
        let order = Permutation::new(seed, epoch, SAMPLES);
        let at = (0..SAMPLES).map(|i| format!("{:>3}", order.index(i)));
        let _ = writeln!(text, "{seed:>4} {epoch:>5}  {}", at.collect::<String>());
    }
    Figures::from([("loader_orders.txt".into(), text)])
}

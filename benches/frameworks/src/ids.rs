//! What both programs share: the sizes, random tokens, the clock.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::error::Error;
use std::time::Instant;

pub const LAYERS: usize = 4;
pub const CONTEXT: usize = 256;
pub const BATCH: usize = 16;
pub const VOCABULARY: usize = 256;
/// Steps before those that are timed.
const WARMUP: usize = 2;

/// Width and steps from the command line.
pub fn args() -> Result<(usize, usize), Box<dyn Error>> {
    let args: Vec<usize> = std::env::args().skip(1).map(|a| a.parse()).collect::<Result<_, _>>()?;
    let [dim, steps] = args[..] else { return Err("WIDTH STEPS".into()) };
    Ok((dim, steps))
}

/// Runs `step` on inputs and targets of `BATCH · CONTEXT` random tokens each, and prints the median of its tokens a second
/// and the first and last loss, which it gives.
pub fn measure(
    program: &str,
    steps: usize,
    mut step: impl FnMut(Vec<u32>, Vec<u32>) -> Result<f32, Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    let mut rng = StdRng::seed_from_u64(0);
    let (mut seconds, mut losses) = (vec![], vec![]);
    for _ in 0..WARMUP + steps {
        let text: Vec<u32> = (0..BATCH * (CONTEXT + 1)).map(|_| rng.random_range(0..VOCABULARY as u32)).collect();
        let rows = || text.chunks(CONTEXT + 1);
        let (input, target) =
            (rows().flat_map(|r| r[..CONTEXT].to_vec()).collect(), rows().flat_map(|r| r[1..].to_vec()).collect());
        let start = Instant::now();
        losses.push(step(input, target)?);
        seconds.push(start.elapsed().as_secs_f64());
    }
    let mut timed = seconds.split_off(WARMUP);
    timed.sort_by(f64::total_cmp);
    let rate = (BATCH * CONTEXT) as f64 / timed[timed.len() / 2];
    let last = losses[losses.len() - 1];
    println!("{}", serde_json::json!({ "program": program, "tokens_per_s": rate, "losses": [losses[0], last] }));
    Ok(())
}

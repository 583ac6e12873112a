//! Sound of one rate as sound of another.
//!
//! Every new sample is a sum of old ones around its place, weighted by the impulse response of an ideal low-pass below
//! half the lower of the two rates, cut off smoothly: a sinc under a Hann window. Source: J. O. Smith, "Digital Audio
//! Resampling", 1984 to 2020.

use std::f64::consts::PI;

/// Zeros of the sinc on each side. More cut the band off more steeply.
const ZEROS: f64 = 32.0;
/// Where the band ends, as a share of half the lower rate: the transition ends near half.
const ROLLOFF: f64 = 0.95;

/// `samples` at `from` a second as samples at `to` a second.
pub(crate) fn resample(samples: &[f32], from: u32, to: u32) -> Vec<f32> {
    let step = f64::from(from) / f64::from(to);
    let cutoff = ROLLOFF * (1.0 / step).min(1.0);
    let reach = ZEROS / cutoff;
    let count = (samples.len() as u64 * u64::from(to)).div_ceil(u64::from(from));
    let weight = |distance: f64| {
        let x = PI * cutoff * distance;
        let sinc = if x == 0.0 { 1.0 } else { libm::sin(x) / x };
        cutoff * sinc * (0.5 + 0.5 * libm::cos(PI * distance / reach))
    };
    let one = |n: u64| {
        let at = n as f64 * step;
        let first = (at - reach).ceil().max(0.0) as usize;
        let last = ((at + reach).floor() as usize).min(samples.len().saturating_sub(1));
        (first..=last).map(|k| f64::from(samples[k]) * weight(at - k as f64)).sum::<f64>() as f32
    };
    if samples.is_empty() { vec![] } else { (0..count).map(one).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(hertz: f64, rate: u32, n: usize) -> Vec<f32> {
        (0..n).map(|k| (2.0 * PI * hertz * k as f64 / f64::from(rate)).sin() as f32).collect()
    }

    /// Largest difference away from the ends, where what lies beyond counts as silence.
    fn apart(a: &[f32], b: &[f32]) -> f32 {
        let inner = 200..a.len().min(b.len()) - 200;
        a[inner.clone()].iter().zip(&b[inner]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    }

    #[test]
    fn a_tone_stays_what_it_is() {
        for (from, hertz) in
            [(44_100, 440.0), (48_000, 3000.0), (16_000, 1000.0), (7000, 900.0), (8000, 50.0)]
        {
            let n = from as usize / 2;
            let made = resample(&tone(hertz, from, n), from, 8000);
            assert_eq!(made.len(), (n * 8000).div_ceil(from as usize), "{from}");
            let e = apart(&made, &tone(hertz, 8000, made.len()));
            assert!(e < 1e-3, "{from} Hz, a tone of {hertz} Hz: {e}");
        }
    }

    #[test]
    fn what_the_lower_rate_cannot_hold_is_gone() {
        let made = resample(&tone(5000.0, 44_100, 22_050), 44_100, 8000);
        assert!(apart(&made, &vec![0.0; made.len()]) < 1e-3);
        assert!(resample(&[], 44_100, 8000).is_empty());
    }
}

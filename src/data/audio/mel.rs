//! The filterbank: triangles side by side on the mel scale.

use super::{Recipe, Scale};

/// Weights of a band over the bins of a spectrum, from the first that is not 0.
#[derive(Debug)]
pub(super) struct Band {
    pub(super) first: usize,
    pub(super) weights: Vec<f64>,
}

/// Slaney's scale: 200/3 Hz a mel up to 1 kHz, then 27 mels for a factor of 6.4.
const LINEAR: f64 = 200.0 / 3.0;
const BEND: f64 = 1000.0;

fn mel(scale: Scale, hertz: f64) -> f64 {
    match scale {
        Scale::Htk => 2595.0 * libm::log10(1.0 + hertz / 700.0),
        Scale::Slaney if hertz < BEND => hertz / LINEAR,
        Scale::Slaney => BEND / LINEAR + libm::log(hertz / BEND) * 27.0 / libm::log(6.4),
    }
}

fn hertz(scale: Scale, mel: f64) -> f64 {
    match scale {
        Scale::Htk => 700.0 * (libm::pow(10.0, mel / 2595.0) - 1.0),
        Scale::Slaney if mel < BEND / LINEAR => mel * LINEAR,
        Scale::Slaney => BEND * libm::exp((mel - BEND / LINEAR) * libm::log(6.4) / 27.0),
    }
}

/// The bands of a recipe. A band so narrow that no bin lies in it is empty, as it is elsewhere.
pub(super) fn bank(recipe: &Recipe) -> Vec<Band> {
    let (low, high) = (f64::from(recipe.low), f64::from(recipe.high));
    let (from, to) = (mel(recipe.scale, low), mel(recipe.scale, high));
    let n = recipe.mels as usize;
    let edge = |k: usize| hertz(recipe.scale, from + (to - from) * k as f64 / (n + 1) as f64);
    let bins = recipe.window as usize / 2 + 1;
    let band = |m: usize| {
        let (left, middle, right) = (edge(m), edge(m + 1), edge(m + 2));
        let height = match recipe.scale {
            Scale::Htk => 1.0,
            Scale::Slaney => 2.0 / (right - left),
        };
        let weight = |bin: usize| {
            let f = bin as f64 * f64::from(recipe.rate) / f64::from(recipe.window);
            let rise = (f - left) / (middle - left);
            let fall = (right - f) / (right - middle);
            height * rise.min(fall).max(0.0)
        };
        let all: Vec<f64> = (0..bins).map(weight).collect();
        let first = all.iter().position(|&w| w > 0.0).unwrap_or(0);
        let last = all.iter().rposition(|&w| w > 0.0).map_or(first, |k| k + 1);
        Band { first, weights: all[first..last].to_vec() }
    };
    (0..n).map(band).collect()
}

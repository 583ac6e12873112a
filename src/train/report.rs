//! `report.html`: one file that shows a run, with nothing to fetch and no script.

use super::maps::Looked;
use super::metrics::{self, Metrics, Pace};
use super::modalities::{self, Through};
use super::plot::{Chart, Line, escape};
use super::plot_maps;
use super::{Config, Summary, write_whole};
use crate::error::Result;
use crate::nn::LayerActivity;
use crate::nn::attention::inspect::HeadReport;
use crate::optim::gvc::Decision;
use std::fmt::Write;
use std::path::Path;

const STYLE: &str = "
:root{--bg:#fff;--fg:#1c2430;--soft:#667;--grid:#e4e7ec;--a:#2563eb;--b:#d9480f;--pale:#93b4f5}
@media(prefers-color-scheme:dark){:root{--bg:#14171c;--fg:#e3e6ea;--soft:#9aa3ad;--grid:#2a2f37;--a:#7aa7ff;--b:#ff9a5c;--pale:#3d5584}}
body{margin:0 auto;max-width:780px;padding:16px;background:var(--bg);color:var(--fg);font:16px/1.5 system-ui,sans-serif}
h1{font-size:1.5rem;margin:.4em 0}h2{font-size:1.1rem;margin:1.6em 0 .3em}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(140px,1fr));gap:12px;margin:16px 0}
.facts div{border:1px solid var(--grid);border-radius:8px;padding:8px 12px}.facts b{display:block;font-size:1.25rem}
.facts span,.soft{color:var(--soft);font-size:.88rem}
svg{width:100%;height:auto;font:12px system-ui,sans-serif}svg text{fill:var(--soft)}svg .note{fill:var(--soft);font-size:11px}
.grid{stroke:var(--grid)}.axis{stroke:var(--soft);fill:none}.level{stroke:var(--soft);stroke-dasharray:5 4;opacity:.7}
.line{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}.a{stroke:var(--a)}.b{stroke:var(--b)}
.pale{stroke:var(--pale);stroke-width:1}
pre{white-space:pre-wrap;overflow-wrap:anywhere;border:1px solid var(--grid);border-radius:8px;padding:12px;font-size:.88rem}
code{font-size:.92em}
table{border-collapse:collapse;font-size:.88rem}td,th{padding:2px 10px;text-align:right}
";

/// A rank that is slower than this share of the fastest is named.
const SLOW: f64 = 0.75;

/// Writes `dir/report.html` from `dir/metrics.jsonl` and what is known of the run.
pub(super) fn write(dir: &Path, config: &Config, baselines: &[f64], summary: Option<&Summary>) -> Result<()> {
    let page = page(&dir.display().to_string(), &metrics::read(dir)?, config, baselines, summary);
    write_whole(&dir.join("report.html"), page.as_bytes())
}

fn page(
    dir: &str,
    lines: &[Metrics],
    config: &Config,
    baselines: &[f64],
    summary: Option<&Summary>,
) -> String {
    let title = format!("{} on {}", config.model.kind, config.data.path);
    let mut h = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width,initial-scale=1\"><title>{0}</title><style>{STYLE}</style></head><body><h1>{0}</h1>",
        escape(&title)
    );
    facts(&mut h, lines, config, summary);
    let text = lines.iter().any(|m| m.tokens_per_s.is_some());
    let _ = write!(h, "<h2>Loss</h2>{}", loss(lines, config, baselines).svg());
    if !baselines.is_empty() {
        h += "<p class=\"soft\">Dashed: interpolated Witten–Bell n-gram models on the same split. A model that does not \
              beat them has learned nothing that a table of counts could not hold.</p>";
    }
    let _ = write!(h, "<h2>Speed</h2>{}", speed(lines, text).svg());
    let _ = write!(h, "<h2>Learning rate</h2>{}", single("learning rate", lines, |m| Some(m.lr)).svg());
    let _ = write!(
        h,
        "<h2>Gradient norm, before clipping</h2>{}",
        single("norm", lines, |m| Some(m.grad_norm)).svg()
    );
    paces(&mut h, lines);
    decisions(&mut h, lines, config);
    noise(&mut h, lines, config);
    if let Some(sample) = summary.and_then(|s| s.sample.as_deref()) {
        let _ = write!(h, "<h2>What it writes</h2><pre>{}</pre>", escape(sample));
    }
    if let Some(all) = summary.and_then(|s| s.modalities.as_deref()) {
        through(&mut h, all);
    }
    if let Some(all) = summary.and_then(|s| s.maps.as_deref()) {
        looks(&mut h, all);
    }
    heads(&mut h, lines);
    units(&mut h, lines);
    let run = escape(dir);
    let _ = write!(
        h,
        "<h2>Going on</h2><pre>ringtape train --resume {run} --steps {}\nringtape eval {run}",
        config.steps * 2
    );
    if summary.is_some_and(|s| s.sample.is_some()) {
        let _ = write!(h, "\nringtape generate {run} --prompt \"Call me \" --tokens 200");
    }
    let _ = writeln!(
        h,
        "</pre><details><summary>Configuration</summary><pre>{}</pre></details></body></html>",
        escape(&config.to_toml())
    );
    h
}

fn facts(h: &mut String, lines: &[Metrics], config: &Config, summary: Option<&Summary>) {
    *h += "<div class=\"facts\">";
    let mut fact = |name: &str, value: String| {
        let _ = write!(h, "<div><b>{}</b><span>{}</span></div>", escape(&value), escape(name));
    };
    let last = lines.iter().rev().find_map(|m| m.val_loss);
    if let Some(v) = summary.map(|s| s.val_loss).or(last) {
        fact("held-out loss", format!("{v:.4}"));
    }
    if let Some(a) = lines.iter().rev().find_map(|m| m.val_accuracy) {
        fact("held-out accuracy", format!("{:.2} %", a * 100.0));
    }
    fact("steps", format!("{} of {}", lines.last().map_or(0, |m| m.step), config.steps));
    if let Some(s) = summary {
        fact("parameters", s.parameters.to_string());
    }
    let mut speeds: Vec<f64> = lines.iter().filter_map(|m| m.tokens_per_s.or(m.samples_per_s)).collect();
    speeds.sort_by(f64::total_cmp);
    if let Some(v) = speeds.get(speeds.len() / 2) {
        let unit = if lines.iter().any(|m| m.tokens_per_s.is_some()) {
            "tokens a second"
        } else {
            "samples a second"
        };
        fact(unit, super::plot::label(*v));
    }
    if let Some(m) = lines.last() {
        fact("seconds of training", format!("{:.0}", m.wall_s));
    }
    *h += "</div>";
}

/// The model with some of its modalities missing.
fn through(h: &mut String, all: &[Through]) {
    *h += "<h2>With some modalities missing</h2><table><tr><th>given</th><th>by</th><th>loss</th><th>accuracy</th></tr>";
    for row in modalities::rows(all) {
        let cells: String = row.iter().map(|c| format!("<td>{}</td>", escape(c))).collect();
        let _ = write!(h, "<tr>{cells}</tr>");
    }
    *h += "</table>";
}

/// Where a model of several modalities looks.
fn looks(h: &mut String, all: &[Looked]) {
    let _ = write!(
        h,
        "<h2>Where it looks</h2>{}<p class=\"soft\">Shares of attention, the mean over heads and over the tokens that look. \
         What a row lacks to 100 % goes to tokens that are parameters.</p>",
        plot_maps::svg(all)
    );
}

/// How fast each rank was, and how many micro-shards went to it.
fn paces(h: &mut String, lines: &[Metrics]) {
    let seen: Vec<(f64, &[Pace])> =
        lines.iter().filter_map(|m| Some((m.step as f64, m.balance.as_deref()?))).collect();
    let Some((_, last)) = seen.last() else { return };
    let chart = |y: &str, of: fn(&Pace) -> f64| {
        let line = |rank: usize| Line {
            name: format!("rank {rank}"),
            class: ["a", "b", "pale"][rank.min(2)],
            points: seen.iter().filter_map(|(step, all)| Some((*step, of(all.get(rank)?)))).collect(),
        };
        let lines = (0..last.len()).map(line).collect();
        Chart { x: "step", y: y.into(), lines, levels: vec![] }.svg()
    };
    let shards = chart("micro-shards", |p| p.shards as f64);
    let speeds = chart("samples a second", |p| p.samples_per_s);
    let _ = write!(
        h,
        "<h2>Who did how much</h2>{shards}{speeds}<table><tr><th>rank<th>micro-shards<th>samples a second</tr>"
    );
    for (rank, pace) in last.iter().enumerate() {
        let _ = write!(h, "<tr><td>{rank}<td>{}<td>{:.1}</tr>", pace.shards, pace.samples_per_s);
    }
    let all: Vec<f64> = last.iter().map(|p| p.samples_per_s).collect();
    let fastest = all.iter().copied().fold(0.0, f64::max);
    let slow = all.iter().enumerate().filter(|(_, v)| **v < SLOW * fastest);
    let slow: Vec<String> =
        slow.map(|(rank, v)| format!("rank {rank} ({:.0} % of the fastest)", 100.0 * v / fastest)).collect();
    let who = if slow.is_empty() { String::new() } else { format!(" Slow: {}.", slow.join(", ")) };
    let _ = write!(
        h,
        "</table><p class=\"soft\">Micro-shards go to the ranks that compute fast; sums, and so the weights, have the same bits \
         however they are dealt out.{who}</p>"
    );
}

/// What the controller of the learning rate decided, and why.
fn decisions(h: &mut String, lines: &[Metrics], config: &Config) {
    let made: Vec<(u64, Decision)> = lines.iter().filter_map(|m| Some((m.step, m.controller?))).collect();
    if made.is_empty() {
        return;
    }
    let line = |name: &str, class, of: fn(&Decision) -> f64| {
        let points = made.iter().map(|(step, d)| (*step as f64, of(d))).collect();
        Line { name: name.into(), class, points }
    };
    let lines = vec![line("slopes", "a", |d| d.z), line("fall of losses", "b", |d| d.fall)];
    let of = &config.controller;
    let levels =
        vec![(of.threshold, "threshold of slopes".into()), (of.fall, "threshold of the fall".into())];
    let chart = Chart { x: "step", y: "standard deviations".into(), lines, levels };
    let _ = write!(h, "<h2>What the controller decided</h2>{}", chart.svg());
    *h += "<table><tr><th>step<th>window<th>slopes<th>fall<th>rate of the schedule times</tr>";
    for (step, d) in made.iter().filter(|(_, d)| d.cut) {
        let _ =
            write!(h, "<tr><td>{step}<td>{}<td>{:.2}<td>{:.2}<td>{:.3}</tr>", d.steps, d.z, d.fall, d.scale);
    }
    *h += "</table><p class=\"soft\">Slopes: how surely the loss fell along the updates of a window of steps, in standard \
           deviations of noise; fall: how surely the losses of its batches fell from its beginning to its end. The rate is cut \
           where both are below their thresholds. Listed are the cuts.</p>";
}

/// The gradient noise scale, and what it says of the size of batches.
fn noise(h: &mut String, lines: &[Metrics], config: &Config) {
    let Some(scale) = lines.iter().rev().find_map(|m| m.noise_scale) else { return };
    let batch = config.batch_size as f64 * config.accumulate as f64;
    let chart = single("samples", lines, |m| m.noise_scale);
    let _ = write!(
        h,
        "<h2>Gradient noise scale</h2>{}<p class=\"soft\">Samples whose mean gradient is as large as its noise: {} at the end. \
         Steps of {batch} samples, as here, take about {:.2} times the fewest steps and {:.2} times the fewest samples that \
         reach a loss. Larger batches pay where the first number is the larger one, smaller ones where the second is.</p>",
        chart.svg(),
        super::plot::label(scale),
        1.0 + scale / batch,
        1.0 + batch / scale.max(1e-9)
    );
}

/// What the heads of windowed or dynamic attention saw at the last evaluation, and how their spans moved.
fn heads(h: &mut String, lines: &[Metrics]) {
    let seen: Vec<(f64, &[HeadReport])> =
        lines.iter().filter_map(|m| Some((m.step as f64, m.attention.as_deref()?))).collect();
    let Some((_, last)) = seen.last() else { return };
    *h += "<h2>What the heads see</h2>";
    let line = |(i, head): (usize, &HeadReport)| Line {
        name: format!("layer {} head {}", head.layer, head.head),
        class: ["a", "b", "pale"][i.min(2)],
        points: seen
            .iter()
            .filter_map(|(step, all)| Some((*step, all.get(i)?.lag.unwrap_or(all[i].span))))
            .collect(),
    };
    if seen.len() > 1 {
        let what = if last.iter().any(|head| head.lag.is_some()) { "lag" } else { "span" };
        let lines = last.iter().enumerate().map(line).collect();
        *h += &Chart { x: "step", y: format!("{what}, in tokens"), lines, levels: vec![] }.svg();
    }
    *h += "<table><tr><th>layer<th>head<th>span<th>lag<th>blocks<th>density<th>recall</tr>";
    for head in *last {
        let real = |x: Option<f64>| x.map_or("–".into(), |x| format!("{x:.1}"));
        let _ = write!(
            h,
            "<tr><td>{}<td>{}<td>{:.1}<td>{}<td>{}<td>{:.1} %<td>{:.1} %</tr>",
            head.layer,
            head.head,
            head.span,
            real(head.lag),
            real(head.blocks),
            100.0 * head.density,
            100.0 * head.recall
        );
    }
    *h += "</table><p>Span and lag in tokens. Density: keys seen, of all up to the query. Recall: their share of the mass \
           that dense attention would give.</p>";
}

/// Which hidden units were at work at the last evaluation, and how the share of active ones moved.
fn units(h: &mut String, lines: &[Metrics]) {
    let seen: Vec<(f64, &[LayerActivity])> =
        lines.iter().filter_map(|m| Some((m.step as f64, m.activity.as_deref()?))).collect();
    let Some((_, last)) = seen.last() else { return };
    *h += "<h2>Hidden units at work</h2>";
    if seen.len() > 1 {
        let line = |(i, layer): (usize, &LayerActivity)| Line {
            name: format!("layer {}", layer.layer),
            class: ["a", "b", "pale"][i.min(2)],
            points: seen
                .iter()
                .filter_map(|(step, all)| Some((*step, 100.0 * all.get(i)?.density)))
                .collect(),
        };
        let lines = last.iter().enumerate().map(line).collect();
        *h += &Chart { x: "step", y: "active units, in %".into(), lines, levels: vec![] }.svg();
    }
    *h += "<table><tr><th>layer<th>units<th>active<th>least<th>median<th>most<th>dead<th>revived<th>always on<th>Gini</tr>";
    for l in *last {
        let [least, most] = l.range.map(|x| 100.0 * x);
        let (median, revived) = (100.0 * l.tenths[1], l.revived.map_or("-".into(), |n| n.to_string()));
        let _ = write!(
            h,
            "<tr><td>{}<td>{}<td>{:.1} %<td>{least:.1} %<td>{median:.1} %<td>{most:.1} %<td>{}<td>{revived}<td>{}<td>{:.2}</tr>",
            l.layer,
            l.units,
            100.0 * l.density,
            l.dead,
            l.always_on,
            l.gini
        );
    }
    *h += "</table><p>Over the first held-out batches. Active: the share of units that are not 0, in the mean, in the row with \
           the fewest, in the middle one, in that with the most. Dead: never active; revived: dead at the evaluation before; always on: active in every row. Gini: 0 where all units \
           are active equally often.</p>";
}

fn loss(lines: &[Metrics], config: &Config, baselines: &[f64]) -> Chart {
    let raw: Vec<(f64, f64)> = lines.iter().map(|m| (m.step as f64, m.loss)).collect();
    let held: Vec<(f64, f64)> = lines.iter().filter_map(|m| Some((m.step as f64, m.val_loss?))).collect();
    let unit = if baselines.is_empty() && config.model.kind != crate::nn::ModelKind::Gpt {
        "loss"
    } else {
        "nats a symbol"
    };
    let level = |(n, v): (usize, &f64)| {
        let what = if n == 1 { "character" } else { "characters" };
        (*v, format!("{n} {what} of context: {v:.3}"))
    };
    // The model without any context would squeeze everything else into a corner.
    let levels = baselines.iter().enumerate().skip(1).take(4).map(level).collect();
    Chart {
        x: "step",
        y: unit.into(),
        lines: vec![
            Line { name: "each batch".into(), class: "pale", points: raw.clone() },
            Line { name: "training, smoothed".into(), class: "a", points: smooth(&raw) },
            Line { name: "held out".into(), class: "b", points: held },
        ],
        levels,
    }
}

/// Exponential mean over about a twentieth of the points; at the start, where a loss falls fast, over a quarter of those so
/// far.
fn smooth(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let least = 1.0 / (points.len() as f64 / 20.0).max(1.0);
    let mut mean: Option<f64> = None;
    let mut next = |(i, &(x, y)): (usize, &(f64, f64))| {
        let share = least.max(1.0 / (1.0 + i as f64 / 4.0));
        let m = mean.map_or(y, |m| m + share * (y - m));
        mean = m.is_finite().then_some(m);
        (x, m)
    };
    points.iter().enumerate().map(&mut next).collect()
}

fn speed(lines: &[Metrics], text: bool) -> Chart {
    let unit = if text { "tokens a second" } else { "samples a second" };
    single(unit, lines, |m| m.tokens_per_s.or(m.samples_per_s))
}

fn single(name: &str, lines: &[Metrics], value: impl Fn(&Metrics) -> Option<f64>) -> Chart {
    let points = lines.iter().filter_map(|m| Some((m.step as f64, value(m)?))).collect();
    let line = Line { name: name.into(), class: "a", points };
    Chart { x: "step", y: name.into(), lines: vec![line], levels: vec![] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_needs_nothing_from_outside_and_escapes_what_comes_from_there() {
        let mut config = Config::default();
        config.data.path = "<script>x</script>.rtd".into();
        let lines = [
            Metrics { step: 1, loss: 4.0, tokens_per_s: Some(100.0), ..Metrics::default() },
            Metrics { step: 2, loss: f64::NAN, val_loss: Some(3.0), ..Metrics::default() },
        ];
        for lines in [&lines[..], &lines[..1], &[]] {
            let page = page("runs/a&b", lines, &config, &[3.0, 2.5, 2.0], None);
            assert!(
                !page.contains("http") && !page.contains("<script") && page.contains("a&amp;b"),
                "{page}"
            );
            assert!(!page.contains("NaN"), "{page}");
        }
    }
}

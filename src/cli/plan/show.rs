//! A plan as a table, as JSON, as a chart.

use crate::cli::session::{self, Session, say};
use crate::error::{Error, Result};
use crate::plan::{self, ASSUMPTIONS, Cluster, Cost, Found, Job, Layout, Model};
use crate::train::plot::{Chart, Line};
use crate::train::write_whole;
use std::path::Path;

pub(super) fn json(
    session: &Session<'_>,
    cluster: &Cluster,
    model: &Model,
    job: &Job,
    found: &Found,
) -> Result<()> {
    let all = serde_json::json!({
        "cluster": cluster, "model": model, "job": job, "parameters": model.parameters(),
        "operations_per_token": model.training(), "plan": found, "assumptions": ASSUMPTIONS,
    });
    say!(session, "{}", super::super::json(&all)?)
}

pub(super) fn table(
    session: &Session<'_>,
    cluster: &Cluster,
    model: &Model,
    job: &Job,
    found: &Found,
) -> Result<()> {
    say!(
        session,
        "{}: {} devices, {} a node, {}FLOP/s each where nothing waits, {:.1} GB",
        cluster.name,
        cluster.devices,
        cluster.devices_per_node,
        short(cluster.rate()),
        cluster.memory / 1e9
    )?;
    say!(
        session,
        "model: {}parameters, {}FLOP a token; steps of {} × {} tokens, {}tokens in all",
        short(model.parameters()),
        short(model.training()),
        job.batch,
        model.context,
        short(job.tokens)
    )?;
    say!(session)?;
    const HEAD: [&str; 15] = [
        "dp",
        "tp",
        "pp",
        "cp",
        "micro",
        "with",
        "step ms",
        "compute",
        "tensor",
        "bubble",
        "data",
        "update",
        "failures",
        "GB",
        "efficiency",
    ];
    let rows: Vec<Vec<String>> = found.best.iter().map(row).collect();
    session::table(&HEAD, &rows).iter().try_for_each(|line| say!(session, "{line}"))?;
    say!(session)?;
    if let Some(best) = found.best.first() {
        say!(session, "{}", summary(cluster, best, found))?;
    }
    say!(session, "Assumed:")?;
    ASSUMPTIONS.iter().try_for_each(|line| say!(session, "- {line}"))
}

fn row(c: &Cost) -> Vec<String> {
    let l = c.layout;
    let ms = |seconds: f64| digits(seconds * 1e3);
    let with = match (l.zero, l.recompute) {
        (false, false) => "",
        (true, false) => "zero",
        (false, true) => "recompute",
        (true, true) => "zero, recompute",
    };
    let mut cells: Vec<String> = [l.dp, l.tp, l.pp, l.cp, l.micro].iter().map(usize::to_string).collect();
    cells.push(with.into());
    cells.extend([c.step, c.compute, c.tensor, c.bubble, c.data, c.update, c.failing].map(ms));
    cells.extend([digits(c.memory / 1e9), format!("{:.1} %", 100.0 * c.efficiency)]);
    cells
}

fn summary(cluster: &Cluster, c: &Cost, found: &Found) -> String {
    let mut text = format!(
        "--layout {}: {}tokens/s, {} for the run; {} micro-batches, {:.1} % of the devices' peak",
        c.layout,
        short(c.tokens_per_second),
        time(c.run),
        c.micro_batches,
        100.0 * c.model_utilisation,
    );
    if cluster.failures.is_some() {
        let f = &c.failures;
        text += &format!(
            "\none failure in {}; a snapshot of {} every {} leaves {:.2} % of the time",
            time(f.mtbf),
            time(f.snapshot),
            time(f.interval),
            100.0 * f.goodput
        );
    }
    if c.memory > cluster.memory {
        text += &format!("\nit does not fit: {:.1} of {:.1} GB", c.memory / 1e9, cluster.memory / 1e9);
    }
    text + &format!(
        "\n{} layouts, of which {} fit the memory and {} were played",
        found.layouts, found.fit, found.played
    )
}

/// Three digits, and no exponent.
fn digits(x: f64) -> String {
    match x {
        _ if x.abs() < 5e-4 => "0".into(),
        _ if x < 9.995 => format!("{x:.2}"),
        _ if x < 99.95 => format!("{x:.1}"),
        _ => format!("{x:.0}"),
    }
}

/// With the prefix of a unit that follows.
fn short(x: f64) -> String {
    let (scale, unit) = [(1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")]
        .into_iter()
        .find(|(s, _)| x >= *s)
        .unwrap_or((1.0, ""));
    format!("{} {unit}", digits(x / scale))
}

fn time(seconds: f64) -> String {
    match seconds {
        s if s < 1.0 => format!("{} ms", digits(s * 1e3)),
        s if s < 120.0 => format!("{} s", digits(s)),
        s if s < 7200.0 => format!("{} min", digits(s / 60.0)),
        s if s < 172_800.0 => format!("{} h", digits(s / 3600.0)),
        s => format!("{} days", digits(s / 86_400.0)),
    }
}

/// Efficiency over the number of devices, for this job: halved again and again, down to a node.
pub(super) fn draw(
    path: &Path,
    cluster: &Cluster,
    model: &Model,
    job: &Job,
    layout: Option<Layout>,
) -> Result<()> {
    if layout.is_some() {
        return Err(Error::Usage(
            "--out draws the best layout of each number of devices: leave --layout out".into(),
        ));
    }
    let mut points = Vec::new();
    let mut devices = cluster.devices;
    while devices >= cluster.devices_per_node.min(cluster.devices) {
        let smaller = Cluster { devices, ..cluster.clone() };
        // Too few to hold the model: the line begins later.
        if let Ok(found) = plan::search(&smaller, model, job, 1)
            && let Some(best) = found.best.first()
        {
            points.push((f64::from(devices as u32).log2(), best.efficiency, best.failures.goodput));
        }
        let half = devices / 2;
        devices = if half > cluster.devices_per_node { half - half % cluster.devices_per_node } else { half };
    }
    let line = |name: &str, class, of: &dyn Fn(&(f64, f64, f64)) -> f64| Line {
        name: name.into(),
        class,
        points: points.iter().rev().map(|p| (p.0, 100.0 * of(p))).collect(),
    };
    let mut lines = vec![line("efficiency", "a", &|p| p.1)];
    if cluster.failures.is_some() {
        lines.push(line("where nothing fails", "b", &|p| p.1 / p.2));
    }
    let y = format!("efficiency, %, at {} samples a step", job.batch);
    let svg = Chart { x: "devices, log2", y, lines, levels: vec![] }.svg();
    let style =
        "<svg xmlns=\"http://www.w3.org/2000/svg\" font-family=\"sans-serif\" font-size=\"12\" fill=\"#667\"";
    let svg = svg.replacen("<svg", style, 1).replacen('>', &format!("><style>{STYLE}</style>"), 1);
    write_whole(path, svg.as_bytes())
}

const STYLE: &str = "path{fill:none}.grid{stroke:#e4e7ec}.axis{stroke:#667}.line{stroke-width:2}.a{stroke:#2563eb}.b{stroke:#d9480f}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        assert_eq!(
            [0.0, 0.004, 1.0, 12.34, 99.96, 1234.5].map(digits),
            ["0", "0.00", "1.00", "12.3", "100", "1234"]
        );
        assert_eq!([12.0, 1.5e9, 4e14].map(short), ["12.0 ", "1.50 G", "400 T"]);
        assert_eq!(
            [0.5, 60.0, 600.0, 1e4, 1e6].map(time),
            ["500 ms", "60.0 s", "10.0 min", "2.78 h", "11.6 days"]
        );
    }
}

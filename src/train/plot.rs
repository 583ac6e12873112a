//! Line charts as inline SVG: axes with round ticks, labels with units, a legend. Colours come from the page's CSS.

use std::fmt::Write;

/// Text as HTML.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// One line of a chart.
pub(crate) struct Line {
    /// Name in the legend.
    pub(crate) name: String,
    /// CSS class, which gives colour and width.
    pub(crate) class: &'static str,
    /// Points; those that are not finite are left out and break the line.
    pub(crate) points: Vec<(f64, f64)>,
}

/// A chart.
pub(crate) struct Chart {
    /// What the horizontal axis counts.
    pub(crate) x: &'static str,
    /// What the vertical axis measures, with its unit.
    pub(crate) y: String,
    /// Lines.
    pub(crate) lines: Vec<Line>,
    /// Dashed horizontal lines with their labels.
    pub(crate) levels: Vec<(f64, String)>,
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 44.0;

/// Round values between `lo` and `hi`: steps of 1, 2 or 5 times a power of ten, about `count` of them.
pub(crate) fn ticks(lo: f64, hi: f64, count: f64) -> Vec<f64> {
    let span = hi - lo;
    if !(span > 0.0 && span.is_finite()) {
        return vec![lo];
    }
    let raw = span / count;
    let power = 10f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|s| *s >= raw).unwrap_or(raw);
    let first = (lo / step).ceil() as i64;
    (first..).map(|i| i as f64 * step).take_while(|t| *t <= hi + step * 1e-9).collect()
}

/// A number as a label: few digits, thousands as k.
pub(crate) fn label(v: f64) -> String {
    let a = v.abs();
    let text = match a {
        _ if a >= 1e6 => format!("{:.1}M", v / 1e6),
        _ if a >= 1e4 => format!("{:.0}k", v / 1e3),
        _ if a >= 1e3 => format!("{:.1}k", v / 1e3),
        _ if a >= 10.0 || a == 0.0 => format!("{v:.0}"),
        _ if a >= 0.01 => format!("{v:.3}").trim_end_matches('0').trim_end_matches('.').to_string(),
        _ => format!("{v:.1e}"),
    };
    text.replace(".0k", "k").replace(".0M", "M").replace(".0e", "e")
}

/// Smallest and largest of the finite values, spread where there is but one.
fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let finite = values.filter(|v| v.is_finite());
    let (lo, hi) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
    match hi - lo {
        d if d > 0.0 => Some((lo, hi)),
        0.0 => Some((lo - 0.5 * lo.abs().max(1.0), hi + 0.5 * hi.abs().max(1.0))),
        _ => None,
    }
}

impl Chart {
    /// The chart as an SVG element; a sentence where there is nothing to draw.
    pub(crate) fn svg(&self) -> String {
        let all = || self.lines.iter().flat_map(|l| l.points.iter());
        let finite = || all().filter(|(x, y)| x.is_finite() && y.is_finite());
        let heights = finite().map(|p| p.1).chain(self.levels.iter().map(|l| l.0));
        let (Some((x0, x1)), Some((y0, y1))) = (range(finite().map(|p| p.0)), range(heights)) else {
            return "<p>Nothing was logged yet.</p>".into();
        };
        let pad = 0.05 * (y1 - y0);
        let (y0, y1) = (if y0 >= 0.0 { (y0 - pad).max(0.0) } else { y0 - pad }, y1 + pad);
        let at = |x: f64, y: f64| {
            let (u, v) = ((x - x0) / (x1 - x0), (y - y0) / (y1 - y0));
            (LEFT + u * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - v * (HEIGHT - TOP - BOTTOM))
        };
        let mut s = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{} over {}\">",
            escape(&self.y),
            self.x
        );
        self.axes(&mut s, (x0, x1), (y0, y1), at);
        for (i, (value, name)) in self.levels.iter().enumerate() {
            let ((left, y), (right, _)) = (at(x0, *value), at(x1, *value));
            // Neighbouring levels may lie close together: their names stand in two columns.
            let end = right - 190.0 * (i % 2) as f64;
            let _ = write!(s, "<path class=\"level\" d=\"M{left:.1} {y:.1}H{right:.1}\"/>");
            let _ = write!(
                s,
                "<text class=\"note\" x=\"{end:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                y - 4.0,
                escape(name)
            );
        }
        let mut legend = LEFT;
        for line in &self.lines {
            let _ = write!(s, "<path class=\"line {}\" d=\"{}\"/>", line.class, path(&line.points, at));
            if let [(x, y)] =
                line.points.iter().filter(|(x, y)| x.is_finite() && y.is_finite()).collect::<Vec<_>>()[..]
            {
                let (x, y) = at(*x, *y);
                let _ =
                    write!(s, "<circle class=\"line {}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"/>", line.class);
            }
            let (name, x) = (escape(&line.name), legend + 22.0);
            let _ = write!(
                s,
                "<path class=\"line {}\" d=\"M{legend:.1} 16h16\"/><text x=\"{x:.1}\" y=\"20\">{name}</text>",
                line.class
            );
            legend += 36.0 + 7.5 * line.name.chars().count() as f64;
        }
        s + "</svg>"
    }

    fn axes(
        &self,
        s: &mut String,
        (x0, x1): (f64, f64),
        (y0, y1): (f64, f64),
        at: impl Fn(f64, f64) -> (f64, f64),
    ) {
        for t in ticks(y0, y1, 5.0) {
            let (_, y) = at(x0, t);
            let _ = write!(s, "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{:.1}\"/>", WIDTH - RIGHT);
            let _ = write!(
                s,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 8.0,
                y + 4.0,
                label(t)
            );
        }
        for t in ticks(x0, x1, 6.0) {
            let (x, _) = at(t, y0);
            let _ = write!(
                s,
                "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                HEIGHT - BOTTOM + 18.0,
                label(t)
            );
        }
        let middle = (TOP + HEIGHT - BOTTOM) / 2.0;
        let _ = write!(
            s,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            (LEFT + WIDTH - RIGHT) / 2.0,
            HEIGHT - 6.0,
            self.x
        );
        let _ = write!(
            s,
            "<text transform=\"translate(14 {middle:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            escape(&self.y)
        );
        let _ = write!(
            s,
            "<path class=\"axis\" d=\"M{LEFT} {TOP}V{0:.1}H{1:.1}\"/>",
            HEIGHT - BOTTOM,
            WIDTH - RIGHT
        );
    }
}

fn path(points: &[(f64, f64)], at: impl Fn(f64, f64) -> (f64, f64)) -> String {
    let (mut d, mut pen) = (String::new(), false);
    for &(x, y) in points {
        if !(x.is_finite() && y.is_finite()) {
            pen = false;
            continue;
        }
        let (u, v) = at(x, y);
        // A point on its own becomes a dot: a line of no length with round ends.
        let _ = write!(d, "{}{u:.1} {v:.1}", if pen { "L" } else { "M" });
        if !pen {
            d += "h0";
        }
        pen = true;
    }
    d
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(ticks(0.0, 10.0, 5.0), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(ticks(1.3, 1.38, 4.0).len(), 5);
        assert_eq!(ticks(3.0, 3.0, 5.0), [3.0]);
        assert_eq!([1500.0, 0.25, 12000.0, 2e-4, 7.0].map(label), ["1.5k", "0.25", "12k", "2e-4", "7"]);
    }

    #[test]
    fn odd_data_draw_something_harmless() {
        let chart = |points: Vec<(f64, f64)>| {
            let lines = vec![Line { name: "a<b".into(), class: "a", points }];
            Chart { x: "step", y: "loss".into(), lines, levels: vec![] }.svg()
        };
        assert!(chart(vec![]).contains("Nothing"));
        assert!(chart(vec![(f64::NAN, f64::NAN)]).contains("Nothing"));
        for svg in [chart(vec![(1.0, 2.0)]), chart(vec![(1.0, 2.0), (2.0, f64::INFINITY), (3.0, 1.0)])] {
            assert!(!svg.contains("NaN") && !svg.contains("inf") && svg.contains("a&lt;b"), "{svg}");
        }
    }
}

//! Attention between modalities as inline SVG: for each sample a row for each group of tokens that look, a column for each
//! modality that is looked at; orange, the more opaque the larger the share of attention, lies over what the model read.

use super::maps::{Looked, Shown, Values};
use super::plot::escape;
use crate::nn::fusion::Map;
use std::fmt::Write;

/// Height of what is drawn of a modality, in units of the SVG.
const HEIGHT: f64 = 72.0;
/// Widest that it is.
const WIDEST: f64 = 190.0;
/// Where the first modality begins: names stand before it.
const LEFT: f64 = 132.0;
/// Between two modalities, for the labels of axes; and below a row, for its shares.
const GAP: f64 = 34.0;
const BELOW: f64 = 30.0;
/// Above the first row, for the sample's name.
const TOP: f64 = 24.0;
/// Width of a symbol's box.
const SYMBOL: f64 = 20.0;
/// Levels of grey.
const GREYS: f64 = 7.0;

/// All samples, one below the other.
pub(super) fn svg(all: &[Looked]) -> String {
    let rows: Vec<Vec<Vec<&Map>>> = all.iter().map(|l| rows(&l.maps)).collect();
    let height = |rows: &Vec<Vec<&Map>>| TOP + rows.len() as f64 * (HEIGHT + BELOW) + 22.0;
    let width = all.first().map_or(LEFT, |l| l.shown.iter().fold(LEFT, |x, s| x + size(s)[0] + GAP));
    let total: f64 = rows.iter().map(height).sum();
    let mut s = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {total:.0}\" role=\"img\" \
         aria-label=\"attention between modalities\" font-family=\"system-ui,sans-serif\" font-size=\"11\" fill=\"#667788\">"
    );
    let mut y = 0.0;
    for (k, (looked, rows)) in all.iter().zip(&rows).enumerate() {
        sample(&mut s, k, looked, rows, y);
        y += height(rows);
    }
    s + "</svg>"
}

/// Maps with the same layer and the same tokens that look.
fn rows(maps: &[Map]) -> Vec<Vec<&Map>> {
    let mut rows: Vec<Vec<&Map>> = Vec::new();
    for map in maps {
        match rows.iter_mut().find(|r| (r[0].layer, &r[0].from) == (map.layer, &map.from)) {
            Some(row) => row.push(map),
            None => rows.push(vec![map]),
        }
    }
    rows
}

/// Width and height of what is drawn of a modality.
fn size(shown: &Shown) -> [f64; 2] {
    match &shown.what {
        Values::Plane { width, values, .. } => {
            let rows = (values.len() / width.max(&1)).max(1);
            let wide = HEIGHT * *width as f64 / rows as f64;
            [wide.clamp(HEIGHT, WIDEST), HEIGHT]
        }
        // A text of any length is as wide as its tokens.
        Values::Symbols(_) => [SYMBOL * shown.grid[1] as f64, HEIGHT],
    }
}

fn sample(s: &mut String, k: usize, looked: &Looked, rows: &[Vec<&Map>], top: f64) {
    let verdict =
        looked.classes.as_ref().map_or(String::new(), |[is, said]| format!(": {is}, held to be {said}"));
    let _ = write!(
        s,
        "<text x=\"4\" y=\"{:.0}\" font-weight=\"bold\">held-out sample {}{}</text><defs>",
        top + 15.0,
        looked.sample,
        escape(&verdict)
    );
    for (m, shown) in looked.shown.iter().enumerate() {
        let _ = write!(s, "<g id=\"look-{k}-{m}\">{}</g>", picture(shown));
    }
    *s += "</defs>";
    for (r, row) in rows.iter().enumerate() {
        let y = top + TOP + r as f64 * (HEIGHT + BELOW);
        let most = row.iter().flat_map(|m| &m.weights).fold(0.0, |a: f64, b| a.max(*b));
        let (layer, from) = (row[0].layer + 1, escape(&row[0].from));
        let _ = write!(
            s,
            "<text x=\"4\" y=\"{:.0}\">{from}</text><text x=\"4\" y=\"{:.0}\">looks, layer {layer}</text>",
            y + HEIGHT / 2.0 - 4.0,
            y + HEIGHT / 2.0 + 10.0
        );
        let mut x = LEFT;
        for (m, shown) in looked.shown.iter().enumerate() {
            let place = Place { x, y, last: r + 1 == rows.len() };
            if let Some(map) = row.iter().find(|map| map.to == m) {
                cell(s, &format!("look-{k}-{m}"), shown, map, most, &place);
            }
            x += size(shown)[0] + GAP;
        }
    }
}

/// Where a cell stands, and whether it is the last of its column.
struct Place {
    x: f64,
    y: f64,
    last: bool,
}

/// What the model read, and over it where it looks.
fn cell(s: &mut String, id: &str, shown: &Shown, map: &Map, most: f64, place: &Place) {
    let ([w, h], [rows, columns]) = (size(shown), shown.grid);
    let (x, y) = (place.x, place.y);
    let read = format!("<use href=\"#{id}\" x=\"{x:.1}\" y=\"{y:.1}\"/>");
    // Symbols are read on top of it.
    let [below, above] = match shown.what {
        Values::Plane { .. } => [&read[..], ""],
        Values::Symbols(_) => ["", &read[..]],
    };
    let _ = write!(s, "{below}<g fill=\"#f76707\">");
    let (dx, dy) = (w / columns as f64, h / rows as f64);
    for (t, weight) in map.weights.iter().enumerate() {
        let opacity = if most > 0.0 { 0.85 * weight / most } else { 0.0 };
        if opacity >= 0.005 {
            let (i, j) = (t / columns, t % columns);
            let _ = write!(
                s,
                "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{dx:.1}\" height=\"{dy:.1}\" fill-opacity=\"{opacity:.2}\"/>",
                x + j as f64 * dx,
                y + i as f64 * dy
            );
        }
    }
    let share = 100.0 * map.weights.iter().sum::<f64>();
    let _ = write!(
        s,
        "</g>{above}<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{} {share:.0} %</text>",
        x + w / 2.0,
        y + h + 13.0,
        escape(&shown.name)
    );
    axes(s, shown, [w, h], place);
}

/// What is counted along the sides.
fn axes(s: &mut String, shown: &Shown, [w, h]: [f64; 2], place: &Place) {
    let (along, up) = match &shown.what {
        Values::Plane { width, values, sound } => {
            let rows = values.len() / width.max(&1);
            let names = if *sound { ["frames", "coefficients"] } else { ["pixels", "pixels"] };
            (format!("{width} {}", names[0]), format!("{rows} {}", names[1]))
        }
        Values::Symbols(all) => (format!("{} symbols", all.len()), String::new()),
    };
    let middle = place.y + h / 2.0;
    let _ = write!(
        s,
        "<text transform=\"translate({:.1} {middle:.1}) rotate(-90)\" text-anchor=\"middle\" font-size=\"9\">{up}</text>",
        place.x - 4.0
    );
    if place.last {
        let _ = write!(
            s,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" font-size=\"9\">{along}</text>",
            place.x + w / 2.0,
            place.y + h + 25.0
        );
    }
}

/// What the model read, at the origin.
fn picture(shown: &Shown) -> String {
    let [w, h] = size(shown);
    match &shown.what {
        Values::Plane { width, values, .. } => plane(*width, values, [w, h]),
        Values::Symbols(all) => {
            let mut s = String::new();
            for (i, symbol) in all.iter().enumerate() {
                let (x, text) = ((i as f64 + 0.5) * SYMBOL, escape(symbol));
                // Words do not fit side by side: they stand upright.
                let turn = if symbol.chars().count() > 2 { " rotate(-90)" } else { "" };
                let _ = write!(
                    s,
                    "<text transform=\"translate({x:.1} {:.1}){turn}\" text-anchor=\"middle\" dy=\"4\">{text}</text>",
                    h / 2.0
                );
            }
            s
        }
    }
}

/// Values as greys, white the largest: a path for each grey, of runs along the rows.
fn plane(width: usize, values: &[f64], [w, h]: [f64; 2]) -> String {
    let rows = (values.len() / width.max(1)).max(1);
    let finite = values.iter().copied().filter(|v| v.is_finite());
    let (lo, hi) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
    let span = if hi > lo { hi - lo } else { 1.0 };
    let grey = |v: f64| if v.is_finite() { (GREYS * (v - lo) / span).round() as usize } else { 0 };
    let mut s = format!("<rect width=\"{w:.1}\" height=\"{h:.1}\" fill=\"#000\"/>");
    let _ = write!(
        s,
        "<g fill=\"#fff\" shape-rendering=\"crispEdges\" transform=\"scale({:.4} {:.4})\">",
        w / width as f64,
        h / rows as f64
    );
    for level in 1..=GREYS as usize {
        let mut d = String::new();
        for (y, row) in values.chunks(width.max(1)).enumerate() {
            let mut x = 0;
            while x < row.len() {
                let run = row[x..].iter().take_while(|v| grey(**v) == level).count();
                if run > 0 {
                    let _ = write!(d, "M{x} {y}h{run}v1h-{run}z");
                }
                x += run.max(1);
            }
        }
        if !d.is_empty() {
            let _ = write!(s, "<path fill-opacity=\"{:.2}\" d=\"{d}\"/>", level as f64 / GREYS);
        }
    }
    s + "</g>"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looked(weights: [f64; 2]) -> Looked {
        let plane = Values::Plane { width: 3, values: vec![0.0, 1.0, 1.0, f64::NAN, 0.5, 0.0], sound: false };
        let image = Shown { name: "im<age".into(), what: plane, grid: [1, 2] };
        let text = Values::Symbols(vec!["a&b".into(), "c".into()]);
        let text = Shown { name: "text".into(), what: text, grid: [1, 3] };
        let map = |from: &str, to, weights: &[f64]| Map {
            layer: 1,
            from: from.into(),
            to,
            weights: weights.to_vec(),
        };
        let maps = vec![
            map("summary", 0, &weights),
            map("text", 0, &[0.2, 0.0]),
            map("summary", 1, &[0.1, 0.3, 0.0]),
        ];
        Looked { sample: 4, classes: Some(["one".into(), "two".into()]), shown: vec![image, text], maps }
    }

    #[test]
    fn a_cell_is_as_dark_as_its_share_of_the_largest_of_its_row() {
        let s = svg(&[looked([0.6, 0.24])]);
        assert_eq!(s.matches("looks, layer 2").count(), 2, "two groups of tokens look: {s}");
        assert!(s.contains("fill-opacity=\"0.85\"") && s.contains("fill-opacity=\"0.34\""), "{s}");
        assert!(s.contains("im&lt;age 84 %") && s.contains("text 40 %") && s.contains("a&amp;b"), "{s}");
        assert!(s.contains("held-out sample 4: one, held to be two"));
        // Greys of the first row: two white pixels are one run.
        assert!(s.contains("M1 0h2v1h-2z"), "{s}");
        assert!(!s.contains("NaN") && !s.contains("inf"), "{s}");
    }

    #[test]
    fn no_attention_is_drawn_as_none() {
        let s = svg(&[looked([0.0, 0.0])]);
        assert!(s.contains("im&lt;age 0 %"), "{s}");
        assert!(!svg(&[]).contains("NaN"));
    }
}

//! What a user sees while a run trains: a bar on a terminal, else a line now and then.

use super::session::{Session, note};
use crate::train::{Metrics, Observer, Run};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::path::Path;
use std::time::{Duration, Instant};

/// Time between lines where there is no terminal.
const LINE: Duration = Duration::from_secs(5);

/// Draws the progress of a run on standard error.
pub(super) struct Progress<'s> {
    session: &'s Session<'s>,
    bar: Option<ProgressBar>,
    steps: u64,
    started: Instant,
    first: u64, // step at the start
    said: Option<Instant>,
    speed: String,
    held_out: String,
}

impl<'s> Progress<'s> {
    pub(super) fn new(session: &'s Session<'s>) -> Progress<'s> {
        let (speed, held_out) = (String::new(), String::new());
        Progress {
            session,
            bar: None,
            steps: 0,
            started: Instant::now(),
            first: 0,
            said: None,
            speed,
            held_out,
        }
    }

    /// Takes the bar away: what follows is printed on clean lines.
    pub(super) fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    /// A line above the bar, or a plain one.
    fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => note!(self.session, "{text}"),
        }
    }

    fn eta(&self, step: u64) -> String {
        let done = step.saturating_sub(self.first);
        if done == 0 {
            return "?".into();
        }
        let left =
            self.started.elapsed().as_secs_f64() / done as f64 * self.steps.saturating_sub(step) as f64;
        duration(left)
    }
}

/// `42 s`, `3 min 20 s`, `2 h 5 min`.
fn duration(seconds: f64) -> String {
    let s = seconds.round() as u64;
    match s {
        0..=99 => format!("{s} s"),
        100..=5999 => format!("{} min {} s", s / 60, s % 60),
        _ => format!("{} h {} min", s / 3600, s % 3600 / 60),
    }
}

/// `12.3k`: four characters are enough for a speed.
fn short(x: f64) -> String {
    match x {
        x if x >= 1e6 => format!("{:.2}M", x / 1e6),
        x if x >= 1e4 => format!("{:.1}k", x / 1e3),
        x => format!("{x:.0}"),
    }
}

impl Observer for Progress<'_> {
    fn on_start(&mut self, run: &Run) {
        let (c, p) = (run.config(), run.params());
        let model = format!("{} of {} parameters", c.model.kind, short(p.trained_len() as f64));
        let folder = run.path().display();
        note!(self.session, "{model} on {}, device {}, into {folder}", c.data.path, p.device().name());
        (self.steps, self.first, self.started) = (c.steps, run.step(), Instant::now());
        if self.first > 0 {
            note!(self.session, "going on from step {} to {}", self.first, self.steps);
        }
        if !self.session.quiet && std::io::stderr().is_terminal() {
            let template = "{bar:30} {pos}/{len}  {msg}";
            let style =
                ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar = ProgressBar::new(self.steps).with_style(style).with_position(self.first);
            bar.enable_steady_tick(Duration::from_millis(500));
            self.bar = Some(bar);
        }
    }

    fn on_step(&mut self, m: &Metrics) {
        if let Some(bar) = &self.bar {
            let eta = self.eta(m.step);
            bar.set_position(m.step);
            bar.set_message(format!("loss {:.3}{}{}  {eta} left", m.loss, self.held_out, self.speed));
        }
    }

    fn on_log(&mut self, m: &Metrics) {
        let speed = m.tokens_per_s.map(|s| format!("  {} tokens/s", short(s)));
        let speed = speed.or_else(|| m.samples_per_s.map(|s| format!("  {} samples/s", short(s))));
        self.speed = speed.unwrap_or_default();
        if m.stall > 0.05 {
            self.speed += &format!("  {:.0} % waiting for data", 100.0 * m.stall);
        }
        if let Some(v) = m.val_loss {
            let accuracy = m.val_accuracy.map(|a| format!(" ({:.2} %)", 100.0 * a)).unwrap_or_default();
            self.held_out = format!("  held out {v:.3}{accuracy}");
        }
        if self.bar.is_some() {
            if m.val_loss.is_some() {
                self.say(&format!("step {}: loss {:.4}{}", m.step, m.loss, self.held_out));
            }
            return;
        }
        // The first, evaluations, and then one every few seconds.
        if m.val_loss.is_some() || self.said.is_none_or(|t| t.elapsed() >= LINE) {
            self.said = Some(Instant::now());
            let held_out = if m.val_loss.is_some() { self.held_out.as_str() } else { "" };
            let eta = self.eta(m.step);
            let text = format!(
                "step {}/{}  loss {:.4}{held_out}{}  {eta} left",
                m.step, self.steps, m.loss, self.speed
            );
            self.say(&text);
        }
    }

    fn on_baselines(&mut self, losses: &[f64]) {
        let list: Vec<String> = losses.iter().enumerate().map(|(n, l)| format!("{n}: {l:.3}")).collect();
        self.say(&format!("to beat: n-gram losses by characters of context: {}", list.join(", ")));
    }

    fn on_snapshot(&mut self, path: &Path) {
        if let Some(bar) = &self.bar {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            bar.println(format!("saved {name}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!([duration(41.6), duration(200.0), duration(7500.0)], ["42 s", "3 min 20 s", "2 h 5 min"]);
        assert_eq!([short(950.2), short(12_345.0), short(1_250_000.0)], ["950", "12.3k", "1.25M"]);
    }
}

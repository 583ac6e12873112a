//! A timeline in the format of Chrome's trace viewer (also Perfetto): what each rank computes, and what is on the way
//! between ranks meanwhile.

use serde::Serialize;
use std::time::Instant;

/// Which line of a rank an event is drawn on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// Forward, backward, optimizer.
    Compute,
    /// What the other ranks are told: a gradient of so many bytes.
    Communication {
        /// Of this rank; over the ring 2(p − 1)/p of them are sent.
        bytes: usize,
    },
}

/// A complete event: times in microseconds.
#[derive(Serialize)]
struct Event {
    name: String,
    cat: &'static str,
    ph: &'static str,
    ts: f64,
    dur: f64,
    pid: usize,
    tid: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    args: Option<Args>,
}

/// What a trace viewer shows of an event that is clicked on.
#[derive(Serialize)]
struct Args {
    bytes: usize,
}

/// The events of one rank.
pub(super) struct Trace {
    rank: usize,
    zero: Instant,
    /// Steps that are still to be traced.
    left: u64,
    events: Vec<Event>,
}

impl Trace {
    /// Nothing yet, for `steps` steps, with `zero` as the time 0.
    pub(super) fn new(rank: usize, steps: u64, zero: Instant) -> Trace {
        Trace { rank, zero, left: steps, events: vec![] }
    }

    /// Notes that `name` took from `from` to `to`.
    pub(super) fn note(&mut self, lane: Lane, name: &str, from: Instant, to: Instant) {
        let micros = |t: Instant| t.saturating_duration_since(self.zero).as_secs_f64() * 1e6;
        let (cat, tid, args) = match lane {
            Lane::Compute => ("compute", 0, None),
            Lane::Communication { bytes } => ("communication", 1, Some(Args { bytes })),
        };
        let (ts, dur) = (micros(from), micros(to) - micros(from));
        self.events.push(Event { name: name.into(), cat, ph: "X", ts, dur, pid: self.rank, tid, args });
    }

    /// A step is over; true when it was the last one to be traced.
    pub(super) fn step(&mut self) -> bool {
        self.left = self.left.saturating_sub(1);
        self.left == 0
    }

    /// The events as JSON objects with commas between, names of the lanes first.
    pub(super) fn lines(&self) -> String {
        let name = |kind: &str, tid: usize, name: &str| {
            let pid = self.rank;
            format!(r#"{{"name":"{kind}","ph":"M","pid":{pid},"tid":{tid},"args":{{"name":"{name}"}}}}"#)
        };
        let mut all = vec![
            name("process_name", 0, &format!("rank {}", self.rank)),
            name("thread_name", 0, "compute"),
            name("thread_name", 1, "communication"),
        ];
        all.extend(self.events.iter().filter_map(|e| serde_json::to_string(e).ok()));
        all.join(",\n")
    }
}

/// A whole file of the lines of all ranks.
pub(super) fn file(ranks: &[String]) -> String {
    format!("{{\"traceEvents\":[\n{}\n],\"displayTimeUnit\":\"ms\"}}\n", ranks.join(",\n"))
}

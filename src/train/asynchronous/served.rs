//! A rank of a parameter server: it finds gradients at the weights that it was given last, and what its optimizer would do the server does.

use super::super::metrics::Metrics;
use super::super::{Config, Team};
use super::Turn;
use super::central::Central;
use super::server::{self, Desk};
use super::wire::{Message, Wire};
use crate::comm::{Place, Watch};
use crate::error::{Error, Result};
use crate::optim::{Optimizer, Step};
use crate::tape::{Change, Grads, Params};
use crate::tensor::Tensor;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a rank and its optimizer share.
struct Line {
    wire: Wire,
    /// The signal that asked this rank to stop.
    wish: i32,
    /// The last answer, without its numbers.
    answer: Message,
    /// Bytes of gradients.
    sent: u64,
}

fn lock(line: &Mutex<Line>) -> MutexGuard<'_, Line> {
    line.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The optimizer of a rank: it sends the gradient, and takes the weights that come.
struct Remote {
    /// None before there is one.
    line: Option<Arc<Mutex<Line>>>,
    name: &'static str,
    steps: u64,
}

impl Optimizer for Remote {
    fn name(&self) -> &'static str {
        self.name
    }
    fn advance(&mut self, w: &mut Params, g: &Grads, _: Step<'_>) -> Result<Option<f64>> {
        let nobody = || Error::Usage("the parameter server is not there yet".into());
        let mut line = lock(self.line.as_ref().ok_or_else(nobody)?);
        let mut numbers = Vec::new();
        for i in 0..g.segments().len() {
            numbers.extend_from_slice(g.segment::<f32>(i).unwrap_or_default());
        }
        line.sent += (numbers.len() * size_of::<f32>()) as u64;
        let stop = line.wish;
        line.exchange(&Message { stop, numbers, ..Message::default() })?;
        let mut numbers = std::mem::take(&mut line.answer.numbers);
        if line.answer.words.is_empty() {
            for i in 0..w.segments().len() {
                let rest = numbers.split_off(w.segments()[i].len.min(numbers.len()));
                w.segment_mut(i).write_bytes(0, bytemuck::cast_slice(&numbers))?;
                numbers = rest;
            }
        }
        self.steps += 1;
        Ok(None)
    }
    fn steps(&self) -> u64 {
        self.steps
    }
    fn state(&self) -> Vec<(String, &Tensor)> {
        vec![]
    }
    fn state_mut(&mut self) -> (Vec<(String, &mut Tensor)>, &mut u64) {
        (vec![], &mut self.steps)
    }
}

impl Line {
    fn exchange(&mut self, m: &Message) -> Result<()> {
        self.wire.send(m)?;
        let closed = |wire: &Wire| wire.gone("its parameter server has closed the connection");
        self.answer = self.wire.receive()?.ok_or_else(|| closed(&self.wire))?;
        Ok(())
    }
}

/// What a rank of a parameter server remembers.
pub(in super::super) struct Served {
    line: Arc<Mutex<Line>>,
    /// On rank 0: the server's desk, and where the optimizer is that rank 0 has while all meet.
    desk: Option<Arc<Desk>>,
    /// All have met, and rank 0 has the server's optimizer.
    meeting: bool,
    /// The step of the last meeting.
    met: u64,
    sent: u64,
}

impl Served {
    /// Opens the server, on rank 0, and has this rank join it. `optimizer` becomes one that sends.
    pub(super) fn new(
        config: &Config,
        team: &Team,
        (params, step): (&Params, u64),
        optimizer: &mut Box<dyn Optimizer>,
    ) -> Result<Served> {
        let watch: Watch = team.call(|c| Ok(c.watch()))?;
        let mut desk = None;
        let (name, steps) = (optimizer.name(), optimizer.steps());
        let (address, word): (String, String) = team.share(|| {
            let real = std::mem::replace(optimizer, Box::new(Remote { line: None, name, steps }));
            let central =
                Central::new(config, team.size(), (params.deep_clone()?, step), real, team.compare_every())?;
            let (batch, p) = (config.batch_size, team.size());
            let shares = (0..p).map(|r| ((r + 1) * batch / p - r * batch / p) as f64 / batch as f64);
            let place = Place::from_variables(|name| std::env::var(name).ok())?;
            let host =
                place.as_ref().and_then(|p| Some(p.address.rsplit_once(':')?.0)).unwrap_or("127.0.0.1");
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let (address, word, opened) = server::open(host, central, shares.collect(), watch.clone())?;
            desk = Some(opened);
            Ok((address.to_string(), word))
        })?;
        let most = params.segments().iter().map(|s| s.len).sum();
        let wire = server::connect(&address, &word, team.rank(), watch, most)?;
        let line = Arc::new(Mutex::new(Line { wire, wish: 0, answer: Message::default(), sent: 0 }));
        *optimizer = Box::new(Remote { line: Some(line.clone()), name, steps });
        Ok(Served { line, desk, meeting: false, met: step, sent: 0 })
    }

    /// A step of this rank begins; a signal may ask it to stop.
    pub(in super::super) fn begin(&mut self, optimizer: &mut Box<dyn Optimizer>, wish: Option<i32>) {
        lock(&self.line).wish = wish.unwrap_or(0);
        if std::mem::take(&mut self.meeting) {
            self.swap(optimizer);
        }
    }

    /// Rank 0 takes the server's optimizer, or gives it back.
    fn swap(&self, optimizer: &mut Box<dyn Optimizer>) {
        let Some(desk) = &self.desk else { return };
        let mut central = desk.central();
        match central.optimizer.take() {
            Some(real) => central.spare = Some(std::mem::replace(optimizer, real)),
            None => {
                if let Some(remote) = central.spare.take() {
                    central.optimizer = Some(std::mem::replace(optimizer, remote));
                }
            }
        }
        drop(central);
        desk.tell();
    }

    /// # Errors
    /// A model that changes states: the server would not know of them.
    pub(in super::super) fn saw(&self, changes: &[Change], params: &Params) -> Result<()> {
        // What is frozen is a state too, so that not all can be told before.
        changes.first().map_or(Ok(()), |change| Err(super::changes(&params.info(change.slot).name)))
    }

    /// Ends a step of this rank, and gives where the whole team is.
    pub(in super::super) fn after(
        &mut self,
        optimizer: &mut Box<dyn Optimizer>,
        done: Result<(Metrics, f64, Option<i32>)>,
        before: u64,
    ) -> Result<Turn> {
        let (mut metrics, own, _) = match done {
            Ok(done) => done,
            Err(Error::Numeric { step, what }) => {
                let mut line = lock(&self.line);
                line.exchange(&Message { words: format!("at step {step}: {what}"), ..Message::default() })?;
                self.desk.iter().for_each(|desk| desk.see_off());
                return Err(Error::Numeric { step, what: line.answer.words.clone() });
            }
            Err(e) => return Err(e),
        };
        let (answer, sent) = {
            let line = lock(&self.line);
            (line.answer.clone(), line.sent)
        };
        if !answer.words.is_empty() {
            self.desk.iter().for_each(|desk| desk.see_off());
            return Err(Error::Numeric { step: answer.step.max(before + 1), what: answer.words });
        }
        (metrics.step, metrics.lead) = (answer.step, Some(u64::from(answer.lead)));
        metrics.bytes_sent = Some(sent - std::mem::replace(&mut self.sent, sent));
        let stop = Some(answer.stop).filter(|s| *s != 0);
        let met = answer.meets.then(|| std::mem::replace(&mut self.met, answer.step));
        if answer.meets {
            self.meeting = true;
            self.swap(optimizer);
        }
        Ok(Turn { metrics, own, stop, before, met })
    }
}

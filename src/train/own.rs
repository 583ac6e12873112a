//! A user's own picture, recording or text, and what a trained model holds it to be.

use super::Trained;
use crate::data::{FrontEnd, foreign};
use crate::error::{Error, Result};
use crate::nn::fusion::Form;
use crate::tape::Tape;
use serde::Serialize;
use std::path::PathBuf;

/// What a user gives of one sample; at least one of it.
#[derive(Clone, Debug, Default)]
pub struct Own {
    /// A PNG.
    pub image: Option<PathBuf>,
    /// A WAV.
    pub audio: Option<PathBuf>,
    /// A text.
    pub text: Option<String>,
}

/// What a model holds a sample to be.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// Names of the classes, or their numbers, with their probabilities, the likeliest first.
    pub classes: Vec<(String, f64)>,
    /// Fields that were given.
    pub given: Vec<String>,
    /// What was changed to make files fit the model.
    pub notices: Vec<String>,
}

impl Own {
    /// True when nothing is given.
    pub fn is_empty(&self) -> bool {
        self.image.is_none() && self.audio.is_none() && self.text.is_none()
    }
}

impl Trained {
    /// What the model holds the sample `own` to be. Modalities that are not given are missing; a model of one input needs its own.
    ///
    /// # Errors
    /// Nothing given, something given that the model does not read, files that cannot be read as what they are to be, a model
    /// that foretells no classes.
    pub fn classify(&self, own: &Own) -> Result<Verdict> {
        if self.task.objective() != super::Objective::Classify || self.task.is_tokens() {
            let what =
                format!("the run trained a `{}` that has no classes of samples", self.config.model.kind);
            return Err(Error::Usage(what));
        }
        let header = self.task.set().header();
        let tape = Tape::eval(&self.params);
        let (mut values, mut given, mut notices) = (vec![], vec![], vec![]);
        let mut left = own.clone();
        for name in self.task.inputs() {
            let (field, front_end) = (self.task.set().field(name)?, header.front_end(name));
            let found = match form(front_end, &field.dims()) {
                Some(Form::Image(_)) => left.image.take().map(|p| foreign::image(field, front_end, &p)),
                Some(Form::Sound(_)) => left.audio.take().map(|p| foreign::audio(field, front_end, &p)),
                Some(Form::Text { .. }) => left.text.take().map(|t| foreign::text(field, front_end, &t)),
                None => None,
            };
            values.push(match found.transpose()? {
                Some(f) => {
                    notices.extend(f.notices);
                    given.push(name.clone());
                    Some(tape.constant(f.value.to_device(self.params.device())?))
                }
                None => None,
            });
        }
        self.expect_read(&left, &given)?;
        let y = self.model.predict(&values)?.output.softmax(-1)?.value().to_host()?.to_f64()?;
        let class = |i: usize| header.about.classes.get(i).cloned().unwrap_or_else(|| i.to_string());
        let mut classes: Vec<(String, f64)> = y.iter().enumerate().map(|(i, p)| (class(i), *p)).collect();
        classes.sort_by(|a, b| b.1.total_cmp(&a.1));
        Ok(Verdict { classes, given, notices })
    }

    /// Errors when something is `left` that the model does not read, or nothing was given that it does.
    fn expect_read(&self, left: &Own, given: &[String]) -> Result<()> {
        let reads = self.task.inputs().join(", ");
        let unread = [
            ("--image", left.image.is_some()),
            ("--audio", left.audio.is_some()),
            ("--text", left.text.is_some()),
        ];
        if let Some((flag, _)) = unread.iter().find(|(_, left)| *left) {
            return Err(Error::Usage(format!("{flag} is given, but the model reads {reads}")));
        }
        if given.is_empty() {
            return Err(Error::Usage(format!("nothing is given of what the model reads: {reads}")));
        }
        Ok(())
    }
}

/// What a field holds, as its front end says it, or its shape.
fn form(front_end: Option<&FrontEnd>, dims: &[usize]) -> Option<Form> {
    match (front_end, dims) {
        (Some(FrontEnd::Text { vocabulary, .. }), &[length]) => {
            Some(Form::Text { length, vocabulary: vocabulary.len() })
        }
        (_, &[c, h, w]) => Some(Form::Image([c, h, w])),
        (_, &[frames, width]) => Some(Form::Sound([frames, width])),
        _ => None,
    }
}

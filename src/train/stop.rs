//! Stopping on request: the step in progress is finished and a snapshot written; a second request leaves at once.

use crate::error::{Error, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// A request to stop, shared with signal handlers.
#[derive(Clone, Default)]
pub struct Stop(Arc<AtomicUsize>);

impl Stop {
    /// A request that only [`Stop::request`] makes.
    pub fn never() -> Stop {
        Stop::default()
    }

    /// Lets SIGINT and SIGTERM ask to stop, and their second arrival end the process with 128 + signal.
    pub fn on_signals() -> Result<Stop> {
        let stop = Stop::default();
        // One flag for both, so that the second request leaves at once whichever signal it is.
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            let refused = |e: std::io::Error| Error::Usage(format!("signal {signal} cannot be handled: {e}"));
            // In this order: the first arrival finds the flag unset and goes on, the second finds it set.
            signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, asked.clone())
                .map_err(refused)?;
            signal_hook::flag::register(signal, asked.clone()).map_err(refused)?;
            signal_hook::flag::register_usize(signal, stop.0.clone(), signal as usize).map_err(refused)?;
        }
        Ok(stop)
    }

    /// Asks to stop as if `signal` had arrived.
    pub fn request(&self, signal: i32) {
        self.0.store(signal as usize, Ordering::Relaxed);
    }

    /// The signal that asked to stop.
    pub fn signal(&self) -> Option<i32> {
        Some(self.0.load(Ordering::Relaxed) as i32).filter(|s| *s != 0)
    }
}

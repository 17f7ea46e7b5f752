//! Progress on standard error: one redrawn line on a terminal, else one line per step.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::screen;

/// Redraw interval while there is no progress.
const REDRAW: Duration = Duration::from_millis(120);

/// The current step of a command.
#[derive(Debug)]
pub(crate) struct Progress {
    step: Option<(String, ProgressBar)>,
    drawn: bool,
}

impl Progress {
    /// Draws only if standard error is a terminal that can redraw a line.
    pub(crate) fn new() -> Self {
        Self { step: None, drawn: std::io::stderr().is_terminal() && !screen::is_dumb() }
    }

    /// Ends the current step and begins another; `about` is the estimated number of items.
    pub(crate) fn begin(&mut self, step: &str, about: Option<u64>) {
        self.end();
        let bar = ProgressBar::with_draw_target(about, ProgressDrawTarget::hidden());
        if self.drawn {
            bar.set_style(style(about.is_some()));
            bar.set_draw_target(ProgressDrawTarget::stderr());
            bar.set_message(step.to_owned());
            bar.tick();
            bar.enable_steady_tick(REDRAW);
        } else {
            let expected = about.map_or_else(String::new, |about| format!(", about {about}"));
            screen::remark(&format!("{step}{expected}"));
        }
        self.step = Some((step.to_owned(), bar));
    }

    /// Sets the number of finished items, and raises the estimate if it was too low.
    pub(crate) fn at(&self, done: u64) {
        if let Some((_, bar)) = &self.step {
            if bar.length().is_some_and(|about| about < done) {
                bar.set_length(done);
            }
            bar.set_position(done);
        }
    }

    /// Ends the step: clears the line, or prints a final one.
    pub(crate) fn end(&mut self) {
        let Some((step, bar)) = self.step.take() else { return };
        if self.drawn {
            bar.finish_and_clear();
        } else {
            let (done, took) = (bar.position(), HumanDuration(bar.elapsed()));
            screen::remark(&format!("{step}: done, {done} in {took}"));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end();
    }
}

/// The count, the rate and, with an estimate, the remaining time.
fn style(expected: bool) -> ProgressStyle {
    let template =
        if expected { "{spinner} {msg}: {pos} of about {len}{rate}{left}" } else { "{spinner} {msg}: {pos}{rate}" };
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
        .with_key("rate", |state: &ProgressState, line: &mut dyn std::fmt::Write| {
            let rate = state.per_sec();
            let _ = if rate > 0.0 { write!(line, ", {rate:.1} a second") } else { Ok(()) };
        })
        .with_key("left", |state: &ProgressState, line: &mut dyn std::fmt::Write| {
            let known = state.pos() > 0 && state.len().is_some_and(|about| about > state.pos());
            let _ = if known { write!(line, ", about {:#} left", HumanDuration(state.eta())) } else { Ok(()) };
        })
}

//! A line on stderr that says what is being waited for; gone when it is over.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::Out;

/// The line, or nothing where nobody watches.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Begins with `text`.
    #[must_use]
    pub fn start(out: &Out, text: &str) -> Self {
        let bar = out.progress.then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed:.dim}") {
                bar.set_style(style);
            }
            bar.set_message(text.to_owned());
            bar.enable_steady_tick(Duration::from_millis(80));
            bar
        });
        Self { bar }
    }

    /// Begins to count to `length`.
    #[must_use]
    pub fn bar(out: &Out, length: u64) -> Self {
        let bar = out.progress.then(|| {
            let bar = ProgressBar::new(length);
            let template = "{bar:30} {pos}/{len}  {msg}  {elapsed:.dim}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Self { bar }
    }

    /// One more is done.
    pub fn step(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.inc(1);
            bar.set_message(text.to_owned());
        }
    }

    /// Prints something of the result without tearing the display.
    pub fn line_with(&self, print: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    /// Now this is waited for.
    pub fn say(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.to_owned());
        }
    }

    /// Prints a line of the result without tearing the display.
    pub fn line(&self, out: &Out, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| out.line(text)),
            None => out.line(text),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

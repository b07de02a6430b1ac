//! What people and scripts read: results on stdout, progress on stderr, escape codes only on a terminal.

pub mod bench;
pub mod cases;
pub mod election;
pub mod ensemble;
pub mod history;
mod markup;
pub mod network;
pub mod paint;
pub mod progress;
pub mod run;

use std::io::{IsTerminal, Write};

use serde::Serialize;

use self::paint::Paint;
use crate::failure::Failure;

/// Where results go, and in which form.
#[derive(Clone, Debug)]
pub struct Out {
    /// JSON instead of text.
    pub json: bool,
    /// Nothing but errors.
    pub quiet: bool,
    /// Say on stderr what is being done.
    pub verbose: bool,
    /// Show progress on stderr.
    pub progress: bool,
    /// Colours on stdout.
    pub paint: Paint,
}

impl Out {
    /// As the flags say; `color` is `None` for "on a terminal".
    #[must_use]
    pub fn new(
        json: bool,
        quiet: bool,
        verbose: bool,
        progress: bool,
        color: Option<bool>,
    ) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let color = color.unwrap_or_else(|| std::io::stdout().is_terminal() && !plain);
        Self {
            json,
            quiet,
            verbose,
            progress: progress && !json && !quiet && std::io::stderr().is_terminal(),
            paint: Paint { on: color && !json },
        }
    }

    /// A line of text for people.
    pub fn line(&self, text: &str) {
        if !self.json && !self.quiet {
            // A reader that went away wants no more.
            let _ = writeln!(std::io::stdout().lock(), "{text}");
        }
    }

    /// Bytes as they are.
    pub fn raw(&self, bytes: &[u8]) {
        if !self.quiet {
            let _ = std::io::stdout().lock().write_all(bytes);
        }
    }

    /// The result, for scripts.
    pub fn json(&self, value: &impl Serialize) {
        if self.json
            && let Ok(text) = serde_json::to_string(value)
        {
            let _ = writeln!(std::io::stdout().lock(), "{text}");
        }
    }

    /// Something being done, for those who want to know.
    pub fn doing(&self, text: &str) {
        if self.verbose && !self.quiet {
            let _ = writeln!(std::io::stderr().lock(), "{text}");
        }
    }

    /// A failure: the cause, then what to do.
    pub fn failure(&self, failure: &Failure) {
        let mut stderr = std::io::stderr().lock();
        let paint = Paint {
            on: std::io::stderr().is_terminal() && self.paint.on,
        };
        let _ = writeln!(stderr, "{} {}", paint.red("error:"), failure.cause);
        if let Some(hint) = &failure.hint {
            let _ = writeln!(stderr, "{}  {hint}", paint.bold("hint:"));
        }
        if self.json {
            let value = serde_json::json!({
                "v": 1,
                "error": failure.cause,
                "hint": failure.hint,
                "exit": failure.exit.code(),
            });
            let _ = writeln!(std::io::stdout().lock(), "{value}");
        }
    }
}

/// Milliseconds as people read them: `2.1 ms`, `61 ms`, `1.20 s`.
#[must_use]
pub fn time(ms: f64) -> String {
    if ms < 10.0 {
        format!("{ms:.1} ms")
    } else if ms < 10_000.0 {
        format!("{ms:.0} ms")
    } else {
        format!("{:.1} s", ms / 1000.0)
    }
}

/// Bytes as people read them: `812 B`, `14.1 kB`, `1.2 MB`.
#[must_use]
pub fn bytes(count: u64) -> String {
    let (unit, name) = match count {
        0..1_000 => return format!("{count} B"),
        1_000..1_000_000 => (1e3, "kB"),
        1_000_000..1_000_000_000 => (1e6, "MB"),
        _ => (1e9, "GB"),
    };
    format!("{:.1} {name}", count as f64 / unit)
}

/// How long something runs: `41s`, `2m04s`, `3h20m`.
#[must_use]
pub fn age(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

/// As a sentence begins; a name such as `n3` stays as it is.
fn capital(text: &str) -> String {
    let mut rest = text.chars();
    match rest.next() {
        Some(first) if !rest.clone().next().is_some_and(|c| c.is_ascii_digit()) => {
            first.to_uppercase().chain(rest).collect()
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::capital;

    #[test]
    fn sentences_begin_with_a_capital_letter_and_names_do_not() {
        for (text, as_sentence) in [
            ("client 3", "Client 3"),
            ("a znode", "A znode"),
            ("n3 ended", "n3 ended"),
            ("/a is old", "/a is old"),
            ("", ""),
        ] {
            assert_eq!(capital(text), as_sentence);
        }
    }
}

//! Colours, or none.

/// Paints text if it is switched on.
#[derive(Clone, Copy, Debug)]
pub struct Paint {
    /// Is it?
    pub on: bool,
}

impl Paint {
    fn with(self, code: &str, text: &str) -> String {
        if self.on {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }

    /// Good, or in charge.
    #[must_use]
    pub fn green(self, text: &str) -> String {
        self.with("32", text)
    }

    /// Bad.
    #[must_use]
    pub fn red(self, text: &str) -> String {
        self.with("31", text)
    }

    /// Not settled.
    #[must_use]
    pub fn yellow(self, text: &str) -> String {
        self.with("33", text)
    }

    /// A bar.
    #[must_use]
    pub fn cyan(self, text: &str) -> String {
        self.with("36", text)
    }

    /// What matters.
    #[must_use]
    pub fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    /// What matters less.
    #[must_use]
    pub fn dim(self, text: &str) -> String {
        self.with("2", text)
    }

    /// Paints the words for roles and states in a line of a table, whose columns stay where they are.
    #[must_use]
    pub fn states(self, line: &str) -> String {
        if !self.on {
            return line.to_owned();
        }
        let mut painted = line.to_owned();
        for (word, code) in [
            (" leader ", "1;32"),
            (" standalone ", "1;32"),
            (" looking ", "33"),
            (" paused ", "35"),
            (" silent ", "31"),
            (" down ", "31"),
        ] {
            painted = painted.replace(word, &format!("\u{1b}[{code}m{word}\u{1b}[0m"));
        }
        painted
    }
}

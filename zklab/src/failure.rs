//! Why a command did not do what was asked: cause, what to do about it, and the exit code.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The exit codes of zklab. When several apply, the order of severity is 1, 6, 3, 5, 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// It worked.
    Ok,
    /// A safety property is broken: a bug of the server under test.
    Bug,
    /// The command line is wrong: unknown flag, node or lab.
    Usage,
    /// An expectation or time budget was missed.
    Missed,
    /// Nothing can be said, because of the machine.
    Inconclusive,
    /// The environment: no binary, no addresses, never formed a quorum.
    Environment,
    /// A node died on its own.
    NodeDied,
    /// Interrupted from the keyboard.
    Interrupted,
}

impl Exit {
    /// The number the process ends with.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Bug => 1,
            Self::Usage => 2,
            Self::Missed => 3,
            Self::Inconclusive => 4,
            Self::Environment => 5,
            Self::NodeDied => 6,
            Self::Interrupted => 130,
        }
    }

    /// What a process of this program meant that ended with this number.
    #[must_use]
    pub fn of(code: i32) -> Option<Self> {
        const ALL: [Exit; 8] = [
            Exit::Ok,
            Exit::Bug,
            Exit::Usage,
            Exit::Missed,
            Exit::Inconclusive,
            Exit::Environment,
            Exit::NodeDied,
            Exit::Interrupted,
        ];
        ALL.into_iter().find(|exit| i32::from(exit.code()) == code)
    }
}

/// A failure as it is shown: one line for the cause, one for what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// How the process will end.
    pub exit: Exit,
    /// The cause, a lower-case fragment that names the value.
    pub cause: String,
    /// What to do about it, if there is something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Failure {
    /// A failure without advice.
    pub fn new(exit: Exit, cause: impl Into<String>) -> Self {
        Self {
            exit,
            cause: cause.into(),
            hint: None,
        }
    }

    /// Wrong use of the command line.
    pub fn usage(cause: impl Into<String>) -> Self {
        Self::new(Exit::Usage, cause)
    }

    /// Something the machine refuses or lacks.
    pub fn environment(cause: impl Into<String>) -> Self {
        Self::new(Exit::Environment, cause)
    }

    /// The same with advice.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cause)
    }
}

impl std::error::Error for Failure {}

/// An I/O error with what was being done.
pub trait Context<T> {
    /// Makes the error an environment failure that says `doing`.
    ///
    /// # Errors
    /// The failure, if `self` is one.
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T, E: fmt::Display> Context<T> for Result<T, E> {
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| Failure::environment(format!("{}: {error}", doing())))
    }
}

/// The word of `known` that is nearest to `wrong`, if one is near enough to be meant.
#[must_use]
pub fn nearest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|word| (distance(wrong, word), word))
        .filter(|(far, word)| *far <= 1 + word.len() / 4)
        .min()
        .map(|(_, word)| word)
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_is_one_slip_away_and_never_far_fetched() {
        assert_eq!(nearest("leadr", ["leader", "followers"]), Some("leader"));
        assert_eq!(nearest("n6", ["n1", "n5"]), Some("n1"));
        assert_eq!(nearest("zebra", ["leader", "n1"]), None);
    }
}

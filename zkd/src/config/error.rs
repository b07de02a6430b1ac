//! What is wrong with a configuration, said so that it can be repaired without a manual.
//!
//! Law kept here: an error names file, line, key and value and says what was expected; all problems of a
//! file are reported together. Every caller treats every problem alike (print, exit code 2), so there is
//! one type and no variants.

use std::fmt;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The line, from 1; `None` when the trouble is something that is missing.
    pub line: Option<usize>,
    /// The key as it stands in the file.
    pub key: Option<String>,
    /// Its value; `None` when it is secret or does not matter.
    pub value: Option<String>,
    /// What is wrong and what was expected.
    pub what: String,
}

/// A configuration that cannot be used: at least one problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, as the user named it.
    pub file: String,
    /// What is wrong, in the order of the file.
    pub problems: Vec<Problem>,
}

/// Something that does not stop the server, but that its owner should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigWarning {
    /// The file, as the user named it.
    pub file: String,
    /// The line, from 1, if it is about one.
    pub line: Option<usize>,
    /// What, and what to do.
    pub what: String,
}

impl ConfigError {
    /// An error with one problem that belongs to no line.
    #[must_use]
    pub fn whole_file(file: &str, what: String) -> Self {
        Self {
            file: file.to_owned(),
            problems: vec![Problem {
                line: None,
                key: None,
                value: None,
                what,
            }],
        }
    }
}

fn place(f: &mut fmt::Formatter<'_>, file: &str, line: Option<usize>) -> fmt::Result {
    match line {
        Some(line) => write!(f, "{file}:{line}: "),
        None => write!(f, "{file}: "),
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            place(f, &self.file, problem.line)?;
            match (&problem.key, &problem.value) {
                (Some(key), Some(value)) => write!(f, "{key}={value}: ")?,
                (Some(key), None) => write!(f, "{key}: ")?,
                _ => {}
            }
            f.write_str(&problem.what)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        place(f, &self.file, self.line)?;
        f.write_str(&self.what)
    }
}

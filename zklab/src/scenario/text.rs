//! Reading TOML so that every complaint names file, line, the wrong word and the nearest right one.
//!
//! A [`Section`] is a table whose keys are all known before anything in it is read: a misspelt key is told before
//! a missing one. A [`Value`] knows where it stands.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::amount::{Choice, Unit};
use crate::failure::{Failure, nearest};

/// A file's text and its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    /// As complaints begin.
    pub(super) name: String,
    /// Its text.
    pub(super) text: String,
}

impl Source {
    /// The line, from 1, of a byte.
    pub(super) fn line(&self, at: usize) -> usize {
        let until = at.min(self.text.len());
        1 + self.text.as_bytes()[..until]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count()
    }

    /// A complaint about what stands at `at`.
    pub(super) fn wrong(&self, at: &Range<usize>, cause: impl AsRef<str>) -> Failure {
        self.wrong_at(self.line(at.start), cause)
    }

    /// A complaint about a line.
    pub(super) fn wrong_at(&self, line: usize, cause: impl AsRef<str>) -> Failure {
        Failure::usage(format!("{}:{line}: {}", self.name, cause.as_ref()))
    }

    /// A word that is none of `known`.
    pub(super) fn unknown(&self, line: usize, what: &str, word: &str, known: &[&str]) -> Failure {
        let guess = nearest(word, known.iter().copied())
            .map(|near| format!("; did you mean {near}?"))
            .unwrap_or_default();
        self.wrong_at(line, format!("unknown {what} {word:?}{guess}"))
            .hint(format!("one of {}", known.join(", ")))
    }
}

/// A table of which all keys are known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Section<'a> {
    source: &'a Source,
    table: &'a DeTable<'a>,
    what: &'a str,
    at: usize,
}

impl<'a> Section<'a> {
    /// A table; `what` is its name in complaints.
    ///
    /// # Errors
    /// If it has a key that is none of `keys`.
    pub(super) fn new(
        source: &'a Source,
        table: &'a DeTable<'a>,
        at: usize,
        what: &'a str,
        keys: &[&str],
    ) -> Result<Self, Failure> {
        for key in table.keys() {
            let word = key.get_ref().as_ref();
            if !keys.contains(&word) {
                let line = source.line(key.span().start);
                return Err(source.unknown(line, &format!("key in {what}"), word, keys));
            }
        }
        Ok(Self {
            source,
            table,
            what,
            at,
        })
    }

    /// Where it begins.
    pub(super) fn line(&self) -> usize {
        self.source.line(self.at)
    }

    /// A complaint about the whole of it.
    pub(super) fn wrong(&self, cause: impl AsRef<str>) -> Failure {
        self.source.wrong_at(self.line(), cause)
    }

    /// What stands under a key, if something does.
    pub(super) fn get(&self, key: &'a str) -> Option<Value<'a>> {
        let value = self.table.get(key)?;
        Some(Value {
            source: self.source,
            key,
            value,
        })
    }

    /// What has to stand under a key.
    ///
    /// # Errors
    /// If nothing does.
    pub(super) fn need(&self, key: &'a str) -> Result<Value<'a>, Failure> {
        self.get(key)
            .ok_or_else(|| self.wrong(format!("{} has no {key:?}", self.what)))
    }

    /// All keys and values, by name.
    pub(super) fn entries(&self) -> Vec<Value<'a>> {
        let all = self.table.iter();
        all.map(|(key, value)| Value {
            source: self.source,
            key: key.get_ref().as_ref(),
            value,
        })
        .collect()
    }
}

/// A value and where it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Value<'a> {
    source: &'a Source,
    key: &'a str,
    value: &'a Spanned<DeValue<'a>>,
}

impl<'a> Value<'a> {
    /// The key it stands under.
    pub(super) fn key(&self) -> &'a str {
        self.key
    }

    /// Its line.
    pub(super) fn line(&self) -> usize {
        self.source.line(self.value.span().start)
    }

    /// A complaint about it.
    pub(super) fn wrong(&self, cause: impl AsRef<str>) -> Failure {
        self.source.wrong(&self.value.span(), cause)
    }

    fn is_no(&self, wanted: &str) -> Failure {
        let shown = &self.source.text[self.value.span()];
        let shown: String = shown.chars().take(40).collect();
        self.wrong(format!("{}: {shown} is not {wanted}", self.key))
    }

    /// A text.
    ///
    /// # Errors
    /// If it is none.
    pub(super) fn text(&self) -> Result<String, Failure> {
        match self.value.get_ref() {
            DeValue::String(text) => Ok(text.to_string()),
            _ => Err(self.is_no("a text in quotes")),
        }
    }

    /// One of these words.
    ///
    /// # Errors
    /// If it is none of them.
    pub(super) fn word(&self, known: &[&str]) -> Result<String, Failure> {
        let word = self.text()?;
        if known.contains(&word.as_str()) {
            return Ok(word);
        }
        Err(self.source.unknown(self.line(), self.key, &word, known))
    }

    /// True or false.
    ///
    /// # Errors
    /// If it is neither.
    pub(super) fn truth(&self) -> Result<bool, Failure> {
        match self.value.get_ref() {
            DeValue::Boolean(truth) => Ok(*truth),
            _ => Err(self.is_no("true or false")),
        }
    }

    /// Is it true or false at all?
    pub(super) fn is_truth(&self) -> bool {
        matches!(self.value.get_ref(), DeValue::Boolean(_))
    }

    /// An amount as it is written, number or text.
    fn written(&self) -> Option<String> {
        match self.value.get_ref() {
            DeValue::String(text) => Some(text.to_string()),
            DeValue::Integer(number) => Some(number.to_string()),
            DeValue::Float(number) => Some(number.to_string()),
            _ => None,
        }
    }

    /// A text or a number, as one word.
    ///
    /// # Errors
    /// If it is neither.
    pub(super) fn plain(&self) -> Result<String, Failure> {
        self.written()
            .ok_or_else(|| self.is_no("a text or a number"))
    }

    /// One amount.
    ///
    /// # Errors
    /// If it is none.
    pub(super) fn amount(&self, unit: Unit) -> Result<u64, Failure> {
        let written = self.written().ok_or_else(|| self.is_no(unit.example()))?;
        unit.parse(&written)
            .map_err(|why| self.wrong(format!("{}: {why}", self.key)))
    }

    /// One amount, a list of which the seed picks one, or a range such as `"1s..2s"`.
    ///
    /// # Errors
    /// If it is none of these.
    pub(super) fn choice(&self, unit: Unit) -> Result<Choice, Failure> {
        if let DeValue::Array(_) = self.value.get_ref() {
            let items = self.items();
            if items.is_empty() {
                return Err(self.wrong(format!("{}: nothing to choose from", self.key)));
            }
            let amounts = items.iter().map(|item| item.amount(unit));
            return Ok(Choice::One(amounts.collect::<Result<_, _>>()?));
        }
        let written = self.written().ok_or_else(|| self.is_no(unit.example()))?;
        Choice::parse(&written, unit).map_err(|why| self.wrong(format!("{}: {why}", self.key)))
    }

    /// One text or a list of them, never empty.
    ///
    /// # Errors
    /// If it is neither.
    pub(super) fn texts(&self) -> Result<Vec<String>, Failure> {
        let items = self.items();
        if items.is_empty() {
            return Err(self.wrong(format!("{}: nothing to choose from", self.key)));
        }
        items.iter().map(Self::text).collect()
    }

    /// One of these words or a list of them.
    ///
    /// # Errors
    /// If one is none of them.
    pub(super) fn words(&self, known: &[&str]) -> Result<Vec<String>, Failure> {
        let items = self.items();
        if items.is_empty() {
            return Err(self.wrong(format!("{}: nothing to choose from", self.key)));
        }
        items.iter().map(|item| item.word(known)).collect()
    }

    /// The items of a list; what is no list is its own only item.
    pub(super) fn items(&self) -> Vec<Self> {
        match self.value.get_ref() {
            DeValue::Array(items) => items
                .iter()
                .map(|value| Self {
                    source: self.source,
                    key: self.key,
                    value,
                })
                .collect(),
            _ => vec![*self],
        }
    }

    /// A table of which these are the keys.
    ///
    /// # Errors
    /// If it is none, or has another key.
    pub(super) fn section(&self, what: &'a str, keys: &[&str]) -> Result<Section<'a>, Failure> {
        match self.value.get_ref() {
            DeValue::Table(table) => {
                Section::new(self.source, table, self.value.span().start, what, keys)
            }
            _ => Err(self.is_no("a table { … }")),
        }
    }
}

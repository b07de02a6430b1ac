//! Which links a word means: `n1:n2` both ways, `n1>n2` one way, `n1` all links of a node; roles work
//! wherever a node does.

use super::partition::{self, Pair};
use crate::ensemble::status::{self, Status};
use crate::ensemble::{Ensemble, select};
use crate::failure::Failure;
use crate::id::NodeId;

/// The nodes of a lab, asked for their roles only if a word needs that.
#[derive(Debug)]
pub struct Names<'a> {
    lab: &'a Ensemble,
    /// The names in the words are numbers already: there was nothing to ask.
    now: Option<Status>,
}

impl<'a> Names<'a> {
    /// Ready for these words.
    pub async fn of(lab: &'a Ensemble, words: &[String]) -> Self {
        let is_plain = |word: &String| {
            word.split([':', '>', ','])
                .all(|part| part == "all" || part.trim().parse::<NodeId>().is_ok())
        };
        let now = if words.iter().all(is_plain) {
            None
        } else {
            Some(status::probe(lab).await)
        };
        Self { lab, now }
    }

    /// The places of the nodes a word means.
    ///
    /// # Errors
    /// If it means none.
    pub fn nodes(&self, word: &str) -> Result<Vec<usize>, Failure> {
        if word.trim() == "all" {
            return Ok(self.lab.places());
        }
        let word = word.trim();
        let chosen = match &self.now {
            Some(now) => select::nodes(self.lab, now, &[word.to_owned()])?,
            None => word
                .split(',')
                .map(|word| select::named(self.lab, word.trim()))
                .collect::<Result<_, _>>()?,
        };
        Ok(chosen.into_iter().map(NodeId::place).collect())
    }

    /// The links a word means.
    ///
    /// # Errors
    /// If it means none.
    pub fn links(&self, word: &str) -> Result<Vec<Pair>, Failure> {
        let links = if let Some((from, to)) = word.split_once('>') {
            partition::one_way(&self.nodes(from)?, &self.nodes(to)?)
        } else if let Some((one, other)) = word.split_once(':') {
            partition::between(&self.nodes(one)?, &self.nodes(other)?)
        } else {
            partition::between(&self.nodes(word)?, &self.lab.places())
        };
        if links.is_empty() {
            return Err(
                Failure::usage(format!("{word:?} is no link between two nodes"))
                    .hint("n1:n2 is a link in both directions, n1>n2 in one, n1 all of a node"),
            );
        }
        Ok(links)
    }

    /// The links that several words mean, each once.
    ///
    /// # Errors
    /// If one means none.
    pub fn all_links(&self, words: &[String]) -> Result<Vec<Pair>, Failure> {
        let mut links = Vec::new();
        for word in words {
            links.extend(self.links(word)?);
        }
        links.sort_unstable();
        links.dedup();
        Ok(links)
    }
}

/// The name of a link: `n1>n2`.
#[must_use]
pub fn name((from, to): Pair) -> String {
    format!("{}>{}", NodeId::at(from), NodeId::at(to))
}

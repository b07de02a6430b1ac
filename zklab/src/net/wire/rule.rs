//! Which message is to be withheld.

use super::Name;
use super::scan::Head;

/// The messages that a rule is about, and which of them it catches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its number, chosen by whoever arms it.
    pub id: u32,
    /// What is caught.
    pub name: Name,
    /// From these nodes, by their places.
    pub from: Vec<usize>,
    /// To these.
    pub to: Vec<usize>,
    /// Only with this zxid.
    pub zxid: Option<i64>,
    /// The first one caught is the n-th on its link since the rule was armed, from 1.
    pub nth: u32,
    /// So many are caught in all; each takes the rest of its connection in its direction with it.
    pub count: u32,
    /// What is caught is let go when the rule is taken out; else it never arrives.
    pub hold: bool,
}

/// A rule in force.
#[derive(Clone, Debug)]
pub(super) struct Armed {
    pub(super) rule: Rule,
    /// Messages that fit, by link.
    seen: Vec<((usize, usize), u32)>,
    caught: u32,
}

impl Armed {
    pub(super) fn new(rule: Rule) -> Self {
        Self {
            rule,
            seen: Vec::new(),
            caught: 0,
        }
    }

    /// Could it still catch something on this link?
    pub(super) fn concerns(&self, from: usize, to: usize) -> bool {
        self.caught < self.rule.count
            && self.rule.from.contains(&from)
            && self.rule.to.contains(&to)
    }

    /// Counts a message; does the rule catch it?
    pub(super) fn catches(&mut self, from: usize, to: usize, head: &Head) -> bool {
        let fits = head.name == self.rule.name
            && self.rule.zxid.is_none_or(|zxid| zxid == head.zxid)
            && self.concerns(from, to);
        if !fits {
            return false;
        }
        let link = (from, to);
        let place = match self.seen.iter().position(|(other, _)| *other == link) {
            Some(place) => place,
            None => {
                self.seen.push((link, 0));
                self.seen.len() - 1
            }
        };
        let seen = &mut self.seen[place].1;
        *seen += 1;
        let caught = *seen >= self.rule.nth;
        self.caught += u32::from(caught);
        caught
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zkd::record::quorum::packet::{ACK, PROPOSAL};

    #[test]
    fn a_rule_counts_on_each_link_and_catches_so_many() {
        let rule = Rule {
            id: 1,
            name: Name::Packet(PROPOSAL),
            from: vec![0],
            to: vec![1, 2],
            zxid: None,
            nth: 2,
            count: 2,
            hold: true,
        };
        let mut armed = Armed::new(rule);
        let head = |kind, zxid| Head {
            name: Name::Packet(kind),
            zxid,
        };
        let proposal = head(PROPOSAL, 7);
        assert!(!armed.catches(0, 1, &proposal));
        assert!(!armed.catches(0, 2, &proposal), "the first on its link");
        assert!(!armed.catches(0, 1, &head(ACK, 7)), "another message");
        assert!(!armed.catches(1, 0, &proposal), "another link");
        assert!(armed.catches(0, 1, &proposal));
        assert!(armed.concerns(0, 2));
        assert!(armed.catches(0, 2, &proposal));
        assert!(!armed.catches(0, 2, &proposal), "it has had its two");
        assert!(!armed.concerns(0, 1));
        armed.rule.zxid = Some(9);
        armed.rule.count = 3;
        assert!(!armed.catches(0, 1, &proposal) && armed.catches(0, 1, &head(PROPOSAL, 9)));
    }
}

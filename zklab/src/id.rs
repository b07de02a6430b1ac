//! The name of a node: `n3` is the server with `myid` 3.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use zkd::ids::ServerId;

/// A node of a lab. Its number is the server's `myid` and the last part of its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeId(pub u8);

/// What a node is in the ensemble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Membership {
    /// It votes.
    Voter,
    /// It follows without a vote.
    Observer,
}

impl NodeId {
    /// The highest number a node can have.
    pub const MAX: u8 = 250;

    /// The server id.
    #[must_use]
    pub fn sid(self) -> ServerId {
        ServerId(i64::from(self.0))
    }

    /// Its place: where it stands in whatever is kept by node, such as the matrix of links.
    #[must_use]
    pub fn place(self) -> usize {
        usize::from(self.0) - 1
    }

    /// The node at a place.
    ///
    /// # Panics
    /// If no node can be there.
    #[must_use]
    pub fn at(place: usize) -> Self {
        let number = u8::try_from(place + 1).ok();
        let id = number.filter(|number| *number <= Self::MAX).map(Self);
        id.expect("places are those of nodes")
    }

    /// The node of a server id, if it can be one.
    #[must_use]
    pub fn of_sid(sid: i64) -> Option<Self> {
        u8::try_from(sid)
            .ok()
            .filter(|number| (1..=Self::MAX).contains(number))
            .map(Self)
    }
}

impl fmt::Display for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Voter => "voter",
            Self::Observer => "observer",
        })
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("n{}", self.0))
    }
}

impl FromStr for NodeId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.strip_prefix('n')
            .and_then(|number| number.parse().ok())
            .and_then(Self::of_sid)
            .ok_or_else(|| format!("{text:?} is not a node name such as n1"))
    }
}

impl TryFrom<String> for NodeId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<NodeId> for String {
    fn from(id: NodeId) -> Self {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written_alike() {
        assert_eq!("n3".parse(), Ok(NodeId(3)));
        assert_eq!(NodeId(3).to_string(), "n3");
        assert_eq!(NodeId::at(NodeId(3).place()), NodeId(3));
        for wrong in ["3", "n0", "n251", "n-1", "N3", "n", "leader"] {
            assert!(wrong.parse::<NodeId>().is_err(), "{wrong}");
        }
    }
}

//! The trees of servers, read through the client protocol: what each holds, its digest, and where two differ first.
//!
//! It needs nothing of the server but getData and getChildren, so it works on Apache ZooKeeper as on zkd. The digest is
//! computed as the servers do it (the sum of one CRC-32 for each znode's path, data and Stat), from what a client can
//! see. A tree is only good if every answer came from the same zxid: nothing was written meanwhile.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use zkd::ids::Zxid;
use zkd::record::data::{Stat, StatPersisted};
use zkd::tree::digest::node_digest;

use crate::probe::session::{Session, SessionError};

/// NoNode.
const NO_NODE: i32 = -101;

/// A znode as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Znode {
    /// Its data.
    pub data: Option<Bytes>,
    /// Its Stat.
    pub stat: Stat,
}

/// A whole tree at one zxid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// The zxid of the first answer.
    pub from: Zxid,
    /// The zxid of the last answer; the same if nothing was written meanwhile.
    pub to: Zxid,
    /// The znodes by path.
    pub znodes: BTreeMap<String, Znode>,
}

/// Where two trees differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// Only the first has it; the session that owns it, if one does.
    OnlyFirst(Option<String>),
    /// Only the second has it; the session that owns it, if one does.
    OnlySecond(Option<String>),
    /// The data are different.
    Data,
    /// A number of the Stat is different: its name, and both.
    Stat(&'static str, i64, i64),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let owner = |owner: &Option<String>| {
            let owner = owner.as_ref();
            owner.map_or(String::new(), |session| format!(", owner {session}"))
        };
        match self {
            Self::OnlyFirst(of) => write!(f, "only the first has it{}", owner(of)),
            Self::OnlySecond(of) => write!(f, "only the second has it{}", owner(of)),
            Self::Data => f.write_str("its data"),
            Self::Stat(name, one, two) => write!(f, "its {name}: {one:#x} and {two:#x}"),
        }
    }
}

impl Tree {
    /// Nothing was written while it was read.
    #[must_use]
    pub fn is_still(&self) -> bool {
        self.from == self.to
    }

    /// Its digest; what is below `/zookeeper` does not count.
    #[must_use]
    pub fn digest(&self) -> i64 {
        self.znodes
            .iter()
            .map(|(path, znode)| {
                let data = znode.data.as_deref();
                node_digest(path, data, &persisted(&znode.stat))
            })
            .fold(0, i64::wrapping_add)
    }

    /// The first path that differs, in the order of paths, and in what.
    #[must_use]
    pub fn differs(&self, other: &Self) -> Option<(String, Difference)> {
        let counts = |path: &&String| !path.starts_with("/zookeeper/");
        let mut paths: Vec<&String> = self.znodes.keys().chain(other.znodes.keys()).collect();
        paths.retain(counts);
        paths.sort_unstable();
        paths.dedup();
        // A parent differs because of its children: what is further down says more.
        let mut first: Option<(String, Difference)> = None;
        for path in paths {
            let Some(found) = difference(self.znodes.get(path), other.znodes.get(path)) else {
                continue;
            };
            let below = |parent: &str| parent == "/" || path.starts_with(&format!("{parent}/"));
            match &first {
                Some((parent, _)) if !below(parent) => break,
                _ => first = Some((path.clone(), found)),
            }
            if !matches!(
                first,
                Some((
                    _,
                    Difference::Stat("pzxid" | "cversion" | "numChildren", ..)
                ))
            ) {
                break;
            }
        }
        first
    }
}

fn difference(one: Option<&Znode>, two: Option<&Znode>) -> Option<Difference> {
    let owner = |znode: &Znode| {
        let owner = znode.stat.ephemeral_owner;
        (owner.0 != 0).then(|| owner.to_string())
    };
    let (one, two) = match (one, two) {
        (Some(one), Some(two)) => (one, two),
        (Some(one), None) => return Some(Difference::OnlyFirst(owner(one))),
        (None, Some(two)) => return Some(Difference::OnlySecond(owner(two))),
        (None, None) => return None,
    };
    if one.data != two.data {
        return Some(Difference::Data);
    }
    let numbers = |stat: &Stat| {
        [
            ("czxid", stat.czxid.0),
            ("mzxid", stat.mzxid.0),
            ("ctime", stat.ctime),
            ("mtime", stat.mtime),
            ("version", i64::from(stat.version)),
            ("aversion", i64::from(stat.aversion)),
            ("ephemeralOwner", stat.ephemeral_owner.0),
            ("cversion", i64::from(stat.cversion)),
            ("pzxid", stat.pzxid.0),
            ("numChildren", i64::from(stat.num_children)),
        ]
    };
    let both = numbers(&one.stat).into_iter().zip(numbers(&two.stat));
    both.into_iter()
        .find(|((_, one), (_, two))| one != two)
        .map(|((name, one), (_, two))| Difference::Stat(name, one, two))
}

/// The Stat as it is stored: clients are shown twice the creations less the children that are there.
fn persisted(stat: &Stat) -> StatPersisted {
    StatPersisted {
        czxid: stat.czxid,
        mzxid: stat.mzxid,
        ctime: stat.ctime,
        mtime: stat.mtime,
        version: stat.version,
        cversion: stat.cversion.wrapping_add(stat.num_children) / 2,
        aversion: stat.aversion,
        ephemeral_owner: stat.ephemeral_owner.0,
        pzxid: stat.pzxid,
    }
}

/// A session at every server, to read their trees with.
#[derive(Debug)]
pub struct Readers {
    sessions: Vec<Session>,
}

impl Readers {
    /// Opens them all: each is a txn, so the trees can only stand still afterwards.
    ///
    /// # Errors
    /// If a server takes no session; says which.
    pub async fn open(
        addresses: &[SocketAddr],
        patience: Duration,
    ) -> Result<Self, (usize, SessionError)> {
        let mut sessions = Vec::new();
        for (index, address) in addresses.iter().enumerate() {
            let opened = Session::open(*address, patience, None, patience).await;
            sessions.push(opened.map_err(|error| (index, error))?);
        }
        Ok(Self { sessions })
    }

    /// Reads the tree of each server once it has what the leader had.
    ///
    /// # Errors
    /// If a server does not answer; says which.
    pub async fn read(&mut self) -> Result<Vec<Tree>, (usize, SessionError)> {
        let mut trees = Vec::new();
        for (index, session) in self.sessions.iter_mut().enumerate() {
            trees.push(walk(session).await.map_err(|error| (index, error))?);
        }
        Ok(trees)
    }

    /// Ends the sessions.
    pub async fn close(self) {
        for session in self.sessions {
            // Whoever does not hear it lets the session expire.
            let _ = session.close().await;
        }
    }
}

async fn walk(session: &mut Session) -> Result<Tree, SessionError> {
    session.sync("/").await?;
    let mut znodes = BTreeMap::new();
    let mut paths = vec!["/".to_owned()];
    let (mut from, mut to) = (None, Zxid::ZERO);
    while let Some(path) = paths.pop() {
        let (zxid, found) = match session.look(&path).await {
            Ok(found) => found,
            // It went while the others were read; the zxids tell.
            Err(SessionError::Refused(NO_NODE)) => continue,
            Err(error) => return Err(error),
        };
        from.get_or_insert(zxid);
        to = to.max(zxid);
        if found.stat.num_children > 0 {
            let (zxid, names) = session.children(&path).await?;
            to = to.max(zxid);
            let parent = if path == "/" { "" } else { &path };
            paths.extend(names.iter().map(|name| format!("{parent}/{name}")));
        }
        let znode = Znode {
            data: found.data,
            stat: found.stat,
        };
        znodes.insert(path, znode);
    }
    Ok(Tree {
        from: from.unwrap_or(to),
        to,
        znodes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(znodes: &[(&str, &'static str, i64)]) -> Tree {
        let znode = |data: &'static str, pzxid: i64| Znode {
            data: Some(Bytes::from_static(data.as_bytes())),
            stat: Stat {
                pzxid: Zxid(pzxid),
                ..Stat::default()
            },
        };
        let znodes = znodes
            .iter()
            .map(|(path, data, pzxid)| ((*path).to_owned(), znode(data, *pzxid)));
        Tree {
            from: Zxid(9),
            to: Zxid(9),
            znodes: znodes.collect(),
        }
    }

    #[test]
    fn the_first_path_that_differs_is_the_cause_and_not_its_parent() {
        let one = tree(&[("/", "", 7), ("/a", "", 7), ("/a/x", "1", 0), ("/b", "", 0)]);
        assert_eq!(one.differs(&one), None);
        let without = tree(&[("/", "", 7), ("/a", "", 8), ("/b", "", 0)]);
        let (path, what) = one.differs(&without).unwrap();
        assert_eq!((path.as_str(), what), ("/a/x", Difference::OnlyFirst(None)));
        let other = tree(&[("/", "", 7), ("/a", "", 7), ("/a/x", "2", 0), ("/b", "", 0)]);
        let (path, what) = one.differs(&other).unwrap();
        assert_eq!((path.as_str(), what), ("/a/x", Difference::Data));
        assert_ne!(one.digest(), other.digest());
        // Only the parent is another, and nothing below it.
        let parent = tree(&[("/", "", 7), ("/a", "", 8), ("/a/x", "1", 0), ("/b", "", 0)]);
        let (path, what) = one.differs(&parent).unwrap();
        assert_eq!(
            (path.as_str(), what.to_string().as_str()),
            ("/a", "its pzxid: 0x7 and 0x8")
        );
        // The servers' own corner is theirs.
        let mut corner = one.clone();
        corner
            .znodes
            .insert("/zookeeper/quota".to_owned(), one.znodes["/b"].clone());
        assert_eq!(
            (one.differs(&corner), corner.digest()),
            (None, one.digest())
        );
    }
}

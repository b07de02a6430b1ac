//! Where the trees of servers differ, when their digests do: read as clients see them, and compared with what most have.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::ensemble::status::{NodeStatus, State, Status};
use crate::observe::trees::{Difference, Readers, Tree};

/// How long one answer of a server may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// The first znode in which each server's tree differs from that of the first server that has what most have, as a line
/// of a proof. Nothing if a tree cannot be read, or somebody writes.
pub(super) async fn read(status: &Status) -> Vec<Value> {
    let serving = status
        .nodes
        .iter()
        .filter(|node| node.state == State::Serving);
    let mut nodes: Vec<(&NodeStatus, SocketAddr)> = serving
        .filter_map(|node| Some((node, node.addr.parse().ok()?)))
        .collect();
    order(&mut nodes, |(node, _)| {
        node.digest.as_ref().map(|digest| digest.value.clone())
    });
    let addresses: Vec<SocketAddr> = nodes.iter().map(|(_, address)| *address).collect();
    let Ok(mut readers) = Readers::open(&addresses, PATIENCE).await else {
        return Vec::new();
    };
    let trees = readers.read().await;
    readers.close().await;
    let Ok(trees) = trees else {
        return Vec::new();
    };
    let named: Vec<(String, Tree)> = nodes
        .iter()
        .map(|(node, _)| node.id.to_string())
        .zip(trees)
        .collect();
    compare(&named)
}

/// Those with the digest that most have first.
fn order<T>(nodes: &mut [T], digest: impl Fn(&T) -> Option<String>) {
    let mut counts: BTreeMap<Option<String>, usize> = BTreeMap::new();
    for node in nodes.iter() {
        *counts.entry(digest(node)).or_default() += 1;
    }
    nodes.sort_by_key(|node| std::cmp::Reverse(counts.get(&digest(node)).copied()));
}

fn compare(trees: &[(String, Tree)]) -> Vec<Value> {
    let Some(((most, reference), others)) = trees.split_first() else {
        return Vec::new();
    };
    let found = others.iter().filter_map(|(name, tree)| {
        let (path, what) = tree.differs(reference)?;
        let (how, is_of_creation) = match what {
            Difference::OnlyFirst(_) => (format!("{name} has it, {most} has not"), false),
            Difference::OnlySecond(_) => (format!("{most} has it, {name} has not"), false),
            Difference::Data => (format!("its data are other on {name} than on {most}"), false),
            Difference::Stat(number, here, there) => (
                format!("its {number} is {here:#x} on {name} and {there:#x} on {most}"),
                matches!(number, "ctime" | "czxid"),
            ),
        };
        let znode = tree.znodes.get(&path).or_else(|| reference.znodes.get(&path))?;
        let by = if is_of_creation {
            znode.stat.czxid
        } else {
            znode.stat.mzxid
        };
        Some(json!({"k": "znode", "node": name, "than": most, "path": path, "differs": how, "z": by.to_string()}))
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use zkd::ids::Zxid;
    use zkd::record::data::Stat;

    use super::*;
    use crate::observe::trees::Znode;

    #[test]
    fn each_tree_is_compared_with_what_most_have() {
        let tree = |data: &'static str, ctime: i64| Tree {
            from: Zxid(9),
            to: Zxid(9),
            znodes: BTreeMap::from([(
                "/a".to_owned(),
                Znode {
                    data: Some(Bytes::from_static(data.as_bytes())),
                    stat: Stat {
                        czxid: Zxid(3),
                        mzxid: Zxid(7),
                        ctime,
                        ..Stat::default()
                    },
                },
            )]),
        };
        let mut trees = [
            ("n1".to_owned(), tree("x", 5)),
            ("n2".to_owned(), tree("y", 1)),
            ("n3".to_owned(), tree("x", 1)),
            ("n4".to_owned(), tree("x", 1)),
        ];
        order(&mut trees, |(_, tree)| Some(tree.digest().to_string()));
        let found = compare(&trees);
        let told: Vec<(&str, &str, &str)> = found
            .iter()
            .map(|line| {
                let word = |key: &str| line[key].as_str().unwrap();
                (word("node"), word("differs"), word("z"))
            })
            .collect();
        assert_eq!(
            told,
            [
                ("n1", "its ctime is 0x5 on n1 and 0x1 on n3", "0x3"),
                ("n2", "its data are other on n2 than on n3", "0x7"),
            ]
        );
        assert_eq!(compare(&trees[..2]), [Value::Null; 0]);
    }
}

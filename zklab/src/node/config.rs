//! Renders `zoo.cfg` and `myid` of a node, and writes them.

use std::fmt::Write as _;
use std::fs;

use super::{Membership, NodeSpec};
use crate::failure::{Context, Failure};
use crate::net::{CLIENT_PORT, ELECTION_PORT, Network, QUORUM_PORT};

/// What the nodes of a lab have in common.
#[derive(Clone, Copy, Debug)]
pub struct Shape<'a> {
    /// All nodes.
    pub nodes: &'a [NodeSpec],
    /// `tickTime`.
    pub tick_ms: u64,
    /// Their network.
    pub net: &'a dyn Network,
}

impl std::fmt::Debug for dyn Network + '_ {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} network", self.kind())
    }
}

/// The text of `zoo.cfg` of `node`.
#[must_use]
pub fn zoo_cfg(node: &NodeSpec, shape: Shape<'_>) -> String {
    let mut text = String::new();
    let mut line = |key: &str, value: &dyn std::fmt::Display| {
        writeln!(text, "{key}={value}").expect("writing to a String cannot fail");
    };
    line("tickTime", &shape.tick_ms);
    line("initLimit", &10);
    line("syncLimit", &5);
    line("dataDir", &node.data_dir().display());
    line("maxClientCnxns", &0);
    line("4lw.commands.whitelist", &"*");
    line("admin.enableServer", &false);
    line("autopurge.purgeInterval", &1);
    if shape.nodes.len() == 1 {
        line("clientPort", &CLIENT_PORT);
        line("clientPortAddress", &shape.net.address(node.id));
        return text;
    }
    line("standaloneEnabled", &false);
    if node.membership == Membership::Observer {
        line("peerType", &"observer");
    }
    for other in shape.nodes {
        let address = shape.net.address(other.id);
        let role = match other.membership {
            Membership::Voter => "participant",
            Membership::Observer => "observer",
        };
        line(
            &format!("server.{}", other.id.sid()),
            &format_args!("{address}:{QUORUM_PORT}:{ELECTION_PORT}:{role};{address}:{CLIENT_PORT}"),
        );
    }
    text
}

/// Makes the node's directory with configuration and `myid`; data that is there stays.
///
/// # Errors
/// If the disk refuses.
pub fn write(node: &NodeSpec, shape: Shape<'_>) -> Result<(), Failure> {
    let data = node.data_dir();
    fs::create_dir_all(&data).doing(|| format!("cannot make {}", data.display()))?;
    let myid = data.join("myid");
    fs::write(&myid, format!("{}\n", node.id.sid()))
        .doing(|| format!("cannot write {}", myid.display()))?;
    let config = node.config_file();
    fs::write(&config, zoo_cfg(node, shape)).doing(|| format!("cannot write {}", config.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::NodeId;
    use crate::net::Loopback;
    use crate::node::ServerKind;

    fn spec(number: u8, membership: Membership) -> NodeSpec {
        NodeSpec {
            id: NodeId(number),
            membership,
            server: ServerKind::Zkd("/zkd".into()),
            dir: format!("/lab/n{number}").into(),
        }
    }

    #[test]
    fn an_observer_is_told_that_it_is_one() {
        let nodes = [spec(1, Membership::Voter), spec(2, Membership::Observer)];
        let net = Loopback::claim(&[]).unwrap();
        let shape = Shape {
            nodes: &nodes,
            tick_ms: 2000,
            net: &net,
        };
        let one = net.address(NodeId(1));
        let two = net.address(NodeId(2));
        let text = zoo_cfg(&nodes[1], shape);
        assert!(text.contains("peerType=observer\n"));
        assert!(text.contains(&format!(
            "server.1={one}:2888:3888:participant;{one}:2181\nserver.2={two}:2888:3888:observer;{two}:2181\n"
        )));
        assert!(!zoo_cfg(&nodes[0], shape).contains("peerType"));
    }

    #[test]
    fn one_node_alone_is_standalone() {
        let nodes = [spec(1, Membership::Voter)];
        let net = Loopback::claim(&[]).unwrap();
        let shape = Shape {
            nodes: &nodes,
            tick_ms: 500,
            net: &net,
        };
        let text = zoo_cfg(&nodes[0], shape);
        assert!(text.contains("tickTime=500\n") && text.contains("clientPort=2181\n"));
        assert!(!text.contains("server."));
    }
}

//! What must hold of every server, whatever the seed.

use super::{Role, Sim};

impl Sim {
    /// What a leader has applied and what is committed are prefixes of one another.
    pub(super) fn check_leader(&mut self, index: usize) {
        let tree = &self.nodes[index].tree;
        let shared = tree.len().min(self.committed.len());
        assert_eq!(
            tree[..shared],
            self.committed[..shared],
            "leader {} against what is committed",
            self.nodes[index].sid
        );
        if tree.len() > self.committed.len() {
            self.committed.clone_from(tree);
        }
    }

    /// What a serving learner has applied is committed.
    pub(super) fn check_prefix(&self, index: usize) {
        let tree = &self.nodes[index].tree;
        assert!(
            self.committed.starts_with(tree),
            "learner {} shows {tree:?}, committed is {:?}",
            self.nodes[index].sid,
            self.committed
        );
    }

    /// The faults stop: everybody comes back and ends with the same history.
    pub(super) fn settle(&mut self) {
        for round in 1..200 {
            self.run(400, false);
            // An observer that promised a later epoch than the leader's can join only after an election;
            // as in Apache, somebody has to call one.
            if round % 20 == 0 {
                (0..self.nodes.len()).for_each(|node| self.step_down(node));
            }
            let done = self.nodes.iter().all(|node| node.tree == self.committed)
                && self.nodes.iter().all(|node| match &node.role {
                    Role::Leading(leader) => leader.is_established(),
                    Role::Learning(..) => true,
                    _ => false,
                });
            if done && self.links.len() == self.nodes.len() - 1 {
                return;
            }
        }
        for node in &self.nodes {
            let role = match &node.role {
                Role::Down => "down".to_owned(),
                Role::Looking(history) => format!("looks with {history:?}"),
                Role::Reloading => "reloads".to_owned(),
                Role::Leading(leader) => {
                    format!("leads {}: {:?}", leader.epoch(), leader.learners())
                }
                Role::Learning(learner, link) => format!("learns {} on {link:?}", learner.epoch()),
            };
            eprintln!("server {} {role}; {} txns", node.sid, node.tree.len());
        }
        panic!(
            "the servers never came together over {} txns, {} links",
            self.committed.len(),
            self.links.len()
        );
    }
}

//! Which nodes the lab has now. Nodes come and go while it is up; whoever goes through them takes a look that
//! does not change under the hand.

use std::sync::{Arc, Mutex};

use super::Ensemble;
use crate::id::NodeId;
use crate::node::NodeSpec;

/// The nodes of a lab.
#[derive(Debug)]
pub(super) struct Members(Mutex<State>);

#[derive(Debug)]
struct State {
    /// By number.
    now: Arc<Vec<NodeSpec>>,
    /// Those that are gone. What is under way may still ask for them.
    former: Vec<NodeSpec>,
}

impl Members {
    pub(super) fn new(nodes: Vec<NodeSpec>) -> Self {
        Self(Mutex::new(State {
            now: Arc::new(nodes),
            former: Vec::new(),
        }))
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(
            &mut self
                .0
                .lock()
                .expect("nobody panics while holding the nodes"),
        )
    }
}

impl Ensemble {
    /// The nodes there are now, by number.
    #[must_use]
    pub fn nodes(&self) -> Arc<Vec<NodeSpec>> {
        self.members.with(|state| Arc::clone(&state.now))
    }

    /// The names of the nodes there are now, by number.
    #[must_use]
    pub fn ids(&self) -> Vec<NodeId> {
        self.nodes().iter().map(|node| node.id).collect()
    }

    /// The places of the nodes there are now, in order.
    #[must_use]
    pub fn places(&self) -> Vec<usize> {
        self.nodes().iter().map(|node| node.id.place()).collect()
    }

    /// Is there such a node now?
    #[must_use]
    pub fn has(&self, id: NodeId) -> bool {
        self.nodes().iter().any(|node| node.id == id)
    }

    /// The node's spec, even if it has gone meanwhile.
    ///
    /// # Panics
    /// If the lab never had such a node: names are checked where they enter (`select`).
    #[must_use]
    pub fn node(&self, id: NodeId) -> NodeSpec {
        let found = self.members.with(|state| {
            let mut all = state.now.iter().chain(state.former.iter().rev());
            all.find(|node| node.id == id).cloned()
        });
        found.expect("node names are checked where they enter")
    }

    /// The nodes with a vote.
    #[must_use]
    pub fn voters(&self) -> Vec<NodeId> {
        let nodes = self.nodes();
        let voters = nodes.iter().filter(|node| node.votes());
        voters.map(|node| node.id).collect()
    }

    /// How many voters make a quorum.
    #[must_use]
    pub fn quorum_size(&self) -> usize {
        self.voters().len() / 2 + 1
    }

    /// The number of the next node: one more than the highest there ever was, so that a name means one node for as long
    /// as there are numbers; then the lowest that is free. `None` if all are taken.
    #[must_use]
    pub fn next_id(&self) -> Option<NodeId> {
        self.members.with(|state| {
            let ids = |nodes: &[NodeSpec]| nodes.iter().map(|node| node.id).collect::<Vec<_>>();
            next_id(&ids(&state.now), &ids(&state.former))
        })
    }

    /// There is one more node from now on; nothing is started.
    pub fn join(&self, node: NodeSpec) {
        self.members.with(|state| {
            let nodes = Arc::make_mut(&mut state.now);
            nodes.push(node);
            nodes.sort_by_key(|node| node.id);
        });
    }

    /// There is one node less from now on. Its process must have ended.
    pub fn leave(&self, id: NodeId) {
        self.members.with(|state| {
            let nodes = Arc::make_mut(&mut state.now);
            let gone = nodes.extract_if(.., |node| node.id == id);
            state.former.extend(gone);
        });
        self.forget(id);
    }
}

fn next_id(taken: &[NodeId], former: &[NodeId]) -> Option<NodeId> {
    let ever = taken.iter().chain(former);
    let highest = ever.max().map_or(0, |id| id.0);
    let mut numbers = (1..=NodeId::MAX).map(NodeId);
    if highest < NodeId::MAX {
        return Some(NodeId(highest + 1));
    }
    numbers.find(|id| !taken.contains(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_comes_again_only_when_there_is_no_other() {
        assert_eq!(next_id(&[], &[]), Some(NodeId(1)));
        assert_eq!(next_id(&[NodeId(1), NodeId(3)], &[]), Some(NodeId(4)));
        assert_eq!(next_id(&[NodeId(1)], &[NodeId(3)]), Some(NodeId(4)));
        let mut all: Vec<NodeId> = (1..=NodeId::MAX).map(NodeId).collect();
        assert_eq!(next_id(&all, &[]), None);
        all.remove(6);
        assert_eq!(next_id(&all, &[NodeId(250)]), Some(NodeId(7)));
    }
}

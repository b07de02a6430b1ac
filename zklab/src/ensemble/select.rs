//! Which nodes a word on the command line means: `n3`, or a role such as `leader`.
//!
//! Roles are decided by asking the nodes now, never from memory.

use super::Ensemble;
use super::status::{NodeStatus, Status};
use crate::event::Role;
use crate::failure::{Exit, Failure, nearest};
use crate::id::NodeId;

/// The role words.
pub const ROLES: [&str; 9] = [
    "leader",
    "followers",
    "observers",
    "minority",
    "majority",
    "any",
    "any-follower",
    "not-leader",
    "all",
];

/// Whether the word can name nodes of some lab.
#[must_use]
pub fn is_node_word(word: &str) -> bool {
    ROLES.contains(&word) || word.parse::<NodeId>().is_ok() || indexed(word).is_some()
}

/// `follower[1]`: the second follower by number; observers too.
fn indexed(word: &str) -> Option<(Role, usize)> {
    let (role, index) = word.strip_suffix(']')?.split_once('[')?;
    let role = match role {
        "follower" | "followers" => Role::Follower,
        "observer" | "observers" => Role::Observer,
        _ => return None,
    };
    Some((role, index.parse().ok()?))
}

/// The nodes that `words` name, each once, in the order given.
///
/// # Errors
/// On an unknown word, which is shown with the known ones; if there is no leader now and one is asked
/// for.
pub fn nodes(lab: &Ensemble, now: &Status, words: &[String]) -> Result<Vec<NodeId>, Failure> {
    let mut chosen = Vec::new();
    for word in words.iter().flat_map(|word| word.split(',')) {
        for id in one_word(lab, now, word.trim())? {
            if !chosen.contains(&id) {
                chosen.push(id);
            }
        }
    }
    Ok(chosen)
}

fn one_word(lab: &Ensemble, now: &Status, word: &str) -> Result<Vec<NodeId>, Failure> {
    let with = |keep: &dyn Fn(&NodeStatus) -> bool| {
        now.nodes.iter().filter(|n| keep(n)).map(|n| n.id).collect()
    };
    let role_is = |role| move |node: &NodeStatus| node.role == Some(role);
    let running = |node: &NodeStatus| node.pid.is_some();
    let leads = |node: &NodeStatus| now.leader == Some(node.id);
    if let Some((role, index)) = indexed(word) {
        let alike: Vec<NodeId> = with(&role_is(role));
        let node = alike.get(index).copied();
        return node.map(|id| vec![id]).ok_or_else(|| nobody(now, word));
    }
    let chosen: Vec<NodeId> = match word {
        "all" => with(&|_| true),
        "leader" => with(&leads),
        "followers" => with(&role_is(Role::Follower)),
        "observers" => with(&role_is(Role::Observer)),
        "not-leader" => with(&|node| !leads(node)),
        "any" => with(&running).into_iter().take(1).collect(),
        "any-follower" => with(&role_is(Role::Follower)).into_iter().take(1).collect(),
        "minority" | "majority" => {
            let followers_first: Vec<NodeId> = now
                .nodes
                .iter()
                .filter(|n| lab.node(n.id).votes() && !leads(n))
                .chain(now.nodes.iter().filter(|n| leads(n)))
                .map(|n| n.id)
                .collect();
            let voters = followers_first.len();
            let count = if word == "minority" {
                voters - lab.quorum_size().min(voters)
            } else {
                lab.quorum_size()
            };
            followers_first.into_iter().take(count).collect()
        }
        _ => return named(lab, word).map(|id| vec![id]),
    };
    if chosen.is_empty() {
        return Err(nobody(now, word));
    }
    Ok(chosen)
}

/// The node of this name.
///
/// # Errors
/// If there is none, with the nearest name there is.
pub fn named(lab: &Ensemble, word: &str) -> Result<NodeId, Failure> {
    let found = word.parse::<NodeId>().ok().filter(|id| lab.has(*id));
    found.ok_or_else(|| {
        let names: Vec<String> = lab.ids().iter().map(NodeId::to_string).collect();
        let known = names.iter().map(String::as_str).chain(ROLES);
        let guess = nearest(word, known)
            .map(|word| format!("; did you mean {word}?"))
            .unwrap_or_default();
        Failure::usage(format!("lab {} has no node {word:?}{guess}", lab.spec.name)).hint(format!(
            "its nodes are {}; roles work too: {}",
            names.join(" "),
            ROLES.join(" ")
        ))
    })
}

fn nobody(now: &Status, word: &str) -> Failure {
    let states: Vec<String> = now
        .nodes
        .iter()
        .map(|node| format!("{} {}", node.id, node.state))
        .collect();
    let failure = Failure::new(
        Exit::Missed,
        format!("no node is {word:?} now: {}", states.join(", ")),
    );
    match now.advice() {
        Some(advice) => failure.hint(advice),
        None => failure,
    }
}

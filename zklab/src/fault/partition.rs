//! Who loses sight of whom in each kind of partition: pure functions over the numbers of nodes.

use serde::{Deserialize, Serialize};
use zkd::prng::Prng;

use crate::net::Gate;
use crate::net::link::LinkFaults;

/// What "slow" adds to the delay of a link, in microseconds.
const SLOW_US: u64 = 500_000;

/// What happens on the links of a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Style {
    /// Packets are lost.
    #[default]
    Drop,
    /// Packets are held, and let go when it heals.
    Jam,
    /// Packets come half a second later.
    Slow,
    /// TCP connections are reset at both ends, then packets are lost.
    Reset,
}

/// Whom a partition hits beside the servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Clients {
    /// Everything between the nodes is hit; clients outside reach every node.
    #[default]
    Between,
    /// Also the clients that reach the nodes which are cut off from outside.
    Include,
    /// Only what the servers say to each other: their quorum and election ports.
    Exclude,
}

impl Style {
    /// Puts it on a link, or on the servers' own traffic over it.
    pub fn apply(self, clients: Clients, link: &mut LinkFaults) {
        let only_servers = clients == Clients::Exclude;
        match self {
            Self::Drop | Self::Reset if only_servers => link.cut_servers = true,
            Self::Jam if only_servers => link.jam_servers = true,
            Self::Drop | Self::Reset => link.cut = true,
            Self::Jam => link.jam = true,
            Self::Slow => link.delay_us += SLOW_US,
        }
        link.reset |= self == Self::Reset;
    }

    /// What becomes of clients that are cut off too.
    #[must_use]
    pub fn gate(self) -> Gate {
        match self {
            Self::Drop | Self::Jam => Gate::Shut,
            Self::Slow => Gate::Open,
            Self::Reset => Gate::Broken,
        }
    }

    /// What it does to links, in one word.
    #[must_use]
    pub fn done(self) -> &'static str {
        match self {
            Self::Drop => "cut",
            Self::Jam => "jammed",
            Self::Slow => "slowed",
            Self::Reset => "reset and cut",
        }
    }
}

/// The kinds that need no node to be named.
pub const KINDS: [&str; 7] = [
    "majority", "minority", "halves", "isolate", "leader", "bridge", "ring",
];

/// How long one that comes and goes stays as it is: a chance time around half its period, in milliseconds.
#[must_use]
pub fn flap_ms(period_ms: u64, chances: &mut Prng) -> u64 {
    let half = (period_ms / 2).max(1);
    half / 2 + chances.below(half + 1)
}

/// A directed link, from one node's number to another's.
pub type Pair = (usize, usize);

/// All links between the two groups, in both directions.
#[must_use]
pub fn between(one: &[usize], other: &[usize]) -> Vec<Pair> {
    let mut links = Vec::new();
    for a in one {
        for b in other {
            if a != b {
                links.extend([(*a, *b), (*b, *a)]);
            }
        }
    }
    links
}

/// All links that lead from one group to the other.
#[must_use]
pub fn one_way(from: &[usize], to: &[usize]) -> Vec<Pair> {
    let all = from.iter().flat_map(|a| to.iter().map(|b| (*a, *b)));
    all.filter(|(a, b)| a != b).collect()
}

/// All links among these.
#[must_use]
pub fn between_all(nodes: &[usize]) -> Vec<Pair> {
    one_way(nodes, nodes)
}

/// The others of these nodes.
#[must_use]
pub fn rest(nodes: &[usize], group: &[usize]) -> Vec<usize> {
    let others = nodes.iter().filter(|node| !group.contains(node));
    others.copied().collect()
}

/// Links that were drawn among the first so many nodes, as links among these.
#[must_use]
pub fn among(nodes: &[usize], links: Vec<Pair>) -> Vec<Pair> {
    let links = links.into_iter();
    links.map(|(a, b)| (nodes[a], nodes[b])).collect()
}

/// The smaller of two halves that are as equal as they can be, drawn by chance.
#[must_use]
pub fn half(count: usize, chances: &mut Prng) -> Vec<usize> {
    let mut nodes = shuffled(count, chances);
    nodes.truncate(count / 2);
    nodes.sort_unstable();
    nodes
}

/// Two halves that do not see each other, and one node that sees both; drawn by chance.
#[must_use]
pub fn bridge(count: usize, chances: &mut Prng) -> Vec<Pair> {
    let mut nodes = shuffled(count, chances);
    nodes.pop();
    let other = nodes.split_off(nodes.len() / 2);
    between(&nodes, &other)
}

/// Every node sees a majority, and no two see the same: each keeps its nearest neighbours on a circle that
/// is drawn by chance.
#[must_use]
pub fn ring(count: usize, chances: &mut Prng) -> Vec<Pair> {
    let circle = shuffled(count, chances);
    // With itself a node sees 2 * reach + 1.
    let reach = (count / 2).div_ceil(2);
    let mut links = Vec::new();
    for (a, from) in circle.iter().enumerate() {
        for (b, to) in circle.iter().enumerate() {
            let apart = a.abs_diff(b);
            if apart.min(count - apart) > reach {
                links.push((*from, *to));
            }
        }
    }
    links
}

fn shuffled(count: usize, chances: &mut Prng) -> Vec<usize> {
    let mut nodes: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        let other = chances.below(last as u64 + 1);
        nodes.swap(
            last,
            usize::try_from(other).expect("below the number of nodes"),
        );
    }
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whom each node sees, itself included.
    fn seen(count: usize, cut: &[Pair]) -> Vec<usize> {
        (0..count)
            .map(|a| count - (0..count).filter(|b| cut.contains(&(a, *b))).count())
            .collect()
    }

    #[test]
    fn on_a_ring_everybody_sees_a_majority_and_of_five_no_more() {
        for count in 1..10 {
            let cut = ring(count, &mut Prng::new(3));
            assert!(seen(count, &cut).iter().all(|seen| *seen > count / 2));
        }
        assert_eq!(seen(5, &ring(5, &mut Prng::new(3))), [3; 5]);
        assert_eq!(ring(5, &mut Prng::new(3)).len(), 10);
    }

    #[test]
    fn halves_and_a_bridge_are_as_large_as_they_can_be() {
        let half = half(5, &mut Prng::new(1));
        let mut halves = seen(5, &between(&half, &rest(&[0, 1, 2, 3, 4], &half)));
        halves.sort_unstable();
        assert_eq!(halves, [2, 2, 3, 3, 3]);
        let mut bridge = seen(5, &bridge(5, &mut Prng::new(1)));
        bridge.sort_unstable();
        assert_eq!(bridge, [3, 3, 3, 3, 5]);
    }

    #[test]
    fn what_was_drawn_is_among_the_nodes_that_are_there() {
        let nodes = [0, 2, 3];
        assert_eq!(rest(&nodes, &[2]), [0, 3]);
        assert_eq!(among(&nodes, vec![(0, 1), (2, 0)]), [(0, 2), (3, 0)]);
        assert_eq!(between_all(&nodes).len(), 6);
    }

    #[test]
    fn a_flap_changes_at_chance_times_that_make_up_its_period() {
        let mut chances = Prng::new(9);
        let times: Vec<u64> = (0..2000).map(|_| flap_ms(1000, &mut chances)).collect();
        assert!(times.iter().all(|ms| (250..=750).contains(ms)));
        let mean = times.iter().sum::<u64>() / 2000;
        assert!((480..520).contains(&mean), "{mean}");
        assert!(flap_ms(1, &mut chances) <= 1);
    }

    #[test]
    fn clients_can_be_spared() {
        for (style, clients) in [
            (Style::Drop, Clients::Exclude),
            (Style::Jam, Clients::Exclude),
        ] {
            let mut link = LinkFaults::default();
            style.apply(clients, &mut link);
            assert!(link.is_blocked() && !link.cut && !link.jam, "{link:?}");
        }
        let mut link = LinkFaults::default();
        Style::Reset.apply(Clients::Include, &mut link);
        assert!(link.cut && link.reset);
    }

    #[test]
    fn one_way_leaves_the_way_back() {
        assert_eq!(one_way(&[0], &[0, 1, 2]), [(0, 1), (0, 2)]);
        assert_eq!(between(&[0], &rest(&[0, 1, 2], &[0])).len(), 4);
        assert!(between(&[0], &[]).is_empty());
    }
}

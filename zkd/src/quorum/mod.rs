//! Quorums: pure arithmetic over sets of servers.
//!
//! A [`QuorumVerifier`] says which sets of voters may decide; an [`AckSet`] collects who has said
//! yes. Law kept here: any two quorums of one verifier share a voter, and nobody but a voter is ever
//! counted (ZOOKEEPER-2959). Who sends the yes, and for what, is the business of `election` and `zab`.
//! Counterpart: `QuorumMaj`, `QuorumHierarchical`, `SyncedLearnerTracker`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::config::Membership;
use crate::ids::ServerId;

/// The rule by which a set of servers may decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuorumVerifier {
    voters: BTreeSet<ServerId>,
    rule: Rule,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    /// More than half of the voters.
    Majority,
    /// Most groups, each won by more than half of its weight.
    Hierarchical(Hierarchy),
}

/// Groups and weights. Every voter is in exactly one group; no weight is negative.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hierarchy {
    group_of: BTreeMap<ServerId, i64>,
    weight_of: BTreeMap<ServerId, i64>,
    /// Total weight of each group that has any.
    group_weights: BTreeMap<i64, i64>,
}

/// Why groups and weights do not make a quorum rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QuorumError {
    /// A voter stands in no group.
    NoGroup(ServerId),
    /// A server stands in two groups.
    TwoGroups(ServerId),
    /// A group or a weight names a server that is no member.
    UnknownServer(ServerId),
    /// A weight is negative.
    NegativeWeight(ServerId, i64),
    /// The weights of one group cannot be added up in 64 bits.
    WeightOverflow(i64),
}

impl fmt::Display for QuorumError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoGroup(sid) => write!(f, "server {sid} is in no group"),
            Self::TwoGroups(sid) => write!(f, "server {sid} is in more than one group"),
            Self::UnknownServer(sid) => {
                write!(f, "server {sid} has a group or a weight but is no member")
            }
            Self::NegativeWeight(sid, weight) => {
                write!(f, "server {sid} has the negative weight {weight}")
            }
            Self::WeightOverflow(group) => {
                write!(
                    f,
                    "the weights of group {group} add up to more than 64 bits hold"
                )
            }
        }
    }
}

impl std::error::Error for QuorumError {}

impl QuorumVerifier {
    /// More than half of `voters` decide.
    #[must_use]
    pub fn majority(voters: impl IntoIterator<Item = ServerId>) -> Self {
        Self {
            voters: voters.into_iter().collect(),
            rule: Rule::Majority,
        }
    }

    /// A group is won by more than half of its weight; more than half of the groups that have any
    /// weight decide. A server without an entry in `weights` weighs 1. Observers may stand in groups
    /// (their weight then counts in the total, as in Apache), but are never counted as a yes.
    ///
    /// # Errors
    /// If a voter is in no group, a server in two, a group or weight names no member, or a weight is
    /// negative.
    pub fn hierarchical(
        voters: impl IntoIterator<Item = ServerId>,
        observers: impl IntoIterator<Item = ServerId>,
        groups: &BTreeMap<i64, BTreeSet<ServerId>>,
        weights: &BTreeMap<ServerId, i64>,
    ) -> Result<Self, QuorumError> {
        let voters: BTreeSet<ServerId> = voters.into_iter().collect();
        let mut members: BTreeSet<ServerId> = observers.into_iter().collect();
        members.extend(&voters);

        let mut weight_of: BTreeMap<ServerId, i64> = members.iter().map(|&sid| (sid, 1)).collect();
        for (&sid, &weight) in weights {
            if weight < 0 {
                return Err(QuorumError::NegativeWeight(sid, weight));
            }
            *weight_of
                .get_mut(&sid)
                .ok_or(QuorumError::UnknownServer(sid))? = weight;
        }
        let mut group_of = BTreeMap::new();
        let mut group_weights = BTreeMap::new();
        for (&group, sids) in groups {
            let mut total = 0i64;
            for &sid in sids {
                let weight = weight_of.get(&sid).ok_or(QuorumError::UnknownServer(sid))?;
                if group_of.insert(sid, group).is_some() {
                    return Err(QuorumError::TwoGroups(sid));
                }
                total = total
                    .checked_add(*weight)
                    .ok_or(QuorumError::WeightOverflow(group))?;
            }
            if total > 0 {
                group_weights.insert(group, total);
            }
        }
        if let Some(&sid) = voters.iter().find(|sid| !group_of.contains_key(*sid)) {
            return Err(QuorumError::NoGroup(sid));
        }
        Ok(Self {
            voters,
            rule: Rule::Hierarchical(Hierarchy {
                group_of,
                weight_of,
                group_weights,
            }),
        })
    }

    /// The rule of a configuration.
    ///
    /// # Errors
    /// As [`Self::hierarchical`]; plain majorities have none.
    pub fn from_membership(members: &Membership) -> Result<Self, QuorumError> {
        if members.is_hierarchical() {
            Self::hierarchical(
                members.voters(),
                members.observers(),
                &members.groups,
                &members.weights,
            )
        } else {
            Ok(Self::majority(members.voters()))
        }
    }

    /// Whether `servers` may decide. Servers that are no voters do not count.
    #[must_use]
    pub fn contains_quorum(&self, servers: &BTreeSet<ServerId>) -> bool {
        self.is_quorum(|sid| servers.contains(&sid))
    }

    /// Whether the voters for which `yes` holds may decide.
    #[must_use]
    pub fn is_quorum(&self, mut yes: impl FnMut(ServerId) -> bool) -> bool {
        match &self.rule {
            Rule::Majority => {
                let count = self.voters.iter().filter(|&&sid| yes(sid)).count();
                count > self.voters.len() / 2
            }
            Rule::Hierarchical(hierarchy) => {
                let mut won: BTreeMap<i64, i64> = BTreeMap::new();
                for &sid in self.voters.iter().filter(|&&sid| yes(sid)) {
                    *won.entry(hierarchy.group_of[&sid]).or_default() += hierarchy.weight_of[&sid];
                }
                let groups = won
                    .iter()
                    .filter(|(group, weight)| {
                        hierarchy
                            .group_weights
                            .get(group)
                            .is_some_and(|total| **weight > total / 2)
                    })
                    .count();
                groups > hierarchy.group_weights.len() / 2
            }
        }
    }

    /// The weight of a server in elections: 0 means it can never lead. In a majority everybody
    /// weighs 1, whoever it is; in a hierarchy a stranger weighs 0.
    #[must_use]
    pub fn weight(&self, sid: ServerId) -> i64 {
        match &self.rule {
            Rule::Majority => 1,
            Rule::Hierarchical(hierarchy) => hierarchy.weight_of.get(&sid).copied().unwrap_or(0),
        }
    }

    /// The servers that count.
    #[must_use]
    pub fn voters(&self) -> &BTreeSet<ServerId> {
        &self.voters
    }

    /// Whether `sid` counts.
    #[must_use]
    pub fn is_voter(&self, sid: ServerId) -> bool {
        self.voters.contains(&sid)
    }
}

/// The voters that have said yes to one thing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AckSet {
    acks: BTreeSet<ServerId>,
}

impl AckSet {
    /// Nobody has said yes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts the yes of `sid`; says whether it is new. Servers that are no voters are ignored.
    pub fn add(&mut self, verifier: &QuorumVerifier, sid: ServerId) -> bool {
        verifier.is_voter(sid) && self.acks.insert(sid)
    }

    /// Takes the yes of `sid` back (its connection is gone).
    pub fn remove(&mut self, sid: ServerId) {
        self.acks.remove(&sid);
    }

    /// Whether those who said yes may decide.
    #[must_use]
    pub fn has_quorum(&self, verifier: &QuorumVerifier) -> bool {
        verifier.contains_quorum(&self.acks)
    }

    /// Who said yes.
    #[must_use]
    pub fn servers(&self) -> &BTreeSet<ServerId> {
        &self.acks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prng::Prng;

    fn sids(ids: &[i64]) -> BTreeSet<ServerId> {
        ids.iter().copied().map(ServerId).collect()
    }

    /// The fixture ensemble of the zero-weight run: `group.1=1:2 group.2=3`, weights 2, 1, 0.
    fn zero_weight() -> QuorumVerifier {
        let groups = BTreeMap::from([(1, sids(&[1, 2])), (2, sids(&[3]))]);
        let weights = BTreeMap::from([(ServerId(1), 2), (ServerId(2), 1), (ServerId(3), 0)]);
        QuorumVerifier::hierarchical(sids(&[1, 2, 3]), [], &groups, &weights).unwrap()
    }

    #[test]
    fn a_majority_is_more_than_half_of_the_voters() {
        let five = QuorumVerifier::majority(sids(&[1, 2, 3, 4, 5]));
        assert!(five.contains_quorum(&sids(&[1, 3, 5])));
        assert!(!five.contains_quorum(&sids(&[1, 3])));
        assert!(
            !five.contains_quorum(&sids(&[1, 3, 6, 7])),
            "strangers do not count"
        );
        let four = QuorumVerifier::majority(sids(&[1, 2, 3, 4]));
        assert!(
            !four.contains_quorum(&sids(&[1, 2])),
            "half is not more than half"
        );
        let none = QuorumVerifier::majority([]);
        assert!(
            !none.contains_quorum(&sids(&[])),
            "an empty ensemble decides nothing"
        );
    }

    #[test]
    fn a_group_without_weight_is_no_group() {
        let verifier = zero_weight();
        assert!(
            verifier.contains_quorum(&sids(&[1])),
            "2 of 3 wins the only group"
        );
        assert!(
            !verifier.contains_quorum(&sids(&[2])),
            "1 is not more than 3/2 = 1"
        );
        assert!(!verifier.contains_quorum(&sids(&[2, 3])));
        assert_eq!(
            [1, 2, 3, 9].map(|s| verifier.weight(ServerId(s))),
            [2, 1, 0, 0]
        );
    }

    #[test]
    fn a_configuration_says_the_rule() {
        let lines = "server.1=h1:1:2\nserver.2=h2:1:2\nserver.3=h3:1:2\nserver.4=h4:1:2:observer\n";
        let plain = Membership::parse_text(lines).unwrap();
        assert_eq!(
            QuorumVerifier::from_membership(&plain),
            Ok(QuorumVerifier::majority(sids(&[1, 2, 3])))
        );
        let text = format!("{lines}group.1=1:2\ngroup.2=3\nweight.1=2\nweight.3=0\n");
        let groups = Membership::parse_text(&text).unwrap();
        assert_eq!(
            QuorumVerifier::from_membership(&groups),
            Ok(zero_weight()).map(|mut v| {
                // The observer is in no group, but has a weight.
                if let Rule::Hierarchical(hierarchy) = &mut v.rule {
                    hierarchy.weight_of.insert(ServerId(4), 1);
                }
                v
            })
        );
    }

    #[test]
    fn bad_hierarchies_are_refused() {
        let make = |groups: &[(i64, &[i64])], weights: &[(i64, i64)]| {
            let groups = groups.iter().map(|(g, s)| (*g, sids(s))).collect();
            let weights = weights.iter().map(|(s, w)| (ServerId(*s), *w)).collect();
            QuorumVerifier::hierarchical(sids(&[1, 2]), sids(&[3]), &groups, &weights).unwrap_err()
        };
        assert_eq!(make(&[(1, &[1])], &[]), QuorumError::NoGroup(ServerId(2)));
        assert_eq!(
            make(&[(1, &[1, 2]), (2, &[1])], &[]),
            QuorumError::TwoGroups(ServerId(1))
        );
        assert_eq!(
            make(&[(1, &[1, 2, 4])], &[]),
            QuorumError::UnknownServer(ServerId(4))
        );
        assert_eq!(
            make(&[(1, &[1, 2])], &[(4, 1)]),
            QuorumError::UnknownServer(ServerId(4))
        );
        assert_eq!(
            make(&[(1, &[1, 2])], &[(1, -1)]),
            QuorumError::NegativeWeight(ServerId(1), -1)
        );
        assert_eq!(
            make(&[(1, &[1, 2])], &[(1, i64::MAX), (2, 1)]),
            QuorumError::WeightOverflow(1)
        );
    }

    /// The rule as a sentence: for every group with weight, the yes-weight doubled exceeds the total
    /// (rounded down to even), and such groups doubled exceed the number of groups.
    fn naive_hierarchical(
        groups: &BTreeMap<i64, BTreeSet<ServerId>>,
        weights: &BTreeMap<ServerId, i64>,
        acks: &BTreeSet<ServerId>,
    ) -> bool {
        let weight = |s: &ServerId| weights.get(s).copied().unwrap_or(1);
        let (mut won, mut real) = (0, 0);
        for members in groups.values() {
            let total: i64 = members.iter().map(weight).sum();
            if total == 0 {
                continue;
            }
            real += 1;
            let yes: i64 = members
                .iter()
                .filter(|s| acks.contains(s))
                .map(weight)
                .sum();
            won += i64::from(yes > total / 2);
        }
        won > real / 2
    }

    #[test]
    fn hierarchies_agree_with_the_naive_rule_and_their_quorums_meet() {
        for seed in 0..300 {
            let mut prng = Prng::new(seed);
            let count = prng.between(1, 9) as i64;
            let group_count = prng.between(1, 4) as i64;
            let mut groups: BTreeMap<i64, BTreeSet<ServerId>> = BTreeMap::new();
            let mut weights = BTreeMap::new();
            for sid in (1..=count).map(ServerId) {
                groups
                    .entry(prng.between(1, group_count as u64) as i64)
                    .or_default()
                    .insert(sid);
                if prng.one_in(2) {
                    weights.insert(sid, prng.below(4) as i64);
                }
            }
            let all: Vec<ServerId> = (1..=count).map(ServerId).collect();
            let verifier =
                QuorumVerifier::hierarchical(all.clone(), [], &groups, &weights).unwrap();
            for _ in 0..50 {
                let acks: BTreeSet<_> = all.iter().copied().filter(|_| prng.one_in(2)).collect();
                let quorum = verifier.contains_quorum(&acks);
                assert_eq!(
                    quorum,
                    naive_hierarchical(&groups, &weights, &acks),
                    "seed {seed}"
                );
                let rest: BTreeSet<_> = all.iter().copied().filter(|s| !acks.contains(s)).collect();
                assert!(
                    !(quorum && verifier.contains_quorum(&rest)),
                    "seed {seed}: two disjoint quorums {acks:?} and {rest:?}"
                );
            }
        }
    }

    #[test]
    fn an_ack_set_counts_each_voter_once_and_nobody_else() {
        let verifier = QuorumVerifier::majority(sids(&[1, 2, 3]));
        let mut acks = AckSet::new();
        assert!(acks.add(&verifier, ServerId(1)));
        assert!(!acks.add(&verifier, ServerId(1)), "a duplicate is not new");
        assert!(
            !acks.add(&verifier, ServerId(7)),
            "an observer's yes is no yes"
        );
        assert!(!acks.has_quorum(&verifier));
        assert!(acks.add(&verifier, ServerId(3)));
        assert!(acks.has_quorum(&verifier));
        acks.remove(ServerId(1));
        assert!(!acks.has_quorum(&verifier));
    }
}

//! The epochs an ensemble has had, by whatever proves one first.
//!
//! An epoch is established when a quorum follows its leader. The leader may be killed before it can say so, and
//! then a follower that serves in it, a packet on the wire or an acknowledged write still proves it. Each epoch is
//! told once, also when its proof comes later than that of the next one.

use std::collections::BTreeSet;

use zkd::ids::Zxid;

use crate::event::{LabEventKind, Role, Source};

/// The epochs that were told.
#[derive(Debug, Default)]
pub(super) struct Epochs(BTreeSet<i64>);

impl Epochs {
    /// What there is to tell if this proves an epoch that was not told yet.
    pub(super) fn learn(&mut self, src: Source, kind: &LabEventKind) -> Option<LabEventKind> {
        let to = proven(kind).filter(|epoch| *epoch > 0)?;
        if src == Source::Probe && !self.believes(to, kind) {
            return None;
        }
        let from = self.0.range(..to).next_back().copied().unwrap_or(0);
        let bumped = LabEventKind::EpochBumped { from, to };
        self.0.insert(to).then_some(bumped)
    }

    /// A server without a feed is asked for its zxid, and that of a follower may be of an epoch before this lab's
    /// time, until something is written.
    fn believes(&self, epoch: i64, kind: &LabEventKind) -> bool {
        let leads = matches!(kind, LabEventKind::NodeServing { role, .. } if role.leads());
        self.0.last().map_or(leads, |newest| epoch > *newest)
    }
}

/// The epoch that is established if this happened.
fn proven(kind: &LabEventKind) -> Option<i64> {
    match kind {
        // One that stands alone has none.
        LabEventKind::NodeServing {
            role: Role::Standalone,
            ..
        } => None,
        LabEventKind::NodeServing { epoch, .. }
        | LabEventKind::LeaderElected { epoch }
        | LabEventKind::UpToDate { epoch, .. } => Some(*epoch),
        LabEventKind::FirstCommit { zxid } | LabEventKind::WriteAcked { zxid } => {
            Some(Zxid(zxid.0).epoch().0)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::HexZxid;

    fn serving(role: Role, epoch: i64) -> LabEventKind {
        let zxid = HexZxid(epoch << 32);
        LabEventKind::NodeServing { role, epoch, zxid }
    }

    fn told(epochs: &mut Epochs, src: Source, kind: &LabEventKind) -> Option<(i64, i64)> {
        match epochs.learn(src, kind)? {
            LabEventKind::EpochBumped { from, to } => Some((from, to)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_epoch_is_told_once_whoever_proves_it_first() {
        let elected = |epoch| LabEventKind::LeaderElected { epoch };
        let written = |zxid| LabEventKind::WriteAcked {
            zxid: HexZxid(zxid),
        };
        let committed = |zxid| LabEventKind::FirstCommit {
            zxid: HexZxid(zxid),
        };
        let mut epochs = Epochs::default();
        let mut tell = |src, kind: &_| told(&mut epochs, src, kind);
        // Its leader was killed before it could say that it serves.
        assert_eq!(tell(Source::Wire, &elected(1)), Some((0, 1)));
        assert_eq!(tell(Source::Zkd, &serving(Role::Follower, 1)), None);
        assert_eq!(tell(Source::Zkd, &serving(Role::Observer, 2)), Some((1, 2)));
        assert_eq!(tell(Source::Wire, &committed(2 << 32 | 1)), None);
        assert_eq!(tell(Source::Client, &written(5 << 32 | 9)), Some((2, 5)));
        // The proof of an epoch in between comes late.
        assert_eq!(tell(Source::Zkd, &serving(Role::Leader, 3)), Some((2, 3)));
        assert_eq!(tell(Source::Zkd, &elected(5)), None);
        let proposed = LabEventKind::EpochProposed { epoch: 6 };
        assert_eq!(tell(Source::Zkd, &proposed), None);
        assert_eq!(tell(Source::Zkd, &serving(Role::Standalone, 6)), None);
    }

    #[test]
    fn the_zxid_of_a_follower_may_be_older_than_the_lab() {
        let mut epochs = Epochs::default();
        let mut tell = |role, epoch| told(&mut epochs, Source::Probe, &serving(role, epoch));
        assert_eq!(tell(Role::Follower, 6), None);
        assert_eq!(tell(Role::Leader, 7), Some((0, 7)));
        assert_eq!(tell(Role::Follower, 6), None);
        assert_eq!(tell(Role::Follower, 8), Some((7, 8)));
    }
}

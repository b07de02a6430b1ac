//! Leadership: at most one leader is established in an epoch.

use std::collections::BTreeMap;

use super::Violation;
use crate::ids::{Epoch, ServerId};

pub(super) fn check(
    server: ServerId,
    epoch: Epoch,
    leaders: &BTreeMap<Epoch, ServerId>,
) -> Option<Violation> {
    let known = leaders.get(&epoch)?;
    (*known != server).then(|| Violation {
        rule: "Leadership",
        evidence: format!("epoch {epoch} was established by server {known} and by server {server}"),
    })
}

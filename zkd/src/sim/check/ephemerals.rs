//! Ephemerals are gone exactly with their session: none outlives it, none goes by itself.

use std::collections::{BTreeMap, BTreeSet};

use super::Violation;
use crate::ids::{ServerId, SessionId, Zxid};
use crate::record::txn::{Txn, TxnRecord};
use crate::tree::DataTree;

/// No tree holds an ephemeral of a session it does not know.
pub(super) fn check_final(server: ServerId, tree: &DataTree) -> Option<Violation> {
    let mut paths = vec!["/".to_owned()];
    while let Some(path) = paths.pop() {
        let node = tree.node(&path)?;
        let owner = node.stat().ephemeral_owner;
        if owner != SessionId::NONE && !tree.sessions().contains_key(&owner) {
            return Some(Violation {
                rule: "EphemeralOutlivesSession",
                evidence: format!("server {server} holds {path} of session {owner}, which is over"),
            });
        }
        let base = if path == "/" { "" } else { &path };
        paths.extend(node.children().map(|name| format!("{base}/{name}")));
    }
    None
}

/// No ephemeral is created for a session after the txn that closed it, and the closing txn names every
/// ephemeral that its session still had, and no other.
///
/// What was half proposed and became committed only with the history of the next leader is delivered by
/// nobody who serves, so `committed` lacks it: what is named too much or too little must at least have been
/// proposed to be created or deleted.
pub(super) fn check_history(
    committed: &BTreeMap<Zxid, (TxnRecord, i64)>,
    proposed: &BTreeMap<Zxid, (ServerId, TxnRecord)>,
) -> Option<Violation> {
    let mut closed = BTreeSet::new();
    let mut owned: BTreeMap<SessionId, BTreeSet<&str>> = BTreeMap::new();
    for (zxid, (record, _)) in committed {
        let session = record.header.client_id;
        match &record.txn {
            Txn::Create(create) if create.ephemeral => {
                if closed.contains(&session) {
                    return Some(Violation {
                        rule: "EphemeralOutlivesSession",
                        evidence: format!(
                            "{zxid} creates {} for session {session}, which was closed",
                            create.path
                        ),
                    });
                }
                owned.entry(session).or_default().insert(&create.path);
            }
            Txn::Delete(delete) => {
                for paths in owned.values_mut() {
                    paths.remove(delete.path.as_str());
                }
            }
            Txn::CloseSession(close) => {
                closed.insert(session);
                let named: BTreeSet<&str> =
                    close.paths.iter().flatten().map(String::as_str).collect();
                let had = owned.remove(&session).unwrap_or_default();
                let extra_is_known = named
                    .difference(&had)
                    .all(|path| create_was_proposed(path, session, proposed));
                let lack_is_known = had
                    .difference(&named)
                    .all(|path| delete_was_proposed(path, proposed));
                if !lack_is_known || !extra_is_known {
                    return Some(Violation {
                        rule: "EphemeralOutlivesSession",
                        evidence: format!(
                            "{zxid} closes session {session} with {named:?}, it had {had:?}"
                        ),
                    });
                }
            }
            _ => {}
        }
    }
    None
}

fn create_was_proposed(
    path: &str,
    session: SessionId,
    proposed: &BTreeMap<Zxid, (ServerId, TxnRecord)>,
) -> bool {
    proposed.values().any(|(_, record)| {
        record.header.client_id == session
            && matches!(&record.txn, Txn::Create(create) if create.ephemeral && create.path == path)
    })
}

fn delete_was_proposed(path: &str, proposed: &BTreeMap<Zxid, (ServerId, TxnRecord)>) -> bool {
    proposed
        .values()
        .any(|(_, record)| matches!(&record.txn, Txn::Delete(delete) if delete.path == path))
}

//! Applying a txn: the only way state changes.
//!
//! Law kept here: `apply` is total (any decoded txn, also for znodes that are missing or there
//! already, as when a log is replayed over a fuzzy snapshot) and idempotent over such replays: versions
//! are absolute, cversion and pzxid of a parent only grow (ZOOKEEPER-3145, 3249).
//! Counterpart: `DataTree.processTxn`.

use std::sync::Arc;

use super::{DataTree, EphemeralKind, ROOT, byte_count, digest};
use crate::error::ErrorCode;
use crate::ids::Zxid;
use crate::jute::{DecodeError, Reader};
use crate::planted::{self, Planted};
use crate::record::data::{Acl, Stat, StatPersisted};
use crate::record::opcode::OpCode;
use crate::record::txn::{MultiOp, SetAclTxn, SetDataTxn, Txn, TxnHeader, TxnRecord};
use crate::watch::EventKind;

/// Where the events of a txn go.
pub trait TriggerSink {
    /// `kind` happened at `path`. Whoever may not READ by `acl` must not hear of it.
    fn trigger(&mut self, kind: EventKind, path: &str, acl: &[Acl], zxid: Zxid);
}

/// Nobody listens.
impl TriggerSink for () {
    fn trigger(&mut self, _kind: EventKind, _path: &str, _acl: &[Acl], _zxid: Zxid) {}
}

/// What a txn did: all a reply needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The error of an error txn, or of one that could not be applied; of a multi the first one of
    /// its operations.
    pub err: ErrorCode,
    /// The result.
    pub body: AppliedBody,
}

/// The result of an applied txn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppliedBody {
    /// Nothing, or an error.
    None,
    /// create: the path.
    Path(String),
    /// create2, createContainer, createTTL: the path and the new znode's Stat.
    PathStat(String, Stat),
    /// setData, setACL, reconfig: the Stat after it.
    Stat(Stat),
    /// multi: each operation with its error and result, in order. In a failed multi all are
    /// [`OpCode::Error`].
    Multi(Vec<(OpCode, ErrorCode, Self)>),
}

impl Applied {
    fn ok(body: AppliedBody) -> Self {
        Self {
            err: ErrorCode::Ok,
            body,
        }
    }

    fn failed(err: ErrorCode) -> Self {
        Self {
            err,
            body: AppliedBody::None,
        }
    }
}

/// What the three kinds of create have in common.
struct Create<'a> {
    path: &'a str,
    data: Option<&'a [u8]>,
    acl: Option<&'a [Acl]>,
    owner: i64,
    parent_cversion: i32,
}

impl DataTree {
    /// Applies a txn and moves [`Self::last_processed_zxid`] to it (never back).
    pub fn apply(&mut self, record: &TxnRecord, sink: &mut impl TriggerSink) -> Applied {
        let header = &record.header;
        let applied = match &record.txn {
            Txn::CreateSession(t) => {
                self.sessions.insert(header.client_id, t.timeout_ms);
                Applied::ok(AppliedBody::None)
            }
            Txn::CloseSession(t) => {
                self.close_session(header, t.paths.as_deref(), sink);
                Applied::ok(AppliedBody::None)
            }
            Txn::Multi(t) => self.apply_multi(header, &t.ops, sink),
            single => self.apply_single(header, header.kind, single, sink),
        };
        self.last_processed_zxid = self.last_processed_zxid.max(header.zxid);
        applied
    }

    /// Any txn that can also stand in a multi.
    fn apply_single(
        &mut self,
        header: &TxnHeader,
        kind: i32,
        txn: &Txn,
        sink: &mut impl TriggerSink,
    ) -> Applied {
        let result = match txn {
            Txn::Create(t) => self.create(
                header,
                kind,
                &Create {
                    path: &t.path,
                    data: t.data.as_deref(),
                    acl: t.acl.as_deref(),
                    owner: if t.ephemeral { header.client_id.0 } else { 0 },
                    parent_cversion: t.parent_cversion,
                },
                sink,
            ),
            Txn::CreateTtl(t) => self.create(
                header,
                kind,
                &Create {
                    path: &t.path,
                    data: t.data.as_deref(),
                    acl: t.acl.as_deref(),
                    owner: EphemeralKind::Ttl(t.ttl).owner(),
                    parent_cversion: t.parent_cversion,
                },
                sink,
            ),
            Txn::CreateContainer(t) => self.create(
                header,
                kind,
                &Create {
                    path: &t.path,
                    data: t.data.as_deref(),
                    acl: t.acl.as_deref(),
                    owner: EphemeralKind::Container.owner(),
                    parent_cversion: t.parent_cversion,
                },
                sink,
            ),
            Txn::Delete(t) => self
                .delete(header.zxid, &t.path, sink)
                .map(|()| AppliedBody::None),
            Txn::SetData(t) => self.set_data(header, t, sink),
            Txn::SetAcl(t) => self.set_acl(t),
            Txn::Error(t) => Err(error_code(t.code)),
            // A multi inside a multi is none of ours; it and the rest change nothing.
            Txn::Check(_) | Txn::CreateSession(_) | Txn::CloseSession(_) | Txn::Multi(_) => {
                Ok(AppliedBody::None)
            }
        };
        result.map_or_else(Applied::failed, Applied::ok)
    }

    /// All operations, or, when one of them is an error, none.
    fn apply_multi(
        &mut self,
        header: &TxnHeader,
        ops: &[MultiOp],
        sink: &mut impl TriggerSink,
    ) -> Applied {
        let error = OpCode::Error.code();
        if let Some(stop) = ops.iter().position(|op| op.kind == error) {
            if planted::is(Planted::MultiHalf) {
                self.apply_multi(header, &ops[..stop], sink);
            }
            return failed_multi(ops);
        }
        let Ok(txns) = ops.iter().map(decode_op).collect::<Result<Vec<_>, _>>() else {
            // No leader proposes such a thing; whoever meets it must do the same everywhere.
            return Applied::failed(ErrorCode::MarshallingError);
        };
        let mut first = ErrorCode::Ok;
        let mut results = Vec::with_capacity(ops.len());
        for (op, txn) in ops.iter().zip(&txns) {
            let applied = self.apply_single(header, op.kind, txn, sink);
            if first == ErrorCode::Ok {
                first = applied.err;
            }
            let code = OpCode::from_code(op.kind).unwrap_or(OpCode::Error);
            results.push((code, applied.err, applied.body));
        }
        Applied {
            err: first,
            body: AppliedBody::Multi(results),
        }
    }

    fn create(
        &mut self,
        header: &TxnHeader,
        kind: i32,
        create: &Create<'_>,
        sink: &mut impl TriggerSink,
    ) -> Result<AppliedBody, ErrorCode> {
        let path = create.path;
        let (parent_path, parent, name) = self.split(path).ok_or(ErrorCode::NoNode)?;
        if name.is_empty() {
            return Err(ErrorCode::NodeExists); // the root; prep lets no other empty name through
        }
        let stored = self.arena.get(parent).cversion();
        let cversion = if create.parent_cversion == -1 {
            stored.wrapping_add(1)
        } else {
            create.parent_cversion
        };
        if cversion > stored {
            self.change_stat(parent, parent_path, |stat| {
                stat.cversion = cversion;
                stat.pzxid = header.zxid;
            });
        }
        if let Some(id) = self.arena.child(parent, name.as_bytes()) {
            // Replay over a fuzzy snapshot: it may have come without its ACL (ZOOKEEPER-4846).
            let acl = self.acls.acquire(create.acl);
            let old = std::mem::replace(&mut self.arena.get_mut(id).acl, acl);
            self.acls.release(old);
            return Err(ErrorCode::NodeExists);
        }
        let stat = StatPersisted {
            czxid: header.zxid,
            mzxid: header.zxid,
            ctime: header.time,
            mtime: header.time,
            pzxid: header.zxid,
            ephemeral_owner: create.owner,
            ..StatPersisted::default()
        };
        let acl = self.acls.acquire(create.acl);
        let id = self.attach(parent, name, path, create.data, stat, acl);
        self.quota_created(parent_path, name, path, byte_count(create.data));
        sink.trigger(EventKind::Created, path, self.acls.get(acl), header.zxid);
        self.trigger_parent(parent, parent_path, header.zxid, sink);
        let path = path.to_owned();
        Ok(if kind == OpCode::Create.code() {
            AppliedBody::Path(path)
        } else {
            AppliedBody::PathStat(path, self.stat_of(id))
        })
    }

    fn delete(
        &mut self,
        zxid: Zxid,
        path: &str,
        sink: &mut impl TriggerSink,
    ) -> Result<(), ErrorCode> {
        let (parent_path, parent, name) = self.split(path).ok_or(ErrorCode::NoNode)?;
        if name.is_empty() {
            return Err(ErrorCode::NoNode); // nobody deletes the root
        }
        // Also where the child is gone already: a fuzzy snapshot may show the parent from before.
        if zxid > self.arena.get(parent).pzxid() {
            self.change_stat(parent, parent_path, |stat| stat.pzxid = zxid);
        }
        let id = self.arena.child(parent, name.as_bytes());
        let id = id.ok_or(ErrorCode::NoNode)?;
        if self.arena.get(id).child_count() > 0 {
            self.drop_descendants(id);
        }
        let slot = self.arena.get(id).acl;
        let bytes = byte_count(self.arena.data(id));
        self.detach(id, path);
        self.quota_deleted(parent_path, name, path, bytes);
        sink.trigger(EventKind::Deleted, path, self.acls.get(slot), zxid);
        self.acls.release(slot);
        self.trigger_parent(parent, parent_path, zxid, sink);
        Ok(())
    }

    /// A znode that is to be deleted has children only when a fuzzy snapshot shows a later life of
    /// it. All of them will come again with the txns that made them.
    fn drop_descendants(&mut self, top: super::NodeId) {
        let mut below = Vec::new();
        self.arena.for_each_in(top, |_, id| below.push(id));
        for &id in below[1..].iter().rev() {
            let path = self.path_of(id);
            let (parent, name) = path.rsplit_once('/').unwrap_or_default();
            let bytes = byte_count(self.arena.data(id));
            let acl = self.arena.get(id).acl;
            self.detach(id, &path);
            self.acls.release(acl);
            self.quota_deleted(parent, name, &path, bytes);
        }
    }

    fn set_data(
        &mut self,
        header: &TxnHeader,
        txn: &SetDataTxn,
        sink: &mut impl TriggerSink,
    ) -> Result<AppliedBody, ErrorCode> {
        let path = txn.path.as_str();
        let id = self.arena.lookup(path).ok_or(ErrorCode::NoNode)?;
        let data = txn.data.as_deref();
        let grown = byte_count(data) - byte_count(self.arena.data(id));
        let counted = digest::is_counted(path);
        let before = self.arena.get(id).digest();
        self.arena.set_data(id, data);
        let node = self.arena.get_mut(id);
        node.set_stat(&StatPersisted {
            mtime: header.time,
            mzxid: header.zxid,
            version: txn.version,
            ..node.stat()
        });
        if counted {
            node.crc = digest::path_data_crc(path, data);
            let after = node.digest();
            self.digest = self.digest.wrapping_sub(before).wrapping_add(after);
        }
        self.data_size += grown;
        let (stat, acl) = (self.stat_of(id), self.arena.get(id).acl);
        self.quota_changed(path, 0, grown);
        sink.trigger(
            EventKind::DataChanged,
            path,
            self.acls.get(acl),
            header.zxid,
        );
        Ok(AppliedBody::Stat(stat))
    }

    fn set_acl(&mut self, txn: &SetAclTxn) -> Result<AppliedBody, ErrorCode> {
        let id = self.arena.lookup(&txn.path).ok_or(ErrorCode::NoNode)?;
        let acl = self.acls.acquire(txn.acl.as_deref());
        let old = std::mem::replace(&mut self.arena.get_mut(id).acl, acl);
        self.acls.release(old);
        self.change_stat(id, &txn.path, |stat| stat.aversion = txn.version);
        Ok(AppliedBody::Stat(self.stat_of(id)))
    }

    /// Deletes the listed paths, then whatever else the session still owns here.
    fn close_session(
        &mut self,
        header: &TxnHeader,
        listed: Option<&[String]>,
        sink: &mut impl TriggerSink,
    ) {
        self.sessions.remove(&header.client_id);
        for path in listed.unwrap_or_default() {
            // Missing ones are gone already in a fuzzy snapshot.
            let _missing = self.delete(header.zxid, path, sink);
        }
        let rest: Vec<String> = self.ephemerals(header.client_id).collect();
        let stay = usize::from(planted::is(Planted::EphemeralOutlives));
        for path in rest.into_iter().skip(stay) {
            let _missing = self.delete(header.zxid, &path, sink);
        }
    }

    fn trigger_parent(
        &self,
        parent: super::NodeId,
        parent_path: &str,
        zxid: Zxid,
        sink: &mut impl TriggerSink,
    ) {
        let path = if parent == ROOT { "/" } else { parent_path };
        let acl: &Arc<[Acl]> = self.acls.get(self.arena.get(parent).acl);
        sink.trigger(EventKind::ChildrenChanged, path, acl, zxid);
    }
}

/// The results of a multi with an error in it: 0 before the first error, its code, -2 after. Its
/// operations of other types may hold anything (trap 1), so they are not looked at.
fn failed_multi(ops: &[MultiOp]) -> Applied {
    let mut first = ErrorCode::Ok;
    let mut results = Vec::with_capacity(ops.len());
    for op in ops {
        let err = if op.kind == OpCode::Error.code() {
            let data = op.data.as_deref().unwrap_or_default();
            let code = Reader::new(data).int("error code");
            code.map_or(ErrorCode::RuntimeInconsistency, error_code)
        } else if first == ErrorCode::Ok {
            ErrorCode::Ok
        } else {
            ErrorCode::RuntimeInconsistency
        };
        if first == ErrorCode::Ok {
            first = err;
        }
        results.push((OpCode::Error, err, AppliedBody::None));
    }
    Applied {
        err: first,
        body: AppliedBody::Multi(results),
    }
}

fn decode_op(op: &MultiOp) -> Result<Txn, DecodeError> {
    let data = op
        .data
        .as_ref()
        .ok_or(DecodeError::Null { what: "operation" })?;
    Txn::decode(op.kind, &mut Reader::shared(data))
}

/// A code of a later ZooKeeper that we have no name for is still an error.
fn error_code(code: i32) -> ErrorCode {
    ErrorCode::from_code(code).unwrap_or(ErrorCode::RuntimeInconsistency)
}

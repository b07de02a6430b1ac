//! On the leader: a request becomes a txn, judged against the tree and every txn on its way.
//!
//! Laws kept here. Every request becomes exactly one txn; a refused one is an error txn, so that zxids
//! have no gaps. A txn carries absolute results (versions, generated names, resolved ACLs, the paths of
//! a closed session), so that applying it needs no judgement. The order of checks is the one clients can
//! see (client-protocol facts, section 5). Requests that are known to stop an Apache server are refused:
//! it may be a learner of this ensemble. Counterpart: `PrepRequestProcessor`.

mod change;
mod multi;
mod operation;
mod quota;

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::auth::{self, AuthConfig};
use crate::error::ErrorCode;
use crate::ids::{SessionId, Zxid};
use crate::jute::Reader;
use crate::path;
use crate::planted::{self, Planted};
use crate::record::data::{Acl, StatPersisted, perms};
use crate::record::opcode::OpCode;
use crate::record::txn::{
    CheckVersionTxn, CloseSessionTxn, CreateContainerTxn, CreateSessionTxn, CreateTtlTxn,
    CreateTxn, DeleteTxn, ErrorTxn, SetAclTxn, SetDataTxn, Txn, TxnDigest, TxnHeader, TxnRecord,
};
use crate::session::SessionTracker;
use crate::time::Now;
use crate::tree::{DataTree, EphemeralKind, TTL_MS_MAX, digest};

use super::{Origin, Request};
use change::{NodeState, Outstanding};
use operation::{Create, Mode, Operation, VersionedData};

/// What the operator configured about writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrepOptions {
    /// Permissions.
    pub auth: AuthConfig,
    /// May TTL nodes be created (`extendedTypesEnabled`)?
    pub extended_types_enabled: bool,
    /// Do hard quotas refuse writes (`enforceQuota`)?
    pub enforce_quota: bool,
    /// Do txns carry the digest of the tree after them (`digest.enabled`)?
    pub digest_enabled: bool,
    /// Does a closeSession txn name the paths it deletes (`closeSessionTxn.enabled`)?
    pub close_session_txn_enabled: bool,
}

impl Default for PrepOptions {
    fn default() -> Self {
        Self {
            auth: AuthConfig::default(),
            extended_types_enabled: false,
            enforce_quota: false,
            digest_enabled: true,
            close_session_txn_enabled: true,
        }
    }
}

/// The leader's preparation of txns.
#[derive(Debug)]
pub struct Prep {
    options: PrepOptions,
    outstanding: Outstanding,
}

/// What every operation of one request shares.
struct Context<'a> {
    tree: &'a DataTree,
    sessions: &'a mut SessionTracker,
    request: &'a Request,
    zxid: Zxid,
    time: i64,
}

impl Prep {
    /// Nothing on its way.
    #[must_use]
    pub fn new(options: PrepOptions) -> Self {
        Self {
            options,
            outstanding: Outstanding::default(),
        }
    }

    /// Makes the txn of `request`, to be proposed as `zxid`. Any number may be prepared before the first
    /// is applied, but in the order of their zxids. `tree` and `sessions` are the leader's own.
    pub fn prepare(
        &mut self,
        tree: &DataTree,
        sessions: &mut SessionTracker,
        request: &Request,
        zxid: Zxid,
        now: Now,
    ) -> TxnRecord {
        if self.outstanding.is_empty() {
            self.outstanding.set_digest(tree.digest());
        }
        let mut context = Context {
            tree,
            sessions,
            request,
            zxid,
            time: now.wall_ms,
        };
        let (kind, txn) = match self.txn(&mut context, now) {
            Ok(done) => done,
            Err(err) => {
                let code = err.code();
                (OpCode::Error, Txn::Error(ErrorTxn { code }))
            }
        };
        let with_digest = self.options.digest_enabled && kind != OpCode::Error;
        TxnRecord {
            header: TxnHeader {
                client_id: request.session,
                cxid: request.cxid,
                zxid,
                time: now.wall_ms,
                kind: kind.code(),
            },
            txn,
            digest: with_digest.then(|| TxnDigest {
                version: digest::VERSION,
                tree_digest: self.outstanding.digest(),
            }),
        }
    }

    /// A txn has been applied to the tree: forgets what was noted for it and, if it closed a session,
    /// the session.
    pub fn applied(&mut self, header: &TxnHeader, sessions: &mut SessionTracker) {
        self.outstanding.forget(header.zxid);
        if header.kind == OpCode::CloseSession.code() {
            sessions.remove(header.client_id);
        }
    }

    /// Forgets every txn on its way: the server took up or left the lead.
    pub fn reset(&mut self) {
        self.outstanding = Outstanding::default();
    }

    fn txn(&mut self, context: &mut Context<'_>, now: Now) -> Result<(OpCode, Txn), ErrorCode> {
        let request = context.request;
        let mut body = Reader::shared(&request.payload);
        match request.op {
            OpCode::CreateSession => {
                let timeout_ms = body.int("timeout").map_err(|_| MALFORMED)?;
                let owner = request.owner();
                context
                    .sessions
                    .track(request.session, timeout_ms, now.instant);
                context.sessions.set_owner(request.session, owner);
                Ok((
                    OpCode::CreateSession,
                    Txn::CreateSession(CreateSessionTxn { timeout_ms }),
                ))
            }
            OpCode::CloseSession => Ok((OpCode::CloseSession, self.close_session(context))),
            OpCode::Multi => {
                let operations = multi::decode(&mut body).map_err(|_| MALFORMED)?;
                Ok((OpCode::Multi, self.multi(context, operations)))
            }
            OpCode::Reconfig => Err(ErrorCode::ReconfigDisabled),
            // Only inside a multi (3.9.3).
            OpCode::Check => Err(ErrorCode::Unimplemented),
            OpCode::DeleteContainer if request.origin != Origin::Server => {
                // Apache deletes whatever a client names here, asking nobody.
                Err(ErrorCode::BadArguments)
            }
            op => {
                let operation = Operation::decode(op, &mut body).map_err(|_| MALFORMED)?;
                self.operation(context, operation)
            }
        }
    }

    fn operation(
        &mut self,
        context: &mut Context<'_>,
        operation: Operation,
    ) -> Result<(OpCode, Txn), ErrorCode> {
        match operation {
            Operation::Create(create) => self.create(context, create),
            Operation::Delete { path, version } => self.delete(context, path, version),
            Operation::DeleteContainer { path } => self.delete_container(context, path),
            Operation::SetData(set) => self.set_data(context, set),
            Operation::SetAcl { path, acl, version } => self.set_acl(context, path, acl, version),
            Operation::Check { path, version } => self.check(context, path, version),
        }
    }

    fn create(
        &mut self,
        context: &mut Context<'_>,
        create: Create,
    ) -> Result<(OpCode, Txn), ErrorCode> {
        let mode = self.create_mode(&create)?;
        context.check_session()?;
        let parent_path = parent_for_write(&create.path)?.to_owned();
        let acl = auth::fixup_acl(create.acl.as_deref(), &context.request.ids)?;
        let parent = self.existing(context, &parent_path)?;
        self.permit(context, &parent_path, &parent, perms::CREATE)?;
        let mut path = create.path;
        if mode.sequential {
            use std::fmt::Write as _;
            write!(path, "{:010}", parent.stat.cversion).expect("a String takes everything");
        }
        if !path::is_valid(&path) || quota::stops_apache(&path) {
            return Err(ErrorCode::BadArguments);
        }
        if self.outstanding.state(context.tree, &path).is_some() {
            return Err(ErrorCode::NodeExists);
        }
        let parent_kind = EphemeralKind::of(parent.stat.ephemeral_owner);
        if matches!(parent_kind, EphemeralKind::Ephemeral(_)) {
            return Err(ErrorCode::NoChildrenForEphemerals);
        }
        self.check_quota(context, &path, length(create.data.as_ref()), 1)?;

        let kind = match create.op {
            OpCode::CreateContainer => EphemeralKind::Container,
            OpCode::CreateTtl => EphemeralKind::Ttl(create.ttl.unwrap_or_default()),
            _ if mode.ephemeral => EphemeralKind::Ephemeral(context.request.session),
            _ => EphemeralKind::Persistent,
        };
        let new = NewNode {
            path,
            data: create.data,
            acl,
            kind,
            parent_cversion: parent.stat.cversion.wrapping_add(1),
        };
        self.note_create(context, &parent_path, parent, &new);
        Ok((create.op, new.into_txn()))
    }

    /// What of a create can be judged before anything is looked up.
    fn create_mode(&self, create: &Create) -> Result<Mode, ErrorCode> {
        let mode = Mode::from_flags(create.flags).ok_or(ErrorCode::BadArguments)?;
        if mode.ttl && !self.options.extended_types_enabled {
            return Err(ErrorCode::Unimplemented);
        }
        let ttl_in_order = match create.ttl {
            Some(ttl) => mode.ttl && (1..=TTL_MS_MAX).contains(&ttl),
            None => !mode.ttl,
        };
        if ttl_in_order {
            Ok(mode)
        } else {
            Err(ErrorCode::BadArguments)
        }
    }

    fn note_create(
        &mut self,
        context: &Context<'_>,
        parent_path: &str,
        mut parent: NodeState,
        new: &NewNode,
    ) {
        parent.child_count += 1;
        // The tree only ever raises the counter, so it sticks at its end.
        parent.stat.cversion = parent.stat.cversion.max(new.parent_cversion);
        parent.stat.pzxid = context.zxid;
        self.outstanding
            .set(context.zxid, context.tree, parent_path, Some(parent));
        let stat = StatPersisted {
            czxid: context.zxid,
            mzxid: context.zxid,
            ctime: context.time,
            mtime: context.time,
            version: 0,
            cversion: 0,
            aversion: 0,
            ephemeral_owner: new.kind.owner(),
            pzxid: context.zxid,
        };
        let state = NodeState::new(&new.path, new.data.as_deref(), stat, &new.acl);
        self.outstanding
            .set(context.zxid, context.tree, &new.path, Some(state));
    }

    fn delete(
        &mut self,
        context: &mut Context<'_>,
        path: String,
        version: i32,
    ) -> Result<(OpCode, Txn), ErrorCode> {
        context.check_session()?;
        let parent_path = deletable_parent(&path)?;
        let parent = self.existing(context, parent_path)?;
        self.permit(context, parent_path, &parent, perms::DELETE)?;
        let node = self.existing(context, &path)?;
        if version != -1 && version != node.stat.version {
            return Err(ErrorCode::BadVersion);
        }
        if node.child_count > 0 {
            return Err(ErrorCode::NotEmpty);
        }
        self.note_delete(context, &path);
        Ok((OpCode::Delete, Txn::Delete(DeleteTxn { path })))
    }

    /// The reaper's delete: nobody's permission is needed, but the znode must still be empty.
    fn delete_container(
        &mut self,
        context: &mut Context<'_>,
        path: String,
    ) -> Result<(OpCode, Txn), ErrorCode> {
        deletable_parent(&path)?;
        let node = self.existing(context, &path)?;
        if node.child_count > 0 {
            return Err(ErrorCode::NotEmpty);
        }
        match EphemeralKind::of(node.stat.ephemeral_owner) {
            EphemeralKind::Container | EphemeralKind::Ttl(_) => {}
            EphemeralKind::Ephemeral(_) | EphemeralKind::Persistent => {
                return Err(ErrorCode::BadVersion);
            }
        }
        self.note_delete(context, &path);
        Ok((OpCode::DeleteContainer, Txn::Delete(DeleteTxn { path })))
    }

    fn note_delete(&mut self, context: &Context<'_>, path: &str) {
        if let Some(parent_path) = path::parent(path)
            && let Some(mut parent) = self.outstanding.state(context.tree, parent_path)
        {
            parent.child_count -= 1;
            parent.stat.pzxid = parent.stat.pzxid.max(context.zxid);
            self.outstanding
                .set(context.zxid, context.tree, parent_path, Some(parent));
        }
        self.outstanding.set(context.zxid, context.tree, path, None);
    }

    fn set_data(
        &mut self,
        context: &mut Context<'_>,
        set: VersionedData,
    ) -> Result<(OpCode, Txn), ErrorCode> {
        let VersionedData {
            path,
            data,
            version,
        } = set;
        context.check_session()?;
        check_path(&path)?;
        let mut node = self.existing(context, &path)?;
        self.permit(context, &path, &node, perms::WRITE)?;
        let grows_by = length(data.as_ref()) - node.data_len;
        self.check_quota(context, &path, grows_by, 0)?;
        let version = next_version(node.stat.version, version)?;
        node.stat.version = version;
        node.stat.mzxid = context.zxid;
        node.stat.mtime = context.time;
        node.set_data(&path, data.as_deref());
        self.outstanding
            .set(context.zxid, context.tree, &path, Some(node));
        Ok((
            OpCode::SetData,
            Txn::SetData(SetDataTxn {
                path,
                data,
                version,
            }),
        ))
    }

    fn set_acl(
        &mut self,
        context: &mut Context<'_>,
        path: String,
        acl: Option<Vec<Acl>>,
        version: i32,
    ) -> Result<(OpCode, Txn), ErrorCode> {
        context.check_session()?;
        check_path(&path)?;
        let acl = auth::fixup_acl(acl.as_deref(), &context.request.ids)?;
        let mut node = self.existing(context, &path)?;
        self.permit(context, &path, &node, perms::ADMIN)?;
        let version = next_version(node.stat.aversion, version)?;
        node.stat.aversion = version;
        node.set_acl(&acl);
        self.outstanding
            .set(context.zxid, context.tree, &path, Some(node));
        Ok((
            OpCode::SetAcl,
            Txn::SetAcl(SetAclTxn {
                path,
                acl: Some(acl),
                version,
            }),
        ))
    }

    fn check(
        &mut self,
        context: &mut Context<'_>,
        path: String,
        version: i32,
    ) -> Result<(OpCode, Txn), ErrorCode> {
        context.check_session()?;
        check_path(&path)?;
        let node = self.existing(context, &path)?;
        self.permit(context, &path, &node, perms::READ)?;
        let version = next_version(node.stat.version, version)?;
        Ok((OpCode::Check, Txn::Check(CheckVersionTxn { path, version })))
    }

    /// The set of ephemerals that go is fixed here: those in the tree and those on their way.
    fn close_session(&mut self, context: &mut Context<'_>) -> Txn {
        let session = context.request.session;
        let mut paths: BTreeSet<String> = context
            .tree
            .ephemerals(session)
            .map(|path| path.to_string())
            .collect();
        self.outstanding.adjust_ephemerals(session, &mut paths);
        if planted::is(Planted::EphemeralOutlives) {
            paths.pop_last();
        }
        for path in &paths {
            self.note_delete(context, path);
        }
        context.sessions.set_closing(session);
        let named = self.options.close_session_txn_enabled;
        Txn::CloseSession(CloseSessionTxn {
            paths: named.then(|| paths.into_iter().collect()),
        })
    }

    fn existing(&self, context: &Context<'_>, path: &str) -> Result<NodeState, ErrorCode> {
        self.outstanding
            .state(context.tree, path)
            .ok_or(ErrorCode::NoNode)
    }

    fn permit(
        &self,
        context: &Context<'_>,
        path: &str,
        node: &NodeState,
        perm: i32,
    ) -> Result<(), ErrorCode> {
        let ids = &context.request.ids;
        let permitted = node.with_acl(context.tree, path, |acl| {
            self.options.auth.permits(acl, perm, ids)
        });
        if permitted {
            Ok(())
        } else {
            Err(ErrorCode::NoAuth)
        }
    }

    fn check_quota(
        &self,
        context: &Context<'_>,
        path: &str,
        bytes: i64,
        count: i64,
    ) -> Result<(), ErrorCode> {
        if self.options.enforce_quota && quota::is_exceeded(context.tree, path, bytes, count) {
            return Err(ErrorCode::QuotaExceeded);
        }
        Ok(())
    }
}

/// A znode about to be created.
struct NewNode {
    path: String,
    data: Option<Bytes>,
    acl: Vec<Acl>,
    kind: EphemeralKind,
    /// The parent's stored cversion after it.
    parent_cversion: i32,
}

impl NewNode {
    fn into_txn(self) -> Txn {
        let Self {
            path,
            data,
            acl,
            kind,
            parent_cversion,
        } = self;
        let acl = Some(acl);
        match kind {
            EphemeralKind::Container => Txn::CreateContainer(CreateContainerTxn {
                path,
                data,
                acl,
                parent_cversion,
            }),
            EphemeralKind::Ttl(ttl) => Txn::CreateTtl(CreateTtlTxn {
                path,
                data,
                acl,
                parent_cversion,
                ttl,
            }),
            EphemeralKind::Ephemeral(_) | EphemeralKind::Persistent => Txn::Create(CreateTxn {
                path,
                data,
                acl,
                ephemeral: kind != EphemeralKind::Persistent,
                parent_cversion,
            }),
        }
    }
}

/// What a request is answered with whose record cannot be read.
const MALFORMED: ErrorCode = ErrorCode::MarshallingError;

impl Context<'_> {
    fn check_session(&mut self) -> Result<(), ErrorCode> {
        if self.request.origin == Origin::Server && self.request.session == SessionId::NONE {
            return Ok(());
        }
        self.sessions
            .check(self.request.session, self.request.owner())
    }
}

/// The parent as the string says it, before the path is judged as a whole.
fn parent_for_write(path: &str) -> Result<&str, ErrorCode> {
    if path.contains('\0') {
        return Err(ErrorCode::BadArguments);
    }
    match path.rfind('/') {
        None => Err(ErrorCode::BadArguments),
        Some(0) => Ok("/"),
        Some(at) => Ok(&path[..at]),
    }
}

/// The parent of something that may be deleted: the nodes ZooKeeper needs may not, nor may a limit
/// outside of the quota tree, whose deletion stops an Apache server.
fn deletable_parent(path: &str) -> Result<&str, ErrorCode> {
    let parent = parent_for_write(path)?;
    let needed = ["/", path::ZOOKEEPER, path::QUOTA, path::CONFIG];
    if needed.contains(&path) || quota::stops_apache(path) {
        return Err(ErrorCode::BadArguments);
    }
    Ok(parent)
}

fn check_path(path: &str) -> Result<(), ErrorCode> {
    if path::is_valid(path) {
        Ok(())
    } else {
        Err(ErrorCode::BadArguments)
    }
}

/// The version after a change, if the expected one is -1 or the current one. It wraps through -1, as
/// up to 3.9.5.
fn next_version(current: i32, expected: i32) -> Result<i32, ErrorCode> {
    if expected != -1 && expected != current {
        return Err(ErrorCode::BadVersion);
    }
    Ok(current.wrapping_add(1))
}

fn length(data: Option<&Bytes>) -> i64 {
    data.map_or(0, |data| data.len().cast_signed() as i64)
}

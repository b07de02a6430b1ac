//! Everything a server answers from its own tree.
//!
//! Law kept here: a read registers its watch under the same read side of the tree that it answered from,
//! so nothing can change in between. Reads do not judge path syntax, a bad path is just a missing node.
//! First the node has to exist, then the caller needs permission (client-protocol facts, sections 4, 5
//! and 8). Counterpart: `FinalRequestProcessor`.

use parking_lot::Mutex;

use crate::auth::{self, AuthConfig, Ids};
use crate::error::ErrorCode;
use crate::ids::{ConnId, SessionId, Xid, Zxid};
use crate::jute::{DecodeError, Reader, Record, Writer};
use crate::record::data::perms;
use crate::record::opcode::OpCode;
use crate::record::proto::{MultiHeader, SetWatches, SetWatches2};
use crate::tree::{DataTree, EventKind, NodeRef};
use crate::watch::{WatchManager, WatchMode, WatcherType};

use super::reply::{self, Frame};

/// Bytes after which a multiRead is refused: one request may ask for the same large znode ten thousand
/// times.
const MULTI_READ_MAX: usize = 64 << 20;

/// What a read is answered from.
pub(super) struct Reads<'a> {
    pub(super) tree: &'a DataTree,
    pub(super) watches: &'a Mutex<WatchManager>,
    pub(super) auth: &'a AuthConfig,
    pub(super) conn: ConnId,
}

/// Who asks, and what.
pub(super) struct Question<'a> {
    pub(super) session: SessionId,
    pub(super) ids: &'a Ids,
    pub(super) xid: Xid,
    pub(super) op: OpCode,
    pub(super) body: &'a [u8],
}

/// Why a read has no answer.
enum Failure {
    Code(ErrorCode),
    Malformed,
}

impl From<DecodeError> for Failure {
    fn from(_: DecodeError) -> Self {
        Self::Malformed
    }
}

impl From<ErrorCode> for Failure {
    fn from(code: ErrorCode) -> Self {
        Self::Code(code)
    }
}

impl Failure {
    fn code(self) -> ErrorCode {
        match self {
            Self::Code(code) => code,
            Self::Malformed => ErrorCode::MarshallingError,
        }
    }
}

/// Whether this module answers `op`.
pub(super) fn is_read(op: OpCode) -> bool {
    matches!(
        op,
        OpCode::Exists
            | OpCode::GetData
            | OpCode::GetAcl
            | OpCode::GetChildren
            | OpCode::GetChildren2
            | OpCode::Ping
            | OpCode::CheckWatches
            | OpCode::RemoveWatches
            | OpCode::MultiRead
            | OpCode::SetWatches
            | OpCode::SetWatches2
            | OpCode::GetEphemerals
            | OpCode::GetAllChildrenNumber
            | OpCode::AddWatch
            | OpCode::WhoAmI
    )
}

impl Reads<'_> {
    /// Appends the answer (and before it the events that setWatches catches up on) to `out`; says how
    /// many frames that were.
    pub(super) fn answer(&self, question: &Question<'_>, out: &mut Vec<u8>) -> u64 {
        let mut events = 0;
        if matches!(question.op, OpCode::SetWatches | OpCode::SetWatches2) {
            match self.set_watches(question, out) {
                Ok(count) => events = count,
                Err(failure) => {
                    let zxid = self.tree.last_processed_zxid();
                    reply::header_only(out, question.xid, zxid, failure.code());
                    return 1;
                }
            }
        }
        let frame = Frame::open(out, question.xid, self.tree.last_processed_zxid());
        match self.body(question, &frame, out) {
            Ok(()) => frame.close(out),
            Err(failure) => frame.fail(out, failure.code()),
        }
        events + 1
    }

    fn body(
        &self,
        question: &Question<'_>,
        frame: &Frame,
        out: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        let mut from = Reader::new(question.body);
        let from = &mut from;
        match question.op {
            OpCode::Exists => self.exists(question, from, out),
            OpCode::GetData => self.data(question.ids, from, out, true),
            OpCode::GetChildren => self.children(question.ids, from, out, true, false),
            OpCode::GetChildren2 => self.children(question.ids, from, out, true, true),
            OpCode::GetAcl => self.acl(question.ids, from, out),
            OpCode::MultiRead => self.multi_read(question.ids, from, frame, out),
            OpCode::GetEphemerals => self.ephemerals(question.session, from, out),
            OpCode::GetAllChildrenNumber => {
                let path = from.str("path")?;
                self.readable(&path, question.ids)?;
                let count = self.tree.descendant_count(&path);
                Writer::new(out).int(count.ok_or(ErrorCode::NoNode)?);
                Ok(())
            }
            OpCode::CheckWatches | OpCode::RemoveWatches => self.watches(question.op, from),
            OpCode::AddWatch => {
                let path = from.str("path")?;
                let mode = match from.int("mode")? {
                    0 => WatchMode::Persistent,
                    1 => WatchMode::PersistentRecursive,
                    _ => return Err(Failure::Malformed),
                };
                self.watches.lock().add(&path, self.conn, mode);
                Writer::new(out).int(0);
                Ok(())
            }
            OpCode::WhoAmI => {
                who_am_i(question.ids, out);
                Ok(())
            }
            // A ping, or setWatches, whose work is done: a header is the whole answer.
            _ => Ok(()),
        }
    }

    fn readable(&self, path: &str, ids: &Ids) -> Result<NodeRef<'_>, Failure> {
        let node = self.tree.node(path).ok_or(ErrorCode::NoNode)?;
        if self.auth.permits(node.acl(), perms::READ, ids) {
            Ok(node)
        } else {
            Err(ErrorCode::NoAuth.into())
        }
    }

    fn watch(&self, path: &str, mode: WatchMode) {
        self.watches.lock().add(path, self.conn, mode);
    }

    /// The watch is set even if there is no such node: it then fires when it is created. READ is needed
    /// on a node that exists (3.9.2).
    fn exists(
        &self,
        question: &Question<'_>,
        from: &mut Reader<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        let path = from.str("path")?;
        let watch = from.bool("watch")?;
        if path.contains('\0') {
            return Err(ErrorCode::BadArguments.into());
        }
        let found = self.readable(&path, question.ids);
        if watch && !matches!(found, Err(Failure::Code(ErrorCode::NoAuth))) {
            self.watch(&path, WatchMode::Data);
        }
        reply::stat(&mut Writer::new(out), &found?.stat());
        Ok(())
    }

    fn data(
        &self,
        ids: &Ids,
        from: &mut Reader<'_>,
        out: &mut Vec<u8>,
        may_watch: bool,
    ) -> Result<(), Failure> {
        let path = from.str("path")?;
        let watch = from.bool("watch")?;
        let node = self.readable(&path, ids)?;
        let mut out = Writer::new(out);
        out.buffer(node.data());
        reply::stat(&mut out, &node.stat());
        if watch && may_watch {
            self.watch(&path, WatchMode::Data);
        }
        Ok(())
    }

    fn children(
        &self,
        ids: &Ids,
        from: &mut Reader<'_>,
        out: &mut Vec<u8>,
        may_watch: bool,
        with_stat: bool,
    ) -> Result<(), Failure> {
        let path = from.str("path")?;
        let watch = from.bool("watch")?;
        let node = self.readable(&path, ids)?;
        let stat = node.stat();
        let mut out = Writer::new(out);
        out.int(stat.num_children);
        for name in node.children() {
            out.string(name);
        }
        if with_stat {
            reply::stat(&mut out, &stat);
        }
        if watch && may_watch {
            self.watch(&path, WatchMode::Child);
        }
        Ok(())
    }

    fn acl(&self, ids: &Ids, from: &mut Reader<'_>, out: &mut Vec<u8>) -> Result<(), Failure> {
        let path = from.str("path")?;
        let node = self.tree.node(&path).ok_or(ErrorCode::NoNode)?;
        let acl = auth::visible_acl(self.auth, node.acl(), ids).ok_or(ErrorCode::NoAuth)?;
        let mut out = Writer::new(out);
        out.vector(Some(&acl));
        reply::stat(&mut out, &node.stat());
        Ok(())
    }

    fn ephemerals(
        &self,
        session: SessionId,
        from: &mut Reader<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        let prefix = from.opt_string("prefixPath")?.unwrap_or_default();
        let all = prefix.trim().is_empty() || prefix == "/";
        let paths: Vec<String> = self
            .tree
            .ephemerals(session)
            .filter(|path| all || path.starts_with(&prefix))
            .map(|path| path.to_string())
            .collect();
        Writer::new(out).vector(Some(&paths));
        Ok(())
    }

    /// Several getData and getChildren; each result stands alone, and none leaves a watch.
    fn multi_read(
        &self,
        ids: &Ids,
        from: &mut Reader<'_>,
        frame: &Frame,
        out: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        check_multi_read(from.clone())?;
        loop {
            let header = MultiHeader::decode(from)?;
            if header.done {
                break;
            }
            let start = out.len();
            let result = if header.kind == OpCode::GetData.code() {
                reply::multi_header(&mut Writer::new(out), OpCode::GetData);
                self.data(ids, from, out, false)
            } else {
                reply::multi_header(&mut Writer::new(out), OpCode::GetChildren);
                self.children(ids, from, out, false, false)
            };
            if let Err(Failure::Code(code)) = result {
                out.truncate(start);
                reply::multi_error(&mut Writer::new(out), code);
            }
            if frame.body_len(out) > MULTI_READ_MAX {
                return Err(Failure::Malformed);
            }
        }
        MultiHeader::END.encode(&mut Writer::new(out));
        Ok(())
    }

    fn watches(&self, op: OpCode, from: &mut Reader<'_>) -> Result<(), Failure> {
        let path = from.str("path")?;
        let kind = WatcherType::from_code(from.int("type")?).ok_or(Failure::Malformed)?;
        let mut watches = self.watches.lock();
        let found = if op == OpCode::CheckWatches {
            watches.contains(&path, self.conn, kind)
        } else {
            watches.remove(&path, self.conn, kind)
        };
        if found {
            Ok(())
        } else {
            Err(ErrorCode::NoWatcher.into())
        }
    }

    /// Sets watches again after a reconnect. What has changed since the client's last zxid fires at once
    /// (with zxid -1, in list order, unfiltered) and is not watched; persistent watches never catch up.
    fn set_watches(&self, question: &Question<'_>, out: &mut Vec<u8>) -> Result<u64, Failure> {
        let mut from = Reader::new(question.body);
        let SetWatches {
            relative_zxid,
            data,
            exist,
            child,
        } = SetWatches::decode(&mut from)?;
        let (persistent, recursive) = if question.op == OpCode::SetWatches2 {
            let whole = SetWatches2::decode(&mut Reader::new(question.body))?;
            (whole.persistent, whole.recursive)
        } else {
            (Vec::new(), Vec::new())
        };
        let mut events = 0;
        let mut watches = self.watches.lock();
        let mut settle = |missed: Option<EventKind>, path: &str, mode: WatchMode| match missed {
            Some(kind) => {
                reply::event(out, kind, path, Zxid::NONE);
                events += 1;
            }
            None => watches.add(path, self.conn, mode),
        };
        for path in &data {
            let missed = match self.tree.node(path) {
                None => Some(EventKind::Deleted),
                Some(node) => (node.stat().mzxid > relative_zxid).then_some(EventKind::DataChanged),
            };
            settle(missed, path, WatchMode::Data);
        }
        for path in &exist {
            let missed = self.tree.node(path).map(|_| EventKind::Created);
            settle(missed, path, WatchMode::Data);
        }
        for path in &child {
            let missed = match self.tree.node(path) {
                None => Some(EventKind::Deleted),
                Some(node) => {
                    (node.stat().pzxid > relative_zxid).then_some(EventKind::ChildrenChanged)
                }
            };
            settle(missed, path, WatchMode::Child);
        }
        for path in &persistent {
            settle(None, path, WatchMode::Persistent);
        }
        for path in &recursive {
            settle(None, path, WatchMode::PersistentRecursive);
        }
        Ok(events)
    }
}

/// A multiRead is read as a whole before any of it is answered: one bad operation spoils all.
fn check_multi_read(mut from: Reader<'_>) -> Result<(), Failure> {
    loop {
        let header = MultiHeader::decode(&mut from)?;
        if header.done {
            return Ok(());
        }
        let known = [OpCode::GetData.code(), OpCode::GetChildren.code()];
        if !known.contains(&header.kind) {
            return Err(Failure::Malformed);
        }
        from.str("path")?;
        from.bool("watch")?;
    }
}

fn who_am_i(ids: &Ids, out: &mut Vec<u8>) {
    let mut out = Writer::new(out);
    out.int(i32::try_from(ids.len()).expect("a connection has few identities"));
    for id in ids.iter() {
        out.opt_string(id.scheme.as_deref());
        out.string(auth::user_name(id));
    }
}

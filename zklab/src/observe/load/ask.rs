//! A request of the load: how it is written on the wire, and what its answer says.

use bytes::Bytes;
use zkd::ids::{SessionId, Zxid};
use zkd::jute::{DecodeError, Reader, Record, Writer};
use zkd::record::data::{Acl, Stat};
use zkd::record::opcode::OpCode;
use zkd::record::proto::{
    AddWatchRequest, ChildrenStatResponse, CreateRequest, DataResponse, MultiHeader,
    OptPathRequest, PathResponse, PathVersionRequest, PathWatchRequest, SetDataRequest, SetWatches,
    SetWatches2,
};

use crate::observe::history::{Kind, OpLine, Outcome, PartLine};

/// Data are this long, so that they fit every limit and still look like something.
const DATA_LENGTH: usize = 32;

/// One operation of a multi.
#[derive(Clone, Debug)]
pub(super) struct AskPart {
    pub(super) kind: Kind,
    pub(super) path: String,
    pub(super) expected: i32,
    pub(super) version: i32,
}

/// A request.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) kind: Kind,
    pub(super) path: String,
    pub(super) watch: bool,
    pub(super) ephemeral: bool,
    pub(super) sequential: bool,
    pub(super) expected: i32,
    pub(super) parts: Vec<AskPart>,
    /// The newest state that was seen, when watches are left again.
    pub(super) rel: Zxid,
}

/// What an answer says besides its header.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    /// The zxid of a write, where no header tells it.
    pub(super) zxid: Zxid,
    pub(super) stat: Option<Stat>,
    pub(super) made: Option<String>,
    pub(super) value: u32,
    pub(super) code: i32,
    pub(super) versions: Vec<i32>,
    /// The names of children, with commas.
    pub(super) kids: Option<String>,
}

impl Ask {
    pub(super) fn new(kind: Kind, path: impl Into<String>) -> Self {
        Self {
            kind,
            path: path.into(),
            watch: false,
            ephemeral: false,
            sequential: false,
            expected: -1,
            parts: Vec::new(),
            rel: Zxid::ZERO,
        }
    }

    /// The paths of the watches of a kind that are left again.
    fn watches(&self, kind: Kind) -> Vec<String> {
        let parts = self.parts.iter().filter(|part| part.kind == kind);
        parts.map(|part| part.path.clone()).collect()
    }

    /// The older request has no room for watches that stay.
    fn is_old_rewatch(&self) -> bool {
        let stays = |part: &AskPart| matches!(part.kind, Kind::Persistent | Kind::Recursive);
        !self.parts.iter().any(stays)
    }

    pub(super) fn op(&self) -> OpCode {
        match self.kind {
            Kind::Get => OpCode::GetData,
            Kind::Exists => OpCode::Exists,
            Kind::Set => OpCode::SetData,
            Kind::Create => OpCode::Create,
            Kind::Delete => OpCode::Delete,
            Kind::Check => OpCode::Check,
            Kind::Multi => OpCode::Multi,
            Kind::Sync => OpCode::Sync,
            Kind::Close => OpCode::CloseSession,
            Kind::Children => OpCode::GetChildren2,
            Kind::Persistent | Kind::Recursive => OpCode::AddWatch,
            Kind::Rewatch if self.is_old_rewatch() => OpCode::SetWatches,
            Kind::Rewatch => OpCode::SetWatches2,
        }
    }

    /// The body of the request; `id` is the value that it writes.
    pub(super) fn encode(&self, id: u32, out: &mut Writer<'_>) {
        match self.kind {
            Kind::Get | Kind::Exists | Kind::Children => PathWatchRequest {
                path: self.path.clone(),
                watch: self.watch,
            }
            .encode(out),
            Kind::Sync => OptPathRequest {
                path: Some(self.path.clone()),
            }
            .encode(out),
            Kind::Close => {}
            Kind::Persistent | Kind::Recursive => AddWatchRequest {
                path: self.path.clone(),
                mode: i32::from(self.kind == Kind::Recursive),
            }
            .encode(out),
            Kind::Rewatch => self.encode_rewatch(out),
            Kind::Multi => {
                for part in &self.parts {
                    let mut one = Self::new(part.kind, part.path.clone());
                    one.expected = part.expected;
                    MultiHeader {
                        kind: one.op().code(),
                        done: false,
                        err: -1,
                    }
                    .encode(out);
                    one.encode(id, out);
                }
                MultiHeader::END.encode(out);
            }
            Kind::Set => SetDataRequest {
                path: self.path.clone(),
                data: Some(data(id)),
                version: self.expected,
            }
            .encode(out),
            Kind::Delete | Kind::Check => PathVersionRequest {
                path: self.path.clone(),
                version: self.expected,
            }
            .encode(out),
            Kind::Create => CreateRequest {
                path: self.path.clone(),
                data: Some(data(id)),
                acl: Some(Acl::open()),
                flags: i32::from(self.ephemeral) + 2 * i32::from(self.sequential),
            }
            .encode(out),
        }
    }

    fn encode_rewatch(&self, out: &mut Writer<'_>) {
        let [data, exist, child] =
            [Kind::Get, Kind::Exists, Kind::Children].map(|kind| self.watches(kind));
        let relative_zxid = self.rel;
        if self.is_old_rewatch() {
            SetWatches {
                relative_zxid,
                data,
                exist,
                child,
            }
            .encode(out);
        } else {
            SetWatches2 {
                relative_zxid,
                data,
                exist,
                child,
                persistent: self.watches(Kind::Persistent),
                recursive: self.watches(Kind::Recursive),
            }
            .encode(out);
        }
    }

    /// Reads the body of an answer without error.
    pub(super) fn told(&self, from: &mut Reader<'_>) -> Result<Told, DecodeError> {
        let mut told = Told::default();
        match self.kind {
            Kind::Get => {
                let answer = DataResponse::decode(from)?;
                told.value = value(answer.data.as_deref());
                told.stat = Some(answer.stat);
            }
            Kind::Exists | Kind::Set => told.stat = Some(Stat::decode(from)?),
            Kind::Children => {
                let answer = ChildrenStatResponse::decode(from)?;
                told.kids = Some(answer.children.join(","));
                told.stat = Some(answer.stat);
            }
            Kind::Create => told.made = PathResponse::decode(from)?.path,
            Kind::Multi => loop {
                let header = MultiHeader::decode(from)?;
                if header.done {
                    break;
                }
                let mut version = -1;
                match OpCode::from_code(header.kind) {
                    Some(OpCode::SetData) => version = Stat::decode(from)?.version,
                    Some(OpCode::Create) => drop(PathResponse::decode(from)?),
                    Some(OpCode::Error) => {
                        let code = from.int("err")?;
                        // 0 before the operation that failed, RuntimeInconsistency behind it.
                        if code != 0 && code != -2 {
                            told.code = code;
                        }
                    }
                    _ => {}
                }
                told.versions.push(version);
            },
            _ => {}
        }
        Ok(told)
    }

    /// The line of this request as far as it was known when it was sent.
    pub(super) fn line(&self, id: u32) -> OpLine<'_> {
        let mut line = OpLine::new(self.kind);
        line.id = id;
        line.path = (!self.path.is_empty()).then_some(self.path.as_str());
        (line.watch, line.ephemeral, line.sequential) =
            (self.watch, self.ephemeral, self.sequential);
        line.expected = self.expected;
        line.rel = self.rel;
        if matches!(self.kind, Kind::Set | Kind::Create | Kind::Multi) {
            line.value = id;
        }
        line.parts = self
            .parts
            .iter()
            .map(|part| PartLine {
                kind: part.kind,
                path: &part.path,
                expected: part.expected,
                version: part.version,
            })
            .collect();
        line
    }
}

impl Told {
    /// Adds what was told.
    pub(super) fn fill<'a>(&'a self, line: &mut OpLine<'a>, code: i32) {
        let code = if code == 0 { self.code } else { code };
        line.outcome = if code == 0 {
            Outcome::Ok
        } else {
            Outcome::Failed(code)
        };
        if let Some(stat) = &self.stat {
            line.version = stat.version;
            (line.czxid, line.mzxid) = (stat.czxid, stat.mzxid);
            line.owner = stat.ephemeral_owner;
        }
        if line.kind == Kind::Children {
            line.pzxid = self.stat.map_or(Zxid::ZERO, |stat| stat.pzxid);
            line.kids = self.kids.as_deref();
        }
        if line.kind == Kind::Get {
            line.value = self.value;
        }
        if line.sequential {
            line.made = self.made.as_deref();
        }
        for (part, version) in line.parts.iter_mut().zip(&self.versions) {
            part.version = *version;
        }
    }

    /// The version that a znode of this kind of request has now.
    pub(super) fn version(&self) -> Option<i32> {
        self.stat.map(|stat| stat.version)
    }
}

/// The data that say which operation wrote them.
pub(super) fn data(id: u32) -> Bytes {
    let mut text = id.to_string().into_bytes();
    text.resize(DATA_LENGTH, b'.');
    Bytes::from(text)
}

/// The operation that wrote these data; 0 if it was none of ours.
pub(super) fn value(data: Option<&[u8]>) -> u32 {
    let data = data.unwrap_or_default();
    let digits = data.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&data[..digits])
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

/// A Stat in a line of the end state.
pub(super) fn owner(stat: &Stat) -> (SessionId, Zxid, Zxid) {
    (stat.ephemeral_owner, stat.czxid, stat.mzxid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_the_way_through_a_znode() {
        for id in [1, 77, u32::MAX] {
            assert_eq!(value(Some(&data(id))), id);
        }
        assert_eq!(
            (value(None), value(Some(b"hello")), value(Some(b""))),
            (0, 0, 0)
        );
    }

    #[test]
    fn a_refused_multi_tells_the_code_that_stopped_it() {
        let ask = Ask::new(Kind::Multi, "");
        let mut bytes = Vec::new();
        let mut out = Writer::new(&mut bytes);
        for code in [0, -103, -2] {
            MultiHeader {
                kind: -1,
                done: false,
                err: code,
            }
            .encode(&mut out);
            out.int(code);
        }
        MultiHeader::END.encode(&mut out);
        let told = ask.told(&mut Reader::new(&bytes)).unwrap();
        assert_eq!(told.code, -103);
    }
}

//! One line of a history, written and read by the same file so that the two cannot differ.

use std::fmt::Write;

use zkd::ids::{SessionId, Zxid};

use super::quick;
use super::text::{Fields, Malformed, Value, objects};
use super::{Happened, Kind, Outcome};

/// A line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// An operation and its outcome.
    Op(OpLine<'a>),
    /// A watch event.
    Event(EventLine<'a>),
    /// A session got a connection.
    Open(MarkLine<'a>),
    /// The connection ended.
    Lost(MarkLine<'a>),
    /// The client was told that its session is over.
    Expired(MarkLine<'a>),
    /// A znode when all was over.
    Final(FinalLine<'a>),
    /// Every znode has been told of.
    End {
        /// The state of the last read.
        zxid: Zxid,
        /// When.
        at: u64,
    },
}

/// An operation; the fields are those of [`super::Op`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "documented at Op")]
pub struct OpLine<'a> {
    pub id: u32,
    pub client: u32,
    pub session: SessionId,
    pub conn: u32,
    pub xid: i32,
    pub kind: Kind,
    pub outcome: Outcome,
    pub watch: bool,
    pub ephemeral: bool,
    pub sequential: bool,
    pub t0: u64,
    pub t1: u64,
    pub pos: u32,
    pub zxid: Zxid,
    pub path: Option<&'a str>,
    pub made: Option<&'a str>,
    pub expected: i32,
    pub version: i32,
    pub value: u32,
    pub czxid: Zxid,
    pub mzxid: Zxid,
    pub pzxid: Zxid,
    pub rel: Zxid,
    pub owner: SessionId,
    pub parts: Vec<PartLine<'a>>,
    /// The names of children, with commas.
    pub kids: Option<&'a str>,
}

impl OpLine<'_> {
    /// An operation of which nothing is known but what it asks.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        Self {
            id: 0,
            client: 0,
            session: SessionId::NONE,
            conn: 0,
            xid: 0,
            kind,
            outcome: Outcome::Unknown,
            watch: false,
            ephemeral: false,
            sequential: false,
            t0: 0,
            t1: u64::MAX,
            pos: 0,
            zxid: Zxid::ZERO,
            path: None,
            made: None,
            expected: -1,
            version: -1,
            value: 0,
            czxid: Zxid::ZERO,
            mzxid: Zxid::ZERO,
            pzxid: Zxid::ZERO,
            rel: Zxid::ZERO,
            owner: SessionId::NONE,
            parts: Vec::new(),
            kids: None,
        }
    }
}

/// One operation of a multi; the fields are those of [`super::Part`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "documented at Part")]
pub struct PartLine<'a> {
    pub kind: Kind,
    pub path: &'a str,
    pub expected: i32,
    pub version: i32,
}

/// A watch event; the fields are those of [`super::Event`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "documented at Event")]
pub struct EventLine<'a> {
    pub client: u32,
    pub session: SessionId,
    pub conn: u32,
    pub pos: u32,
    pub at: u64,
    pub what: Happened,
    pub path: &'a str,
    pub zxid: Zxid,
}

/// Something that happened to a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkLine<'a> {
    /// The client.
    pub client: u32,
    /// Its session.
    pub session: SessionId,
    /// The connection; 0 if none is meant.
    pub conn: u32,
    /// When.
    pub at: u64,
    /// The server's address; empty if none is meant.
    pub node: &'a str,
}

/// A znode when all was over; the fields are those of [`super::Final`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "documented at Final")]
pub struct FinalLine<'a> {
    pub path: &'a str,
    pub value: u32,
    pub version: i32,
    pub czxid: Zxid,
    pub mzxid: Zxid,
    pub owner: SessionId,
    pub zxid: Zxid,
}

impl Happened {
    const ALL: [Self; 4] = [Self::Created, Self::Deleted, Self::Changed, Self::Children];

    /// Its word in the file.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Deleted => "deleted",
            Self::Changed => "changed",
            Self::Children => "children",
        }
    }

    /// The event of a number on the wire.
    #[must_use]
    pub fn of_code(code: i32) -> Option<Self> {
        let index = usize::try_from(code.checked_sub(1)?).ok()?;
        Self::ALL.get(index).copied()
    }
}

/// Writes the fields of one object.
struct Object<'o> {
    out: &'o mut String,
}

impl<'o> Object<'o> {
    fn new(out: &'o mut String, kind: &str) -> Self {
        let _ = write!(out, "{{\"k\":\"{kind}\"");
        Self { out }
    }

    fn text(&mut self, key: &str, text: &str) {
        let _ = write!(self.out, ",\"{key}\":\"{text}\"");
    }

    fn number(&mut self, key: &str, number: impl std::fmt::Display) {
        let _ = write!(self.out, ",\"{key}\":{number}");
    }

    fn hex(&mut self, key: &str, number: i64) {
        let _ = write!(self.out, ",\"{key}\":\"{number:#x}\"");
    }

    /// Left out where it says nothing.
    fn zxid(&mut self, key: &str, zxid: Zxid) {
        if zxid != Zxid::ZERO {
            self.hex(key, zxid.0);
        }
    }

    fn end(self) {
        self.out.push_str("}\n");
    }
}

impl<'a> Line<'a> {
    /// Appends the line with its end.
    pub fn encode(&self, out: &mut String) {
        match self {
            Self::Op(op) => op.encode(out),
            Self::Event(event) => {
                let mut object = Object::new(out, "event");
                object.number("c", event.client);
                object.hex("s", event.session.0);
                object.number("conn", event.conn);
                object.number("pos", event.pos);
                object.number("at", event.at);
                object.text("ev", event.what.word());
                object.text("path", event.path);
                object.zxid("z", event.zxid);
                object.end();
            }
            Self::Open(mark) => mark.encode(out, "open"),
            Self::Lost(mark) => mark.encode(out, "lost"),
            Self::Expired(mark) => mark.encode(out, "expired"),
            Self::Final(line) => {
                let mut object = Object::new(out, "final");
                object.text("path", line.path);
                object.number("val", line.value);
                object.number("ver", line.version);
                object.zxid("cz", line.czxid);
                object.zxid("mz", line.mzxid);
                if line.owner != SessionId::NONE {
                    object.hex("owner", line.owner.0);
                }
                object.zxid("z", line.zxid);
                object.end();
            }
            Self::End { zxid, at } => {
                let mut object = Object::new(out, "end");
                object.zxid("z", *zxid);
                object.number("at", at);
                object.end();
            }
        }
    }

    /// Reads a line; `None` for a kind of a later version.
    ///
    /// # Errors
    /// If it is not of the format.
    pub fn decode(line: &'a [u8]) -> Result<Option<Self>, Malformed> {
        match quick::op(line) {
            Some((op, [])) => Ok(Some(Self::Op(op))),
            _ => Self::decode_slowly(line),
        }
    }

    /// Reads the first of these lines, as [`Self::decode`], and says what comes behind it.
    pub(super) fn decode_first(lines: &'a [u8]) -> (Result<Option<Self>, Malformed>, &'a [u8]) {
        if let Some((op, rest)) = quick::op(lines) {
            return (Ok(Some(Self::Op(op))), rest);
        }
        let end = lines.iter().position(|byte| *byte == b'\n');
        let (line, rest) = lines.split_at(end.map_or(lines.len(), |end| end + 1));
        (Self::decode_slowly(line), rest)
    }

    /// The same with the general reader, which takes fields in any order.
    pub(super) fn decode_slowly(line: &'a [u8]) -> Result<Option<Self>, Malformed> {
        let mut fields = Fields::of(line)?;
        let kind = match fields.next()? {
            Some(("k", kind)) => kind.text()?,
            _ => return Err(Malformed::new("a line does not begin with its \"k\"")),
        };
        Ok(Some(match kind {
            "op" => Self::Op(OpLine::decode(fields)?),
            "event" => Self::Event(EventLine::decode(fields)?),
            "open" => Self::Open(MarkLine::decode(fields)?),
            "lost" => Self::Lost(MarkLine::decode(fields)?),
            "expired" => Self::Expired(MarkLine::decode(fields)?),
            "final" => Self::Final(FinalLine::decode(fields)?),
            "end" => {
                let (mut zxid, mut at) = (Zxid::ZERO, 0);
                while let Some((key, value)) = fields.next()? {
                    match key {
                        "z" => zxid = Zxid(value.hex()?),
                        "at" => at = value.number()?,
                        _ => {}
                    }
                }
                Self::End { zxid, at }
            }
            _ => return Ok(None),
        }))
    }
}

impl<'a> OpLine<'a> {
    fn encode(&self, out: &mut String) {
        let mut object = Object::new(out, "op");
        object.number("id", self.id);
        object.number("c", self.client);
        object.hex("s", self.session.0);
        object.number("conn", self.conn);
        object.number("xid", self.xid);
        object.text("op", self.kind.word());
        for (key, path) in [("path", self.path), ("made", self.made)] {
            if let Some(path) = path {
                object.text(key, path);
            }
        }
        for (key, said) in [
            ("watch", self.watch),
            ("eph", self.ephemeral),
            ("seq", self.sequential),
        ] {
            if said {
                object.number(key, true);
            }
        }
        if self.expected != -1 {
            object.number("exp", self.expected);
        }
        if self.value != 0 {
            object.number("val", self.value);
        }
        object.number("t0", self.t0);
        match self.outcome {
            Outcome::Unknown => object.text("out", "unknown"),
            Outcome::Ok => object.text("out", "ok"),
            Outcome::Failed(code) => {
                object.text("out", "failed");
                object.number("code", code);
            }
        }
        if self.outcome != Outcome::Unknown {
            object.number("t1", self.t1);
            object.number("pos", self.pos);
            object.zxid("z", self.zxid);
        }
        if self.version != -1 {
            object.number("ver", self.version);
        }
        object.zxid("cz", self.czxid);
        object.zxid("mz", self.mzxid);
        object.zxid("pz", self.pzxid);
        object.zxid("rel", self.rel);
        if self.owner != SessionId::NONE {
            object.hex("owner", self.owner.0);
        }
        if let Some(kids) = self.kids {
            object.text("kids", kids);
        }
        self.encode_parts(&mut object);
        object.end();
    }

    fn encode_parts(&self, object: &mut Object<'_>) {
        if self.parts.is_empty() {
            return;
        }
        object.out.push_str(",\"parts\":[");
        for (index, part) in self.parts.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            let (word, path) = (part.kind.word(), part.path);
            let _ = write!(object.out, "{comma}{{\"op\":\"{word}\",\"path\":\"{path}\"");
            if part.expected != -1 {
                object.number("exp", part.expected);
            }
            if part.version != -1 {
                object.number("ver", part.version);
            }
            object.out.push('}');
        }
        object.out.push(']');
    }

    fn decode(mut fields: Fields<'a>) -> Result<Self, Malformed> {
        let mut op = Self::new(Kind::Sync);
        let (mut outcome, mut code) = ("", 0);
        while let Some((key, value)) = fields.next()? {
            match key {
                "id" => op.id = value.number()?,
                "c" => op.client = value.number()?,
                "s" => op.session = SessionId(value.hex()?),
                "conn" => op.conn = value.number()?,
                "xid" => op.xid = value.number()?,
                "op" => op.kind = kind(value)?,
                "path" => op.path = Some(value.text()?),
                "made" => op.made = Some(value.text()?),
                "watch" => op.watch = value.truth()?,
                "eph" => op.ephemeral = value.truth()?,
                "seq" => op.sequential = value.truth()?,
                "exp" => op.expected = value.number()?,
                "val" => op.value = value.number()?,
                "t0" => op.t0 = value.number()?,
                "t1" => op.t1 = value.number()?,
                "pos" => op.pos = value.number()?,
                "out" => outcome = value.text()?,
                "code" => code = value.number()?,
                "z" => op.zxid = Zxid(value.hex()?),
                "ver" => op.version = value.number()?,
                "cz" => op.czxid = Zxid(value.hex()?),
                "mz" => op.mzxid = Zxid(value.hex()?),
                "pz" => op.pzxid = Zxid(value.hex()?),
                "rel" => op.rel = Zxid(value.hex()?),
                "kids" => op.kids = Some(value.text()?),
                "owner" => op.owner = SessionId(value.hex()?),
                "parts" => op.parts = PartLine::all(value)?,
                _ => {}
            }
        }
        op.outcome = match outcome {
            "ok" => Outcome::Ok,
            "failed" => Outcome::Failed(code),
            "unknown" => Outcome::Unknown,
            other => return Err(Malformed::new(format!("{other:?} is not an outcome"))),
        };
        if needs_path(op.kind) && op.path.is_none() {
            return Err(Malformed::new(format!(
                "a {} without a path",
                op.kind.word()
            )));
        }
        Ok(op)
    }
}

/// Does an operation of this kind name a znode?
pub(super) fn needs_path(kind: Kind) -> bool {
    !matches!(kind, Kind::Multi | Kind::Sync | Kind::Close | Kind::Rewatch)
}

fn kind(value: Value<'_>) -> Result<Kind, Malformed> {
    let word = value.text()?;
    Kind::of_word(word).ok_or_else(|| Malformed::new(format!("{word:?} is not an operation")))
}

impl<'a> PartLine<'a> {
    fn all(value: Value<'a>) -> Result<Vec<Self>, Malformed> {
        let Value::Nested(array) = value else {
            return Err(Malformed::new("parts are not an array"));
        };
        objects(array)?
            .into_iter()
            .map(|mut fields| {
                let mut part = Self {
                    kind: Kind::Check,
                    path: "",
                    expected: -1,
                    version: -1,
                };
                while let Some((key, value)) = fields.next()? {
                    match key {
                        "op" => part.kind = kind(value)?,
                        "path" => part.path = value.text()?,
                        "exp" => part.expected = value.number()?,
                        "ver" => part.version = value.number()?,
                        _ => {}
                    }
                }
                Ok(part)
            })
            .collect()
    }
}

impl<'a> EventLine<'a> {
    fn decode(mut fields: Fields<'a>) -> Result<Self, Malformed> {
        let mut event = Self {
            client: 0,
            session: SessionId::NONE,
            conn: 0,
            pos: 0,
            at: 0,
            what: Happened::Changed,
            path: "",
            zxid: Zxid::NONE,
        };
        while let Some((key, value)) = fields.next()? {
            match key {
                "c" => event.client = value.number()?,
                "s" => event.session = SessionId(value.hex()?),
                "conn" => event.conn = value.number()?,
                "pos" => event.pos = value.number()?,
                "at" => event.at = value.number()?,
                "path" => event.path = value.text()?,
                "z" => event.zxid = Zxid(value.hex()?),
                "ev" => {
                    let word = value.text()?;
                    event.what = Happened::ALL
                        .into_iter()
                        .find(|what| what.word() == word)
                        .ok_or_else(|| Malformed::new(format!("{word:?} is not an event")))?;
                }
                _ => {}
            }
        }
        Ok(event)
    }
}

impl<'a> MarkLine<'a> {
    fn encode(&self, out: &mut String, kind: &str) {
        let mut object = Object::new(out, kind);
        object.number("c", self.client);
        object.hex("s", self.session.0);
        if self.conn != 0 {
            object.number("conn", self.conn);
        }
        object.number("at", self.at);
        if !self.node.is_empty() {
            object.text("node", self.node);
        }
        object.end();
    }

    fn decode(mut fields: Fields<'a>) -> Result<Self, Malformed> {
        let mut mark = Self {
            client: 0,
            session: SessionId::NONE,
            conn: 0,
            at: 0,
            node: "",
        };
        while let Some((key, value)) = fields.next()? {
            match key {
                "c" => mark.client = value.number()?,
                "s" => mark.session = SessionId(value.hex()?),
                "conn" => mark.conn = value.number()?,
                "at" => mark.at = value.number()?,
                "node" => mark.node = value.text()?,
                _ => {}
            }
        }
        Ok(mark)
    }
}

impl<'a> FinalLine<'a> {
    fn decode(mut fields: Fields<'a>) -> Result<Self, Malformed> {
        let mut line = Self {
            path: "",
            value: 0,
            version: -1,
            czxid: Zxid::ZERO,
            mzxid: Zxid::ZERO,
            owner: SessionId::NONE,
            zxid: Zxid::ZERO,
        };
        while let Some((key, value)) = fields.next()? {
            match key {
                "path" => line.path = value.text()?,
                "val" => line.value = value.number()?,
                "ver" => line.version = value.number()?,
                "cz" => line.czxid = Zxid(value.hex()?),
                "mz" => line.mzxid = Zxid(value.hex()?),
                "owner" => line.owner = SessionId(value.hex()?),
                "z" => line.zxid = Zxid(value.hex()?),
                _ => {}
            }
        }
        Ok(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines of operations with every field that there is.
    fn ops() -> [Line<'static>; 4] {
        let mut op = OpLine::new(Kind::Multi);
        op.id = 7;
        op.session = SessionId(-3);
        op.outcome = Outcome::Failed(-101);
        (op.t0, op.t1, op.pos) = (5, 9, 2);
        op.zxid = Zxid(0x1_0000_0002);
        op.parts = vec![
            PartLine {
                kind: Kind::Set,
                path: "/a",
                expected: -1,
                version: 4,
            },
            PartLine {
                kind: Kind::Check,
                path: "/b",
                expected: 3,
                version: -1,
            },
        ];
        let mut create = OpLine::new(Kind::Create);
        create.id = 8;
        (create.path, create.made) = (Some("/s/q-"), Some("/s/q-0000000003"));
        (create.sequential, create.ephemeral, create.watch) = (true, true, true);
        create.value = 8;
        let mut children = OpLine::new(Kind::Children);
        children.id = 9;
        (children.path, children.kids) = (Some("/n"), Some("0,3"));
        children.pzxid = Zxid(7);
        let mut again = OpLine::new(Kind::Rewatch);
        (again.id, again.rel) = (10, Zxid(6));
        again.parts = vec![PartLine {
            kind: Kind::Recursive,
            path: "/e",
            expected: -1,
            version: -1,
        }];
        [op, create, children, again].map(Line::Op)
    }

    #[test]
    fn every_line_is_json_and_comes_back() {
        let mark = MarkLine {
            client: 1,
            session: SessionId(5),
            conn: 2,
            at: 77,
            node: "127.0.0.1:2181",
        };
        let event = EventLine {
            client: 1,
            session: SessionId(5),
            conn: 2,
            pos: 9,
            at: 80,
            what: Happened::Deleted,
            path: "/a",
            zxid: Zxid::NONE,
        };
        let last = FinalLine {
            path: "/a",
            value: 7,
            version: 2,
            czxid: Zxid(3),
            mzxid: Zxid(4),
            owner: SessionId(5),
            zxid: Zxid(9),
        };
        let others = [
            Line::Open(mark.clone()),
            Line::Lost(mark.clone()),
            Line::Expired(mark),
            Line::Event(event),
            Line::Final(last),
            Line::End {
                zxid: Zxid(9),
                at: 3,
            },
        ];
        for line in ops().into_iter().chain(others) {
            let mut text = String::new();
            line.encode(&mut text);
            assert!(text.ends_with('\n'));
            serde_json::from_str::<serde_json::Value>(&text).unwrap();
            assert_eq!(Line::decode(text.as_bytes()).unwrap(), Some(line));
        }
    }

    #[test]
    fn later_kinds_and_fields_are_passed_over() {
        assert_eq!(Line::decode(br#"{"k":"weather","of":"today"}"#), Ok(None));
        let text = br#"{"k":"end","z":"0x5","at":1,"mood":{"good":[1,2]}}"#;
        assert_eq!(
            Line::decode(text),
            Ok(Some(Line::End {
                zxid: Zxid(5),
                at: 1
            }))
        );
        for wrong in [
            &br#"{"k":"op","op":"get","out":"ok"}"#[..],
            br#"{"k":"op","op":"fly","path":"/","out":"ok"}"#,
            br#"{"k":"op","op":"get","path":"/","out":"maybe"}"#,
            br#"{"op":"get"}"#,
        ] {
            assert!(Line::decode(wrong).is_err());
        }
    }
}

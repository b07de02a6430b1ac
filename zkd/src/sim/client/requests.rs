//! What a client asks for.

use bytes::Bytes;

use super::{Client, Pending};
use crate::ids::Xid;
use crate::jute::{Record, Writer};
use crate::record::data::Acl;
use crate::record::opcode::OpCode;
use crate::record::proto::{
    AddWatchRequest, CreateRequest, MultiHeader, PathVersionRequest, PathWatchRequest,
    RequestHeader, SetDataRequest, SetWatches2, xid,
};

/// Shared nodes that everybody reads and writes.
const SHARED: [&str; 4] = ["/k0", "/k1", "/k2", "/k3"];
/// Parent of sequential nodes.
const SEQUENTIAL: &str = "/s";
/// Two nodes that are only ever written together.
pub(super) const PAIR: [&str; 2] = ["/pa", "/pb"];

impl Client {
    /// A heartbeat.
    pub(in crate::sim) fn ping(&self) -> Vec<u8> {
        let header = RequestHeader {
            xid: xid::PING,
            kind: OpCode::Ping.code(),
        };
        frame(|out| header.encode(out))
    }

    /// Ends the session.
    pub(in crate::sim) fn close_session(&mut self) -> Vec<u8> {
        self.request(OpCode::CloseSession, "", false, |_| ())
    }

    /// Registers the watches of the connection before this one.
    pub(super) fn set_watches(&mut self, request: &SetWatches2) -> Vec<u8> {
        self.numbered(xid::SET_WATCHES, OpCode::SetWatches2, "", false, |out| {
            request.encode(out);
        })
    }

    /// The next requests, if the client feels like some.
    pub(in crate::sim) fn work(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.attached && self.pending.len() < self.depth && !self.prng.one_in(self.pause) {
            bytes.extend(self.next_request());
        }
        bytes
    }

    /// Some writes, whatever else is under way.
    pub(in crate::sim) fn burst(&mut self) -> Vec<u8> {
        let count = self.prng.between(1, 5);
        (0..count)
            .flat_map(|_| {
                let path = (*self.prng.pick(&SHARED)).to_owned();
                self.set(&path)
            })
            .collect()
    }

    fn next_request(&mut self) -> Vec<u8> {
        let shared = (*self.prng.pick(&SHARED)).to_owned();
        let watch = self.prng.one_in(2);
        match self.prng.below(26) {
            0..=4 => self.set(&shared),
            5..=8 => self.read(OpCode::GetData, &shared, watch),
            9 | 10 => self.read(OpCode::Exists, &shared, watch),
            11 => self.create(&shared, 0),
            12 => self.delete(&shared),
            13 | 14 => self.create(&format!("{SEQUENTIAL}/n-"), 2),
            15 => {
                self.names += 1;
                self.create(&format!("/e{}-{}", self.number, self.names), 1)
            }
            16 => self.visit_ephemeral(),
            17 => self.create(SEQUENTIAL, 0),
            18 | 19 => self.request(OpCode::Sync, &shared, false, |out| out.string(&shared)),
            20 => self.write_pair(),
            21 => self.read_pair(),
            22 | 23 => self.read(OpCode::GetChildren2, SEQUENTIAL, watch),
            24 => self.add_watch(&shared, false),
            _ => self.add_watch(SEQUENTIAL, true),
        }
    }

    /// Looks for an ephemeral of its own, or deletes it.
    fn visit_ephemeral(&mut self) -> Vec<u8> {
        let mine: Vec<_> = self.ephemerals.iter().cloned().collect();
        if mine.is_empty() {
            return self.read(OpCode::Exists, SEQUENTIAL, false);
        }
        let path = self.prng.pick(&mine).clone();
        if self.prng.one_in(3) {
            self.ephemerals.remove(&path);
            self.delete(&path)
        } else {
            self.read(OpCode::Exists, &path, false)
        }
    }

    /// A request with the next number.
    pub(super) fn request(
        &mut self,
        op: OpCode,
        path: &str,
        watch: bool,
        body: impl FnOnce(&mut Writer<'_>),
    ) -> Vec<u8> {
        let number = Xid(self.next_xid);
        self.next_xid += 1;
        self.numbered(number, op, path, watch, body)
    }

    fn numbered(
        &mut self,
        xid: Xid,
        op: OpCode,
        path: &str,
        watch: bool,
        body: impl FnOnce(&mut Writer<'_>),
    ) -> Vec<u8> {
        self.pending.push_back(Pending {
            xid,
            op,
            path: path.to_owned(),
            watch,
            floor: None,
        });
        frame(|out| {
            RequestHeader {
                xid,
                kind: op.code(),
            }
            .encode(out);
            body(out);
        })
    }

    fn read(&mut self, op: OpCode, path: &str, watch: bool) -> Vec<u8> {
        let record = PathWatchRequest {
            path: path.to_owned(),
            watch,
        };
        self.request(op, path, watch, |out| record.encode(out))
    }

    fn set(&mut self, path: &str) -> Vec<u8> {
        let record = SetDataRequest {
            path: path.to_owned(),
            data: Some(self.value()),
            version: -1,
        };
        self.request(OpCode::SetData, path, false, |out| record.encode(out))
    }

    fn delete(&mut self, path: &str) -> Vec<u8> {
        let record = PathVersionRequest {
            path: path.to_owned(),
            version: -1,
        };
        self.request(OpCode::Delete, path, false, |out| record.encode(out))
    }

    /// Creates a node: flags 0 persistent, 1 ephemeral, 2 sequential.
    pub(in crate::sim) fn create(&mut self, path: &str, flags: i32) -> Vec<u8> {
        let record = CreateRequest {
            path: path.to_owned(),
            data: Some(self.value()),
            acl: Some(Acl::open()),
            flags,
        };
        self.request(OpCode::Create, path, flags & 1 == 1, |out| {
            record.encode(out)
        })
    }

    fn add_watch(&mut self, path: &str, recursive: bool) -> Vec<u8> {
        let record = AddWatchRequest {
            path: path.to_owned(),
            mode: i32::from(recursive),
        };
        self.request(OpCode::AddWatch, path, recursive, |out| record.encode(out))
    }

    /// Sets both nodes of the pair to one value, or creates both.
    fn write_pair(&mut self) -> Vec<u8> {
        let op = if self.prng.one_in(4) {
            OpCode::Create
        } else {
            OpCode::SetData
        };
        let value = self.value();
        self.request(OpCode::Multi, PAIR[0], false, |out| {
            for path in PAIR {
                MultiHeader {
                    kind: op.code(),
                    done: false,
                    err: -1,
                }
                .encode(out);
                let (path, data) = (path.to_owned(), Some(value.clone()));
                if op == OpCode::Create {
                    CreateRequest {
                        path,
                        data,
                        acl: Some(Acl::open()),
                        flags: 0,
                    }
                    .encode(out);
                } else {
                    SetDataRequest {
                        path,
                        data,
                        version: -1,
                    }
                    .encode(out);
                }
            }
            MultiHeader::END.encode(out);
        })
    }

    fn read_pair(&mut self) -> Vec<u8> {
        self.request(OpCode::MultiRead, PAIR[0], false, |out| {
            for path in PAIR {
                MultiHeader {
                    kind: OpCode::GetData.code(),
                    done: false,
                    err: -1,
                }
                .encode(out);
                PathWatchRequest {
                    path: path.to_owned(),
                    watch: false,
                }
                .encode(out);
            }
            MultiHeader::END.encode(out);
        })
    }

    /// A value nobody else writes; now and then a large one.
    fn value(&mut self) -> Bytes {
        self.names += 1;
        let mut text = format!("{}-{}", self.number, self.names);
        if self.prng.one_in(20) {
            let width = usize::try_from(self.prng.between(500, 6_000)).expect("a few thousand");
            text = format!("{text:.<width$}");
        }
        text.into()
    }
}

/// A frame around a body.
pub(super) fn frame(body: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    body(&mut Writer::new(&mut bytes));
    let length = u32::try_from(bytes.len() - 4).expect("requests of the simulation are small");
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    bytes
}

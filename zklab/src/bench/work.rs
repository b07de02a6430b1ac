//! What the clients ask for, written straight into the bytes that leave.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use zkd::jute::{Record, Writer};
use zkd::prng::Prng;
use zkd::record::opcode::OpCode;
use zkd::record::proto::MultiHeader;

/// What the clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Work {
    /// Data and Stat of a key.
    Read,
    /// New data for a key.
    Write,
    /// A new znode each time.
    Create,
    /// Reads and writes in this proportion.
    Mix {
        /// Reads.
        reads: u32,
        /// To so many writes.
        writes: u32,
    },
    /// Several writes, all or none.
    Multi {
        /// How many.
        parts: u32,
    },
    /// The names of all keys.
    Children,
}

/// Makes one request after another.
#[derive(Debug)]
pub(super) struct Maker {
    work: Work,
    root: String,
    keys: u64,
    data: Vec<u8>,
    made: u64,
    chance: Prng,
    /// The path of the request that is being written.
    path: String,
}

impl Maker {
    /// `keys` keys below `root`, `size` bytes of data, choices from `seed`.
    pub(super) fn new(work: Work, root: &str, keys: u64, size: usize, seed: u64) -> Self {
        // Not all the same byte, and not compressible to nothing.
        let mut chance = Prng::new(seed);
        let data = (0..size).map(|_| b'a' + (chance.below(26) as u8)).collect();
        Self {
            work,
            root: root.to_owned(),
            keys,
            data,
            made: 0,
            chance,
            path: String::new(),
        }
    }

    /// Does this work need the keys to be there?
    pub(super) fn needs_keys(&self) -> bool {
        self.work != Work::Create
    }

    /// Writes the next request, from its opcode on.
    pub(super) fn put(&mut self, out: &mut Vec<u8>) {
        match self.work {
            Work::Read => self.put_read(out),
            Work::Write => self.put_write(out),
            Work::Create => {
                self.made += 1;
                self.put_create(self.made - 1, 'c', out);
            }
            Work::Mix { reads, writes } => {
                if self.chance.below(u64::from(reads + writes)) < u64::from(reads) {
                    self.put_read(out);
                } else {
                    self.put_write(out);
                }
            }
            Work::Multi { parts } => {
                let mut writer = Writer::new(out);
                writer.int(OpCode::Multi.code());
                for _ in 0..parts {
                    let header = MultiHeader {
                        kind: OpCode::SetData.code(),
                        done: false,
                        err: -1,
                    };
                    header.encode(&mut Writer::new(out));
                    self.some_key();
                    self.put_set(out);
                }
                MultiHeader::END.encode(&mut Writer::new(out));
            }
            Work::Children => {
                let mut writer = Writer::new(out);
                writer.int(OpCode::GetChildren.code());
                writer.string(&self.root);
                writer.bool(false);
            }
        }
    }

    /// Writes the request that makes a key, for [`Self::needs_keys`].
    pub(super) fn put_key(&mut self, number: u64, out: &mut Vec<u8>) {
        self.put_create(number, 'k', out);
    }

    /// Writes the request that makes a znode for others to stand below.
    pub(super) fn put_parent(&mut self, number: u64, out: &mut Vec<u8>) {
        self.put_create(number, 'p', out);
    }

    /// Writes the request that makes a znode below such a one.
    pub(super) fn put_leaf(&mut self, parent: u64, number: u64, out: &mut Vec<u8>) {
        self.name_leaf(parent, number);
        self.put_create_there(out);
    }

    /// Writes the request that reads one of those.
    pub(super) fn put_read_of(&mut self, parent: u64, number: u64, out: &mut Vec<u8>) {
        self.name_leaf(parent, number);
        self.put_read_there(out);
    }

    /// Writes the request that writes to one of those.
    pub(super) fn put_write_to(&mut self, parent: u64, number: u64, out: &mut Vec<u8>) {
        Writer::new(out).int(OpCode::SetData.code());
        self.name_leaf(parent, number);
        self.put_set(out);
    }

    /// Writes the request that makes the znode above all keys.
    pub(super) fn put_root(&self, out: &mut Vec<u8>) {
        let mut writer = Writer::new(out);
        writer.int(OpCode::Create.code());
        writer.string(&self.root);
        writer.buffer(Some(b""));
        open_to_all(&mut writer);
    }

    /// Writes a delete of a key or, without a number, of the znode above all.
    pub(super) fn put_delete(&mut self, key: Option<(u64, char)>, out: &mut Vec<u8>) {
        let mut writer = Writer::new(out);
        writer.int(OpCode::Delete.code());
        match key {
            Some((number, kind)) => {
                self.name(number, kind);
                writer.string(&self.path);
            }
            None => writer.string(&self.root),
        }
        writer.int(-1);
    }

    /// Writes a request whose answer says that everything made before can be seen.
    pub(super) fn put_sync(&self, out: &mut Vec<u8>) {
        let mut writer = Writer::new(out);
        writer.int(OpCode::Sync.code());
        writer.string(&self.root);
    }

    /// Keys that were made while it ran.
    pub(super) fn made(&self) -> u64 {
        self.made
    }

    /// Writes a read of the znode above all keys that leaves a watch.
    pub(super) fn put_watch(&self, out: &mut Vec<u8>) {
        let mut writer = Writer::new(out);
        writer.int(OpCode::GetData.code());
        writer.string(&self.root);
        writer.bool(true);
    }

    /// Writes new data for the znode above all keys.
    pub(super) fn put_news(&self, out: &mut Vec<u8>) {
        let mut writer = Writer::new(out);
        writer.int(OpCode::SetData.code());
        writer.string(&self.root);
        writer.buffer(Some(&self.data));
        writer.int(-1);
    }

    /// Writes the request that makes an ephemeral znode.
    pub(super) fn put_ephemeral(&mut self, number: u64, out: &mut Vec<u8>) {
        self.name(number, 'e');
        let mut writer = Writer::new(out);
        writer.int(OpCode::Create.code());
        writer.string(&self.path);
        writer.buffer(Some(&self.data));
        open_to_all_as(&mut writer, 1);
    }

    fn put_read(&mut self, out: &mut Vec<u8>) {
        self.some_key();
        self.put_read_there(out);
    }

    fn put_read_there(&self, out: &mut Vec<u8>) {
        let mut writer = Writer::new(out);
        writer.int(OpCode::GetData.code());
        writer.string(&self.path);
        writer.bool(false);
    }

    fn put_write(&mut self, out: &mut Vec<u8>) {
        Writer::new(out).int(OpCode::SetData.code());
        self.some_key();
        self.put_set(out);
    }

    /// Path, data, any version.
    fn put_set(&self, out: &mut Vec<u8>) {
        let mut writer = Writer::new(out);
        writer.string(&self.path);
        writer.buffer(Some(&self.data));
        writer.int(-1);
    }

    fn put_create(&mut self, number: u64, kind: char, out: &mut Vec<u8>) {
        self.name(number, kind);
        self.put_create_there(out);
    }

    fn put_create_there(&self, out: &mut Vec<u8>) {
        let mut writer = Writer::new(out);
        writer.int(OpCode::Create.code());
        writer.string(&self.path);
        writer.buffer(Some(&self.data));
        open_to_all(&mut writer);
    }

    fn some_key(&mut self) {
        let number = self.chance.below(self.keys);
        self.name(number, 'k');
    }

    fn name(&mut self, number: u64, kind: char) {
        self.path.clear();
        // Writing into a String cannot fail.
        let _ = write!(self.path, "{}/{kind}{number:07}", self.root);
    }

    fn name_leaf(&mut self, parent: u64, number: u64) {
        self.path.clear();
        let _ = write!(self.path, "{}/p{parent:07}/n{number:07}", self.root);
    }
}

/// ACL `world:anyone` with all permissions, and the flags of a persistent znode.
fn open_to_all(writer: &mut Writer<'_>) {
    open_to_all_as(writer, 0);
}

fn open_to_all_as(writer: &mut Writer<'_>, flags: i32) {
    writer.int(1);
    writer.int(31);
    writer.string("world");
    writer.string("anyone");
    writer.int(flags);
}

#[cfg(test)]
mod tests {
    use zkd::jute::Reader;
    use zkd::record::proto::{CreateRequest, PathWatchRequest, SetDataRequest};

    use super::*;

    fn one(work: Work) -> (i32, Vec<u8>) {
        let mut out = Vec::new();
        Maker::new(work, "/b", 10, 3, 1).put(&mut out);
        let mut reader = Reader::new(&out);
        let op = reader.int("op").unwrap();
        (op, out[4..].to_vec())
    }

    #[test]
    fn requests_are_what_the_server_reads() {
        let (op, body) = one(Work::Read);
        let read = PathWatchRequest::decode(&mut Reader::new(&body)).unwrap();
        assert!(op == 4 && read.path.starts_with("/b/k000000") && !read.watch);
        let (op, body) = one(Work::Write);
        let set = SetDataRequest::decode(&mut Reader::new(&body)).unwrap();
        assert!(op == 5 && set.version == -1 && set.data.unwrap().len() == 3);
        let (op, body) = one(Work::Create);
        let create = CreateRequest::decode(&mut Reader::new(&body)).unwrap();
        assert!(op == 1 && create.path == "/b/c0000000" && create.flags == 0);
        assert_eq!(create.acl.unwrap()[0].perms, 31);
    }

    #[test]
    fn a_multi_has_its_parts_and_its_end() {
        let (op, body) = one(Work::Multi { parts: 2 });
        assert_eq!(op, OpCode::Multi.code());
        let mut reader = Reader::new(&body);
        for _ in 0..2 {
            assert_eq!(MultiHeader::decode(&mut reader).unwrap().kind, 5);
            SetDataRequest::decode(&mut reader).unwrap();
        }
        assert_eq!(MultiHeader::decode(&mut reader).unwrap(), MultiHeader::END);
        assert!(reader.is_empty());
    }
}

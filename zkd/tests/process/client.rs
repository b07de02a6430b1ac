//! A client of a few operations, with nothing between the test and the bytes.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use bytes::Bytes;
use zkd::ids::{SessionId, Xid, Zxid};
use zkd::jute::{Reader, Record, Writer};
use zkd::record::data::{Acl, Id, Stat};
use zkd::record::opcode::OpCode;
use zkd::record::proto::{
    ConnectRequest, ConnectResponse, CreateRequest, PathWatchRequest, SetDataRequest,
};

use crate::harness::PATIENCE;

/// A connection with a session.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    pub(crate) session: SessionId,
    pub(crate) password: Bytes,
    pub(crate) timeout_ms: i32,
    next_xid: i32,
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) xid: i32,
    pub(crate) zxid: i64,
    pub(crate) err: i32,
    pub(crate) body: Bytes,
}

/// A connected stream that does not wait for ever.
pub(crate) fn dial(address: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Reads until the other side closes. A reset counts as closed.
pub(crate) fn read_to_close(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => bytes,
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => bytes,
        Err(error) => panic!("the server did not close the connection: {error}"),
    }
}

pub(crate) fn frame(body: &[u8]) -> Vec<u8> {
    let mut frame = i32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
    frame.extend_from_slice(body);
    frame
}

/// The first frame of a client that asks for a new session.
pub(crate) fn hello(timeout_ms: i32) -> Vec<u8> {
    let request = ConnectRequest {
        protocol_version: 0,
        last_zxid_seen: Zxid::ZERO,
        timeout_ms,
        session_id: SessionId::NONE,
        passwd: Some(Bytes::from_static(&[0; 16])),
        read_only: Some(false),
    };
    frame(&request.to_vec())
}

fn read_frame(stream: &mut TcpStream) -> io::Result<Bytes> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = usize::try_from(i32::from_be_bytes(length)).expect("a frame has a length");
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(body.into())
}

impl Client {
    pub(crate) fn connect(address: &str) -> io::Result<Self> {
        Self::connect_with(address, 30_000)
    }

    pub(crate) fn connect_with(address: &str, timeout_ms: i32) -> io::Result<Self> {
        Self::shake_hands(address, &hello(timeout_ms))
    }

    /// Comes back with the session of another connection.
    pub(crate) fn reattach(address: &str, other: &Self) -> io::Result<Self> {
        let request = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: Zxid::ZERO,
            timeout_ms: other.timeout_ms,
            session_id: other.session,
            passwd: Some(other.password.clone()),
            read_only: Some(false),
        };
        Self::shake_hands(address, &frame(&request.to_vec()))
    }

    fn shake_hands(address: &str, hello: &[u8]) -> io::Result<Self> {
        let mut stream = dial(address)?;
        stream.write_all(hello)?;
        let body = read_frame(&mut stream)?;
        let response = ConnectResponse::decode(&mut Reader::new(&body)).unwrap();
        Ok(Self {
            stream,
            session: response.session_id,
            password: response.passwd.unwrap_or_default(),
            timeout_ms: response.timeout_ms,
            next_xid: 1,
        })
    }

    /// Sends a request and does not wait.
    pub(crate) fn send(&mut self, op: OpCode, body: &[u8]) -> io::Result<i32> {
        let xid = self.next_xid;
        self.next_xid += 1;
        let mut request = Vec::new();
        let mut writer = Writer::new(&mut request);
        writer.int(Xid(xid).0);
        writer.int(op.code());
        request.extend_from_slice(body);
        self.stream.write_all(&frame(&request))?;
        Ok(xid)
    }

    /// The next answer.
    pub(crate) fn receive(&mut self) -> io::Result<Answer> {
        let body = read_frame(&mut self.stream)?;
        let mut reader = Reader::new(&body);
        Ok(Answer {
            xid: reader.int("xid").unwrap(),
            zxid: reader.long("zxid").unwrap(),
            err: reader.int("err").unwrap(),
            body: body.slice(16..),
        })
    }

    pub(crate) fn ask(&mut self, op: OpCode, body: &[u8]) -> io::Result<Answer> {
        let xid = self.send(op, body)?;
        let answer = self.receive()?;
        assert_eq!(answer.xid, xid, "answers come in the order of the requests");
        Ok(answer)
    }

    pub(crate) fn create(&mut self, path: &str, data: &[u8]) -> Answer {
        self.ask(OpCode::Create, &create_body(path, data, 0))
            .unwrap()
    }

    pub(crate) fn set(&mut self, path: &str, data: &[u8]) -> Answer {
        let body = SetDataRequest {
            path: path.to_owned(),
            data: Some(Bytes::copy_from_slice(data)),
            version: -1,
        };
        self.ask(OpCode::SetData, &body.to_vec()).unwrap()
    }

    /// The data and stat of a znode, if it is there.
    pub(crate) fn get(&mut self, path: &str) -> Option<(Vec<u8>, Stat)> {
        let body = PathWatchRequest {
            path: path.to_owned(),
            watch: false,
        };
        let answer = self.ask(OpCode::GetData, &body.to_vec()).unwrap();
        if answer.err != 0 {
            return None;
        }
        let mut reader = Reader::new(&answer.body);
        let data = reader.buffer("data").unwrap().unwrap_or_default();
        Some((data.to_vec(), Stat::decode(&mut reader).unwrap()))
    }

    pub(crate) fn children(&mut self, path: &str) -> Vec<String> {
        let body = PathWatchRequest {
            path: path.to_owned(),
            watch: false,
        };
        let answer = self.ask(OpCode::GetChildren, &body.to_vec()).unwrap();
        assert_eq!(answer.err, 0);
        let mut reader = Reader::new(&answer.body);
        let count = reader.int("count").unwrap();
        (0..count)
            .map(|_| reader.string("child").unwrap())
            .collect()
    }

    pub(crate) fn sync(&mut self, path: &str) {
        let mut body = Vec::new();
        Writer::new(&mut body).string(path);
        assert_eq!(self.ask(OpCode::Sync, &body).unwrap().err, 0);
    }
}

pub(crate) fn create_body(path: &str, data: &[u8], flags: i32) -> Vec<u8> {
    let world = Acl {
        perms: 31,
        id: Id {
            scheme: Some("world".to_owned()),
            id: Some("anyone".to_owned()),
        },
    };
    CreateRequest {
        path: path.to_owned(),
        data: Some(Bytes::copy_from_slice(data)),
        acl: Some(vec![world]),
        flags,
    }
    .to_vec()
}

//! A small ZooKeeper client of the lab's own: one request at a time, nothing behind one's back.
//!
//! The lab measures with it, so it must do exactly what it is told, when it is told: it never
//! reconnects, retries or pings by itself. The records are zkd's; everything else that speaks to the
//! ensemble goes through an independent client (`command::cli`).

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use zkd::error::ErrorCode;
use zkd::ids::{SessionId, Xid, Zxid};
use zkd::jute::{DecodeError, Reader, Record, Writer};
use zkd::record::data::{Acl, Id, Stat};
use zkd::record::opcode::OpCode;
use zkd::record::proto::{
    ChildrenStatResponse, ConnectRequest, ConnectResponse, CreateRequest, DataResponse,
    OptPathRequest, PathWatchRequest, ReplyHeader, RequestHeader, SetDataRequest,
};

/// A longer answer is not one of ours.
const FRAME_MAX: usize = 4 << 20;

/// Why a request has no good answer.
#[derive(Debug)]
pub enum SessionError {
    /// The connection broke; whether the server did it is unknown.
    Broken(io::Error),
    /// The server did not answer in time; whether it did it is unknown.
    Silent,
    /// The session is over.
    Expired,
    /// The server refused.
    Refused(i32),
    /// The answer is not ZooKeeper's.
    Garbled(DecodeError),
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(error) => write!(f, "the connection broke: {error}"),
            Self::Silent => f.write_str("the server did not answer in time"),
            Self::Expired => f.write_str("the session has expired"),
            Self::Refused(code) => match ErrorCode::from_code(*code) {
                Some(code) => write!(f, "the server refused: {code}"),
                None => write!(f, "the server refused with error {code}"),
            },
            Self::Garbled(error) => write!(f, "the answer is not ZooKeeper's: {error}"),
        }
    }
}

impl From<io::Error> for SessionError {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

impl From<DecodeError> for SessionError {
    fn from(error: DecodeError) -> Self {
        Self::Garbled(error)
    }
}

/// What is needed to attach to a session again.
#[derive(Clone, Debug)]
pub struct Ticket {
    /// The session.
    pub id: SessionId,
    password: Option<Bytes>,
    /// The newest state this client has seen.
    last_zxid: Zxid,
}

/// A session on one connection.
#[derive(Debug)]
pub struct Session {
    stream: TcpStream,
    ticket: Ticket,
    next_xid: i32,
    patience: Duration,
}

/// Connects and says the first word; the connection and the session the server gave.
///
/// # Errors
/// [`SessionError::Expired`] if there is no such session (any more), [`SessionError::Silent`] if it takes longer than
/// `patience`.
pub async fn greet(
    address: SocketAddr,
    request: &ConnectRequest,
    patience: Duration,
) -> Result<(TcpStream, ConnectResponse), SessionError> {
    let greeting = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        stream.write_all(&frame(|out| request.encode(out))).await?;
        let answer = read_frame(&mut stream).await?;
        let answer = ConnectResponse::decode(&mut Reader::new(&answer))?;
        if answer.session_id == SessionId::NONE || answer.timeout_ms <= 0 {
            return Err(SessionError::Expired);
        }
        Ok((stream, answer))
    };
    timeout(patience, greeting)
        .await
        .unwrap_or(Err(SessionError::Silent))
}

impl Session {
    /// Connects and opens a session, or attaches to one again. Every wait of this session, this one
    /// included, ends after `patience`.
    ///
    /// # Errors
    /// [`SessionError::Expired`] if the session to attach to is over.
    pub async fn open(
        address: SocketAddr,
        session_timeout: Duration,
        again: Option<&Ticket>,
        patience: Duration,
    ) -> Result<Self, SessionError> {
        let request = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: again.map_or(Zxid::ZERO, |ticket| ticket.last_zxid),
            timeout_ms: i32::try_from(session_timeout.as_millis()).unwrap_or(i32::MAX),
            session_id: again.map_or(SessionId::NONE, |ticket| ticket.id),
            passwd: again.map_or_else(
                || Some(Bytes::from_static(&[0; 16])),
                |ticket| ticket.password.clone(),
            ),
            read_only: Some(false),
        };
        let (stream, answer) = greet(address, &request, patience).await?;
        Ok(Self {
            stream,
            ticket: Ticket {
                id: answer.session_id,
                password: answer.passwd,
                last_zxid: request.last_zxid_seen,
            },
            next_xid: 1,
            patience,
        })
    }

    /// What is needed to attach to this session again.
    #[must_use]
    pub fn ticket(&self) -> Ticket {
        self.ticket.clone()
    }

    /// Creates an ephemeral znode that everybody may use; the zxid of the create.
    ///
    /// # Errors
    /// As the server answers.
    pub async fn create_ephemeral(
        &mut self,
        path: &str,
        data: &[u8],
    ) -> Result<Zxid, SessionError> {
        let request = CreateRequest {
            path: path.to_owned(),
            data: Some(Bytes::copy_from_slice(data)),
            acl: Some(vec![Acl {
                perms: 31,
                id: Id {
                    scheme: Some("world".to_owned()),
                    id: Some("anyone".to_owned()),
                },
            }]),
            flags: 1,
        };
        let (zxid, _) = self.call(OpCode::Create, |out| request.encode(out)).await?;
        Ok(zxid)
    }

    /// Replaces the data of a znode; the zxid of the change and the new Stat.
    ///
    /// # Errors
    /// As the server answers.
    pub async fn set(&mut self, path: &str, data: &[u8]) -> Result<(Zxid, Stat), SessionError> {
        let request = SetDataRequest {
            path: path.to_owned(),
            data: Some(Bytes::copy_from_slice(data)),
            version: -1,
        };
        let (zxid, body) = self
            .call(OpCode::SetData, |out| request.encode(out))
            .await?;
        Ok((zxid, Stat::decode(&mut Reader::new(&body))?))
    }

    /// Data and Stat of a znode as this server has it.
    ///
    /// # Errors
    /// As the server answers.
    pub async fn get(&mut self, path: &str) -> Result<DataResponse, SessionError> {
        let request = PathWatchRequest {
            path: path.to_owned(),
            watch: false,
        };
        let (_, body) = self
            .call(OpCode::GetData, |out| request.encode(out))
            .await?;
        Ok(DataResponse::decode(&mut Reader::new(&body))?)
    }

    /// As [`Self::get`], with the zxid of the state that the answer shows.
    ///
    /// # Errors
    /// As the server answers.
    pub async fn look(&mut self, path: &str) -> Result<(Zxid, DataResponse), SessionError> {
        let request = PathWatchRequest {
            path: path.to_owned(),
            watch: false,
        };
        let (zxid, body) = self
            .call(OpCode::GetData, |out| request.encode(out))
            .await?;
        Ok((zxid, DataResponse::decode(&mut Reader::new(&body))?))
    }

    /// The names of the children of a znode, and the zxid of the state that shows them.
    ///
    /// # Errors
    /// As the server answers.
    pub async fn children(&mut self, path: &str) -> Result<(Zxid, Vec<String>), SessionError> {
        let request = PathWatchRequest {
            path: path.to_owned(),
            watch: false,
        };
        let (zxid, body) = self
            .call(OpCode::GetChildren2, |out| request.encode(out))
            .await?;
        let answer = ChildrenStatResponse::decode(&mut Reader::new(&body))?;
        Ok((zxid, answer.children))
    }

    /// Waits until this server has everything the leader had committed.
    ///
    /// # Errors
    /// As the server answers.
    pub async fn sync(&mut self, path: &str) -> Result<(), SessionError> {
        let request = OptPathRequest {
            path: Some(path.to_owned()),
        };
        self.call(OpCode::Sync, |out| request.encode(out)).await?;
        Ok(())
    }

    /// Ends the session, and with it its ephemerals.
    ///
    /// # Errors
    /// As the server answers.
    pub async fn close(mut self) -> Result<(), SessionError> {
        self.call(OpCode::CloseSession, |_| ()).await.map(drop)
    }

    async fn call(
        &mut self,
        op: OpCode,
        body: impl FnOnce(&mut Writer<'_>),
    ) -> Result<(Zxid, Vec<u8>), SessionError> {
        let xid = Xid(self.next_xid);
        self.next_xid += 1;
        let header = RequestHeader {
            xid,
            kind: op.code(),
        };
        let request = frame(|out| {
            header.encode(out);
            body(out);
        });
        let talk = async {
            self.stream.write_all(&request).await?;
            loop {
                let answer = read_frame(&mut self.stream).await?;
                let mut reader = Reader::new(&answer);
                let header = ReplyHeader::decode(&mut reader)?;
                if header.xid != xid {
                    continue;
                }
                if header.zxid > Zxid::ZERO {
                    self.ticket.last_zxid = header.zxid;
                }
                return match header.err {
                    0 => Ok((header.zxid, reader.rest().to_vec())),
                    code if code == ErrorCode::SessionExpired.code() => Err(SessionError::Expired),
                    code => Err(SessionError::Refused(code)),
                };
            }
        };
        timeout(self.patience, talk)
            .await
            .unwrap_or(Err(SessionError::Silent))
    }
}

/// A frame: its length, then what `fill` writes.
pub(crate) fn frame(fill: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    fill(&mut Writer::new(&mut bytes));
    let length = u32::try_from(bytes.len() - 4).expect("the lab's requests are small");
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    bytes
}

/// A frame without its length. Not to be dropped half-way: what was read would be lost.
pub(crate) async fn read_frame(
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<Vec<u8>, SessionError> {
    let length = stream.read_i32().await?;
    let length = usize::try_from(length)
        .ok()
        .filter(|length| *length <= FRAME_MAX)
        .ok_or(DecodeError::Length {
            what: "frame",
            length,
        })?;
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

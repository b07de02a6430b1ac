//! The opening message: who dials, and where it can be dialled back.
//!
//! Counterpart: `QuorumCnxManager.InitialMessage`.

use std::fmt;
use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::config::delimited;
use crate::ids::ServerId;

/// One address.
const PROTOCOL_V1: i64 = -65536;
/// Any number of addresses.
const PROTOCOL_V2: i64 = -65535;
/// Longest list of addresses.
const ADDRESSES_LENGTH_MAX: i32 = 2048;
/// What an observer without an id sends (`Long.MAX_VALUE`).
pub(super) const ANONYMOUS: ServerId = ServerId(i64::MAX);
/// Hosts that say nothing about where a server is (ZOOKEEPER-2164).
const WILDCARDS: [&str; 3] = ["0.0.0.0", "::", "0:0:0:0:0:0:0:0"];

/// An opening message, as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Opening {
    pub(super) sid: ServerId,
    /// Host and port; empty from a peer of 3.4.
    pub(super) addresses: Vec<(String, u16)>,
}

/// Why an opening message is none.
#[derive(Debug)]
pub(super) enum OpeningError {
    /// The connection failed or ended inside it.
    Io(io::Error),
    /// Neither a server id nor a known protocol version.
    Protocol(i64),
    /// The list of addresses cannot be that long.
    Length(i32),
    /// An address is not `host:port`.
    Address(String),
}

impl fmt::Display for OpeningError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "it ended before it said who it is: {error}"),
            Self::Protocol(version) => write!(f, "unknown protocol version {version}"),
            Self::Length(length) => {
                write!(f, "its addresses have the unreasonable length {length}")
            }
            Self::Address(text) => write!(f, "{text:?} is not host:port"),
        }
    }
}

impl From<io::Error> for OpeningError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Opening {
    /// The message of this server.
    pub(super) fn encode(my_id: ServerId, addresses: &[(String, u16)]) -> Vec<u8> {
        let version = if addresses.len() > 1 {
            PROTOCOL_V2
        } else {
            PROTOCOL_V1
        };
        let texts: Vec<String> = addresses
            .iter()
            .map(|(host, port)| format!("{}:{port}", delimited(host)))
            .collect();
        let text = texts.join("|");
        let length = i32::try_from(text.len()).expect("addresses are far below 2 GiB");
        let mut bytes = Vec::with_capacity(20 + text.len());
        bytes.extend_from_slice(&version.to_be_bytes());
        bytes.extend_from_slice(&my_id.0.to_be_bytes());
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(text.as_bytes());
        bytes
    }

    /// Reads the message of a dialler: `None` if it closed without a byte (a port probe, or a peer
    /// that found itself connected already).
    pub(super) async fn read(
        stream: &mut (impl AsyncRead + Unpin),
    ) -> Result<Option<Self>, OpeningError> {
        let mut first = [0; 8];
        if stream.read(&mut first[..1]).await? == 0 {
            return Ok(None);
        }
        stream.read_exact(&mut first[1..]).await?;
        let protocol = i64::from_be_bytes(first);
        if protocol >= 0 {
            return Ok(Some(Self {
                sid: ServerId(protocol),
                addresses: Vec::new(),
            }));
        }
        if protocol != PROTOCOL_V1 && protocol != PROTOCOL_V2 {
            return Err(OpeningError::Protocol(protocol));
        }
        let sid = ServerId(stream.read_i64().await?);
        let length = stream.read_i32().await?;
        if !(1..=ADDRESSES_LENGTH_MAX).contains(&length) {
            return Err(OpeningError::Length(length));
        }
        let mut text = vec![0; usize::try_from(length).expect("checked above")];
        stream.read_exact(&mut text).await?;
        let text = String::from_utf8_lossy(&text);
        Ok(Some(Self {
            sid,
            addresses: parse_addresses(&text)?,
        }))
    }
}

/// Sends the message in one piece.
pub(super) async fn write(stream: &mut TcpStream, opening: &[u8]) -> io::Result<()> {
    stream.write_all(opening).await
}

fn parse_addresses(text: &str) -> Result<Vec<(String, u16)>, OpeningError> {
    let mut addresses = Vec::new();
    for part in text.split('|') {
        let bad = || OpeningError::Address(part.to_owned());
        let (host, port) = part.rsplit_once(':').ok_or_else(bad)?;
        let port = port.parse().map_err(|_| bad())?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(bad());
        }
        if !WILDCARDS.contains(&host) {
            addresses.push((host.to_owned(), port));
        }
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(host: &str, port: u16) -> (String, u16) {
        (host.to_owned(), port)
    }

    #[test]
    fn the_bytes_are_those_of_apache() {
        // A-393, stream 001: server 2.
        let mut expected = vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0];
        expected.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 15]);
        expected.extend_from_slice(b"127.0.0.1:21122");
        assert_eq!(
            Opening::encode(ServerId(2), &[address("127.0.0.1", 21122)]),
            expected
        );
        // E-393, stream 001: server 3 with two addresses.
        let both = [
            address("0:0:0:0:0:0:0:1", 21123),
            address("127.0.0.1", 21123),
        ];
        let bytes = Opening::encode(ServerId(3), &both);
        assert_eq!(bytes[..8], (-65535i64).to_be_bytes());
        assert_eq!(
            &bytes[20..],
            b"[0:0:0:0:0:0:0:1]:21123|127.0.0.1:21123".as_slice()
        );
        let text = String::from_utf8(bytes[20..].to_vec()).unwrap();
        assert_eq!(parse_addresses(&text).unwrap(), both);
    }

    #[test]
    fn wildcards_are_dropped_and_nonsense_is_refused() {
        assert_eq!(
            parse_addresses("0.0.0.0:1|h:2|[::]:3").unwrap(),
            [address("h", 2)]
        );
        for bad in ["", "h", "h:", "h:70000", ":1", "h:1|"] {
            assert!(parse_addresses(bad).is_err(), "{bad:?}");
        }
    }
}

//! Socket options, binding and connecting.

use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

/// Bytes sent and not acknowledged for this long mean that the other host is gone. TCP's own back-off after
/// a healed partition can stay silent for seconds; the redial is quicker.
const USER_TIMEOUT: Duration = Duration::from_secs(10);

/// Options of every quorum link: no Nagle delay, and a dead host is noticed.
///
/// # Errors
/// If the system refuses an option.
pub(super) fn tune(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_user_timeout(Some(USER_TIMEOUT))
}

/// Binds and listens, with address reuse (a restarted server must get its port back at once).
///
/// # Errors
/// If no address of `host` can be bound.
pub(super) async fn listen(host: &str, port: u16, backlog: i32) -> std::io::Result<TcpListener> {
    let mut last = std::io::Error::new(
        std::io::ErrorKind::NotFound,
        format!("{host} has no address"),
    );
    for address in tokio::net::lookup_host((host, port)).await? {
        match listen_on(address, backlog) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn listen_on(address: SocketAddr, backlog: i32) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    TcpListener::from_std(socket.into())
}

/// Connects to the first of the addresses that answers.
///
/// # Errors
/// The last address's error if none does.
pub(super) async fn connect_any(at: &[(String, u16)]) -> std::io::Result<(TcpStream, SocketAddr)> {
    let mut last = std::io::Error::from(std::io::ErrorKind::AddrNotAvailable);
    for (host, port) in at {
        let addresses = match tokio::net::lookup_host((host.as_str(), *port)).await {
            Ok(addresses) => addresses,
            Err(error) => {
                last = error;
                continue;
            }
        };
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok((stream, address)),
                Err(error) => last = error,
            }
        }
    }
    Err(last)
}

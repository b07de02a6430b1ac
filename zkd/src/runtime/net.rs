//! Socket options, binding and connecting.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::MissedTickBehavior;

/// Bytes sent on a quorum link and not acknowledged for this long mean that the other host is gone. TCP's own back-off
/// after a healed partition can stay silent for seconds; the redial is quicker.
pub(super) const USER_TIMEOUT: Duration = Duration::from_secs(10);
/// Who does not answer a connect is asked again after this time, and again. The system itself asks again after 1, 3 and
/// 7 seconds only, so a connect begun the moment before a partition heals would take a second.
const CONNECT_AGAIN: Duration = Duration::from_millis(200);
/// So many connects to one address are under way at most; the first is never given up, so a far host has all the time
/// it needs.
const CONNECTS_MAX: usize = 8;

/// Options of every connection between servers: no Nagle delay, a dead host is noticed after `silence`, and the few
/// bytes that are under way at a time are sent again at even intervals at first, not at doubled ones.
///
/// # Errors
/// If the system refuses an option.
pub(super) fn tune(stream: &TcpStream, silence: Duration) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_user_timeout(Some(silence))?;
    socket.set_tcp_thin_linear_timeouts(true)
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
            match patiently(|| TcpStream::connect(address)).await {
                Ok(stream) => return Ok((stream, address)),
                Err(error) => last = error,
            }
        }
    }
    Err(last)
}

/// Makes an attempt, and another one beside it whenever none has come to an end for a while. The first end counts, also
/// a bad one: then somebody has answered.
async fn patiently<T, A>(attempt: impl Fn() -> A) -> std::io::Result<T>
where
    T: Send + 'static,
    A: Future<Output = std::io::Result<T>> + Send + 'static,
{
    let mut attempts = JoinSet::new();
    attempts.spawn(attempt());
    let mut later: VecDeque<AbortHandle> = VecDeque::new();
    let mut again =
        tokio::time::interval_at(tokio::time::Instant::now() + CONNECT_AGAIN, CONNECT_AGAIN);
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            // One that was given up has no result.
            Some(ended) = attempts.join_next() => if let Ok(result) = ended {
                return result;
            },
            _ = again.tick() => {
                if later.len() + 1 == CONNECTS_MAX
                    && let Some(oldest) = later.pop_front()
                {
                    oldest.abort();
                }
                later.push_back(attempts.spawn(attempt()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind};
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Attempts of which only that of this number ends, and like this.
    async fn only(number: usize, end: fn() -> Result<(), ErrorKind>) -> Result<usize, ErrorKind> {
        let made = AtomicUsize::new(0);
        let attempt = || {
            let own = made.fetch_add(1, Ordering::Relaxed) + 1;
            async move {
                if own == number {
                    end().map(|()| own).map_err(Error::from)
                } else {
                    std::future::pending().await
                }
            }
        };
        patiently(attempt).await.map_err(|error| error.kind())
    }

    #[tokio::test]
    async fn an_attempt_that_hangs_does_not_hold_up_the_next() {
        assert_eq!(only(1, || Ok(())).await, Ok(1));
        assert_eq!(only(3, || Ok(())).await, Ok(3));
        let refused = only(2, || Err(ErrorKind::ConnectionRefused)).await;
        assert_eq!(refused, Err(ErrorKind::ConnectionRefused));
    }

    #[tokio::test]
    async fn the_first_attempt_has_all_the_time_it_needs() {
        let made = AtomicUsize::new(0);
        let (tell, told) = tokio::sync::watch::channel(0);
        let attempt = || {
            let own = made.fetch_add(1, Ordering::Relaxed) + 1;
            let mut told = told.clone();
            let _ = tell.send(own);
            async move {
                if own > 1 {
                    return std::future::pending().await;
                }
                // By then others were given up for new ones.
                let enough = told.wait_for(|count| *count > CONNECTS_MAX + 1).await;
                enough.map(|_| own).map_err(Error::other)
            }
        };
        assert_eq!(patiently(attempt).await.unwrap(), 1);
    }
}

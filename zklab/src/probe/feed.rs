//! zkd's event feed: JSON lines on a pipe.

use std::fs::File;
use std::io::{ErrorKind, Read};

use tokio::net::unix::pipe;
use zkd::event::FeedLine;

/// A longer line is no event; it is passed over.
const LINE_MAX: usize = 1 << 16;

/// Reads the feed of one server.
#[derive(Debug)]
pub struct Feed {
    pipe: pipe::Receiver,
    lines: LineBuffer,
}

impl Feed {
    /// Reads from the pipe.
    #[must_use]
    pub fn new(pipe: pipe::Receiver) -> Self {
        Self {
            pipe,
            lines: LineBuffer::default(),
        }
    }

    /// The next event; `None` when the server closed the feed. A line this version does not know (a
    /// newer server may say more) is passed over. Nothing is lost if the caller stops waiting.
    pub async fn next(&mut self) -> Option<FeedLine> {
        let mut piece = [0; 4096];
        loop {
            if let Some(line) = self.lines.next() {
                return Some(line);
            }
            self.pipe.readable().await.ok()?;
            match self.pipe.try_read(&mut piece) {
                Ok(0) => return None,
                Ok(count) => self.lines.push(&piece[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return None,
            }
        }
    }

    /// What a server has said that is dead now; nobody listens to the feed any more. All of it is in the
    /// pipe, so nothing is waited for: others may have the pipe open too and would never close it.
    #[must_use]
    pub fn rest(self) -> Vec<FeedLine> {
        let mut lines = self.lines;
        // The kernel is asked itself: the runtime may not know yet that there is something to read.
        if let Ok(pipe) = self.pipe.into_nonblocking_fd() {
            let mut pipe = File::from(pipe);
            let mut piece = [0; 4096];
            while let Ok(count @ 1..) = pipe.read(&mut piece) {
                lines.push(&piece[..count]);
            }
        }
        lines.collect()
    }
}

/// Bytes of the feed, given out as events.
#[derive(Debug, Default)]
struct LineBuffer {
    bytes: Vec<u8>,
    /// Those before are given out, or looked through for an end of line.
    taken: usize,
}

impl LineBuffer {
    fn push(&mut self, piece: &[u8]) {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        if self.bytes.len() > LINE_MAX {
            tracing::warn!("a line of the event feed has no end");
            self.bytes.clear();
        }
        self.bytes.extend_from_slice(piece);
    }
}

impl Iterator for LineBuffer {
    type Item = FeedLine;

    fn next(&mut self) -> Option<FeedLine> {
        loop {
            let rest = &self.bytes[self.taken..];
            let length = rest.iter().position(|byte| *byte == b'\n')?;
            let line = &rest[..length];
            self.taken += length + 1;
            match serde_json::from_slice(line) {
                Ok(line) => return Some(line),
                Err(error) => {
                    let line = String::from_utf8_lossy(line);
                    tracing::warn!(%error, %line, "a line of the event feed is not understood");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn pipe() -> (Feed, File) {
        let (read, write) = nix::unistd::pipe().unwrap();
        let feed = Feed::new(pipe::Receiver::from_owned_fd(read).unwrap());
        (feed, File::from(write))
    }

    fn line(t_us: u64) -> String {
        format!("{{\"v\":1,\"t_us\":{t_us},\"sid\":1,\"event\":\"established\",\"epoch\":3}}\n")
    }

    #[tokio::test]
    async fn lines_come_whole_and_what_is_not_understood_is_passed_over() {
        let (mut feed, mut server) = pipe();
        let (first, second) = (line(1), line(2));
        let (head, tail) = second.split_at(20);
        write!(server, "{first}what?\n{head}").unwrap();
        assert_eq!(feed.next().await.unwrap().t_us, 1);
        let end = async {
            tokio::task::yield_now().await;
            server.write_all(tail.as_bytes()).unwrap();
            drop(server);
        };
        let (told, ()) = tokio::join!(feed.next(), end);
        assert_eq!(told.unwrap().t_us, 2);
        assert_eq!(feed.next().await, None);
    }

    #[tokio::test]
    async fn the_rest_is_there_at_once_whoever_else_has_the_pipe() {
        let (mut feed, mut server) = pipe();
        write!(server, "{}{}", line(1), line(2)).unwrap();
        assert_eq!(feed.next().await.unwrap().t_us, 1);
        write!(server, "{}{}", line(3), &line(4)[..9]).unwrap();
        let rest: Vec<u64> = feed.rest().into_iter().map(|line| line.t_us).collect();
        assert_eq!(rest, [2, 3]);
        assert!(server.write_all(b"x").is_err(), "nobody listens any more");
    }

    #[test]
    fn a_line_without_end_is_forgotten() {
        let mut lines = LineBuffer::default();
        for _ in 0..=LINE_MAX / 1000 + 1 {
            lines.push(&[b'x'; 1000]);
            assert_eq!(lines.next(), None);
            assert!(lines.bytes.len() <= LINE_MAX + 1000);
        }
        lines.push(b"\n");
        lines.push(line(7).as_bytes());
        assert_eq!(lines.next().map(|line| line.t_us), Some(7));
    }
}

//! zkd's event feed: JSON lines on a pipe.

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::unix::pipe;
use zkd::event::FeedLine;

/// Reads the feed of one server to its end.
#[derive(Debug)]
pub struct Feed {
    lines: Lines<BufReader<pipe::Receiver>>,
}

impl Feed {
    /// Reads from the pipe.
    #[must_use]
    pub fn new(pipe: pipe::Receiver) -> Self {
        Self {
            lines: BufReader::new(pipe).lines(),
        }
    }

    /// The next event; `None` when the server closed the feed. A line this version does not know (a
    /// newer server may say more) is passed over.
    pub async fn next(&mut self) -> Option<FeedLine> {
        while let Ok(Some(line)) = self.lines.next_line().await {
            match serde_json::from_str::<FeedLine>(&line) {
                Ok(line) => return Some(line),
                Err(error) => {
                    tracing::warn!(%error, line, "a line of the event feed is not understood")
                }
            }
        }
        None
    }
}

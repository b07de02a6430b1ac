//! The command line's end of the conversation with a supervisor.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use serde::de::DeserializeOwned;

use super::home::Root;
use super::protocol::{Frame, News, Request};
use crate::event::LabEvent;
use crate::failure::{Context, Exit, Failure};
use crate::id::NodeId;
use crate::net::{self, Emulated, NetKind};
use crate::node::SERVER_JVMFLAGS;

/// The hidden subcommand that is the supervisor.
pub const SUPERVISE: &str = "__supervise";

/// The hidden subcommand that tries a network and ends.
pub const TRY_NETWORK: &str = "__try-network";

/// The best network that works here, found out by processes of this very program: whoever enters a user
/// namespace does not come back, and has to be alone.
#[must_use]
pub fn best_network() -> NetKind {
    let works = |kind: &NetKind| {
        let program = std::env::current_exe().ok();
        let status = program.and_then(|program| {
            Command::new(program)
                .arg(TRY_NETWORK)
                .arg(kind.to_string())
                .stdin(Stdio::null())
                .status()
                .ok()
        });
        *kind == NetKind::Loopback || status.is_some_and(|status| status.success())
    };
    let choices = NetKind::Auto.choices().iter();
    choices.copied().find(works).unwrap_or(NetKind::Loopback)
}

/// Makes a network of this kind, small and for a moment.
///
/// # Errors
/// If this machine does not let us; says what would.
pub fn try_network(kind: &str) -> Result<(), Failure> {
    let kind: NetKind = kind.parse().map_err(Failure::usage)?;
    net::enter_user_namespace()?;
    if kind.has_namespaces() {
        drop(Emulated::create(kind, &[NodeId(1)], 0)?);
    }
    Ok(())
}

/// A conversation.
#[derive(Debug)]
pub struct Connection {
    reader: BufReader<UnixStream>,
}

/// What comes before the end of a conversation.
#[derive(Clone, Debug)]
pub enum Early {
    /// A part of the result.
    News(News),
    /// An event.
    Event(LabEvent),
    /// A piece of a file.
    Bytes(Vec<u8>),
}

impl Connection {
    /// Speaks with the supervisor of a lab.
    ///
    /// # Errors
    /// If there is no such lab.
    pub fn open(root: &Root, lab: &str) -> Result<Self, Failure> {
        match UnixStream::connect(root.home(lab)?.socket()) {
            Ok(stream) => Ok(Self {
                reader: BufReader::new(stream),
            }),
            Err(_) => root.unknown_lab(lab),
        }
    }

    /// Starts a new supervisor for a lab on such a network and speaks with it. It is this very program,
    /// with one end of a socket pair as its standard input; it detaches itself.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn launch(net: NetKind) -> Result<Self, Failure> {
        Self::launch_with(net, &[])
    }

    /// As [`Self::launch`], for servers whose speed is to be measured: a Java machine gets the memory and the
    /// compilers it has by default, unless the user's `SERVER_JVMFLAGS` say otherwise.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn launch_to_measure(net: NetKind) -> Result<Self, Failure> {
        match std::env::var_os(SERVER_JVMFLAGS) {
            Some(_) => Self::launch(net),
            None => Self::launch_with(net, &[(SERVER_JVMFLAGS, "-Xmx1g")]),
        }
    }

    fn launch_with(net: NetKind, environment: &[(&str, &str)]) -> Result<Self, Failure> {
        let cannot = || "cannot start the supervisor".to_owned();
        let (ours, theirs) = UnixStream::pair().doing(cannot)?;
        let program = std::env::current_exe().doing(cannot)?;
        Command::new(program)
            .arg(SUPERVISE)
            .arg(net.to_string())
            .envs(environment.iter().copied())
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .doing(cannot)?;
        Ok(Self {
            reader: BufReader::new(ours),
        })
    }

    /// Sends a request and reads until the end of the answer; `early` gets what comes before. It
    /// answers whether to go on.
    ///
    /// # Errors
    /// What the supervisor says, or that it died.
    pub fn call<T: DeserializeOwned>(
        &mut self,
        request: &Request,
        mut early: impl FnMut(Early) -> bool,
    ) -> Result<Option<T>, Failure> {
        let mut line = serde_json::to_vec(request).doing(|| "cannot say that".to_owned())?;
        line.push(b'\n');
        // If it is gone already, the read below says so.
        let _ = self.reader.get_mut().write_all(&line);
        loop {
            let early_one = match self.frame()? {
                Frame::Done(value) => {
                    return serde_json::from_value(value)
                        .map(Some)
                        .doing(|| "the supervisor's answer is not understood".to_owned());
                }
                Frame::Failed(failure) => return Err(failure),
                Frame::News(news) => Early::News(news),
                Frame::Event(event) => Early::Event(event),
                Frame::Bytes(count) => Early::Bytes(self.bytes(count)?),
            };
            if !early(early_one) {
                return Ok(None);
            }
        }
    }

    /// Waits until the supervisor has hung up.
    pub fn wait_closed(mut self) {
        let mut rest = String::new();
        while matches!(self.reader.read_line(&mut rest), Ok(count) if count > 0) {}
    }

    /// Something that asks the supervisor to come to an end, while an answer is awaited.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub fn ender(&self) -> Result<impl FnOnce() + Send + use<>, Failure> {
        let stream = self
            .reader
            .get_ref()
            .try_clone()
            .doing(|| "cannot share the connection".to_owned())?;
        Ok(move || {
            // If it fails the supervisor is gone, and the answer has ended.
            let _ = stream.shutdown(Shutdown::Write);
        })
    }

    fn bytes(&mut self, count: usize) -> Result<Vec<u8>, Failure> {
        let mut bytes = vec![0; count];
        self.reader
            .read_exact(&mut bytes)
            .doing(|| "the supervisor of the lab died".to_owned())?;
        Ok(bytes)
    }

    fn frame(&mut self) -> Result<Frame, Failure> {
        let mut line = String::new();
        let count = self.reader.read_line(&mut line).unwrap_or(0);
        if count == 0 {
            return Err(Failure::new(
                Exit::Environment,
                "the supervisor of the lab died, and its servers with it",
            )
            .hint("`zklab up` makes a new lab"));
        }
        serde_json::from_str(&line)
            .doing(|| "the supervisor's answer is not understood".to_owned())
            .map_err(|failure| failure.hint("is it of another version? `zklab down` still works"))
    }
}

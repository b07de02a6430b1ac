//! Servers as child processes, their feeds and their logs.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::fd::AsFd;
use zkd::event::{FeedLine, PeerEvent, ServerState};

use crate::client::Client;

/// Longest wait for anything: only a failure takes that long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Client port of every server.
pub(crate) const CLIENT_PORT: u16 = 2181;
/// Quorum port of every server.
pub(crate) const QUORUM_PORT: u16 = 2888;
/// Election port of every server.
pub(crate) const ELECTION_PORT: u16 = 3888;
/// Bound by the harness on every address it uses.
const RESERVED_PORT: u16 = 20_999;

/// A loopback address that nobody else uses while this lives.
pub(crate) struct Address {
    pub(crate) host: String,
    _reserved: TcpListener,
}

impl Address {
    pub(crate) fn new() -> Self {
        let start = std::process::id() as usize * 61;
        for n in 0..2500 {
            let n = (start + n) % 2500;
            let host = format!("127.0.{}.{}", 50 + n / 250, 1 + n % 250);
            if let Ok(reserved) = TcpListener::bind((host.as_str(), RESERVED_PORT)) {
                return Self {
                    host,
                    _reserved: reserved,
                };
            }
        }
        panic!("2500 loopback addresses are all in use");
    }

    pub(crate) fn client(&self) -> String {
        format!("{}:{CLIENT_PORT}", self.host)
    }
}

/// A server's directory, configuration and process.
pub(crate) struct Node {
    pub(crate) address: Address,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) args: Vec<String>,
    process: Option<Process>,
}

struct Process {
    child: Child,
    feed: Option<Feed>,
    log: Arc<Log>,
}

struct Feed {
    fifo: PathBuf,
    events: Receiver<PeerEvent>,
}

/// What the process has written to stderr so far.
#[derive(Default)]
struct Log {
    text: Mutex<(String, bool)>,
    grown: Condvar,
}

impl Node {
    /// A standalone server, with more lines for its configuration.
    pub(crate) fn standalone(more: &str) -> Self {
        let address = Address::new();
        let config = format!(
            "clientPort={CLIENT_PORT}\nclientPortAddress={}\n{more}",
            address.host
        );
        Self::new(address, &config)
    }

    /// A server with this configuration, beside `dataDir`, `tickTime` and the words that are answered.
    pub(crate) fn new(address: Address, config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let node = Self {
            address,
            dir,
            args: Vec::new(),
            process: None,
        };
        node.configure(config);
        fs::create_dir(node.data()).unwrap();
        node
    }

    pub(crate) fn configure(&self, config: &str) {
        let data = self.data();
        let tick = if config.contains("tickTime=") {
            ""
        } else {
            "tickTime=2000\n"
        };
        let text = format!(
            "{tick}dataDir={}\n4lw.commands.whitelist=*\n{config}\n",
            data.display()
        );
        fs::write(self.config_file(), text).unwrap();
    }

    pub(crate) fn config_file(&self) -> PathBuf {
        self.dir.path().join("zoo.cfg")
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) fn version_dir(&self) -> PathBuf {
        self.data().join("version-2")
    }

    /// The files of the database whose names begin so, oldest first.
    pub(crate) fn files(&self, prefix: &str) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = fs::read_dir(self.version_dir())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| {
                path.file_name()
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .starts_with(prefix)
            })
            .collect();
        files.sort_by_key(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            i64::from_str_radix(&name[prefix.len()..], 16).unwrap_or(i64::MAX)
        });
        files
    }

    fn command(&self, fifo: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_zkd"));
        command
            .arg("serve")
            .arg(self.config_file())
            .arg("--events")
            .arg(fifo)
            .args(&self.args)
            .current_dir(self.dir.path())
            .env_remove("ZKD_LOG");
        command
    }

    /// Starts the process.
    pub(crate) fn spawn(&mut self) {
        self.process = None;
        let fifo = self.dir.path().join("events");
        let _ = fs::remove_file(&fifo);
        let feed = Feed::open(fifo.clone());
        let mut command = self.command(&fifo);
        self.process = Some(Process::spawn(&mut command, Some(feed)));
    }

    /// Starts the process by a shell, which does to the standard streams what `redirections` says.
    pub(crate) fn spawn_redirected(&mut self, redirections: &str) {
        self.process = None;
        let fifo = self.dir.path().join("events");
        let _ = fs::remove_file(&fifo);
        let feed = Feed::open(fifo.clone());
        let mut command = Command::new("/bin/sh");
        command
            .arg("-c")
            .arg(format!(
                "exec \"$0\" serve \"$1\" --events \"$2\" {redirections}"
            ))
            .arg(env!("CARGO_BIN_EXE_zkd"))
            .arg(self.config_file())
            .arg(&fifo)
            .env_remove("ZKD_LOG");
        self.process = Some(Process::spawn(&mut command, Some(feed)));
    }

    /// Starts the process and waits until it serves.
    pub(crate) fn start(&mut self) -> ServerState {
        self.spawn();
        self.await_serving()
    }

    /// Starts the process, waits for it to end, and gives its exit code and log.
    pub(crate) fn run_to_end(&mut self) -> (Option<i32>, String) {
        self.spawn();
        let code = self.await_end().code();
        (code, self.log())
    }

    fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the server was started")
    }

    pub(crate) fn pid(&self) -> Pid {
        let process = self.process.as_ref().expect("the server was started");
        Pid::from_raw(process.child.id().cast_signed())
    }

    /// Waits for the next event that `wanted` says yes to; what comes before it is passed over.
    pub(crate) fn await_event<T>(&mut self, mut wanted: impl FnMut(&PeerEvent) -> Option<T>) -> T {
        let process = self.process();
        let feed = process.feed.as_ref().expect("the feed is read");
        let deadline = Instant::now() + PATIENCE;
        loop {
            match feed
                .events
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(event) => {
                    if let Some(found) = wanted(&event) {
                        return found;
                    }
                }
                Err(why) => {
                    let what = if why == RecvTimeoutError::Timeout {
                        "did not come"
                    } else {
                        "can no longer come"
                    };
                    panic!("the event {what}; the log:\n{}", process.log.text());
                }
            }
        }
    }

    pub(crate) fn await_serving(&mut self) -> ServerState {
        self.await_event(|event| match event {
            PeerEvent::Serving { state, .. } => Some(*state),
            _ => None,
        })
    }

    /// Whether an event of this kind has come by now (and everything before it is passed over).
    pub(crate) fn has_told(&mut self, mut wanted: impl FnMut(&PeerEvent) -> bool) -> bool {
        let feed = self.process().feed.as_ref().expect("the feed is read");
        feed.events.try_iter().any(|event| wanted(&event))
    }

    /// Nobody reads the feed any more.
    pub(crate) fn abandon_feed(&mut self) {
        self.process().feed = None;
    }

    /// Waits for a line of the log that contains `text`, and gives it.
    pub(crate) fn await_log(&mut self, text: &str) -> String {
        self.process().log.wait_for(text)
    }

    /// How many of its threads have this name.
    pub(crate) fn threads_named(&self, name: &str) -> usize {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        tasks
            .filter(|task| {
                let comm = task.as_ref().unwrap().path().join("comm");
                fs::read_to_string(comm).is_ok_and(|found| found.trim_end() == name)
            })
            .count()
    }

    pub(crate) fn log(&self) -> String {
        let process = self.process.as_ref().expect("the server was started");
        process.log.text()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    pub(crate) fn await_end(&mut self) -> ExitStatus {
        let process = self.process();
        let deadline = Instant::now() + PATIENCE;
        // The log ends with the process: a wait without polling, and with a limit.
        process.log.wait_for_end(deadline);
        process.child.wait().unwrap()
    }

    /// SIGTERM, to the end.
    pub(crate) fn stop(&mut self) -> Option<i32> {
        self.signal(Signal::SIGTERM);
        self.await_end().code()
    }

    /// SIGKILL, to the end.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.await_end();
    }

    pub(crate) fn connect(&self) -> Client {
        Client::connect(&self.address.client()).expect("the server takes clients")
    }

    /// The answer to a four-letter word.
    pub(crate) fn word(&self, word: &str) -> String {
        use std::io::Write;
        let mut stream = std::net::TcpStream::connect(self.address.client()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(word.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// One value of `mntr`.
    pub(crate) fn metric(&self, name: &str) -> Option<String> {
        let text = self.word("mntr");
        text.lines().find_map(|line| {
            let (key, value) = line.split_once('\t')?;
            (key == format!("zk_{name}")).then(|| value.to_owned())
        })
    }
}

impl Process {
    fn spawn(command: &mut Command, feed: Option<Feed>) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = child.stderr.take().unwrap();
        let log = Arc::new(Log::default());
        let writing = Arc::clone(&log);
        std::thread::spawn(move || writing.fill(stderr));
        Self { child, feed, log }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // What a test leaves running is not to outlive it; it may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Feed {
    /// Makes the FIFO and reads what comes. The reading end is open before the server is started.
    fn open(fifo: PathBuf) -> Self {
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let reading = fs::OpenOptions::new()
            .read(true)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(&fifo)
            .unwrap();
        let (sender, events) = channel();
        std::thread::spawn(move || {
            // Blocks until the first writer, which a plain read would not.
            let mut polled = [PollFd::new(reading.as_fd(), PollFlags::POLLIN)];
            nix::poll::poll(&mut polled, PollTimeout::NONE).unwrap();
            let flags = OFlag::empty();
            nix::fcntl::fcntl(reading.as_fd(), nix::fcntl::FcntlArg::F_SETFL(flags)).unwrap();
            for line in BufReader::new(reading).lines() {
                let Ok(line) = line else { return };
                let line: FeedLine = serde_json::from_str(&line)
                    .unwrap_or_else(|error| panic!("{line:?} is no line of the feed: {error}"));
                if sender.send(line.event).is_err() {
                    return;
                }
            }
        });
        Self { fifo, events }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        // Ends the wait for a writer that never came.
        let _ = fs::OpenOptions::new()
            .write(true)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(&self.fifo);
    }
}

impl Log {
    fn fill(&self, stderr: impl Read) {
        let mut stderr = BufReader::new(stderr);
        let mut line = Vec::new();
        while matches!(stderr.read_until(b'\n', &mut line), Ok(count) if count > 0) {
            self.text.lock().unwrap().0 += &String::from_utf8_lossy(&line);
            line.clear();
            self.grown.notify_all();
        }
        self.text.lock().unwrap().1 = true;
        self.grown.notify_all();
    }

    fn text(&self) -> String {
        self.text.lock().unwrap().0.clone()
    }

    fn wait_for(&self, wanted: &str) -> String {
        let found = |text: &str| {
            text.lines()
                .find(|line| line.contains(wanted))
                .map(str::to_owned)
        };
        let state = self.text.lock().unwrap();
        let waiting = |state: &mut (String, bool)| !state.1 && found(&state.0).is_none();
        let (state, _) = self
            .grown
            .wait_timeout_while(state, PATIENCE, waiting)
            .unwrap();
        let text = state.0.clone();
        drop(state);
        found(&text).unwrap_or_else(|| panic!("no line with {wanted:?} in the log:\n{text}"))
    }

    fn wait_for_end(&self, deadline: Instant) {
        let state = self.text.lock().unwrap();
        let left = deadline.saturating_duration_since(Instant::now());
        let (state, _) = self
            .grown
            .wait_timeout_while(state, left, |state| !state.1)
            .unwrap();
        let (text, ended) = state.clone();
        drop(state);
        assert!(ended, "the process did not end; the log:\n{text}");
    }
}

/// An ensemble of servers 1, 2, … each on an address of its own.
pub(crate) struct Ensemble {
    pub(crate) nodes: Vec<Node>,
}

impl Ensemble {
    /// `count` voters, not started.
    pub(crate) fn new(count: usize, more: &str) -> Self {
        let addresses: Vec<Address> = (0..count).map(|_| Address::new()).collect();
        let members: String = addresses
            .iter()
            .zip(1..)
            .map(|(address, id)| {
                let host = &address.host;
                format!(
                    "server.{id}={host}:{QUORUM_PORT}:{ELECTION_PORT}:participant;{host}:{CLIENT_PORT}\n"
                )
            })
            .collect();
        let config = format!("initLimit=10\nsyncLimit=5\n{more}\n{members}");
        let nodes = addresses.into_iter().zip(1..).map(|(address, id)| {
            let node = Node::new(address, &config);
            fs::write(node.data().join("myid"), format!("{id}\n")).unwrap();
            node
        });
        Self {
            nodes: nodes.collect(),
        }
    }

    /// Starts all and waits until all serve.
    pub(crate) fn start(count: usize, more: &str) -> Self {
        let mut ensemble = Self::new(count, more);
        for node in &mut ensemble.nodes {
            node.spawn();
        }
        for node in &mut ensemble.nodes {
            node.await_serving();
        }
        ensemble
    }

    /// The index of the server that says it leads.
    pub(crate) fn leader(&self) -> usize {
        let leads = |node: &Node| node.word("srvr").contains("Mode: leader");
        self.nodes
            .iter()
            .position(leads)
            .expect("an ensemble that serves has a leader")
    }
}

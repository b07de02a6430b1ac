//! The long-lived process that owns an ensemble.
//!
//! `zklab up` starts it; it detaches itself, claims the lab's directory, starts the servers as its own
//! children and answers later command lines over a Unix socket. Its servers are bound to it by the
//! kernel: when it dies, however it dies, they die, and its guard takes its files away. Everything runs on its main thread, in one
//! current-thread runtime, because the kernel ties that bond to the thread that started a child.

pub mod client;
mod clocks;
pub mod guard;
pub mod heal;
pub mod home;
pub mod kill_leader;
pub mod lifecycle;
mod members;
pub mod network;
pub mod orders;
pub mod pcap;
pub mod power;
pub mod protocol;
pub mod up;
pub mod wire;

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use self::guard::Guard;
use self::home::{Belongings, Home, Root};
use self::lifecycle::Way;
use self::network::Span;
use self::power::PowerCut;
use self::protocol::{DownReport, Frame, Info, InfoNode, News, Request, UpRequest};
use self::wire::Wire;
use crate::clock::{ms, now_us};
use crate::ensemble::{Ensemble, status};
use crate::event::{FaultKind, LabEventKind, Source};
use crate::failure::{Context, Exit, Failure};
use crate::fault::{Board, Profile};
use crate::id::NodeId;
use crate::net::{self, NetKind};
use crate::observe::stall::StallMeter;

/// Shorter stalls of the machine are not told as events.
const STALL_EVENT_MIN: Duration = Duration::from_millis(20);

/// A lab and what it takes to end it.
#[derive(Debug)]
pub struct Lab {
    /// The ensemble.
    pub ensemble: Arc<Ensemble>,
    /// How the machine behaved.
    pub stall: StallMeter,
    /// What is wrong with its network.
    pub board: Board,
    /// What is read off the wire, and withheld from it.
    pub wire: Arc<Wire>,
    /// Fixes what is left to chance.
    pub seed: u64,
    /// How the links are without any fault.
    profile: Option<Profile>,
    /// Held by whoever takes nodes in or out.
    members: tokio::sync::Mutex<()>,
    root: Root,
    home: Home,
    /// The lab is this process's as long as this is open.
    _held: File,
    /// Cleans up if this process cannot.
    guard: Guard,
    /// Ends the process; told by whoever has ended the lab.
    end: mpsc::Sender<()>,
}

/// The supervisor, from its first instruction to its last. The command line is at standard input.
///
/// # Errors
/// If it cannot even begin; everything later is told to the command line.
pub fn run() -> Result<(), Failure> {
    // A shell's own lock files and pipes must not be held by a process that outlives it.
    close_inherited();
    let cannot = || "the supervisor cannot begin".to_owned();
    nix::unistd::setsid().doing(cannot)?;
    std::env::set_current_dir("/").doing(cannot)?;
    // This is only possible while there is one thread, and so before anybody can be told.
    let prepared = Guard::start().and_then(|guard| prepare().map(|()| guard));
    let stdin = std::io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .doing(cannot)?;
    let stream = std::os::unix::net::UnixStream::from(stdin);
    stream.set_nonblocking(true).doing(cannot)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .doing(cannot)?;
    runtime.block_on(async {
        let stream = UnixStream::from_std(stream).doing(cannot)?;
        serve(stream, prepared).await
    })
}

/// Gets the rights that the network named on the command line needs.
fn prepare() -> Result<(), Failure> {
    let word = std::env::args().nth(2).unwrap_or_default();
    let wish = NetKind::from_str(&word).unwrap_or(NetKind::Loopback);
    match wish {
        NetKind::Loopback => Ok(()),
        NetKind::Tun | NetKind::Packet => net::enter_user_namespace(),
        NetKind::Auto => {
            // Without one there is still the loopback.
            let _ = net::enter_user_namespace();
            Ok(())
        }
    }
}

fn close_inherited() {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else {
        return;
    };
    let open: Vec<i32> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|fd| *fd > 2)
        .collect();
    for fd in open {
        // The descriptor of the listing itself is closed already.
        let _ = nix::unistd::close(fd);
    }
}

/// Makes the lab for the first command line, then answers the others until it is over.
async fn serve(stream: UnixStream, prepared: Result<Guard, Failure>) -> Result<(), Failure> {
    let mut talk = Talk::new(stream);
    let Some(Request::Up(request)) = talk.request().await else {
        return Ok(());
    };
    let (end, mut ended) = mpsc::channel(1);
    let lab = match prepared.and_then(|guard| Lab::found(&request, end, guard)) {
        Ok(lab) => Arc::new(lab),
        Err(failure) => {
            // Looking at the labs removes the root directory if this was the first one ever.
            let _ = Root::open().and_then(|root| root.labs());
            talk.finish(Err::<(), _>(failure)).await;
            return Ok(());
        }
    };
    let made = {
        let news = talk.news();
        tokio::select! {
            made = up::run(&lab, &request, news) => Some(made),
            () = talk.hung_up() => None,
        }
    };
    let (listener, mut lease) = match made {
        Some(Ok(report)) => match lab.listen() {
            Ok(listener) => {
                let reader = talk.finish_and_keep(Ok(report)).await;
                (listener, request.lease.then_some(reader))
            }
            Err(failure) => return give_up(&lab, talk, failure).await,
        },
        Some(Err(failure)) => return give_up(&lab, talk, failure).await,
        None => {
            let failure = Failure::new(Exit::Interrupted, "interrupted");
            return give_up(&lab, talk, failure).await;
        }
    };
    let cannot = || "cannot wait for signals".to_owned();
    let mut terminate = signal(SignalKind::terminate()).doing(cannot)?;
    let mut interrupt = signal(SignalKind::interrupt()).doing(cannot)?;
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    tokio::spawn(answer(Arc::clone(&lab), Talk::new(stream)));
                }
            }
            _ = ended.recv() => return Ok(()),
            () = ended_lease(&mut lease) => return lab.down(false).await.map(drop),
            _ = terminate.recv() => return lab.down(false).await.map(drop),
            _ = interrupt.recv() => return lab.down(false).await.map(drop),
        }
    }
}

/// Waits until the one for whom the lab was made has gone; for ever if it was made for everybody.
async fn ended_lease(lease: &mut Option<BufReader<OwnedReadHalf>>) {
    let Some(reader) = lease else {
        return std::future::pending().await;
    };
    let mut rest = [0; 64];
    while matches!(reader.read(&mut rest).await, Ok(count) if count > 0) {}
}

async fn give_up(lab: &Lab, talk: Talk, failure: Failure) -> Result<(), Failure> {
    let ended = lab.down(false).await.map(drop);
    talk.finish(Err::<(), _>(failure)).await;
    ended
}

/// Answers what starts, ends and stops nodes.
async fn answer_on_nodes(lab: &Arc<Lab>, request: Request, talk: Talk) {
    let news = talk.news();
    let ensemble = &lab.ensemble;
    match request {
        Request::Start { nodes } => talk.finish(lifecycle::start(lab, &nodes).await).await,
        Request::Stop {
            nodes,
            for_ms,
            wait,
        } => {
            let span = Span { for_ms, wait };
            talk.finish_unless_gone(lifecycle::stop(lab, &nodes, span))
                .await;
        }
        Request::Restart {
            nodes,
            rolling,
            hard,
            server,
        } => {
            let how = lifecycle::Restart {
                rolling,
                hard,
                server,
            };
            let work = lifecycle::restart(lab, &nodes, &how, &news);
            talk.finish_unless_gone(work).await;
        }
        Request::Kill {
            nodes,
            signal,
            restart_after_ms,
            lose_unsynced,
            torn,
            death,
            wait,
        } => {
            let power = lose_unsynced.then_some(PowerCut {
                torn,
                seed: lab.seed,
            });
            let way = Way {
                death,
                power: power.as_ref(),
            };
            let span = Span {
                for_ms: restart_after_ms,
                wait,
            };
            let work = lifecycle::kill(lab, &nodes, signal, way, span);
            talk.finish_unless_gone(work).await;
        }
        Request::Pause {
            nodes,
            for_ms,
            wait,
        } => {
            talk.finish(lifecycle::pause(ensemble, &nodes, for_ms, wait).await)
                .await
        }
        Request::Resume { nodes } => talk.finish(lifecycle::resume(ensemble, &nodes).await).await,
        _ => {
            talk.finish(Err::<(), _>(Failure::usage("that is not about nodes")))
                .await;
        }
    }
}

/// Answers one command line.
async fn answer(lab: Arc<Lab>, mut talk: Talk) {
    let Some(request) = talk.request().await else {
        return;
    };
    tracing::info!(?request, "asked");
    let news = talk.news();
    let ensemble = &lab.ensemble;
    match request {
        Request::Up(_) => {
            talk.finish(Err::<(), _>(Failure::usage("the lab is up already")))
                .await;
        }
        Request::Status => talk.finish(Ok(status::probe(ensemble).await)).await,
        Request::Info => talk.finish(Ok(lab.info())).await,
        Request::Network(request) => network::answer(&lab, request, talk).await,
        Request::Withhold(request) => {
            let work = wire::withhold(&lab, &request, &news);
            talk.finish_unless_gone(work).await;
        }
        Request::Watch(request) => wire::watch(&lab, request, talk).await,
        Request::Flow(request) => talk.finish(Ok(wire::flow(&lab, &request).await)).await,
        Request::Door { node } => talk.finish(lifecycle::door(ensemble, &node).await).await,
        Request::Start { .. }
        | Request::Stop { .. }
        | Request::Restart { .. }
        | Request::Kill { .. }
        | Request::Pause { .. }
        | Request::Resume { .. } => answer_on_nodes(&lab, request, talk).await,
        Request::Disk(request) => talk.finish(power::disk(ensemble, &request).await).await,
        Request::Clock(request) => talk.finish(clocks::clock(ensemble, &request).await).await,
        Request::KillLeader(request) => {
            let work = kill_leader::run(&lab, &request, &news);
            talk.finish_unless_gone(work).await;
        }
        // They go on to their end, even if nobody waits for it any more: half a change would be left otherwise.
        Request::Add(request) => talk.finish(members::add(&lab, &request, &news).await).await,
        Request::Rm { node } => talk.finish(members::rm(&lab, &node, &news).await).await,
        Request::Pcap(request) => pcap::answer(&lab, request, talk).await,
        Request::Events { follow } => talk.tell_events(ensemble, follow).await,
        Request::Down { keep_data } => {
            let report = lab.down(keep_data).await;
            talk.finish(report).await;
            // The receiver is gone only if the process is ending already.
            let _ = lab.end.send(()).await;
        }
    }
}

impl Lab {
    /// Claims everything the lab needs: a network, a home, directories.
    fn found(request: &UpRequest, end: mpsc::Sender<()>, guard: Guard) -> Result<Self, Failure> {
        let root = Root::open()?;
        let begin = now_us();
        let (spec, nodes, net) = up::design(request, &root)?;
        let made_us = now_us();
        let belongings = Belongings {
            data_dir: spec.data_dir.clone(),
            nodes: nodes.iter().map(|node| node.id).collect(),
            keep_data: spec.keep_data,
            supervisor: std::process::id(),
        };
        let (home, held) = root.claim(&spec.name, &belongings)?;
        log_to(&home)?;
        let ensemble = Ensemble::new(spec, nodes, net, request.asked_us);
        if ensemble.net.kind().has_namespaces() {
            let kind = LabEventKind::NetReady {
                net: ensemble.net.kind().to_string(),
                took_us: made_us - begin,
            };
            ensemble.journal.push(made_us, None, Source::Lab, kind);
        }
        let stall = {
            let ensemble = Arc::clone(&ensemble);
            StallMeter::start(STALL_EVENT_MIN, move |end_us, length_us| {
                let kind = LabEventKind::HostStall {
                    ms: length_us / 1000,
                };
                ensemble.journal.push(end_us, None, Source::Host, kind);
            })
        };
        let wire = Arc::new(Wire::default());
        if !request.no_wire {
            wire::listen(&ensemble, &wire)?;
        }
        Ok(Self {
            wire,
            board: network::board(&ensemble, request.seed, request.profile.as_deref())?,
            seed: request.seed,
            profile: request.profile.as_deref().cloned(),
            members: tokio::sync::Mutex::default(),
            ensemble,
            stall,
            root,
            home,
            _held: held,
            guard,
            end,
        })
    }

    /// Starts a node's server, unless it runs; if its host was gone, it is back. On the main thread only.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub fn start(&self, id: NodeId) -> Result<(), Failure> {
        let ended = self.ensemble.standing_on(id, FaultKind::ends_processes);
        if ended.iter().any(|fault| self.board.has(&fault.id)) {
            let is_over = |known: &str| ended.iter().any(|fault| fault.id == known);
            // The server starts slower than links heal, and nobody waits for that.
            drop(self.board.heal(&*self.ensemble.net, is_over));
        }
        self.ensemble.start(id)
    }

    fn listen(&self) -> Result<UnixListener, Failure> {
        let socket = self.home.socket();
        let cannot = || format!("cannot listen on {}", socket.display());
        let listener = UnixListener::bind(&socket).doing(cannot)?;
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o600)).doing(cannot)?;
        Ok(listener)
    }

    /// Ends the servers and removes everything.
    async fn down(&self, keep_data: bool) -> Result<DownReport, Failure> {
        let begin = now_us();
        let spec = &self.ensemble.spec;
        let keep = keep_data || spec.keep_data;
        self.ensemble.end_all(keep).await?;
        let nodes = self.ensemble.ids();
        let count = nodes.len();
        self.note(nodes, keep)?;
        self.root.remove(&self.home)?;
        self.guard.dismiss();
        Ok(DownReport {
            v: 1,
            cmd: "down".to_owned(),
            lab: spec.name.clone(),
            nodes: count,
            ms: ms(now_us() - begin),
            kept: keep.then(|| spec.data_dir.clone()),
        })
    }

    /// Writes down what is to be removed with the lab.
    fn note(&self, nodes: Vec<NodeId>, keep_data: bool) -> Result<(), Failure> {
        self.home.note(&Belongings {
            data_dir: self.ensemble.spec.data_dir.clone(),
            nodes,
            keep_data,
            supervisor: std::process::id(),
        })
    }

    fn info(&self) -> Info {
        let ensemble = &self.ensemble;
        let leader = ensemble.serving_leader().map(|(id, _)| id);
        Info {
            v: 1,
            lab: ensemble.spec.name.clone(),
            supervisor_pid: std::process::id(),
            nodes: ensemble
                .nodes()
                .iter()
                .map(|node| InfoNode {
                    id: node.id,
                    addr: ensemble.net.client(node.id).to_string(),
                    membership: node.membership,
                    running: ensemble.view(node.id).process.is_some(),
                    leads: leader == Some(node.id),
                    log: node.log_file(),
                    config: node.config_file(),
                })
                .collect(),
        }
    }
}

/// The supervisor has no terminal: what it has to say goes into its home.
fn log_to(home: &Home) -> Result<(), Failure> {
    let file = home.log_file();
    let file = File::create(&file).doing(|| format!("cannot write {}", file.display()))?;
    // Setting it twice is impossible: a supervisor makes one lab in its life.
    let _ = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(file)
        .try_init();
    Ok(())
}

/// One conversation, seen from the supervisor.
#[derive(Debug)]
struct Talk {
    reader: BufReader<OwnedReadHalf>,
    /// Frames leave through a task of their own, so that news never wait for a slow terminal.
    frames: mpsc::UnboundedSender<Outgoing>,
    /// Done when all frames have left.
    flushed: oneshot::Receiver<()>,
}

/// Where news go; what comes after the listener hung up goes nowhere.
#[derive(Clone, Debug)]
pub struct NewsSink(mpsc::UnboundedSender<Outgoing>);

impl NewsSink {
    /// Tells something early.
    pub fn tell(&self, news: News) {
        // Nobody may be listening any more.
        let _ = self.0.send(Frame::News(news).into());
    }
}

impl Talk {
    fn new(stream: UnixStream) -> Self {
        let (reader, writer) = stream.into_split();
        let (frames, outgoing) = mpsc::unbounded_channel();
        let (done, flushed) = oneshot::channel();
        tokio::spawn(write_frames(writer, outgoing, done));
        Self {
            reader: BufReader::new(reader),
            frames,
            flushed,
        }
    }

    fn news(&self) -> NewsSink {
        NewsSink(self.frames.clone())
    }

    /// The request, if it is one.
    async fn request(&mut self) -> Option<Request> {
        let mut line = String::new();
        let count = self.reader.read_line(&mut line).await.unwrap_or(0);
        if count == 0 {
            return None;
        }
        match serde_json::from_str(&line) {
            Ok(request) => Some(request),
            Err(error) => {
                let failure = Failure::usage(format!("the request is not understood: {error}"))
                    .hint("is the lab of another version? `zklab down` ends it");
                let _ = self.frames.send(Frame::Failed(failure).into());
                None
            }
        }
    }

    /// Waits until the other end is closed.
    async fn hung_up(&mut self) {
        let mut rest = [0; 64];
        while matches!(self.reader.read(&mut rest).await, Ok(count) if count > 0) {}
    }

    /// Says the end and waits until it has left.
    async fn finish<T: Serialize>(self, result: Result<T, Failure>) {
        drop(self.finish_and_keep(result).await);
    }

    /// As [`Self::finish`], and gives back the end at which the other's hanging up can be heard.
    async fn finish_and_keep<T: Serialize>(
        self,
        result: Result<T, Failure>,
    ) -> BufReader<OwnedReadHalf> {
        let frame = match result.and_then(|value| {
            serde_json::to_value(value).doing(|| "the result cannot be written".to_owned())
        }) {
            Ok(value) => Frame::Done(value),
            Err(failure) => Frame::Failed(failure),
        };
        let Self {
            reader,
            frames,
            flushed,
        } = self;
        let _ = frames.send(frame.into());
        drop(frames);
        let _ = tokio::time::timeout(Duration::from_secs(1), flushed).await;
        reader
    }

    /// As [`Self::finish`], but gives the work up when the other end hangs up.
    async fn finish_unless_gone<T: Serialize>(
        mut self,
        work: impl Future<Output = Result<T, Failure>>,
    ) {
        let done = tokio::select! {
            done = work => done,
            () = self.hung_up() => return,
        };
        self.finish(done).await;
    }

    /// Sends bytes and waits until they have left; the buffer comes back empty. Nothing if nobody takes them.
    async fn bytes(&self, bytes: Vec<u8>) -> Option<Vec<u8>> {
        let (tell, told) = oneshot::channel();
        self.frames.send(Outgoing::Bytes(bytes, tell)).ok()?;
        let mut buffer = told.await.ok()?;
        buffer.clear();
        Some(buffer)
    }

    async fn tell_events(mut self, ensemble: &Ensemble, follow: bool) {
        let mut news = ensemble.journal.subscribe();
        let mut seen = 0;
        loop {
            news.mark_unchanged();
            for event in ensemble.journal.after(seen) {
                seen = event.seq;
                if self.frames.send(Frame::Event(event).into()).is_err() {
                    return;
                }
            }
            if !follow {
                return self.finish(Ok(seen)).await;
            }
            tokio::select! {
                changed = news.changed() => if changed.is_err() { return },
                () = self.hung_up() => return,
            }
        }
    }
}

/// What leaves through one conversation.
#[derive(Debug)]
enum Outgoing {
    /// A line.
    Frame(Box<Frame>),
    /// Bytes as they are, behind a line that counts them; the sender is told when they have left.
    Bytes(Vec<u8>, oneshot::Sender<Vec<u8>>),
}

impl From<Frame> for Outgoing {
    fn from(frame: Frame) -> Self {
        Self::Frame(Box::new(frame))
    }
}

async fn write_frames(
    mut writer: OwnedWriteHalf,
    mut frames: mpsc::UnboundedReceiver<Outgoing>,
    done: oneshot::Sender<()>,
) {
    while let Some(outgoing) = frames.recv().await {
        let (frame, bytes) = match outgoing {
            Outgoing::Frame(frame) => (*frame, None),
            Outgoing::Bytes(bytes, told) => (Frame::Bytes(bytes.len()), Some((bytes, told))),
        };
        let Ok(mut line) = serde_json::to_vec(&frame) else {
            continue;
        };
        line.push(b'\n');
        if writer.write_all(&line).await.is_err() {
            break;
        }
        if let Some((bytes, told)) = bytes {
            if writer.write_all(&bytes).await.is_err() {
                break;
            }
            // Whoever sent them may have been given up.
            let _ = told.send(bytes);
        }
    }
    // Nobody may be waiting for it.
    let _ = done.send(());
}

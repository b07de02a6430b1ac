//! The ensembles that are measured: labs made for this, or servers that run already.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process;

use crate::cli::bench::BenchArgs;
use crate::command::up::data_place;
use crate::command::{Context, ask};
use crate::ensemble::status::Status;
use crate::failure::{Exit, Failure};
use crate::id::NodeId;
use crate::net::NetKind;
use crate::node::ServerKind;
use crate::report::progress::Progress;
use crate::supervisor::client::Connection;
use crate::supervisor::home::Root;
use crate::supervisor::protocol::{
    ActReport, Death, DownReport, Info, InfoNode, Request, UpReport, UpRequest,
};

/// How long an ensemble may take to come up.
const UP_PATIENCE_MS: u64 = 120_000;

/// Where servers come from.
#[derive(Clone, Debug)]
pub(super) enum Origin {
    /// A program.
    Program(ServerKind),
    /// They run already.
    Given(Vec<SocketAddr>),
}

impl Origin {
    /// Those that are asked for, one or two.
    pub(super) fn all(args: &BenchArgs) -> Result<Vec<Self>, Failure> {
        let mut all = vec![match args.servers.is_empty() {
            true => Self::Program(ServerKind::find(args.server.as_deref())?),
            false => Self::Given(args.servers.clone()),
        }];
        if let Some(other) = &args.against {
            let addresses: Result<Vec<SocketAddr>, _> = other
                .split(',')
                .map(|address| address.trim().parse())
                .collect();
            all.push(match addresses {
                Ok(addresses) => Self::Given(addresses),
                Err(_) => Self::Program(ServerKind::find(Some(other))?),
            });
        }
        let is_given = |origin: &Self| matches!(origin, Self::Given(_));
        if args.mode.needs_labs() && all.iter().any(is_given) {
            return Err(Failure::usage(
                "this bench starts and kills servers, so it cannot measure servers that run already",
            )
            .hint("--server and --against take a zkd binary, `apache`, or `apache:DIR`"));
        }
        Ok(all)
    }

    /// A word for it.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Program(kind) => kind.name().to_owned(),
            Self::Given(addresses) => {
                let names: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
                names.join(",")
            }
        }
    }
}

/// An ensemble that is measured.
pub(super) struct Subject {
    pub(super) name: String,
    pub(super) servers: Vec<SocketAddr>,
    /// Their processes, if they are this machine's.
    pub(super) pids: Vec<u32>,
    /// From the command to the first acknowledged write, if they were started.
    pub(super) first_write_ms: f64,
    /// The lab that was made for this; it ends when this does, however that comes about.
    lab: Option<(String, Connection)>,
}

impl Subject {
    /// Brings one up, or takes it as it is.
    pub(super) fn new(
        context: &Context,
        args: &BenchArgs,
        origin: &Origin,
        nodes: u8,
        number: usize,
    ) -> Result<Self, Failure> {
        match origin {
            Origin::Given(servers) => Ok(Self {
                name: origin.name(),
                servers: servers.clone(),
                pids: Vec::new(),
                first_write_ms: f64::NAN,
                lab: None,
            }),
            Origin::Program(kind) => {
                let doing = format!("starting {nodes} × {}", kind.name());
                let _progress = Progress::start(&context.out, &doing);
                bring_up(
                    args,
                    kind,
                    nodes,
                    format!("bench-{}-{number}", process::id()),
                )
            }
        }
    }

    /// The name of its lab.
    pub(super) fn lab(&self) -> Result<&str, Failure> {
        let lab = self.lab.as_ref().map(|(lab, _)| lab.as_str());
        lab.ok_or_else(|| Failure::usage("this needs servers that the bench starts itself"))
    }

    /// How its servers are.
    pub(super) fn status(&self) -> Result<Status, Failure> {
        ask(self.lab()?, &Request::Status)
    }

    /// Where everything is.
    pub(super) fn nodes(&self) -> Result<Vec<InfoNode>, Failure> {
        let info: Info = ask(self.lab()?, &Request::Info)?;
        Ok(info.nodes)
    }

    /// SIGKILL.
    pub(super) fn kill(&self, nodes: &[NodeId]) -> Result<(), Failure> {
        let _: ActReport = ask(
            self.lab()?,
            &Request::Kill {
                nodes: nodes.iter().map(NodeId::to_string).collect(),
                signal: 9,
                restart_after_ms: None,
                lose_unsynced: false,
                torn: false,
                death: Death::Process,
                wait: false,
            },
        )?;
        Ok(())
    }

    /// Starts servers that are down; comes back when they serve.
    pub(super) fn start(&mut self, nodes: &[NodeId]) -> Result<(), Failure> {
        start(self.lab()?, nodes)?;
        self.look_again()
    }

    /// Reads the processes again after some were started.
    pub(super) fn look_again(&mut self) -> Result<(), Failure> {
        let status = self.status()?;
        self.pids = status.nodes.iter().filter_map(|node| node.pid).collect();
        Ok(())
    }

    /// Ends it, if it was made for this.
    pub(super) fn end(self) -> Result<(), Failure> {
        let Some((lab, _lease)) = self.lab else {
            return Ok(());
        };
        let mut connection = Connection::open(&Root::open()?, &lab)?;
        let _: Option<DownReport> =
            connection.call(&Request::Down { keep_data: false }, |_| true)?;
        connection.wait_closed();
        Ok(())
    }
}

/// Starts servers of a lab that are down; comes back when they serve.
pub(super) fn start(lab: &str, nodes: &[NodeId]) -> Result<(), Failure> {
    let report: ActReport = ask(
        lab,
        &Request::Start {
            nodes: nodes.iter().map(NodeId::to_string).collect(),
        },
    )?;
    match report.exit {
        Exit::Ok => Ok(()),
        exit => {
            let words: Vec<String> = report.nodes.into_iter().map(|act| act.text).collect();
            Err(Failure::new(
                exit,
                format!(
                    "a server that was killed does not come back: {}",
                    words.join(", ")
                ),
            ))
        }
    }
}

/// The directory with logs and snapshots of a node.
pub(super) fn version_2(node: &InfoNode) -> PathBuf {
    let dir = node.config.parent().unwrap_or(&node.config);
    dir.join("data").join("version-2")
}

fn bring_up(
    args: &BenchArgs,
    kind: &ServerKind,
    nodes: u8,
    lab: String,
) -> Result<Subject, Failure> {
    let request = Request::Up(UpRequest {
        data: data_place(Some(&args.data)),
        timeout_ms: UP_PATIENCE_MS,
        lease: true,
        ..UpRequest::new(lab.clone(), nodes, kind.clone())
    });
    let mut lease = Connection::launch_to_measure(NetKind::Loopback)?;
    let report: UpReport = lease
        .call(&request, |_| true)?
        .ok_or_else(|| Failure::new(Exit::Interrupted, "interrupted"))?;
    let info: Info = ask(&lab, &Request::Info)?;
    let mut subject = Subject {
        name: report.server,
        servers: info.addresses()?,
        pids: Vec::new(),
        first_write_ms: report.first_write_ms,
        lab: Some((lab, lease)),
    };
    subject.look_again()?;
    Ok(subject)
}

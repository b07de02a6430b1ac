//! Where the screen gets its news: three threads that only ever send.

use std::net::SocketAddr;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

use crate::clock::now_us;
use crate::ensemble::status::Status;
use crate::event::LabEvent;
use crate::failure::{Context, Failure};
use crate::probe::session::{Session, SessionError};
use crate::scenario::words::{Options, parse};
use crate::supervisor::client::{Connection, Early};
use crate::supervisor::home::Root;
use crate::supervisor::protocol::{Info, Request};

/// How often every node is asked.
const ASK: Duration = Duration::from_millis(250);
/// How often the probe writes.
const WRITE: Duration = Duration::from_millis(100);
/// After so long a write counts as not answered.
const PATIENCE: Duration = Duration::from_millis(500);
const SESSION: Duration = Duration::from_secs(10);

/// What is new.
#[derive(Debug)]
pub(super) enum News {
    /// Something happened.
    Event(LabEvent),
    /// Every node was asked.
    Status(Box<Status>),
    /// The probe wrote, at this time of the system's clock, and was answered after so many microseconds, or not.
    Probe { at_us: u64, took_us: Option<u64> },
    /// What was asked for with a key is done, or why it is not.
    Done {
        words: String,
        result: Result<String, Failure>,
    },
    /// It is over: the lab is, or somebody wants this program to end.
    Ended(Option<Failure>),
}

/// Starts to listen.
///
/// # Errors
/// If the lab is gone, or the machine has no thread left.
pub(super) fn start(
    lab: &str,
    info: &Info,
    probing: bool,
    news: &Sender<News>,
) -> Result<(), Failure> {
    let root = Root::open()?;
    events(Connection::open(&root, lab)?, news.clone())?;
    statuses(lab.to_owned(), news.clone())?;
    let addresses: Vec<SocketAddr> = info
        .nodes
        .iter()
        .filter_map(|node| node.addr.parse().ok())
        .collect();
    let path = format!("/zklab-watch-{}", std::process::id());
    let sender = news.clone();
    spawn("watch-probe", move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        // Without a runtime there are no measurements, and everything else works.
        let Ok(runtime) = runtime else { return };
        runtime.block_on(async {
            tokio::select! {
                () = asked_to_end() => { let _ = sender.send(News::Ended(None)); }
                () = probe(&addresses, &path, probing, &sender) => {}
            }
        });
    })
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    let thread = thread::Builder::new().name(name.to_owned()).spawn(work);
    thread
        .map(drop)
        .doing(|| "cannot start a thread".to_owned())
}

fn events(mut connection: Connection, news: Sender<News>) -> Result<(), Failure> {
    spawn("watch-events", move || {
        let ended =
            connection.call::<Value>(&Request::Events { follow: true }, |early| match early {
                Early::Event(event) => news.send(News::Event(event)).is_ok(),
                Early::News(_) | Early::Bytes(_) => true,
            });
        let _ = news.send(News::Ended(ended.err()));
    })
}

fn statuses(lab: String, news: Sender<News>) -> Result<(), Failure> {
    spawn("watch-status", move || {
        loop {
            let asked = Root::open().and_then(|root| {
                Connection::open(&root, &lab)?.call::<Status>(&Request::Status, |_| true)
            });
            // If the lab is gone, the events say so.
            if let Ok(Some(status)) = asked
                && news.send(News::Status(Box::new(status))).is_err()
            {
                return;
            }
            thread::sleep(ASK);
        }
    })
}

/// A signal that would otherwise leave the terminal as it is.
async fn asked_to_end() {
    let (Ok(mut term), Ok(mut hangup)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::hangup()),
    ) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = hangup.recv() => {}
    }
}

/// Writes one small ephemeral znode over and over, wherever somebody answers.
async fn probe(addresses: &[SocketAddr], path: &str, probing: bool, news: &Sender<News>) {
    if !probing || addresses.is_empty() {
        return std::future::pending().await;
    }
    let mut session: Option<Session> = None;
    for turn in 0.. {
        let at_us = now_us();
        if session.is_none() {
            session = enter(addresses[turn % addresses.len()], path).await.ok();
        }
        let done = match &mut session {
            Some(session) => session.set(path, b"").await.map(drop),
            None => Err(SessionError::Silent),
        };
        let took_us = done.is_ok().then(|| now_us() - at_us);
        if took_us.is_none() {
            session = None;
        }
        if news.send(News::Probe { at_us, took_us }).is_err() {
            return;
        }
        tokio::time::sleep(WRITE).await;
    }
}

async fn enter(address: SocketAddr, path: &str) -> Result<Session, SessionError> {
    // NodeExists: an earlier session of ours is not over yet, and its znode is as good.
    const EXISTS: i32 = -110;
    let mut session = Session::open(address, SESSION, None, PATIENCE).await?;
    match session.create_ephemeral(path, b"").await {
        Ok(_) | Err(SessionError::Refused(EXISTS)) => Ok(session),
        Err(error) => Err(error),
    }
}

/// Asks the supervisor for what a key meant; the answer comes as news.
pub(super) fn carry_out(lab: &str, words: &str, nodes: usize, news: &Sender<News>) {
    let (lab, words, sender) = (lab.to_owned(), words.to_owned(), news.clone());
    let started = spawn("watch-deed", move || {
        let result = ask(&lab, &words, nodes);
        let _ = sender.send(News::Done { words, result });
    });
    if let Err(failure) = started {
        let _ = news.send(News::Ended(Some(failure)));
    }
}

fn ask(lab: &str, words: &str, nodes: usize) -> Result<String, Failure> {
    let nodes = u8::try_from(nodes).unwrap_or(u8::MAX);
    let deed =
        parse(words, &Options::default(), nodes).map_err(|wrong| Failure::usage(wrong.cause))?;
    let mut connection = Connection::open(&Root::open()?, lab)?;
    let answer: Option<Value> = connection.call(&deed.request, |_| true)?;
    Ok(outcome(&answer.unwrap_or_default()))
}

/// What a report says in a few words.
fn outcome(answer: &Value) -> String {
    let nodes = answer["nodes"].as_array().into_iter().flatten();
    let told: Vec<String> = nodes
        .filter_map(|node| {
            Some(format!(
                "{} {}",
                node["id"].as_str()?,
                node["text"].as_str()?
            ))
        })
        .collect();
    if !told.is_empty() {
        return told.join(" · ");
    }
    let healed = answer["healed"].as_array().into_iter().flatten();
    let healed: Vec<&str> = healed.filter_map(Value::as_str).collect();
    match (answer["what"].as_str(), answer["done"].as_str()) {
        (Some(what), Some(done)) => format!("{what}: {done}"),
        _ if !healed.is_empty() => format!("healed {}", healed.join(" ")),
        _ if answer["healed"].is_array() => "there was nothing to heal".to_owned(),
        _ => "done".to_owned(),
    }
}

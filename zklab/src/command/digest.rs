//! `digest`: are the trees of all nodes equal at one zxid, and if not, where do they differ first?

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::json;

use super::Context;
use crate::cli::DigestArgs;
use crate::ensemble::status::{State, Status};
use crate::event::HexZxid;
use crate::failure::{Context as _, Exit, Failure};
use crate::id::NodeId;
use crate::observe::trees::{Readers, Tree};
use crate::supervisor::protocol::Request;

/// Between two questions.
const BREATH: Duration = Duration::from_millis(20);
/// How long one answer of a server may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What was found at one zxid.
#[derive(Debug)]
struct Found {
    zxid: HexZxid,
    /// The nodes by digest.
    nodes: BTreeMap<String, Vec<NodeId>>,
    /// The first path that differs, and how.
    first: Option<String>,
}

pub(super) fn run(context: &Context, args: &DigestArgs) -> Result<Exit, Failure> {
    let deadline = Instant::now() + args.timeout;
    loop {
        let status: Status = context.ask(&Request::Status)?;
        let serving = status
            .nodes
            .iter()
            .filter(|node| node.state == State::Serving);
        let count = serving.clone().count();
        if count == 0 {
            return Err(Failure::new(Exit::Missed, "no node serves")
                .hint("`zklab status` shows where everybody is"));
        }
        let all_tell = serving.clone().all(|node| node.digest.is_some());
        let found = if args.diff || !all_tell {
            read(&status)?
        } else {
            told(&status, args.at)?
        };
        if let Some(found) = found {
            return Ok(show(context, &found));
        }
        if Instant::now() >= deadline {
            let cause = match args.at {
                Some(at) => format!("the nodes never stood at {} together", HexZxid(at)),
                None => "the nodes never stood at one zxid: somebody writes".to_owned(),
            };
            return Err(Failure::new(Exit::Inconclusive, cause)
                .hint("--timeout waits longer; a digest is only compared at equal zxid"));
        }
        sleep(BREATH);
    }
}

/// What the servers tell themselves, once all are at one zxid.
fn told(status: &Status, at: Option<i64>) -> Result<Option<Found>, Failure> {
    let mut nodes: BTreeMap<String, Vec<NodeId>> = BTreeMap::new();
    let mut zxid = None;
    for node in &status.nodes {
        let Some(digest) = node
            .digest
            .as_ref()
            .filter(|_| node.state == State::Serving)
        else {
            continue;
        };
        if at.is_some_and(|at| digest.zxid.0 > at) {
            let (at, now) = (HexZxid(at.unwrap_or_default()), digest.zxid);
            return Err(Failure::new(
                Exit::Inconclusive,
                format!("{} stands at {now}, past {at}", node.id),
            )
            .hint("servers tell the digest of where they stand only"));
        }
        if *zxid.get_or_insert(digest.zxid) != digest.zxid {
            return Ok(None);
        }
        nodes.entry(digest.value.clone()).or_default().push(node.id);
    }
    let found = zxid.filter(|zxid| at.is_none_or(|at| zxid.0 == at));
    Ok(found.map(|zxid| Found {
        zxid,
        nodes,
        first: None,
    }))
}

/// What clients are shown, once all are at one zxid.
fn read(status: &Status) -> Result<Option<Found>, Failure> {
    let nodes: Vec<(NodeId, SocketAddr)> = status
        .nodes
        .iter()
        .filter(|node| node.state == State::Serving)
        .filter_map(|node| Some((node.id, node.addr.parse().ok()?)))
        .collect();
    let addresses: Vec<SocketAddr> = nodes.iter().map(|(_, address)| *address).collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .doing(|| "cannot start clients".to_owned())?;
    let done = runtime.block_on(async {
        let mut readers = Readers::open(&addresses, PATIENCE).await?;
        let trees = readers.read().await;
        readers.close().await;
        trees
    });
    let trees = match done {
        Ok(trees) => trees,
        Err((index, error)) => {
            let id = nodes[index].0;
            return Err(Failure::new(
                Exit::Missed,
                format!("the tree of {id} cannot be read: {error}"),
            ));
        }
    };
    let Some(first) = trees.first() else {
        return Ok(None);
    };
    if !trees
        .iter()
        .all(|tree| tree.is_still() && tree.to == first.to)
    {
        return Ok(None);
    }
    Ok(Some(compare(&nodes, &trees)))
}

fn compare(nodes: &[(NodeId, SocketAddr)], trees: &[Tree]) -> Found {
    let mut by_digest: BTreeMap<String, Vec<NodeId>> = BTreeMap::new();
    let mut first = None;
    for (index, tree) in trees.iter().enumerate() {
        let digest = format!("{:016x}", tree.digest());
        by_digest.entry(digest).or_default().push(nodes[index].0);
        if let (None, Some((path, what))) = (&first, trees[0].differs(tree)) {
            let (one, two) = (nodes[0].0, nodes[index].0);
            first = Some(match what {
                crate::observe::trees::Difference::OnlyFirst(owner) => {
                    format!("{path} ({one} has it, {two} does not{})", owned(owner))
                }
                crate::observe::trees::Difference::OnlySecond(owner) => {
                    format!("{path} ({two} has it, {one} does not{})", owned(owner))
                }
                other => format!("{path} ({other} on {one} and {two})"),
            });
        }
    }
    Found {
        zxid: HexZxid(trees[0].to.0),
        nodes: by_digest,
        first,
    }
}

fn owned(owner: Option<String>) -> String {
    owner.map_or(String::new(), |session| {
        format!("; owner session {session}")
    })
}

fn show(context: &Context, found: &Found) -> Exit {
    let out = &context.out;
    let equal = found.nodes.len() <= 1 && found.first.is_none();
    out.json(&json!({
        "v": 1,
        "cmd": "digest",
        "zxid": found.zxid,
        "equal": equal,
        "nodes": found.nodes,
        "first_path": found.first,
    }));
    let short = |digest: &str| {
        let digits = digest.trim_start_matches('0');
        if digits.is_empty() { "0" } else { digits }.to_owned()
    };
    let names = |ids: &[NodeId]| {
        let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        ids.join(" ")
    };
    if equal {
        for (digest, ids) in &found.nodes {
            let text = format!("({}) on {}", short(digest), names(ids));
            out.line(&format!("digest equal at {} {text}", found.zxid));
        }
        return Exit::Ok;
    }
    // The side with most nodes first.
    let mut sides: Vec<(&String, &Vec<NodeId>)> = found.nodes.iter().collect();
    sides.sort_by_key(|(_, ids)| std::cmp::Reverse(ids.len()));
    let sides: Vec<String> = sides
        .iter()
        .map(|(digest, ids)| format!("{} {}", names(ids), short(digest)))
        .collect();
    let first = match &found.first {
        Some(first) => format!("; first path that differs: {first}"),
        None => "; `zklab digest --diff` tells where".to_owned(),
    };
    let word = out.paint.red("DIVERGED");
    out.line(&format!(
        "{word} at {}: {}{first}",
        found.zxid,
        sides.join(", ")
    ));
    Exit::Bug
}

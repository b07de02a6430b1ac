//! `cli`: the ensemble as an application's client sees it, through the independent client crate.

use std::time::Duration;

use clap::Parser;
use serde_json::json;
use zkd::ids::Zxid;
use zookeeper_client::{Acls, Client, CreateMode, Error, Stat};

use super::Context;
use crate::cli::{CliArgs, ClientCli, ClientCommand};
use crate::ensemble::select::is_node_word;
use crate::failure::{Context as _, Exit, Failure};
use crate::supervisor::protocol::{Info, Request};

/// How long the ensemble may take to accept a session.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn run(context: &mut Context, args: CliArgs) -> Result<Exit, Failure> {
    let mut words = args.words;
    let node = if is_node_word(&words[0]) {
        Some(words.remove(0))
    } else {
        None
    };
    let inner = match ClientCli::try_parse_from(&words) {
        Ok(inner) => inner,
        Err(error) => error.exit(),
    };
    context.out.json |= inner.json;
    let info: Info = context.ask(&Request::Info)?;
    let chosen = super::logs::chosen(&info, &node.into_iter().collect::<Vec<_>>())?;
    let addresses: Vec<&str> = chosen.iter().map(|node| node.addr.as_str()).collect();
    let cluster = addresses.join(",");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .doing(|| "cannot start a client".to_owned())?;
    runtime.block_on(async {
        let connector = Client::connector()
            .with_session_timeout(Duration::from_secs(10))
            .with_connection_timeout(PATIENCE)
            .with_fail_eagerly();
        let client = match tokio::time::timeout(PATIENCE, connector.connect(&cluster)).await {
            Ok(Ok(client)) => client,
            Ok(Err(error)) => return Err(no_session(&info, &cluster, &error.to_string())),
            Err(_) => return Err(no_session(&info, &cluster, "no answer in 5 s")),
        };
        let done = tokio::time::timeout(PATIENCE, act(context, &client, inner.command)).await;
        match done {
            Ok(Ok(())) => Ok(Exit::Ok),
            Ok(Err(failure)) => Err(failure),
            Err(_) => Err(no_session(&info, &cluster, "no answer in 5 s")),
        }
    })
}

fn no_session(info: &Info, cluster: &str, why: &str) -> Failure {
    let running = info.nodes.iter().filter(|node| node.running).count();
    Failure::new(
        Exit::Missed,
        format!(
            "no server of {cluster} serves a client ({why}); {running} of {} nodes run",
            info.nodes.len()
        ),
    )
    .hint("`zklab status` shows whether there is a quorum; `zklab start all` starts what is down")
}

async fn act(context: &Context, client: &Client, command: ClientCommand) -> Result<(), Failure> {
    match command {
        ClientCommand::Ls { path } => ls(context, client, &path).await,
        ClientCommand::Get { path } => get(context, client, &path).await,
        ClientCommand::Stat { path } => stat(context, client, &path).await,
        ClientCommand::Set {
            path,
            data,
            version,
        } => {
            let stat = client
                .set_data(&path, data.as_bytes(), version)
                .await
                .map_err(|error| refused(&path, &error))?;
            let text = format!("{path} version {}, zxid {}", stat.version, Zxid(stat.mzxid));
            done(context, "set", &path, Some(&stat), &text);
            Ok(())
        }
        ClientCommand::Create {
            path,
            data,
            sequential,
            container,
            ttl,
        } => {
            let mode = match (sequential, container) {
                (true, _) => CreateMode::PersistentSequential,
                (_, true) => CreateMode::Container,
                _ => CreateMode::Persistent,
            };
            let mut options = mode.with_acls(Acls::anyone_all());
            if let Some(ttl) = ttl {
                options = options.with_ttl(ttl);
            }
            let (stat, sequence) = client
                .create(&path, data.as_bytes(), &options)
                .await
                .map_err(|error| refused(&path, &error))?;
            let path = if sequential {
                format!("{path}{sequence}")
            } else {
                path
            };
            let text = format!("{path} created, zxid {}", Zxid(stat.czxid));
            done(context, "create", &path, Some(&stat), &text);
            Ok(())
        }
        ClientCommand::Delete { path, version } => {
            let deleted = client.delete(&path, version).await;
            deleted.map_err(|error| refused(&path, &error))?;
            done(context, "delete", &path, None, &format!("{path} deleted"));
            Ok(())
        }
    }
}

async fn ls(context: &Context, client: &Client, path: &str) -> Result<(), Failure> {
    let names = client.list_children(path).await;
    let mut names = names.map_err(|error| refused(path, &error))?;
    names.sort();
    let value = json!({ "v": 1, "cmd": "ls", "path": path, "children": names });
    context.out.json(&value);
    for name in names {
        context.out.line(&name);
    }
    Ok(())
}

async fn get(context: &Context, client: &Client, path: &str) -> Result<(), Failure> {
    let got = client.get_data(path).await;
    let (data, stat) = got.map_err(|error| refused(path, &error))?;
    let text = String::from_utf8_lossy(&data);
    let stat = stat_json(&stat);
    let value = json!({ "v": 1, "cmd": "get", "path": path, "data": text, "stat": stat });
    context.out.json(&value);
    if !context.out.json {
        context.out.raw(&data);
        context.out.raw(b"\n");
    }
    Ok(())
}

async fn stat(context: &Context, client: &Client, path: &str) -> Result<(), Failure> {
    let found = client.check_stat(path).await;
    let found = found.map_err(|error| refused(path, &error))?;
    let stat = found.ok_or_else(|| refused(path, &Error::NoNode))?;
    let value = json!({ "v": 1, "cmd": "stat", "path": path, "stat": stat_json(&stat) });
    context.out.json(&value);
    show_stat(context, &stat);
    Ok(())
}

fn done(context: &Context, cmd: &str, path: &str, stat: Option<&Stat>, text: &str) {
    let mut value = json!({ "v": 1, "cmd": cmd, "path": path });
    if let Some(stat) = stat {
        value["stat"] = stat_json(stat);
    }
    context.out.json(&value);
    context.out.line(text);
}

fn refused(path: &str, error: &Error) -> Failure {
    let exit = match error {
        Error::BadArguments(_) => Exit::Usage,
        _ => Exit::Missed,
    };
    Failure::new(exit, format!("{path}: {error}"))
}

fn stat_json(stat: &Stat) -> serde_json::Value {
    json!({
        "czxid": Zxid(stat.czxid).to_string(),
        "mzxid": Zxid(stat.mzxid).to_string(),
        "pzxid": Zxid(stat.pzxid).to_string(),
        "ctime": stat.ctime,
        "mtime": stat.mtime,
        "version": stat.version,
        "cversion": stat.cversion,
        "aversion": stat.aversion,
        "ephemeral_owner": format!("0x{:x}", stat.ephemeral_owner),
        "data_length": stat.data_length,
        "num_children": stat.num_children,
    })
}

fn show_stat(context: &Context, stat: &Stat) {
    let rows = [
        ("cZxid", Zxid(stat.czxid).to_string()),
        ("ctime", stat.ctime.to_string()),
        ("mZxid", Zxid(stat.mzxid).to_string()),
        ("mtime", stat.mtime.to_string()),
        ("pZxid", Zxid(stat.pzxid).to_string()),
        ("cversion", stat.cversion.to_string()),
        ("dataVersion", stat.version.to_string()),
        ("aclVersion", stat.aversion.to_string()),
        ("ephemeralOwner", format!("0x{:x}", stat.ephemeral_owner)),
        ("dataLength", stat.data_length.to_string()),
        ("numChildren", stat.num_children.to_string()),
    ];
    for (name, value) in rows {
        context.out.line(&format!("{name} = {value}"));
    }
}

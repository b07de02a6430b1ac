//! `down`, `ls`, `status`, `env`: labs as a whole.

use std::thread::sleep;
use std::time::Duration;

use super::Context;
use crate::cli::{DownArgs, StatusArgs};
use crate::ensemble::status::Status;
use crate::failure::{Exit, Failure};
use crate::report::ensemble;
use crate::supervisor::client::Connection;
use crate::supervisor::home::Root;
use crate::supervisor::protocol::{DownReport, Info, Request};

pub(super) fn down(context: &mut Context, args: DownArgs) -> Result<Exit, Failure> {
    let root = Root::open()?;
    let labs = if args.all {
        root.labs()?
    } else {
        vec![args.name.unwrap_or_else(|| context.lab.clone())]
    };
    for lab in labs {
        let mut connection = Connection::open(&root, &lab)?;
        let request = Request::Down {
            keep_data: args.keep_data,
        };
        let report: Option<DownReport> = connection.call(&request, |_| true)?;
        connection.wait_closed();
        if let Some(report) = report {
            ensemble::down(&context.out, &report);
        }
    }
    Ok(Exit::Ok)
}

pub(super) fn ls(context: &Context) -> Result<Exit, Failure> {
    let root = Root::open()?;
    let mut found: Vec<Status> = Vec::new();
    for lab in root.labs()? {
        // A lab that is just being made or ended does not answer: it is not up.
        let Ok(mut connection) = Connection::open(&root, &lab) else {
            continue;
        };
        if let Ok(Some(status)) = connection.call(&Request::Status, |_| true) {
            found.push(status);
        }
    }
    let labs: Vec<serde_json::Value> = found
        .iter()
        .map(|lab| {
            let up = lab.nodes.iter().filter(|node| node.pid.is_some()).count();
            serde_json::json!({
                "lab": lab.lab,
                "up": up,
                "nodes": lab.nodes.len(),
                "quorum": lab.quorum,
                "leader": lab.leader,
                "server": lab.server,
                "net": lab.net,
                "up_ms": lab.up_ms,
                "faults": lab.faults.len(),
            })
        })
        .collect();
    let value = serde_json::json!({ "v": 1, "cmd": "ls", "labs": labs });
    context.out.json(&value);
    ensemble::labs(&context.out, &found);
    Ok(Exit::Ok)
}

pub(super) fn status(context: &Context, args: &StatusArgs) -> Result<Exit, Failure> {
    loop {
        let status: Status = context.ask(&Request::Status)?;
        if args.watch && context.out.paint.on {
            // Back to the top left corner, and away with what was there.
            context.out.raw(b"\x1b[H\x1b[2J");
        }
        ensemble::status(&context.out, &status, args.wide);
        if !args.watch {
            return Ok(Exit::Ok);
        }
        sleep(Duration::from_secs(1));
    }
}

pub(super) fn env(context: &Context) -> Result<Exit, Failure> {
    let info: Info = context.ask(&Request::Info)?;
    let hosts: Vec<&str> = info.nodes.iter().map(|node| node.addr.as_str()).collect();
    let hosts = hosts.join(",");
    context.out.json(&serde_json::json!({
        "v": 1,
        "cmd": "env",
        "lab": info.lab,
        "ZKLAB_LAB": info.lab,
        "ZK_HOSTS": hosts,
        "supervisor_pid": info.supervisor_pid,
        "nodes": info.nodes,
    }));
    context.out.line(&format!("export ZKLAB_LAB={}", info.lab));
    context.out.line(&format!("export ZK_HOSTS={hosts}"));
    Ok(Exit::Ok)
}

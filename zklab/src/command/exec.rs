//! `exec`: a program inside the network of a node.
//!
//! The program is this command's child, so terminal, pipes and Ctrl-C work as ever. But it is a process of
//! the lab's PID namespace: when the lab ends, so does it and whatever it has started.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use nix::sched::{CloneFlags, setns};

use super::Context;
use crate::cli::ExecArgs;
use crate::failure::{Context as _, Exit, Failure};
use crate::net::Door;
use crate::supervisor::protocol::Request;

/// Ends this process with the program's exit code (128 and the number of the signal that ended it) once it
/// could be started.
pub(super) fn run(context: &Context, args: &ExecArgs) -> Result<Exit, Failure> {
    let door: Door = context.ask(&Request::Door {
        node: args.node.clone(),
    })?;
    enter(&door)?;
    let (program, arguments) = args.command.split_first().expect("clap asks for one");
    let cannot = || format!("cannot run {}", program.display());
    let status = Command::new(program)
        .args(arguments)
        .env("ZKLAB_NODE", &args.node)
        .status()
        .doing(cannot)?;
    let code = status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    std::process::exit(code);
}

/// The user's shell inside, as [`run`].
pub(super) fn shell(context: &Context, node: String) -> Result<Exit, Failure> {
    let shell = std::env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into());
    let command = vec![shell];
    run(context, &ExecArgs { node, command })
}

/// Makes this process's children be born inside.
fn enter(door: &Door) -> Result<(), Failure> {
    let spaces = [
        (door.user.as_ref(), CloneFlags::CLONE_NEWUSER),
        (Some(&door.net), CloneFlags::CLONE_NEWNET),
        (Some(&door.pid), CloneFlags::CLONE_NEWPID),
    ];
    // All are opened first: the paths are those of the world outside.
    let mut doors = Vec::new();
    for (path, kind) in spaces {
        if let Some(path) = path {
            let space = File::open(path).doing(|| format!("cannot open {}", path.display()))?;
            doors.push((space, kind));
        }
    }
    for (space, kind) in doors {
        setns(space, kind)
            .doing(|| "cannot enter the node's network".to_owned())
            .map_err(|failure| failure.hint("only the user who made the lab can"))?;
    }
    Ok(())
}

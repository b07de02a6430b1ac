//! `pcap`: packets into a file.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::thread;

use nix::sys::signal::{SigSet, Signal};

use super::Context;
use super::up::millis;
use crate::cli::PcapArgs;
use crate::failure::{Context as _, Exit, Failure};
use crate::report::network;
use crate::supervisor::client::{Connection, Early};
use crate::supervisor::home::Root;
use crate::supervisor::protocol::{PcapReport, PcapRequest, Request};

pub(super) fn run(context: &Context, args: PcapArgs) -> Result<Exit, Failure> {
    let is_stdout = args.output == Path::new("-");
    if is_stdout && context.out.json {
        return Err(
            Failure::usage("stdout cannot take both the packets and --json")
                .hint("-o FILE leaves stdout to --json"),
        );
    }
    let mut connection = Connection::open(&Root::open()?, &context.lab)?;
    let cannot = || "cannot wait for Ctrl-C".to_owned();
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    signals.thread_block().doing(cannot)?;
    let end = connection.ender()?;
    thread::Builder::new()
        .spawn(move || {
            // If it fails, only the end of the lab or of what was asked for ends this.
            if signals.wait().is_ok() {
                end();
            }
            // Whoever says it twice does not want to wait for the reader of a pipe.
            if signals.wait().is_ok() {
                std::process::exit(Exit::Interrupted.code().into());
            }
        })
        .doing(cannot)?;
    let request = Request::Pcap(PcapRequest {
        nodes: args.nodes,
        for_ms: args.for_.map(millis),
        count: args.count,
    });
    let mut target = Target {
        path: &args.output,
        // Made when the first bytes come: what is refused leaves an old file alone.
        to: is_stdout.then(|| Box::new(io::stdout()) as Box<dyn Write>),
        failed: None,
    };
    let report: Option<PcapReport> = connection.call(&request, |early| match early {
        Early::Bytes(bytes) => target.write(&bytes),
        Early::News(_) | Early::Event(_) => true,
    })?;
    if let Some(error) = target.failed {
        // Whoever reads stdout has seen enough.
        if is_stdout && error.kind() == ErrorKind::BrokenPipe {
            return Ok(Exit::Ok);
        }
        return Err(error).doing(|| format!("cannot write {}", args.output.display()));
    }
    let Some(report) = report else {
        return Ok(Exit::Interrupted);
    };
    network::captured(&context.out, &report, &args.output);
    Ok(report.exit)
}

/// Where the bytes go.
struct Target<'a> {
    path: &'a Path,
    to: Option<Box<dyn Write>>,
    failed: Option<io::Error>,
}

impl Target<'_> {
    /// Writes a piece; false if that failed.
    fn write(&mut self, bytes: &[u8]) -> bool {
        self.failed = self.try_to(bytes).err();
        self.failed.is_none()
    }

    fn try_to(&mut self, bytes: &[u8]) -> io::Result<()> {
        let to = match &mut self.to {
            Some(to) => to,
            None => self.to.insert(Box::new(File::create(self.path)?)),
        };
        to.write_all(bytes)?;
        to.flush()
    }
}

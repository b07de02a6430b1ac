//! The zkd binary: arguments, configuration, log, one call into the library, an exit code.

mod cli;

use std::fs;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;
use zkd::config::{Config, ConfigError, ConfigWarning};
use zkd::runtime::ServeOptions;

use cli::{CheckArgs, Cli, Command, LogArgs, LogFormat, ServeArgs};

/// Wrong arguments or configuration.
const EXIT_CONFIG: u8 = 2;

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(args) => serve(&args),
        Command::Check(args) => check(&args),
    }
}

fn serve(args: &ServeArgs) -> ExitCode {
    if let Err(error) = start_log(&args.log) {
        say(&format!("error: --log {}: {error}", args.log.log));
        return ExitCode::from(EXIT_CONFIG);
    }
    let format = args.log.log_format;
    #[cfg(feature = "planted")]
    if let Ok(name) = std::env::var("ZKD_PLANTED")
        && let Err(error) = zkd::planted::plant(&name)
    {
        say(&format!("error: ZKD_PLANTED: {error}"));
        return ExitCode::from(EXIT_CONFIG);
    }
    let loaded = match &args.file {
        None => Ok((Config::default(), Vec::new())),
        Some(file) => load(file, true),
    };
    let (config, warnings) = match loaded {
        Ok(loaded) => loaded,
        Err(error) => return refuse(&error, format),
    };
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let options = ServeOptions {
        events: args.events.clone(),
    };
    match zkd::runtime::serve(&config, &options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error.message, format);
            ExitCode::from(error.code)
        }
    }
}

fn check(args: &CheckArgs) -> ExitCode {
    let (config, warnings) = match load(&args.file, false) {
        Ok(loaded) => loaded,
        Err(error) => return refuse(&error, LogFormat::Human),
    };
    for warning in warnings {
        say(&format!("warning: {warning}"));
    }
    match io::stdout().write_all(config.effective_text().as_bytes()) {
        // Whoever reads only the beginning of the output knows what they do.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            say(&format!("error: stdout: {error}"));
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Tells every problem on a line of its own.
fn refuse(error: &ConfigError, format: LogFormat) -> ExitCode {
    for problem in error.to_string().lines() {
        complain(problem, format);
    }
    ExitCode::from(EXIT_CONFIG)
}

/// Tells why nothing comes of it: to people as a plain line, to programs as a line of their log.
fn complain(problem: &str, format: LogFormat) {
    match format {
        LogFormat::Human => say(&format!("error: {problem}")),
        LogFormat::Json => tracing::error!("{problem}"),
    }
}

/// A line on stderr, which may be closed, full or read by nobody.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

fn start_log(args: &LogArgs) -> Result<(), tracing_subscriber::filter::ParseError> {
    let filter = EnvFilter::builder().parse(&args.log)?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        // A log that nobody can read is no reason to end: complaining about it on stderr would be one.
        .log_internal_errors(false)
        .with_ansi(io::stderr().is_terminal());
    match args.log_format {
        LogFormat::Human => log.init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
    Ok(())
}

/// Reads a configuration with the files that it points to. A missing `myid` is only doubtful when nothing is to
/// be started.
fn load(file: &Path, must_start: bool) -> Result<(Config, Vec<ConfigWarning>), ConfigError> {
    let name = file.display().to_string();
    let (mut config, mut warnings) = Config::parse(&read(file)?, &name)?;
    if let Some(dynamic) = config.dynamic_config_file.clone() {
        let name = dynamic.display().to_string();
        let more;
        (config, more) = config.with_dynamic(&read(&dynamic)?, &name)?;
        warnings.extend(more);
    }
    let path = config.data_dir.join("myid");
    let name = path.display().to_string();
    if path.exists() {
        let more;
        (config, more) = config.with_my_id(&read(&path)?, &name)?;
        warnings.extend(more);
    } else if config.is_distributed() {
        let ids: Vec<String> = config
            .servers
            .servers
            .keys()
            .map(ToString::to_string)
            .collect();
        let what = format!(
            "missing: a server of an ensemble needs its number here, one of {}",
            ids.join(", ")
        );
        if must_start {
            return Err(ConfigError::whole_file(&name, what));
        }
        warnings.push(ConfigWarning {
            file: name,
            line: None,
            what,
        });
    }
    Ok((config, warnings))
}

/// The text of a file. Java's properties are Latin-1; UTF-8 is what people write today.
fn read(path: &Path) -> Result<String, ConfigError> {
    let bytes = fs::read(path).map_err(|error| {
        ConfigError::whole_file(
            &path.display().to_string(),
            format!("cannot be read: {error}"),
        )
    })?;
    Ok(String::from_utf8(bytes)
        .unwrap_or_else(|error| error.into_bytes().into_iter().map(char::from).collect()))
}

//! What a node runs: zkd, or Apache ZooKeeper beside it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::failure::Failure;

/// A server program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServerKind {
    /// The zkd binary at this path. It tells its life on an event feed.
    Zkd(PathBuf),
    /// Apache ZooKeeper with this class path; it tells nothing and has to be asked.
    Apache(String),
}

/// Apache's own variable for options of the server's Java machine.
pub const SERVER_JVMFLAGS: &str = "SERVER_JVMFLAGS";
/// What they are otherwise: a lab wants servers that start soon and are small.
const LAB_JVMFLAGS: &str = "-Xmx256m -XX:TieredStopAtLevel=1";
/// Where Debian's package puts the server.
const DEBIAN_JAR: &str = "/usr/share/java/zookeeper.jar";

impl ServerKind {
    /// The server the user means: a path to zkd, `apache`, `apache:DIR`, or (none given) the zkd that
    /// lies beside this program or on the `PATH`.
    ///
    /// # Errors
    /// If there is no such program; says how to get it.
    pub fn find(wanted: Option<&str>) -> Result<Self, Failure> {
        match wanted {
            None => find_zkd(),
            Some("apache") => find_apache(Path::new("/usr/share/java")),
            Some(text) => match text.strip_prefix("apache:") {
                Some(dir) => find_apache(Path::new(dir)),
                None => given_zkd(Path::new(text)),
            },
        }
    }

    /// Does it write an event feed?
    #[must_use]
    pub fn has_feed(&self) -> bool {
        matches!(self, Self::Zkd(_))
    }

    /// A word for it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Zkd(_) => "zkd",
            Self::Apache(_) => "Apache ZooKeeper",
        }
    }

    /// Program and arguments that serve `config`; `feed` is the file descriptor for the event feed.
    #[must_use]
    pub fn command(&self, config: &Path, feed: Option<i32>) -> (OsString, Vec<OsString>) {
        match self {
            Self::Zkd(program) => {
                let mut arguments = vec!["serve".into(), config.into()];
                if let Some(fd) = feed {
                    arguments.push("--events".into());
                    arguments.push(format!("fd:{fd}").into());
                }
                (program.into(), arguments)
            }
            Self::Apache(class_path) => {
                let arguments = [
                    "-cp",
                    class_path,
                    "-Dzookeeper.admin.enableServer=false",
                    "org.apache.zookeeper.server.quorum.QuorumPeerMain",
                ];
                let flags = std::env::var(SERVER_JVMFLAGS);
                let flags = flags.as_deref().unwrap_or(LAB_JVMFLAGS);
                let mut arguments: Vec<OsString> = flags
                    .split_whitespace()
                    .chain(arguments)
                    .map(OsString::from)
                    .collect();
                arguments.push(config.into());
                ("java".into(), arguments)
            }
        }
    }
}

fn given_zkd(path: &Path) -> Result<ServerKind, Failure> {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    if path.is_file() {
        return Ok(ServerKind::Zkd(path));
    }
    Err(
        Failure::environment(format!("there is no server program {}", path.display()))
            .hint("--server takes the path of a zkd binary, `apache`, or `apache:DIR`"),
    )
}

fn find_zkd() -> Result<ServerKind, Failure> {
    let beside = std::env::current_exe()
        .ok()
        .and_then(|me| Some(me.parent()?.join("zkd")));
    if let Some(path) = beside.as_ref().filter(|path| path.is_file()) {
        return Ok(ServerKind::Zkd(path.clone()));
    }
    if let Some(path) = on_path("zkd") {
        return Ok(ServerKind::Zkd(path));
    }
    let looked = beside.map_or_else(String::new, |path| format!("{} and ", path.display()));
    Err(Failure::environment(format!(
        "zkd was not found (looked for {looked}`zkd` on the PATH)"
    ))
    .hint("build it with `cargo build --release`, or say where it is with --server PATH"))
}

/// A program on the `PATH`.
#[must_use]
pub fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

/// An unpacked release (`lib/*.jar` and perhaps a jar beside it), or a directory of jars as Debian's.
fn find_apache(dir: &Path) -> Result<ServerKind, Failure> {
    let failure = |what: String| {
        Failure::environment(what).hint(
            "install Debian's package `zookeeper`, or unpack an Apache release and use --server apache:DIR",
        )
    };
    if on_path("java").is_none() {
        return Err(failure("java is not on the PATH".to_owned()));
    }
    let debian = dir.join("zookeeper.jar");
    if debian.is_file() {
        let logging = ["slf4j-simple.jar", "slf4j-nop.jar"]
            .iter()
            .map(|jar| dir.join(jar))
            .find(|jar| jar.is_file());
        let mut class_path = debian.display().to_string();
        if let Some(jar) = logging {
            class_path = format!("{class_path}:{}", jar.display());
        }
        return Ok(ServerKind::Apache(class_path));
    }
    let lib = dir.join("lib");
    if lib.is_dir() {
        let class_path = format!("{0}/lib/*:{0}/*:{0}/conf", dir.display());
        return Ok(ServerKind::Apache(class_path));
    }
    Err(failure(format!(
        "no Apache ZooKeeper at {} (looked for zookeeper.jar and lib/)",
        dir.display()
    )))
}

/// Whether Debian's Apache ZooKeeper is here.
#[must_use]
pub fn apache_is_installed() -> bool {
    Path::new(DEBIAN_JAR).is_file() && on_path("java").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_says_how_to_get_one() {
        let failure = ServerKind::find(Some("/no/such/zkd")).unwrap_err();
        assert_eq!(failure.exit.code(), 5);
        assert!(failure.cause.contains("/no/such/zkd"), "{failure}");
        let failure = ServerKind::find(Some("apache:/no/such/dir")).unwrap_err();
        assert!(failure.hint.unwrap().contains("zookeeper"));
    }

    #[test]
    fn zkd_is_told_where_its_feed_goes() {
        let kind = ServerKind::Zkd("/opt/zkd".into());
        let (program, arguments) = kind.command(Path::new("/lab/n1/zoo.cfg"), Some(7));
        assert_eq!(program, "/opt/zkd");
        assert_eq!(arguments, ["serve", "/lab/n1/zoo.cfg", "--events", "fd:7"]);
    }
}

//! Where labs live on this machine: one directory for each, locked by its supervisor.
//!
//! The lock is a `flock` on the directory itself, so it ends with the supervisor, however that ends. A
//! directory that nobody holds belongs to a dead supervisor (whose servers die with it) and is removed by
//! whoever comes across it: its guard, or else the next command. Claiming and removing happen under a lock on the root
//! directory.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::unistd::{Pid, getuid};
use serde::{Deserialize, Serialize};

use crate::failure::{Context, Failure, nearest};
use crate::id::NodeId;

/// Overrides the root directory, for tests.
pub const ROOT_VARIABLE: &str = "ZKLAB_RUNTIME_DIR";

/// The longest lab name: the path of a socket must fit in 108 bytes.
const NAME_MAX: usize = 40;

/// Where the data of labs are: in memory, and on a disk.
const BASES: [&str; 2] = ["/dev/shm", "/var/tmp"];

/// A supervisor's servers are gone well before this after it.
const DYING_MAX: Duration = Duration::from_secs(10);
/// How often they are looked for meanwhile.
const LOOK: Duration = Duration::from_millis(2);

/// The directory of all labs of this user.
#[derive(Clone, Debug)]
pub struct Root {
    path: PathBuf,
    /// Tells the data directories of this root from those of the user's usual one, where it is empty.
    suffix: String,
}

/// The directory of one lab.
#[derive(Clone, Debug)]
pub struct Home {
    dir: PathBuf,
}

/// What has to be removed with a lab, written down before it is made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Belongings {
    /// Where the nodes' directories are.
    pub data_dir: PathBuf,
    /// The nodes.
    pub nodes: Vec<NodeId>,
    /// Leave the data there.
    pub keep_data: bool,
    /// The process that holds the lab.
    #[serde(default)]
    pub supervisor: u32,
}

/// Where the data goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DataPlace {
    /// In memory: fast, and `fsync` costs nothing.
    Tmpfs,
    /// On a disk.
    Disk,
    /// In a directory of the user's, which `down` leaves alone.
    Dir(PathBuf),
}

impl Root {
    /// Opens (and makes, if need be) the root directory.
    ///
    /// # Errors
    /// If it cannot be made, or belongs to somebody else.
    pub fn open() -> Result<Self, Failure> {
        let root = Self::meant();
        private_dir(&root.path)?;
        Ok(root)
    }

    /// Where it is, or would be.
    fn meant() -> Self {
        if let Some(path) = std::env::var_os(ROOT_VARIABLE) {
            let hash = path
                .as_encoded_bytes()
                .iter()
                .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                    (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
                });
            return Self {
                path: path.into(),
                suffix: format!("-{hash:016x}"),
            };
        }
        let session = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        Self {
            path: match session.filter(|dir| dir.is_dir()) {
                Some(dir) => dir.join("zklab"),
                None => PathBuf::from(format!("/tmp/zklab-{}", getuid())),
            },
            suffix: String::new(),
        }
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The home of a lab, whether it exists or not.
    ///
    /// # Errors
    /// If the name cannot be a lab's.
    pub fn home(&self, name: &str) -> Result<Home, Failure> {
        let good = !name.is_empty()
            && name.len() <= NAME_MAX
            && name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        if good {
            Ok(Home {
                dir: self.path.join(name),
            })
        } else {
            Err(Failure::usage(format!("{name:?} cannot be the name of a lab")).hint(format!(
                "letters, digits, '-', '_' and '.', at most {NAME_MAX}, beginning with a letter or digit"
            )))
        }
    }

    /// The names of the labs that run. Removes what dead supervisors left behind.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn labs(&self) -> Result<Vec<String>, Failure> {
        let lock = self.lock()?;
        let mut names = Vec::new();
        for (name, home) in self.homes()? {
            if home.is_held()? {
                names.push(name);
            } else {
                home.remove_left_behind()?;
            }
        }
        names.sort();
        self.leave(lock);
        Ok(names)
    }

    fn homes(&self) -> Result<Vec<(String, Home)>, Failure> {
        let cannot = || format!("cannot read {}", self.path.display());
        let mut homes = Vec::new();
        for entry in fs::read_dir(&self.path).doing(cannot)? {
            let name = entry.doing(cannot)?.file_name();
            let name = name.to_string_lossy().into_owned();
            if let Ok(home) = self.home(&name) {
                homes.push((name, home));
            }
        }
        Ok(homes)
    }

    /// Removes what a supervisor that has just ended left behind, and makes nothing.
    ///
    /// # Errors
    /// If something cannot be removed.
    pub fn sweep_after(supervisor: Pid) -> Result<(), Failure> {
        let root = Self::meant();
        // What it was about to start, and does not start any more, may hold its lab for a moment.
        let deadline = Instant::now() + DYING_MAX;
        loop {
            let swept = root.sweep(supervisor);
            if swept.as_ref().is_ok_and(|done| *done) || Instant::now() >= deadline {
                remove_bases();
                return swept.map(drop);
            }
            sleep(LOOK);
        }
    }

    /// Removes what nobody holds; tells whether that is everything of this supervisor.
    fn sweep(&self, supervisor: Pid) -> Result<bool, Failure> {
        let Some(lock) = self.lock_if_there()? else {
            return Ok(true);
        };
        let mut is_done = true;
        for (_, home) in self.homes()? {
            if !home.is_held()? {
                home.remove_left_behind()?;
            } else if home
                .belongings()
                .is_some_and(|of| of.is_held_by(supervisor))
            {
                is_done = false;
            }
        }
        self.leave(lock);
        Ok(is_done)
    }

    /// Makes and locks the home of a new lab; the lock lasts as long as the file.
    ///
    /// # Errors
    /// If there is such a lab.
    pub fn claim(&self, name: &str, belongings: &Belongings) -> Result<(Home, File), Failure> {
        let home = self.home(name)?;
        let _lock = self.lock()?;
        if home.dir.exists() {
            if home.is_held()? {
                return Err(Failure::usage(format!("lab {name} is up already")).hint(format!(
                    "`zklab status -L {name}` shows it, `zklab down {name}` ends it, `zklab up OTHER` makes another"
                )));
            }
            home.remove_left_behind()?;
        }
        let cannot = || format!("cannot make {}", home.dir.display());
        DirBuilder::new()
            .mode(0o700)
            .create(&home.dir)
            .doing(cannot)?;
        let held = File::open(&home.dir).doing(cannot)?;
        held.try_lock().doing(cannot)?;
        home.note(belongings)?;
        Ok((home, held))
    }

    /// Removes a lab's home and what belongs to it.
    ///
    /// # Errors
    /// If something cannot be removed.
    pub fn remove(&self, home: &Home) -> Result<(), Failure> {
        let lock = self.lock()?;
        home.remove_with(home.belongings())?;
        self.leave(lock);
        Ok(())
    }

    /// Where the data of a lab go.
    ///
    /// # Errors
    /// If there is no such place.
    pub fn data_dir(&self, place: &DataPlace, lab: &str) -> Result<PathBuf, Failure> {
        let base = match place {
            DataPlace::Dir(dir) => return Ok(dir.clone()),
            DataPlace::Tmpfs => BASES[0],
            DataPlace::Disk => BASES[1],
        };
        let shared = shared_dir(base);
        private_dir(&shared)?;
        Ok(shared.join(format!("{lab}{}", self.suffix)))
    }

    /// Fails because there is no such lab; says which there are.
    ///
    /// # Errors
    /// Always.
    pub fn unknown_lab<T>(&self, name: &str) -> Result<T, Failure> {
        let labs = self.labs()?;
        let guess = nearest(name, labs.iter().map(String::as_str))
            .map(|other| format!("; did you mean {other}?"))
            .unwrap_or_default();
        let failure = Failure::usage(format!("there is no lab {name:?}{guess}"));
        Err(if labs.is_empty() {
            failure.hint("no lab is up; `zklab up` makes one")
        } else {
            failure.hint(format!("labs that are up: {}", labs.join(" ")))
        })
    }

    fn lock(&self) -> Result<File, Failure> {
        loop {
            private_dir(&self.path)?;
            // It may be removed this moment, by a lab that ends.
            if let Some(lock) = self.lock_if_there()? {
                return Ok(lock);
            }
        }
    }

    /// The lock, or nothing if there is no such directory.
    fn lock_if_there(&self) -> Result<Option<File>, Failure> {
        let cannot = || format!("cannot lock {}", self.path.display());
        loop {
            let file = match File::open(&self.path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error).doing(cannot),
            };
            file.lock().doing(cannot)?;
            let held = file.metadata().doing(cannot)?;
            check_private(&self.path, &held)?;
            let there = fs::symlink_metadata(&self.path);
            if there.is_ok_and(|there| there.ino() == held.ino()) {
                return Ok(Some(file));
            }
        }
    }

    /// Gives the lock up. The last one out removes the directory, unless the user chose it.
    fn leave(&self, lock: File) {
        if self.suffix.is_empty() {
            // It fails while there are labs.
            let _ = fs::remove_dir(&self.path);
        }
        drop(lock);
    }
}

impl Home {
    /// Where the supervisor listens.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.join("socket")
    }

    /// What the supervisor itself has to say.
    #[must_use]
    pub fn log_file(&self) -> PathBuf {
        self.dir.join("supervisor.log")
    }

    fn belongings_file(&self) -> PathBuf {
        self.dir.join("lab.json")
    }

    fn belongings(&self) -> Option<Belongings> {
        let text = fs::read(self.belongings_file()).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Writes down what belongs to the lab: the old words are there until the new ones are.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn note(&self, belongings: &Belongings) -> Result<(), Failure> {
        let cannot = || format!("cannot write {}", self.belongings_file().display());
        let text = serde_json::to_vec(belongings).doing(cannot)?;
        let new = self.dir.join("lab.json.new");
        fs::write(&new, text).doing(cannot)?;
        fs::rename(new, self.belongings_file()).doing(cannot)
    }

    /// Does a supervisor hold it?
    fn is_held(&self) -> Result<bool, Failure> {
        let dir = File::open(&self.dir).doing(|| format!("cannot read {}", self.dir.display()))?;
        Ok(dir.try_lock().is_err())
    }

    /// Removes what a dead supervisor left, as soon as its servers are gone too.
    fn remove_left_behind(&self) -> Result<(), Failure> {
        let belongings = self.belongings();
        if let Some(belongings) = &belongings {
            belongings.wait_unused();
        }
        self.remove_with(belongings)
    }

    fn remove_with(&self, belongings: Option<Belongings>) -> Result<(), Failure> {
        if let Some(belongings) = belongings.filter(|of| !of.keep_data) {
            for dir in belongings.dirs() {
                gone(fs::remove_dir_all(dir))?;
            }
            // Fails if something else lies there, and then it must stay.
            let _ = fs::remove_dir(&belongings.data_dir);
            if let Some(shared) = belongings.data_dir.parent() {
                let _ = fs::remove_dir(shared);
            }
        }
        gone(fs::remove_dir_all(&self.dir))
    }
}

impl Belongings {
    fn is_held_by(&self, process: Pid) -> bool {
        i64::from(self.supervisor) == i64::from(process.as_raw())
    }

    /// The nodes' directories.
    fn dirs(&self) -> impl Iterator<Item = PathBuf> {
        let nodes = self.nodes.iter();
        nodes.map(|node| self.data_dir.join(node.to_string()))
    }

    /// Waits until no server is at work in the nodes' directories. The kernel kills the servers of a dead supervisor a
    /// moment after it has let go of its lock.
    fn wait_unused(&self) {
        // A server is started in its directory. One that is not there has no server.
        let dirs = self.dirs().filter_map(|dir| dir.canonicalize().ok());
        let dirs: Vec<PathBuf> = dirs.collect();
        let deadline = Instant::now() + DYING_MAX;
        while is_at_work_in(&dirs) && Instant::now() < deadline {
            sleep(LOOK);
        }
    }
}

/// Does a process of this user work in one of these directories?
fn is_at_work_in(dirs: &[PathBuf]) -> bool {
    let Ok(processes) = fs::read_dir("/proc") else {
        return false;
    };
    let places = processes.flatten().map(|entry| entry.path().join("cwd"));
    places
        .filter_map(|place| fs::read_link(place).ok())
        .any(|place| dirs.contains(&place))
}

/// Where the data of this user's labs are.
fn shared_dir(base: &str) -> PathBuf {
    Path::new(base).join(format!("zklab-{}", getuid()))
}

/// Removes the directories of this user's data if nothing is in them.
fn remove_bases() {
    for base in BASES {
        let _ = fs::remove_dir(shared_dir(base));
    }
}

/// That something is not there any more is as good as removing it.
fn gone(result: io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Failure::environment(
            format!("cannot remove the lab's files: {error}"),
        )),
        _ => Ok(()),
    }
}

/// Makes a directory for this user only, or checks that it is one.
fn private_dir(path: &Path) -> Result<(), Failure> {
    let made = DirBuilder::new().mode(0o700).create(path);
    if let Err(error) = made
        && error.kind() != io::ErrorKind::AlreadyExists
    {
        return Err(Failure::environment(format!(
            "cannot make {}: {error}",
            path.display()
        )));
    }
    let found = fs::symlink_metadata(path).doing(|| format!("cannot read {}", path.display()))?;
    check_private(path, &found)
}

/// Is it a directory of this user's own, which nobody else can write?
fn check_private(path: &Path, found: &fs::Metadata) -> Result<(), Failure> {
    if found.is_dir() && found.uid() == getuid().as_raw() && found.mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(Failure::environment(format!(
        "{} is not a directory that only you can write",
        path.display()
    ))
    .hint(format!(
        "remove it, or set {ROOT_VARIABLE} to another place"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(dir: &tempfile::TempDir) -> Root {
        Root {
            path: dir.path().to_owned(),
            suffix: String::new(),
        }
    }

    #[test]
    fn what_a_dead_supervisor_left_is_removed_and_the_rest_stays() {
        let dir = tempfile::tempdir().unwrap();
        let data = tempfile::tempdir().unwrap();
        let root = root(&dir);
        let belongings = Belongings {
            data_dir: data.path().to_owned(),
            nodes: vec![NodeId(1)],
            keep_data: false,
            supervisor: std::process::id(),
        };
        fs::create_dir_all(data.path().join("n1/data")).unwrap();
        fs::write(data.path().join("precious"), "").unwrap();
        let (_, held) = root.claim("a", &belongings).unwrap();
        let again = root.claim("a", &belongings).unwrap_err();
        assert_eq!(again.exit.code(), 2);
        assert_eq!(root.labs().unwrap(), ["a"]);
        drop(held);
        assert!(root.labs().unwrap().is_empty());
        assert!(!data.path().join("n1").exists());
        assert!(data.path().join("precious").exists());
        assert!(!dir.path().join("a").exists());
    }

    #[test]
    fn a_server_that_is_still_dying_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let data = tempfile::tempdir().unwrap();
        let node = data.path().join("n1");
        fs::create_dir(&node).unwrap();
        let root = root(&dir);
        let belongings = Belongings {
            data_dir: data.path().to_owned(),
            nodes: vec![NodeId(1)],
            keep_data: false,
            supervisor: 0,
        };
        drop(root.claim("a", &belongings).unwrap());
        let mut server = std::process::Command::new("cat")
            .current_dir(&node)
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let (tell, swept) = std::sync::mpsc::channel();
        std::thread::spawn(move || tell.send(root.sweep(Pid::this()).unwrap()));
        let silence = Duration::from_millis(200);
        assert!(swept.recv_timeout(silence).is_err() && node.exists());
        drop(server.stdin.take());
        server.wait().unwrap();
        assert!(swept.recv().unwrap());
        assert!(!node.exists());
    }

    #[test]
    fn a_guard_waits_for_its_own_lab_and_leaves_that_of_another() {
        let dir = tempfile::tempdir().unwrap();
        let data = tempfile::tempdir().unwrap();
        let root = root(&dir);
        let of = |supervisor| Belongings {
            data_dir: data.path().to_owned(),
            nodes: vec![NodeId(1)],
            keep_data: false,
            supervisor,
        };
        let node = data.path().join("n1");
        fs::create_dir(&node).unwrap();
        let (_, held) = root.claim("a", &of(7)).unwrap();
        assert!(!root.sweep(Pid::from_raw(7)).unwrap(), "it is held still");
        drop(held);
        // Somebody was faster and has made a new lab in its place.
        let (_, held) = root.claim("a", &of(8)).unwrap();
        fs::create_dir_all(&node).unwrap();
        assert!(root.sweep(Pid::from_raw(7)).unwrap());
        assert_eq!(root.labs().unwrap(), ["a"]);
        assert!(node.exists());
        drop(held);
        assert!(root.sweep(Pid::from_raw(8)).unwrap());
        assert!(!node.exists() && !dir.path().exists());
        assert!(root.sweep(Pid::from_raw(8)).unwrap(), "nothing is there");
        assert!(!dir.path().exists(), "and nothing is made");
    }

    #[test]
    fn names_that_could_leave_the_root_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["", "..", "a/b", ".a", "-x", "ä", &"x".repeat(41)] {
            assert!(root(&dir).home(name).is_err(), "{name:?}");
        }
    }
}

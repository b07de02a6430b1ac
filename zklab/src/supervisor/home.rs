//! Where labs live on this machine: one directory for each, locked by its supervisor.
//!
//! The lock is a `flock` on the directory itself, so it ends with the supervisor, however that ends. A
//! directory that nobody holds belongs to a dead supervisor (whose servers died with it) and is removed by
//! whoever comes across it. Claiming and removing happen under a lock on the root directory.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::unistd::getuid;
use serde::{Deserialize, Serialize};

use crate::failure::{Context, Failure, nearest};
use crate::id::NodeId;

/// Overrides the root directory, for tests.
pub const ROOT_VARIABLE: &str = "ZKLAB_RUNTIME_DIR";

/// The longest lab name: the path of a socket must fit in 108 bytes.
const NAME_MAX: usize = 40;

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
        let uid = getuid();
        if let Some(path) = std::env::var_os(ROOT_VARIABLE) {
            let path = PathBuf::from(path);
            private_dir(&path)?;
            let hash = path
                .as_os_str()
                .as_encoded_bytes()
                .iter()
                .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                    (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
                });
            return Ok(Self {
                path,
                suffix: format!("-{hash:016x}"),
            });
        }
        let session = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let path = match session.filter(|dir| dir.is_dir()) {
            Some(dir) => dir.join("zklab"),
            None => PathBuf::from(format!("/tmp/zklab-{uid}")),
        };
        private_dir(&path)?;
        Ok(Self {
            path,
            suffix: String::new(),
        })
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
        let entries = fs::read_dir(&self.path).doing(|| self.cannot_read())?;
        for entry in entries {
            let entry = entry.doing(|| self.cannot_read())?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let Ok(home) = self.home(&name) else {
                continue;
            };
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
        let text = serde_json::to_vec(belongings).doing(cannot)?;
        fs::write(home.belongings_file(), text).doing(cannot)?;
        Ok((home, held))
    }

    /// Removes a lab's home and what belongs to it.
    ///
    /// # Errors
    /// If something cannot be removed.
    pub fn remove(&self, home: &Home) -> Result<(), Failure> {
        let lock = self.lock()?;
        home.remove_left_behind()?;
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
            DataPlace::Tmpfs => "/dev/shm",
            DataPlace::Disk => "/var/tmp",
        };
        let shared = Path::new(base).join(format!("zklab-{}", getuid()));
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
        let cannot = || format!("cannot lock {}", self.path.display());
        loop {
            private_dir(&self.path)?;
            let Ok(file) = File::open(&self.path) else {
                // Removed a moment ago, by a lab that ended.
                continue;
            };
            file.lock().doing(cannot)?;
            let held = file.metadata().doing(cannot)?;
            let there = fs::symlink_metadata(&self.path);
            if there.is_ok_and(|there| there.ino() == held.ino()) {
                return Ok(file);
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

    fn cannot_read(&self) -> String {
        format!("cannot read {}", self.path.display())
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

    /// Writes down anew what belongs to the lab.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn note(&self, belongings: &Belongings) -> Result<(), Failure> {
        let cannot = || format!("cannot write {}", self.belongings_file().display());
        let text = serde_json::to_vec(belongings).doing(cannot)?;
        let mut file = File::create(self.belongings_file()).doing(cannot)?;
        file.write_all(&text).doing(cannot)
    }

    /// Does a supervisor hold it?
    fn is_held(&self) -> Result<bool, Failure> {
        let dir = File::open(&self.dir).doing(|| format!("cannot read {}", self.dir.display()))?;
        Ok(dir.try_lock().is_err())
    }

    fn remove_left_behind(&self) -> Result<(), Failure> {
        let belongings = fs::read(self.belongings_file())
            .ok()
            .and_then(|text| serde_json::from_slice::<Belongings>(&text).ok());
        if let Some(belongings) = belongings.filter(|b| !b.keep_data) {
            for node in &belongings.nodes {
                gone(fs::remove_dir_all(
                    belongings.data_dir.join(node.to_string()),
                ))?;
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
    if !found.is_dir() || found.uid() != getuid().as_raw() || found.mode() & 0o022 != 0 {
        return Err(Failure::environment(format!(
            "{} is not a directory that only you can write",
            path.display()
        ))
        .hint(format!(
            "remove it, or set {ROOT_VARIABLE} to another place"
        )));
    }
    Ok(())
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
    fn names_that_could_leave_the_root_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["", "..", "a/b", ".a", "-x", "ä", &"x".repeat(41)] {
            assert!(root(&dir).home(name).is_err(), "{name:?}");
        }
    }
}

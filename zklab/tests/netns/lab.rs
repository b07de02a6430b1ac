//! Whole labs in namespaces, through the command line.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use nix::unistd::getuid;

use super::*;

/// An ordinary user, of whom every machine has one.
const NOBODY: u32 = 65534;

pub(super) struct Lab {
    pub(super) dir: tempfile::TempDir,
    /// zklab, with zkd beside it.
    program: PathBuf,
    /// This program.
    me: PathBuf,
    user: Option<u32>,
}

impl Lab {
    pub(super) fn new() -> Self {
        let program = PathBuf::from(env!("CARGO_BIN_EXE_zklab"));
        let zkd = program.with_file_name("zkd");
        assert!(zkd.is_file(), "build zkd first: cargo test --workspace");
        Self {
            dir: tempfile::tempdir().unwrap(),
            program,
            me: std::env::current_exe().unwrap(),
            user: None,
        }
    }

    /// A lab of an ordinary user, even where the test is run by root. The programs are copied to where that
    /// user can read them.
    pub(super) fn of_an_ordinary_user() -> Self {
        let mut lab = Self::new();
        if !getuid().is_root() {
            return lab;
        }
        let bin = lab.dir.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        let zkd = lab.program.with_file_name("zkd");
        for (from, name) in [(&lab.program, "zklab"), (&zkd, "zkd"), (&lab.me, "me")] {
            std::fs::copy(from, bin.join(name)).unwrap();
        }
        std::fs::create_dir(lab.root()).unwrap();
        for dir in [lab.dir.path(), &bin, &lab.root()] {
            std::os::unix::fs::chown(dir, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        lab.program = bin.join("zklab");
        lab.me = bin.join("me");
        lab.user = Some(NOBODY);
        lab
    }

    pub(super) fn is_of_an_ordinary_user(&self) -> bool {
        self.user.is_some()
    }

    /// Where the labs are.
    pub(super) fn root(&self) -> PathBuf {
        self.dir.path().join("labs")
    }

    pub(super) fn command(&self, words: &str) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(words.split_whitespace())
            .current_dir(self.dir.path())
            .env("ZKLAB_RUNTIME_DIR", self.root())
            .env_remove("ZKLAB_LAB");
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command
    }

    /// This program again, inside a node.
    pub(super) fn inside(&self, node: &str, words: &[&str]) -> Command {
        let mut command = self.command(&format!("exec {node} --"));
        command.arg(&self.me).args(words);
        command
    }

    pub(super) fn run(&self, words: &str) -> Output {
        self.command(words).output().unwrap()
    }

    #[track_caller]
    pub(super) fn json(&self, words: &str) -> Value {
        let output = self.run(&format!("--json {words}"));
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "zklab {words}\n{text}\n{errors}");
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}"))
    }

    /// `up` with the network under test.
    #[track_caller]
    pub(super) fn up(&self, words: &str) -> Value {
        self.json(&format!("up {words} --net {}", kind()))
    }

    /// The command is refused with these words, and touches nothing.
    #[track_caller]
    pub(super) fn refused(&self, words: &str, because: &str) {
        let output = self.run(words);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "zklab {words}: {errors}");
        assert!(errors.contains(because), "zklab {words}: {errors}");
    }

    /// Nothing is left in the directory of all labs.
    #[track_caller]
    pub(super) fn assert_empty(&self) {
        assert_eq!(std::fs::read_dir(self.root()).unwrap().count(), 0);
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // After a failed assertion a lab may be up.
        let _ = self.run("down --all");
    }
}

pub(super) fn an_ensemble_lives_in_namespaces() {
    let lab = Lab::new();
    let up = lab.up("--nodes 5");
    assert_eq!(up["net"], kind().to_string());
    let phases = up["phases"].to_string();
    assert!(phases.contains("namespaces"), "{phases}");
    assert_eq!(up["nodes"].as_array().unwrap().len(), 5);
    let created = lab.run("cli n1 create /a hello");
    assert!(created.status.success());
    let kill = lab.json("kill-leader --restart");
    assert_eq!(kill["verdict"], "pass", "{kill}");
    let read = lab.run("cli leader get /a");
    assert_eq!(String::from_utf8_lossy(&read.stdout).trim(), "hello");
    lab.json("down");
    lab.assert_empty();
}

pub(super) fn lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

pub(super) fn links_are_set_shown_and_reset() {
    let lab = Lab::new();
    lab.up("--nodes 3 --seed 8f21c0");
    let set = lab.json("link set n1:n2 --delay 20ms --loss 1%");
    assert_eq!(set["links"], serde_json::json!(["n1>n2", "n2>n1"]));
    lab.json("link set n1>n2 --delay 30ms");
    let shown = lines(&lab.run("--json link show"));
    assert_eq!(shown.len(), 6);
    let find = |name: &str| shown.iter().find(|link| link["link"] == name).unwrap();
    assert_eq!(find("n1>n2")["delay_us"], 30_000);
    assert_eq!(find("n1>n2")["loss"], 0.01, "what was not named stays");
    assert_eq!(find("n2>n1")["delay_us"], 20_000);
    assert_eq!(find("n2>n3")["delay_us"], 0);
    assert!(find("n2>n3")["sent"].as_u64().unwrap() > 0);
    let text = lab.run("link show n1>n2");
    let text = String::from_utf8_lossy(&text.stdout);
    assert!(text.contains("30ms") && text.contains("1%"), "{text}");
    lab.json("link reset n1");
    let shown = lines(&lab.run("--json link show n1:n2"));
    assert!(
        shown
            .iter()
            .all(|link| link["delay_us"] == 0 && link["loss"] == 0.0)
    );
    lab.json("link set n1>n2 --jitter 1ms --for 50ms");
    let deadline = Instant::now() + PATIENCE;
    while lines(&lab.run("--json link show n1>n2"))[0]["jitter_us"] != 0 {
        assert!(Instant::now() < deadline, "it was not undone");
    }
}

pub(super) fn an_isolated_leader_is_replaced_and_comes_back() {
    let lab = Lab::new();
    let up = lab.up("--nodes 5 --tick 100ms");
    let old = up["leader"].as_str().unwrap().to_owned();
    let cut = lab.json("partition isolate leader");
    assert_eq!(cut["links"].as_array().unwrap().len(), 8);
    assert_eq!(cut["of"], 20);
    let deadline = Instant::now() + Duration::from_secs(30);
    let replaced = loop {
        let status = lab.json("status");
        let leaders: Vec<&Value> = status["nodes"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|node| node["role"] == "leader")
            .collect();
        if let [leader] = leaders[..]
            && leader["id"] != *old
        {
            break leader.clone();
        }
        assert!(Instant::now() < deadline, "never replaced: {status}");
    };
    assert!(replaced["epoch"].as_i64() > up["epoch"].as_i64());
    let new = replaced["id"].as_str().unwrap();
    assert!(
        lab.run(&format!("cli {new} create /a hello"))
            .status
            .success()
    );
    let heal = lab.json("heal --wait");
    assert_eq!(heal["healed"], serde_json::json!(["f1"]));
    assert!(heal["serving_ms"].is_number());
    let read = lab.run(&format!("cli {old} get /a"));
    assert_eq!(String::from_utf8_lossy(&read.stdout).trim(), "hello");
    let again = lab.json("partition ring --style jam --for 100ms --wait");
    assert_eq!(again["links"].as_array().unwrap().len(), 10);
    assert_eq!(again["healed"]["serving"], 5);
    assert_eq!(lab.json("heal")["healed"], serde_json::json!([]));
}

pub(super) fn faults_that_make_no_sense_are_refused() {
    let lab = Lab::new();
    lab.up("--nodes 3");
    for words in [
        "partition",
        "partition rin",
        "partition halves n1",
        "partition isolate",
        "partition isolate n9",
        "partition one-way n1:n2",
        "partition ring --style melt",
        "partition ring --wait",
        "link set n1:n2",
        "link set n1:n9 --loss 1%",
        "link set n1:n1 --loss 1%",
        "link set n1:n2 --loss 200%",
        "link set n1:n2 --rate 10",
        "link set n1:n2 --delay 5",
        "heal f7",
    ] {
        let output = lab.run(words);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "zklab {words}: {errors}");
    }
    let shown = lines(&lab.run("--json link show"));
    assert!(
        shown
            .iter()
            .all(|link| link["cut"] == false && link["loss"] == 0.0)
    );
    lab.json("down");
    lab.json("up --nodes 1");
    let refused = lab.run("partition ring");
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("loopback"));
}

pub(super) fn exec_runs_inside() {
    let lab = Lab::new();
    lab.up("--nodes 1");
    let interfaces = lab.run("exec n1 -- cat /proc/net/dev");
    let text = String::from_utf8_lossy(&interfaces.stdout);
    assert!(text.contains("zk0:") && text.contains("lo:"), "{text}");
    assert_eq!(
        text.lines().count(),
        4,
        "a head of two lines and two interfaces: {text}"
    );
    let code = lab
        .command("exec n1 --")
        .args(["sh", "-c", "exit 7"])
        .output();
    assert_eq!(code.unwrap().status.code(), Some(7));
    assert_eq!(lab.run("exec n2 -- true").status.code(), Some(2));
    assert_eq!(
        lab.run("exec n1 -- /no/such/program").status.code(),
        Some(5)
    );
    lab.json("down");
    lab.json("up --nodes 1");
    assert_eq!(lab.run("exec n1 -- true").status.code(), Some(2));
}

/// The network namespace a process is in; none if it is gone (a zombie has none).
pub(super) fn space_of(pid: &str) -> Option<String> {
    let link = std::fs::read_link(format!("/proc/{pid}/ns/net")).ok()?;
    Some(link.display().to_string())
}

pub(super) fn processes_in(space: &str) -> Vec<String> {
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        .filter(|pid| space_of(pid).is_some_and(|found| found == space))
        .collect()
}

pub(super) fn kill_9_of_the_supervisor_leaves_nothing() {
    let lab = Lab::new();
    let up = lab.up("--nodes 3");
    let pids: Vec<String> = up["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| node["pid"].to_string())
        .collect();
    let spaces: Vec<String> = pids.iter().filter_map(|pid| space_of(pid)).collect();
    assert_eq!(spaces.len(), 3);
    // A program that leaves its session and its parent.
    let mut stray = lab
        .command("exec n1 --")
        .args(["sh", "-c", "setsid sleep 1000 & echo started; sleep 1000"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut word = [0; 7];
    stray
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut word)
        .unwrap();
    assert!(
        processes_in(&spaces[0]).len() >= 3,
        "the server and what was run"
    );
    let supervisor = parent_of(&pids[0]);
    kill(
        Pid::from_raw(supervisor.try_into().unwrap()),
        Signal::SIGKILL,
    )
    .unwrap();
    stray.wait().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while spaces.iter().any(|space| !processes_in(space).is_empty()) {
        assert!(Instant::now() < deadline, "processes are left");
        std::thread::sleep(Duration::from_millis(5));
    }
    // Nobody has to come by: its guard removes the directory with the socket, and the data.
    let data = Path::new(up["data_dir"].as_str().unwrap());
    let is_empty = || std::fs::read_dir(lab.root()).unwrap().count() == 0;
    while !is_empty() || data.exists() {
        assert!(Instant::now() < deadline, "files are left");
        std::thread::sleep(Duration::from_millis(1));
    }
    for node in up["nodes"].as_array().unwrap() {
        assert!(TcpListener::bind(node["addr"].as_str().unwrap()).is_ok());
    }
}

pub(super) fn parent_of(pid: &str) -> i64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    line.unwrap().trim().parse().unwrap()
}

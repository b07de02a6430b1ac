//! The life of an ensemble, on real processes: every test brings up its own lab in a runtime directory of
//! its own, and checks at the end that nothing is left.

mod place;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use place::Place;

/// Where a test has its labs.
struct Machine {
    place: Place,
}

impl Machine {
    fn new() -> Self {
        Self {
            place: Place::new(),
        }
    }

    #[track_caller]
    fn expect(&self, code: i32, words: &str) -> String {
        self.place.expect(code, words)
    }

    /// The command must succeed with one JSON object.
    #[track_caller]
    fn json(&self, words: &str) -> Value {
        let text = self.expect(0, &format!("--json {words}"));
        let value: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}"));
        assert_eq!(value["v"], 1, "{text}");
        value
    }

    /// Asks for the status until `wanted` holds. Replication to the last follower takes a moment.
    #[track_caller]
    fn status_until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let status = self.json("status");
            if wanted(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "never {what}: {status}");
        }
    }

    #[track_caller]
    fn assert_nothing_left(&self) {
        // The last lab takes the directory of all labs with it.
        let left: Vec<_> = std::fs::read_dir(self.place.dir.path().join("run"))
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

fn nodes(status: &Value) -> &Vec<Value> {
    status["nodes"].as_array().unwrap()
}

fn with_role<'a>(status: &'a Value, role: &str) -> Vec<&'a str> {
    nodes(status)
        .iter()
        .filter(|node| node["role"] == role)
        .map(|node| node["id"].as_str().unwrap())
        .collect()
}

fn digests_are_equal_on(count: usize) -> impl Fn(&Value) -> bool {
    move |status| {
        let digest = &status["digest"];
        digest["equal"] == true && digest["nodes"].as_array().is_some_and(|n| n.len() == count)
    }
}

fn is_alive(pid: u64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A zombie is dead; whoever adopted it has to bury it.
    stat.rsplit_once(')')
        .is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

#[test]
fn five_servers_elect_one_leader_and_outlive_it() {
    let machine = Machine::new();
    let up = machine.json("up --nodes 5");
    assert_eq!(nodes(&up).len(), 5);
    let status = machine.status_until("equal digests on all five", digests_are_equal_on(5));
    assert_eq!(with_role(&status, "leader").len(), 1);
    assert_eq!(with_role(&status, "follower").len(), 4);
    assert!(
        nodes(&status)
            .iter()
            .all(|node| node["epoch"] == up["epoch"])
    );
    machine.expect(0, "cli n1 create /a hello");

    let kill = machine.json("kill-leader");
    assert_eq!(kill["victim"], up["leader"]);
    assert_eq!(kill["verdict"], "pass", "{kill}");
    assert_eq!(kill["findings"].as_array().unwrap().len(), 0);
    let epochs = kill["new_epoch"].as_i64().unwrap() - kill["old_epoch"].as_i64().unwrap();
    let explained = kill["failed_attempts"].as_array().unwrap().len();
    assert_eq!(usize::try_from(epochs).unwrap(), 1 + explained, "{kill}");
    let ms = |phase: &str| kill["ms"][phase].as_f64().unwrap();
    let sum: f64 = ["detect", "elect", "epoch", "sync", "serve"]
        .map(ms)
        .iter()
        .sum();
    assert!((sum - ms("no_writes")).abs() < 0.05, "{kill}");
    assert_ne!(kill["new_leader"], kill["victim"]);
    assert_eq!(machine.expect(0, "cli get /a").trim(), "hello");
    machine.expect(0, "down");
    machine.assert_nothing_left();
}

#[test]
fn a_minority_refuses_writes_and_recovers_with_everything() {
    let machine = Machine::new();
    machine.json("up --nodes 5");
    machine.expect(0, "cli create /a one");
    machine.json("kill n1 n2");
    machine.expect(0, "cli set /a two");
    let killed = machine.json("kill n3");
    assert_eq!(killed["quorum"], false);
    machine.status_until("without a quorum", |status| status["quorum"] == false);
    let refused = machine.expect(3, "cli set /a three");
    assert!(refused.contains("zklab status"), "{refused}");
    let refused = machine.expect(3, "kill-leader");
    assert!(refused.contains("no leader"), "{refused}");
    machine.json("start n2");
    machine.status_until("with a quorum again", |status| status["quorum"] == true);
    assert_eq!(machine.expect(0, "cli get /a").trim(), "two");
    machine.json("start all");
    machine.status_until("equal digests on all five", digests_are_equal_on(5));
    machine.expect(0, "down");
    machine.assert_nothing_left();
}

#[test]
fn many_leaders_die_and_no_acknowledged_write_does() {
    let machine = Machine::new();
    machine.json("up --nodes 3");
    let report = machine.json("kill-leader --times 4");
    assert_eq!(report["kills"].as_array().unwrap().len(), 4);
    assert_eq!(report["verdict"], "pass", "{report}");
    assert_eq!(report["read_on"].as_array().unwrap().len(), 3, "{report}");
    for kill in report["kills"].as_array().unwrap() {
        let rise = kill["new_epoch"].as_i64().unwrap() - kill["old_epoch"].as_i64().unwrap();
        let explained = kill["failed_attempts"].as_array().unwrap().len();
        assert_eq!(usize::try_from(rise).unwrap(), 1 + explained, "{kill}");
    }
    machine.expect(0, "down");
}

#[test]
fn one_by_one_the_third_of_five_leads_and_stays() {
    let machine = Machine::new();
    let up = machine.json("up --nodes 5 --one-by-one");
    let steps = up["steps"].as_array().unwrap();
    let leaders: Vec<&Value> = steps.iter().map(|step| &step["leader"]).collect();
    assert_eq!(
        leaders,
        [
            &Value::Null,
            &Value::Null,
            &"n3".into(),
            &"n3".into(),
            &"n3".into()
        ]
    );
    assert_eq!(steps[1]["running"][1]["state"], "looking");
    assert_eq!(steps[1]["running"][0]["vote"], "n2");
    let status = machine.json("status");
    assert_eq!(with_role(&status, "follower"), ["n1", "n2", "n4", "n5"]);
    machine.expect(0, "down");
}

#[test]
fn the_newer_history_wins_over_the_higher_id() {
    let machine = Machine::new();
    machine.json("up --nodes 3");
    machine.json("kill n3");
    machine.status_until("with a leader", |status| status["quorum"] == true);
    machine.expect(0, "cli create /newer x");
    machine.status_until("in sync", digests_are_equal_on(2));
    machine.json("kill n1 n2");
    machine.json("start n1 n3");
    let status = machine.status_until("with a quorum", |status| status["quorum"] == true);
    assert_eq!(status["leader"], "n1");
    machine.expect(0, "down");
}

#[test]
fn an_observer_serves_and_does_not_count() {
    let machine = Machine::new();
    machine.json("up --nodes 3 --observers 1");
    let status = machine.json("status");
    assert_eq!(with_role(&status, "observer"), ["n4"]);
    assert_eq!(status["voters"], 3);
    machine.expect(0, "cli n4 create /through-the-observer x");
    let events = machine.expect(0, "events --kind quorum --json");
    assert!(events.contains(r#""need":2"#), "{events}");
    machine.expect(0, "down");
}

#[test]
fn one_server_stands_alone() {
    let machine = Machine::new();
    let up = machine.json("up alone --nodes 1");
    assert_eq!(up["nodes"][0]["role"], "standalone");
    machine.expect(0, "-L alone cli create /a x");
    machine.expect(3, "-L alone kill-leader");
    machine.json("-L alone restart n1");
    assert_eq!(machine.expect(0, "-L alone cli get /a").trim(), "x");
    machine.expect(0, "down alone");
    machine.assert_nothing_left();
}

#[test]
fn a_rolling_restart_never_stops_the_service_for_long() {
    let machine = Machine::new();
    machine.json("up --nodes 3");
    let report = machine.json("restart all --rolling");
    let last = nodes(&report).last().unwrap();
    assert_eq!(last["leader"], true, "the leader goes last: {report}");
    let status = machine.json("status");
    assert_eq!(status["quorum"], true);
    assert!(nodes(&status).iter().all(|node| node["state"] == "serving"));
    machine.expect(0, "down");
}

#[test]
fn a_paused_node_is_shown_as_paused_and_comes_back() {
    let machine = Machine::new();
    machine.json("up --nodes 3");
    machine.json("pause n1");
    let status = machine.json("status");
    assert_eq!(status["nodes"][0]["state"], "paused");
    machine.json("resume n1");
    machine.status_until("all serving", |status| {
        nodes(status).iter().all(|node| node["state"] == "serving")
    });
    machine.expect(0, "down");
}

/// Kills the supervisor of the lab that is up; its process id.
fn kill_supervisor(machine: &Machine) -> u64 {
    let supervisor = machine.json("env")["supervisor_pid"].as_u64().unwrap();
    let killed = Command::new("kill")
        .args(["-9", &supervisor.to_string()])
        .status()
        .unwrap();
    assert!(killed.success());
    supervisor
}

/// The guard of a supervisor, while there is one.
fn guard_of(supervisor: u64) -> Option<u64> {
    let number = supervisor.to_string();
    let words = ["zklab", "__guard", &number, ""].join("\0");
    let pids = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let name = entry.ok()?.file_name().into_string().ok()?;
        name.parse::<u64>().ok()
    });
    let mut guards = pids.filter(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline"));
        line.is_ok_and(|line| line == words.as_bytes())
    });
    guards.next()
}

#[track_caller]
fn await_that(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "never {what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_killed_supervisor_takes_everything_with_it() {
    let machine = Machine::new();
    let up = machine.json("up --nodes 3");
    let pids: Vec<u64> = nodes(&up)
        .iter()
        .map(|node| node["pid"].as_u64().unwrap())
        .collect();
    let data = Path::new(up["data_dir"].as_str().unwrap());
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    let home = machine.place.dir.path().join("run/default");
    assert!(home.join("socket").exists() && data.exists());
    let supervisor = kill_supervisor(&machine);
    await_that("without servers", || !pids.iter().any(|pid| is_alive(*pid)));
    await_that("without files", || !home.exists() && !data.exists());
    await_that("without a guard", || guard_of(supervisor).is_none());
    machine.assert_nothing_left();
}

#[test]
fn a_guard_holds_nothing_of_the_lab_and_cannot_be_talked_out_of_its_duty() {
    let machine = Machine::new();
    machine.json("up --nodes 1");
    let supervisor = machine.json("env")["supervisor_pid"].as_u64().unwrap();
    let guard = guard_of(supervisor).unwrap();
    let open = || -> Vec<String> {
        let files = std::fs::read_dir(format!("/proc/{guard}/fd")).unwrap();
        let files = files.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
        let names = files.map(|file| file.display().to_string());
        names.filter(|name| name != "/dev/null").collect()
    };
    // A descriptor of the supervisor's process is all it has.
    await_that(
        "on guard",
        || matches!(&open()[..], [only] if only.contains("pidfd")),
    );
    let stat = std::fs::read_to_string(format!("/proc/{guard}/stat")).unwrap();
    let session = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(3);
    assert_eq!(session, Some(guard.to_string().as_str()));
    for signal in ["-INT", "-TERM", "-HUP"] {
        let sent = Command::new("kill")
            .args([signal, &guard.to_string()])
            .status();
        assert!(sent.unwrap().success());
    }
    // It has ended before `down` says that nothing is left.
    assert_eq!(guard_of(supervisor), Some(guard));
    machine.expect(0, "down");
    assert!(!is_alive(guard));
    machine.assert_nothing_left();
}

#[test]
fn a_lab_can_be_made_again_the_moment_its_supervisor_is_killed() {
    let machine = Machine::new();
    machine.json("up --nodes 3");
    machine.expect(0, "cli create /old x");
    let supervisor = kill_supervisor(&machine);
    let up = machine.json("up --nodes 3");
    await_that("without the old guard", || guard_of(supervisor).is_none());
    // It has not taken the new lab for the old one.
    assert!(Path::new(up["data_dir"].as_str().unwrap()).exists());
    machine.expect(3, "cli get /old");
    machine.expect(0, "cli create /new x");
    machine.expect(0, "down");
    machine.assert_nothing_left();
}

#[test]
fn what_is_not_there_is_named_and_the_nearest_offered() {
    let machine = Machine::new();
    let text = machine.expect(2, "status");
    assert!(text.contains("no lab is up"), "{text}");
    machine.json("up life --nodes 1");
    let text = machine.expect(2, "-L live status");
    assert!(text.contains("did you mean life?"), "{text}");
    let text = machine.expect(2, "-L life kill n2");
    assert!(text.contains("its nodes are n1"), "{text}");
    let text = machine.expect(2, "-L life events --kind electoin");
    assert!(text.contains("did you mean election?"), "{text}");
    let text = machine.expect(2, "up life");
    assert!(text.contains("is up already"), "{text}");
    let text = machine.expect(5, "up other --server /no/such/zkd");
    assert!(text.contains("/no/such/zkd"), "{text}");
    machine.expect(2, "up a/b");
    machine.expect(3, "-L life cli get /missing");
    machine.expect(0, "down life");
    machine.assert_nothing_left();
}

#[test]
fn a_server_that_dies_at_birth_takes_the_lab_with_it() {
    let machine = Machine::new();
    let text = machine.expect(6, "up --server /bin/false");
    assert!(text.contains("died while the lab was being made"), "{text}");
    machine.assert_nothing_left();
}

#[test]
fn data_in_a_directory_of_the_users_outlive_the_lab() {
    let machine = Machine::new();
    let data = tempfile::tempdir().unwrap();
    let up = format!("up --nodes 3 --data {}", data.path().display());
    machine.json(&up);
    machine.expect(0, "cli create /kept x");
    machine.expect(0, "down");
    machine.json(&up);
    assert_eq!(machine.expect(0, "cli get /kept").trim(), "x");
    machine.expect(0, "down");
}

#[test]
fn without_a_terminal_there_are_no_escape_codes() {
    let machine = Machine::new();
    let mut text = machine.expect(0, "up --nodes 3");
    for words in [
        "status",
        "kill-leader",
        "events",
        "ls",
        "logs -n 3",
        "doctor",
        "down",
    ] {
        text += &machine.expect(0, words);
    }
    assert!(!text.contains('\u{1b}'), "{text:?}");
}

#[test]
fn the_demo_shows_an_election_and_leaves_nothing() {
    let machine = Machine::new();
    let told = machine.expect(0, "demo");
    let steps = told.matches("\n$ zklab -L demo-").count();
    assert_eq!(steps, 7, "{told}");
    for seen in [
        "without a leader",
        "\nhello\n",
        "on n1 n2 n3 n4 n5",
        "nothing left",
    ] {
        assert!(told.contains(seen), "{seen}: {told}");
    }
    machine.assert_nothing_left();
}

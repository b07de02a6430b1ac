//! What a lab in namespaces is judged by: as root and as an ordinary user, and whatever is killed when.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::lab::{Lab, lines, processes_in, space_of};
use super::*;

/// Pings of one measurement.
const PINGS: u32 = 1000;
const ECHO_PORT: u16 = 7007;

/// Answers every packet. It ends with its lab.
pub(super) fn echo() -> ExitCode {
    let socket = UdpSocket::bind(("0.0.0.0", ECHO_PORT)).unwrap();
    println!("ready");
    let mut packet = [0; 64];
    loop {
        let (count, from) = socket.recv_from(&mut packet).unwrap();
        socket.send_to(&packet[..count], from).unwrap();
    }
}

/// Sends numbered packets and tells how many did not come back, and how long the fastest took.
pub(super) fn ping(to: &str, count: u32) -> ExitCode {
    let socket = UdpSocket::bind(("0.0.0.0", 0)).unwrap();
    socket.connect((to, ECHO_PORT)).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(2)))
        .unwrap();
    let mut sent = Vec::new();
    let mut back = BTreeSet::new();
    let mut fastest = Duration::MAX;
    let mut last = Instant::now();
    while last.elapsed() < SILENCE {
        if let Ok(number) = u32::try_from(sent.len())
            && number < count
        {
            sent.push(Instant::now());
            socket.send(&number.to_be_bytes()).unwrap();
            last = Instant::now();
        }
        let mut packet = [0; 4];
        if let Ok(4) = socket.recv(&mut packet) {
            let number = u32::from_be_bytes(packet);
            fastest = fastest.min(sent[number as usize].elapsed());
            back.insert(number);
        }
    }
    println!(
        "{{\"lost\":{},\"fastest_us\":{}}}",
        count as usize - back.len(),
        fastest.as_micros()
    );
    ExitCode::SUCCESS
}

pub(super) fn links_and_partitions_do_what_was_asked() {
    links_and_partitions(&Lab::new());
    // Where the device is closed to everybody but root, `auto` takes packet sockets.
    links_and_partitions(&Lab::of_an_ordinary_user());
}

fn links_and_partitions(lab: &Lab) {
    let open_to_all = std::fs::metadata("/dev/net/tun")
        .is_ok_and(|tun| std::os::unix::fs::PermissionsExt::mode(&tun.permissions()) & 0o006 == 6);
    let up = if lab.is_of_an_ordinary_user() && kind() == NetKind::Tun {
        let up = lab.json("up --nodes 5 --tick 200ms --net auto");
        assert_eq!(up["net"], if open_to_all { "tun" } else { "packet" });
        assert_eq!(up["rootless"], true);
        up
    } else {
        lab.up("--nodes 5 --tick 200ms")
    };
    link(lab);
    partition(lab, &up);
    lab.json("down");
    lab.assert_empty();
}

fn link(lab: &Lab) {
    lab.json("link set n1:n2 --delay 20ms --loss 1%");
    let mut echo = lab
        .inside("n2", &["--echo"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut word = [0; 5];
    echo.stdout.as_mut().unwrap().read_exact(&mut word).unwrap();
    let pings = lab
        .inside("n1", &["--ping", "10.77.0.2", &PINGS.to_string()])
        .output()
        .unwrap();
    let found: Value = serde_json::from_slice(&pings.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&pings.stderr)));
    // There and back.
    let fastest_us = found["fastest_us"].as_u64().unwrap();
    assert!((40_000..41_000).contains(&fastest_us), "{found}");
    let chance = 1.0 - 0.99 * 0.99;
    let mean = f64::from(PINGS) * chance;
    let lost = found["lost"].as_f64().unwrap();
    // One in a million good links is beyond that.
    let bound = 4.9 * (mean * (1.0 - chance)).sqrt();
    assert!((lost - mean).abs() <= bound, "{found}: {mean} ± {bound}");
    lab.json("link reset");
    echo.kill().unwrap();
    echo.wait().unwrap();
}

fn partition(lab: &Lab, up: &Value) {
    let old = up["leader"].as_str().unwrap();
    let load = lab
        .command("--json load --for 4s --rate 300 --clients 5 --history history.ndjson")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let healed = lab.json("partition isolate leader --for 3s --wait");
    assert_eq!(healed["healed"]["serving"], 5, "{healed}");
    let load = load.wait_with_output().unwrap();
    assert!(load.status.success(), "{load:?}");
    let told = lines(&lab.run("--json events"));
    let of = |kind: &'static str| told.iter().filter(move |event| event["kind"] == kind);
    assert!(
        of("node.stepped_down").any(|event| event["node"] == old),
        "{old} did not step down"
    );
    let first = up["epoch"].as_i64().unwrap();
    let elected = of("leader.elected").find(|event| event["epoch"].as_i64().unwrap() > first);
    let elected = elected.unwrap_or_else(|| panic!("nobody was elected"));
    assert_ne!(elected["node"], old);
    // No write that was acknowledged is lost, on any node.
    let check = lab.run("check history.ndjson");
    let text = String::from_utf8_lossy(&check.stdout);
    assert!(check.status.success(), "{text}");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let digest = &lab.json("status")["digest"];
        assert_ne!(digest["equal"], false, "{digest}");
        if digest["nodes"]
            .as_array()
            .is_some_and(|nodes| nodes.len() == 5)
        {
            return;
        }
        assert!(Instant::now() < deadline, "{digest}");
    }
}

/// Everything that can be left of a lab, seen from outside.
fn of_the_lab(lab: &Lab) -> Vec<String> {
    let variable = format!("ZKLAB_RUNTIME_DIR={}", lab.root().display());
    let is_ours = |pid: &str| {
        std::fs::read(format!("/proc/{pid}/environ"))
            .unwrap_or_default()
            .split(|byte| *byte == 0)
            .any(|word| word == variable.as_bytes())
    };
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()) && is_ours(name))
        .collect()
}

/// Whether it is the supervisor itself. The first process of its namespaces bears its command line as well, and so does
/// each of its children before it begins a program of its own; which of them has the lowest number is an accident of
/// how far the kernel has counted.
fn is_supervisor(pid: &str) -> bool {
    let supervises = |pid: &str| {
        std::fs::read(format!("/proc/{pid}/cmdline"))
            .unwrap_or_default()
            .split(|byte| *byte == 0)
            .any(|word| word == b"__supervise")
    };
    supervises(pid) && parent_of(pid).is_some_and(|parent| !supervises(&parent))
}

fn parent_of(pid: &str) -> Option<String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    Some(line.trim().to_owned())
}

/// Names of sockets that are not files, and of files that are.
fn sockets() -> BTreeSet<String> {
    let text = std::fs::read_to_string("/proc/net/unix").unwrap();
    let names = text
        .lines()
        .filter_map(|line| line.split_whitespace().nth(7));
    names
        .filter(|name| name.contains("zklab"))
        .map(str::to_owned)
        .collect()
}

fn mounts() -> usize {
    std::fs::read_to_string("/proc/self/mounts")
        .unwrap()
        .lines()
        .count()
}

pub(super) fn kill_9_at_random_moments_leaves_nothing() {
    kill_at_random_moments(&Lab::new(), kind(), 20);
    kill_at_random_moments(&Lab::of_an_ordinary_user(), NetKind::Auto, 5);
}

fn kill_at_random_moments(lab: &Lab, net: NetKind, rounds: u32) {
    let words = format!("up --nodes 3 --net {net}");
    // Where every one of them will have its data.
    let data = PathBuf::from(lab.json(&words)["data_dir"].as_str().unwrap());
    lab.json("down");
    let mut chances = Prng::new(0x8f21c0);
    let mounts_before = mounts();
    for round in 0..rounds {
        let mut up = lab
            .command(&words)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Half of the moments are while it is being made.
        let moment = Duration::from_micros(chances.below(200_000));
        let begin = Instant::now();
        let mut spaces = BTreeSet::new();
        let supervisor = loop {
            let processes = of_the_lab(lab);
            spaces.extend(processes.iter().filter_map(|pid| space_of(pid)));
            let supervisor = processes.into_iter().find(|pid| is_supervisor(pid));
            if let Some(pid) = supervisor.filter(|_| begin.elapsed() >= moment) {
                break pid;
            }
            assert!(begin.elapsed() < PATIENCE, "round {round}: no supervisor");
        };
        let own = space_of("self").unwrap();
        spaces.remove(&own);
        let supervisor = Pid::from_raw(supervisor.parse().unwrap());
        kill(supervisor, Signal::SIGKILL).unwrap();
        up.wait().unwrap();
        let deadline = Instant::now() + PATIENCE;
        // Its guard is the last to go, and has no more to do then.
        while !of_the_lab(lab).is_empty()
            || spaces.iter().any(|space| !processes_in(space).is_empty())
        {
            assert!(
                Instant::now() < deadline,
                "round {round}: processes are left"
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        lab.assert_empty();
        assert!(!data.exists(), "round {round}");
        let root = lab.root().display().to_string();
        let left: Vec<String> = sockets()
            .into_iter()
            .filter(|name| name.contains(&root))
            .collect();
        assert!(left.is_empty(), "round {round}: {left:?}");
        assert_eq!(mounts(), mounts_before, "round {round}");
    }
}

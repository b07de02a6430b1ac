//! Writing into the vDSO of a process that stands still.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Skew;
use super::code::{JUMP, jump, piece};
use super::image::{Image, place};
use crate::failure::{Context, Exit, Failure};

/// How long a process may take to stand still. A thread that waits for its disk does not before that has answered.
const STILL_PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks.
const LOOK: Duration = Duration::from_micros(100);

/// Lets the functions of a process tell a bent time, or the true one again.
pub(super) fn patch(pid: u32, image: &Image, skew: Option<Skew>) -> Result<(), Failure> {
    let cannot = || format!("cannot set the clock of process {pid}");
    let (begin, _) = place(&pid.to_string())?.ok_or_else(|| {
        Failure::environment(format!("{}: it maps no functions for the time", cannot()))
    })?;
    let memory = File::options()
        .read(true)
        .write(true)
        .open(format!("/proc/{pid}/mem"))
        .doing(cannot)?;
    let still = Still::make(pid)?;
    let deadline = Instant::now() + STILL_PATIENCE;
    while let Some(why) = still.hinders(image, begin)? {
        if Instant::now() > deadline {
            return Err(Failure::new(Exit::Missed, format!("{}: {why}", cannot())));
        }
        still.move_on()?;
    }
    let write = |at: usize, bytes: &[u8]| {
        let at = (begin + at) as u64;
        let mut read = vec![0; bytes.len()];
        memory
            .write_all_at(bytes, at)
            .and_then(|()| memory.read_exact_at(&mut read, at))
            .doing(cannot)?;
        if read == bytes {
            return Ok(());
        }
        Err(Failure::environment(format!(
            "{}: what was written is not there",
            cannot()
        )))
    };
    match skew {
        Some(skew) => {
            write(image.room, &piece(skew))?;
            for (at, _, to) in image.functions() {
                write(at, &jump(at, image.room + to))?;
            }
        }
        // The piece stays: somebody may be in it.
        None => {
            for (at, first, _) in image.functions() {
                write(at, first)?;
            }
        }
    }
    Ok(())
}

/// A process that stands still until this is dropped. One that stood still before goes on doing so.
struct Still {
    pid: Pid,
    was_stopped: bool,
}

impl Still {
    fn make(pid: u32) -> Result<Self, Failure> {
        let still = Self {
            pid: Pid::from_raw(pid.cast_signed()),
            was_stopped: state(Path::new(&format!("/proc/{pid}/stat"))) == Some('T'),
        };
        still.signal(Signal::SIGSTOP)?;
        Ok(still)
    }

    fn signal(&self, signal: Signal) -> Result<(), Failure> {
        kill(self.pid, signal).doing(|| format!("cannot send {signal} to process {}", self.pid))
    }

    /// Why nothing may be written yet.
    fn hinders(&self, image: &Image, begin: usize) -> Result<Option<String>, Failure> {
        let dir = format!("/proc/{}/task", self.pid);
        let threads = fs::read_dir(&dir).doing(|| format!("cannot read {dir}"))?;
        // As soon as one thread has taken the signal, all have been told; before that, one that waits inside the
        // kernel could come out of it.
        let mut is_told = false;
        for thread in threads.flatten() {
            let path = thread.path();
            is_told |= state(&path.join("stat")) == Some('T');
            let Ok(call) = fs::read_to_string(path.join("syscall")) else {
                // It has ended.
                continue;
            };
            // Stopped, or inside the kernel: it will stop on its way out.
            let stands = call
                .split_whitespace()
                .next()
                .is_some_and(|word| word != "running");
            if !stands {
                return Ok(Some("it does not stand still".to_owned()));
            }
            let at = call
                .split_whitespace()
                .last()
                .and_then(|word| usize::from_str_radix(word.trim_start_matches("0x"), 16).ok());
            let inside = |at: usize| {
                image
                    .functions()
                    .any(|(entry, _, _)| (begin + entry + 1..begin + entry + JUMP).contains(&at))
            };
            if at.is_some_and(inside) {
                return Ok(Some("it stands where it is to be changed".to_owned()));
            }
        }
        Ok((!is_told).then(|| "it does not stand still".to_owned()))
    }

    /// Lets it go on for a moment, if it was not stopped by somebody else.
    fn move_on(&self) -> Result<(), Failure> {
        std::thread::sleep(LOOK);
        if !self.was_stopped {
            self.signal(Signal::SIGCONT)?;
            std::thread::yield_now();
            self.signal(Signal::SIGSTOP)?;
            std::thread::sleep(LOOK);
        }
        Ok(())
    }
}

impl Drop for Still {
    fn drop(&mut self) {
        if !self.was_stopped {
            // It may be gone.
            let _ = kill(self.pid, Signal::SIGCONT);
        }
    }
}

/// The state of a process or thread, as one letter.
fn state(stat: &Path) -> Option<char> {
    let stat = fs::read_to_string(stat).ok()?;
    // The state is the word after the command, which is in parentheses and may hold anything.
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Child, ChildStdout, Command, Stdio};
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::super::set;
    use super::*;

    /// A process that tells the time when it is asked: by `time`, and by `gettimeofday`.
    struct Watch {
        child: Child,
        told: BufReader<ChildStdout>,
    }

    impl Watch {
        fn new() -> Self {
            let tell = "while read -r _; do printf '%(%s)T %s\\n' -1 \"$EPOCHREALTIME\"; done";
            let mut child = Command::new("bash")
                .args(["-c", tell])
                .env("LC_ALL", "C")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let told = BufReader::new(child.stdout.take().unwrap());
            let mut watch = Self { child, told };
            // It is bash from its first answer on.
            watch.ask();
            watch
        }

        /// Seconds since 1970, told in both ways.
        fn ask(&mut self) -> (i64, f64) {
            writeln!(self.child.stdin.as_ref().unwrap()).unwrap();
            let mut line = String::new();
            self.told.read_line(&mut line).unwrap();
            let (time, timeofday) = line.trim().split_once(' ').unwrap();
            (time.parse().unwrap(), timeofday.parse().unwrap())
        }
    }

    impl Drop for Watch {
        fn drop(&mut self) {
            // One that was waited for is gone already.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    fn now() -> f64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs_f64()
    }

    /// Asks, and says by how many seconds the answer lies outside what was true meanwhile, but for `offset`.
    fn error(watch: &mut Watch, offset: f64) -> f64 {
        let before = now();
        let (time, timeofday) = watch.ask();
        let after = now();
        let outside = |shown: f64, slack: f64| {
            let (low, high) = (before + offset - slack, after + offset);
            (low - shown).max(shown - high).max(0.0)
        };
        // `time` is cut off to whole seconds, `gettimeofday` to whole microseconds.
        outside(time as f64, 1.0).max(outside(timeofday, 2e-6))
    }

    #[test]
    fn a_running_process_is_told_another_time_and_then_the_true_one_again() {
        let mut watch = Watch::new();
        let pid = watch.child.id();
        assert_eq!(error(&mut watch, 0.0), 0.0);
        for (jump_us, offset) in [(3_600_000_000, 3600.0), (-7_200_000_000, -7200.0)] {
            set(pid, Some(Skew::from_now(jump_us, 1.0).unwrap())).unwrap();
            assert!(error(&mut watch, offset) < 1e-6, "{jump_us}");
        }
        set(pid, Some(Skew::from_now(60_000_000, 0.0).unwrap())).unwrap();
        let (first, second) = (watch.ask(), watch.ask());
        assert_eq!(first, second);
        assert!((first.1 - now() - 60.0).abs() < 30.0);
        set(pid, None).unwrap();
        assert_eq!(error(&mut watch, 0.0), 0.0);
    }

    #[test]
    fn a_process_that_was_stopped_stays_so() {
        let mut watch = Watch::new();
        let pid = watch.child.id();
        let raw = Pid::from_raw(pid.cast_signed());
        let stat = format!("/proc/{pid}/stat");
        kill(raw, Signal::SIGSTOP).unwrap();
        while state(Path::new(&stat)) != Some('T') {
            std::thread::yield_now();
        }
        set(pid, Some(Skew::from_now(3_600_000_000, 1.0).unwrap())).unwrap();
        assert_eq!(state(Path::new(&stat)), Some('T'));
        kill(raw, Signal::SIGCONT).unwrap();
        assert!(error(&mut watch, 3600.0) < 1e-6);
    }

    #[test]
    fn who_is_gone_is_named() {
        let mut watch = Watch::new();
        let pid = watch.child.id();
        watch.child.kill().unwrap();
        watch.child.wait().unwrap();
        let refused = set(pid, None).unwrap_err().to_string();
        assert!(refused.contains(&pid.to_string()), "{refused}");
    }
}

//! From the properties of a file to a [`Config`]: every key judged, then the whole.
//!
//! Law kept here: all problems of a file are found in one pass and told in the order of their lines.

use std::collections::BTreeMap;

use super::error::{ConfigError, ConfigWarning, Problem};
use super::keys::{self, Verdict};
use super::membership::MembershipReader;
use super::properties::{self, Property};
use super::{Config, Whitelist, ensemble, settings};

/// What one pass over a file has found so far.
struct Reading {
    config: Config,
    members: MembershipReader,
    lines: BTreeMap<&'static str, usize>,
    problems: Vec<Problem>,
    warnings: Vec<ConfigWarning>,
    not_yet: Vec<String>,
    meaningless: Vec<String>,
}

pub(super) fn parse(text: &str, file: &str) -> Result<(Config, Vec<ConfigWarning>), ConfigError> {
    let properties = properties::parse(text).map_err(|problem| ConfigError {
        file: file.to_owned(),
        problems: vec![problem],
    })?;
    let mut reading = Reading::new(file);
    for property in &properties {
        reading.property(property);
    }
    reading.finish()
}

impl Reading {
    fn new(file: &str) -> Self {
        let config = Config {
            file: file.to_owned(),
            data_dir: Default::default(),
            data_log_dir: Default::default(),
            client_port: None,
            client_port_address: None,
            min_session_timeout_ms: -1,
            max_session_timeout_ms: -1,
            ..Config::default()
        };
        Self {
            config,
            members: MembershipReader::default(),
            lines: BTreeMap::new(),
            problems: Vec::new(),
            warnings: Vec::new(),
            not_yet: Vec::new(),
            meaningless: Vec::new(),
        }
    }

    fn property(&mut self, property: &Property) {
        let key = keys::working_name(&property.key);
        if let Some(setting) = settings::find(key) {
            if let Some(first) = self.lines.insert(setting.key, property.line) {
                let what = format!("{key} stands on line {first} already; this line counts");
                self.warn(Some(property.line), what);
            }
            if key == "4lw.commands.whitelist" {
                for name in Whitelist::parse(&property.value).1 {
                    let what = format!("{name:?} is not a four-letter word and is ignored");
                    self.warn(Some(property.line), what);
                }
            }
            if (setting.set)(&mut self.config, &property.value).is_none() {
                self.refuse(property, format!("expected {}", setting.expected));
            }
            return;
        }
        let named = format!("{} (line {})", property.key, property.line);
        match keys::judge(key, &property.value) {
            Verdict::Harmless => {}
            Verdict::Refused(why) => self.refuse(property, why.to_owned()),
            Verdict::NotYet => self.not_yet.push(named),
            Verdict::Meaningless => self.meaningless.push(named),
            Verdict::Unknown if self.members.line(property) => {}
            Verdict::Unknown => {
                let guess = keys::nearest(key)
                    .map(|known| format!("; did you mean {known}?"))
                    .unwrap_or_default();
                let what = format!("unknown key {} is ignored{guess}", property.key);
                self.warn(Some(property.line), what);
            }
        }
    }

    fn refuse(&mut self, property: &Property, what: String) {
        // What may be a secret is not repeated: errors end in logs.
        let is_secret = ["superDigest", "assword"]
            .iter()
            .any(|part| property.key.contains(part));
        self.problems.push(Problem {
            line: Some(property.line),
            key: Some(property.key.clone()),
            value: Some(property.value.clone()).filter(|_| !is_secret),
            what,
        });
    }

    /// A problem of the setting `key`, or of its absence.
    fn problem(&mut self, key: &'static str, what: &str) {
        let setting = settings::find(key).expect("only settings are judged");
        let line = self.lines.get(key).copied();
        self.problems.push(Problem {
            line,
            key: Some(key.to_owned()),
            value: line.and_then(|_| (setting.show)(&self.config)),
            what: what.to_owned(),
        });
    }

    fn warn(&mut self, line: Option<usize>, what: String) {
        let file = self.config.file.clone();
        self.warnings.push(ConfigWarning { file, line, what });
    }

    fn finish(mut self) -> Result<(Config, Vec<ConfigWarning>), ConfigError> {
        let file = self.config.file.clone();
        self.judge_paths();
        self.judge_ports();
        self.judge_auth();
        self.judge_limits();
        self.warn_of_settings();
        let from_file = self.config.dynamic_config_file.is_some();
        if from_file && !self.members.is_empty() {
            self.problem(
                "dynamicConfigFile",
                "with a dynamic file the server, group and weight lines belong there, not here",
            );
        }
        let (membership, problems) = std::mem::take(&mut self.members).finish();
        self.problems.extend(problems);
        self.config.servers = membership;
        if !from_file && self.problems.is_empty() {
            let judgement = ensemble::judge(&self.config, &file);
            self.problems.extend(judgement.problems);
            self.warnings.extend(judgement.warnings);
        }
        if self.problems.is_empty() {
            self.warnings
                .sort_by_key(|warning| warning.line.unwrap_or(usize::MAX));
            return Ok((self.config, self.warnings));
        }
        self.problems
            .sort_by_key(|problem| problem.line.unwrap_or(usize::MAX));
        Err(ConfigError {
            file,
            problems: self.problems,
        })
    }

    fn judge_paths(&mut self) {
        if !self.lines.contains_key("dataDir") {
            self.problem(
                "dataDir",
                "missing: expected the directory where snapshots and txn logs are kept",
            );
        }
        if !self.lines.contains_key("dataLogDir") {
            self.config.data_log_dir.clone_from(&self.config.data_dir);
        }
        if !self.lines.contains_key("jute.maxbuffer.extrasize") {
            self.config.jute_max_buffer_extra = self.config.jute_max_buffer;
        }
    }

    /// Enforced authentication without a scheme would lock everyone out; schemes alone enforce nothing.
    fn judge_auth(&mut self) {
        if !self.config.enforce_auth {
            self.config.enforced_schemes.clear();
        } else if !self.lines.contains_key("enforce.auth.schemes") {
            self.problem(
                "enforce.auth.enabled",
                "enforce.auth.schemes is missing: expected the schemes that count, digest or ip",
            );
        }
    }

    fn judge_ports(&mut self) {
        if self.config.client_port_address.is_some() && self.config.client_port.is_none() {
            self.problem("clientPortAddress", "has no meaning without clientPort");
        }
    }

    fn judge_limits(&mut self) {
        let config = &mut self.config;
        let ticks = |count: u64| {
            let ms = config.tick_time_ms.saturating_mul(count);
            i32::try_from(ms).unwrap_or(i32::MAX)
        };
        let (min, max) = (ticks(2), ticks(20));
        if config.min_session_timeout_ms == -1 {
            config.min_session_timeout_ms = min;
        }
        if config.max_session_timeout_ms == -1 {
            config.max_session_timeout_ms = max;
        }
        let (min, max) = (config.min_session_timeout_ms, config.max_session_timeout_ms);
        if min > max {
            let key = if self.lines.contains_key("minSessionTimeout") {
                "minSessionTimeout"
            } else {
                "maxSessionTimeout"
            };
            let what = format!(
                "the shortest session timeout, {min} ms, is longer than the longest, {max} ms \
                 (unless given they are 2 and 20 times tickTime)"
            );
            self.problem(key, &what);
        }
        if self.config.min_notification_interval_ms > self.config.max_notification_interval_ms {
            let what = "is longer than fastleader.maxNotificationInterval";
            self.problem("fastleader.minNotificationInterval", what);
        }
    }

    fn warn_of_settings(&mut self) {
        let line_of = |key| self.lines.get(key).copied();
        let mut found = Vec::new();
        if !self.config.force_sync {
            let what = "forceSync=no acknowledges writes before they are on disk: a power failure can lose them";
            found.push((line_of("forceSync"), what.to_owned()));
        }
        if self.config.skip_acl {
            let what = "skipACL=yes checks no ACL: every client may do everything";
            found.push((line_of("skipACL"), what.to_owned()));
        }
        if self.config.purge_interval_ms == 0 {
            let what = "old snapshots and txn logs are never removed and fill the disk in time; \
                        autopurge.purgeInterval=1 removes them hourly";
            found.push((line_of("autopurge.purgeInterval"), what.to_owned()));
        }
        for (list, why) in [
            (
                &self.not_yet,
                "known to Apache ZooKeeper but not implemented yet, so without effect",
            ),
            (
                &self.meaningless,
                "without meaning in zkd, which has no such part",
            ),
        ] {
            if !list.is_empty() {
                found.push((None, format!("{why}: {}", list.join(", "))));
            }
        }
        for (line, what) in found {
            self.warn(line, what);
        }
    }
}

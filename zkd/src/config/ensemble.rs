//! The server among others: what an ensemble needs, the dynamic file, and which server this one is.

use crate::ids::ServerId;

use super::error::{ConfigError, ConfigWarning, Problem};
use super::membership::{
    ANY_ADDRESS, LearnerType, Membership, ServerSpec, canonical_host, delimited,
};
use super::{Config, properties};

/// The largest id whose sessions can be told from those of every other server: their ids have room for eight
/// bits of it.
const SESSION_ID_MAX: i64 = 255;
/// The largest id with TTL nodes, whose owner field has 255 for itself.
const TTL_ID_MAX: i64 = 254;

/// What was found of one file.
pub(super) struct Judgement {
    file: String,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<ConfigWarning>,
}

impl Judgement {
    fn new(file: &str) -> Self {
        Self {
            file: file.to_owned(),
            problems: Vec::new(),
            warnings: Vec::new(),
        }
    }

    fn problem(&mut self, key: &str, what: impl Into<String>) {
        self.problems.push(Problem {
            line: None,
            key: Some(key.to_owned()),
            value: None,
            what: what.into(),
        });
    }

    fn warn(&mut self, what: impl Into<String>) {
        self.warnings.push(ConfigWarning {
            file: self.file.clone(),
            line: None,
            what: what.into(),
        });
    }

    /// The configuration with the warnings, unless there are problems.
    fn pass(self, config: Config) -> Result<(Config, Vec<ConfigWarning>), ConfigError> {
        if self.problems.is_empty() {
            return Ok((config, self.warnings));
        }
        Err(ConfigError {
            file: self.file,
            problems: self.problems,
        })
    }
}

/// Judges a configuration whose members are known.
pub(super) fn judge(config: &Config, file: &str) -> Judgement {
    let mut judgement = Judgement::new(file);
    judge_numbers(config, &mut judgement);
    if config.is_distributed() {
        judge_needs(config, &mut judgement);
    } else if config.client_port.is_none() {
        let mut servers = config.servers.servers.values();
        if !servers.any(|server| server.client.is_some()) {
            judgement.warn("no clientPort: this server takes no clients");
        }
    }
    judgement
}

/// How many there are of each kind.
fn judge_numbers(config: &Config, judgement: &mut Judgement) {
    let voters = config.servers.voters().len();
    if voters == 0 && !config.standalone_enabled {
        let what = "missing: with standaloneEnabled=false at least one participant is needed";
        judgement.problem("server.N", what);
    }
    if !config.servers.observers().is_empty() && !config.is_distributed() {
        judgement.problem(
            "server.N",
            "observers need participants to observe: two or more, or one with standaloneEnabled=false",
        );
    }
    match voters {
        1 if config.standalone_enabled => judgement.warn(
            "one participant serves standalone; standaloneEnabled=false makes an ensemble of one",
        ),
        2 => judgement.warn("with two participants no failure is tolerated; three tolerate one"),
        n if n > 2 && n % 2 == 0 => judgement.warn(format!(
            "{n} participants tolerate no more failures than {}; an odd number is better",
            n - 1
        )),
        _ => {}
    }
}

/// What only an ensemble needs.
fn judge_needs(config: &Config, judgement: &mut Judgement) {
    for (key, value, usual) in [
        ("initLimit", config.init_limit, 10),
        ("syncLimit", config.sync_limit, 5),
    ] {
        if value == 0 {
            let what = format!("missing: an ensemble needs it, in ticks; {usual} is usual");
            judgement.problem(key, what);
        }
    }
    for server in config.servers.servers.values() {
        if server.addresses.len() > 1 && !config.multi_address_enabled {
            judgement.problem(
                &format!("server.{}", server.id),
                "several addresses with '|' need multiAddress.enabled=true on every server",
            );
        }
    }
}

/// Takes the membership from a dynamic file, and its version from that file's name.
pub(super) fn with_dynamic(
    mut config: Config,
    text: &str,
    file: &str,
) -> Result<(Config, Vec<ConfigWarning>), ConfigError> {
    let mut membership = Membership::parse_file(text, file)?;
    let inside = properties::parse(text).unwrap_or_default();
    if let Some(property) = inside
        .into_iter()
        .find(|property| property.key == "version")
    {
        return Err(ConfigError {
            file: file.to_owned(),
            problems: vec![Problem {
                line: Some(property.line),
                key: Some(property.key),
                value: Some(property.value),
                what: "the version belongs into the name of the file, not into it".into(),
            }],
        });
    }
    let suffix = file.rsplit_once('.').map_or("", |(_, suffix)| suffix);
    membership.version = i64::from_str_radix(suffix, 16).unwrap_or(0);
    config.servers = membership;
    judge(&config, file).pass(config)
}

/// Takes the server's own id.
pub(super) fn with_my_id(
    mut config: Config,
    text: &str,
    file: &str,
) -> Result<(Config, Vec<ConfigWarning>), ConfigError> {
    let fail = |what| ConfigError::whole_file(file, what);
    let first = text.lines().next().unwrap_or_default().trim();
    let id = first.parse().map(ServerId).map_err(|_| {
        fail(format!(
            "{first:?} is not a server id: expected one line with a whole number, such as 1"
        ))
    })?;
    if config.extended_types_enabled && id.0 > TTL_ID_MAX {
        return Err(fail(format!(
            "id {id} is too large: with extendedTypesEnabled=true at most {TTL_ID_MAX}"
        )));
    }
    let mut judgement = Judgement::new(file);
    if !(0..=SESSION_ID_MAX).contains(&id.0) {
        judgement.warn(format!(
            "id {id} is outside 0 to {SESSION_ID_MAX}: sessions of two servers can get the same ids"
        ));
    }
    config.my_id = Some(id);
    match config.servers.servers.get(&id).cloned() {
        Some(server) => {
            adopt_role(&mut config, &server, &mut judgement);
            adopt_client_address(&mut config, server, &mut judgement).map_err(fail)?;
        }
        None if config.is_distributed() => {
            let ids: Vec<String> = config
                .servers
                .servers
                .keys()
                .map(ToString::to_string)
                .collect();
            return Err(fail(format!(
                "id {id} is not in the list of servers of {}: expected one of {}",
                config.file,
                ids.join(", ")
            )));
        }
        None => {}
    }
    judgement.pass(config)
}

/// The list of servers has the last word about what this server is. That it is an observer there and nothing is
/// said of it elsewhere is no contradiction.
fn adopt_role(config: &mut Config, server: &ServerSpec, judgement: &mut Judgement) {
    if config.peer_type != server.role && config.peer_type == LearnerType::Observer {
        judgement.warn(format!(
            "peerType is {}, server.{} says {}: the server line counts",
            config.peer_type, server.id, server.role
        ));
    }
    config.peer_type = server.role;
}

/// The client port stands in the server line or in `clientPort`; what only one says the other takes over.
fn adopt_client_address(
    config: &mut Config,
    mut server: ServerSpec,
    judgement: &mut Judgement,
) -> Result<(), String> {
    let of_file = config.client_port.map(|port| {
        let host = config.client_port_address.as_deref();
        (canonical_host(host.unwrap_or(ANY_ADDRESS)), port)
    });
    match (&server.client, of_file) {
        (None, Some(address)) => {
            server.client = Some(address);
            server.client_from_static = true;
            config.servers.servers.insert(server.id, server);
        }
        (Some((host, port)), None) => {
            config.client_port = Some(*port);
            config.client_port_address = Some(host.clone()).filter(|host| host != ANY_ADDRESS);
        }
        (Some(line), Some(of_file)) if *line != of_file => {
            let text = |(host, port): &(String, u16)| format!("{}:{port}", delimited(host));
            return Err(format!(
                "this is server.{}, whose client part is {}, but clientPort and clientPortAddress say {}: \
                 expected one of them, or both the same",
                server.id,
                text(line),
                text(&of_file)
            ));
        }
        (Some(_), Some(_)) => {}
        (None, None) => {
            judgement.warn("no client port is given for this server: it takes no clients");
        }
    }
    Ok(())
}

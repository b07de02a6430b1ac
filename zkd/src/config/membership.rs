//! Who belongs to the ensemble: the `server.N`, `group.G` and `weight.N` lines and their canonical text.
//!
//! Law kept here: text in, text out, no name is ever resolved. The canonical text is what travels in
//! election notifications and NEWLEADER, lies in `/zookeeper/config` and in dynamic files. Counterpart:
//! `QuorumPeer.QuorumServer` and the `toString` of `QuorumMaj` and `QuorumHierarchical`; where versions
//! differ, 3.9.5 (more than one `;` is refused; 3.10 has a second part for TLS).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::ids::ServerId;

use super::error::{ConfigError, Problem};
use super::properties::{self, Property};

/// Where a client part without a host listens.
pub(super) const ANY_ADDRESS: &str = "0.0.0.0";

/// What a member of the ensemble is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LearnerType {
    /// Votes.
    Participant,
    /// Follows without a vote.
    Observer,
}

impl fmt::Display for LearnerType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Participant => "participant",
            Self::Observer => "observer",
        })
    }
}

impl LearnerType {
    /// Reads `participant` or `observer`, in any case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Participant, Self::Observer]
            .into_iter()
            .find(|role| role.to_string().eq_ignore_ascii_case(text))
    }
}

/// One address of a server: a host with its two ports for other servers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServerAddress {
    /// Name or address; an IPv6 address without brackets.
    pub host: String,
    /// The port of the leader for its learners.
    pub quorum_port: u16,
    /// The port of elections.
    pub election_port: u16,
}

/// One member, as its `server.N` line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSpec {
    /// N.
    pub id: ServerId,
    /// At least one; sorted by host, as in the canonical text.
    pub addresses: Vec<ServerAddress>,
    /// Has it a vote?
    pub role: LearnerType,
    /// Where it serves clients, if known here: host and port.
    pub client: Option<(String, u16)>,
    /// `client` was taken from the static `clientPort`, so it stays out of the canonical text.
    pub client_from_static: bool,
}

impl ServerSpec {
    /// Reads the value of `server.<id>`:
    /// `host:quorum:election[:role][|host:quorum:election[:role]…][;[[host:]port]]`.
    ///
    /// # Errors
    /// A sentence saying what is wrong and what was expected.
    pub fn parse(id: ServerId, value: &str) -> Result<Self, String> {
        let mut parts = value.split(';');
        let servers = parts.next().unwrap_or_default();
        let client = parts.next().map(str::trim).filter(|text| !text.is_empty());
        if parts.any(|text| !text.trim().is_empty()) {
            return Err("more than one ';': expected at most one client part, [host:]port".into());
        }
        let client = client.map(parse_client).transpose()?;
        let mut addresses = Vec::new();
        let mut roles = BTreeSet::new();
        for text in servers.split('|') {
            let (address, role) = parse_address(text.trim())?;
            addresses.push(address);
            // Only roles that are spelt out must agree: the canonical text names it once, at the end.
            roles.extend(role.map(|role| role == LearnerType::Observer));
        }
        if roles.len() > 1 {
            return Err(
                "its addresses have different roles: expected the same role for all".into(),
            );
        }
        addresses.sort_by(|a, b| a.host.cmp(&b.host));
        Ok(Self {
            id,
            addresses,
            role: if roles.contains(&true) {
                LearnerType::Observer
            } else {
                LearnerType::Participant
            },
            client,
            client_from_static: false,
        })
    }

    /// The first address: where a server with one address is.
    #[must_use]
    pub fn address(&self) -> &ServerAddress {
        self.addresses
            .first()
            .expect("a server line has at least one address")
    }

    /// Whether the server has a vote.
    #[must_use]
    pub fn is_participant(&self) -> bool {
        self.role == LearnerType::Participant
    }
}

impl fmt::Display for ServerSpec {
    /// The canonical value of the `server.N` line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, address) in self.addresses.iter().enumerate() {
            if index > 0 {
                f.write_str("|")?;
            }
            let host = delimited(&address.host);
            write!(
                f,
                "{host}:{}:{}",
                address.quorum_port, address.election_port
            )?;
        }
        write!(f, ":{}", self.role)?;
        match &self.client {
            Some((host, port)) if !self.client_from_static => {
                write!(f, ";{}:{port}", delimited(host))
            }
            _ => Ok(()),
        }
    }
}

/// The members of an ensemble at one version.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Membership {
    /// Every member, by id.
    pub servers: BTreeMap<ServerId, ServerSpec>,
    /// Hierarchical quorums: the members of each group. Empty with plain majorities.
    pub groups: BTreeMap<i64, BTreeSet<ServerId>>,
    /// Hierarchical quorums: weights that are not to be 1, and those said to be 1.
    pub weights: BTreeMap<ServerId, i64>,
    /// 0 until a reconfiguration has happened; then the zxid of the last one.
    pub version: i64,
}

impl Membership {
    /// Reads the canonical text (or a dynamic file): `server.`, `group.`, `weight.` and `version` lines.
    ///
    /// # Errors
    /// Every line that cannot be read, and every contradiction between lines.
    pub fn parse_text(text: &str) -> Result<Self, ConfigError> {
        Self::parse_file(text, "membership")
    }

    /// As [`Membership::parse_text`], with the name to put into errors.
    ///
    /// # Errors
    /// As there.
    pub fn parse_file(text: &str, file: &str) -> Result<Self, ConfigError> {
        let fail = |problems| ConfigError {
            file: file.to_owned(),
            problems,
        };
        let properties = properties::parse(text).map_err(|problem| fail(vec![problem]))?;
        let mut reader = MembershipReader::default();
        for property in &properties {
            if property.key == "version" {
                reader.version(property);
            } else if !reader.line(property) {
                reader.problems.push(Problem {
                    line: Some(property.line),
                    key: Some(property.key.clone()),
                    value: None,
                    what: "not a membership key: expected server.N, group.G, weight.N".into(),
                });
            }
        }
        let (membership, problems) = reader.finish();
        if problems.is_empty() {
            Ok(membership)
        } else {
            Err(fail(problems))
        }
    }

    /// The text that stands for this membership on the wire, in `/zookeeper/config` and on disk.
    #[must_use]
    pub fn canonical_text(&self) -> String {
        format!("{}version={:x}", self.member_lines(), self.version)
    }

    /// The canonical text without its version line; every line ends with a newline.
    #[must_use]
    pub fn member_lines(&self) -> String {
        use fmt::Write as _;
        let mut text = String::new();
        for server in self.servers.values() {
            writeln!(text, "server.{}={server}", server.id).expect("a String takes any text");
        }
        for (group, members) in &self.groups {
            let members: Vec<String> = members.iter().map(ToString::to_string).collect();
            writeln!(text, "group.{group}={}", members.join(":")).expect("a String takes any text");
        }
        if self.is_hierarchical() {
            for id in self.voters() {
                writeln!(text, "weight.{id}={}", self.weight(id)).expect("a String takes any text");
            }
        }
        text
    }

    /// The servers with a vote.
    #[must_use]
    pub fn voters(&self) -> BTreeSet<ServerId> {
        self.with_role(LearnerType::Participant)
    }

    /// The servers without one.
    #[must_use]
    pub fn observers(&self) -> BTreeSet<ServerId> {
        self.with_role(LearnerType::Observer)
    }

    /// The line of one server.
    #[must_use]
    pub fn server(&self, id: ServerId) -> Option<&ServerSpec> {
        self.servers.get(&id)
    }

    /// Whether groups or weights are given, so that a quorum is more than a head count.
    #[must_use]
    pub fn is_hierarchical(&self) -> bool {
        !self.groups.is_empty() || !self.weights.is_empty()
    }

    /// What the vote of a participant weighs: 1 unless said otherwise.
    #[must_use]
    pub fn weight(&self, id: ServerId) -> i64 {
        self.weights.get(&id).copied().unwrap_or(1)
    }

    fn with_role(&self, role: LearnerType) -> BTreeSet<ServerId> {
        let members = self.servers.values().filter(|server| server.role == role);
        members.map(|server| server.id).collect()
    }
}

/// Collects membership lines, wherever they stand, and judges the whole at the end.
#[derive(Default)]
pub(super) struct MembershipReader {
    membership: Membership,
    lines: BTreeMap<ServerId, usize>,
    problems: Vec<Problem>,
}

impl MembershipReader {
    /// Takes one line; `false` if it is none of membership.
    pub(super) fn line(&mut self, property: &Property) -> bool {
        let result = if let Some(id) = property.key.strip_prefix("server.") {
            self.server(id, property)
        } else if let Some(id) = property.key.strip_prefix("group.") {
            self.group(id, &property.value)
        } else if let Some(id) = property.key.strip_prefix("weight.") {
            self.weight(id, &property.value)
        } else {
            return false;
        };
        if let Err(what) = result {
            self.problem(property, what);
        }
        true
    }

    /// Is there any membership line at all?
    pub(super) fn is_empty(&self) -> bool {
        self.membership == Membership::default() && self.problems.is_empty()
    }

    pub(super) fn version(&mut self, property: &Property) {
        match i64::from_str_radix(&property.value, 16) {
            Ok(version) => self.membership.version = version,
            Err(_) => self.problem(property, "expected a hexadecimal number".into()),
        }
    }

    /// The membership read, and everything that is wrong with it.
    pub(super) fn finish(mut self) -> (Membership, Vec<Problem>) {
        self.judge_addresses();
        self.judge_groups();
        (self.membership, self.problems)
    }

    fn problem(&mut self, property: &Property, what: String) {
        self.problems.push(Problem {
            line: Some(property.line),
            key: Some(property.key.clone()),
            value: Some(property.value.clone()),
            what,
        });
    }

    fn server(&mut self, id: &str, property: &Property) -> Result<(), String> {
        let id = parse_id(id)?;
        if let Some(first) = self.lines.insert(id, property.line) {
            return Err(format!(
                "there is a server.{id} already on line {first}: every server has an id of its own"
            ));
        }
        let server = ServerSpec::parse(id, &property.value)?;
        self.membership.servers.insert(id, server);
        Ok(())
    }

    fn group(&mut self, id: &str, value: &str) -> Result<(), String> {
        let group: i64 = id
            .parse()
            .map_err(|_| format!("{id:?} is not a group number"))?;
        for member in value.split(':') {
            let member = parse_id(member.trim())?;
            let mut others = self.membership.groups.iter();
            if let Some((other, _)) = others.find(|(_, members)| members.contains(&member)) {
                return Err(format!("server {member} is in group {other} already"));
            }
            let members = self.membership.groups.entry(group).or_default();
            members.insert(member);
        }
        Ok(())
    }

    fn weight(&mut self, id: &str, value: &str) -> Result<(), String> {
        let id = parse_id(id)?;
        let weight: Option<i64> = value
            .parse()
            .ok()
            .filter(|weight| (0..=i64::from(i32::MAX)).contains(weight));
        let weight = weight.ok_or("expected a whole number, 0 or more")?;
        self.membership.weights.insert(id, weight);
        Ok(())
    }

    /// Two servers cannot listen on one host and port.
    fn judge_addresses(&mut self) {
        let mut seen: BTreeMap<(String, u16), ServerId> = BTreeMap::new();
        for server in self.membership.servers.values() {
            for address in &server.addresses {
                for port in [address.quorum_port, address.election_port] {
                    let place = (canonical_host(&address.host), port);
                    let other = *seen.entry(place).or_insert(server.id);
                    if other != server.id {
                        self.problems.push(Problem {
                            line: self.lines.get(&server.id).copied(),
                            key: Some(format!("server.{}", server.id)),
                            value: Some(server.to_string()),
                            what: format!(
                                "server.{other} has {}:{port} too: every server has ports of its own",
                                delimited(&address.host)
                            ),
                        });
                    }
                }
            }
        }
    }

    /// With groups, every voter is in one; a group names members only.
    fn judge_groups(&mut self) {
        if !self.membership.is_hierarchical() {
            return;
        }
        let grouped: BTreeSet<ServerId> =
            self.membership.groups.values().flatten().copied().collect();
        for id in self.membership.voters().difference(&grouped) {
            self.problems.push(Problem {
                line: self.lines.get(id).copied(),
                key: Some(format!("server.{id}")),
                value: None,
                what: "in no group: with group or weight lines every voter belongs to a group"
                    .into(),
            });
        }
    }
}

fn parse_id(text: &str) -> Result<ServerId, String> {
    text.parse()
        .map(ServerId)
        .map_err(|_| format!("{text:?} is not a server id: expected a whole number"))
}

fn parse_port(text: &str, name: &str) -> Result<u16, String> {
    match text.trim().parse() {
        Ok(port) if port != 0 => Ok(port),
        _ => Err(format!(
            "{text:?} is not a {name} port: expected 1 to 65535"
        )),
    }
}

/// Splits the host off: `[v6]rest` or `host:rest`; the rest has no leading colon.
fn split_host(text: &str) -> Result<(&str, &str), String> {
    let (host, rest) = match text.strip_prefix('[') {
        Some(inner) => {
            let Some((host, rest)) = inner.split_once(']') else {
                return Err(format!("{text:?} has a '[' without ']'"));
            };
            (host, rest.strip_prefix(':').unwrap_or(rest))
        }
        None => text.split_once(':').unwrap_or((text, "")),
    };
    if host.trim().is_empty() {
        return Err(format!("{text:?} has no host"));
    }
    Ok((host.trim(), rest))
}

fn parse_address(text: &str) -> Result<(ServerAddress, Option<LearnerType>), String> {
    let (host, rest) = split_host(text)?;
    let fields: Vec<&str> = rest.split(':').collect();
    let (quorum, election, role) = match fields[..] {
        [quorum, election] => (quorum, election, None),
        [quorum, election, role] => (quorum, election, Some(role)),
        _ => {
            return Err(format!(
                "{text:?} has {} parts: expected host:quorumPort:electionPort[:participant|observer], \
                 an IPv6 host in brackets",
                fields.len() + 1
            ));
        }
    };
    let quorum_port = parse_port(quorum, "quorum")?;
    let election_port = parse_port(election, "election")?;
    if quorum_port == election_port {
        return Err(format!(
            "quorum and election port are both {quorum_port}: expected two"
        ));
    }
    let role = role.map(|role| {
        LearnerType::parse(role.trim())
            .ok_or_else(|| format!("{role:?} is not a role: expected participant or observer"))
    });
    let role = role.transpose()?;
    let address = ServerAddress {
        host: canonical_host(host),
        quorum_port,
        election_port,
    };
    Ok((address, role))
}

fn parse_client(text: &str) -> Result<(String, u16), String> {
    if !text.contains(':') {
        return Ok((ANY_ADDRESS.to_owned(), parse_port(text, "client")?));
    }
    let (host, port) = split_host(text)?;
    Ok((canonical_host(host), parse_port(port, "client")?))
}

/// A host as Java prints it: IPv6 addresses with all eight groups, mapped IPv4 addresses as IPv4.
#[must_use]
pub fn canonical_host(host: &str) -> String {
    match host.parse() {
        Ok(IpAddr::V4(address)) => Ipv4Addr::to_string(&address),
        Ok(IpAddr::V6(address)) => match address.to_ipv4_mapped() {
            Some(mapped) => mapped.to_string(),
            None => expanded(address),
        },
        Err(_) => host.to_owned(),
    }
}

fn expanded(address: Ipv6Addr) -> String {
    address
        .segments()
        .map(|group| format!("{group:x}"))
        .join(":")
}

/// A host as it stands before a port: with brackets if it has colons itself.
#[must_use]
pub fn delimited(host: &str) -> String {
    if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(value: &str) -> String {
        ServerSpec::parse(ServerId(1), value).unwrap().to_string()
    }

    #[test]
    fn server_lines_of_every_form() {
        for (value, text) in [
            ("h:2888:3888", "h:2888:3888:participant"),
            ("h:2888:3888:observer", "h:2888:3888:observer"),
            (
                "h:2888:3888:OBSERVER;2181",
                "h:2888:3888:observer;0.0.0.0:2181",
            ),
            ("h:2888:3888;c:2181", "h:2888:3888:participant;c:2181"),
            ("h:2888:3888;", "h:2888:3888:participant"),
            (
                " h:2888:3888 ; 2181 ",
                "h:2888:3888:participant;0.0.0.0:2181",
            ),
            (
                "[::1]:2888:3888;[::1]:2181",
                "[0:0:0:0:0:0:0:1]:2888:3888:participant;[0:0:0:0:0:0:0:1]:2181",
            ),
            (
                "[2001:db8::a]:1:2:participant",
                "[2001:db8:0:0:0:0:0:a]:1:2:participant",
            ),
            ("[::ffff:1.2.3.4]:1:2", "1.2.3.4:1:2:participant"),
            ("b:3:4|a:1:2", "a:1:2|b:3:4:participant"),
            (
                "b:3:4:observer|a:1:2:observer;5",
                "a:1:2|b:3:4:observer;0.0.0.0:5",
            ),
            ("127.0.0.1:21111:21121", "127.0.0.1:21111:21121:participant"),
        ] {
            assert_eq!(canonical(value), text, "{value}");
            assert_eq!(
                canonical(text),
                text,
                "{value}: the canonical text reads as itself"
            );
        }
    }

    #[test]
    fn refused_server_lines() {
        for (value, reason) in [
            ("", "no host"),
            ("h", "2 parts"),
            ("h:1", "2 parts"),
            (":1:2", "no host"),
            ("h:1:2:observer:x", "5 parts"),
            ("h:1:1", "both 1"),
            ("h:0:1", "quorum port"),
            ("h:1:65536", "election port"),
            ("h:1:x", "election port"),
            ("h:1:2:voter", "not a role"),
            ("h:1:2;0", "client port"),
            ("h:1:2;c:x", "client port"),
            ("h:1:2;1;2", "more than one ';'"),
            ("[::1:1:2", "without ']'"),
            ("::1:1:2", "no host"),
            ("a:1:2:participant|b:1:2:observer", "different roles"),
            ("a:1:2|", "no host"),
        ] {
            let error = ServerSpec::parse(ServerId(1), value).unwrap_err();
            assert!(error.contains(reason), "{value}: {error}");
        }
    }

    /// As Apache sent them in election notifications and NEWLEADER: 3.8.0 with an observer; 3.9.3 with groups and
    /// weights, with two addresses per server, and after a reconfiguration.
    const CAPTURED: [&str; 4] = [
        "server.1=127.0.0.1:21111:21121:participant\n\
         server.2=127.0.0.1:21112:21122:participant\n\
         server.3=127.0.0.1:21113:21123:participant\n\
         server.4=127.0.0.1:21114:21124:observer\nversion=0",
        "server.1=127.0.0.1:21111:21121:participant\n\
         server.2=127.0.0.1:21112:21122:participant\n\
         server.3=127.0.0.1:21113:21123:participant\n\
         group.1=1:2\ngroup.2=3\nweight.1=2\nweight.2=1\nweight.3=0\nversion=0",
        "server.1=127.0.0.1:21111:21121|127.0.0.2:21111:21121:participant\n\
         server.2=127.0.0.1:21112:21122|127.0.0.2:21112:21122:participant\n\
         server.3=[0:0:0:0:0:0:0:1]:21113:21123|127.0.0.1:21113:21123:participant\nversion=0",
        "server.1=127.0.0.1:21111:21121:participant;127.0.0.1:21101\n\
         server.2=127.0.0.1:21112:21122:participant;127.0.0.1:21102\n\
         server.4=127.0.0.1:21114:21124:participant;127.0.0.1:21104\nversion=20000002d",
    ];

    #[test]
    fn canonical_text_both_ways() {
        for text in CAPTURED.into_iter().chain(["version=0"]) {
            let membership = Membership::parse_text(text).unwrap();
            assert_eq!(membership.canonical_text(), text);
        }
        let grouped = Membership::parse_text(CAPTURED[1]).unwrap();
        assert!(grouped.is_hierarchical());
        assert_eq!(grouped.weight(ServerId(1)), 2);
        assert_eq!(
            grouped.groups[&1],
            BTreeSet::from([ServerId(1), ServerId(2)])
        );
        let membership = Membership::parse_text(CAPTURED[0]).unwrap();
        assert_eq!(membership.voters().len(), 3);
        assert_eq!(membership.observers(), BTreeSet::from([ServerId(4)]));
        assert!(!membership.is_hierarchical());
    }

    #[test]
    fn a_client_address_from_the_static_file_stays_out() {
        let mut server = ServerSpec::parse(ServerId(1), "a:1:2;2181").unwrap();
        server.client_from_static = true;
        assert_eq!(server.to_string(), "a:1:2:participant");
    }

    #[test]
    fn contradictions() {
        for (text, reason) in [
            (
                "server.1=a:1:2\nserver.1=b:1:2",
                "server.1 already on line 1",
            ),
            ("server.1=a:1:2\nserver.2=a:2:3", "server.1 has a:2 too"),
            (
                "server.1=[::1]:1:2\nserver.2=[0:0::1]:1:3",
                "server.1 has [0:0:0:0:0:0:0:1]:1 too",
            ),
            ("server.x=a:1:2", "not a server id"),
            ("server.1=a:1:2\nweight.1=2", "in no group"),
            ("server.1=a:1:2\ngroup.1=1\ngroup.2=1", "in group 1 already"),
            ("server.1=a:1:2\ngroup.1=1\nweight.1=-1", "0 or more"),
            ("tickTime=3", "not a membership key"),
            ("version=xyz", "hexadecimal"),
        ] {
            let error = Membership::parse_text(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn garbage_from_a_peer_never_panics() {
        let mut prng = crate::prng::Prng::new(7);
        let alphabet: Vec<char> = "server.1=[]:|;,\\u0\nparticipant".chars().collect();
        for _ in 0..20_000 {
            let length = prng.below(40);
            let text: String = (0..length)
                .map(|_| alphabet[prng.below(alphabet.len() as u64) as usize])
                .collect();
            let _ = Membership::parse_text(&text);
            let _ = ServerSpec::parse(ServerId(1), &text);
        }
    }
}

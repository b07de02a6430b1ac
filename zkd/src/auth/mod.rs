//! Who a connection is, and what that lets it do: schemes, identities, ACL checks.
//!
//! An identity belongs to a connection, never to a session: a client repeats its `auth` packets after
//! every reconnect. Every check is a pure function of an ACL, a permission and a set of identities, so
//! that the leader can judge a request which a learner forwarded. Which connection has which identities
//! is `pipeline`'s business. Counterpart: `ZooKeeperServer.checkACL`, `PrepRequestProcessor.fixupACL`,
//! `DigestAuthenticationProvider`, `IPAuthenticationProvider`.

mod ip;
mod password;

use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha1::{Digest, Sha1};

use crate::error::ErrorCode;
use crate::record::data::{Acl, Id, perms};

pub use ip::canonical_address;
pub use password::session_password;

/// The identities of a connection at one moment; every request carries the set it was parsed with.
pub type Ids = Arc<[Id]>;

/// What the operator configured about identities and permissions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthConfig {
    /// `user:base64(sha1(user:password))` of the superuser (`superDigest`); nobody is super without it.
    pub super_digest: Option<String>,
    /// Let everyone do everything (`skipACL=yes`).
    pub skip_acl: bool,
    /// If not empty, a connection must have an identity of one of these schemes before it may do
    /// anything but authenticate (`enforce.auth.schemes`). `ip` admits everyone.
    pub enforced_schemes: Vec<String>,
}

impl AuthConfig {
    /// Whether `ids` have any permission bit of `perm` on something guarded by `acl`.
    #[must_use]
    pub fn permits(&self, acl: &[Acl], perm: i32, ids: &[Id]) -> bool {
        self.skip_acl || check_acl(acl, perm, ids)
    }

    /// Whether a connection of these identities may do anything but authenticate.
    #[must_use]
    pub fn admits(&self, ids: &[Id]) -> bool {
        self.enforced_schemes.is_empty()
            || ids.iter().any(|id| {
                id.scheme
                    .as_ref()
                    .is_some_and(|scheme| self.enforced_schemes.contains(scheme))
            })
    }
}

/// The credentials of an `auth` packet were refused: answer -115 and close the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthFailed;

/// The identities a connection starts with: its address.
#[must_use]
pub fn initial_ids(peer: IpAddr) -> Ids {
    Arc::new([Id::new("ip", &canonical_address(peer))])
}

/// Checks the credentials of an `auth` packet and gives the identities they prove (none for `ip`: the
/// connection has its address already).
///
/// # Errors
/// If the scheme is unknown, cannot be used this way (`world`, `sasl`, `x509`), or the data is null
/// where the scheme needs some.
pub fn authenticate(
    scheme: Option<&str>,
    data: Option<&[u8]>,
    config: &AuthConfig,
) -> Result<Vec<Id>, AuthFailed> {
    match scheme {
        Some("ip") => Ok(Vec::new()),
        Some("digest") => {
            let text = String::from_utf8_lossy(data.ok_or(AuthFailed)?);
            let id = digest_id(&text);
            let mut ids = Vec::with_capacity(2);
            if config.super_digest.as_deref() == Some(id.as_str()) {
                ids.push(Id::new("super", ""));
            }
            ids.push(Id::new("digest", &id));
            Ok(ids)
        }
        _ => Err(AuthFailed),
    }
}

/// `ids` and what `more` adds to them; identities already there are not doubled.
#[must_use]
pub fn with_ids(ids: &Ids, more: Vec<Id>) -> Ids {
    let mut all = ids.to_vec();
    for id in more {
        if !all.contains(&id) {
            all.push(id);
        }
    }
    all.into()
}

/// The identity `user:base64(sha1(user:password))` of `user:password`. Text without a colon is taken as
/// the user, as in Apache: `blah` becomes `blah:<hash of blah>`.
#[must_use]
pub fn digest_id(user_and_password: &str) -> String {
    let user = user_and_password
        .split_once(':')
        .map_or(user_and_password, |(user, _)| user);
    let hash = BASE64.encode(Sha1::digest(user_and_password.as_bytes()));
    format!("{user}:{hash}")
}

/// Whether one entry of `acl` grants a bit of `perm` to one of `ids`; `super` passes every check.
///
/// The empty ACL grants nothing. Apache lets everyone pass there, but stores a missing ACL as the open
/// one and never an empty one; here empty is what a fuzzy snapshot did not tell.
#[must_use]
pub fn check_acl(acl: &[Acl], perm: i32, ids: &[Id]) -> bool {
    acl.iter()
        .any(|entry| entry.perms & perm != 0 && matches_any(&entry.id, ids))
        || ids.iter().any(|id| id.scheme.as_deref() == Some("super"))
}

fn matches_any(wanted: &Id, ids: &[Id]) -> bool {
    let (Some(scheme), Some(expression)) = (wanted.scheme.as_deref(), wanted.id.as_deref()) else {
        return false;
    };
    match scheme {
        "world" => expression == "anyone",
        "ip" => ids
            .iter()
            .filter(|id| id.scheme.as_deref() == Some("ip"))
            .filter_map(|id| id.id.as_deref())
            .any(|address| ip::matches(address, expression)),
        "digest" => ids.contains(wanted),
        _ => false,
    }
}

/// The ACL as it is stored: exact duplicates dropped, `auth` replaced by the identities of the
/// connection that prove something (not `ip`). Two `auth` entries expand twice, and the result is not
/// cleared of duplicates again, as in Apache.
///
/// # Errors
/// [`ErrorCode::InvalidAcl`] if nothing is left, a scheme is null or unknown, or an id is none of its
/// scheme's; [`ErrorCode::MarshallingError`] for `world` with a null id.
pub fn fixup_acl(acl: Option<&[Acl]>, ids: &[Id]) -> Result<Vec<Acl>, ErrorCode> {
    let mut fixed = Vec::new();
    let entries = acl.unwrap_or_default();
    for (at, entry) in entries.iter().enumerate() {
        if entries[..at].contains(entry) {
            continue;
        }
        match (entry.id.scheme.as_deref(), entry.id.id.as_deref()) {
            (Some("world"), Some("anyone")) => fixed.push(entry.clone()),
            (Some("world"), None) => return Err(ErrorCode::MarshallingError),
            (Some("auth"), _) => {
                let before = fixed.len();
                fixed.extend(ids.iter().filter(|id| proves_something(id)).map(|id| Acl {
                    perms: entry.perms,
                    id: id.clone(),
                }));
                if fixed.len() == before {
                    return Err(ErrorCode::InvalidAcl);
                }
            }
            (Some("digest"), Some(id)) if is_digest_id(id) => fixed.push(entry.clone()),
            (Some("ip"), Some(id)) if ip::is_valid_expression(id) => fixed.push(entry.clone()),
            _ => return Err(ErrorCode::InvalidAcl),
        }
    }
    if fixed.is_empty() {
        return Err(ErrorCode::InvalidAcl);
    }
    Ok(fixed)
}

fn proves_something(id: &Id) -> bool {
    matches!(id.scheme.as_deref(), Some("digest" | "sasl" | "x509"))
}

/// Splitting at `:` and dropping empty parts from the end has to leave exactly two, as Java's `split`
/// does it: `:h` and `u:h:` pass, `u:` and `a:b:c` do not.
fn is_digest_id(id: &str) -> bool {
    let trimmed = id.trim_end_matches(':');
    !trimmed.is_empty() && trimmed.matches(':').count() == 1
}

/// The ACL as a caller without ADMIN sees it: of a digest only the user is left.
#[must_use]
pub fn redact(acl: &[Acl]) -> Vec<Acl> {
    acl.iter()
        .map(|entry| match (&entry.id.scheme, &entry.id.id) {
            (Some(scheme), Some(id)) if scheme == "digest" && id.contains(':') => {
                let user = id.split(':').next().unwrap_or_default();
                Acl {
                    perms: entry.perms,
                    id: Id::new("digest", &format!("{user}:x")),
                }
            }
            _ => entry.clone(),
        })
        .collect()
}

/// What `getACL` answers: `None` if the caller may not see the ACL, redacted without ADMIN.
#[must_use]
pub fn visible_acl(config: &AuthConfig, acl: &[Acl], ids: &[Id]) -> Option<Vec<Acl>> {
    if config.permits(acl, perms::ADMIN, ids) {
        Some(acl.to_vec())
    } else if config.permits(acl, perms::READ, ids) {
        Some(redact(acl))
    } else {
        None
    }
}

/// The part of an identity that may be shown (`whoAmI`): the user of a digest, the id otherwise.
#[must_use]
pub fn user_name(id: &Id) -> &str {
    let whole = id.id.as_deref().unwrap_or_default();
    if id.scheme.as_deref() == Some("digest") {
        whole.split(':').next().unwrap_or_default()
    } else {
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(perms: i32, scheme: &str, id: &str) -> Acl {
        Acl {
            perms,
            id: Id::new(scheme, id),
        }
    }

    fn local() -> Ids {
        initial_ids("127.0.0.1".parse().unwrap())
    }

    #[test]
    fn digest_of_the_manual() {
        assert_eq!(
            digest_id("super:test"),
            "super:D/InIHSb7yEEbrWz8b9l71RjZJU="
        );
        assert!(digest_id("blah").starts_with("blah:"));
        assert!(digest_id("").starts_with(':'));
    }

    #[test]
    fn auth_packets() {
        let config = AuthConfig::default();
        assert_eq!(
            authenticate(Some("ip"), Some(b"whatever"), &config),
            Ok(vec![])
        );
        assert_eq!(authenticate(Some("digest"), None, &config), Err(AuthFailed));
        assert!(authenticate(Some("digest"), Some(b""), &config).is_ok());
        for scheme in [
            None,
            Some("world"),
            Some("sasl"),
            Some("x509"),
            Some("FOO"),
            Some("super"),
        ] {
            assert_eq!(authenticate(scheme, Some(b"x"), &config), Err(AuthFailed));
        }
    }

    #[test]
    fn super_passes_everything() {
        let config = AuthConfig {
            super_digest: Some("super:D/InIHSb7yEEbrWz8b9l71RjZJU=".into()),
            ..AuthConfig::default()
        };
        let ids = authenticate(Some("digest"), Some(b"super:test"), &config).unwrap();
        assert_eq!(ids[0], Id::new("super", ""));
        assert!(check_acl(&[acl(0, "digest", "a:b")], perms::WRITE, &ids));
        let other = authenticate(Some("digest"), Some(b"super:wrong"), &config).unwrap();
        assert!(!check_acl(
            &[acl(31, "digest", "a:b")],
            perms::WRITE,
            &other
        ));
    }

    #[test]
    fn bits_are_ored() {
        let only_read = [acl(perms::READ, "world", "anyone")];
        assert!(check_acl(&only_read, perms::READ | perms::ADMIN, &local()));
        assert!(!check_acl(&only_read, perms::WRITE, &local()));
        assert!(!check_acl(&[], perms::WRITE, &local()));
    }

    #[test]
    fn fixup_refuses_what_cannot_be_used() {
        let ids = local();
        let bad = |entry: Acl| fixup_acl(Some(&[entry]), &ids);
        assert_eq!(fixup_acl(None, &ids), Err(ErrorCode::InvalidAcl));
        assert_eq!(fixup_acl(Some(&[]), &ids), Err(ErrorCode::InvalidAcl));
        for (scheme, id) in [
            ("auth", ""),
            ("world", "someone"),
            ("digest", "u:"),
            ("digest", "a:b:c"),
            ("digest", ""),
            ("ip", "1.2.3"),
            ("foo", "bar"),
            ("super", ""),
        ] {
            assert_eq!(
                bad(acl(31, scheme, id)),
                Err(ErrorCode::InvalidAcl),
                "{scheme}:{id}"
            );
        }
        let null = |scheme: Option<&str>| Acl {
            perms: 31,
            id: Id {
                scheme: scheme.map(str::to_owned),
                id: None,
            },
        };
        assert_eq!(bad(null(None)), Err(ErrorCode::InvalidAcl));
        assert_eq!(bad(null(Some("world"))), Err(ErrorCode::MarshallingError));
        assert!(bad(acl(31, "digest", ":h")).is_ok());
        assert!(bad(acl(31, "digest", "u:h:")).is_ok());
    }

    #[test]
    fn auth_expands_to_proven_identities_only() {
        let ids = with_ids(
            &local(),
            vec![Id::new("digest", "u:h"), Id::new("digest", "v:h")],
        );
        let null = Acl {
            perms: 5,
            id: Id {
                scheme: Some("auth".into()),
                id: None,
            },
        };
        let expanded = fixup_acl(
            Some(&[null.clone(), null.clone(), acl(5, "auth", "x")]),
            &ids,
        );
        let users: Vec<_> = expanded
            .unwrap()
            .into_iter()
            .map(|a| a.id.id.unwrap())
            .collect();
        assert_eq!(
            users,
            ["u:h", "v:h", "u:h", "v:h"],
            "the exact duplicate is dropped, the other auth entry expands again"
        );
    }

    #[test]
    fn getacl_hides_hashes_from_those_without_admin() {
        let config = AuthConfig::default();
        let list = [
            acl(perms::READ, "world", "anyone"),
            acl(31, "digest", "u:hash:more"),
        ];
        assert_eq!(
            visible_acl(&config, &list, &local()).unwrap()[1]
                .id
                .id
                .as_deref(),
            Some("u:x")
        );
        let ids = with_ids(&local(), vec![Id::new("digest", "u:hash:more")]);
        assert_eq!(visible_acl(&config, &list, &ids).unwrap(), list);
        assert_eq!(visible_acl(&config, &list[1..], &local()), None);
    }

    #[test]
    fn enforced_schemes() {
        let config = AuthConfig {
            enforced_schemes: vec!["digest".into()],
            ..AuthConfig::default()
        };
        assert!(!config.admits(&local()));
        assert!(config.admits(&with_ids(&local(), vec![Id::new("digest", "u:h")])));
        let with_ip = AuthConfig {
            enforced_schemes: vec!["digest".into(), "ip".into()],
            ..AuthConfig::default()
        };
        assert!(with_ip.admits(&local()));
    }
}

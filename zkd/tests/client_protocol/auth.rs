//! Identities: credentials, enforced schemes, what they open.

use zkd::auth::AuthConfig;
use zkd::jute::Reader;
use zkd::pipeline::{PrepOptions, ServerOptions};
use zkd::record::data::{Acl, Id, perms};
use zkd::record::opcode::OpCode;

use crate::harness::*;

fn with_auth(auth: AuthConfig) -> TestServer {
    TestServer::with(
        ServerOptions {
            auth: auth.clone(),
            ..ServerOptions::default()
        },
        PrepOptions {
            auth,
            ..PrepOptions::default()
        },
    )
}

fn creator_all() -> Vec<Acl> {
    vec![Acl {
        perms: perms::ALL,
        id: Id::new("auth", ""),
    }]
}

#[test]
fn digest_opens_what_its_owner_closed() {
    let mut s = TestServer::new();
    let (c, other) = (s.connect(), s.connect());
    assert_eq!(
        s.err(c, OpCode::Auth, &auth("digest", Some(b"pat:pass"))),
        0
    );
    assert_eq!(
        s.err(
            c,
            OpCode::Create,
            &create_acl("/mine", b"", Some(&creator_all()), 0)
        ),
        0
    );
    assert_eq!(
        s.err(other, OpCode::GetData, &path_watch("/mine", false)),
        -102
    );
    assert_eq!(
        s.err(other, OpCode::SetData, &set_data("/mine", b"", -1)),
        -102
    );
    assert_eq!(
        s.err(other, OpCode::Create, &create("/mine/x", b"", 0)),
        -102
    );
    s.ask(other, OpCode::Auth, &auth("digest", Some(b"pat:wrong")));
    assert_eq!(
        s.err(other, OpCode::GetData, &path_watch("/mine", false)),
        -102
    );
    s.ask(other, OpCode::Auth, &auth("digest", Some(b"pat:pass")));
    assert_eq!(
        s.err(other, OpCode::GetData, &path_watch("/mine", false)),
        0
    );
    s.create(other, "/mine/x");
    // Identities belong to the connection.
    let again = s.connect();
    assert_eq!(
        s.err(again, OpCode::GetData, &path_watch("/mine", false)),
        -102
    );
}

#[test]
fn credentials_do_not_reach_back() {
    let mut s = TestServer::new();
    let c = s.connect();
    s.ask(c, OpCode::Auth, &auth("digest", Some(b"a:a")));
    s.ask(
        c,
        OpCode::Create,
        &create_acl("/mine", b"", Some(&creator_all()), 0),
    );
    let other = s.connect();
    s.hold = true;
    s.send(other, &frame(1, 5, &set_data("/mine", b"", -1)));
    s.send(other, &frame(2, 4, &path_watch("/mine", false)));
    s.send(other, &frame(-4, 100, &auth("digest", Some(b"a:a"))));
    s.send(other, &frame(3, 4, &path_watch("/mine", false)));
    s.release();
    let errs: Vec<_> = s.replies(other).iter().map(|reply| reply.err).collect();
    assert_eq!(errs, [-102, -102, 0, 0]);
}

#[test]
fn odd_credentials() {
    for (scheme, data, err) in [
        ("digest", Some(b"".as_slice()), 0),
        ("digest", Some(b"blah"), 0),
        ("ip", Some(b"whatever"), 0),
        ("ip", None, 0),
        ("digest", None, -115),
        ("world", Some(b"anyone"), -115),
        ("sasl", Some(b"x"), -115),
        ("x509", Some(b"x"), -115),
        ("", Some(b"x"), -115),
    ] {
        let mut s = TestServer::new();
        let c = s.connect();
        let reply = s.ask(c, OpCode::Auth, &auth(scheme, data));
        assert_eq!((reply.err, reply.zxid), (err, 0), "{scheme}");
        assert_eq!(s.is_closed(c), err != 0, "{scheme}");
    }
    let mut s = TestServer::new();
    let c = s.connect();
    assert_eq!(s.err(c, OpCode::Auth, b"\0"), -115);
    assert!(s.is_closed(c));
}

#[test]
fn sasl_without_configuration_says_null() {
    let mut s = TestServer::new();
    let c = s.connect();
    let reply = s.ask(c, OpCode::Sasl, &body(|out| out.buffer(Some(b"token"))));
    assert_eq!((reply.err, reply.body), (0, vec![0xff; 4]));
}

#[test]
fn the_superuser_may_do_everything() {
    let mut s = with_auth(AuthConfig {
        super_digest: Some("super:D/InIHSb7yEEbrWz8b9l71RjZJU=".into()),
        ..AuthConfig::default()
    });
    let c = s.connect();
    let nobody = [Acl {
        perms: 0,
        id: Id::new("world", "anyone"),
    }];
    s.ask(
        c,
        OpCode::Create,
        &create_acl("/closed", b"", Some(&nobody), 0),
    );
    assert_eq!(
        s.err(c, OpCode::SetData, &set_data("/closed", b"", -1)),
        -102
    );
    s.ask(c, OpCode::Auth, &auth("digest", Some(b"super:test")));
    assert_eq!(s.err(c, OpCode::SetData, &set_data("/closed", b"", -1)), 0);
    assert_eq!(s.err(c, OpCode::GetData, &path_watch("/closed", false)), 0);
    assert_eq!(
        s.err(
            c,
            OpCode::SetAcl,
            &set_acl("/closed", Some(&Acl::open()), -1)
        ),
        0
    );
    assert_eq!(
        s.err(c, OpCode::SetData, &set_data("/zookeeper/config", b"", -1)),
        0
    );
}

#[test]
fn skip_acl() {
    let mut s = with_auth(AuthConfig {
        skip_acl: true,
        ..AuthConfig::default()
    });
    let c = s.connect();
    let nobody = [Acl {
        perms: 0,
        id: Id::new("digest", "a:secret"),
    }];
    s.ask(
        c,
        OpCode::Create,
        &create_acl("/closed", b"", Some(&nobody), 0),
    );
    s.create(c, "/closed/x");
    assert_eq!(s.err(c, OpCode::GetData, &path_watch("/closed", false)), 0);
    let reply = s.ask(c, OpCode::GetAcl, &only_path("/closed"));
    let acl = Reader::new(&reply.body)
        .vector::<Acl>("acl")
        .unwrap()
        .unwrap();
    assert_eq!(acl, nobody, "not even hidden");
}

#[test]
fn hashes_are_hidden() {
    let mut s = TestServer::new();
    let c = s.connect();
    let acl = [
        Acl {
            perms: perms::READ,
            id: Id::new("world", "anyone"),
        },
        Acl {
            perms: perms::ALL,
            id: Id::new("digest", "u:hash"),
        },
    ];
    s.ask(c, OpCode::Create, &create_acl("/a", b"", Some(&acl), 0));
    let reply = s.ask(c, OpCode::GetAcl, &only_path("/a"));
    let seen = Reader::new(&reply.body)
        .vector::<Acl>("acl")
        .unwrap()
        .unwrap();
    assert_eq!(seen[1].id, Id::new("digest", "u:x"));
}

#[test]
fn addresses_open_and_close() {
    let mut s = TestServer::new();
    let c = s.connect();
    let from = |id: &str| {
        vec![Acl {
            perms: perms::ALL,
            id: Id::new("ip", id),
        }]
    };
    for (at, (id, err)) in [
        ("127.0.0.1", 0),
        ("127.0.0.0/8", 0),
        ("10.0.0.0/8", -102),
        ("::1", -102),
    ]
    .into_iter()
    .enumerate()
    {
        let path = format!("/n{at}");
        s.ask(
            c,
            OpCode::Create,
            &create_acl(&path, b"", Some(&from(id)), 0),
        );
        assert_eq!(
            s.err(c, OpCode::GetData, &path_watch(&path, false)),
            err,
            "{id}"
        );
    }
    let v6 = s.accept_from("::1").unwrap();
    s.send(v6, &connect_frame(&Connect::default()));
    s.connected(v6);
    assert_eq!(s.err(v6, OpCode::GetData, &path_watch("/n3", false)), 0);
    assert_eq!(s.err(v6, OpCode::GetData, &path_watch("/n0", false)), -102);
}

#[test]
fn enforced_schemes_close_on_the_first_other_request() {
    let enforced = |schemes: &[&str]| AuthConfig {
        enforced_schemes: schemes.iter().map(|scheme| (*scheme).to_owned()).collect(),
        ..AuthConfig::default()
    };
    for (op, body) in [
        (OpCode::Create, create("/a", b"", 0)),
        (OpCode::GetData, path_watch("/", false)),
        (OpCode::CloseSession, vec![]),
    ] {
        let mut s = with_auth(enforced(&["digest"]));
        let c = s.connect();
        let zxid = s.zxid;
        let reply = s.ask(c, op, &body);
        assert_eq!((reply.err, reply.zxid, s.zxid), (-124, 0, zxid), "{op:?}");
        assert!(s.is_closed(c));
    }
    let mut s = with_auth(enforced(&["digest"]));
    let c = s.connect();
    s.ask(c, OpCode::Auth, &auth("digest", Some(b"u:p")));
    s.create(c, "/a");
    let mut s = with_auth(enforced(&["digest", "ip"]));
    let c = s.connect();
    s.create(c, "/a");
}

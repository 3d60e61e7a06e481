//! The broker machine asks, `Access` answers: logins as clients see them.

use mqtt_access::scram::{self, Client};
use mqtt_access::{
    Access, CertificateName, Method, PasswordFile, PasswordFileEditor, PasswordHash, Policy, ThrottleConfig,
    Work,
};
use mqtt_proto::{AuthRef, ConnectRef, PacketRef, PropertiesBuf, Property, ReasonCode, Version};
use mqtt_session::broker::{Answer, Ask, BrokerConfig, Event, Peer, Question};
use mqtt_testkit::{PeerId, World};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

fn passwords(users: &[(&str, Method, &str)]) -> Option<Arc<PasswordFile>> {
    let mut editor = PasswordFileEditor::create(Path::new("pw"));
    for (name, method, password) in users {
        let iterations = method.default_iterations().map(|_| 4096);
        editor.set(name, &PasswordHash::new(*method, iterations, password.as_bytes()).unwrap()).unwrap();
    }
    Some(Arc::new(PasswordFile::parse(Path::new("pw"), &editor.text()).unwrap()))
}

struct Server {
    world: World,
    access: Access,
    waited: Duration,
}

impl Server {
    fn new(policy: Policy) -> Self {
        let mut config = BrokerConfig::default();
        config.ask.connect = true;
        Self {
            world: World::new(config),
            access: Access::new(vec![policy], ThrottleConfig::default()),
            waited: Duration::ZERO,
        }
    }

    /// Answers what is asked, as an adapter does.
    fn answer(&mut self) {
        while let Some(ask) = self.world.asks.pop() {
            let id = ask.id;
            let decision = self.access.decide(ask);
            self.waited = decision.wait;
            let answer = run(decision.work);
            self.world.broker.handle_answer(self.world.now, id, answer);
            self.world.settle();
        }
    }

    fn login(&mut self, version: Version, user_name: Option<&str>, password: Option<&str>) -> String {
        let password = password.map(str::as_bytes);
        let packet = ConnectRef {
            version,
            client_id: "c",
            clean_start: true,
            user_name,
            password,
            ..ConnectRef::default()
        };
        let peer = self.world.connect(&packet);
        self.answer();
        self.world.got(peer)[0].chars().take(10).collect()
    }

    fn connected_as(&self) -> Option<String> {
        self.world.events.iter().rev().find_map(|event| match event {
            Event::Connected { user_name, .. } => Some(user_name.clone()),
            _ => None,
        })?
    }
}

fn run(mut work: Work) -> Answer {
    loop {
        match work {
            Work::Done(answer) => return answer,
            Work::Job(job) => work = job.run(),
        }
    }
}

#[test]
fn passwords_in_all_formats_let_in_who_knows_them() {
    let users = [
        ("ann", Method::Argon2id, "1"),
        ("bob", Method::Sha512Pbkdf2, "2"),
        ("carl", Method::Sha512, "3"),
        ("dora", Method::ScramSha256, "4"),
    ];
    let mut server = Server::new(Policy { passwords: passwords(&users), ..Policy::default() });
    for (name, _, password) in users {
        for version in [Version::V31, Version::V311, Version::V5] {
            assert_eq!(server.login(version, Some(name), Some(password)), "CONNACK 00");
            assert_eq!(server.connected_as().as_deref(), Some(name));
        }
    }
    for (user, password) in [(Some("ann"), Some("2")), (Some("ann"), None), (Some("eve"), Some("1"))] {
        assert_eq!(server.login(Version::V5, user, password), "CONNACK 86", "{user:?}");
        assert_eq!(server.login(Version::V311, user, password), "CONNACK 86", "{user:?}");
    }
    assert_eq!(server.login(Version::V5, None, None), "CONNACK 87");
}

#[test]
fn anonymous_is_a_matter_of_the_policy() {
    let mut closed = Server::new(Policy::default());
    assert_eq!(closed.login(Version::V5, None, None), "CONNACK 87");
    assert_eq!(closed.login(Version::V5, Some("ann"), Some("1")), "CONNACK 86");
    let mut open = Server::new(Policy { anonymous: true, ..Policy::default() });
    assert_eq!(open.login(Version::V5, None, None), "CONNACK 00");
    assert_eq!(open.login(Version::V5, Some("ann"), Some("1")), "CONNACK 00");
    let passwords = passwords(&[("ann", Method::Sha512, "1")]);
    let mut both = Server::new(Policy { anonymous: true, passwords, ..Policy::default() });
    assert_eq!(both.login(Version::V5, None, None), "CONNACK 00");
    assert_eq!(
        both.login(Version::V5, Some("ann"), Some("2")),
        "CONNACK 86",
        "who gives a password is held to it"
    );
}

#[test]
fn a_listener_without_a_policy_lets_nobody_in() {
    let mut server = Server::new(Policy { anonymous: true, ..Policy::default() });
    server.access.replace(Vec::new(), ThrottleConfig::default());
    assert_eq!(server.login(Version::V5, None, None), "CONNACK 87");
}

#[test]
fn client_identifiers_can_be_held_to_prefixes() {
    let client_id_prefixes = vec!["x-".to_owned(), "c".to_owned()];
    let mut server = Server::new(Policy { anonymous: true, client_id_prefixes, ..Policy::default() });
    assert_eq!(server.login(Version::V5, None, None), "CONNACK 00");
    let policy = Policy { anonymous: true, client_id_prefixes: vec!["x-".to_owned()], ..Policy::default() };
    server.access.replace(vec![policy], ThrottleConfig::default());
    assert_eq!(server.login(Version::V5, None, None), "CONNACK 85");
}

#[test]
fn a_certificate_names_the_user() {
    let decide = |certificate, tls_identity: Option<&str>| {
        let access =
            Access::new(vec![Policy { certificate, acl: 3, ..Policy::default() }], ThrottleConfig::default());
        let mut server = Server::new(Policy::default());
        let packet = ConnectRef { client_id: "c", user_name: Some("liar"), ..ConnectRef::default() };
        server.world.connect(&packet);
        let mut ask: Ask = server.world.asks.pop().unwrap();
        let Question::Connect { peer, .. } = &mut ask.question else { panic!("{ask:?}") };
        *peer = Peer { tls_identity: tls_identity.map(Into::into), ..Peer::default() };
        match run(access.decide(ask).work) {
            Answer::Grant(grant) => Ok((grant.user_name.unwrap(), grant.acl)),
            Answer::Deny(reason) => Err(reason),
            other => panic!("{other:?}"),
        }
    };
    let subject = Some("CN=alice,O=Example");
    assert_eq!(decide(CertificateName::CommonName, subject), Ok(("alice".into(), 3)));
    assert_eq!(decide(CertificateName::Subject, subject), Ok(("CN=alice,O=Example".into(), 3)));
    for certificate in [CertificateName::CommonName, CertificateName::Subject] {
        assert_eq!(decide(certificate, None), Err(ReasonCode::NotAuthorized));
        assert_eq!(decide(certificate, Some("")), Err(ReasonCode::NotAuthorized));
    }
    assert_eq!(decide(CertificateName::CommonName, Some("O=x")), Err(ReasonCode::NotAuthorized));
}

#[test]
fn who_guesses_is_slowed_and_then_not_looked_at() {
    let passwords = passwords(&[("ann", Method::Sha512, "1")]);
    let access = Access::new(vec![Policy { passwords, ..Policy::default() }], ThrottleConfig::default());
    let mut server = Server::new(Policy::default());
    let mut attempt = |password: &[u8], address: &str| {
        let packet = ConnectRef {
            client_id: "c",
            user_name: Some("ann"),
            password: Some(password),
            ..ConnectRef::default()
        };
        server.world.connect(&packet);
        let mut ask: Ask = server.world.asks.pop().unwrap();
        let Question::Connect { peer, .. } = &mut ask.question else { panic!("{ask:?}") };
        *peer = Peer { address: Some(address.parse().unwrap()), ..Peer::default() };
        let decision = access.decide(ask);
        (decision.wait, run(decision.work))
    };
    let waits: Vec<(Duration, Answer)> = (0..40).map(|_| attempt(b"guess", "192.0.2.1:999")).collect();
    assert!(waits[..5].iter().all(|(wait, _)| wait.is_zero()));
    assert!(waits.iter().any(|(wait, _)| *wait > Duration::from_secs(1)));
    assert_eq!(waits[39].1, Answer::Deny(ReasonCode::ServerBusy));
    assert_eq!(
        attempt(b"1", "192.0.2.1:999").1,
        Answer::Deny(ReasonCode::ServerBusy),
        "the right one, neither"
    );
    let (wait, answer) = attempt(b"1", "192.0.2.2:999");
    assert!(wait.is_zero() && matches!(answer, Answer::Grant(_)), "others go on");
}

fn properties(data: &[u8]) -> PropertiesBuf {
    let mut list = PropertiesBuf::new();
    list.push(Property::AuthenticationMethod(scram::METHOD)).unwrap();
    list.push(Property::AuthenticationData(data)).unwrap();
    list
}

fn data(got: &[u8], version: Version) -> (String, Vec<u8>) {
    let packet = PacketRef::decode(got, version).unwrap();
    let list = match packet {
        PacketRef::Auth(auth) => auth.properties,
        PacketRef::Connack(connack) => connack.properties,
        _ => Default::default(),
    };
    let brief = mqtt_testkit::brief(&packet).chars().take(10).collect();
    (brief, list.authentication_data().unwrap_or_default().to_vec())
}

/// CONNECT with SCRAM, up to the answer to the proof.
fn scram_login(server: &mut Server, name: &str, password: &str) -> (PeerId, Client, String, Vec<u8>) {
    let mut client = Client::new(name, password).unwrap();
    let list = properties(&client.first());
    let packet = ConnectRef {
        version: Version::V5,
        client_id: "c",
        properties: list.as_properties(),
        ..ConnectRef::default()
    };
    let peer = server.world.connect(&packet);
    server.answer();
    let (kind, first) = data(&server.world.got_raw(peer), Version::V5);
    assert_eq!(kind, "AUTH 18 {A");
    let (kind, last) = proof(server, peer, &mut client, &first);
    (peer, client, kind, last)
}

fn proof(server: &mut Server, peer: PeerId, client: &mut Client, first: &[u8]) -> (String, Vec<u8>) {
    let list = properties(&client.proof(first).unwrap());
    let auth = AuthRef { reason: ReasonCode::ContinueAuthentication, properties: list.as_properties() };
    server.world.send(peer, &PacketRef::Auth(auth));
    server.answer();
    data(&server.world.got_raw(peer), Version::V5)
}

/// [MQTT-4.12.0-3]
#[test]
fn scram_lets_in_who_proves_to_know_the_password() {
    let users = [("ann", Method::ScramSha256, "pw"), ("bob", Method::Sha512, "pw")];
    let mut server = Server::new(Policy { passwords: passwords(&users), acl: 2, ..Policy::default() });
    let (_, client, kind, last) = scram_login(&mut server, "ann", "pw");
    assert_eq!(kind, "CONNACK 00");
    client.check(&last).expect("the server proves itself as well");
    assert_eq!(server.connected_as().as_deref(), Some("ann"));
    for (name, password) in [("ann", "other"), ("bob", "pw"), ("nobody", "pw")] {
        let (peer, _, kind, _) = scram_login(&mut server, name, password);
        assert_eq!(kind, "CONNACK 87", "{name} learns nothing but no");
        assert!(server.world.is_hung_up(peer));
    }
}

/// [MQTT-4.12.1-1]
#[test]
fn scram_again_on_a_live_connection_and_only_as_oneself() {
    let users = [("ann", Method::ScramSha256, "pw"), ("eve", Method::ScramSha256, "ev")];
    for (name, password, expected) in
        [("ann", "pw", "AUTH 00 {A"), ("ann", "no", "DISCONNECT"), ("eve", "ev", "DISCONNECT")]
    {
        let mut server = Server::new(Policy { passwords: passwords(&users), ..Policy::default() });
        let (peer, ..) = scram_login(&mut server, "ann", "pw");
        let mut client = Client::new(name, password).unwrap();
        let list = properties(&client.first());
        let auth = AuthRef { reason: ReasonCode::ReAuthenticate, properties: list.as_properties() };
        server.world.send(peer, &PacketRef::Auth(auth));
        server.answer();
        let (_, first) = data(&server.world.got_raw(peer), Version::V5);
        let (kind, last) = proof(&mut server, peer, &mut client, &first);
        assert_eq!(kind, expected, "{name}");
        assert_eq!(client.check(&last).is_ok(), expected.starts_with("AUTH"));
    }
}

#[test]
fn a_method_that_nobody_knows_is_refused() {
    for passwords in [None, passwords(&[("ann", Method::Sha512, "pw")])] {
        let mut server = Server::new(Policy { anonymous: true, passwords, ..Policy::default() });
        let list = properties(b"n,,n=ann,r=abc");
        let packet = ConnectRef {
            version: Version::V5,
            client_id: "c",
            properties: list.as_properties(),
            ..ConnectRef::default()
        };
        let peer = server.world.connect(&packet);
        server.answer();
        assert_eq!(server.world.got(peer), ["CONNACK 8C"]);
    }
}

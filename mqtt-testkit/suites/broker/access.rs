//! Passwords, rights and places on real sockets.

use super::broker_with;
use super::peer::{Peer, TcpStream, connect};
use crate::adapter::broker::{BrokerHandle, Config, Gate, GateConfig};
use crate::rt;
use futures_lite::future::yield_now;
use mqtt_access::{Access, Method, PasswordFile, PasswordHash, Policy, ThrottleConfig};
use mqtt_proto::{ConnectRef, PacketRef, ReasonCode, Version};
use mqtt_session::acl::{self, Acl, Mode, Who};
use std::path::Path;
use std::sync::Arc;

fn access() -> Arc<Access> {
    let hash = PasswordHash::new(Method::Sha512, None, b"secret").unwrap();
    let passwords = PasswordFile::parse(Path::new("pw"), &format!("ann:{hash}\nbob:{hash}")).unwrap();
    let policy = Policy { passwords: Some(Arc::new(passwords)), ..Policy::default() };
    Arc::new(Access::new(vec![policy], ThrottleConfig::default()))
}

async fn guarded(access: &Arc<Access>, config: GateConfig) -> BrokerHandle {
    let gate = Gate::new(rt::Runtime::default(), Arc::clone(access), config);
    broker_with(|config| {
        *config = std::mem::take(config).authorized_by(gate);
    })
    .await
}

async fn login(broker: &BrokerHandle, user: &str, password: &[u8]) -> (String, Peer<TcpStream>) {
    let mut peer = Peer::open(broker, Version::V5).await;
    let (user_name, password) = (Some(user), Some(password));
    let packet = ConnectRef { client_id: user, user_name, password, ..ConnectRef::default() };
    peer.send(&PacketRef::Connect(ConnectRef { version: Version::V5, clean_start: true, ..packet })).await;
    let answer = peer.recv().await;
    (answer[..10].to_owned(), peer)
}

#[rt::test]
async fn a_password_lets_in_and_policies_can_change() {
    let access = access();
    let broker = guarded(&access, GateConfig::default()).await;
    assert_eq!(login(&broker, "ann", b"secret").await.0, "CONNACK 00");
    assert_eq!(login(&broker, "ann", b"wrong").await.0, "CONNACK 86");
    let mut nameless = Peer::open(&broker, Version::V5).await;
    nameless.send(&connect(Version::V5, "c")).await;
    assert_eq!(nameless.recv().await, "CONNACK 87");
    access.replace(vec![Policy { anonymous: true, ..Policy::default() }], ThrottleConfig::default());
    let _in = Peer::connect(&broker, Version::V5, "c").await;
}

#[rt::test]
async fn many_wait_for_their_turn_and_too_many_are_told_so() {
    let access = access();
    let broker = guarded(&access, GateConfig { hashing: 1, ..GateConfig::default() }).await;
    let logins = (0..20).map(|n| {
        let broker = broker.clone();
        rt::spawn(async move { login(&broker, if n % 2 == 0 { "ann" } else { "bob" }, b"secret").await.0 })
    });
    for login in logins.collect::<Vec<_>>() {
        assert_eq!(login.await, "CONNACK 00");
    }
    let broker = guarded(&access, GateConfig { waiting: 0, ..GateConfig::default() }).await;
    assert_eq!(login(&broker, "ann", b"secret").await.0, "CONNACK 89");
}

fn acl(rules: &[(&str, acl::Access, &str)]) -> Vec<Arc<Acl>> {
    let mut acl = Acl::new(Mode::Strict);
    for (user, access, filter) in rules {
        acl.add(Who::User(user), *access, filter, 1).unwrap();
    }
    vec![Arc::new(acl)]
}

#[rt::test]
async fn rights_are_in_force_from_the_first_connection_and_change_at_once() {
    use acl::Access::{Read, ReadWrite};
    let gate = Gate::new(rt::Runtime::default(), access(), GateConfig::default());
    let broker = broker_with(|config| {
        *config = std::mem::take(config).authorized_by(gate);
        config.acls = acl(&[("ann", Read, "#"), ("bob", ReadWrite, "open")]);
    })
    .await;
    let (_, mut ann) = login(&broker, "ann", b"secret").await;
    let (_, mut bob) = login(&broker, "bob", b"secret").await;
    ann.subscribe("#").await;
    for topic in ["closed", "open"] {
        bob.publish(topic, b"1").await;
    }
    assert_eq!(ann.recv().await, "PUBLISH open q0 \"1\"");
    broker.set_acls(acl(&[("ann", Read, "closed"), ("bob", ReadWrite, "#")])).await.unwrap();
    for topic in ["open", "closed"] {
        bob.publish(topic, b"2").await;
    }
    assert_eq!(ann.recv().await, "PUBLISH closed q0 \"2\"");
}

#[rt::test]
async fn users_can_be_disconnected() {
    let broker = guarded(&access(), GateConfig::default()).await;
    let (_, mut ann) = login(&broker, "ann", b"secret").await;
    let (_, mut bob) = login(&broker, "bob", b"secret").await;
    let users = vec![Some("ann".to_owned()), Some("nobody".to_owned()), None];
    assert_eq!(broker.disconnect_users(users, ReasonCode::NotAuthorized).await, Ok(1));
    assert_eq!(ann.recv().await, "DISCONNECT 87");
    bob.subscribe("a").await;
}

#[rt::test]
async fn a_listener_has_so_many_places() {
    let broker = broker_with(|config: &mut Config| config.listeners[0].max_connections = Some(1)).await;
    let first = Peer::connect(&broker, Version::V5, "first").await;
    let mut second = Peer::open(&broker, Version::V5).await;
    assert_eq!(second.recv().await, "EOF");
    drop(first);
    // The place is free once the broker has seen the end.
    loop {
        let mut next = Peer::open(&broker, Version::V5).await;
        next.send(&connect(Version::V5, "next")).await;
        match next.try_recv().await {
            Some(packet) if packet.starts_with("CONNACK 00") => break,
            _ => yield_now().await,
        }
    }
}

//! Broker and client over every transport.

use crate::adapter::broker::{Broker, BrokerHandle, Config, Listener, Transport};
use crate::adapter::client::{Item, Options};
use crate::rt;
use mqtt_io::tls::{TlsClient, TlsSettings};
use mqtt_proto::QoS;
use mqtt_session::Message;
use std::path::Path;
use std::sync::Arc;

/// A certificate for this machine, which is its own authority.
fn certificate(dir: &Path) -> (TlsSettings, TlsClient) {
    let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    std::fs::write(&cert, issued.cert.pem()).unwrap();
    std::fs::write(&key, issued.signing_key.serialize_pem()).unwrap();
    let mut client = TlsClient::default();
    client.ca_file = Some(cert.clone());
    client.server_name = Some("localhost".to_owned());
    (TlsSettings::new(cert, key), client)
}

async fn broker_with(tls: Option<&TlsSettings>, websocket: bool) -> BrokerHandle {
    let mut transport = Transport::default();
    transport.tls = tls.map(|settings| settings.read().unwrap());
    transport.websocket = websocket.then(Arc::default);
    let mut listener = Listener::from("127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap());
    listener.transport = transport.into();
    let mut config = Config::default();
    config.listeners.push(listener);
    config.broker.shards = mqtt_testkit::shards();
    Broker::bind(config).await.unwrap()
}

/// Messages small and large there and back, and a goodbye.
async fn talk(broker: BrokerHandle, options: Options) {
    let client = options.connect().await.unwrap();
    let mut stream = client.subscribe("t", QoS::AtLeastOnce).await.unwrap();
    for payload in [vec![1; 10], vec![2; 300_000], Vec::new()] {
        let message = Message::new("t", payload.clone()).with_qos(QoS::AtLeastOnce);
        client.publish(message).await.unwrap();
        match stream.recv().await {
            Some(Item::Message(message)) => assert!(message.payload == payload),
            other => panic!("{other:?}"),
        }
    }
    client.disconnect().await.unwrap();
    broker.shutdown().await.unwrap();
}

#[rt::test]
async fn by_tls() {
    let dir = tempfile::tempdir().unwrap();
    let (server, client) = certificate(dir.path());
    let broker = broker_with(Some(&server), false).await;
    let url = format!("mqtts://{}", broker.local_addrs()[0]);
    talk(broker, Options::from_url(&url).unwrap().tls(client)).await;
}

#[rt::test]
async fn by_websocket() {
    let broker = broker_with(None, true).await;
    let url = format!("ws://{}/mqtt", broker.local_addrs()[0]);
    talk(broker, Options::from_url(&url).unwrap()).await;
}

#[rt::test]
async fn by_websocket_and_tls() {
    let dir = tempfile::tempdir().unwrap();
    let (server, client) = certificate(dir.path());
    let broker = broker_with(Some(&server), true).await;
    let url = format!("wss://{}", broker.local_addrs()[0]);
    talk(broker, Options::from_url(&url).unwrap().tls(client)).await;
}

#[cfg(unix)]
#[rt::test]
async fn by_a_unix_socket_whose_file_comes_and_goes() {
    use crate::adapter::broker::Address;
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sock");
    // Left over from a broker that is gone.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let mut listener = Listener::from(Address::Unix(path.clone()));
    listener.unix_mode = Some(0o600);
    let mut config = Config::default();
    config.listeners.push(listener.clone());
    let broker = Broker::bind(config).await.unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let mut second = Config::default();
    second.listeners.push(listener);
    assert!(Broker::bind(second).await.is_err(), "somebody listens there");
    talk(broker, Options::from_url(&format!("unix://{}", path.display())).unwrap()).await;
    assert!(!path.exists());
}

#[rt::test]
async fn a_certificate_that_nobody_vouches_for_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (server, mut client) = certificate(dir.path());
    let broker = broker_with(Some(&server), false).await;
    let url = format!("mqtts://{}", broker.local_addrs()[0]);
    client.server_name = Some("example.org".to_owned());
    assert!(Options::from_url(&url).unwrap().tls(client).connect().await.is_err());
    let mut insecure = TlsClient::default();
    insecure.insecure = true;
    talk(broker, Options::from_url(&url).unwrap().tls(insecure)).await;
}

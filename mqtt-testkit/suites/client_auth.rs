//! Authentication exchanges of the client, part of its suite.

use super::*;
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};

struct Parrot(Arc<AtomicUsize>);

impl AuthHandler for Parrot {
    fn start(&mut self) -> Option<bytes::Bytes> {
        Some("start".into())
    }

    fn answer(&mut self, data: &[u8]) -> std::result::Result<bytes::Bytes, AuthFailed> {
        if data == b"bad" { Err(AuthFailed) } else { Ok(data.to_vec().into()) }
    }

    fn finish(&mut self, _: Option<&[u8]>) -> std::result::Result<(), AuthFailed> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

async fn auth(link: &mut Link, reason: ReasonCode, data: &[u8]) {
    let mut list = PropertiesBuf::new();
    list.push(Property::AuthenticationMethod("M")).unwrap();
    list.push(Property::AuthenticationData(data)).unwrap();
    link.send(PacketRef::Auth(AuthRef { reason, properties: list.as_properties() })).await;
}

#[rt::test]
async fn the_auth_handler_answers_auth() -> Result {
    let (mut server, options) = server();
    let finished = Arc::new(AtomicUsize::new(0));
    let options = options.authentication("M", Parrot(finished.clone()));
    let serve = async {
        let mut link = server.link().await;
        assert!(link.next().await.contains("AuthenticationData([115, 116, 97, 114, 116])"));
        auth(&mut link, ReasonCode::ContinueAuthentication, b"1").await;
        link.expect("AUTH 18 {AuthenticationMethod(\"M\"), AuthenticationData([49])}").await;
        let mut list = PropertiesBuf::new();
        list.push(Property::AuthenticationMethod("M")).unwrap();
        let properties = list.as_properties();
        link.send(PacketRef::Connack(ConnackRef { properties, ..ConnackRef::default() })).await;
        link
    };
    let (client, mut link) = zip(options.connect(), serve).await;
    let client = client?;
    let serve = async {
        link.expect("AUTH 19 {AuthenticationMethod(\"M\"), AuthenticationData([97])}").await;
        auth(&mut link, ReasonCode::ContinueAuthentication, b"2").await;
        link.expect("AUTH 18 {AuthenticationMethod(\"M\"), AuthenticationData([50])}").await;
        auth(&mut link, ReasonCode::Success, b"").await;
    };
    let (again, ()) = zip(client.reauthenticate(b"a"), serve).await;
    again?;
    assert_eq!(finished.load(Ordering::Relaxed), 2);
    auth(&mut link, ReasonCode::Success, b"").await;
    link.expect("DISCONNECT 82").await;
    Ok(())
}

/// Begins another exchange as soon as it hears that the first one is over.
struct Eager {
    client: Arc<Mutex<Option<Client>>>,
    again: Arc<Mutex<Option<Again>>>,
}

type Again = Pin<Box<dyn Future<Output = std::result::Result<(), Error>> + Send>>;

impl AuthHandler for Eager {
    fn start(&mut self) -> Option<bytes::Bytes> {
        Some("start".into())
    }

    fn answer(&mut self, data: &[u8]) -> std::result::Result<bytes::Bytes, AuthFailed> {
        Ok(data.to_vec().into())
    }

    fn finish(&mut self, _: Option<&[u8]>) -> std::result::Result<(), AuthFailed> {
        if let Some(client) = self.client.lock().unwrap().take() {
            let mut again: Again = Box::pin(async move { client.reauthenticate(b"a").await });
            assert!(again.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            *self.again.lock().unwrap() = Some(again);
        }
        Ok(())
    }
}

/// What CONNACK ends is not the exchange that was begun meanwhile.
#[rt::test]
async fn an_exchange_is_over_when_the_server_says_so() -> Result {
    let (mut server, options) = server();
    let (client, again) = (Arc::new(Mutex::new(None)), Arc::new(Mutex::new(None)));
    let handler = Eager { client: client.clone(), again: again.clone() };
    *client.lock().unwrap() = Some(options.authentication("M", handler).start()?);
    let mut link = server.link().await;
    link.next().await;
    let mut list = PropertiesBuf::new();
    list.push(Property::AuthenticationMethod("M")).unwrap();
    let properties = list.as_properties();
    link.send(PacketRef::Connack(ConnackRef { properties, ..ConnackRef::default() })).await;
    link.expect("AUTH 19 {AuthenticationMethod(\"M\"), AuthenticationData([97])}").await;
    let mut again = again.lock().unwrap().take().expect("it was begun");
    assert!(again.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    auth(&mut link, ReasonCode::Success, b"").await;
    again.await?;
    Ok(())
}

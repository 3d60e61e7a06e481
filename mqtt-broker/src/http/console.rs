//! Pages as MQTT clients, by WebSocket on the same listener.

use super::door::Door;
use super::reply::{Reply, failure};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap};
use hyper::{Request, Response, StatusCode, upgrade};
use hyper_util::rt::TokioIo;
use mqtt_io::Stack;
use mqtt_io::stack::{WebSocketError, WebSocketServer};
use mqtt_tokio::broker::{BrokerHandle, Peer};
use std::net::SocketAddr;

/// Whether a request wants a WebSocket.
pub(super) fn is_wanted(headers: &HeaderMap) -> bool {
    headers.get(header::UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Answers the handshake; what comes behind it is a connection of the broker like others, of `listener`.
pub(super) fn open(
    mut request: Request<Incoming>,
    broker: BrokerHandle,
    listener: u16,
    from: SocketAddr,
    max_message: u64,
) -> Reply {
    if !Door::is_own_page(request.headers()) {
        return failure(StatusCode::FORBIDDEN, "only pages of this listener may connect");
    }
    let mut bare = Request::new(());
    *bare.method_mut() = request.method().clone();
    *bare.uri_mut() = request.uri().clone();
    *bare.version_mut() = request.version();
    *bare.headers_mut() = request.headers().clone();
    let answer = match WebSocketServer::default().answer(&bare) {
        Ok(answer) => answer,
        Err(WebSocketError::Refused { status, why }) => {
            return failure(StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST), &why);
        }
        Err(other) => return failure(StatusCode::BAD_REQUEST, &other.to_string()),
    };
    let upgraded = upgrade::on(&mut request);
    tokio::spawn(async move {
        // A peer that went away meanwhile, or a broker that did, needs nothing.
        if let Ok(stream) = upgraded.await {
            let mut peer = Peer::default();
            (peer.address, peer.listener) = (Some(from), listener);
            let stack = Stack::plain().websocket_accepted(max_message);
            let _ = broker.serve_layered(TokioIo::new(stream), stack, peer).await;
        }
    });
    let (parts, ()) = answer.into_parts();
    Response::from_parts(parts, Full::default())
}

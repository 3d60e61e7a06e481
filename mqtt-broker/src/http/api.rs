//! `/api/v1`: what programs see and do.

use super::metrics::{Snapshot, unix};
use super::reply::{Reply, ended, failure, json, not_allowed};
use super::serve::About;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use mqtt_proto::{Property, QoS, ReasonCode};
use mqtt_session::{Message, PublishErrorKind};
use mqtt_tokio::broker::{
    BrokerHandle, ClientInfo, Ended, Listed, Place, PublishFailed, RetainedInfo, SubscriptionInfo,
};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;

/// Items of a page, if nothing is said, and at most.
const LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;

/// Answers a request that showed a token.
pub(super) async fn answer(
    request: Request<Incoming>,
    broker: &BrokerHandle,
    about: &About,
    max_body: u64,
    from: SocketAddr,
) -> Reply {
    let method = match *request.method() {
        Method::HEAD => Method::GET,
        ref other => other.clone(),
    };
    let path = request.uri().path().to_owned();
    let rest = path.strip_prefix("/api/v1").filter(|rest| rest.is_empty() || rest.starts_with('/'));
    let Some(rest) = rest else { return nothing() };
    let (list, name) = match rest.trim_start_matches('/').split_once('/') {
        Some((list, name)) => (list, Some(name)),
        None => (rest.trim_start_matches('/'), None),
    };
    let asked = match Asked::read(request.uri().query().unwrap_or_default()) {
        Ok(asked) => asked,
        Err(problem) => return failure(StatusCode::BAD_REQUEST, &problem),
    };
    let acting = Acting { broker, from };
    let done = match (list, name) {
        ("" | "status" | "publish" | "clients" | "subscriptions", None) | ("retained", None) => {
            match (list, &method) {
                ("", &Method::GET) => Ok(json(&index())),
                ("status", &Method::GET) => {
                    Snapshot::take(broker, about).await.map(|now| json(&status(&now, about)))
                }
                ("clients", &Method::GET) => {
                    let page = broker.clients(asked.after, asked.limit, asked.connected).await;
                    page.map(|page| listed(page, client))
                }
                ("subscriptions", &Method::GET) => broker
                    .subscriptions(asked.after, asked.limit)
                    .await
                    .map(|page| listed(page, subscription)),
                ("retained", &Method::GET) => {
                    let page = broker.retained(asked.after, asked.limit).await;
                    page.map(|mut page| {
                        page.items.retain(|item| asked.sys || !item.topic.starts_with("$SYS/"));
                        listed(page, retained)
                    })
                }
                ("publish", &Method::POST) => return acting.publish(request, max_body).await,
                ("publish", _) => return not_allowed("POST"),
                _ => return not_allowed("GET"),
            }
        }
        ("clients", Some(name)) => acting.client(&method, name, &asked).await,
        // A topic has slashes of its own.
        ("retained", Some(topic)) => match decoded(topic) {
            Some(topic) => acting.retained(&method, &topic).await,
            None => return not_text(),
        },
        _ => return nothing(),
    };
    done.unwrap_or_else(|Ended| ended())
}

fn nothing() -> Reply {
    failure(StatusCode::NOT_FOUND, "there is nothing here; /api/v1 tells what there is")
}

fn not_text() -> Reply {
    failure(
        StatusCode::BAD_REQUEST,
        "the path is no text: write what is not a letter or digit as %XX of UTF-8",
    )
}

fn decoded(part: &str) -> Option<String> {
    percent_decode_str(part).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

/// What can be asked for.
fn index() -> Value {
    json!({
        "GET /api/v1/status": "figures of the broker",
        "GET /api/v1/clients?limit=&after=&connected=true": "sessions, a page at a time",
        "GET /api/v1/clients/{client}": "one session",
        "GET /api/v1/clients/{client}/subscriptions?limit=&after=": "its subscriptions",
        "POST /api/v1/clients/{client}/disconnect": "close its connection; its session stays",
        "DELETE /api/v1/clients/{client}": "end its session and its connection",
        "GET /api/v1/subscriptions?limit=&after=": "all subscriptions",
        "GET /api/v1/retained?limit=&after=&sys=true": "retained messages, without payloads; with sys those below $SYS, too",
        "GET /api/v1/retained/{topic}": "one retained message",
        "DELETE /api/v1/retained/{topic}": "remove it, without telling subscribers",
        "POST /api/v1/publish": "publish {topic, payload or payload_base64, qos, retain, expires_in}",
    })
}

/// What stands behind the question mark.
struct Asked {
    after: Place,
    limit: usize,
    connected: bool,
    sys: bool,
}

impl Asked {
    fn read(query: &str) -> Result<Self, String> {
        let mut asked = Self { after: Place::default(), limit: LIMIT, connected: false, sys: false };
        let parameters: HashMap<_, _> = form_urlencoded::parse(query.as_bytes()).collect();
        for (name, value) in &parameters {
            match name.as_ref() {
                "after" => asked.after = value.parse().map_err(|e| format!("after: {e}"))?,
                "limit" => {
                    asked.limit = match value.parse() {
                        Ok(limit @ 1..=MAX_LIMIT) => limit,
                        _ => return Err(format!("limit: it is a number from 1 to {MAX_LIMIT}")),
                    };
                }
                "connected" | "sys" => {
                    let wanted = value.parse().map_err(|_| format!("{name}: it is true or false"))?;
                    *(if name == "sys" { &mut asked.sys } else { &mut asked.connected }) = wanted;
                }
                other => return Err(format!("there is no parameter {other:?}")),
            }
        }
        Ok(asked)
    }
}

/// Who acts, and on what.
struct Acting<'a> {
    broker: &'a BrokerHandle,
    from: SocketAddr,
}

impl Acting<'_> {
    async fn client(&self, method: &Method, name: &str, asked: &Asked) -> Result<Reply, Ended> {
        let (name, of_it) = match name.split_once('/') {
            Some((name, of_it)) => (name, Some(of_it)),
            None => (name, None),
        };
        let Some(id) = decoded(name) else { return Ok(not_text()) };
        let unknown = || failure(StatusCode::NOT_FOUND, "there is no session of this client");
        let broker = self.broker;
        Ok(match (of_it, method) {
            (None, &Method::GET) => {
                broker.client(&id).await?.map_or_else(unknown, |info| json(&client(info)))
            }
            (None, &Method::DELETE) => {
                if !broker.remove_session(&*id).await? {
                    return Ok(unknown());
                }
                tracing::info!("HTTP from {}: session of {id:?} ended.", self.from);
                json(&json!({ "removed": true }))
            }
            (None, _) => not_allowed("GET, DELETE"),
            (Some("subscriptions"), &Method::GET) => {
                if broker.client(&id).await?.is_none() {
                    return Ok(unknown());
                }
                listed(broker.subscriptions_of(&id, asked.after, asked.limit).await?, subscription)
            }
            (Some("subscriptions"), _) => not_allowed("GET"),
            (Some("disconnect"), &Method::POST) => {
                let found = broker.disconnect(&*id, ReasonCode::AdministrativeAction).await?;
                if found {
                    tracing::info!("HTTP from {}: client {id:?} disconnected.", self.from);
                } else if broker.client(&id).await?.is_none() {
                    return Ok(unknown());
                }
                json(&json!({ "disconnected": found }))
            }
            (Some("disconnect"), _) => not_allowed("POST"),
            _ => nothing(),
        })
    }

    async fn retained(&self, method: &Method, topic: &str) -> Result<Reply, Ended> {
        let unknown = || failure(StatusCode::NOT_FOUND, "there is no retained message of this topic");
        Ok(match *method {
            Method::GET => match self.broker.retained_message(topic).await? {
                Some(message) => json(&retained_message(&message)),
                None => unknown(),
            },
            Method::DELETE => {
                if !self.broker.remove_retained(topic).await? {
                    return Ok(unknown());
                }
                tracing::info!("HTTP from {}: retained message of {topic:?} removed.", self.from);
                json(&json!({ "removed": true }))
            }
            _ => not_allowed("GET, DELETE"),
        })
    }

    async fn publish(&self, request: Request<Incoming>, max_body: u64) -> Reply {
        // Base64 makes four bytes of three.
        let limit = usize::try_from(max_body).unwrap_or(usize::MAX).saturating_mul(2);
        let body = match Limited::new(request.into_body(), limit).collect().await {
            Ok(body) => body.to_bytes(),
            Err(e) if e.is::<LengthLimitError>() => {
                return failure(StatusCode::PAYLOAD_TOO_LARGE, "this is more than limits.max_packet_size");
            }
            Err(e) => return failure(StatusCode::BAD_REQUEST, &e.to_string()),
        };
        let message = match serde_json::from_slice::<Publication>(&body) {
            Ok(publication) => publication.message(),
            Err(e) => Err(e.to_string()),
        };
        let message = match message {
            Ok(message) => message,
            Err(problem) => return failure(StatusCode::BAD_REQUEST, &problem),
        };
        match self.broker.publish(message).await {
            Ok(receivers) => json(&json!({ "receivers": receivers })),
            Err(PublishFailed::Refused(e)) => {
                let status = match e.kind {
                    PublishErrorKind::Invalid(_) | PublishErrorKind::TooLarge { .. } => {
                        StatusCode::BAD_REQUEST
                    }
                    _ => StatusCode::SERVICE_UNAVAILABLE,
                };
                failure(status, &e.to_string())
            }
            Err(PublishFailed::Ended(_)) => ended(),
        }
    }
}

/// What is to be published.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Publication {
    topic: String,
    payload: Option<String>,
    payload_base64: Option<String>,
    #[serde(default)]
    qos: u8,
    #[serde(default)]
    retain: bool,
    expires_in: Option<u32>,
}

impl Publication {
    fn message(self) -> Result<Message, String> {
        let payload = match (self.payload, self.payload_base64) {
            (Some(_), Some(_)) => {
                return Err("payload and payload_base64 are the same thing twice".to_owned());
            }
            (Some(text), None) => text.into_bytes(),
            (None, Some(coded)) => BASE64.decode(coded).map_err(|e| format!("payload_base64: {e}"))?,
            (None, None) => Vec::new(),
        };
        let qos = QoS::from_u8(self.qos).ok_or("qos: it is 0, 1 or 2")?;
        let mut message = Message::new(self.topic, payload).with_qos(qos);
        message.retain = self.retain;
        if let Some(seconds) = self.expires_in {
            let expiry = Property::MessageExpiryInterval(seconds);
            message.properties.push(expiry).map_err(|e| e.to_string())?;
        }
        Ok(message)
    }
}

fn listed<T>(page: Listed<T>, show: impl Fn(T) -> Value) -> Reply {
    let items: Vec<Value> = page.items.into_iter().map(show).collect();
    json(&json!({ "items": items, "next": page.next.map(|next| next.to_string()) }))
}

fn client(info: ClientInfo) -> Value {
    let connection = info.link.map(|link| {
        json!({
            "version": match link.version.level() { 3 => "3.1", 4 => "3.1.1", _ => "5.0" },
            "address": link.address.map(|address| address.to_string()),
            "listener": link.listener,
            "keep_alive": link.keep_alive,
            "connected_for": link.connected_for.as_secs(),
            "messages_received": link.received,
            "messages_sent": link.sent,
            "unsent_bytes": link.unsent_bytes,
        })
    });
    json!({
        "client": info.client_id,
        "user": info.user_name,
        "connection": connection,
        "expiry": info.expiry_secs,
        "expires_in": info.expires_in.map(|left| left.as_secs()),
        "stored": info.stored,
        "will": info.has_will,
        "subscriptions": info.subscriptions,
        "queued": info.queued,
        "queued_bytes": info.queued_bytes,
        "in_flight": info.in_flight,
        "dropped": info.dropped,
    })
}

fn subscription(info: SubscriptionInfo) -> Value {
    json!({
        "client": info.client_id,
        "filter": info.filter,
        "qos": info.options.qos.as_u8(),
        "no_local": info.options.no_local,
        "retain_as_published": info.options.retain_as_published,
        "id": info.id,
        "waiting": info.waiting,
    })
}

fn retained(info: RetainedInfo) -> Value {
    json!({
        "topic": info.topic,
        "qos": info.qos.as_u8(),
        "bytes": info.payload_len,
        "expires_in": info.expires_in,
        "publisher": info.publisher,
    })
}

fn retained_message(message: &Message) -> Value {
    let text = std::str::from_utf8(&message.payload).ok();
    let expires_in = message.properties.as_properties().message_expiry_interval();
    json!({
        "topic": message.topic,
        "qos": message.qos.as_u8(),
        "bytes": message.payload.len(),
        "payload": text,
        "payload_base64": text.is_none().then(|| BASE64.encode(&message.payload)),
        "expires_in": expires_in,
    })
}

fn status(now: &Snapshot, about: &About) -> Value {
    let Snapshot { stats, transports, storage, .. } = now;
    let c = &stats.counters;
    let store = storage.as_ref().map(|storage| {
        json!({
            "failed": storage.failed,
            "waiting": storage.waiting,
            "commits": storage.commits,
            "syncs": storage.fsyncs,
            "operations": storage.ops,
            "failures": storage.failures,
            "disk_bytes": storage.disk_space,
            // To a factor of two.
            "commit_micros_median": storage.commit_micros.quantile(0.5),
            "commit_micros_p99": storage.commit_micros.quantile(0.99),
            "commit_micros_sum": storage.commit_micros.sum(),
        })
    });
    let listeners: Vec<Value> = now
        .listeners
        .iter()
        .map(|(address, protocol, ends)| {
            json!({ "address": address, "protocol": protocol, "certificate_ends": ends.map(unix) })
        })
        .collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "started_at": unix(now.started_at),
        "uptime": now.uptime.as_secs_f64(),
        "stopping": about.stopping.load(Ordering::Relaxed),
        "shards": now.shards,
        "answered_in_micros": u64::try_from(now.answered_in.as_micros()).unwrap_or(u64::MAX),
        "memory_bytes": now.memory,
        "connections": stats.connections,
        "connected": stats.connected,
        "sessions": stats.sessions,
        "subscriptions": stats.subscriptions,
        "shared_subscriptions": stats.shared_subscriptions,
        "retained": stats.retained,
        "messages": stats.messages,
        "message_bytes": stats.message_bytes,
        "unsent_packets": stats.unsent_packets,
        "unsent_bytes": stats.unsent_bytes,
        "counters": {
            "connections": c.connections,
            "connects": c.connects,
            "accepted": c.accepted,
            "refused": c.refused,
            "malformed": c.malformed,
            "packets_received": c.packets_received,
            "packets_sent": c.packets_sent,
            "bytes_received": c.bytes_received,
            "bytes_sent": c.bytes_sent,
            "publish_received": c.publish_received,
            "publish_sent": c.publish_sent,
            "dropped": c.dropped.total(),
            "denied": c.denied.publish + c.denied.subscribe + c.denied.will,
            "slowed": stats.slowed,
            "transports_failed":
                transports.proxy_failed + transports.tls_failed + transports.websocket_failed,
        },
        "store": store,
        "listeners": listeners,
    })
}

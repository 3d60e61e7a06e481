//! Answers.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

/// What is answered.
pub(super) type Reply = Response<Full<Bytes>>;

fn reply(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    reply
}

/// A line for people and for programs that look at the status only.
pub(super) fn text(status: StatusCode, text: &str) -> Reply {
    reply(status, "text/plain; charset=utf-8", format!("{text}\n"))
}

/// A file that is part of the program.
pub(super) fn file(content_type: &'static str, content: &'static str) -> Reply {
    reply(StatusCode::OK, content_type, content.as_bytes())
}

/// Figures as Prometheus reads them.
pub(super) fn figures(content: String) -> Reply {
    const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    reply(StatusCode::OK, TYPE, content)
}

/// A value.
pub(super) fn json(value: &Value) -> Reply {
    reply(StatusCode::OK, "application/json", value.to_string())
}

/// A failure, with what to do.
pub(super) fn failure(status: StatusCode, error: &str) -> Reply {
    let mut reply = reply(status, "application/json", json!({ "error": error }).to_string());
    if status == StatusCode::UNAUTHORIZED {
        reply.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    reply
}

/// The broker has ended, or is about to.
pub(super) fn ended() -> Reply {
    failure(StatusCode::SERVICE_UNAVAILABLE, "the broker has ended")
}

/// It is there, but not in this way.
pub(super) fn not_allowed(allowed: &'static str) -> Reply {
    let mut reply = failure(StatusCode::METHOD_NOT_ALLOWED, &format!("this takes {allowed} only"));
    reply.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    reply
}

//! The page for people: files that are part of the program.

use super::reply::{Reply, file};
use hyper::header::{self, HeaderValue};

/// Nothing from elsewhere, nothing written into the page, nobody around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The file at `path`, if it is one of the page.
pub(super) fn page(path: &str) -> Option<Reply> {
    let mut reply = match path {
        "/" => file("text/html; charset=utf-8", include_str!("pages/index.html")),
        "/dashboard.css" => file("text/css; charset=utf-8", include_str!("pages/dashboard.css")),
        "/dashboard.js" => file("text/javascript; charset=utf-8", include_str!("pages/dashboard.js")),
        "/plot.js" => file("text/javascript; charset=utf-8", include_str!("pages/plot.js")),
        "/mqtt.js" => file("text/javascript; charset=utf-8", include_str!("pages/mqtt.js")),
        _ => return None,
    };
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    Some(reply)
}

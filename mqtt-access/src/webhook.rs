//! Asking a web service who may do what.
//!
//! Each question is one POST with a JSON object. The answer has status 200 and
//! `{"result": "allow"}`, `{"result": "deny"}` or `{"result": "ignore"}` (nothing to say: the next in
//! line decides, and in the end it is a no). Status 204 means allow, 401 and 403 mean deny. Anything
//! else, and no answer in time, is a failure: the client is told that the server is unavailable.
//!
//! To `connect_url`: `{"action": "connect", "client_id", "user_name", "password", "address",
//! "protocol"}`, with the password as text, or as `password_base64` if it is none. The answer may
//! hold `"user_name"`, the name from then on, and `"valid_for"`, in seconds.
//!
//! To `acl_url`: `{"action": "publish" | "subscribe" | "will", "client_id", "user_name", "topic",
//! "qos", "retain"}`; for a subscription, `topic` is the filter. Each filter is a question.

use crate::password::keyed;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use ureq::Agent;
#[cfg(feature = "https")]
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::typestate::AgentScope;

type Settings = ureq::config::ConfigBuilder<AgentScope>;

/// Where to ask, and how long to believe the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookConfig {
    /// Who may connect. None: not asked.
    pub connect_url: Option<String>,
    /// Who may publish and subscribe. None: not asked.
    pub acl_url: Option<String>,
    /// Sent as `Authorization: Bearer`, so that the service knows who asks.
    pub token: Option<String>,
    /// No answer within this time is none. Default 5 s; keep it below the time in which the broker
    /// wants an answer.
    pub timeout: Duration,
    /// How long a yes is believed. Default 60 s; zero: not at all.
    pub remember_allow: Duration,
    /// How long a no is believed. Default 5 s.
    pub remember_deny: Duration,
    /// Answers that are remembered at most. Default 10,000.
    pub remembered: usize,
}

impl Default for WebhookConfig {
    fn default() -> Self {
        Self {
            connect_url: None,
            acl_url: None,
            token: None,
            timeout: Duration::from_secs(5),
            remember_allow: Duration::from_secs(60),
            remember_deny: Duration::from_secs(5),
            remembered: 10_000,
        }
    }
}

/// An address that cannot be asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{url:?} cannot be asked: {problem}")]
pub struct UrlError {
    url: String,
    problem: Cow<'static, str>,
}

/// How the service proves who it is.
#[cfg(feature = "https")]
#[derive(Clone, Debug)]
pub struct Https {
    /// The cryptography.
    pub provider: std::sync::Arc<rustls::crypto::CryptoProvider>,
    /// Authorities in the place of the system's (PEM).
    pub ca_file: Option<std::path::PathBuf>,
}

/// What the service says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// Yes, perhaps under another name and for a limited time.
    Allow {
        /// The user name from then on.
        user_name: Option<String>,
        /// How long.
        valid_for: Option<Duration>,
    },
    /// No.
    Deny,
    /// Nothing.
    Ignore,
    /// It did not answer as it should.
    Failed(String),
}

/// A client that wants to connect.
#[derive(Clone, Copy, Debug)]
pub struct Login<'a> {
    /// The client identifier.
    pub client_id: &'a str,
    /// The user name.
    pub user_name: Option<&'a str>,
    /// The password.
    pub password: Option<&'a [u8]>,
    /// The address.
    pub address: Option<std::net::IpAddr>,
    /// The version, as `3.1`, `3.1.1` or `5.0`.
    pub protocol: &'a str,
}

/// What a client wants to do.
#[derive(Clone, Copy, Debug)]
pub struct Deed<'a> {
    /// `publish`, `subscribe` or `will`.
    pub action: &'a str,
    /// The client identifier.
    pub client_id: &'a str,
    /// The user name.
    pub user_name: Option<&'a str>,
    /// Topic or filter.
    pub topic: &'a str,
    /// The QoS.
    pub qos: u8,
    /// Whether it is to be retained.
    pub retain: bool,
}

/// A web service and what it said lately.
#[derive(Debug)]
pub struct Webhook {
    config: WebhookConfig,
    agent: Agent,
    cache: Mutex<Cache>,
    /// Cached questions are known by a keyed hash only: there are passwords among them.
    key: [u8; 32],
}

#[derive(Debug, Default)]
struct Cache {
    answers: HashMap<[u8; 32], (Instant, Said)>,
    order: VecDeque<[u8; 32]>,
}

#[derive(Serialize)]
struct Question<'a> {
    action: &'a str,
    client_id: &'a str,
    user_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    password_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    qos: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retain: Option<bool>,
}

#[derive(Deserialize)]
struct Reply {
    result: String,
    user_name: Option<String>,
    valid_for: Option<u64>,
}

/// A body of this size says enough.
const MAX_BODY: u64 = 64 << 10;

impl Webhook {
    /// Gets ready to ask.
    ///
    /// # Errors
    /// If an address cannot be asked, or the system gives no randomness.
    pub fn new(config: WebhookConfig) -> Result<Self, UrlError> {
        Self::asking(config, "http", |settings| settings)
    }

    /// As [`Webhook::new`], for services of which some are asked by TLS.
    ///
    /// # Errors
    /// If an address is none, or nobody could be trusted.
    #[cfg(feature = "https")]
    pub fn secured(config: WebhookConfig, https: Https) -> Result<Self, UrlError> {
        let Https { provider, ca_file } = https;
        let url = config.connect_url.as_ref().or(config.acl_url.as_ref()).cloned().unwrap_or_default();
        let fail = |problem: String| UrlError { url, problem: problem.into() };
        let roots: Vec<Certificate<'static>> = match &ca_file {
            Some(file) => {
                let pem = match std::fs::read(file) {
                    Ok(pem) => pem,
                    Err(e) => return Err(fail(format!("the authorities in {}: {e}", file.display()))),
                };
                let certificates = parse_pem(&pem).filter_map(|item| match item {
                    Ok(PemItem::Certificate(certificate)) => Some(certificate),
                    _ => None,
                });
                certificates.collect()
            }
            None => {
                let found = rustls_native_certs::load_native_certs();
                found.certs.iter().map(|der| Certificate::from_der(der).to_owned()).collect()
            }
        };
        if roots.is_empty() {
            let whose = ca_file.map_or_else(|| "the system's".to_owned(), |file| file.display().to_string());
            return Err(fail(format!("among {whose} authorities there is no certificate")));
        }
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::Specific(std::sync::Arc::new(roots)))
            .unversioned_rustls_crypto_provider(provider)
            .build();
        Self::asking(config, "https", |settings| settings.tls_config(tls))
    }

    fn asking(
        config: WebhookConfig,
        best: &str,
        tls: impl FnOnce(Settings) -> Settings,
    ) -> Result<Self, UrlError> {
        for url in [&config.connect_url, &config.acl_url].into_iter().flatten() {
            let fail = |problem: &'static str| Err(UrlError { url: url.clone(), problem: problem.into() });
            match url.parse::<ureq::http::Uri>() {
                Ok(uri) if uri.host().is_none() => return fail("it names no host"),
                Ok(uri) if uri.scheme_str() == Some("http") => {}
                Ok(uri) if uri.scheme_str() == Some("https") && best == "https" => {}
                Ok(uri) if uri.scheme_str() == Some("https") => {
                    return fail(
                        "https is not built in; use http to a service on this machine or a proxy before it",
                    );
                }
                _ => return fail("write http://HOST[:PORT]/PATH or https://HOST[:PORT]/PATH"),
            }
        }
        let mut key = [0; 32];
        if getrandom::fill(&mut key).is_err() {
            return Err(UrlError { url: String::new(), problem: "the system gives no randomness".into() });
        }
        let settings = Agent::config_builder()
            .timeout_global(Some(config.timeout))
            .http_status_as_error(false)
            .max_redirects(0)
            // The environment of a service is not where its operator looks for a proxy.
            .proxy(None)
            .user_agent(concat!("mqtt/", env!("CARGO_PKG_VERSION")));
        Ok(Self { config, agent: tls(settings).build().into(), cache: Mutex::default(), key })
    }

    /// The settings.
    #[must_use]
    pub const fn config(&self) -> &WebhookConfig {
        &self.config
    }

    /// May this client connect? Blocks until there is an answer or the timeout is over.
    pub fn connect(&self, login: &Login<'_>) -> Said {
        let Some(url) = &self.config.connect_url else { return Said::Ignore };
        let text = login.password.and_then(|password| std::str::from_utf8(password).ok());
        let question = Question {
            action: "connect",
            client_id: login.client_id,
            user_name: login.user_name,
            password: text,
            password_base64: login.password.filter(|_| text.is_none()).map(|p| STANDARD.encode(p)),
            address: login.address.map(|address| address.to_string()),
            protocol: Some(login.protocol),
            topic: None,
            qos: None,
            retain: None,
        };
        self.ask(url, &question)
    }

    /// May it do this? Blocks as [`Webhook::connect`] does.
    pub fn authorize(&self, deed: &Deed<'_>) -> Said {
        let Some(url) = &self.config.acl_url else { return Said::Ignore };
        let question = Question {
            action: deed.action,
            client_id: deed.client_id,
            user_name: deed.user_name,
            password: None,
            password_base64: None,
            address: None,
            protocol: None,
            topic: Some(deed.topic),
            qos: Some(deed.qos),
            retain: Some(deed.retain),
        };
        self.ask(url, &question)
    }

    fn ask(&self, url: &str, question: &Question<'_>) -> Said {
        let body = match serde_json::to_vec(question) {
            Ok(body) => body,
            Err(e) => return Said::Failed(e.to_string()),
        };
        let key = keyed(&self.key, &[url.as_bytes(), &body]);
        if let Some(said) = self.remembered(&key) {
            return said;
        }
        let said = self.post(url, &body).unwrap_or_else(Said::Failed);
        self.remember(key, &said);
        said
    }

    fn post(&self, url: &str, body: &[u8]) -> Result<Said, String> {
        let mut request = self.agent.post(url).header("Content-Type", "application/json");
        if let Some(token) = &self.config.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let mut response = request.send(body).map_err(|e| e.to_string())?;
        match response.status().as_u16() {
            200 => {}
            204 => return Ok(Said::Allow { user_name: None, valid_for: None }),
            401 | 403 => return Ok(Said::Deny),
            status => return Err(format!("it answered with status {status}")),
        }
        let text =
            response.body_mut().with_config().limit(MAX_BODY).read_to_vec().map_err(|e| e.to_string())?;
        let reply: Reply =
            serde_json::from_slice(&text).map_err(|e| format!("its answer is not understood: {e}"))?;
        match reply.result.as_str() {
            "allow" => Ok(Said::Allow {
                user_name: reply.user_name.filter(|name| !name.is_empty()),
                valid_for: reply.valid_for.map(Duration::from_secs),
            }),
            "deny" => Ok(Said::Deny),
            "ignore" => Ok(Said::Ignore),
            other => Err(format!("its result is {other:?} and not allow, deny or ignore")),
        }
    }

    fn remembered(&self, key: &[u8; 32]) -> Option<Said> {
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.answers.get(key).filter(|(until, _)| *until > Instant::now()).map(|(_, said)| said.clone())
    }

    fn remember(&self, key: [u8; 32], said: &Said) {
        let time = match said {
            // What ends does not last longer for being remembered.
            Said::Allow { valid_for: Some(_), .. } | Said::Failed(_) => return,
            Said::Allow { .. } => self.config.remember_allow,
            Said::Deny | Said::Ignore => self.config.remember_deny,
        };
        if time.is_zero() || self.config.remembered == 0 {
            return;
        }
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let cache = &mut *cache;
        if cache.answers.insert(key, (Instant::now() + time, said.clone())).is_none() {
            cache.order.push_back(key);
        }
        while cache.answers.len() > self.config.remembered {
            let Some(oldest) = cache.order.pop_front() else { break };
            cache.answers.remove(&oldest);
        }
    }
}

//! Asking the broker's interface.

use super::state::Tab;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};
use ureq::Agent;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

/// An answer takes no longer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Lines of a list that are looked at.
const LINES: usize = 1000;

/// Something is to be done.
pub(super) enum Wish {
    /// This is looked at from now on.
    Show(Tab),
    Disconnect(String),
    Delete(String),
    Remove(String),
}

/// What came of asking.
pub(super) enum Answer {
    Seen(Box<Status>, Listed),
    Failed(String),
}

/// What is on the tab that is looked at, and whether there is more of it.
pub(super) enum Listed {
    Nothing,
    Clients(Vec<Client>, bool),
    Subscriptions(Vec<Subscription>, bool),
    Retained(Vec<Retained>, bool),
}

/// `/api/v1/status`, as far as it is shown.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Status {
    pub(super) version: String,
    pub(super) uptime: f64,
    pub(super) shards: u64,
    pub(super) answered_in_micros: u64,
    pub(super) memory_bytes: Option<u64>,
    pub(super) connected: u64,
    pub(super) sessions: u64,
    pub(super) subscriptions: u64,
    pub(super) retained: u64,
    pub(super) messages: u64,
    pub(super) message_bytes: u64,
    pub(super) unsent_bytes: u64,
    pub(super) counters: Counters,
    pub(super) store: Option<Store>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Counters {
    pub(super) connections: u64,
    pub(super) refused: u64,
    pub(super) malformed: u64,
    pub(super) bytes_received: u64,
    pub(super) bytes_sent: u64,
    pub(super) publish_received: [u64; 3],
    pub(super) publish_sent: [u64; 3],
    pub(super) dropped: u64,
    pub(super) denied: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Store {
    pub(super) failed: bool,
    pub(super) waiting: u64,
    pub(super) commits: u64,
    pub(super) commit_micros_sum: u64,
    pub(super) disk_bytes: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Client {
    #[serde(rename = "client")]
    pub(super) id: String,
    pub(super) user: Option<String>,
    pub(super) connection: Option<Connection>,
    pub(super) subscriptions: u64,
    pub(super) queued: u64,
    pub(super) in_flight: u64,
    pub(super) dropped: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Connection {
    pub(super) address: Option<String>,
    pub(super) version: String,
    pub(super) messages_received: u64,
    pub(super) messages_sent: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Subscription {
    pub(super) client: String,
    pub(super) filter: String,
    pub(super) qos: u8,
    pub(super) id: Option<u32>,
    pub(super) waiting: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Retained {
    pub(super) topic: String,
    pub(super) qos: u8,
    pub(super) bytes: u64,
    pub(super) expires_in: Option<u64>,
}

#[derive(Deserialize)]
struct Page<T> {
    items: Vec<T>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct Problem {
    error: String,
}

/// Who asks, and where.
pub(super) struct Asker {
    agent: Agent,
    base: String,
    token: Option<String>,
}

impl Asker {
    pub(super) fn new(url: &str, token: Option<String>, cafile: Option<&Path>) -> Result<Self, String> {
        // As it stands in the broker's log.
        let (base, named) =
            url.split_once("/#token=").map_or((url, None), |(base, token)| (base, Some(token)));
        let base = base.trim_end_matches('/').to_owned();
        let mut settings = Agent::config_builder().timeout_global(Some(TIMEOUT)).http_status_as_error(false);
        if base.starts_with("https://") {
            settings = settings.tls_config(tls(cafile)?);
        } else if !base.starts_with("http://") {
            return Err(format!("{url:?} is no address: write http://HOST:PORT or https://HOST:PORT"));
        }
        Ok(Self { agent: settings.build().into(), base, token: token.or_else(|| named.map(str::to_owned)) })
    }

    fn ask<T: DeserializeOwned>(&self, method: &str, path: &str) -> Result<T, String> {
        let url = format!("{}/api/v1/{path}", self.base);
        let token = self.token.as_deref().unwrap_or_default();
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(&url)
            .header("Authorization", format!("Bearer {token}"))
            .body(())
            .map_err(|e| format!("{url}: {e}"))?;
        let mut answer = self.agent.run(request).map_err(|e| {
            format!("{}: {e}. Is there a broker with http.address (mqtt broker --http 127.0.0.1)?", self.base)
        })?;
        let status = answer.status().as_u16();
        let body = answer.body_mut().read_to_string().map_err(|e| format!("{url}: {e}"))?;
        if status == 401 {
            let remedy = "name one of the broker's tokens with --token or --token-file";
            return Err(format!("{}: the broker wants another token; {remedy}", self.base));
        }
        if status != 200 {
            let problem = serde_json::from_str::<Problem>(&body);
            return Err(problem.map_or_else(|_| format!("{url}: status {status}"), |problem| problem.error));
        }
        serde_json::from_str(&body).map_err(|e| format!("{url} is no broker of this kind: {e}"))
    }

    pub(super) fn status(&self) -> Result<Status, String> {
        self.ask("GET", "status")
    }

    /// A list, and whether there is more of it.
    fn list<T: DeserializeOwned>(&self, of: &str) -> Result<(Vec<T>, bool), String> {
        let mut items: Vec<T> = Vec::new();
        let mut after = String::new();
        loop {
            let page: Page<T> = self.ask("GET", &format!("{of}?limit={LINES}{after}"))?;
            items.extend(page.items);
            match page.next {
                Some(next) if items.len() < LINES => after = format!("&after={next}"),
                next => return Ok((items, next.is_some())),
            }
        }
    }

    fn look(&self, tab: Tab) -> Result<Answer, String> {
        let status = self.status()?;
        let listed = match tab {
            Tab::Overview => Listed::Nothing,
            Tab::Clients => self.list("clients").map(|(list, more)| Listed::Clients(list, more))?,
            Tab::Subscriptions => {
                self.list("subscriptions").map(|(list, more)| Listed::Subscriptions(list, more))?
            }
            Tab::Retained => self.list("retained").map(|(list, more)| Listed::Retained(list, more))?,
        };
        Ok(Answer::Seen(Box::new(status), listed))
    }

    fn fulfil(&self, wish: &Wish) -> Result<(), String> {
        let (method, of, name, rest) = match wish {
            Wish::Show(_) => return Ok(()),
            Wish::Disconnect(client) => ("POST", "clients", client, "/disconnect"),
            Wish::Delete(client) => ("DELETE", "clients", client, ""),
            Wish::Remove(topic) => ("DELETE", "retained", topic, ""),
        };
        let name: String = name.bytes().map(|byte| format!("%{byte:02X}")).collect();
        self.ask::<serde_json::Value>(method, &format!("{of}/{name}{rest}")).map(|_| ())
    }
}

/// Verifies by the system's authorities, or by those of a file.
fn tls(cafile: Option<&Path>) -> Result<TlsConfig, String> {
    let roots: Vec<Certificate<'static>> = match cafile {
        Some(file) => {
            let pem = std::fs::read(file).map_err(|e| format!("{}: {e}", file.display()))?;
            let items = parse_pem(&pem).filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            });
            items.collect()
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            found.certs.iter().map(|der| Certificate::from_der(der).to_owned()).collect()
        }
    };
    if roots.is_empty() {
        return Err("there are no authorities to verify the broker by: name a file with --cafile".to_owned());
    }
    let provider = mqtt_io::tls::provider().ok_or("this program was built without cryptography for TLS")?;
    Ok(TlsConfig::builder()
        .root_certs(RootCerts::Specific(Arc::new(roots)))
        .unversioned_rustls_crypto_provider(provider)
        .build())
}

/// Looks again and again, and does what is wished in between, until nobody listens any more.
pub(super) fn serve(asker: &Asker, wishes: &Receiver<Wish>, answers: &Sender<Answer>, interval: Duration) {
    let mut next = Instant::now();
    let mut tab = Tab::Overview;
    loop {
        match wishes.recv_timeout(next.saturating_duration_since(Instant::now())) {
            Ok(wish) => {
                if let Wish::Show(shown) = wish {
                    tab = shown;
                }
                if let Err(problem) = asker.fulfil(&wish)
                    && answers.send(Answer::Failed(problem)).is_err()
                {
                    return;
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if answers.send(asker.look(tab).unwrap_or_else(Answer::Failed)).is_err() {
            return;
        }
        next = Instant::now() + interval;
    }
}

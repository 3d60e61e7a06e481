//! Listening, and who answers what.

use super::api;
use super::console;
use super::door::{Door, new_token};
use super::metrics;
use super::pages;
use super::reply::{self, Reply};
use super::settings::HttpSettings;
use crate::run::Error;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use mqtt_io::tls::TlsServer;
use mqtt_tokio::broker::{Address, BindError, BrokerHandle, SharedTransport};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

/// For a whole head, also of the next request on a connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// For the handshake of TLS.
const TLS_TIMEOUT: Duration = Duration::from_secs(10);
/// For the broker to answer, before it counts as stuck.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// After a failure to accept: others may give descriptors back meanwhile.
const PAUSE: Duration = Duration::from_millis(100);
/// The longest head.
const MAX_HEAD: usize = 16 << 10;

/// What is the same for as long as the program runs.
pub(super) struct About {
    pub(super) started: Instant,
    pub(super) started_at: SystemTime,
    /// Where MQTT clients connect, and what is spoken there.
    pub(super) listeners: Vec<(String, SharedTransport)>,
    pub(super) stopping: AtomicBool,
}

/// Sockets that listen and are not served yet.
pub(crate) struct Bound {
    listeners: Vec<TcpListener>,
    settings: HttpSettings,
}

/// What changes when settings are read again.
struct Changing {
    door: Arc<Door>,
    tls: Option<TlsServer>,
}

/// What is served. Dropping it changes nothing; the broker's end ends it.
#[derive(Clone)]
pub(crate) struct Served(Arc<Inner>);

struct Inner {
    #[cfg_attr(not(test), allow(dead_code, reason = "asked for by tests"))]
    address: Option<SocketAddr>,
    broker: BrokerHandle,
    about: About,
    changing: RwLock<Changing>,
    settings: HttpSettings,
    places: Arc<Semaphore>,
}

impl Bound {
    /// Listens.
    pub(crate) async fn new(settings: HttpSettings) -> Result<Self, Error> {
        let mut listeners = Vec::new();
        for &address in &settings.addresses {
            let listener = TcpListener::bind(address).await.map_err(|source| {
                Error::from(BindError::Listen { address: Address::Tcp(address), source })
            })?;
            listeners.push(listener);
        }
        Ok(Self { listeners, settings })
    }

    /// Serves, as long as the program runs.
    pub(crate) fn serve(
        self,
        broker: BrokerHandle,
        mqtt: Vec<(String, SharedTransport)>,
    ) -> Result<Served, Error> {
        let Self { listeners, mut settings } = self;
        let scheme = if settings.tls.is_some() { "https" } else { "http" };
        let made = settings.tokens.is_empty();
        if made {
            settings.tokens.push(new_token().map_err(Error::Random)?);
        }
        let address = listeners.first().and_then(|listener| listener.local_addr().ok());
        for listener in &listeners {
            let Ok(address) = listener.local_addr() else { continue };
            match settings.tokens.first().filter(|_| made) {
                Some(token) => tracing::info!(
                    "Figures and administration on {scheme}://{address}/#token={token} until this process ends; \
                     http.token_file keeps a token."
                ),
                None => tracing::info!("Figures and administration on {scheme}://{address}/."),
            }
        }
        let door = Door::new(settings.tokens.clone(), settings.hosts.clone(), settings.local);
        let served = Served(Arc::new(Inner {
            address,
            broker,
            about: About {
                started: Instant::now(),
                started_at: SystemTime::now(),
                listeners: mqtt,
                stopping: AtomicBool::new(false),
            },
            changing: RwLock::new(Changing { door: Arc::new(door), tls: settings.tls.clone() }),
            places: Arc::new(Semaphore::new(settings.max_connections.min(Semaphore::MAX_PERMITS))),
            settings,
        }));
        for listener in listeners {
            tokio::spawn(served.clone().accept(listener));
        }
        Ok(served)
    }
}

impl Served {
    /// Takes what can change while it runs. A token that was made stays, should there be none now.
    pub(crate) fn replace(&self, new: &HttpSettings) {
        let own = &self.0.settings;
        let tokens = if new.tokens.is_empty() { own.tokens.clone() } else { new.tokens.clone() };
        let door = Door::new(tokens, own.hosts.clone(), own.local);
        let mut changing = self.0.changing.write().unwrap_or_else(PoisonError::into_inner);
        changing.door = Arc::new(door);
        if changing.tls.is_some() && new.tls.is_some() {
            changing.tls.clone_from(&new.tls);
        }
    }

    #[cfg(test)]
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.0.address
    }

    /// From here on it is not ready.
    pub(crate) fn stopping(&self) {
        self.0.about.stopping.store(true, Ordering::Relaxed);
    }

    fn changing<T>(&self, look: impl FnOnce(&Changing) -> T) -> T {
        look(&self.0.changing.read().unwrap_or_else(PoisonError::into_inner))
    }

    async fn accept(self, listener: TcpListener) {
        loop {
            // Whoever finds no place waits in the system's queue.
            let Ok(place) = Arc::clone(&self.0.places).acquire_owned().await else { return };
            let (stream, from) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(e) => {
                    tracing::warn!("HTTP cannot accept: {e}");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let served = self.clone();
            tokio::spawn(async move {
                served.connection(stream, from).await;
                drop(place);
            });
        }
    }

    async fn connection(self, stream: TcpStream, from: SocketAddr) {
        match self.changing(|changing| changing.tls.as_ref().map(TlsServer::config)) {
            None => self.requests(stream, from).await,
            Some(config) => {
                let accepting = TlsAcceptor::from(config).accept(stream);
                match tokio::time::timeout(TLS_TIMEOUT, accepting).await {
                    Ok(Ok(stream)) => self.requests(stream, from).await,
                    Ok(Err(e)) => tracing::debug!("HTTP from {from}: TLS: {e}"),
                    Err(_) => tracing::debug!("HTTP from {from}: TLS took too long"),
                }
            }
        }
    }

    async fn requests<S>(self, stream: S, from: SocketAddr)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = service_fn(|request| {
            let served = self.clone();
            async move { Ok::<_, Infallible>(served.answer(request, from).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        if let Err(e) = connection.await {
            tracing::debug!("HTTP from {from}: {e}");
        }
    }

    async fn answer(self, request: Request<Incoming>, from: SocketAddr) -> Reply {
        let door = self.changing(|changing| Arc::clone(&changing.door));
        let Inner { broker, about, settings, .. } = &*self.0;
        if !door.is_meant(request.headers()) {
            let why = "this is not the host that was asked for; should it be, name it in http.hosts";
            return reply::failure(StatusCode::MISDIRECTED_REQUEST, why);
        }
        let path = request.uri().path();
        let is_look = matches!(*request.method(), Method::GET | Method::HEAD);
        match path {
            "/healthz" | "/readyz" | "/metrics" if !is_look => return reply::not_allowed("GET"),
            "/healthz" => return health(broker).await,
            "/readyz" => return readiness(broker, about).await,
            "/metrics" if settings.open_metrics || door.opens(request.headers()) => {
                return match metrics::Snapshot::take(broker, about).await {
                    Ok(snapshot) => reply::figures(snapshot.to_text()),
                    Err(_) => reply::ended(),
                };
            }
            "/mqtt" if console::is_wanted(request.headers()) => {
                if let Some(listener) = settings.console {
                    return console::open(request, broker.clone(), listener, from, settings.max_packet_size);
                }
            }
            _ => {}
        }
        if path == "/metrics" || path == "/api" || path.starts_with("/api/") {
            if !door.opens(request.headers()) {
                let why = "show a token: Authorization: Bearer TOKEN";
                return reply::failure(StatusCode::UNAUTHORIZED, why);
            }
            return api::answer(request, broker, about, settings.max_packet_size, from).await;
        }
        let page = if settings.dashboard { pages::page(path) } else { None };
        match page {
            Some(page) if is_look => page,
            Some(_) => reply::not_allowed("GET"),
            None => {
                reply::failure(StatusCode::NOT_FOUND, "there is nothing here; /api/v1 tells what there is")
            }
        }
    }
}

/// Whether the broker's threads answer.
async fn health(broker: &BrokerHandle) -> Reply {
    match tokio::time::timeout(ANSWER_TIMEOUT, broker.stats()).await {
        Ok(Ok(_)) => reply::text(StatusCode::OK, "ok"),
        Ok(Err(_)) => reply::text(StatusCode::SERVICE_UNAVAILABLE, "the broker has ended"),
        Err(_) => reply::text(StatusCode::SERVICE_UNAVAILABLE, "the broker does not answer"),
    }
}

/// Whether clients should come here.
async fn readiness(broker: &BrokerHandle, about: &About) -> Reply {
    if about.stopping.load(Ordering::Relaxed) {
        return reply::text(StatusCode::SERVICE_UNAVAILABLE, "the broker is shutting down");
    }
    if broker.storage_stats().is_some_and(|stats| stats.failed) {
        let why = "nothing can be stored; see the log";
        return reply::text(StatusCode::SERVICE_UNAVAILABLE, why);
    }
    health(broker).await
}

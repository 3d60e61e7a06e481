//! From the settings of a listener to what it speaks below MQTT: reads certificates and keys.

use crate::config::{Listener, Protocol, Tls, TlsVersion};
use crate::settings::Origin;
use mqtt_access::FileError;
use mqtt_io::stack::WebSocketServer;
use mqtt_io::tls::{MinVersion, TlsServer, TlsSettings};
use mqtt_tokio::broker::{Network, Transport};
use std::path::Path;
use std::sync::Arc;

/// The largest WebSocket message is never less, so that clients may put many packets into one.
const MIN_MESSAGE: u64 = 64 << 10;

/// Reads what listener `path` (`listener.0`) speaks.
pub(crate) fn read(
    listener: &Listener,
    path: &str,
    max_packet_size: u64,
    origin: &Origin,
) -> Result<Transport, FileError> {
    let mut transport = Transport::default();
    let Listener { protocol, tls, websocket, proxy_protocol, unix_mode, .. } = listener;
    let unused = |setting: &str, is_set: bool, with: &str| {
        let problem = format!("this listener does not speak {with}");
        match is_set {
            true => Err(origin.error(
                &format!("{path}.{setting}"),
                &problem,
                "change its protocol, or leave this out",
            )),
            false => Ok(()),
        }
    };
    unused("tls", tls.is_some() && !protocol.has_tls(), "TLS")?;
    unused("websocket", websocket.is_some() && !protocol.has_websocket(), "WebSocket")?;
    unused("unix_mode", unix_mode.is_some() && *protocol != Protocol::Unix, "over a Unix socket")?;
    if !proxy_protocol.is_empty() {
        let path = format!("{path}.proxy_protocol");
        let networks: Result<Vec<Network>, _> = proxy_protocol.iter().map(|text| text.parse()).collect();
        let networks =
            networks.map_err(|e| origin.error(&path, &e.to_string(), "name the networks of your proxies"))?;
        transport.proxies = Some(networks);
    }
    if protocol.has_tls() {
        transport.tls = Some(tls_of(&tls.clone().unwrap_or_default(), path, origin)?);
    }
    if protocol.has_websocket() {
        let settings = websocket.clone().unwrap_or_default();
        if settings.path != "*" && !settings.path.starts_with('/') {
            return Err(origin.error(
                &format!("{path}.websocket.path"),
                "a path begins with /",
                "write one like \"/mqtt\", or \"*\" for every path",
            ));
        }
        let mut server = WebSocketServer::default();
        server.path = (settings.path != "*").then_some(settings.path);
        server.origins = (!settings.origins.is_empty()).then_some(settings.origins);
        server.lenient = settings.lenient;
        server.max_message = max_packet_size.max(MIN_MESSAGE);
        transport.websocket = Some(Arc::new(server));
    }
    Ok(transport)
}

/// Reads the certificate and the key of what stands at `path` (`listener.0`, `http`).
pub(crate) fn tls_of(tls: &Tls, path: &str, origin: &Origin) -> Result<TlsServer, FileError> {
    let (Some(cert_file), Some(key_file)) = (&tls.cert_file, &tls.key_file) else {
        return Err(origin.error(
            &format!("{path}.tls"),
            "TLS needs a certificate and its key",
            if origin.is_mosquitto { "set certfile and keyfile" } else { "set cert_file and key_file" },
        ));
    };
    let mut settings = TlsSettings::new(origin.path(cert_file), origin.path(key_file));
    match (&tls.ca_file, &tls.crl_file) {
        (Some(ca_file), crl_file) => {
            let crl_file = crl_file.as_deref().map(|file| origin.path(file));
            settings = settings.asking_clients(origin.path(ca_file), tls.require_certificate, crl_file);
        }
        (None, Some(_)) => {
            let problem = "clients are not asked for certificates, so none can be revoked";
            return Err(origin.error(&format!("{path}.tls.crl_file"), problem, "set ca_file as well"));
        }
        (None, None) => {}
    }
    settings.min_version = match tls.min_version {
        TlsVersion::V12 => MinVersion::Tls12,
        TlsVersion::V13 => MinVersion::Tls13,
    };
    settings.ciphers.clone_from(&tls.ciphers);
    settings.read().map_err(|e| {
        if e.path == Path::new("ciphers") {
            return origin.error(&format!("{path}.tls.ciphers"), &e.problem, e.remedy);
        }
        FileError::new(&e.path, None, e.problem, e.remedy)
    })
}

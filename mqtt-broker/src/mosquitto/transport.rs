//! Options about what a listener speaks below MQTT.

use super::Place;
use crate::config::{CertificateName, Listener, Protocol, Tls, TlsVersion, WebSocket};
use mqtt_access::FileError;

/// Such options of one listener.
#[derive(Default)]
pub(super) struct Transport {
    websockets: bool,
    tls: Tls,
    /// Where authorities of clients are, whether or not clients are asked.
    authorities: Option<String>,
    require_certificate: bool,
    /// Cipher suites of TLS 1.2 and of 1.3, which are limited apart.
    ciphers: [Vec<String>; 2],
    identity: bool,
    subject: bool,
    origins: Vec<String>,
    proxy_protocol: bool,
}

/// The options, and what they set here.
const OPTIONS: &[(&str, &str)] = &[
    ("cafile", "tls.ca_file"),
    ("capath", "tls.ca_file"),
    ("certfile", "tls.cert_file"),
    ("ciphers", "tls.ciphers"),
    ("ciphers_tls1.3", "tls.ciphers"),
    ("crlfile", "tls.crl_file"),
    ("enable_proxy_protocol", "proxy_protocol"),
    ("keyfile", "tls.key_file"),
    ("protocol", "protocol"),
    ("require_certificate", "tls.require_certificate"),
    ("tls_version", "tls.min_version"),
    ("use_identity_as_username", "security.certificate_name"),
    ("use_subject_as_username", "security.certificate_name"),
    ("websockets_origin", "websocket.origins"),
];

/// All cipher suites of TLS 1.2 and of 1.3.
const CIPHERS: [&[&str]; 2] = [
    &[
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-RSA-CHACHA20-POLY1305",
    ],
    &["TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256"],
];

impl Transport {
    pub(super) fn is_option(name: &str) -> bool {
        OPTIONS.iter().any(|(option, _)| *option == name)
    }

    /// Where our settings have what Mosquitto calls so.
    pub(super) fn setting(name: &str) -> &'static str {
        OPTIONS.iter().find(|(option, _)| *option == name).map_or("protocol", |(_, setting)| setting)
    }

    pub(super) fn option(&mut self, place: Place<'_>, name: &str, value: &str) -> Result<(), FileError> {
        let flag =
            || match value {
                "true" | "1" => Ok(true),
                "false" | "0" => Ok(false),
                _ => Err(place
                    .error(format!("{name}: {value:?} is neither true nor false"), "write true or false")),
            };
        match name {
            "protocol" => {
                self.websockets = match value {
                    "mqtt" => false,
                    "websockets" => true,
                    _ => {
                        let problem = format!("protocol {value} is refused: it is not there");
                        return Err(place.error(problem, "write protocol mqtt or websockets"));
                    }
                }
            }
            "cafile" | "capath" => {
                if self.authorities.replace(value.to_owned()).is_some() {
                    let problem = "cafile and capath for one listener are refused: one place is read";
                    return Err(place.error(problem, "leave one of the two out"));
                }
            }
            "certfile" => self.tls.cert_file = Some(value.into()),
            "keyfile" => self.tls.key_file = Some(value.into()),
            "crlfile" => self.tls.crl_file = Some(value.into()),
            "require_certificate" => self.require_certificate = flag()?,
            "use_identity_as_username" => self.identity = flag()?,
            "use_subject_as_username" => self.subject = flag()?,
            "ciphers" => self.ciphers[0] = value.split(':').map(str::to_owned).collect(),
            "ciphers_tls1.3" => self.ciphers[1] = value.split(':').map(str::to_owned).collect(),
            "tls_version" => {
                self.tls.min_version = match value {
                    "tlsv1.2" => TlsVersion::V12,
                    "tlsv1.3" => TlsVersion::V13,
                    _ => {
                        let problem = format!("tls_version {value} is refused: 1.2 and 1.3 are spoken");
                        return Err(place.error(problem, "write tlsv1.2 or tlsv1.3"));
                    }
                }
            }
            "websockets_origin" => self.origins.push(value.to_owned()),
            _ => self.proxy_protocol = flag()?,
        }
        Ok(())
    }

    pub(super) const fn certificate_name(&self) -> CertificateName {
        match (self.subject, self.identity) {
            (true, _) => CertificateName::Subject,
            (false, true) => CertificateName::CommonName,
            (false, false) => CertificateName::Unused,
        }
    }

    /// Puts it into a listener of ours.
    pub(super) fn finish(&self, listener: &mut Listener, is_unix: bool) {
        let has_tls = self.tls.cert_file.is_some() || self.tls.key_file.is_some();
        listener.protocol = match (is_unix, has_tls, self.websockets) {
            (true, ..) => Protocol::Unix,
            (_, false, false) => Protocol::Mqtt,
            (_, true, false) => Protocol::Mqtts,
            (_, false, true) => Protocol::Ws,
            (_, true, true) => Protocol::Wss,
        };
        if has_tls {
            let mut tls = self.tls.clone();
            if self.ciphers.iter().any(|ciphers| !ciphers.is_empty()) {
                for (ciphers, all) in self.ciphers.iter().zip(CIPHERS) {
                    match ciphers.is_empty() {
                        true => tls.ciphers.extend(all.iter().map(|&name| name.to_owned())),
                        false => tls.ciphers.extend_from_slice(ciphers),
                    }
                }
            }
            tls.require_certificate = self.require_certificate;
            // There, clients are asked for certificates only if they need one.
            tls.ca_file = self.authorities.as_ref().filter(|_| self.require_certificate).map(Into::into);
            tls.crl_file = tls.crl_file.filter(|_| self.require_certificate);
            listener.tls = Some(tls);
        }
        if self.websockets {
            let origins = self.origins.clone();
            listener.websocket = Some(WebSocket { path: "*".to_owned(), origins, lenient: false });
        }
        if self.proxy_protocol {
            // There, whoever connects is believed.
            listener.proxy_protocol = vec!["0.0.0.0/0".to_owned(), "::/0".to_owned()];
        }
    }
}

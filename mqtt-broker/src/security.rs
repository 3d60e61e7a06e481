//! From security settings to what decides: reads every file that they name, or fails as a whole.

use crate::config::{AclMode, CertificateName, FileConfig, Listener, Security};
use crate::settings::Origin;
use mqtt_access::{FileError, PasswordFile, Policy, Warning, acl_file};
use mqtt_session::acl::{Acl, Mode};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

/// What decides who may do what.
#[derive(Clone, Debug, Default)]
pub(crate) struct Decisions {
    /// One for each listener.
    pub(crate) policies: Vec<Policy>,
    /// The tables that the policies name; none if no listener has one.
    pub(crate) acls: Vec<Arc<Acl>>,
    /// The file of each table, if it has one.
    pub(crate) acl_files: Vec<Option<PathBuf>>,
    /// What is odd in the files.
    pub(crate) warnings: Vec<Warning>,
}

/// Each file is read once, however many listeners name it: they must not see two states of it.
#[derive(Default)]
struct Files {
    passwords: HashMap<PathBuf, Arc<PasswordFile>>,
    acls: HashMap<(PathBuf, AclMode), u16>,
}

impl Decisions {
    /// Reads all that `config` names. `local` tells for each listener whether only this machine
    /// reaches it, `console` the same of HTTP, if MQTT clients are let in there: it has the last policy.
    pub(crate) fn read(
        config: &FileConfig,
        origin: &Origin,
        local: &[bool],
        console: Option<bool>,
    ) -> Result<Self, FileError> {
        let mut this = Self::default();
        let mut files = Files::default();
        // Without a listener in the settings there is one all the same.
        let listeners: Vec<Option<usize>> = match config.listeners.len() {
            0 => vec![None],
            n => (0..n).map(Some).collect(),
        };
        for (listener, &local) in listeners.into_iter().zip(local) {
            let own = listener.and_then(|n| config.listeners.get(n)?.security.as_ref());
            let (security, path) = match (own, listener) {
                (Some(own), Some(n)) => (own, format!("listener.{n}.security")),
                _ => (&config.security, "security".to_owned()),
            };
            let certified = listener.and_then(|n| config.listeners.get(n)).is_some_and(asks_for_certificates);
            if security.certificate_name != CertificateName::Unused
                && !certified
                && (own.is_some() || !config.listeners.iter().any(asks_for_certificates))
            {
                return Err(origin.error(
                    &format!("{path}.certificate_name"),
                    "no client is asked for a certificate",
                    if origin.is_mosquitto {
                        "set cafile and require_certificate true for the listener"
                    } else {
                        "set ca_file in [listener.tls]"
                    },
                ));
            }
            let policy = this.policy(security, &path, origin, (local, certified), &mut files)?;
            this.policies.push(policy);
        }
        if let Some(local) = console {
            let (security, path) = match &config.http.security {
                Some(own) => (own, "http.security"),
                None => (&config.security, "security"),
            };
            let policy = this.policy(security, path, origin, (local, false), &mut files);
            // Others may well be let in by what this listener does not have: certificates.
            this.policies.push(policy.map_err(|e| match config.http.security {
                Some(_) => e,
                None => origin.error(
                    "http.console",
                    "the console would let nobody in",
                    "set what tells its clients apart in [http.security], or console = false",
                ),
            })?);
        }
        Ok(this)
    }

    fn policy(
        &mut self,
        security: &Security,
        path: &str,
        origin: &Origin,
        (local, certified): (bool, bool),
        files: &mut Files,
    ) -> Result<Policy, FileError> {
        let mut policy =
            Policy { client_id_prefixes: security.client_id_prefixes.clone(), ..Policy::default() };
        if certified {
            policy.certificate = match security.certificate_name {
                CertificateName::Unused => mqtt_access::CertificateName::Unused,
                CertificateName::CommonName => mqtt_access::CertificateName::CommonName,
                CertificateName::Subject => mqtt_access::CertificateName::Subject,
            };
        }
        if let Some(file) = &security.password_file {
            let file = origin.path(file);
            policy.passwords = Some(match files.passwords.get(&file) {
                Some(known) => Arc::clone(known),
                None => {
                    let read = Arc::new(PasswordFile::read(&file)?);
                    self.warnings.extend_from_slice(read.warnings());
                    files.passwords.insert(file, Arc::clone(&read));
                    read
                }
            });
        }
        read_jwt(&mut policy, security, path, origin)?;
        read_webhook(&mut policy, security, path, origin)?;
        policy.anonymous = match security.anonymous {
            Some(anonymous) => anonymous,
            None if policy.knows_users() => false,
            None if local => true,
            None => {
                return Err(origin.error(
                    path,
                    "nobody could connect to a listener that other machines reach: nothing here tells clients apart",
                    "set password_file (made with mqtt passwd), or anonymous = true to let everybody in; \
                     on the command line --password-file FILE or --anonymous",
                ));
            }
        };
        if !policy.anonymous && !policy.knows_users() {
            return Err(origin.error(
                &format!("{path}.anonymous"),
                "nobody could connect: anonymous is false, and nothing here tells clients apart",
                if origin.is_mosquitto {
                    "set password_file (made with mqtt passwd), or allow_anonymous true"
                } else {
                    "set password_file, jwt or webhook, or anonymous = true"
                },
            ));
        }
        policy.acl = self.acl(security, path, origin, &policy, files)?;
        Ok(policy)
    }

    /// The number of the listener's table.
    fn acl(
        &mut self,
        security: &Security,
        path: &str,
        origin: &Origin,
        policy: &Policy,
        files: &mut Files,
    ) -> Result<u16, FileError> {
        let Some(file) = &security.acl_file else {
            if self.acls.is_empty() {
                // Should another listener have a table, the first is the open one.
                return Ok(0);
            }
            return Ok(self.table(Acl::open(), None));
        };
        let (file, mode) = (origin.path(file), security.acl_mode);
        if let Some(&known) = files.acls.get(&(file.clone(), mode)) {
            return Ok(known);
        }
        let read =
            acl_file::read(&file, if mode == AclMode::Strict { Mode::Strict } else { Mode::Mosquitto })?;
        if let (Some((user, line)), false) = (&read.first_user, policy.knows_users()) {
            let problem = format!(
                "it has rules for user {user:?}, and nothing checks that a client is that user: whoever takes the name has the rights"
            );
            if mode == AclMode::Strict {
                return Err(FileError::new(
                    &file,
                    Some(*line),
                    problem,
                    format!("set {path}.password_file, jwt or webhook"),
                ));
            }
            self.warnings.push(Warning::new(&file, *line, problem));
        }
        self.warnings.extend(read.warnings);
        if self.acls.is_empty() && !self.policies.is_empty() {
            // The listeners before this one have none.
            self.table(Acl::open(), None);
        }
        let number = self.table(read.acl, Some(file.clone()));
        files.acls.insert((file, mode), number);
        Ok(number)
    }

    fn table(&mut self, acl: Acl, file: Option<PathBuf>) -> u16 {
        self.acls.push(Arc::new(acl));
        self.acl_files.push(file);
        u16::try_from(self.acls.len() - 1).unwrap_or(u16::MAX)
    }
}

/// Whether clients of this listener can be known by certificates.
fn asks_for_certificates(listener: &Listener) -> bool {
    listener.protocol.has_tls() && listener.tls.as_ref().is_some_and(|tls| tls.ca_file.is_some())
}

#[cfg(feature = "jwt")]
fn read_jwt(policy: &mut Policy, security: &Security, path: &str, origin: &Origin) -> Result<(), FileError> {
    use mqtt_access::jwt::{JwtConfig, JwtVerifier};
    let Some(jwt) = &security.jwt else { return Ok(()) };
    let config = JwtConfig {
        algorithms: jwt.algorithms.clone(),
        user_claim: jwt.user_claim.clone(),
        issuer: jwt.issuer.clone(),
        audience: jwt.audience.clone(),
        leeway: jwt.leeway.0.as_secs(),
        require_expiry: jwt.require_expiry,
    };
    let verifier = match (&jwt.key_file, &jwt.jwks_file) {
        (Some(file), None) => JwtVerifier::from_key_file(&origin.path(file), config)?,
        (None, Some(file)) => JwtVerifier::from_jwks_file(&origin.path(file), config)?,
        _ => {
            let problem = "tokens need one source of keys";
            return Err(origin.error(&format!("{path}.jwt"), problem, "set either key_file or jwks_file"));
        }
    };
    policy.jwt = Some(Arc::new(verifier));
    Ok(())
}

#[cfg(not(feature = "jwt"))]
fn read_jwt(_: &mut Policy, security: &Security, path: &str, origin: &Origin) -> Result<(), FileError> {
    match security.jwt {
        None => Ok(()),
        Some(_) => Err(origin.error(
            &format!("{path}.jwt"),
            "this program was built without it",
            "build with the feature jwt",
        )),
    }
}

#[cfg(feature = "webhook")]
fn read_webhook(
    policy: &mut Policy,
    security: &Security,
    path: &str,
    origin: &Origin,
) -> Result<(), FileError> {
    use mqtt_access::webhook::{Https, Webhook, WebhookConfig};
    let Some(hook) = &security.webhook else { return Ok(()) };
    let token = match &hook.token_file {
        Some(file) => Some(mqtt_access::read_text(&origin.path(file))?.trim().to_owned()),
        None => None,
    };
    if hook.connect_url.is_none() && hook.acl_url.is_none() {
        let problem = "there is nothing to ask";
        return Err(origin.error(&format!("{path}.webhook"), problem, "set connect_url, acl_url or both"));
    }
    let config = WebhookConfig {
        connect_url: hook.connect_url.clone(),
        acl_url: hook.acl_url.clone(),
        token,
        timeout: hook.timeout.0,
        remember_allow: hook.remember_allow.0,
        remember_deny: hook.remember_deny.0,
        remembered: usize::try_from(hook.remembered).unwrap_or(usize::MAX),
    };
    let urls = [&hook.connect_url, &hook.acl_url];
    let by_tls = urls.into_iter().flatten().any(|url| url.starts_with("https:"));
    let made = match mqtt_io::tls::provider().filter(|_| by_tls) {
        Some(provider) => {
            let ca_file = hook.ca_file.as_deref().map(|file| origin.path(file));
            Webhook::secured(config, Https { provider, ca_file })
        }
        None => Webhook::new(config),
    };
    let webhook =
        made.map_err(|e| origin.error(&format!("{path}.webhook"), &e.to_string(), "correct the address"))?;
    policy.webhook = Some(Arc::new(webhook));
    Ok(())
}

#[cfg(not(feature = "webhook"))]
fn read_webhook(_: &mut Policy, security: &Security, path: &str, origin: &Origin) -> Result<(), FileError> {
    match security.webhook {
        None => Ok(()),
        Some(_) => Err(origin.error(
            &format!("{path}.webhook"),
            "this program was built without it",
            "build with the feature webhook",
        )),
    }
}

//! The answers to the broker's questions.

use crate::exchanges::Exchanges;
use crate::password::PasswordFile;
use crate::scram::{self, Exchange, ScramError};
use crate::throttle::{Throttle, ThrottleConfig};
use bytes::Bytes;
use mqtt_proto::ReasonCode;
use mqtt_session::broker::{Answer, Ask, ConnectionId, Grant, Peer, Question};
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// Whether a TLS certificate gives a client its user name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CertificateName {
    /// No.
    #[default]
    Unused,
    /// The common name of its subject does.
    CommonName,
    /// The whole subject does.
    Subject,
}

/// Who may connect by one listener.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Whether clients may connect that show nothing. If nothing else is set here, either, any name
    /// and password is taken as it comes.
    pub anonymous: bool,
    /// Users and their passwords.
    pub passwords: Option<Arc<PasswordFile>>,
    /// Whether clients are who their certificate says; then nothing else is asked.
    pub certificate: CertificateName,
    /// Tokens in the place of passwords.
    #[cfg(feature = "jwt")]
    pub jwt: Option<Arc<crate::jwt::JwtVerifier>>,
    /// A web service, asked when nothing else knows the client.
    #[cfg(feature = "http")]
    pub webhook: Option<Arc<crate::webhook::Webhook>>,
    /// Client identifiers must begin with one of these, unless there are none.
    pub client_id_prefixes: Vec<String>,
    /// The number of the table of rights, for [`Grant::acl`].
    pub acl: u16,
}

impl Policy {
    /// Whether there is anything by which a client can be known.
    #[must_use]
    pub fn knows_users(&self) -> bool {
        let known = self.passwords.is_some() || self.certificate != CertificateName::Unused;
        #[cfg(feature = "jwt")]
        let known = known || self.jwt.is_some();
        #[cfg(feature = "http")]
        let known = known || self.webhook.as_ref().is_some_and(|hook| hook.config().connect_url.is_some());
        known
    }

    /// Whether each PUBLISH and SUBSCRIBE has to be asked about.
    #[must_use]
    pub fn asks_about_topics(&self) -> bool {
        #[cfg(feature = "http")]
        return self.webhook.as_ref().is_some_and(|hook| hook.config().acl_url.is_some());
        #[cfg(not(feature = "http"))]
        false
    }
}

/// What a job uses up, so that each kind can have a limit of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JobKind {
    /// The processor, and memory (46 MiB for an argon2id hash): run as many at once as there are
    /// cores, no more.
    Hashing,
    /// Time, waiting for another program.
    Network,
}

/// Work that takes its time: run it where blocking is allowed.
pub struct Job {
    kind: JobKind,
    run: Box<dyn FnOnce() -> Work + Send>,
}

impl Job {
    fn new(kind: JobKind, run: impl FnOnce() -> Work + Send + 'static) -> Self {
        Self { kind, run: Box::new(run) }
    }

    /// What it uses up.
    #[must_use]
    pub const fn kind(&self) -> JobKind {
        self.kind
    }

    /// Does it. What comes of it may be another job, of another kind.
    #[must_use]
    pub fn run(self) -> Work {
        (self.run)()
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// An answer, or how to get it.
#[derive(Debug)]
pub enum Work {
    /// Here it is.
    Done(Answer),
    /// Run this.
    Job(Job),
}

/// What to do about a question.
#[derive(Debug)]
pub struct Decision {
    /// Wait this long first, with nothing but the one connection waiting. Zero mostly.
    pub wait: Duration,
    /// Then do this.
    pub work: Work,
}

impl From<Answer> for Decision {
    fn from(answer: Answer) -> Self {
        Self { wait: Duration::ZERO, work: Work::Done(answer) }
    }
}

/// Answers the broker's questions, by the policy of each listener.
pub struct Access {
    policies: RwLock<Arc<[Policy]>>,
    throttle: Arc<Mutex<Throttle>>,
    exchanges: Mutex<Exchanges>,
    /// Told about what an operator should know: a web service that does not answer.
    report: Arc<dyn Fn(&str) + Send + Sync>,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is in there is whole at any time.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Access {
    /// Answers by these policies, in the order of the listeners. A listener without one lets nobody
    /// in.
    #[must_use]
    pub fn new(policies: Vec<Policy>, throttle: ThrottleConfig) -> Self {
        Self {
            policies: RwLock::new(policies.into()),
            throttle: Arc::new(Mutex::new(Throttle::new(throttle))),
            exchanges: Mutex::default(),
            report: Arc::new(|_| {}),
        }
    }

    /// The same, and `report` is told in words when something fails that is nobody's fault who
    /// connects. It must not block.
    #[must_use]
    pub fn reporting_to(mut self, report: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.report = Arc::new(report);
        self
    }

    /// Puts these policies in place of the old ones; exchanges that have begun go on.
    pub fn replace(&self, policies: Vec<Policy>, throttle: ThrottleConfig) {
        *self.policies.write().unwrap_or_else(PoisonError::into_inner) = policies.into();
        lock(&self.throttle).set_config(throttle);
    }

    /// The policies.
    #[must_use]
    pub fn policies(&self) -> Arc<[Policy]> {
        Arc::clone(&self.policies.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Answers, or says how to get the answer.
    #[must_use]
    pub fn decide(&self, ask: Ask) -> Decision {
        let policies = self.policies();
        let Some(policy) = policies.get(usize::from(ask.listener)) else {
            return Answer::Deny(ReasonCode::NotAuthorized).into();
        };
        match ask.question {
            Question::Connect { version, password, peer, authentication } => {
                let login = Connecting {
                    conn: ask.conn,
                    client_id: ask.client_id,
                    user_name: ask.user_name,
                    password,
                    peer,
                    protocol: version.to_string(),
                };
                self.connect(policy, login, authentication)
            }
            Question::Authenticate { method, data, again } => {
                let connected = again.then_some(ask.user_name).flatten();
                self.authenticate(policy, ask.conn, &method, &data, again, connected.as_deref())
            }
            question => topics(policy, ask.client_id, ask.user_name, question, &self.report),
        }
    }

    fn connect(
        &self,
        policy: &Policy,
        login: Connecting,
        authentication: Option<(String, Bytes)>,
    ) -> Decision {
        let prefixes = &policy.client_id_prefixes;
        if !prefixes.is_empty() && !prefixes.iter().any(|prefix| login.client_id.starts_with(prefix.as_str()))
        {
            return Answer::Deny(ReasonCode::ClientIdentifierNotValid).into();
        }
        let grant = Grant { acl: policy.acl, ..Grant::default() };
        if policy.certificate != CertificateName::Unused {
            let subject = login.peer.tls_identity.as_deref();
            let name = match policy.certificate {
                CertificateName::CommonName => subject.and_then(crate::certificate::common_name),
                _ => subject.map(str::to_owned).filter(|subject| !subject.is_empty()),
            };
            return match name {
                Some(name) => Answer::Grant(Box::new(Grant { user_name: Some(name), ..grant })).into(),
                None => Answer::Deny(ReasonCode::NotAuthorized).into(),
            };
        }
        let address = login.peer.address.map(|address| address.ip());
        let shows_nothing = login.user_name.is_none() && login.password.is_none() && authentication.is_none();
        let open = policy.anonymous && (shows_nothing || authentication.is_none() && !policy.knows_users());
        if open {
            return Answer::Grant(Box::new(grant)).into();
        }
        if shows_nothing {
            return Answer::Deny(ReasonCode::NotAuthorized).into();
        }
        let wait = match address.map(|address| lock(&self.throttle).admit(Instant::now(), address)) {
            Some(Some(wait)) => wait,
            // Not even looked at.
            Some(None) => return Answer::Deny(ReasonCode::ServerBusy).into(),
            None => Duration::ZERO,
        };
        let work = match authentication {
            Some((method, data)) => Work::Done(self.begin(policy, login.conn, &method, &data, address)),
            None => self.check(policy, login, grant),
        };
        Decision { wait, work }
    }

    /// Asks everybody who may know the client, in their order.
    fn check(&self, policy: &Policy, login: Connecting, grant: Grant) -> Work {
        let steps = Steps {
            policy: policy.clone(),
            login,
            grant,
            throttle: Arc::clone(&self.throttle),
            report: Arc::clone(&self.report),
        };
        Work::Job(Job::new(JobKind::Hashing, move || steps.local()))
    }

    /// The first step of an exchange.
    fn begin(
        &self,
        policy: &Policy,
        conn: Option<ConnectionId>,
        method: &str,
        data: &[u8],
        address: Option<IpAddr>,
    ) -> Answer {
        let passwords = policy.passwords.as_ref().filter(|passwords| passwords.has_scram());
        let (Some(passwords), Some(conn), scram::METHOD) = (passwords, conn, method) else {
            return Answer::Deny(ReasonCode::BadAuthenticationMethod);
        };
        match Exchange::begin(data, |name| passwords.scram(name)) {
            Ok((exchange, first)) => {
                lock(&self.exchanges).put(Instant::now(), conn, exchange, address);
                Answer::Continue(first.into())
            }
            Err(e) => Answer::Deny(reason(e)),
        }
    }

    /// A later step. `connected` is who the client is already, if it authenticates again.
    fn authenticate(
        &self,
        policy: &Policy,
        conn: Option<ConnectionId>,
        method: &str,
        data: &[u8],
        again: bool,
        connected: Option<&str>,
    ) -> Decision {
        let Some(conn) = conn else { return Answer::Deny(ReasonCode::NotAuthorized).into() };
        let Some(waiting) = lock(&self.exchanges).take(Instant::now(), conn) else {
            if !again {
                return Answer::Deny(ReasonCode::NotAuthorized).into();
            }
            // A connected client begins anew. It is known, so there is nobody to slow down.
            return self.begin(policy, Some(conn), method, data, None).into();
        };
        match waiting.exchange.finish(data) {
            // Nobody becomes somebody else within a connection.
            Ok(accepted) if again && connected != Some(accepted.user_name.as_str()) => {
                Answer::Deny(ReasonCode::NotAuthorized).into()
            }
            Ok(accepted) => {
                if let Some(address) = waiting.address {
                    lock(&self.throttle).succeeded(address);
                }
                Answer::Grant(Box::new(Grant {
                    user_name: Some(accepted.user_name),
                    authentication_data: Some(accepted.answer.into()),
                    acl: policy.acl,
                    ..Grant::default()
                }))
                .into()
            }
            Err(e) => {
                if let Some(address) = waiting.address {
                    lock(&self.throttle).failed(Instant::now(), address);
                }
                Answer::Deny(reason(e)).into()
            }
        }
    }
}

const fn reason(error: ScramError) -> ReasonCode {
    match error {
        ScramError::Malformed => ReasonCode::ProtocolError,
        ScramError::ChannelBinding | ScramError::OtherUser => ReasonCode::BadAuthenticationMethod,
        ScramError::Randomness => ReasonCode::UnspecifiedError,
        _ => ReasonCode::NotAuthorized,
    }
}

/// A client that wants to connect.
struct Connecting {
    conn: Option<ConnectionId>,
    client_id: String,
    user_name: Option<String>,
    password: Option<Bytes>,
    peer: Peer,
    #[cfg_attr(not(feature = "http"), allow(dead_code, reason = "told to a web service only"))]
    protocol: String,
}

/// The check of a name and a password, from one step to the next.
struct Steps {
    policy: Policy,
    login: Connecting,
    grant: Grant,
    throttle: Arc<Mutex<Throttle>>,
    #[cfg_attr(not(feature = "http"), allow(dead_code, reason = "only a web service fails"))]
    report: Arc<dyn Fn(&str) + Send + Sync>,
}

impl Steps {
    /// What can be found out here.
    fn local(self) -> Work {
        let password = self.login.password.clone().unwrap_or_default();
        #[cfg(feature = "jwt")]
        if let Some(jwt) = &self.policy.jwt
            && crate::jwt::JwtVerifier::is_token(&password)
            && let Some(claims) = jwt.verify(&password, self.login.user_name.as_deref())
        {
            let grant = Grant {
                user_name: Some(claims.user_name),
                valid_for: claims.valid_for,
                ..self.grant.clone()
            };
            return self.let_in(grant);
        }
        let user_name = self.login.user_name.clone().unwrap_or_default();
        if let Some(passwords) = &self.policy.passwords {
            if passwords.verify(&user_name, &password) {
                let grant = self.grant.clone();
                return self.let_in(grant);
            }
            if passwords.contains(&user_name) {
                return self.refuse();
            }
        }
        self.remote()
    }

    #[cfg(not(feature = "http"))]
    fn remote(self) -> Work {
        self.refuse()
    }

    /// What others know.
    #[cfg(feature = "http")]
    fn remote(self) -> Work {
        use crate::webhook::{Login, Said};
        let Some(webhook) = self.policy.webhook.clone() else { return self.refuse() };
        Work::Job(Job::new(JobKind::Network, move || {
            let login = Login {
                client_id: &self.login.client_id,
                user_name: self.login.user_name.as_deref(),
                password: self.login.password.as_deref(),
                address: self.login.peer.address.map(|address| address.ip()),
                protocol: &self.login.protocol,
            };
            match webhook.connect(&login) {
                Said::Allow { user_name, valid_for } => {
                    let grant = Grant { user_name, valid_for, ..self.grant.clone() };
                    self.let_in(grant)
                }
                Said::Deny | Said::Ignore => self.refuse(),
                Said::Failed(why) => {
                    (self.report)(&format!("The web service that decides who may connect failed: {why}."));
                    Work::Done(Answer::Deny(ReasonCode::ServerUnavailable))
                }
            }
        }))
    }

    fn let_in(self, grant: Grant) -> Work {
        if let Some(address) = self.login.peer.address {
            lock(&self.throttle).succeeded(address.ip());
        }
        Work::Done(Answer::Grant(Box::new(grant)))
    }

    fn refuse(self) -> Work {
        if let Some(address) = self.login.peer.address {
            lock(&self.throttle).failed(Instant::now(), address.ip());
        }
        Work::Done(Answer::Deny(ReasonCode::BadUserNameOrPassword))
    }
}

#[cfg(not(feature = "http"))]
fn topics(
    _: &Policy,
    _: String,
    _: Option<String>,
    _: Question,
    _: &Arc<dyn Fn(&str) + Send + Sync>,
) -> Decision {
    Answer::Allow.into()
}

/// Questions about topics, which the tables inside the broker have answered with yes.
#[cfg(feature = "http")]
fn topics(
    policy: &Policy,
    client_id: String,
    user_name: Option<String>,
    question: Question,
    report: &Arc<dyn Fn(&str) + Send + Sync>,
) -> Decision {
    use crate::webhook::{Deed, Said};
    let Some(webhook) = policy.webhook.clone().filter(|hook| hook.config().acl_url.is_some()) else {
        return Answer::Allow.into();
    };
    let report = Arc::clone(report);
    let (action, deeds, several) = match question {
        Question::Publish { topic, qos, retain, .. } => ("publish", vec![(topic, qos, retain)], false),
        Question::Will { topic, qos, retain } => ("will", vec![(topic, qos, retain)], false),
        Question::Subscribe { filters } => {
            ("subscribe", filters.into_iter().map(|(filter, qos)| (filter, qos, false)).collect(), true)
        }
        _ => return Answer::Deny(ReasonCode::NotAuthorized).into(),
    };
    let job = Job::new(JobKind::Network, move || {
        let mut verdicts = Vec::with_capacity(deeds.len());
        let mut failed = false;
        for (topic, qos, retain) in &deeds {
            // A service that is away is not waited for once more for each filter.
            if failed {
                verdicts.push(Err(ReasonCode::UnspecifiedError));
                continue;
            }
            let (client_id, user_name) = (client_id.as_str(), user_name.as_deref());
            let deed = Deed { action, client_id, user_name, topic, qos: qos.as_u8(), retain: *retain };
            verdicts.push(match webhook.authorize(&deed) {
                Said::Allow { .. } => Ok(()),
                Said::Deny | Said::Ignore => Err(ReasonCode::NotAuthorized),
                Said::Failed(why) => {
                    report(&format!("The web service that decides about topics failed: {why}."));
                    failed = true;
                    Err(ReasonCode::UnspecifiedError)
                }
            });
        }
        Work::Done(match verdicts.first() {
            _ if several => Answer::Filters(verdicts),
            Some(Ok(())) => Answer::Allow,
            Some(Err(reason)) => Answer::Deny(*reason),
            None => Answer::Deny(ReasonCode::NotAuthorized),
        })
    });
    Decision { wait: Duration::ZERO, work: Work::Job(job) }
}

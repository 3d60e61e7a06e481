//! What `pub` and `sub` share: where to connect, as whom, and how.

use crate::properties::Properties;
use crate::scram::Scram;
use crate::stop::Stop;
use clap::{Args, ValueEnum};
use mqtt_access::scram::METHOD;
use mqtt_proto::{QoS, Version};
use mqtt_session::client::{CleanStart, DisconnectOptions, Will};
use mqtt_session::{Durability, Message};
use mqtt_store::{FjallOptions, FjallStore};
use mqtt_tokio::client::{Client, Error, Options, State, TlsClient};
use std::path::PathBuf;
use std::time::Duration;

/// Options of every client.
#[derive(Args, Debug)]
pub(crate) struct Connection {
    /// The server
    #[arg(short = 'h', long, default_value = "localhost", value_name = "HOST")]
    host: String,
    /// Its port [default: 1883, with TLS 8883]
    #[arg(short, long)]
    port: Option<u16>,
    /// Server, user, password and topic at once: mqtt, mqtts (TLS); ws, wss (WebSocket) with a path and
    /// unix with that of a socket in the place of the topic
    #[arg(short = 'L', long, value_name = "mqtt://[USER[:PASSWORD]@]HOST[:PORT]/TOPIC", conflicts_with_all = ["host", "port"])]
    url: Option<String>,
    /// Use TLS, and believe these authorities instead of the system's: a PEM file or a directory
    #[arg(long, alias = "capath", value_name = "FILE")]
    cafile: Option<PathBuf>,
    /// Show this certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Use TLS without asking who the server is: whoever sits in between reads everything
    #[arg(long, conflicts_with = "cafile")]
    insecure: bool,
    /// User name
    #[arg(short, long = "username", value_name = "NAME", allow_hyphen_values = true)]
    user_name: Option<String>,
    /// Password
    #[arg(short = 'P', long = "pw", value_name = "PASSWORD", allow_hyphen_values = true)]
    password: Option<String>,
    /// Prove that you know the password without sending it: SCRAM-SHA-256 (5.0)
    #[arg(long, requires_all = ["user_name", "password"])]
    scram: bool,
    /// Client identifier; a random one by default
    #[arg(short, long, allow_hyphen_values = true)]
    id: Option<String>,
    /// Client identifier: this and the number of the process
    #[arg(short = 'I', long, value_name = "PREFIX", conflicts_with = "id", allow_hyphen_values = true)]
    id_prefix: Option<String>,
    /// Longest silence in seconds; 0 switches keep alive off
    #[arg(short, long, default_value_t = 60, value_name = "SECS")]
    keepalive: u16,
    /// Keep the session after disconnecting (needs --id)
    #[arg(short = 'c', long = "disable-clean-session", requires = "id")]
    keep_session: bool,
    /// Keep this side of the session in a directory: what is published above QoS 0 is sent by the next
    /// run if this one cannot, and QoS 2 comes exactly once (needs --disable-clean-session)
    #[arg(long, value_name = "DIR", requires = "keep_session")]
    session_dir: Option<PathBuf>,
    /// Seconds that the session outlives the connection; -1 for ever (5.0)
    #[arg(short = 'x', long, value_name = "SECS", value_parser = expiry, allow_hyphen_values = true)]
    session_expiry_interval: Option<u32>,
    /// Protocol version: 31, 311 or 5. Default 311, or 5 if another option needs it
    #[arg(short = 'V', long, value_name = "VERSION", value_parser = version)]
    protocol_version: Option<Version>,
    /// QoS of messages or subscriptions: 0, 1 or 2
    #[arg(short, long, default_value = "0", value_parser = qos)]
    pub(crate) qos: QoS,
    /// A property of a packet (5.0): PACKET NAME VALUE, or PACKET user-property NAME VALUE
    #[arg(short = 'D', long, num_args = 3..=4, allow_negative_numbers = true, value_names = ["PACKET", "NAME", "VALUE"], action = clap::ArgAction::Append)]
    property: Vec<String>,
    /// Topic of the will
    #[arg(long, value_name = "TOPIC")]
    will_topic: Option<String>,
    /// Payload of the will
    #[arg(long, value_name = "PAYLOAD", requires = "will_topic", allow_hyphen_values = true)]
    will_payload: Option<String>,
    /// QoS of the will
    #[arg(long, value_name = "QOS", value_parser = qos, requires = "will_topic")]
    will_qos: Option<QoS>,
    /// Retain the will
    #[arg(long, requires = "will_topic")]
    will_retain: bool,
    /// Messages that may be unacknowledged at once
    #[arg(short = 'M', long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    max_inflight: Option<u16>,
    /// Accepted for compatibility: packets are never held back
    #[arg(long, hide = true)]
    nodelay: bool,
    /// Tell what happens on the connection
    #[arg(short, long)]
    pub(crate) debug: bool,
    /// Print no errors, except mistakes in the options
    #[arg(long)]
    pub(crate) quiet: bool,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

/// When retained messages are wanted on subscribing.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum RetainHandling {
    Always,
    New,
    Never,
}

fn version(text: &str) -> Result<Version, String> {
    match text {
        "31" | "3.1" | "mqttv31" => Ok(Version::V31),
        "311" | "3.1.1" | "mqttv311" => Ok(Version::V311),
        "5" | "5.0" | "mqttv5" => Ok(Version::V5),
        _ => Err("write 31, 311 or 5".to_owned()),
    }
}

fn expiry(text: &str) -> Result<u32, String> {
    match text {
        "-1" | "∞" => Ok(u32::MAX),
        _ => text.parse().map_err(|_| "write a number of seconds, or -1".to_owned()),
    }
}

pub(crate) fn qos(text: &str) -> Result<QoS, String> {
    text.parse().ok().and_then(QoS::from_u8).ok_or_else(|| "write 0, 1 or 2".to_owned())
}

/// A client that is connected, and what it needs to end.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) version: Version,
    quiet: bool,
    disconnect: DisconnectOptions,
}

impl Connection {
    /// The topic behind the server in `--url`.
    pub(crate) fn topic_of_url(&self) -> Option<&str> {
        let (scheme, rest) = self.url.as_deref()?.split_once("://")?;
        if matches!(scheme, "ws" | "wss" | "unix") {
            return None;
        }
        rest.split_once('/').map(|(_, topic)| topic).filter(|topic| !topic.is_empty())
    }

    fn wants_tls(&self) -> bool {
        self.cafile.is_some() || self.cert.is_some() || self.insecure
    }

    /// The version asked for, or the one that the options need.
    pub(crate) fn version(&self, needs_v5: bool) -> Result<Version, Stop> {
        let needs_v5 = needs_v5 || self.scram || self.session_expiry_interval.is_some();
        match self.protocol_version {
            None if needs_v5 => Ok(Version::V5),
            Some(version) if needs_v5 && !version.is_v5() => {
                Err(Stop::new(format!("an option needs MQTT 5.0, and -V asks for {version}")))
            }
            version => Ok(version.unwrap_or(Version::V311)),
        }
    }

    fn will(&self, properties: &Properties) -> Option<Will> {
        let topic = self.will_topic.clone()?;
        let payload = self.will_payload.clone().unwrap_or_default();
        let mut message = Message::new(topic, payload).with_qos(self.will_qos.unwrap_or_default());
        message.retain = self.will_retain;
        let given = properties.will.as_properties();
        let delay_secs = given.will_delay_interval().unwrap_or(0);
        message.properties.extend_except(given, &[mqtt_proto::PropertyId::WillDelayInterval]);
        Some(Will { message, delay_secs })
    }

    fn client_id(&self, version: Version) -> Result<String, Stop> {
        if let Some(id) = &self.id {
            if id.is_empty() && self.keep_session {
                return Err(Stop::new("-c keeps the session of a client identifier: give one with --id"));
            }
            return Ok(id.clone());
        }
        if let Some(prefix) = &self.id_prefix {
            return Ok(format!("{prefix}{}", std::process::id()));
        }
        if version.is_v5() {
            return Ok(String::new());
        }
        let mut random = [0; 9];
        getrandom::fill(&mut random).map_err(|e| Stop::new(format!("no random bytes: {e}")))?;
        // At most 23 characters, which is what 3.1 allows.
        Ok(random.iter().fold("mqtt-".to_owned(), |id, byte| format!("{id}{byte:02x}")))
    }

    /// What client identifiers of a benchmark begin with, if that was said.
    pub(crate) fn prefix(&self) -> Option<&str> {
        self.id_prefix.as_deref().or(self.id.as_deref())
    }

    /// The options of a client with this identifier.
    pub(crate) fn options(
        &self,
        version: Version,
        properties: &Properties,
        client_id: String,
    ) -> Result<Options, Stop> {
        let fail = |error: &Error| Stop::client(error, version);
        let mut options = match &self.url {
            Some(url) => {
                let server = match url.split_once("://") {
                    Some(("ws" | "wss" | "unix", _)) | None => url.clone(),
                    Some((scheme, rest)) => format!("{scheme}://{}", rest.split('/').next().unwrap_or(rest)),
                };
                Options::from_url(&server).map_err(|e| fail(&e))?
            }
            None => Options::new(&self.host, self.port.unwrap_or(if self.wants_tls() { 8883 } else { 1883 })),
        };
        if self.wants_tls() {
            let mut tls = TlsClient::default();
            tls.ca_file.clone_from(&self.cafile);
            tls.identity = self.cert.clone().zip(self.key.clone());
            tls.insecure = self.insecure;
            options = options.tls(tls);
        }
        let mut wrong = Ok(());
        options = options.version(version).configure(|config| {
            config.client_id = client_id;
            config.keep_alive_secs = self.keepalive;
            // In an exchange both are sent, or not sent, by its rules.
            if self.user_name.is_some() && !self.scram {
                config.user_name.clone_from(&self.user_name);
            }
            if let Some(password) = self.password.clone().filter(|_| !self.scram) {
                config.password = Some(password.into());
            }
            config.will = self.will(properties);
            config.session_expiry_secs = self.session_expiry_interval.unwrap_or(0);
            config.clean_start = CleanStart::Always;
            if self.keep_session {
                // What the server has is taken up, though this process knows nothing of it.
                config.clean_start = CleanStart::Never;
                config.adopt_session = true;
                config.session_expiry_secs = self.session_expiry_interval.unwrap_or(u32::MAX);
            }
            // People expect to see whatever the server sends.
            config.max_packet_size = mqtt_proto::MAX_PACKET_SIZE;
            if let Some(n) = self.max_inflight {
                config.max_in_flight = n;
                config.max_in_flight_3x = n;
            }
            wrong = properties.configure(config);
        });
        wrong?;
        if let (true, Some(user), Some(password)) = (self.scram, &self.user_name, &self.password) {
            let scram = Scram::new(user, password).map_err(|e| Stop::new(e.to_string()))?;
            options = options.authentication(METHOD, scram);
        }
        Ok(options)
    }

    /// Connects.
    pub(crate) async fn connect(&self, version: Version, properties: &Properties) -> Result<Session, Stop> {
        let fail = |error: &Error| Stop::client(error, version);
        let options = self.options(version, properties, self.client_id(version)?)?;
        let mut disconnect = DisconnectOptions::default();
        disconnect.properties.extend_except(properties.disconnect.as_properties(), &[]);
        if self.debug {
            eprintln!("Connecting to {} with MQTT {version}", self.url.as_deref().unwrap_or(&self.host));
        }
        let client = match &self.session_dir {
            None => options.connect().await.map_err(|e| fail(&e))?,
            // What is published is stored, whether or not the server can be reached now.
            Some(directory) => {
                let opened = FjallStore::open(directory, FjallOptions::default());
                let opened = opened.map_err(|e| Stop::new(e.to_string()))?;
                if let Some(salvage) = opened.salvaged
                    && !self.quiet
                {
                    eprintln!("Warning: {salvage}");
                }
                options.session_store(Durability::Synced, opened.store).start().map_err(|e| fail(&e))?
            }
        };
        if self.debug && self.session_dir.is_none() {
            eprintln!("Connected");
        }
        Ok(Session { client, version, quiet: self.quiet, disconnect })
    }
}

impl Session {
    /// Says goodbye.
    pub(crate) async fn close(self) -> Result<(), Stop> {
        self.client.disconnect_with(self.disconnect).await.map_err(|e| Stop::client(&e, self.version))
    }

    /// Waits until the client ends for good, and tells why.
    pub(crate) async fn ended(&self) -> Stop {
        let mut state = self.client.state();
        loop {
            match &*state.borrow_and_update() {
                State::Closed { cause, .. } => return Stop::cause(cause, self.version),
                // Not the end, but nothing to keep from whoever waits for messages.
                State::Disconnected { cause, retry_in, .. } if !self.quiet => {
                    eprintln!("Warning: {cause}; connecting again in {:.1} s", retry_in.as_secs_f32());
                }
                _ => {}
            }
            if state.changed().await.is_err() {
                return Stop::new("the connection has ended");
            }
        }
    }
}

/// Runs a client program.
pub(crate) fn block_on(
    quiet: bool,
    program: impl Future<Output = Result<(), Stop>>,
) -> std::process::ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return Stop::new(format!("cannot start: {e}")).exit(quiet),
    };
    let result = runtime.block_on(program);
    // A thread that reads standard input may still wait for it.
    runtime.shutdown_timeout(Duration::ZERO);
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(stop) => stop.exit(quiet),
    }
}

//! `mqtt rr`: a request, and the response to it.

use crate::connect::{Connection, block_on};
use crate::printing::Printing;
use crate::properties::Properties;
use crate::publish::Payload;
use crate::stop::{Stop, TIMED_OUT};
use crate::subscribe::closed;
use clap::{ArgGroup, ArgMatches, Args};
use mqtt_proto::{Property, PropertyId, TopicName, Version};
use mqtt_session::Message;
use mqtt_tokio::client::{Client, Item, Subscription};
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

/// Options of `mqtt rr`.
#[derive(Args, Debug)]
#[command(disable_help_flag = true, args_override_self = true)]
#[command(group(ArgGroup::new("what").required(true).args(["message", "file", "null", "stdin"])))]
pub(crate) struct Options {
    #[command(flatten)]
    connection: Connection,
    /// Topic of the request
    #[arg(short, long, required_unless_present = "url", allow_hyphen_values = true)]
    topic: Option<String>,
    /// Topic of the response. Default: one of our own (5.0). Below 5.0 it is needed, and whoever
    /// answers has to know it
    #[arg(short = 'e', long, value_name = "TOPIC")]
    response_topic: Option<String>,
    #[command(flatten)]
    payload: Payload,
    /// Have the server retain the request
    #[arg(short, long)]
    retain: bool,
    /// Responses to wait for
    #[arg(short = 'C', long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// End after so many seconds, with exit code 27
    #[arg(short = 'W', long, value_name = "SECS", value_parser = clap::value_parser!(u64).range(1..))]
    wait: Option<u64>,
    #[command(flatten)]
    printing: Printing,
}

pub(crate) fn run(options: &Options, matches: &ArgMatches) -> ExitCode {
    match Properties::from_matches(matches) {
        Ok(properties) => block_on(options.connection.quiet, request(options, &properties)),
        Err(stop) => stop.exit(false),
    }
}

async fn request(options: &Options, properties: &Properties) -> Result<(), Stop> {
    let topic = options.topic.as_deref().or(options.connection.topic_of_url());
    let topic =
        topic.ok_or_else(|| Stop::new("no topic: give one with -t, or behind the server in --url"))?;
    let version = options.connection.version(properties.any() || options.response_topic.is_none())?;
    let response_topic = match &options.response_topic {
        Some(topic) => topic.clone(),
        None => {
            let mut random = [0; 8];
            getrandom::fill(&mut random).map_err(|e| Stop::new(format!("no random bytes: {e}")))?;
            format!("response/{:016x}", u64::from_be_bytes(random))
        }
    };
    for topic in [topic, &response_topic] {
        TopicName::new(topic).map_err(|e| Stop::new(format!("{topic}: {e}")))?;
    }
    let mut message = Message::new(topic, options.payload.read()?).with_qos(options.connection.qos);
    message.retain = options.retain;
    let given = properties.publish.as_properties();
    message.properties.extend_except(given, &[PropertyId::ResponseTopic]);
    if version.is_v5() {
        let property = Property::ResponseTopic(&response_topic);
        message.properties.push(property).map_err(|e| Stop::new(e.to_string()))?;
    }
    let correlation = given.correlation_data().map(<[u8]>::to_vec);
    let session = options.connection.connect(version, properties).await?;
    let wait = async {
        match options.wait {
            Some(secs) => tokio::time::sleep(Duration::from_secs(secs)).await,
            None => std::future::pending().await,
        }
    };
    let exchange =
        exchange(&session.client, version, options, message, &response_topic, correlation.as_deref());
    tokio::select! {
        done = exchange => done?,
        () = wait => return Err(Stop::new("Timed out").with_code(TIMED_OUT)),
        stop = session.ended() => return Err(stop),
    }
    session.close().await
}

/// Subscribes, asks, and prints what comes as an answer.
async fn exchange(
    client: &Client,
    version: Version,
    options: &Options,
    message: Message,
    response_topic: &str,
    correlation: Option<&[u8]>,
) -> Result<(), Stop> {
    let fail = |e: &mqtt_tokio::client::Error| Stop::client(e, version);
    let subscribed = client.subscribe(response_topic, options.connection.qos).await;
    let mut responses: Subscription = subscribed.map_err(|e| fail(&e))?;
    client.publish(message).await.map_err(|e| fail(&e))?;
    let mut left = options.count;
    while let Some(item) = responses.recv().await {
        let Item::Message(delivery) = item else { continue };
        let response = delivery.into_message();
        // What was retained there is no answer; nor is what belongs to another request.
        let theirs = response.properties.as_properties().correlation_data();
        if response.retain || correlation.is_some() && theirs != correlation {
            continue;
        }
        let mut out = io::stdout().lock();
        options.printing.write(&mut out, &response, options.connection.quiet).map_err(closed)?;
        out.flush().map_err(closed)?;
        left -= 1;
        if left == 0 {
            break;
        }
    }
    Ok(())
}

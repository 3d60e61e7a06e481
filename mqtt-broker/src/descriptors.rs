//! File descriptors: each connection needs one, and many systems begin with 1,024.

use mqtt_tokio::broker::BrokerConfig;

/// What the store, the listeners and the like need.
const OTHERS: u64 = 256;

/// Raises the soft limit to the hard one, and says so if it is not enough for `connections`.
#[cfg(unix)]
pub(crate) fn raise(connections: u32) {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let before = getrlimit(Resource::Nofile);
    if before.current != before.maximum
        && let Err(e) =
            setrlimit(Resource::Nofile, rustix::process::Rlimit { current: before.maximum, ..before })
    {
        tracing::warn!("The limit of file descriptors stays as it is: {e}.");
    }
    let now = getrlimit(Resource::Nofile).current;
    let needed = u64::from(connections) + OTHERS;
    match now {
        // Nobody asked for the default.
        Some(now) if now < needed && connections != BrokerConfig::default().max_connections => {
            tracing::warn!(
                "There may be {now} file descriptors, which is enough for about {} connections; \
             limits.max_connections says {connections}. Raise it with ulimit -Hn, or LimitNOFILE= in a systemd \
             unit.",
                now.saturating_sub(OTHERS)
            )
        }
        Some(now) => tracing::debug!("There may be {now} file descriptors."),
        None => {}
    }
}

/// Elsewhere there is no such limit.
#[cfg(not(unix))]
pub(crate) fn raise(_connections: u32) {}

//! SCRAM-SHA-256 (RFC 5802, RFC 7677) for the enhanced authentication of MQTT 5.0 (section 4.12).
//!
//! Client and server prove to each other that they know the password, and none of it is sent. The
//! server stores a [`Credential`] from which the password cannot be read and with which nobody can
//! log in. There is no channel binding, so without TLS what follows the exchange is still open to
//! whoever sits on the wire.
//!
//! MQTT carries the messages like this: CONNECT client-first, AUTH server-first, AUTH client-final,
//! CONNACK server-final.

mod client;
mod credential;
mod server;

pub use client::Client;
pub use credential::Credential;
pub use server::{Accepted, Exchange};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

/// The name of the method, as CONNECT has it.
pub const METHOD: &str = "SCRAM-SHA-256";

/// What stands before a credential in a password file.
pub(crate) const PREFIX: &str = "SCRAM-SHA-256$";

/// What new credentials get: the advice of RFC 7677, since the *client* has the work.
pub const DEFAULT_ITERATIONS: u32 = 15_000;
/// Fewer than this are not accepted by our client (RFC 7677).
const MIN_ITERATIONS: u32 = 4096;
/// More than this would let a server keep our client busy for ever.
const MAX_ITERATIONS: u32 = 10_000_000;
/// Messages are short; longer ones are nonsense.
const MAX_MESSAGE: usize = 4096;

/// Why an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScramError {
    /// A message is not written as RFC 5802 wants it.
    #[error("a SCRAM message is malformed")]
    Malformed,
    /// The peer insists on channel binding.
    #[error("the peer wants channel binding, which is not supported")]
    ChannelBinding,
    /// The peer wants to act for another user.
    #[error("acting for another user is not supported")]
    OtherUser,
    /// The nonce is not the one of this exchange.
    #[error("the nonce is not the one of this exchange")]
    Nonce,
    /// The peer does not know the password.
    #[error("the proof is wrong")]
    Proof,
    /// The number of iterations is out of the range that is accepted.
    #[error("the server wants fewer than 4,096 iterations, or more than 10,000,000")]
    Iterations,
    /// A name or password has characters that SASLprep forbids.
    #[error("the name or the password has characters that are not allowed")]
    Prohibited,
    /// The operating system gives no randomness.
    #[error("the system gives no randomness")]
    Randomness,
}

fn hmac(key: &[u8], text: &[u8]) -> [u8; 32] {
    use hmac::{Hmac, KeyInit, Mac};
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any key");
    mac.update(text);
    mac.finalize().into_bytes().into()
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

fn xor(a: &[u8; 32], b: &[u8; 32]) -> [u8; 32] {
    let mut out = *a;
    for (out, b) in out.iter_mut().zip(b) {
        *out ^= b;
    }
    out
}

/// A nonce: printable, without commas.
fn nonce() -> Result<String, ScramError> {
    let mut bytes = [0; 18];
    getrandom::fill(&mut bytes).map_err(|_| ScramError::Randomness)?;
    Ok(STANDARD.encode(bytes))
}

fn is_nonce(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| (0x21..=0x7E).contains(&b) && b != b',')
}

/// The text of a message.
fn text(message: &[u8]) -> Result<&str, ScramError> {
    if message.len() > MAX_MESSAGE {
        return Err(ScramError::Malformed);
    }
    std::str::from_utf8(message).map_err(|_| ScramError::Malformed)
}

/// The value of the next attribute, which has to be this one.
fn attribute<'a>(parts: &mut std::str::Split<'a, char>, name: &str) -> Result<&'a str, ScramError> {
    parts.next().and_then(|part| part.strip_prefix(name)?.strip_prefix('=')).ok_or(ScramError::Malformed)
}

fn decode<const N: usize>(text: &str) -> Result<[u8; N], ScramError> {
    let bytes = STANDARD.decode(text).map_err(|_| ScramError::Malformed)?;
    bytes.try_into().map_err(|_| ScramError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7677, section 3.
    #[test]
    fn the_example_of_the_standard() {
        let credential =
            Credential::new("pencil", &STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap(), 4096).unwrap();
        let first = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
        let lookup = |name: &str| {
            assert_eq!(name, "user");
            (credential.clone(), true)
        };
        let server_nonce = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let (exchange, answer) = Exchange::begin_with(first, server_nonce.to_owned(), lookup).unwrap();
        assert_eq!(
            answer,
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
        );
        let mut client = Client::begin_with("user", "pencil", "rOprNGfwEbeRWgbNEkqO".to_owned()).unwrap();
        assert_eq!(client.first(), first);
        let last = client.proof(answer.as_bytes()).unwrap();
        assert_eq!(
            String::from_utf8(last.clone()).unwrap(),
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        let accepted = exchange.finish(&last).unwrap();
        assert_eq!(accepted.answer, "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        assert_eq!(accepted.user_name, "user");
        client.check(accepted.answer.as_bytes()).unwrap();
    }

    fn run(name: &str, password: &str, stored: &str, exists: bool) -> Result<Accepted, ScramError> {
        let mut client = Client::new(name, password)?;
        let lookup = |_: &str| (Credential::new(stored, b"0123456789abcdef", 4096).unwrap(), exists);
        let (exchange, first) = Exchange::begin(&client.first(), lookup)?;
        let accepted = exchange.finish(&client.proof(first.as_bytes())?)?;
        client.check(accepted.answer.as_bytes())?;
        Ok(accepted)
    }

    #[test]
    fn whoever_knows_the_password_is_let_in_and_nobody_else() {
        assert_eq!(run("a,=b", "pw", "pw", true).unwrap().user_name, "a,=b");
        assert_eq!(run("jörg", "pä\u{AD}ss", "päss", true).unwrap().user_name, "jörg");
        assert_eq!(run("ann", "pw", "other", true).map(|_| ()), Err(ScramError::Proof));
        assert_eq!(
            run("ann", "pw", "pw", false).map(|_| ()),
            Err(ScramError::Proof),
            "who does not exist never fits"
        );
        assert_eq!(run("ann", "p\u{7}w", "pw", true).map(|_| ()), Err(ScramError::Prohibited));
    }

    #[test]
    fn malformed_and_unwanted_messages_are_refused() {
        let begin = |first: &[u8]| {
            let lookup = |_: &str| (Credential::new("pw", b"0123456789abcdef", 4096).unwrap(), true);
            Exchange::begin(first, lookup).map(|_| ()).unwrap_err()
        };
        for (first, error) in [
            ("", ScramError::Malformed),
            ("n", ScramError::Malformed),
            ("n,,", ScramError::Malformed),
            ("n,,n=a", ScramError::Malformed),
            ("n,,n=,r=abc", ScramError::Malformed),
            ("n,,n=a,r=", ScramError::Malformed),
            ("n,,m=x,n=a,r=abc", ScramError::Malformed),
            ("n,,n=a=2,r=abc", ScramError::Malformed),
            ("x,,n=a,r=abc", ScramError::Malformed),
            ("p=tls-unique,,n=a,r=abc", ScramError::ChannelBinding),
            ("n,a=b,n=a,r=abc", ScramError::OtherUser),
        ] {
            assert_eq!(begin(first.as_bytes()), error, "{first}");
        }
        assert_eq!(begin(&[0xFF]), ScramError::Malformed);
        assert_eq!(begin(&vec![b'a'; 5000]), ScramError::Malformed);
        for last in ["", "c=biws", "c=biws,r=x", "c=biws,r=x,p=AAAA", "c=eSws,r=NONCE,p=AAAA"] {
            let mut client = Client::new("a", "pw").unwrap();
            let lookup = |_: &str| (Credential::new("pw", b"0123456789abcdef", 4096).unwrap(), true);
            let (exchange, first) = Exchange::begin(&client.first(), lookup).unwrap();
            client.proof(first.as_bytes()).unwrap();
            let nonce = first.split(',').next().unwrap().trim_start_matches("r=");
            assert!(exchange.finish(last.replace("NONCE", nonce).as_bytes()).is_err(), "{last}");
        }
    }

    #[test]
    fn a_client_does_not_trust_every_server() {
        let proof = |first: &dyn Fn(&str) -> String| {
            let mut client = Client::begin_with("a", "pw", "abc".to_owned()).unwrap();
            client.proof(first("abc").as_bytes()).map(|_| ()).unwrap_err()
        };
        assert_eq!(proof(&|_| "r=other,s=AAAA,i=4096".to_owned()), ScramError::Nonce);
        assert_eq!(proof(&|nonce| format!("r={nonce},s=AAAA,i=4096")), ScramError::Nonce);
        assert_eq!(proof(&|nonce| format!("r={nonce}x,s=AAAA,i=1")), ScramError::Iterations);
        assert_eq!(proof(&|nonce| format!("r={nonce}x,s=AAAA,i=4000000000")), ScramError::Iterations);
        assert_eq!(proof(&|nonce| format!("r={nonce}x,s=AAAA")), ScramError::Malformed);
        let mut client = Client::begin_with("a", "pw", "abc".to_owned()).unwrap();
        client.proof(b"r=abcx,s=AAAA,i=4096").unwrap();
        assert_eq!(client.check(b"v=AAAA"), Err(ScramError::Malformed));
        let other = format!("v={}", STANDARD.encode([7; 32]));
        assert_eq!(client.check(other.as_bytes()), Err(ScramError::Proof));
    }
}

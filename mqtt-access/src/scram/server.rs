use super::{Credential, ScramError, attribute, decode, hmac, is_nonce, nonce, text};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ctutils::CtEq;

/// A server's side of an exchange that has begun.
#[derive(Clone, Debug)]
pub struct Exchange {
    user_name: String,
    credential: Credential,
    exists: bool,
    gs2_header: String,
    nonce: String,
    /// The client's first message without its header, a comma, and ours.
    so_far: String,
}

/// Who was let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The user.
    pub user_name: String,
    /// The last message to the client, which proves that we know it.
    pub answer: String,
}

impl Exchange {
    /// Takes the client's first message and gives ours. `lookup` gives the user's credential, or
    /// something like it and `false` if there is no such user: the client must not find out.
    ///
    /// # Errors
    /// If the message is malformed or asks for what is not supported.
    pub fn begin(
        first: &[u8],
        lookup: impl FnOnce(&str) -> (Credential, bool),
    ) -> Result<(Self, String), ScramError> {
        Self::begin_with(first, nonce()?, lookup)
    }

    pub(super) fn begin_with(
        first: &[u8],
        server_nonce: String,
        lookup: impl FnOnce(&str) -> (Credential, bool),
    ) -> Result<(Self, String), ScramError> {
        let first = text(first)?;
        let mut parts = first.splitn(3, ',');
        let (Some(binding), Some(other), Some(bare)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(ScramError::Malformed);
        };
        match binding {
            // `y`: the client could bind and thinks that we cannot, which is true.
            "n" | "y" => {}
            _ if binding.starts_with("p=") => return Err(ScramError::ChannelBinding),
            _ => return Err(ScramError::Malformed),
        }
        let mut attributes = bare.split(',');
        let name = unescape(attribute(&mut attributes, "n")?)?;
        let client_nonce = attribute(&mut attributes, "r")?;
        if name.is_empty() || !is_nonce(client_nonce) {
            return Err(ScramError::Malformed);
        }
        if !other.is_empty() {
            let other = other.strip_prefix("a=").ok_or(ScramError::Malformed)?;
            if unescape(other)? != name {
                return Err(ScramError::OtherUser);
            }
        }
        let user_name = stringprep::saslprep(&name).map_err(|_| ScramError::Prohibited)?.into_owned();
        let (credential, exists) = lookup(&user_name);
        let nonce = format!("{client_nonce}{server_nonce}");
        let salt = STANDARD.encode(&credential.salt);
        let answer = format!("r={nonce},s={salt},i={}", credential.iterations);
        let so_far = format!("{bare},{answer}");
        let gs2_header = format!("{binding},{other},");
        Ok((Self { user_name, credential, exists, gs2_header, nonce, so_far }, answer))
    }

    /// Takes the client's last message.
    ///
    /// # Errors
    /// If the client does not know the password, or there is no such user, or the message is
    /// malformed or belongs to another exchange.
    pub fn finish(self, last: &[u8]) -> Result<Accepted, ScramError> {
        let last = text(last)?;
        let (without_proof, proof) = last.rsplit_once(",p=").ok_or(ScramError::Malformed)?;
        let proof: [u8; 32] = decode(proof)?;
        let mut attributes = without_proof.split(',');
        if attribute(&mut attributes, "c")? != STANDARD.encode(&self.gs2_header) {
            return Err(ScramError::ChannelBinding);
        }
        let nonce = attribute(&mut attributes, "r")?;
        if !nonce.as_bytes().ct_eq(self.nonce.as_bytes()).to_bool() {
            return Err(ScramError::Nonce);
        }
        let auth_message = format!("{},{without_proof}", self.so_far);
        let fits = self.credential.accepts(auth_message.as_bytes(), &proof);
        if !(fits & self.exists) {
            return Err(ScramError::Proof);
        }
        let signature = hmac(&self.credential.server_key, auth_message.as_bytes());
        Ok(Accepted { user_name: self.user_name, answer: format!("v={}", STANDARD.encode(signature)) })
    }
}

/// `=2C` is a comma and `=3D` an equals sign.
fn unescape(name: &str) -> Result<String, ScramError> {
    let mut parts = name.split('=');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (sign, rest) = match (part.strip_prefix("2C"), part.strip_prefix("3D")) {
            (Some(rest), _) => (',', rest),
            (_, Some(rest)) => ('=', rest),
            _ => return Err(ScramError::Malformed),
        };
        out.push(sign);
        out.push_str(rest);
    }
    Ok(out)
}

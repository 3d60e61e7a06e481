//! Tokens: whom they let in, and whom they do not.

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use mqtt_access::jwt::{JwtConfig, JwtVerifier};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

fn key(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keys").join(name)
}

fn config(algorithm: &str) -> JwtConfig {
    JwtConfig { algorithms: vec![algorithm.to_owned()], ..JwtConfig::default() }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn token(algorithm: Algorithm, key: &EncodingKey, claims: &Value) -> Vec<u8> {
    encode(&Header::new(algorithm), claims, key).unwrap().into_bytes()
}

fn claims() -> Value {
    json!({"sub": "ann", "exp": now() + 600})
}

fn secret_file(text: &[u8]) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

#[test]
fn each_kind_of_key_verifies_its_tokens_and_no_others() {
    let secret = secret_file(&[SECRET, b"\n"].concat());
    let read = |name: &str| std::fs::read(key(name)).unwrap();
    let cases = [
        (Algorithm::HS256, "HS256", secret.path().to_owned(), EncodingKey::from_secret(SECRET)),
        (Algorithm::RS256, "RS256", key("rsa.pub.pem"), EncodingKey::from_rsa_pem(&read("rsa.pem")).unwrap()),
        (Algorithm::PS512, "PS512", key("rsa.pub.pem"), EncodingKey::from_rsa_pem(&read("rsa.pem")).unwrap()),
        (Algorithm::ES256, "ES256", key("ec.pub.pem"), EncodingKey::from_ec_pem(&read("ec.pem")).unwrap()),
        (Algorithm::EdDSA, "EdDSA", key("ed.pub.pem"), EncodingKey::from_ed_pem(&read("ed.pem")).unwrap()),
    ];
    for (_, name, file, _) in &cases {
        let verifier = JwtVerifier::from_key_file(file, config(name)).unwrap();
        for (algorithm, other, _, signing) in &cases {
            let token = token(*algorithm, signing, &claims());
            assert!(JwtVerifier::is_token(&token));
            let user = verifier.verify(&token, None).map(|claims| claims.user_name);
            assert_eq!(user.as_deref(), (name == other).then_some("ann"), "{name} judges {other}");
        }
    }
}

/// Taking the public key for an HMAC secret is the oldest trick.
#[test]
fn the_token_does_not_choose_how_it_is_judged() {
    let public = std::fs::read(key("rsa.pub.pem")).unwrap();
    let forged = token(Algorithm::HS256, &EncodingKey::from_secret(&public), &claims());
    for algorithm in ["RS256", "PS256"] {
        let verifier = JwtVerifier::from_key_file(&key("rsa.pub.pem"), config(algorithm)).unwrap();
        assert_eq!(verifier.verify(&forged, None), None);
        // {"alg":"none"}, without a signature
        assert_eq!(verifier.verify(b"eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4ifQ.", None), None);
    }
    assert!(JwtVerifier::from_key_file(&key("rsa.pub.pem"), config("HS256")).is_err());
}

fn hs(set: impl FnOnce(&mut JwtConfig)) -> JwtVerifier {
    let mut config = config("HS256");
    set(&mut config);
    JwtVerifier::from_key_file(secret_file(SECRET).path(), config).unwrap()
}

fn judge(verifier: &JwtVerifier, claims: &Value) -> Option<String> {
    let token = token(Algorithm::HS256, &EncodingKey::from_secret(SECRET), claims);
    verifier.verify(&token, None).map(|claims| claims.user_name)
}

#[test]
fn times_are_kept() {
    let verifier = hs(|_| {});
    assert_eq!(judge(&verifier, &json!({"sub": "ann"})), None, "without an end");
    assert_eq!(judge(&verifier, &json!({"sub": "ann", "exp": now() - 60})), None);
    assert_eq!(judge(&verifier, &json!({"sub": "ann", "exp": now() + 60, "nbf": now() + 60})), None);
    assert!(judge(&verifier, &json!({"sub": "ann", "exp": now() - 5})).is_some(), "clocks differ a little");
    assert!(judge(&hs(|c| c.require_expiry = false), &json!({"sub": "ann"})).is_some());
    let token = token(
        Algorithm::HS256,
        &EncodingKey::from_secret(SECRET),
        &json!({"sub": "ann", "exp": now() + 600}),
    );
    let left = verifier.verify(&token, None).unwrap().valid_for.unwrap();
    assert!(left > Duration::from_secs(590) && left <= Duration::from_secs(631), "{left:?}");
}

#[test]
fn issuer_audience_and_user_are_what_they_should_be() {
    let strict = hs(|c| (c.issuer, c.audience) = (Some("me".into()), Some("mqtt".into())));
    let end = now() + 600;
    for (claims, fits) in [
        (json!({"sub": "ann", "exp": end, "iss": "me", "aud": "mqtt"}), true),
        (json!({"sub": "ann", "exp": end, "iss": "me", "aud": ["x", "mqtt"]}), true),
        (json!({"sub": "ann", "exp": end, "iss": "you", "aud": "mqtt"}), false),
        (json!({"sub": "ann", "exp": end, "iss": "me", "aud": "x"}), false),
        (json!({"sub": "ann", "exp": end, "aud": "mqtt"}), false),
        (json!({"sub": "ann", "exp": end, "iss": "me"}), false),
    ] {
        assert_eq!(judge(&strict, &claims).is_some(), fits, "{claims}");
    }
    let named = hs(|c| c.user_claim = "name".into());
    assert_eq!(judge(&named, &json!({"name": "bob", "exp": end})).as_deref(), Some("bob"));
    assert_eq!(judge(&named, &json!({"sub": "bob", "exp": end})), None);
    assert_eq!(judge(&named, &json!({"name": 7, "exp": end})), None);
    let token = token(Algorithm::HS256, &EncodingKey::from_secret(SECRET), &claims());
    assert!(
        hs(|_| {}).verify(&token, Some("ann")).is_some() && hs(|_| {}).verify(&token, Some("")).is_some()
    );
    assert!(hs(|_| {}).verify(&token, Some("eve")).is_none(), "CONNECT must not say another name");
}

#[test]
fn a_set_of_keys_is_used_by_their_names() {
    // The public half of tests/keys/ed.pem, and a key for another purpose.
    let pem = std::fs::read_to_string(key("ed.pub.pem")).unwrap();
    let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, base64).unwrap();
    let x = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, &der[der.len() - 32..]);
    let set = json!({"keys": [
        {"kty": "OKP", "crv": "Ed25519", "x": x, "kid": "one", "alg": "EdDSA"},
        {"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "enc", "alg": "RSA-OAEP", "use": "enc"}
    ]});
    let file = secret_file(set.to_string().as_bytes());
    let verifier = JwtVerifier::from_jwks_file(file.path(), JwtConfig::default()).unwrap();
    let signing = EncodingKey::from_ed_pem(&std::fs::read(key("ed.pem")).unwrap()).unwrap();
    for (kid, fits) in [(None, true), (Some("one"), true), (Some("two"), false)] {
        let header = Header { kid: kid.map(str::to_owned), ..Header::new(Algorithm::EdDSA) };
        let token = encode(&header, &claims(), &signing).unwrap();
        assert_eq!(verifier.verify(token.as_bytes(), None).is_some(), fits, "{kid:?}");
    }
    let hs_only = JwtVerifier::from_jwks_file(file.path(), config("HS256")).unwrap();
    assert!(hs_only.verify(&token(Algorithm::EdDSA, &signing, &claims()), None).is_none());
}

#[test]
fn files_that_are_none_are_told() {
    for (file, algorithm, problem) in [
        (key("rsa.pem"), "RS256", "private key"),
        (key("ec.pub.pem"), "RS256", "no public key"),
        (key("rsa.pub.pem"), "HS256", "PEM file"),
        (key("rsa.pub.pem"), "RS257", "no algorithm"),
        (key("none.pem"), "RS256", "cannot open"),
    ] {
        let error = JwtVerifier::from_key_file(&file, config(algorithm)).unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
    }
    assert!(JwtVerifier::from_key_file(&key("rsa.pub.pem"), JwtConfig::default()).is_err());
    let broken = secret_file(b"{\"keys\":\n[}");
    let error = JwtVerifier::from_jwks_file(broken.path(), JwtConfig::default()).unwrap_err();
    assert_eq!(error.line(), Some(2), "{error}");
    assert!(JwtVerifier::from_jwks_file(secret_file(b"{\"keys\":[]}").path(), JwtConfig::default()).is_err());
    let short = secret_file(b"short");
    assert!(
        JwtVerifier::from_key_file(short.path(), config("HS256"))
            .unwrap_err()
            .to_string()
            .contains("16 bytes")
    );
}

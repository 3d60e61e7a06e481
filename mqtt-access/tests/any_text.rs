//! Whatever stands in a file or comes from a client is read or refused.

use mqtt_access::scram::{Credential, Exchange};
use mqtt_access::{PasswordFile, acl_file, certificate};
use mqtt_session::acl::{Action, Identity, Mode};
use proptest::prelude::*;
use std::path::Path;

/// Mostly what almost is a file.
fn file() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        Just("user".to_owned()),
        Just("topic".to_owned()),
        Just("pattern".to_owned()),
        Just("read".to_owned()),
        Just("deny".to_owned()),
        Just("$7$101$".to_owned()),
        Just("$argon2id$v=19$m=47104,t=1,p=1$".to_owned()),
        Just("SCRAM-SHA-256$4096:".to_owned()),
        "[a-z:#+/$%uc= \t\r]{0,8}",
        ".{0,4}",
    ];
    let line = prop::collection::vec(word, 0..5).prop_map(|words| words.join(" "));
    prop::collection::vec(line, 0..6).prop_map(|lines| lines.join("\n"))
}

proptest! {
    #[test]
    fn any_file_is_read_or_refused_with_its_line(text in file(), name in ".{0,6}", topic in "[a$/]{1,5}") {
        let path = Path::new("f");
        let lines = u32::try_from(text.lines().count()).unwrap();
        if let Err(error) = PasswordFile::parse(path, &text) {
            prop_assert!(error.line().is_some_and(|line| (1..=lines).contains(&line)), "{error}");
        }
        for mode in [Mode::Strict, Mode::Mosquitto] {
            match acl_file::parse(path, &text, mode) {
                Ok(file) => {
                    let who = Identity { user_name: Some(&name), client_id: &name };
                    let _ = file.acl.decide(&who, Action::Write(&topic));
                }
                Err(error) => {
                    prop_assert!(error.line().is_some_and(|line| (1..=lines).contains(&line)), "{error}");
                }
            }
        }
    }

    #[test]
    fn any_message_and_any_subject_is_read_or_refused(message in "[np,=a-c0-9\\\\ ]{0,20}", bytes in any::<Vec<u8>>()) {
        let credential = || "4096:QUFBQQ==$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
            .parse::<Credential>()
            .unwrap();
        for first in [message.as_bytes(), &bytes] {
            if let Ok((exchange, _)) = Exchange::begin(first, |_| (credential(), true)) {
                prop_assert!(exchange.finish(&bytes).is_err());
            }
        }
        let _ = certificate::common_name(&message);
    }
}

//! Says what an ACL file lets a client do, and which line decides:
//!
//!     cargo run -p mqtt-access --example explain FILE USER CLIENT TOPIC

use mqtt_access::acl_file;
use mqtt_session::acl::{Action, Identity, Mode, Reason};
use std::env::args;
use std::error::Error;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = args().skip(1).collect();
    let [file, user, client_id, topic] = arguments.as_slice() else {
        return Err("give FILE USER CLIENT TOPIC".into());
    };
    let file = acl_file::read(Path::new(file), Mode::Strict)?;
    let who = Identity { user_name: (!user.is_empty()).then_some(user.as_str()), client_id };
    for (what, action) in [
        ("read", Action::Read(topic)),
        ("write", Action::Write(topic)),
        ("subscribe", Action::Subscribe(topic)),
    ] {
        let verdict = file.acl.decide(&who, action);
        let word = if verdict.allowed { "yes" } else { "no" };
        match verdict.reason {
            Reason::Rule(rule) => println!("{what}: {word}, says line {}", rule.line()),
            _ => println!("{what}: {word}, no line says anything"),
        }
    }
    Ok(())
}

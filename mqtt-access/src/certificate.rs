//! User names from TLS certificates.

/// The common name (CN) of a certificate's subject, given as text (RFC 4514, as in
/// `CN=alice,O=Example`): the first one, as it was meant, without escapes. `None` if there is none
/// or it is empty.
#[must_use]
pub fn common_name(subject: &str) -> Option<String> {
    // Characters with their escapes resolved, and whether they were escaped.
    let mut rest = subject.chars().peekable();
    let mut bytes: Vec<(char, bool)> = Vec::with_capacity(subject.len());
    let mut raw: Vec<u8> = Vec::new();
    while let Some(c) = rest.next() {
        if c != '\\' {
            flush(&mut raw, &mut bytes)?;
            bytes.push((c, false));
            continue;
        }
        let first = rest.next()?;
        match (first.to_digit(16), rest.peek().and_then(|c| c.to_digit(16))) {
            (Some(high), Some(low)) => {
                rest.next();
                // Two digits make a byte; several may make one character.
                raw.push(u8::try_from(high * 16 + low).ok()?);
            }
            _ => {
                flush(&mut raw, &mut bytes)?;
                bytes.push((first, true));
            }
        }
    }
    flush(&mut raw, &mut bytes)?;
    let names = bytes.split(|&(c, escaped)| !escaped && matches!(c, ',' | '+' | ';'));
    for name in names {
        let Some(equals) = name.iter().position(|&(c, escaped)| c == '=' && !escaped) else { continue };
        let (kind, value) = name.split_at(equals);
        let kind: String = kind.iter().map(|&(c, _)| c).collect();
        if matches!(kind.trim().to_ascii_uppercase().as_str(), "CN" | "2.5.4.3") {
            let value = value.get(1..).unwrap_or_default();
            let blank = |&&(c, escaped): &&(char, bool)| c == ' ' && !escaped;
            let front = value.iter().take_while(blank).count();
            let back = value.iter().rev().take_while(blank).count();
            let value = value.get(front..value.len().saturating_sub(back).max(front)).unwrap_or_default();
            let value: String = value.iter().map(|&(c, _)| c).collect();
            return (!value.is_empty()).then_some(value);
        }
    }
    None
}

/// What was written as bytes is text from here on.
fn flush(raw: &mut Vec<u8>, into: &mut Vec<(char, bool)>) -> Option<()> {
    if !raw.is_empty() {
        let text = String::from_utf8(std::mem::take(raw)).ok()?;
        into.extend(text.chars().map(|c| (c, true)));
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::common_name;

    #[test]
    fn the_common_name_is_found_whatever_stands_around_it() {
        for (subject, name) in [
            ("CN=alice", Some("alice")),
            ("O=Example, cn = alice , C=DE", Some("alice")),
            ("UID=1+CN=a\\,b\\+c", Some("a,b+c")),
            ("CN=J\\C3\\B6rg\\20", Some("Jörg ")),
            ("2.5.4.3=alice", Some("alice")),
            ("O=CN\\=x,OU=y", None),
            ("CN=", None),
            ("CN=\\", None),
            ("CN=\\FF", None),
            ("", None),
        ] {
            assert_eq!(common_name(subject).as_deref(), name, "{subject}");
        }
    }
}

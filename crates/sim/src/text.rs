//! Bytes as text that a person can read and a program can take back.
//!
//! Keys and values are bytes, and mostly words. In histories and messages they
//! are written as they are where that is readable, with `\xNN` for the rest and
//! `\\` for the backslash itself, so that nothing is lost on the way.

use std::fmt::Write as _;

/// Writes `bytes` as text; [`unescape`] is its inverse.
pub(crate) fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                c if c.is_control() => {
                    let mut buffer = [0; 4];
                    push_hex(&mut text, c.encode_utf8(&mut buffer).as_bytes());
                }
                c => text.push(c),
            }
        }
        push_hex(&mut text, chunk.invalid());
    }
    text
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        write!(text, "\\x{byte:02x}").expect("writing to a string does not fail");
    }
}

/// Reads what [`escape`] wrote. `Err` says which escape is broken.
pub(crate) fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let escaped = &rest[at + 1..];
        if let Some(after) = escaped.strip_prefix('\\') {
            bytes.push(b'\\');
            rest = after;
        } else {
            let (byte, after) = escaped
                .strip_prefix('x')
                .and_then(|hex| Some((hex.get(..2)?, hex.get(2..)?)))
                .filter(|(hex, _)| hex.bytes().all(|b| b.is_ascii_hexdigit()))
                .and_then(|(hex, after)| Some((u8::from_str_radix(hex, 16).ok()?, after)))
                .ok_or_else(|| format!("a backslash needs \\ or xNN after it: {escaped:?}"))?;
            bytes.push(byte);
            rest = after;
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_stay_words() {
        assert_eq!(escape("fruit/kiwi ü".as_bytes()), "fruit/kiwi ü");
        assert_eq!(escape(b"a\\b\n\xff"), "a\\\\b\\x0a\\xff");
    }

    #[test]
    fn a_broken_escape_is_an_error() {
        for text in ["\\", "\\q", "\\x1", "\\x+1", "\\xü"] {
            assert!(unescape(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn unescape_undoes_escape(bytes: Vec<u8>) {
            prop_assert_eq!(unescape(&escape(&bytes)), Ok(bytes));
        }
    }
}

//! Quoted words: `"with \t escapes"`, `'as it is'`, `` `as it is` ``, and bare ones.

/// Splits a line into words as etcdctl does: a quoted one ends at its closing
/// quote, a bare one at the next blank.
///
/// # Errors
/// If a quote is not closed, which etcdctl lets pass, or an escape is unknown.
pub(super) fn split(line: &str) -> Result<Vec<Vec<u8>>, String> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while let Some(first) = rest.chars().next() {
        let word;
        (word, rest) = match first {
            '"' => unquote(rest)?,
            '\'' => {
                let (word, rest) = rest[1..].split_once('\'').ok_or("a ' is not closed")?;
                (word.as_bytes().to_vec(), rest)
            }
            _ => {
                let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
                (rest.as_bytes()[..end].to_vec(), &rest[end..])
            }
        };
        words.push(word);
        rest = rest.trim_start();
    }
    Ok(words)
}

/// Reads the Go string literal at the start of `text`, in double or back
/// quotes, and returns its bytes and what follows it.
///
/// # Errors
/// If there is none, it is not closed, or an escape is unknown.
pub(super) fn unquote(text: &str) -> Result<(Vec<u8>, &str), String> {
    if let Some(raw) = text.strip_prefix('`') {
        let (word, rest) = raw.split_once('`').ok_or("a ` is not closed")?;
        return Ok((word.as_bytes().to_vec(), rest));
    }
    let mut rest = text.strip_prefix('"').ok_or("a quoted string is missing")?;
    let mut word = Vec::new();
    loop {
        let mut chars = rest.chars();
        match chars.next().ok_or("a \" is not closed")? {
            '"' => return Ok((word, chars.as_str())),
            '\\' => rest = escape(chars.as_str(), &mut word)?,
            char => {
                push(&mut word, char);
                rest = chars.as_str();
            }
        }
    }
}

/// Reads what follows a backslash.
fn escape<'a>(text: &'a str, word: &mut Vec<u8>) -> Result<&'a str, String> {
    let mut chars = text.chars();
    let char = chars.next().ok_or("a \" is not closed")?;
    let rest = chars.as_str();
    let byte = match char {
        'a' => 0x07,
        'b' => 0x08,
        'f' => 0x0c,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 0x0b,
        '\\' => b'\\',
        '"' => b'"',
        'x' => {
            let (code, rest) = number(rest, 2, 16)?;
            word.push(u8::try_from(code).map_err(|_| "an escaped byte is too large")?);
            return Ok(rest);
        }
        '0'..='7' => {
            let (code, rest) = number(text, 3, 8)?;
            word.push(u8::try_from(code).map_err(|_| "an escaped byte is too large")?);
            return Ok(rest);
        }
        'u' | 'U' => {
            let (code, rest) = number(rest, if char == 'u' { 4 } else { 8 }, 16)?;
            push(word, char::from_u32(code).ok_or("an escape is no character")?);
            return Ok(rest);
        }
        unknown => return Err(format!("there is no escape \\{unknown}")),
    };
    word.push(byte);
    Ok(rest)
}

fn number(text: &str, digits: usize, radix: u32) -> Result<(u32, &str), String> {
    let number = text.get(..digits).filter(|digits| digits.chars().all(|digit| digit.is_digit(radix)));
    let code = number.and_then(|digits| u32::from_str_radix(digits, radix).ok());
    Ok((code.ok_or_else(|| format!("an escape needs {digits} digits"))?, &text[digits..]))
}

fn push(word: &mut Vec<u8>, char: char) {
    word.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        split(line).unwrap().into_iter().map(|word| String::from_utf8_lossy(&word).into_owned()).collect()
    }

    #[test]
    fn words_are_bare_or_quoted() {
        assert_eq!(words("put k v"), ["put", "k", "v"]);
        assert_eq!(words("  put 'q r' \"x \\\"y\\\"\" "), ["put", "q r", "x \"y\""]);
        assert_eq!(words("put k \"\""), ["put", "k", ""]);
        assert_eq!(words("get 'it''s'"), ["get", "it", "s"]);
        assert_eq!(words("put k x\"y z").len(), 4, "a quote inside a bare word is part of it");
        assert_eq!(words(""), Vec::<String>::new());
    }

    #[test]
    fn escapes_are_gos() {
        let (word, rest) = unquote(r#""a\x41\102\t\u00e9\U0001F600\"" rest"#).unwrap();
        assert_eq!(String::from_utf8(word).unwrap(), "aAB\té😀\"");
        assert_eq!(rest, " rest");
        assert_eq!(unquote(r#""\xff""#).unwrap().0, [0xff]);
        assert_eq!(unquote(r"`a\x41`").unwrap().0, br"a\x41");
    }

    #[test]
    fn what_is_not_closed_or_not_known_is_refused() {
        for text in [r#""open"#, "`open", r#""\q""#, r#""\x4""#, r#""\777""#, r#""\ud800""#, "bare", r#""\"#]
        {
            assert!(unquote(text).is_err(), "{text}");
        }
        assert!(split("put 'open").is_err());
        assert!(split("put k \"open").is_err());
        assert!(unquote(r#""\xé1""#).is_err(), "digits are counted in bytes, and é has two");
    }
}

//! How Go writes things down.
//!
//! Scripts compare etcdctl's output byte for byte, and etcdctl leaves much of
//! it to Go's standard library: quoted strings, durations, byte sizes. These
//! functions write the same text.

use std::fmt::Write as _;
use std::time::Duration;

/// A byte string in double quotes, as Go's `%q` verb does: printable text as
/// it is, the rest escaped, bytes that are no UTF-8 as `\xNN`.
pub(crate) fn quote(bytes: &[u8]) -> String {
    let mut quoted = String::with_capacity(bytes.len() + 2);
    quoted.push('"');
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            push_escaped(&mut quoted, char);
        }
        for byte in chunk.invalid() {
            push_hex(&mut quoted, *byte);
        }
    }
    quoted.push('"');
    quoted
}

fn push_escaped(out: &mut String, char: char) {
    let code = u32::from(char);
    match char {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\x07' => out.push_str("\\a"),
        '\x08' => out.push_str("\\b"),
        '\x0c' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\x0b' => out.push_str("\\v"),
        '\0'..='\x1f' | '\x7f' => out.push_str(&format!("\\x{code:02x}")),
        _ if is_printable(char) => out.push(char),
        '\0'..='\u{ffff}' => out.push_str(&format!("\\u{code:04x}")),
        _ => out.push_str(&format!("\\U{code:08x}")),
    }
}

/// Letters, marks, digits, punctuation and symbols. The standard library keeps
/// the table to itself but shows it when it escapes for debugging; the letter
/// in front keeps it from escaping marks, which it does at the start only.
fn is_printable(char: char) -> bool {
    char == '\'' || !String::from_iter(['a', char]).escape_debug().any(|shown| shown == '\\')
}

fn push_hex(out: &mut String, byte: u8) {
    // Writing to a String cannot fail.
    let _ = write!(out, "\\x{byte:02x}");
}

/// Every byte as `\xNN`, as etcdctl's `--hex` shows keys and values.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 4);
    for &byte in bytes {
        push_hex(&mut out, byte);
    }
    out
}

/// A duration as Go prints it: the largest unit that fits, every digit that
/// counts and no zeroes behind them.
pub(crate) fn duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => fraction(nanos, 1_000, "µs"),
        1_000_000..1_000_000_000 => fraction(nanos, 1_000_000, "ms"),
        _ => {
            let (minutes, rest) = (nanos / 60_000_000_000, nanos % 60_000_000_000);
            let seconds = fraction(rest, 1_000_000_000, "s");
            match (minutes / 60, minutes % 60) {
                (0, 0) => seconds,
                (0, minutes) => format!("{minutes}m{seconds}"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    }
}

fn fraction(value: u128, unit: u128, name: &str) -> String {
    let digits = unit.ilog10() as usize;
    let rest = format!("{:0digits$}", value % unit);
    match rest.trim_end_matches('0') {
        "" => format!("{}{name}", value / unit),
        rest => format!("{}.{rest}{name}", value / unit),
    }
}

/// A size in decimal units, with one digit behind the point below ten.
pub(crate) fn bytes(size: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    if size < 10 {
        return format!("{size} B");
    }
    let power = size.ilog10() / 3;
    let unit = UNITS[power as usize];
    // Rounded to a tenth first, as the original does: 9.96 is shown as 10.
    let tenths = (size as f64 / 1000f64.powi(power as i32) * 10.0 + 0.5).floor() / 10.0;
    if tenths < 10.0 { format!("{tenths:.1} {unit}") } else { format!("{tenths:.0} {unit}") }
}

/// Standard base64 with padding, as byte strings are written in JSON.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |index: usize| u32::from(group.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            // One byte fills two digits, two bytes three.
            let shown = digit <= group.len();
            let index = (bits >> (18 - 6 * digit)) & 0x3f;
            out.push(if shown { char::from(ALPHABET[index as usize]) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_quoted_and_everything_else_escaped() {
        assert_eq!(quote(b"plain 'text'"), r#""plain 'text'""#);
        assert_eq!(quote("k<&>é\t\"\\".as_bytes()), r#""k<&>é\t\"\\""#);
        assert_eq!(quote(b"v\x01\x7f\xff\xe2\x80\xa8\0\x07\x1b"), r#""v\x01\x7f\xff\u2028\x00\a\x1b""#);
        assert_eq!(quote("e\u{301}\u{a0}\u{e0001}日本".as_bytes()), "\"e\u{301}\\u00a0\\U000e0001日本\"");
    }

    #[test]
    fn hex_shows_every_byte() {
        assert_eq!(hex(b"x\ny"), r"\x78\x0a\x79");
        assert_eq!(hex(b""), "");
    }

    #[test]
    fn durations_have_the_unit_that_fits() {
        assert_eq!(duration(Duration::ZERO), "0s");
        assert_eq!(duration(Duration::from_nanos(12)), "12ns");
        assert_eq!(duration(Duration::from_nanos(1_500)), "1.5µs");
        assert_eq!(duration(Duration::from_nanos(2_255_714)), "2.255714ms");
        assert_eq!(duration(Duration::from_millis(5)), "5ms");
        assert_eq!(duration(Duration::from_nanos(5_000_895_461)), "5.000895461s");
        assert_eq!(duration(Duration::from_millis(62_500)), "1m2.5s");
        assert_eq!(duration(Duration::from_secs(3 * 3600)), "3h0m0s");
    }

    #[test]
    fn sizes_are_decimal_and_rounded() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1_000), "1.0 kB");
        assert_eq!(bytes(20_480), "20 kB");
        assert_eq!(bytes(9_960), "10 kB");
        assert_eq!(bytes(4_100_000), "4.1 MB");
        assert_eq!(bytes(u64::MAX), "18 EB");
    }

    #[test]
    fn base64_pads_to_four() {
        assert_eq!(base64(b""), "");
        assert_eq!(base64(b"a"), "YQ==");
        assert_eq!(base64(b"lk"), "bGs=");
        assert_eq!(base64(b"abc"), "YWJj");
        assert_eq!(base64(b"v\x01\x7f\xff\xe2\x80\xa8"), "dgF//+KAqA==");
    }
}

//! Numbers with units, as people write them: `250ms`, `1.5s`, `2MiB`.
//!
//! Where etcd takes a bare number, so do we, in etcd's unit.

use std::time::Duration;

/// Reads a duration: `250ms`, `5s`, `1m30s`; or, as etcd has it, a bare number of milliseconds.
///
/// # Errors
/// A sentence, if it is none, or if it does not fit.
pub fn duration(text: &str) -> Result<Duration, String> {
    let advice = || format!("{text:?} is no duration; write a number with its unit, such as 250ms or 5s");
    if let Ok(milliseconds) = text.parse::<u32>() {
        return Ok(Duration::from_millis(milliseconds.into()));
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    if rest.is_empty() {
        return Err(advice());
    }
    while !rest.is_empty() {
        let (number, unit, tail) = split(rest);
        let unit = match unit {
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(advice()),
        };
        let part = number.parse::<f64>().ok().and_then(|n| Duration::try_from_secs_f64(n * unit).ok());
        total = part.and_then(|part| total.checked_add(part)).ok_or_else(advice)?;
        rest = tail;
    }
    Ok(total)
}

/// Reads a size in bytes: `1572864`, `512KiB`, `1.5MiB`.
///
/// # Errors
/// A sentence, if it is none, or if it does not fit.
pub fn bytes(text: &str) -> Result<usize, String> {
    let advice = || format!("{text:?} is no size; write a number of bytes, or one with KiB or MiB");
    if let Ok(bytes) = text.parse() {
        return Ok(bytes);
    }
    let (number, unit, tail) = split(text);
    let unit = match unit {
        "KiB" => 1024.0,
        "MiB" => 1024.0 * 1024.0,
        _ => return Err(advice()),
    };
    let bytes = number.parse::<f64>().map_err(|_| advice())? * unit;
    // Far below the point where floating point leaves out whole numbers.
    if !tail.is_empty() || !(0.0..1e12).contains(&bytes) {
        return Err(advice());
    }
    Ok(bytes as usize)
}

/// The digits at the start, the letters behind them, and the rest.
fn split(text: &str) -> (&str, &str, &str) {
    let numeric = |c: char| c.is_ascii_digit() || c == '.';
    let digits = text.find(|c| !numeric(c)).unwrap_or(text.len());
    let (number, tail) = text.split_at(digits);
    let letters = tail.find(numeric).unwrap_or(tail.len());
    let (unit, tail) = tail.split_at(letters);
    (number, unit, tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units_and_etcds_have_none() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("100"), Ok(Duration::from_millis(100)));
        for text in ["", "s", "-5s", "5 s", "5x", "1e3s", "..s", "99999999999999999999h"] {
            assert!(duration(text).unwrap_err().contains("250ms"), "{text}");
        }
    }

    #[test]
    fn sizes_have_units_and_etcds_have_none() {
        assert_eq!(bytes("1572864"), Ok(1_572_864));
        assert_eq!(bytes("1.5MiB"), Ok(1_572_864));
        assert_eq!(bytes("512KiB"), Ok(524_288));
        for text in ["", "-1", "MiB", "1MB", "1 MiB", "1MiB2", "99999999999999999999MiB"] {
            assert!(bytes(text).unwrap_err().contains("KiB"), "{text}");
        }
    }
}

//! Durations as people write them: `250ms`, `5s`, `1m30s`.

use std::time::Duration;

/// Reads a sequence of number and unit, from `ns` to `h`, as Go and etcd do.
///
/// # Errors
/// If a unit is missing or unknown, or the sum does not fit.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|char: char| !char.is_ascii_digit() && char != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|char: char| char.is_ascii_digit() || char == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        total = part(number, unit).and_then(|part| total.checked_add(part)).ok_or_else(advice)?;
        rest = tail;
    }
    if text.is_empty() { Err(advice()) } else { Ok(total) }
}

fn part(number: &str, unit: &str) -> Option<Duration> {
    let seconds = match unit {
        "ns" => 1e-9,
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()
}

fn advice() -> String {
    "not a duration; write a number and a unit, such as 250ms, 5s or 1m30s".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_with_units_add_up() {
        assert_eq!(parse("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(parse("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse("1.5h"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse("100us"), Ok(Duration::from_micros(100)));
        assert_eq!(parse("0"), Ok(Duration::ZERO));
    }

    #[test]
    fn anything_else_is_refused_with_an_example() {
        for text in ["", "5", "s", "5 s", "-5s", "5x", "1e3s", "..s", "99999999999999999999h"] {
            let error = parse(text).expect_err(text);
            assert!(error.contains("250ms"), "{error}");
        }
    }
}

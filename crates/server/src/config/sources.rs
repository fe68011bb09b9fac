//! The environment and the file, read as if they were flags.
//!
//! `SYNOD_DATA_DIR=x`, `data-dir = "x"` and `--data-dir=x` go through the same parser, so that what can be
//! said one way can be said in all three, and is refused for the same reasons.

use std::collections::BTreeMap;
use std::path::Path;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, Command, FromArgMatches};
use toml::{Spanned, Value};

use super::ConfigError;
use super::flags::ServerFlags;

/// What variables start with.
const PREFIX: &str = "SYNOD_";

fn command() -> Command {
    ServerFlags::augment_args(Command::new("server").no_binary_name(true))
}

/// One setting, as a flag.
fn parse(key: &str, value: &str) -> Result<ServerFlags, clap::Error> {
    let matches = command().try_get_matches_from([format!("--{key}={value}")])?;
    ServerFlags::from_arg_matches(&matches)
}

/// What is wrong with a value, without clap's talk of flags.
fn problem(error: &clap::Error) -> String {
    if let Some(source) = std::error::Error::source(error) {
        return source.to_string();
    }
    let said = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.join(", "),
        _ => String::new(),
    };
    match error.kind() {
        ErrorKind::InvalidValue => {
            let (value, valid) = (said(ContextKind::InvalidValue), said(ContextKind::ValidValue));
            format!("{value:?} is none of {valid}")
        }
        _ => error.to_string(),
    }
}

/// Every setting's variable that `lookup` knows. An empty variable counts as unset.
pub(super) fn environment(lookup: &dyn Fn(&str) -> Option<String>) -> Result<ServerFlags, ConfigError> {
    let mut found = ServerFlags::default();
    for key in command().get_arguments().filter_map(|argument| argument.get_long()) {
        let variable = format!("{PREFIX}{}", key.to_ascii_uppercase().replace('-', "_"));
        let Some(value) = lookup(&variable).filter(|value| !value.is_empty()) else { continue };
        let setting = parse(key, &value)
            .map_err(|error| ConfigError::Variable { variable, problem: problem(&error) })?;
        found = setting.over(found);
    }
    Ok(found)
}

/// Every key of the TOML file at `path`.
pub(super) fn file(path: &Path) -> Result<ServerFlags, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    let table: BTreeMap<Spanned<String>, Value> = toml::from_str(&text).map_err(|error| {
        ConfigError::NotToml { path: path.to_owned(), problem: error.to_string().trim_end().to_owned() }
    })?;
    let mut found = ServerFlags::default();
    for (spanned, value) in table {
        let line = 1 + text[..spanned.span().start].matches('\n').count();
        let wrong = |problem| ConfigError::Key {
            path: path.to_owned(),
            line,
            key: spanned.get_ref().clone(),
            problem,
        };
        let key = spanned.get_ref().replace('_', "-");
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if !key.chars().all(plain) || matches!(&*key, "config" | "config-file") {
            return Err(wrong("there is no such key".to_owned()));
        }
        let value = flat(value).map_err(wrong)?;
        let setting = parse(&key, &value).map_err(|error| match error.kind() {
            ErrorKind::UnknownArgument => wrong(match error.get(ContextKind::SuggestedArg) {
                Some(ContextValue::String(flag)) => {
                    format!("there is no such key; did you mean {}?", flag.trim_start_matches('-'))
                }
                _ => "there is no such key".to_owned(),
            }),
            _ => wrong(problem(&error)),
        })?;
        found = setting.over(found);
    }
    Ok(found)
}

/// A value as a flag would have it: lists by commas, tables as pairs.
fn flat(value: Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Float(number) => Ok(number.to_string()),
        Value::Boolean(truth) => Ok(truth.to_string()),
        Value::Datetime(_) => Err("a date means nothing here".to_owned()),
        Value::Array(values) => Ok(values.into_iter().map(flat).collect::<Result<Vec<_>, _>>()?.join(",")),
        Value::Table(table) => {
            let mut pairs = Vec::new();
            for (name, value) in table {
                pairs.extend(flat(value)?.split(',').map(|part| format!("{name}={part}")));
            }
            Ok(pairs.join(","))
        }
    }
}

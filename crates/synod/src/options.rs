//! The options that every client command takes, and where else they come from.
//!
//! A flag beats a `SYNOD_*` variable, that beats an `ETCDCTL_*` variable, and
//! that beats the default; silently, so that a variable in a profile never
//! stops a command that says otherwise.

use std::io::IsTerminal;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::duration;
use crate::failed::{Call, Failed, Personality, Why};
use crate::output::{Format, Style};
use synod_client::{Client, Config};

/// The options as given on the command line.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Options {
    /// Replicas to ask, separated by commas [env: SYNOD_ENDPOINTS, ETCDCTL_ENDPOINTS] [default: 127.0.0.1:2379]
    #[arg(long, global = true, value_name = "HOST:PORT,...", value_delimiter = ',')]
    endpoints: Option<Vec<String>>,

    /// How long a command may take, such as 250ms or 5s [default: 5s]
    #[arg(long, global = true, value_name = "DURATION", value_parser = duration::parse)]
    command_timeout: Option<Duration>,

    /// How long a connection may take to be established [default: 2s]
    #[arg(long, global = true, value_name = "DURATION", value_parser = duration::parse)]
    dial_timeout: Option<Duration>,

    /// How to write the answer [default: simple]
    #[arg(short = 'w', long, visible_alias = "output", global = true, value_name = "FORMAT", value_enum)]
    write_out: Option<Format>,

    /// Write keys and values as \xNN (with -w simple)
    #[arg(long, global = true)]
    hex: bool,
}

/// What a client command needs to know beside its own arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Context {
    pub(crate) personality: Personality,
    pub(crate) endpoints: Vec<String>,
    /// Whether somebody named them; otherwise they are the default.
    pub(crate) endpoints_given: bool,
    pub(crate) command_timeout: Duration,
    pub(crate) dial_timeout: Duration,
    pub(crate) format: Format,
    pub(crate) hex: bool,
    /// Whether standard output is for human eyes that like colours.
    pub(crate) colour: bool,
}

impl Options {
    /// Completes the options from the environment and the defaults.
    ///
    /// # Errors
    /// If a variable that is needed has a malformed value.
    pub(crate) fn resolve(
        self,
        personality: Personality,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Context, Failed> {
        let find = |option: &str| {
            ["SYNOD", "ETCDCTL"].into_iter().find_map(|prefix| {
                let name = format!("{prefix}_{option}");
                variable(&name).filter(|value| !value.is_empty()).map(|value| (name, value))
            })
        };
        let defaults = Config::default();
        let given = self
            .endpoints
            .or_else(|| find("ENDPOINTS").map(|(_, value)| value.split(',').map(str::to_owned).collect()));
        let endpoints_given = given.is_some();
        let endpoints = given.unwrap_or(defaults.endpoints);
        let time = |flag: Option<Duration>, option, default| match (flag, find(option)) {
            (Some(time), _) => Ok(time),
            (None, Some((name, value))) => {
                duration::parse(&value).map_err(|why| malformed(&name, &value, &why))
            }
            (None, None) => Ok(default),
        };
        let command_timeout = time(self.command_timeout, "COMMAND_TIMEOUT", defaults.request_timeout)?;
        let dial_timeout = time(self.dial_timeout, "DIAL_TIMEOUT", defaults.dial_timeout)?;
        let format = match (self.write_out, find("WRITE_OUT")) {
            (Some(format), _) => format,
            (None, Some((name, value))) => {
                Format::from_str(&value, false).map_err(|why| malformed(&name, &value, &why))?
            }
            (None, None) => Format::default(),
        };
        let hex = self.hex || find("HEX").is_some_and(|(_, value)| value == "true" || value == "1");
        let plain = variable("NO_COLOR").is_some_and(|value| !value.is_empty())
            || variable("TERM").is_some_and(|value| value == "dumb");
        Ok(Context {
            personality,
            endpoints: endpoints.iter().map(|endpoint| endpoint.trim().to_owned()).collect(),
            endpoints_given,
            command_timeout,
            dial_timeout,
            format,
            hex,
            colour: !plain && std::io::stdout().is_terminal(),
        })
    }
}

fn malformed(name: &str, value: &str, why: &str) -> Failed {
    Failed::usage(Why::Unsupported, format!("the variable {name} is {value:?}: {why}"))
}

impl Context {
    /// A client for all endpoints. Nothing is connected yet.
    ///
    /// # Errors
    /// If an endpoint is malformed.
    pub(crate) fn client(&self) -> Result<Client, Failed> {
        Client::connect(Config {
            endpoints: self.endpoints.clone(),
            dial_timeout: self.dial_timeout,
            request_timeout: self.command_timeout,
        })
        .map_err(|error| Failed::call(&error, Call::Read))
    }

    /// How answers with keys and values are to be written.
    ///
    /// # Errors
    /// If they cannot be written in the format that was asked for.
    pub(crate) fn style(&self) -> Result<Style, Failed> {
        Ok(Style { format: self.format.for_keys()?, hex: self.hex, value_only: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(options: Options, variables: &[(&str, &str)]) -> Result<Context, Failed> {
        options.resolve(Personality::Synod, |name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn defaults_are_etcdctls() {
        let context = resolve(Options::default(), &[]).unwrap();
        assert_eq!(context.endpoints, ["127.0.0.1:2379"]);
        assert!(!context.endpoints_given);
        assert_eq!(context.command_timeout, Duration::from_secs(5));
        assert_eq!(context.dial_timeout, Duration::from_secs(2));
        assert_eq!(context.format, Format::Simple);
    }

    #[test]
    fn a_flag_beats_ours_and_ours_beats_etcdctls() {
        let both = [("SYNOD_ENDPOINTS", "s:1, s:2"), ("ETCDCTL_ENDPOINTS", "e:1")];
        let flag = Options { endpoints: Some(vec!["f:1".to_owned()]), ..Options::default() };
        assert_eq!(resolve(flag, &both).unwrap().endpoints, ["f:1"]);
        assert_eq!(resolve(Options::default(), &both).unwrap().endpoints, ["s:1", "s:2"]);
        assert_eq!(resolve(Options::default(), &both[1..]).unwrap().endpoints, ["e:1"]);
        assert!(resolve(Options::default(), &both).unwrap().endpoints_given);
        let empty = [("SYNOD_ENDPOINTS", ""), ("ETCDCTL_ENDPOINTS", "e:1")];
        assert_eq!(resolve(Options::default(), &empty).unwrap().endpoints, ["e:1"]);
    }

    #[test]
    fn every_option_has_its_variable() {
        let variables = [
            ("ETCDCTL_COMMAND_TIMEOUT", "1s"),
            ("SYNOD_DIAL_TIMEOUT", "50ms"),
            ("ETCDCTL_WRITE_OUT", "json"),
            ("ETCDCTL_HEX", "true"),
        ];
        let context = resolve(Options::default(), &variables).unwrap();
        assert_eq!(context.command_timeout, Duration::from_secs(1));
        assert_eq!(context.dial_timeout, Duration::from_millis(50));
        assert_eq!((context.format, context.hex), (Format::Json, true));
    }

    #[test]
    fn a_malformed_variable_is_named_unless_a_flag_makes_it_moot() {
        let variables = [("SYNOD_COMMAND_TIMEOUT", "soon"), ("SYNOD_WRITE_OUT", "xml")];
        let failed = resolve(Options::default(), &variables).unwrap_err();
        assert!(failed.to_string().contains("SYNOD_COMMAND_TIMEOUT"), "{failed}");
        let flag = Options { command_timeout: Some(Duration::from_secs(1)), ..Options::default() };
        let failed = resolve(flag, &variables).unwrap_err();
        assert!(failed.to_string().contains("SYNOD_WRITE_OUT"), "{failed}");
    }
}

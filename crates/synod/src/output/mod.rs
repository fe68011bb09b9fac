//! What goes to standard output, in etcdctl's formats.
//!
//! Commands collect their whole output and hand it to [`emit`] once: nothing is
//! printed by a command that fails, and a reader that closes the pipe early,
//! such as `head`, is an ordinary end.

mod fields;
pub(crate) mod go;
pub(crate) mod json;
mod simple;
pub(crate) mod table;

use std::io::{self, ErrorKind, Write};
use std::time::Duration;

use clap::ValueEnum;

use crate::failed::{Failed, Why};
use synod_rpc::etcdserverpb::{
    DeleteRangeResponse, MemberListResponse, PutResponse, RangeResponse, StatusResponse, TxnResponse,
};

/// How answers are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Bare lines
    #[default]
    #[value(alias = "text")]
    Simple,
    /// One `"Name" : value` per line
    Fields,
    /// One line of JSON, keys and values in base64
    Json,
    /// A table, where the answer is one
    Table,
}

/// Format and details of the answers that hold keys and values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Style {
    pub(crate) format: Format,
    /// Keys and values as `\xNN`; `simple` only, as in etcdctl.
    pub(crate) hex: bool,
    /// Leave the keys out; `simple` only.
    pub(crate) value_only: bool,
}

/// An answer of the KV service.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer<'a> {
    Put(&'a PutResponse),
    Range(&'a RangeResponse),
    Delete(&'a DeleteRangeResponse),
    Txn(&'a TxnResponse),
}

/// The status of the server at an endpoint.
#[derive(Clone, Debug)]
pub(crate) struct EndpointStatus {
    pub(crate) endpoint: String,
    pub(crate) status: StatusResponse,
}

/// Whether the server at an endpoint answered a linearizable read.
#[derive(Clone, Debug)]
pub(crate) struct EndpointHealth {
    pub(crate) endpoint: String,
    pub(crate) took: Duration,
    /// Why it is unhealthy; none if it is well.
    pub(crate) error: Option<String>,
}

impl Format {
    /// Refuses the format that keys and values do not have. To be asked before
    /// anything is sent: etcdctl finds out after the write.
    pub(crate) fn for_keys(self) -> Result<Self, Failed> {
        match self {
            Self::Table => Err(Failed::usage(Why::Unsupported, "table not supported as output format")
                .hint("Keys and values come as simple, fields or json.")),
            format => Ok(format),
        }
    }
}

/// An answer of the KV service in the given style, which is not a table.
pub(crate) fn answer(answer: Answer<'_>, style: Style) -> Vec<u8> {
    match style.format {
        Format::Fields => {
            let mut out = String::new();
            fields::render(&mut out, answer);
            out.into_bytes()
        }
        Format::Json => json::answer(answer).into_bytes(),
        Format::Simple | Format::Table => {
            let mut out = Vec::new();
            simple::render(&mut out, answer, style);
            out
        }
    }
}

/// The members of a cluster.
pub(crate) fn members(list: &MemberListResponse, format: Format) -> String {
    let rows: Vec<Vec<String>> = list
        .members
        .iter()
        .map(|member| {
            let status = if member.name.is_empty() { "unstarted" } else { "started" };
            vec![
                format!("{:x}", member.id),
                status.to_owned(),
                member.name.clone(),
                member.peer_urls.join(","),
                member.client_urls.join(","),
                member.is_learner.to_string(),
            ]
        })
        .collect();
    match format {
        Format::Simple => lines(&rows),
        Format::Table => {
            table::grid(&["ID", "STATUS", "NAME", "PEER ADDRS", "CLIENT ADDRS", "IS LEARNER"], &rows)
        }
        Format::Fields => fields::members(list),
        Format::Json => json::members(list),
    }
}

/// The status of several endpoints.
pub(crate) fn statuses(statuses: &[EndpointStatus], format: Format) -> String {
    const TITLES: [&str; 10] = [
        "ENDPOINT",
        "ID",
        "VERSION",
        "DB SIZE",
        "IS LEADER",
        "IS LEARNER",
        "RAFT TERM",
        "RAFT INDEX",
        "RAFT APPLIED INDEX",
        "ERRORS",
    ];
    let row = |EndpointStatus { endpoint, status }: &EndpointStatus| {
        let member = status.header.as_ref().map_or(0, |header| header.member_id);
        vec![
            endpoint.clone(),
            format!("{member:x}"),
            status.version.clone(),
            go::bytes(status.db_size.unsigned_abs()),
            (status.leader == member).to_string(),
            status.is_learner.to_string(),
            status.raft_term.to_string(),
            status.raft_index.to_string(),
            status.raft_applied_index.to_string(),
            status.errors.join(", "),
        ]
    };
    let rows: Vec<Vec<String>> = statuses.iter().map(row).collect();
    match format {
        Format::Simple => lines(&rows),
        Format::Table => table::grid(&TITLES, &rows),
        Format::Fields => fields::statuses(statuses),
        Format::Json => json::statuses(statuses),
    }
}

/// The health of several endpoints. In the simple format the unhealthy ones are
/// missing: they go to standard error.
pub(crate) fn healths(healths: &[EndpointHealth], format: Format) -> String {
    match format {
        Format::Simple => healths
            .iter()
            .filter(|health| health.error.is_none())
            .map(|EndpointHealth { endpoint, took, .. }| {
                let took = go::duration(*took);
                format!("{endpoint} is healthy: successfully committed proposal: took = {took}\n")
            })
            .collect(),
        Format::Table => {
            let row = |health: &EndpointHealth| {
                vec![
                    health.endpoint.clone(),
                    health.error.is_none().to_string(),
                    go::duration(health.took),
                    health.error.clone().unwrap_or_default(),
                ]
            };
            let rows: Vec<Vec<String>> = healths.iter().map(row).collect();
            table::grid(&["ENDPOINT", "HEALTH", "TOOK", "ERROR"], &rows)
        }
        Format::Fields => fields::healths(healths),
        Format::Json => json::healths(healths),
    }
}

fn lines(rows: &[Vec<String>]) -> String {
    rows.iter().map(|row| format!("{}\n", row.join(", "))).collect()
}

/// Writes to standard output, to the end.
///
/// # Errors
/// If it cannot be written, unless only the reader went away.
pub(crate) fn emit(bytes: impl AsRef<[u8]>) -> Result<(), Failed> {
    emit_to(&mut io::stdout().lock(), bytes.as_ref()).map(|_| ())
}

/// Says something beside the answer, on standard error. If nobody listens there
/// either, that is no reason to stop.
pub(crate) fn tell(text: impl AsRef<str>) {
    let _ = io::stderr().lock().write_all(text.as_ref().as_bytes());
}

/// Whether anybody still reads what is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    Listening,
    /// It closed the pipe: it has seen enough.
    Gone,
}

/// Writes to `sink` and flushes it.
///
/// # Errors
/// If it cannot be written; a reader that went away is no error.
pub(crate) fn emit_to(sink: &mut impl Write, bytes: &[u8]) -> Result<Reader, Failed> {
    match sink.write_all(bytes).and_then(|()| sink.flush()) {
        Ok(()) => Ok(Reader::Listening),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(error) => Err(Failed::new(format!("cannot write to standard output: {error}"))
            .hint("The command itself was carried out.")),
    }
}

#[cfg(test)]
mod tests;

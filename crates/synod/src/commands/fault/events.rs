//! `fault events`: what befalls the replicas, as it happens.

use tokio::sync::mpsc;

use crate::failed::{Call, Failed};
use crate::options::Context;
use crate::output::{self, Format, Reader, json};
use synod_client::Replica;
use synod_rpc::synodpb::FaultEvent;
use synod_rpc::synodpb::fault_event::Kind;

/// Events that may wait for a slow terminal. The replicas say when they had to
/// leave some out.
const QUEUE: usize = 256;

/// Prints the events of all these replicas until they are all gone, or nobody
/// reads any more.
pub(super) async fn watch(replicas: Vec<Replica>, context: &Context) -> Result<(), Failed> {
    let (sender, mut events) = mpsc::channel(QUEUE);
    let mut listening = 0_usize;
    let mut last_failure = None;
    for replica in replicas {
        match replica.fault_events().await {
            Ok(mut stream) => {
                listening += 1;
                let sender = sender.clone();
                tokio::spawn(async move {
                    let end = loop {
                        match stream.message().await {
                            Ok(Some(event)) => {
                                if sender.send(Ok(event)).await.is_err() {
                                    return;
                                }
                            }
                            Ok(None) => break format!("{} ended its events", replica.endpoint()),
                            Err(status) => {
                                break format!("{} is gone: {}", replica.endpoint(), status.message());
                            }
                        }
                    };
                    // The printer is gone when the program ends; then nobody needs to know.
                    let _ = sender.send(Err(end)).await;
                });
            }
            Err(error) => {
                let failed = Failed::call(&error, Call::Read);
                output::tell(failed.message(context.personality));
                last_failure = Some(failed);
            }
        }
    }
    drop(sender);
    if listening == 0 {
        return last_failure.map_or(Ok(()), |_| Err(Failed::silently()));
    }
    while let Some(event) = events.recv().await {
        match event {
            Ok(event) => {
                let text = if context.format == Format::Json { as_json(&event) } else { as_text(&event) };
                if output::emit_to(&mut std::io::stdout().lock(), text.as_bytes())? == Reader::Gone {
                    return Ok(());
                }
            }
            Err(end) => output::tell(format!("{end}\n")),
        }
    }
    Err(Failed::new("no replica is left to listen to"))
}

fn as_text(event: &FaultEvent) -> String {
    let seconds = event.unix_micros / 1_000_000;
    let (hours, minutes) = (seconds / 3600 % 24, seconds / 60 % 60);
    let millis = event.unix_micros / 1_000 % 1_000;
    format!(
        "{hours:02}:{minutes:02}:{:02}.{millis:03}  {:<6} {:<8} {}\n",
        seconds % 60,
        event.node,
        word(event.kind()),
        event.text
    )
}

fn as_json(event: &FaultEvent) -> String {
    json::line(&serde_json::json!({
        "unix_micros": event.unix_micros,
        "node": event.node,
        "kind": event.kind().as_str_name(),
        "text": event.text,
        "role": event.role.map(|_| event.role().as_str_name()),
        "incarnation": event.incarnation,
        "leader": event.leader,
    }))
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Unspecified => "?",
        Kind::RoleStopped => "STOPPED",
        Kind::RoleStarted => "STARTED",
        Kind::NewIncarnation => "FORGOT",
        Kind::LeaderChanged => "LEADER",
        Kind::LinkChanged => "LINK",
        Kind::EventsMissed => "MISSED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use synod_rpc::synodpb::Role;

    fn event() -> FaultEvent {
        FaultEvent {
            // 1970-01-02 03:04:05.678901 UTC
            unix_micros: 97_445_678_901,
            node: "n4".to_owned(),
            kind: Kind::RoleStopped.into(),
            text: "acceptor stopped, memory lost".to_owned(),
            role: Some(Role::Acceptor.into()),
            ..FaultEvent::default()
        }
    }

    #[test]
    fn an_event_is_a_line() {
        assert_eq!(as_text(&event()), "03:04:05.678  n4     STOPPED  acceptor stopped, memory lost\n");
    }

    #[test]
    fn an_event_is_a_line_of_json() {
        let event: serde_json::Value = serde_json::from_str(&as_json(&event())).unwrap();
        assert_eq!(event["kind"], "ROLE_STOPPED");
        assert_eq!(event["role"], "ROLE_ACCEPTOR");
        assert_eq!(event["leader"], serde_json::Value::Null);
    }
}

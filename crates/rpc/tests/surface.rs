//! What every client finds: the services of etcd 3.6 by their names, and bytes on
//! the wire where etcd has them.

use bytes::Bytes;
use prost::Message;
use synod_rpc::etcdserverpb::{Compare, MemberListResponse, WatchResponse};
use synod_rpc::{FILE_DESCRIPTOR_SET, mvccpb};

/// As much of protobuf's own `descriptor.proto` as is needed to list methods.
#[derive(Clone, PartialEq, Message)]
struct FileSet {
    #[prost(message, repeated, tag = "1")]
    files: Vec<File>,
}

#[derive(Clone, PartialEq, Message)]
struct File {
    #[prost(string, tag = "2")]
    package: String,
    #[prost(message, repeated, tag = "6")]
    services: Vec<Service>,
}

#[derive(Clone, PartialEq, Message)]
struct Service {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    methods: Vec<Method>,
}

#[derive(Clone, PartialEq, Message)]
struct Method {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bool, tag = "5")]
    client_streaming: bool,
    #[prost(bool, tag = "6")]
    server_streaming: bool,
}

/// Each service of a package with its methods; `<` and `>` mark streams from and
/// to the client.
fn services(package: &str) -> Vec<String> {
    let set = FileSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let files = set.files.iter().filter(|file| file.package == package);
    let mut services: Vec<String> = files
        .flat_map(|file| &file.services)
        .map(|service| {
            let methods = service.methods.iter().map(|method| {
                let from = if method.client_streaming { "<" } else { "" };
                let to = if method.server_streaming { ">" } else { "" };
                format!(" {}{from}{to}", method.name)
            });
            format!("{}:{}", service.name, methods.collect::<String>())
        })
        .collect();
    services.sort();
    services
}

#[test]
fn section_1_all_methods_of_etcd_3_6_are_declared() {
    assert_eq!(
        services("etcdserverpb"),
        [
            "Auth: AuthEnable AuthDisable AuthStatus Authenticate UserAdd UserGet UserList UserDelete \
             UserChangePassword UserGrantRole UserRevokeRole RoleAdd RoleGet RoleList RoleDelete \
             RoleGrantPermission RoleRevokePermission",
            "Cluster: MemberAdd MemberRemove MemberUpdate MemberList MemberPromote",
            "KV: Range Put DeleteRange Txn Compact",
            "Lease: LeaseGrant LeaseRevoke LeaseKeepAlive<> LeaseTimeToLive LeaseLeases",
            "Maintenance: Alarm Status Defragment Hash HashKV Snapshot> MoveLeader Downgrade",
            "Watch: Watch<>",
        ]
    );
}

#[test]
fn our_own_services_can_be_reflected_too() {
    let ours = services("synodpb");
    assert!(ours.contains(&"Admin: Inspect StateAt InjectFault FaultEvents>".to_owned()), "{ours:?}");
    assert!(ours.contains(&"Paxos: Deliver<> Checkpoint> Form".to_owned()), "{ours:?}");
}

/// The unusual field numbers, spelled out as bytes: tag, length, content.
#[test]
fn the_wire_is_etcds() {
    let compare = Compare { key: "k".into(), range_end: "l".into(), ..Default::default() };
    assert_eq!(compare.encode_to_vec(), b"\x1a\x01k\x82\x04\x01l", "range_end is field 64");

    let event = mvccpb::Event { kv: Some(mvccpb::KeyValue::default()), ..Default::default() };
    let watch = WatchResponse { events: vec![event], ..Default::default() };
    assert_eq!(watch.encode_to_vec(), b"\x5a\x02\x12\x00", "events is field 11");

    let members = Bytes::from_static(b"\x12\x0b\x08\x01\x1a\x03p:1\x22\x02c:");
    let members = MemberListResponse::decode(members).unwrap().members;
    assert_eq!((&*members[0].peer_urls[0], &*members[0].client_urls[0]), ("p:1", "c:"));
}

//! Goldens: what etcdctl 3.4.23 printed for the same answers.

use super::*;
use synod_rpc::etcdserverpb::response_op::Response;
use synod_rpc::etcdserverpb::{Member, ResponseHeader, ResponseOp};
use synod_rpc::mvccpb::KeyValue;

fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader {
        cluster_id: 6399690578106541790,
        member_id: 12293308077254937886,
        revision,
        raft_term: 2,
    })
}

/// As in the answers inside a transaction (H-3).
fn nested(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader { revision, ..ResponseHeader::default() })
}

fn pair(key: &'static [u8], value: &'static [u8], revisions: [i64; 3], lease: i64) -> KeyValue {
    let [create_revision, mod_revision, version] = revisions;
    KeyValue { key: key.into(), value: value.into(), create_revision, mod_revision, version, lease }
}

fn show(answer: Answer<'_>, format: Format) -> String {
    let style = Style { format, ..Style::default() };
    String::from_utf8(super::answer(answer, style)).unwrap()
}

fn range() -> RangeResponse {
    RangeResponse {
        header: header(34),
        kvs: vec![
            pair(b"a", b"b ", [2, 29, 11], 0),
            pair("k<&>é\t\"\\".as_bytes(), b"v\x01\x7f\xff", [33, 33, 1], 945371103963045712),
        ],
        more: true,
        count: 8,
    }
}

#[test]
fn a_range_in_fields() {
    assert_eq!(
        show(Answer::Range(&range()), Format::Fields),
        r#""ClusterID" : 6399690578106541790
"MemberID" : 12293308077254937886
"Revision" : 34
"RaftTerm" : 2
"Key" : "a"
"CreateRevision" : 2
"ModRevision" : 29
"Version" : 11
"Value" : "b "
"Lease" : 0
"Key" : "k<&>é\t\"\\"
"CreateRevision" : 33
"ModRevision" : 33
"Version" : 1
"Value" : "v\x01\x7f\xff"
"Lease" : 945371103963045712
"More" : true
"Count" : 8
"#
    );
}

#[test]
fn a_range_in_json() {
    assert_eq!(
        show(Answer::Range(&range()), Format::Json),
        r#"{"header":{"cluster_id":6399690578106541790,"member_id":12293308077254937886,"revision":34,"raft_term":2},"kvs":[{"key":"YQ==","create_revision":2,"mod_revision":29,"version":11,"value":"YiA="},{"key":"azwmPsOpCSJc","create_revision":33,"mod_revision":33,"version":1,"value":"dgF//w==","lease":945371103963045712}],"more":true,"count":8}
"#
    );
    let nothing = RangeResponse { header: header(10), ..RangeResponse::default() };
    assert_eq!(
        show(Answer::Range(&nothing), Format::Json),
        r#"{"header":{"cluster_id":6399690578106541790,"member_id":12293308077254937886,"revision":10,"raft_term":2}}
"#
    );
}

#[test]
fn a_range_in_lines() {
    let style = |hex, value_only| Style { format: Format::Simple, hex, value_only };
    let range =
        RangeResponse { kvs: vec![pair(b"b", b"x\ny\xff", [4, 4, 1], 0)], ..RangeResponse::default() };
    let show = |style| answer(Answer::Range(&range), style);
    assert_eq!(show(style(false, false)), b"b\nx\ny\xff\n");
    assert_eq!(show(style(false, true)), b"x\ny\xff\n");
    assert_eq!(show(style(true, false)), b"\\x62\n\\x78\\x0a\\x79\\xff\n");
}

#[test]
fn a_put_in_every_format() {
    let put = PutResponse { header: header(7), prev_kv: Some(pair(b"b", b"q", [4, 6, 3], 0)) };
    assert_eq!(show(Answer::Put(&put), Format::Simple), "OK\nb\nq\n");
    assert_eq!(
        show(Answer::Put(&put), Format::Json),
        r#"{"header":{"cluster_id":6399690578106541790,"member_id":12293308077254937886,"revision":7,"raft_term":2},"prev_kv":{"key":"Yg==","create_revision":4,"mod_revision":6,"version":3,"value":"cQ=="}}
"#
    );
    assert_eq!(
        show(Answer::Put(&put), Format::Fields),
        r#""ClusterID" : 6399690578106541790
"MemberID" : 12293308077254937886
"Revision" : 7
"RaftTerm" : 2
"PrevKey" : "b"
"PrevCreateRevision" : 4
"PrevModRevision" : 6
"PrevVersion" : 3
"PrevValue" : "q"
"PrevLease" : 0
"#
    );
}

#[test]
fn a_delete_in_every_format() {
    let delete = DeleteRangeResponse {
        header: header(14),
        deleted: 1,
        prev_kvs: vec![pair(b"c", b"1", [13, 13, 1], 0)],
    };
    assert_eq!(show(Answer::Delete(&delete), Format::Simple), "1\nc\n1\n");
    assert_eq!(
        show(Answer::Delete(&delete), Format::Json),
        r#"{"header":{"cluster_id":6399690578106541790,"member_id":12293308077254937886,"revision":14,"raft_term":2},"deleted":1,"prev_kvs":[{"key":"Yw==","create_revision":13,"mod_revision":13,"version":1,"value":"MQ=="}]}
"#
    );
    let nothing = DeleteRangeResponse { header: header(16), ..DeleteRangeResponse::default() };
    assert_eq!(show(Answer::Delete(&nothing), Format::Simple), "0\n");
}

fn txn() -> TxnResponse {
    let op = |response| ResponseOp { response: Some(response) };
    TxnResponse {
        header: header(18),
        succeeded: true,
        responses: vec![
            op(Response::ResponsePut(PutResponse { header: nested(18), prev_kv: None })),
            op(Response::ResponseRange(RangeResponse {
                header: nested(18),
                kvs: vec![pair(b"a", b"2", [2, 3, 2], 0)],
                more: false,
                count: 1,
            })),
            op(Response::ResponseDeleteRange(DeleteRangeResponse {
                header: nested(18),
                ..DeleteRangeResponse::default()
            })),
        ],
    }
}

#[test]
fn a_transaction_in_lines_and_json() {
    assert_eq!(show(Answer::Txn(&txn()), Format::Simple), "SUCCESS\n\nOK\n\na\n2\n\n0\n");
    assert_eq!(
        show(Answer::Txn(&txn()), Format::Json),
        r#"{"header":{"cluster_id":6399690578106541790,"member_id":12293308077254937886,"revision":18,"raft_term":2},"succeeded":true,"responses":[{"Response":{"ResponsePut":{"header":{"revision":18}}}},{"Response":{"ResponseRange":{"header":{"revision":18},"kvs":[{"key":"YQ==","create_revision":2,"mod_revision":3,"version":2,"value":"Mg=="}],"count":1}}},{"Response":{"ResponseDeleteRange":{"header":{"revision":18}}}}]}
"#
    );
}

#[test]
fn h_3_a_transaction_in_fields_repeats_the_headers() {
    let shown = show(Answer::Txn(&txn()), Format::Fields);
    assert!(shown.starts_with("\"ClusterID\" : 6399690578106541790\n"), "{shown}");
    let put =
        "\"Succeeded\" : true\n\"ClusterID\" : 0\n\"MemberID\" : 0\n\"Revision\" : 18\n\"RaftTerm\" : 0\n";
    assert!(shown.contains(put), "{shown}");
    assert!(shown.ends_with("\"RaftTerm\" : 0\n\"Deleted\" : 0\n"), "{shown}");
}

fn member_list() -> MemberListResponse {
    let member = Member {
        id: 12293308077254937886,
        name: "e1".to_owned(),
        peer_urls: vec!["http://127.0.0.1:2380".to_owned()],
        client_urls: vec!["http://127.0.0.1:2379".to_owned()],
        is_learner: false,
    };
    MemberListResponse { header: header(0), members: vec![member] }
}

#[test]
fn members_in_every_format() {
    assert_eq!(
        members(&member_list(), Format::Simple),
        "aa9a9a9043388d1e, started, e1, http://127.0.0.1:2380, http://127.0.0.1:2379, false\n"
    );
    assert_eq!(
        members(&member_list(), Format::Json),
        r#"{"header":{"cluster_id":6399690578106541790,"member_id":12293308077254937886,"raft_term":2},"members":[{"ID":12293308077254937886,"name":"e1","peerURLs":["http://127.0.0.1:2380"],"clientURLs":["http://127.0.0.1:2379"]}]}
"#
    );
    assert_eq!(
        members(&member_list(), Format::Table),
        "\
+------------------+---------+------+-----------------------+-----------------------+------------+
|        ID        | STATUS  | NAME |      PEER ADDRS       |     CLIENT ADDRS      | IS LEARNER |
+------------------+---------+------+-----------------------+-----------------------+------------+
| aa9a9a9043388d1e | started |   e1 | http://127.0.0.1:2380 | http://127.0.0.1:2379 |      false |
+------------------+---------+------+-----------------------+-----------------------+------------+
"
    );
    assert_eq!(
        members(&member_list(), Format::Fields),
        r#""ClusterID" : 6399690578106541790
"MemberID" : 12293308077254937886
"Revision" : 0
"RaftTerm" : 2
"ID" : 12293308077254937886
"Name" : "e1"
"PeerURL" : "http://127.0.0.1:2380"
"ClientURL" : "http://127.0.0.1:2379"
"IsLearner" : false

"#
    );
}

fn status() -> EndpointStatus {
    let status = StatusResponse {
        header: header(19),
        version: "3.4.23".to_owned(),
        db_size: 20480,
        leader: 12293308077254937886,
        raft_index: 30,
        raft_term: 2,
        raft_applied_index: 30,
        db_size_in_use: 16384,
        ..StatusResponse::default()
    };
    EndpointStatus { endpoint: "127.0.0.1:55573".to_owned(), status }
}

#[test]
fn statuses_in_every_format() {
    let show = |format| statuses(&[status()], format);
    assert_eq!(
        show(Format::Simple),
        "127.0.0.1:55573, aa9a9a9043388d1e, 3.4.23, 20 kB, true, false, 2, 30, 30, \n"
    );
    assert_eq!(
        show(Format::Json),
        r#"[{"Endpoint":"127.0.0.1:55573","Status":{"header":{"cluster_id":6399690578106541790,"member_id":12293308077254937886,"revision":19,"raft_term":2},"version":"3.4.23","dbSize":20480,"leader":12293308077254937886,"raftIndex":30,"raftTerm":2,"raftAppliedIndex":30,"dbSizeInUse":16384}}]
"#
    );
    assert_eq!(
        show(Format::Fields),
        r#""ClusterID" : 6399690578106541790
"MemberID" : 12293308077254937886
"Revision" : 19
"RaftTerm" : 2
"Version" : "3.4.23"
"DBSize" : 20480
"Leader" : 12293308077254937886
"IsLearner" : false
"RaftIndex" : 30
"RaftTerm" : 2
"RaftAppliedIndex" : 30
"Errors" : []
"Endpoint" : "127.0.0.1:55573"

"#
    );
    assert_eq!(statuses(&[], Format::Json), "[]\n");
}

#[test]
fn healths_in_every_format() {
    let healths = [
        EndpointHealth { endpoint: "n1:1".to_owned(), took: Duration::from_nanos(1_717_744), error: None },
        EndpointHealth {
            endpoint: "n2:1".to_owned(),
            took: Duration::from_millis(5_000),
            error: Some("context deadline exceeded".to_owned()),
        },
    ];
    let show = |format| super::healths(&healths, format);
    assert_eq!(show(Format::Simple), "n1:1 is healthy: successfully committed proposal: took = 1.717744ms\n");
    assert_eq!(
        show(Format::Json),
        r#"[{"endpoint":"n1:1","health":true,"took":"1.717744ms"},{"endpoint":"n2:1","health":false,"took":"5s","error":"context deadline exceeded"}]
"#
    );
    assert_eq!(
        show(Format::Fields),
        "\"Endpoint\" : \"n1:1\"\n\"Health\" : true\n\"Took\" : 1.717744ms\n\"Error\" : \n\n\
         \"Endpoint\" : \"n2:1\"\n\"Health\" : false\n\"Took\" : 5s\n\"Error\" : context deadline exceeded\n\n"
    );
}

#[test]
fn text_inside_json_is_escaped_as_go_does() {
    let mut list = member_list();
    list.members[0].name = "<&>\u{2028}é".to_owned();
    assert!(members(&list, Format::Json).contains(r#""name":"\u003c\u0026\u003e\u2028é""#));
}

#[test]
fn keys_and_values_do_not_come_as_a_table() {
    assert_eq!(Format::Table.for_keys().unwrap_err().code(crate::failed::Personality::Etcdctl), 4);
    assert_eq!(Format::Json.for_keys(), Ok(Format::Json));
}

/// A pipe whose reader went away after some bytes.
struct Closing(usize);

impl Write for Closing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0 == 0 {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let written = bytes.len().min(self.0);
        self.0 -= written;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    assert_eq!(emit_to(&mut Closing(3), b"hello"), Ok(Reader::Gone));
    assert_eq!(emit_to(&mut Closing(9), b"hello"), Ok(Reader::Listening));
    let full = &mut [0u8; 2][..];
    assert!(emit_to(&mut { full }, b"hello").is_err());
}

//! A store as simple as can be: the list of everything that ever happened, and no
//! thought for time or memory. What it answers is right by inspection.

use std::collections::BTreeMap;

use bytes::Bytes;
use synod_kv::{
    Applied, Compare, DeleteRangeResponse, KeyRange, KeyValue, KvError, LeaseId, NestedResponse, Operand,
    PutRequest, PutResponse, RangeEnd, RangeRequest, RangeResponse, Relation, Request, Response, Revision,
    SortOrder, SortTarget, TxnRequest, TxnResponse,
};

type State = BTreeMap<Bytes, KeyValue>;

pub struct Model {
    /// What the store was after each revision; the index is the revision.
    states: Vec<State>,
    compacted: Option<Revision>,
}

impl Model {
    pub fn new() -> Model {
        Model { states: vec![State::new(); 2], compacted: None }
    }

    pub fn revision(&self) -> Revision {
        Revision(self.states.len() as u64 - 1)
    }

    pub fn compacted(&self) -> Option<Revision> {
        self.compacted
    }

    fn now(&self) -> &State {
        self.states.last().expect("there is always a newest")
    }

    pub fn apply(&mut self, request: &Request) -> Result<Applied, KvError> {
        static_check(request)?;
        let mut state = self.now().clone();
        let mut changed = false;
        let response = match request {
            Request::Compact(compact) => {
                self.check_compact(compact.revision)?;
                self.compacted = Some(compact.revision);
                Response::Compact
            }
            Request::Txn(_) => {
                self.check_puts(request)?;
                self.check_reads(request)?;
                self.run(request, &mut state, &mut changed)
            }
            Request::Put(put) => {
                self.check_lease(put)?;
                self.check_kept(put)?;
                self.run(request, &mut state, &mut changed)
            }
            Request::Range(range) => {
                self.check_revision(range)?;
                self.run(request, &mut state, &mut changed)
            }
            Request::DeleteRange(_) => self.run(request, &mut state, &mut changed),
        };
        if changed {
            self.states.push(state);
        }
        Ok(Applied { response, revision: self.revision() })
    }

    pub fn range(&self, request: &RangeRequest) -> Result<RangeResponse, KvError> {
        check_key(&request.range)?;
        self.check_revision(request)?;
        Ok(self.select(request, self.now()))
    }

    fn select(&self, request: &RangeRequest, now: &State) -> RangeResponse {
        let state = request.revision.map_or(now, |revision| &self.states[revision.0 as usize]);
        let mut kvs = within(state, &request.range);
        let count = kvs.len() as u64;
        if request.count_only {
            return RangeResponse { count, ..RangeResponse::default() };
        }
        kvs.retain(|kv| request.modified.at_most.is_none_or(|max| kv.mod_revision <= max));
        kvs.retain(|kv| request.modified.at_least.is_none_or(|min| kv.mod_revision >= min));
        kvs.retain(|kv| request.created.at_most.is_none_or(|max| kv.create_revision <= max));
        kvs.retain(|kv| request.created.at_least.is_none_or(|min| kv.create_revision >= min));
        kvs.sort_by(|a, b| {
            let ordering = match request.target {
                SortTarget::Key => a.key.cmp(&b.key),
                SortTarget::Version => a.version.cmp(&b.version),
                SortTarget::Create => a.create_revision.cmp(&b.create_revision),
                SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
                SortTarget::Value => a.value.cmp(&b.value),
            };
            if request.order == SortOrder::Descend { ordering.reverse() } else { ordering }
        });
        let limit = request.limit.map_or(usize::MAX, |limit| limit.get() as usize);
        let more = kvs.len() > limit;
        kvs.truncate(limit);
        if request.keys_only {
            kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
        }
        RangeResponse { kvs, more, count }
    }

    fn run(&self, request: &Request, state: &mut State, changed: &mut bool) -> Response {
        let next = self.revision().0 + 1;
        match request {
            Request::Range(range) => Response::Range(self.select(range, state)),
            Request::Put(put) => {
                *changed = true;
                let prev = state.get(&put.key).cloned();
                let old = prev.as_ref();
                let kv = KeyValue {
                    key: put.key.clone(),
                    value: if put.ignore_value { old.unwrap().value.clone() } else { put.value.clone() },
                    create_revision: old.map_or(Revision(next), |old| old.create_revision),
                    mod_revision: Revision(next),
                    version: old.map_or(1, |old| old.version + 1),
                    lease: if put.ignore_lease { old.unwrap().lease } else { put.lease },
                };
                state.insert(put.key.clone(), kv);
                Response::Put(PutResponse { prev: prev.filter(|_| put.prev_kv) })
            }
            Request::DeleteRange(delete) => {
                let doomed = within(state, &delete.range);
                doomed.iter().for_each(|kv| drop(state.remove(&kv.key)));
                *changed |= !doomed.is_empty();
                Response::DeleteRange(DeleteRangeResponse {
                    deleted: doomed.len() as u64,
                    prev_kvs: if delete.prev_kv { doomed } else { vec![] },
                })
            }
            Request::Txn(txn) => {
                let (succeeded, ops) = self.branch(txn);
                let mut responses = vec![];
                for op in ops {
                    let response = self.run(op, state, changed);
                    let revision = Revision(if *changed { next } else { next - 1 });
                    responses.push(NestedResponse { revision, response });
                }
                Response::Txn(TxnResponse { succeeded, responses })
            }
            Request::Compact(_) => panic!("not inside anything"),
        }
    }

    fn branch<'t>(&self, txn: &'t TxnRequest) -> (bool, &'t [Request]) {
        let succeeded = txn.compares.iter().all(|compare| self.holds(compare));
        (succeeded, if succeeded { &txn.success } else { &txn.failure })
    }

    fn holds(&self, compare: &Compare) -> bool {
        let found = within(self.now(), &compare.range);
        if found.is_empty() {
            return !matches!(compare.operand, Operand::Value(_)) && relate(compare, [0; 4], &Bytes::new());
        }
        found.iter().all(|kv| {
            let numbers = [
                kv.version as i64,
                kv.create_revision.0 as i64,
                kv.mod_revision.0 as i64,
                LeaseId::to_wire(kv.lease),
            ];
            relate(compare, numbers, &kv.value)
        })
    }

    fn check_compact(&self, requested: Revision) -> Result<(), KvError> {
        match self.compacted {
            Some(oldest) if requested <= oldest => Err(KvError::Compacted { requested, oldest }),
            _ => self.check_future(requested),
        }
    }

    fn check_future(&self, requested: Revision) -> Result<(), KvError> {
        let current = self.revision();
        if requested > current { Err(KvError::FutureRevision { requested, current }) } else { Ok(()) }
    }

    fn check_revision(&self, range: &RangeRequest) -> Result<(), KvError> {
        let Some(requested) = range.revision else { return Ok(()) };
        self.check_future(requested)?;
        match self.compacted {
            Some(oldest) if requested < oldest => Err(KvError::Compacted { requested, oldest }),
            _ => Ok(()),
        }
    }

    fn check_lease(&self, put: &PutRequest) -> Result<(), KvError> {
        put.lease.map_or(Ok(()), |lease| Err(KvError::LeaseNotFound(lease)))
    }

    fn check_kept(&self, put: &PutRequest) -> Result<(), KvError> {
        let keeps = put.ignore_value || put.ignore_lease;
        if keeps && !self.now().contains_key(&put.key) { Err(KvError::KeyNotFound) } else { Ok(()) }
    }

    fn check_puts(&self, request: &Request) -> Result<(), KvError> {
        match request {
            Request::Put(put) => self.check_kept(put).and_then(|()| self.check_lease(put)),
            Request::Txn(txn) => self.branch(txn).1.iter().try_for_each(|op| self.check_puts(op)),
            _ => Ok(()),
        }
    }

    fn check_reads(&self, request: &Request) -> Result<(), KvError> {
        match request {
            Request::Range(range) => self.check_revision(range),
            Request::Txn(txn) => self.branch(txn).1.iter().try_for_each(|op| self.check_reads(op)),
            _ => Ok(()),
        }
    }
}

fn within(state: &State, range: &KeyRange) -> Vec<KeyValue> {
    let inside = |key: &Bytes| match &range.end {
        RangeEnd::Single => *key == range.key,
        RangeEnd::FromKey => *key >= range.key,
        RangeEnd::Before(end) => *key >= range.key && key < end,
    };
    state.values().filter(|kv| inside(&kv.key)).cloned().collect()
}

fn relate(compare: &Compare, [version, create, modified, lease]: [i64; 4], value: &Bytes) -> bool {
    let ordering = match &compare.operand {
        Operand::Version(operand) => version.cmp(operand),
        Operand::Create(operand) => create.cmp(operand),
        Operand::Mod(operand) => modified.cmp(operand),
        Operand::Lease(operand) => lease.cmp(operand),
        Operand::Value(operand) => value.cmp(operand),
    };
    match compare.relation {
        Relation::Equal => ordering.is_eq(),
        Relation::NotEqual => ordering.is_ne(),
        Relation::Greater => ordering.is_gt(),
        Relation::Less => ordering.is_lt(),
    }
}

fn check_key(range: &KeyRange) -> Result<(), KvError> {
    if range.key.is_empty() { Err(KvError::EmptyKey) } else { Ok(()) }
}

fn static_check(request: &Request) -> Result<(), KvError> {
    check_fields(request)?;
    // Every path that could be taken, one by one. Which of the outermost branches
    // comes first makes no difference: there is one error to be had.
    for path in paths(request) {
        for (index, one) in path.iter().enumerate() {
            for other in &path[index + 1..] {
                let clash = match (one, other) {
                    (Request::Put(a), Request::Put(b)) => a.key == b.key,
                    (Request::Put(put), Request::DeleteRange(delete))
                    | (Request::DeleteRange(delete), Request::Put(put)) => delete.range.contains(&put.key),
                    _ => false,
                };
                if clash {
                    return Err(KvError::DuplicateKey);
                }
            }
        }
    }
    Ok(())
}

fn check_fields(request: &Request) -> Result<(), KvError> {
    match request {
        Request::Put(put) if put.key.is_empty() => Err(KvError::EmptyKey),
        Request::Put(put) if put.ignore_value && !put.value.is_empty() => Err(KvError::ValueProvided),
        Request::Put(put) if put.ignore_lease && put.lease.is_some() => Err(KvError::LeaseProvided),
        Request::DeleteRange(delete) => check_key(&delete.range),
        Request::Range(range) => check_key(&range.range),
        Request::Txn(txn) => {
            txn.compares.iter().try_for_each(|compare| check_key(&compare.range))?;
            txn.success.iter().chain(&txn.failure).try_for_each(check_fields)
        }
        Request::Put(_) | Request::Compact(_) => Ok(()),
    }
}

/// All lists of plain operations that a request could come down to.
fn paths(request: &Request) -> Vec<Vec<&Request>> {
    let Request::Txn(txn) = request else { return vec![vec![request]] };
    [&txn.success, &txn.failure]
        .into_iter()
        .flat_map(|branch| {
            branch.iter().fold(vec![vec![]], |so_far, op| {
                let continuations = paths(op);
                let extend = |path: &Vec<_>| {
                    let path = path.clone();
                    continuations.iter().map(move |more| [&path[..], &more[..]].concat()).collect::<Vec<_>>()
                };
                so_far.iter().flat_map(extend).collect()
            })
        })
        .collect()
}

//! The smallest store that can be wrong: it counts what it applied, and mixes it into a rolling hash. Two
//! replicas that ever applied different things, or the same things in another order, never look alike again.

use bytes::Bytes;
use synod_paxos::wire::{DecodeError, Reader, Writer};

/// One request of one client. Unlike a command's name it never changes, so whoever applies it twice is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Request(pub u64);

impl Request {
    /// What a command carries: the number, and `filler` bytes to make sizes differ.
    pub fn payload(self, filler: usize) -> Bytes {
        let mut out = Writer::default();
        out.u64(self.0);
        out.bytes(&vec![0; filler]);
        out.finish()
    }

    /// The request inside a payload.
    pub fn of(payload: &Bytes) -> Request {
        Request(Reader::new(payload.clone()).u64().expect("payloads are made above"))
    }
}

/// What a client is told: the state right behind its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    pub count: u64,
    pub hash: u64,
}

impl Answer {
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::default();
        out.u64(self.count);
        out.u64(self.hash);
        out.finish()
    }

    pub fn decode(bytes: Bytes) -> Result<Answer, DecodeError> {
        let mut input = Reader::new(bytes);
        Ok(Answer { count: input.u64()?, hash: input.u64()? })
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Store {
    count: u64,
    hash: u64,
}

impl Store {
    /// Changes the state as `request` asks.
    pub fn apply(&mut self, request: Request) -> Answer {
        self.count += 1;
        let mixed = self.hash.rotate_left(5) ^ request.0;
        self.hash = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(self.count);
        self.now()
    }

    /// The state as it stands: what a read sees.
    pub fn now(&self) -> Answer {
        Answer { count: self.count, hash: self.hash }
    }
}

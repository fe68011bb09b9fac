//! How the nouns of the protocol stand in JSON.
//!
//! Identities are 64 or 128 random bits, which a reader that keeps numbers as floating point would round: they
//! are written as hexadecimal text. Slots and rounds count from one and are written as numbers.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use synod_kv::StateHash;
use synod_paxos::types::{ClusterId, Generation, Incarnation, NodeId, Prefix, Sequence, Slot, Window};

/// A noun with one form in JSON.
pub(super) trait Coded: Sized {
    fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error>;
    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error>;
}

/// For `#[serde(with = "coded")]`.
pub(super) fn serialize<T: Coded, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
    value.write(to)
}

/// For `#[serde(with = "coded")]`.
pub(super) fn deserialize<'de, T: Coded, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    T::read(from)
}

macro_rules! hexadecimal {
    ($($name:ident: $bits:ty),*) => {$(
        impl Coded for $name {
            fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(&format_args!("{:x}", self.0))
            }

            fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = String::deserialize(from)?;
                let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
                let bits = digits.then(|| <$bits>::from_str_radix(&text, 16).ok()).flatten();
                bits.map($name).ok_or_else(|| {
                    D::Error::custom(format_args!("{text:?} is no {} in hexadecimal", stringify!($name)))
                })
            }
        }
    )*};
}
hexadecimal!(NodeId: u64, Generation: u64, Incarnation: u128, ClusterId: u128, StateHash: u128);

macro_rules! number {
    ($($name:ident),*) => {$(
        impl Coded for $name {
            fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_u64(self.0)
            }

            fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                u64::deserialize(from).map($name)
            }
        }
    )*};
}
number!(Slot, Prefix, Sequence);

impl Coded for Window {
    fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(self.slots())
    }

    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        u64::deserialize(from).map(Window::new)
    }
}

/// A noun where serde expects a type that knows its own form.
struct One<T>(T);

impl<T: Coded> Serialize for One<&T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.0.write(to)
    }
}

impl<'de, T: Coded> Deserialize<'de> for One<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        T::read(from).map(One)
    }
}

impl<T: Coded> Coded for Option<T> {
    fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.as_ref().map(One).serialize(to)
    }

    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(Option::<One<T>>::deserialize(from)?.map(|one| one.0))
    }
}

impl<T: Coded> Coded for Vec<T> {
    fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.iter().map(One))
    }

    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(Vec::<One<T>>::deserialize(from)?.into_iter().map(|one| one.0).collect())
    }
}

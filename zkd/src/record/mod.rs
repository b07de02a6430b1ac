//! The records of `zookeeper.jute`, one file for each of its five modules, and the opcodes.
//!
//! Law kept here: wire and disk records never derive serde, and their fields stand in wire order.

pub mod data;
pub mod opcode;
pub mod persistence;
pub mod proto;
pub mod quorum;
pub mod txn;

/// Declares a record: a struct whose jute form is its fields in order.
macro_rules! record {
    ($($(#[$meta:meta])* pub struct $name:ident { $($(#[$fmeta:meta])* pub $field:ident: $type:ty,)* })+) => {
        $(
            $(#[$meta])*
            #[derive(Clone, Debug, PartialEq, Eq)]
            pub struct $name {
                $($(#[$fmeta])* pub $field: $type,)*
            }

            impl $crate::jute::Record for $name {
                fn encode(&self, _out: &mut $crate::jute::Writer<'_>) {
                    $($crate::jute::Field::put(&self.$field, _out);)*
                }

                #[inline]
                fn decode(
                    _from: &mut $crate::jute::Reader<'_>,
                ) -> Result<Self, $crate::jute::DecodeError> {
                    Ok(Self { $($field: $crate::jute::Field::get(_from, stringify!($field))?,)* })
                }
            }
        )+
    };
}

/// Lets an id newtype stand in a record field as the integer it wraps.
macro_rules! id_field {
    ($($type:ty => $inner:ty,)+) => {
        $(impl $crate::jute::Field for $type {
            #[inline]
            fn put(&self, out: &mut $crate::jute::Writer<'_>) {
                $crate::jute::Field::put(&self.0, out);
            }

            #[inline]
            fn get(
                from: &mut $crate::jute::Reader<'_>,
                what: &'static str,
            ) -> Result<Self, $crate::jute::DecodeError> {
                <$inner as $crate::jute::Field>::get(from, what).map(Self)
            }
        })+
    };
}

pub(crate) use record;

use crate::ids::{SessionId, Xid, Zxid};

id_field! {
    Zxid => i64,
    SessionId => i64,
    Xid => i32,
}

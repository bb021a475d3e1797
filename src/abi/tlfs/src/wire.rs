//! Fields of fixed size, and blocks made of them: parameters, messages, state areas.

use addr::{ApicId, Gpa, Gpn, Gva, Gvn, LpIndex, PartitionId, VpIndex};
use x86::{Segment, TableRegister};

use crate::{HvError, Reader};

/// Puts fields in order into room of a known size.
#[derive(Debug)]
pub struct Writer<'a>(&'a mut [u8]);

impl<'a> Writer<'a> {
    /// Starts at the first byte of `room`.
    pub const fn new(room: &'a mut [u8]) -> Self {
        Self(room)
    }

    /// Writes `bytes`, or nothing when they do not fit.
    pub fn put(&mut self, bytes: &[u8]) {
        if bytes.len() <= self.0.len()
            && let Some((head, rest)) =
                core::mem::take(&mut self.0).split_at_mut_checked(bytes.len())
        {
            head.copy_from_slice(bytes);
            self.0 = rest;
        }
    }
}

/// A value that takes the same number of bytes wherever it stands.
pub trait Field: Copy {
    /// That number.
    const BYTES: usize;

    /// Takes the value from `r`.
    ///
    /// # Errors
    /// [`HvError::INVALID_PARAMETER`] when bytes are missing, a reserved bit is set, or the value is none of
    /// those that the field may have.
    fn read(r: &mut Reader<'_>) -> Result<Self, HvError>;

    /// Puts the value into `w`.
    fn write(self, w: &mut Writer<'_>);
}

macro_rules! integers {
    ($($type:ty)*) => {$(
        impl Field for $type {
            const BYTES: usize = size_of::<$type>();
            fn read(r: &mut Reader<'_>) -> Result<Self, HvError> {
                Ok(Self::from_le_bytes(r.array()?))
            }
            fn write(self, w: &mut Writer<'_>) {
                w.put(&self.to_le_bytes());
            }
        }
    )*};
}
integers!(u8 u16 u32 u64 u128);

macro_rules! numbers {
    ($($type:ty as $repr:ty;)*) => {$(
        impl Field for $type {
            const BYTES: usize = size_of::<$repr>();
            fn read(r: &mut Reader<'_>) -> Result<Self, HvError> {
                <$repr>::read(r).map(Self::new)
            }
            fn write(self, w: &mut Writer<'_>) {
                self.get().write(w);
            }
        }
    )*};
}
numbers! {
    PartitionId as u64; VpIndex as u32; LpIndex as u32; ApicId as u32;
    Gpa as u64; Gpn as u64; Gva as u64; Gvn as u64;
}

/// A byte that is 0 or 1.
impl Field for bool {
    const BYTES: usize = 1;
    fn read(r: &mut Reader<'_>) -> Result<Self, HvError> {
        match r.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(HvError::INVALID_PARAMETER),
        }
    }
    fn write(self, w: &mut Writer<'_>) {
        u8::from(self).write(w);
    }
}

impl<T: Field + Default, const N: usize> Field for [T; N] {
    const BYTES: usize = N * T::BYTES;
    fn read(r: &mut Reader<'_>) -> Result<Self, HvError> {
        let mut items = [T::default(); N];
        for item in &mut items {
            *item = T::read(r)?;
        }
        Ok(items)
    }
    fn write(self, w: &mut Writer<'_>) {
        for item in self {
            item.write(w);
        }
    }
}

/// Reserved: zero, or the call is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Zero<const N: usize>;

impl<const N: usize> Field for Zero<N> {
    const BYTES: usize = N;
    fn read(r: &mut Reader<'_>) -> Result<Self, HvError> {
        if r.take(N)?.iter().any(|byte| *byte != 0) {
            return Err(HvError::INVALID_PARAMETER);
        }
        Ok(Self)
    }
    fn write(self, w: &mut Writer<'_>) {
        w.put(&[0; N]);
    }
}

/// Bytes whose content does not count: padding that Linux leaves as an earlier call left it, and hints that we
/// have no use for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pad<const N: usize>;

impl<const N: usize> Field for Pad<N> {
    const BYTES: usize = N;
    fn read(r: &mut Reader<'_>) -> Result<Self, HvError> {
        r.skip(N).map(|()| Self)
    }
    fn write(self, w: &mut Writer<'_>) {
        w.put(&[0; N]);
    }
}

/// `HV_INPUT_VTL`: no partition of ours has other trust levels than 0, so the byte is 0 (the caller's) or 0x10
/// (level 0).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vtl;

impl Field for Vtl {
    const BYTES: usize = 1;
    fn read(r: &mut Reader<'_>) -> Result<Self, HvError> {
        match r.u8()? {
            0 | 0x10 => Ok(Self),
            _ => Err(HvError::INVALID_PARAMETER),
        }
    }
    fn write(self, w: &mut Writer<'_>) {
        w.put(&[0]);
    }
}

/// Number of a synthetic interrupt source, 0 to 15, in a field of `N` bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SintIndex<const N: usize>(u8);

impl<const N: usize> SintIndex<N> {
    /// Source `number`, of which the low 4 bits count.
    pub const fn new(number: u8) -> Self {
        Self(number & 0xF)
    }

    /// The number.
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl<const N: usize> Field for SintIndex<N> {
    const BYTES: usize = N;
    fn read(r: &mut Reader<'_>) -> Result<Self, HvError> {
        match r.take(N)? {
            [number @ 0..=15, rest @ ..] if rest.iter().all(|byte| *byte == 0) => Ok(Self(*number)),
            _ => Err(HvError::INVALID_PARAMETER),
        }
    }
    fn write(self, w: &mut Writer<'_>) {
        let mut bytes = [0; N];
        if let [first, ..] = &mut bytes[..] {
            *first = self.0;
        }
        w.put(&bytes);
    }
}

/// `HV_X64_SEGMENT_REGISTER`.
impl Field for Segment {
    const BYTES: usize = 16;
    fn read(r: &mut Reader<'_>) -> Result<Self, HvError> {
        Ok(Self {
            base: r.u64()?,
            limit: r.u32()?,
            selector: r.u16()?,
            attributes: r.u16()?,
        })
    }
    fn write(self, w: &mut Writer<'_>) {
        self.base.write(w);
        self.limit.write(w);
        self.selector.write(w);
        self.attributes.write(w);
    }
}

/// `HV_X64_TABLE_REGISTER`, whose first six bytes do not count.
impl Field for TableRegister {
    const BYTES: usize = 16;
    fn read(r: &mut Reader<'_>) -> Result<Self, HvError> {
        r.skip(6)?;
        let limit = r.u16()?;
        Ok(Self {
            base: r.u64()?,
            limit,
        })
    }
    fn write(self, w: &mut Writer<'_>) {
        w.put(&[0; 6]);
        self.limit.write(w);
        self.base.write(w);
    }
}

/// Declares blocks of fields without gaps: `name[bytes] { field: type, ... }`. A wrong sum does not compile.
#[macro_export]
macro_rules! blocks {
    ($($(#[$doc:meta])* $name:ident[$bytes:literal] {
        $($(#[$field_doc:meta])* $field:ident: $type:ty,)*
    })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[allow(missing_docs, reason = "named as in the TLFS; other fields say what they are")]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }

        impl $name {
            /// Size in bytes.
            pub const BYTES: usize = $bytes;

            /// Reads the block from the first bytes of `input`.
            ///
            /// # Errors
            /// `HvError::INVALID_PARAMETER` when `input` is too short, a
            /// reserved field is not zero, or a field has a value that it cannot have.
            pub fn decode(input: &[u8]) -> Result<Self, $crate::HvError> {
                <Self as $crate::wire::Field>::read(&mut $crate::Reader::new(input))
            }

            /// The bytes of the block.
            pub fn encode(&self) -> [u8; $bytes] {
                let mut bytes = [0; $bytes];
                $crate::wire::Field::write(*self, &mut $crate::wire::Writer::new(&mut bytes));
                bytes
            }
        }

        impl $crate::wire::Field for $name {
            const BYTES: usize = $bytes;
            fn read(r: &mut $crate::Reader<'_>) -> Result<Self, $crate::HvError> {
                Ok(Self { $($field: $crate::wire::Field::read(r)?,)* })
            }
            fn write(self, w: &mut $crate::wire::Writer<'_>) {
                $($crate::wire::Field::write(self.$field, w);)*
            }
        }

        const _: () = assert!(0 $(+ <$type as $crate::wire::Field>::BYTES)* == $bytes);
    )*};
}

/// Declares a field that has one of a few values: `name: integer { variant = value, ... }`.
#[macro_export]
macro_rules! choices {
    ($($(#[$doc:meta])* $name:ident: $repr:ident {
        $(#[$first_doc:meta])* $first:ident = $first_value:literal,
        $($(#[$variant_doc:meta])* $variant:ident = $value:literal,)*
    })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[repr($repr)]
        pub enum $name {
            #[default] $(#[$first_doc])* $first = $first_value,
            $($(#[$variant_doc])* $variant = $value,)*
        }

        impl $crate::wire::Field for $name {
            const BYTES: usize = size_of::<$repr>();
            fn read(r: &mut $crate::Reader<'_>) -> Result<Self, $crate::HvError> {
                match <$repr as $crate::wire::Field>::read(r)? {
                    $first_value => Ok(Self::$first),
                    $($value => Ok(Self::$variant),)*
                    _ => Err($crate::HvError::INVALID_PARAMETER),
                }
            }
            fn write(self, w: &mut $crate::wire::Writer<'_>) {
                (self as $repr).write(w);
            }
        }
    )*};
}

/// Makes fields of flag types: bits without a name are refused.
macro_rules! flag_fields {
    ($($name:ident: $repr:ty;)*) => {$(
        impl $crate::wire::Field for $name {
            const BYTES: usize = size_of::<$repr>();
            fn read(r: &mut $crate::Reader<'_>) -> Result<Self, $crate::HvError> {
                Self::from_bits(<$repr as $crate::wire::Field>::read(r)?)
                    .ok_or($crate::HvError::INVALID_PARAMETER)
            }
            fn write(self, w: &mut $crate::wire::Writer<'_>) {
                self.bits().write(w);
            }
        }
    )*};
}

/// Makes fields of newtypes around an integer that may have any value.
#[macro_export]
macro_rules! open_fields {
    ($($name:ident: $repr:ty;)*) => {$(
        impl $crate::wire::Field for $name {
            const BYTES: usize = size_of::<$repr>();
            fn read(r: &mut $crate::Reader<'_>) -> Result<Self, $crate::HvError> {
                <$repr as $crate::wire::Field>::read(r).map(Self)
            }
            fn write(self, w: &mut $crate::wire::Writer<'_>) {
                self.0.write(w);
            }
        }
    )*};
}

pub(crate) use flag_fields;
pub use {blocks, choices, open_fields};

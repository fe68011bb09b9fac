//! The few primitives from which everything that this crate encodes is made: little-endian numbers of
//! fixed width, and byte strings behind their length. Reading never panics and never reserves more than
//! the input holds.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The largest value that is proposed, in bytes of its encoded form. A proposer closes a batch before it
/// gets there; a single command is bounded by the server's limit on requests, well below.
pub const MAX_VALUE_BYTES: usize = 8 << 20;

/// The highest slot, window or sequence that is read back. Nothing gets here, and whoever counts on from a
/// number below, or adds two of them, does not overflow.
pub const MAX_NUMBER: u64 = 1 << 62;

/// Why bytes could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The input ended inside something.
    #[error("the bytes end early")]
    Truncated,
    /// Something is left behind the end.
    #[error("{0} bytes follow the end")]
    Trailing(usize),
    /// A release that this one does not know wrote it, or it is damaged.
    #[error("format {found} is not known, this release reads format {known}")]
    Format {
        /// What the input says.
        found: u8,
        /// What this release reads.
        known: u8,
    },
    /// A tag without meaning.
    #[error("unknown {what}: {tag}")]
    Unknown {
        /// What was being read.
        what: &'static str,
        /// The tag found.
        tag: u8,
    },
    /// A text that is not UTF-8.
    #[error("a text is not UTF-8")]
    Text,
    /// A number that makes no sense.
    #[error("{value} is no {what}")]
    OutOfRange {
        /// What was being read.
        what: &'static str,
        /// The number found.
        value: u64,
    },
}

/// Appends primitives to a buffer.
#[derive(Debug, Default)]
pub struct Writer {
    out: BytesMut,
}

impl Writer {
    /// A writer that expects about `bytes` bytes.
    pub fn with_capacity(bytes: usize) -> Writer {
        Writer { out: BytesMut::with_capacity(bytes) }
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) {
        self.out.put_u8(value);
    }

    /// Four bytes, little-endian.
    pub fn u32(&mut self, value: u32) {
        self.out.put_u32_le(value);
    }

    /// Eight bytes, little-endian.
    pub fn u64(&mut self, value: u64) {
        self.out.put_u64_le(value);
    }

    /// Sixteen bytes, little-endian.
    pub fn u128(&mut self, value: u128) {
        self.out.put_u128_le(value);
    }

    /// A byte string behind its length.
    ///
    /// # Panics
    /// Above 4 GiB, which no limit of ours lets near.
    pub fn bytes(&mut self, value: &[u8]) {
        self.u32(u32::try_from(value.len()).expect("byte strings are bounded by the request limit"));
        self.out.put_slice(value);
    }

    /// A list of texts.
    pub fn texts(&mut self, values: &[String]) {
        self.u32(u32::try_from(values.len()).expect("lists are short"));
        for value in values {
            self.bytes(value.as_bytes());
        }
    }

    /// What was written.
    pub fn finish(self) -> Bytes {
        self.out.freeze()
    }
}

/// Takes primitives from a buffer.
#[derive(Debug)]
pub struct Reader {
    input: Bytes,
}

impl Reader {
    /// Reads `input` from its start.
    pub fn new(input: Bytes) -> Reader {
        Reader { input }
    }

    fn need(&self, bytes: usize) -> Result<(), DecodeError> {
        if self.input.remaining() < bytes { Err(DecodeError::Truncated) } else { Ok(()) }
    }

    /// One byte.
    ///
    /// # Errors
    /// At the end of the input, as for all that follow.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        self.need(1)?;
        Ok(self.input.get_u8())
    }

    /// Four bytes.
    ///
    /// # Errors
    /// At the end of the input.
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        self.need(4)?;
        Ok(self.input.get_u32_le())
    }

    /// Eight bytes.
    ///
    /// # Errors
    /// At the end of the input.
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        self.need(8)?;
        Ok(self.input.get_u64_le())
    }

    /// Eight bytes that say how many, or which of many counted from `least`; at most [`MAX_NUMBER`].
    ///
    /// # Errors
    /// At the end of the input, or when the number is below or above that.
    pub fn number(&mut self, what: &'static str, least: u64) -> Result<u64, DecodeError> {
        let value = self.u64()?;
        let known = (least..=MAX_NUMBER).contains(&value);
        if known { Ok(value) } else { Err(DecodeError::OutOfRange { what, value }) }
    }

    /// Sixteen bytes.
    ///
    /// # Errors
    /// At the end of the input.
    pub fn u128(&mut self) -> Result<u128, DecodeError> {
        self.need(16)?;
        Ok(self.input.get_u128_le())
    }

    /// A byte string, as a slice of the input.
    ///
    /// # Errors
    /// At the end of the input.
    pub fn bytes(&mut self) -> Result<Bytes, DecodeError> {
        let len = self.u32()? as usize;
        self.need(len)?;
        Ok(self.input.split_to(len))
    }

    /// A text.
    ///
    /// # Errors
    /// At the end of the input, or when it is not UTF-8.
    pub fn text(&mut self) -> Result<String, DecodeError> {
        String::from_utf8(self.bytes()?.to_vec()).map_err(|_| DecodeError::Text)
    }

    /// A list of texts.
    ///
    /// # Errors
    /// As [`Reader::text`].
    pub fn texts(&mut self) -> Result<Vec<String>, DecodeError> {
        let count = self.count(4)?;
        (0..count).map(|_| self.text()).collect()
    }

    /// The length of a list whose items take at least `item_bytes` each.
    ///
    /// # Errors
    /// When the input cannot hold that many.
    pub fn count(&mut self, item_bytes: usize) -> Result<usize, DecodeError> {
        let count = self.u32()? as usize;
        self.need(count.saturating_mul(item_bytes))?;
        Ok(count)
    }

    /// Checks the format byte.
    ///
    /// # Errors
    /// When another release wrote this.
    pub fn format(&mut self, known: u8) -> Result<(), DecodeError> {
        let found = self.u8()?;
        if found == known { Ok(()) } else { Err(DecodeError::Format { found, known }) }
    }

    /// Checks that nothing is left.
    ///
    /// # Errors
    /// When something is.
    pub fn end(&self) -> Result<(), DecodeError> {
        match self.input.remaining() {
            0 => Ok(()),
            rest => Err(DecodeError::Trailing(rest)),
        }
    }
}

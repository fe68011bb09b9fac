//! Numbers and byte strings, as bytes.
//!
//! The alphabet in which `codec` spells requests and `image` spells stores: numbers
//! in groups of seven bits, least significant first, and byte strings behind their
//! length. There is exactly one spelling of everything, and a reader that meets
//! another says so; it trusts no length that it was given.

use bytes::{Buf, Bytes};

/// Why bytes could not be read. The bytes are at fault; reading them again will not
/// help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end in the middle of something.
    #[error("the bytes end too early")]
    Truncated,
    /// A number is longer than it need be, or larger than it can be.
    #[error("a number is spelled in a way we never would")]
    BadNumber,
    /// Written by a version of synod that this one does not know.
    #[error("unknown encoding version {0}")]
    UnknownVersion(u8),
    /// A byte that stands for one of a few things stands for none of them.
    #[error("{tag} does not name any {what}")]
    UnknownTag {
        /// What kind of thing was expected.
        what: &'static str,
        /// The byte found.
        tag: u8,
    },
    /// Transactions inside transactions, beyond reason.
    #[error("transactions are nested too deep")]
    TooDeep,
    /// There is more than there should be.
    #[error("{0} bytes too many")]
    TrailingBytes(usize),
}

/// Where bytes go: into a buffer, or merely into a count.
pub(crate) trait Sink {
    fn byte(&mut self, byte: u8);
    fn bytes(&mut self, bytes: &[u8]);

    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.byte(number as u8 | 0x80);
            number >>= 7;
        }
        self.byte(number as u8);
    }

    /// Signed, with small absolute values short.
    fn signed(&mut self, number: i64) {
        self.number(((number << 1) ^ (number >> 63)).cast_unsigned());
    }

    fn string(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.bytes(bytes);
    }

    fn option(&mut self, number: Option<u64>) {
        self.byte(u8::from(number.is_some()));
        if let Some(number) = number {
            self.number(number);
        }
    }
}

impl Sink for Vec<u8> {
    fn byte(&mut self, byte: u8) {
        self.push(byte);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// A sink that only measures.
#[derive(Default)]
pub(crate) struct Length(pub(crate) usize);

impl Sink for Length {
    fn byte(&mut self, _: u8) {
        self.0 += 1;
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
}

/// Reads from a buffer; byte strings come out as slices of it.
pub(crate) struct Reader(pub(crate) Bytes);

impl Reader {
    pub(crate) fn byte(&mut self) -> Result<u8, DecodeError> {
        self.scan(|scan| scan.byte())
    }

    pub(crate) fn number(&mut self) -> Result<u64, DecodeError> {
        self.scan(|scan| scan.number())
    }

    pub(crate) fn signed(&mut self) -> Result<i64, DecodeError> {
        self.scan(|scan| scan.signed())
    }

    pub(crate) fn string(&mut self) -> Result<Bytes, DecodeError> {
        let length = self.number()?;
        self.take(usize::try_from(length).map_err(|_| DecodeError::Truncated)?)
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<Bytes, DecodeError> {
        if length > self.0.len() {
            return Err(DecodeError::Truncated);
        }
        Ok(self.0.split_to(length))
    }

    pub(crate) fn option(&mut self) -> Result<Option<u64>, DecodeError> {
        self.scan(|scan| scan.option())
    }

    /// Everything must have been read.
    pub(crate) fn finish(self) -> Result<(), DecodeError> {
        Scan(&self.0).finish()
    }

    fn scan<T>(
        &mut self,
        read: impl FnOnce(&mut Scan<'_>) -> Result<T, DecodeError>,
    ) -> Result<T, DecodeError> {
        let mut scan = Scan(&self.0);
        let found = read(&mut scan)?;
        let left = scan.0.len();
        self.0.advance(self.0.len() - left);
        Ok(found)
    }
}

/// Reads from a buffer that it borrows; byte strings come out as parts of it, and nobody counts who shares it.
pub(crate) struct Scan<'b>(pub(crate) &'b [u8]);

impl<'b> Scan<'b> {
    pub(crate) fn byte(&mut self) -> Result<u8, DecodeError> {
        let (&byte, rest) = self.0.split_first().ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(byte)
    }

    pub(crate) fn number(&mut self) -> Result<u64, DecodeError> {
        let (number, length) = peek_number(self.0)?;
        self.0 = &self.0[length..];
        Ok(number)
    }

    pub(crate) fn signed(&mut self) -> Result<i64, DecodeError> {
        self.number().map(unzigzag)
    }

    pub(crate) fn string(&mut self) -> Result<&'b [u8], DecodeError> {
        let length = usize::try_from(self.number()?).map_err(|_| DecodeError::Truncated)?;
        let (string, rest) = self.0.split_at_checked(length).ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(string)
    }

    pub(crate) fn u128(&mut self) -> Result<u128, DecodeError> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(u128::from_le_bytes(*bytes))
    }

    pub(crate) fn option(&mut self) -> Result<Option<u64>, DecodeError> {
        match self.byte()? {
            0 => Ok(None),
            1 => self.number().map(Some),
            tag => Err(DecodeError::UnknownTag { what: "option", tag }),
        }
    }

    /// Everything must have been read.
    pub(crate) fn finish(self) -> Result<(), DecodeError> {
        match self.0.len() {
            0 => Ok(()),
            left => Err(DecodeError::TrailingBytes(left)),
        }
    }
}

/// Undoes what [`Sink::signed`] does to a number.
fn unzigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -((number & 1).cast_signed())
}

/// The number at the start of `bytes`, and how many of them it takes.
pub(crate) fn peek_number(bytes: &[u8]) -> Result<(u64, usize), DecodeError> {
    let mut number = 0;
    for (index, &byte) in bytes.iter().take(10).enumerate() {
        // The tenth byte has room for one bit only.
        if index == 9 && byte > 1 {
            return Err(DecodeError::BadNumber);
        }
        number |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            // A leading zero group would be a second spelling.
            if byte == 0 && index > 0 {
                return Err(DecodeError::BadNumber);
            }
            return Ok((number, index + 1));
        }
    }
    Err(DecodeError::Truncated)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_one_spelling() {
        for number in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let mut spelled = Vec::new();
            spelled.number(number);
            assert_eq!(peek_number(&spelled), Ok((number, spelled.len())));
            assert_eq!(peek_number(&spelled[..spelled.len() - 1]), Err(DecodeError::Truncated));
        }
        assert_eq!(peek_number(&[0x81, 0]), Err(DecodeError::BadNumber));
        assert_eq!(peek_number(&[0xff; 10]), Err(DecodeError::BadNumber));
    }

    #[test]
    fn signed_numbers_survive() {
        for number in [0, 1, -1, 63, -64, i64::MAX, i64::MIN] {
            let mut spelled = Vec::new();
            spelled.signed(number);
            assert_eq!(Reader(spelled.into()).signed(), Ok(number));
        }
    }
}

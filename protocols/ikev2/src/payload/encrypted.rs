//! SK and SKF (RFC 7296 §3.14, RFC 7383 §2.5) as they travel. To open and to seal them is `crypto/protection.rs`.

use crate::codes::PayloadType;
use crate::malformed::{Malformed, TooLong};
use crate::reader::Reader;

/// SK: IV, ciphertext and ICV.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Encrypted {
    /// The type of the first payload inside.
    pub first: PayloadType,
    /// IV, ciphertext and ICV.
    pub body: Vec<u8>,
}

impl Encrypted {
    pub(crate) fn read(first: PayloadType, body: &mut Reader<'_>) -> Self {
        Self { first, body: body.rest().to_vec() }
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) -> Result<(), TooLong> {
        out.extend_from_slice(&self.body);
        Ok(())
    }
}

/// SKF: one fragment of a message, protected on its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EncryptedFragment {
    /// In the first fragment the type of the first payload inside, otherwise none.
    pub first: PayloadType,
    /// From 1.
    pub number: u16,
    /// How many there are; at least `number`.
    pub total: u16,
    /// IV, ciphertext and ICV.
    pub body: Vec<u8>,
}

impl EncryptedFragment {
    /// ```text
    /// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    /// |        Fragment Number        |        Total Fragments        |
    /// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    /// ```
    pub(crate) fn read(first: PayloadType, body: &mut Reader<'_>) -> Result<Self, Malformed> {
        let number = body.u16()?;
        let total = body.u16()?;
        //= rfc7383#2.5
        //# This field MUST be less than or equal to the next field (Total Fragments).  This field MUST NOT be zero.
        if number == 0 || number > total {
            return Err(Malformed::FragmentNumber);
        }
        Ok(Self { first, number, total, body: body.rest().to_vec() })
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) -> Result<(), TooLong> {
        out.extend_from_slice(&self.number.to_be_bytes());
        out.extend_from_slice(&self.total.to_be_bytes());
        out.extend_from_slice(&self.body);
        Ok(())
    }
}

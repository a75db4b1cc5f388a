//! What AUTH covers, and AUTH by a shared key (RFC 7296 §2.15).

use super::Prf;
use crate::payload::IdPayload;
use subtle::ConstantTimeEq;

/// The octets that one end signs.
///
/// ```text
/// //= rfc7296#2.15
/// InitiatorSignedOctets = RealMessage1 | NonceRData | MACedIDForI ...
/// MACedIDForI = prf(SK_pi, RestOfInitIDPayload)
/// ```
/// `message` is that end's own IKE_SA_INIT message as it travelled (after a cookie or INVALID_KE_PAYLOAD: the last
/// one), `peer_nonce` the nonce of the other end, `key` this end's SK_p.
#[must_use]
pub fn signed_octets(prf: Prf, message: &[u8], peer_nonce: &[u8], key: &[u8], id: &IdPayload) -> Vec<u8> {
    let maced_id = prf.mac(key, &[&id.octets()]);
    [message, peer_nonce, &maced_id].concat()
}

/// AUTH by a shared key.
///
/// ```text
/// //= rfc7296#2.15
/// AUTH = prf( prf(Shared Secret, "Key Pad for IKEv2"), <InitiatorSignedOctets>)
/// ```
#[must_use]
pub fn shared_key(prf: Prf, key: &[u8], octets: &[u8]) -> Vec<u8> {
    prf.mac(&prf.mac(key, &[b"Key Pad for IKEv2"]), &[octets]).to_vec()
}

/// Is this AUTH by the shared key? Takes the same time for all wrong answers.
#[must_use]
pub fn shared_key_matches(prf: Prf, key: &[u8], octets: &[u8], auth: &[u8]) -> bool {
    shared_key(prf, key, octets).ct_eq(auth).into()
}

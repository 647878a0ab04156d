//! Signed statements of nodes besides entries: their signature, and the count of their items.
//!
//! A statement is a body, the node that signs it, and its Ed25519 signature over a domain string
//! and the body as it came, checked with `verify_strict`. Each kind has a domain string of its own,
//! so a statement of one kind is never valid as another kind, nor as an entry.

use bytes::{Buf as _, Bytes};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use prost::encoding::{DecodeContext, WireType, decode_key, skip_field};

use crate::id::Author;

/// Signs `body` under `domain`.
pub(super) fn sign(domain: &[u8], key: &SigningKey, body: &[u8]) -> Bytes {
    let signature = key.sign(&[domain, body].concat());
    Bytes::copy_from_slice(&signature.to_bytes())
}

/// Returns whether `signature` is that of `node` over `body` under `domain`.
pub(super) fn is_by(node: &Author, domain: &[u8], body: &[u8], signature: &[u8; 64]) -> bool {
    let signature = Signature::from_bytes(signature);
    let verified = VerifyingKey::from_bytes(&node.0)
        .and_then(|key| key.verify_strict(&[domain, body].concat(), &signature));
    verified.is_ok()
}

/// Returns how many items the list `field` of an encoded message has. `None` if the message is cut,
/// or if an item of the list is shorter than `bytes_min`: no memory is needed to find out.
pub fn count_items(mut message: &[u8], field: u32, bytes_min: usize) -> Option<usize> {
    let mut count = 0_usize;
    while message.has_remaining() {
        let (tag, kind) = decode_key(&mut message).ok()?;
        if tag == field && kind == WireType::LengthDelimited {
            let length = prost::decode_length_delimiter(&mut message).ok()?;
            if length < bytes_min || length > message.remaining() {
                return None;
            }
            message.advance(length);
            count = count.saturating_add(1);
        } else {
            skip_field(kind, tag, &mut message, DecodeContext::default()).ok()?;
        }
    }
    Some(count)
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::wire;

    #[test]
    fn items_are_counted_before_there_is_memory_for_them() {
        let tip = wire::CursorTip {
            author: Bytes::from_static(&[1; 32]),
            seq: 9,
            id: Bytes::from_static(&[2; 32]),
        };
        let ack = |tips| wire::Ack {
            store_id: Bytes::from_static(&[3; 16]),
            incarnation: 7,
            counter: 1 << 40,
            tips,
            ..wire::Ack::default()
        };
        let encoded = ack(vec![tip; 5]).encode_to_vec();
        assert_eq!(count_items(&encoded, 4, 64), Some(5));
        assert_eq!(count_items(&encoded, 9, 64), Some(0));
        assert_eq!(count_items(&encoded, 4, 1000), None);
        assert_eq!(count_items(&[], 4, 64), Some(0));
        for cut in 1..encoded.len() {
            let counted = count_items(&encoded[..cut], 4, 64);
            assert!(counted.is_none_or(|count| count < 5), "cut at {cut}");
        }
        let empty = ack(vec![wire::CursorTip::default(); 5]).encode_to_vec();
        assert_eq!(count_items(&empty, 4, 64), None);
        // A list where none is due is no list.
        assert_eq!(count_items(&[0x20, 0x01], 4, 64), Some(0));
    }
}

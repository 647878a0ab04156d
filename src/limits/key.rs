//! Limits of the secret of the node's key: where it is read from, and what seals it.

use std::time::Duration;

/// Bytes of `identity.key`, of a credential, and of what a command prints that has the key: the key takes 85,
/// a place with its command some hundred.
pub const KEY_TEXT_BYTES_MAX: usize = 16 << 10;
/// Time in which a command must print the key of the node. It may ask a vault over the network; nothing of
/// the node works meanwhile.
pub const KEY_COMMAND_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a passphrase that seals the key, at least. Fewer are guessed in spite of Argon2.
pub const PASSPHRASE_BYTES_MIN: usize = 8;
/// Bytes of a passphrase that seals the key, at most: a whole sentence, or the hash of a file.
pub const PASSPHRASE_BYTES_MAX: usize = 1024;

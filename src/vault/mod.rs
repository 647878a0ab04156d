//! The secret of a node's key: where it is kept, and how it is fetched.
//!
//! `identity.key` in the data directory has the secret, or says where it is: in one file, so that a move of
//! the secret is one rename. A secret that cannot be had is an error; no other place is tried.
//!
//! TPMs seal a secret to one machine, and forget it with an update of the firmware, or after a few wrong
//! attempts of anybody. Tailscale made them the default and had to turn that off again, so no key is ever put
//! into one unasked.

mod credential;
mod error;
mod helper;
mod key_file;
mod sealed;
mod seed;
mod sources;

pub use credential::CREDENTIAL_NAME;
pub use error::KeyError;
pub use key_file::{KeyFile, KeyPlace};
pub use sealed::Sealed;
pub use seed::Seed;
pub use sources::{AskPassphrase, KeySources, KeyVault};

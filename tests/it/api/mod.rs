//! Promise 6 on the local socket, and the API that programs in any language use.

mod client;
mod proxy;
mod socket;

//! Promise 6 on the local socket, and what programs in any language see there.

mod socket;

//! What every service of AWS wants of a client: credentials from where AWS's own tools take them, and requests that
//! are signed with them (SigV4).

mod credentials;
mod http;
mod sign;

pub use credentials::{Credentials, region};
pub use sign::Signer;

//! Pure. Key Custodians: the statement that each signs. Whether those who presented are enough says the policy
//! ([`super::policy::custody`]).

pub mod statement;

pub use statement::Statement;

//! Pure. Key Custodians and what they open: the statement that each signs ([`statement`]), and whether those who presented are enough
//! ([`count`]).

pub mod count;
pub mod statement;

pub use count::{Count, NotCounted, Presented};
pub use statement::Statement;

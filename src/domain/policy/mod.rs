//! Pure. The policy, and what it permits.

//! Pure. What the PMA determined, and who signed it.

pub mod cms;

//! Pure. The SMKI certificate profile.

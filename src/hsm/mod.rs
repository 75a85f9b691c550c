//! Shell: the only way to a private key.

//! Shell: `smkictl`.

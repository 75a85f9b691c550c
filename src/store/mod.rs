//! Shell: where entries lie.

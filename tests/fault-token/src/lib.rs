//! A PKCS#11 module that fails on command.

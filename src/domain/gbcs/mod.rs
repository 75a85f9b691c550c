//! Pure. Octets ⇄ typed GBCS messages.

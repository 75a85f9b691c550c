//! Stand-ins until the domain's own are merged.
#![allow(missing_docs, dead_code, clippy::all, clippy::pedantic)]
use zeroize::Zeroizing;
#[derive(Clone)]
pub struct SymmetricKey(Zeroizing<Vec<u8>>);
impl SymmetricKey {
    pub fn new(octets: &[u8]) -> Result<Self, String> {
        if [16, 32].contains(&octets.len()) { Ok(Self(Zeroizing::new(octets.to_vec()))) } else { Err("len".to_owned()) }
    }
    pub fn octets(&self) -> &[u8] {
        &self.0
    }
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WrapAlgorithm {
    Aes128Gcm,
    Aes256Gcm,
    Other,
}
impl WrapAlgorithm {
    pub fn key_len(self) -> usize {
        if self == Self::Aes128Gcm { 16 } else { 32 }
    }
    pub fn as_str(self) -> &'static str {
        "aes-256-gcm"
    }
}
pub struct WrappedApexKey {
    nonce: [u8; 12],
    wrapped: Vec<u8>,
    key_len: usize,
}
impl WrappedApexKey {
    pub fn from_der(octets: &[u8]) -> Result<Self, String> {
        let (nonce, rest) = octets.split_first_chunk::<12>().ok_or("short")?;
        Ok(Self { nonce: *nonce, wrapped: rest.to_vec(), key_len: 32 })
    }
    pub fn to_der(&self) -> Vec<u8> {
        [&self.nonce[..], &self.wrapped].concat()
    }
    pub fn new_gcm(nonce: [u8; 12], wrapped: Vec<u8>, key_len: usize) -> Self {
        Self { nonce, wrapped, key_len }
    }
    pub fn algorithm(&self) -> WrapAlgorithm {
        if self.key_len == 16 { WrapAlgorithm::Aes128Gcm } else { WrapAlgorithm::Aes256Gcm }
    }
    pub fn gcm_nonce(&self) -> Option<[u8; 12]> {
        Some(self.nonce)
    }
    pub fn wrapped(&self) -> &[u8] {
        &self.wrapped
    }
}

//! Pure. JSON as we read documents that somebody signed: one way to read it, or it is refused.
//!
//! JSON parsers disagree about duplicate keys: one takes the first, another the last. A signer must not be shown one
//! document and the daemon act on another (RFC 8259 section 4), so a duplicate at any depth refuses the whole.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// The deepest nesting of any document of ours is 3; twice that and some to spare.
const DEPTH_MAX: usize = 8;

/// Reads `octets` as `T`, after a pass that refuses a byte order mark, octets that are no UTF-8, duplicate keys at any
/// level, numbers that are no integers from 0 and nesting beyond [`DEPTH_MAX`]. The error says line and column.
pub(super) fn strict<T: DeserializeOwned>(octets: &[u8]) -> Result<T, String> {
    let text = std::str::from_utf8(octets)
        .map_err(|e| format!("octet {}: expected UTF-8, found 0x{:02X}", e.valid_up_to(), octets[e.valid_up_to()]))?;
    if text.starts_with('\u{feff}') {
        return Err("octet 0: expected {, found a byte order mark; save the file without one".into());
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    OneReading { depth: 0 }.deserialize(&mut reader).and_then(|()| reader.end()).map_err(|e| e.to_string())?;
    serde_json::from_str(text).map_err(|e| e.to_string())
}

/// Walks a value and keeps nothing of it but, level by level, the keys it has seen.
#[derive(Clone, Copy)]
struct OneReading {
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for OneReading {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for OneReading {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object, array, text, integer from 0, true, false or null")
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let below = self.below()?;
        while items.next_element_seed(below)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let below = self.below()?;
        let mut seen = HashSet::new();
        while let Some(key) = members.next_key::<String>()? {
            if seen.contains(&key) {
                return Err(A::Error::custom(format!("key {key:?} stands here twice; keep one")));
            }
            seen.insert(key);
            members.next_value_seed(below)?;
        }
        Ok(())
    }
}

impl OneReading {
    fn below<E: Error>(self) -> Result<Self, E> {
        if self.depth == DEPTH_MAX {
            return Err(E::custom(format!("nested deeper than {DEPTH_MAX} levels")));
        }
        Ok(Self { depth: self.depth + 1 })
    }
}

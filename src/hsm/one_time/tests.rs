use super::*;

fn info(what: PinFor, token: &str) -> Vec<u8> {
    pin_info(what, &token.parse().unwrap(), "serial")
}

#[test]
fn what_is_sealed_opens_once_with_its_key_and_purpose_and_with_nothing_else() {
    let key = OneTimeKey::make();
    let sealed = key.seal_to().seal(&info(PinFor::Login, "smki-a"), b"a pin").unwrap();
    assert_eq!(key.open(&info(PinFor::Login, "smki-a"), &sealed).unwrap().as_slice(), b"a pin");

    for (why, other) in
        [("another token", info(PinFor::Login, "smki-b")), ("another use", info(PinFor::Change, "smki-a"))]
    {
        let key = OneTimeKey::make();
        let sealed = key.seal_to().seal(&info(PinFor::Login, "smki-a"), b"a pin").unwrap();
        assert_eq!(key.open(&other, &sealed).unwrap_err(), NotOpened, "{why}");
    }
    let (one, other) = (OneTimeKey::make(), OneTimeKey::make());
    let sealed = one.seal_to().seal(b"", b"a pin").unwrap();
    assert_eq!(other.open(b"", &sealed).unwrap_err(), NotOpened, "another key");
}

#[test]
fn an_octet_altered_anywhere_or_cut_off_is_found() {
    let sealed_to = |key: &OneTimeKey| key.seal_to().seal(b"info", b"secret").unwrap();
    let len = sealed_to(&OneTimeKey::make()).len();
    for at in [0, 1, 64, 65, len - 17, len - 1] {
        let key = OneTimeKey::make();
        let mut sealed = sealed_to(&key);
        sealed[at] ^= 1;
        assert!(key.open(b"info", &sealed).is_err(), "octet {at}");
    }
    for len in [0, 64, 65, len - 1] {
        let key = OneTimeKey::make();
        let sealed = sealed_to(&key);
        assert!(key.open(b"info", &sealed[..len]).is_err(), "{len} octets");
    }
}

#[test]
fn nothing_is_sealed_to_what_is_no_point() {
    assert!(SealTo::from_octets(&[4; 64]).is_none());
    assert_eq!(SealTo::from_octets(&[4; 65]).unwrap().seal(b"", b"secret").unwrap_err(), NotSealed);
}

use super::*;

struct Names {
    origin: Origin,
    key: KeyLabel,
    token: TokenName,
    serial: String,
    generation: u32,
}

impl Names {
    fn usual() -> Self {
        Self {
            origin: "smki.example/recovery".parse().unwrap(),
            key: "recovery-1".parse().unwrap(),
            token: "smki-a".parse().unwrap(),
            serial: "0123".to_owned(),
            generation: 1,
        }
    }

    fn of(&self) -> Of<'_> {
        let Self { origin, key, token, serial, generation } = self;
        Of { origin, key, generation: *generation, token, serial }
    }
}

fn pin(text: &str) -> SecretString {
    SecretString::from(text)
}

#[test]
fn a_sealed_pin_opens_under_its_secret_for_its_token_key_and_generation_alone() {
    let (secret, names) = (SealingSecret::make(), Names::usual());
    let sealed = seal(&secret, names.of(), &pin("77581136")).unwrap();
    assert_eq!(open(&secret, names.of(), &sealed).unwrap().expose_secret(), "77581136");

    assert_eq!(open(&SealingSecret::make(), names.of(), &sealed).unwrap_err(), SealingError::Closed);
    let others = [
        ("generation", Names { generation: 2, ..Names::usual() }),
        ("token", Names { token: "smki-b".parse().unwrap(), ..Names::usual() }),
        ("serial number", Names { serial: "0124".to_owned(), ..Names::usual() }),
        ("key", Names { key: "recovery-2".parse().unwrap(), ..Names::usual() }),
        ("ledger", Names { origin: "smki.example/exercise".parse().unwrap(), ..Names::usual() }),
    ];
    for (which, other) in others {
        assert_eq!(open(&secret, other.of(), &sealed).unwrap_err(), SealingError::Closed, "another {which}");
    }
}

#[test]
fn an_altered_octet_is_found_wherever_it_is() {
    let (secret, names) = (SealingSecret::make(), Names::usual());
    let sealed = seal(&secret, names.of(), &pin("77581136")).unwrap();
    for at in [0, NONCE_LEN, NONCE_LEN + 9, SEALED_LEN - 17, SEALED_LEN - 1] {
        let mut altered = sealed.clone();
        altered[at] ^= 1;
        assert_eq!(open(&secret, names.of(), &altered).unwrap_err(), SealingError::Closed, "octet {at}");
    }
    assert_eq!(open(&secret, names.of(), &sealed[..SEALED_LEN - 1]).unwrap_err(), SealingError::Closed);
}

#[test]
fn the_length_of_a_pin_cannot_be_told_and_the_longest_has_room() {
    let (secret, names) = (SealingSecret::make(), Names::usual());
    for len in [1, 4, 8, PIN_LEN_MAX] {
        let text = "7".repeat(len);
        let sealed = seal(&secret, names.of(), &pin(&text)).unwrap();
        assert_eq!(sealed.len(), SEALED_LEN);
        assert_eq!(open(&secret, names.of(), &sealed).unwrap().expose_secret(), text);
    }
    for len in [0, PIN_LEN_MAX + 1] {
        let sealed = seal(&secret, names.of(), &pin(&"7".repeat(len)));
        assert_eq!(sealed.unwrap_err(), SealingError::Length(len));
    }
}

use super::*;

#[test]
fn every_code_of_a_closed_list_comes_back_from_its_number_and_from_its_name() {
    fn check<T: Copy + PartialEq + fmt::Debug + fmt::Display + FromStr<Err = NameError>>(
        all: &[T],
        code: impl Fn(T) -> u8,
        from_code: impl Fn(u64) -> Option<T>,
        count: usize,
    ) {
        assert_eq!(all.len(), count);
        let known: Vec<u8> = all.iter().map(|value| code(*value)).collect();
        for number in 0..=300 {
            let expected = u8::try_from(number).ok().and_then(|n| known.iter().position(|code| *code == n));
            assert_eq!(from_code(number), expected.map(|at| all[at]), "{number}");
        }
        for value in all {
            assert_eq!(value.to_string().parse(), Ok(*value));
        }
        assert!("Root".parse::<T>().is_err());
    }
    use CredentialsReplacementMode as Mode;
    check(Mode::ALL, Mode::code, Mode::from_code, 10);
    check(RemotePartyRole::ALL, RemotePartyRole::code, RemotePartyRole::from_code, 10);
    check(CellUsage::ALL, CellUsage::code, CellUsage::from_code, 2);
    check(StatusCode::ALL, StatusCode::code, StatusCode::from_code, 7);
}

#[test]
fn a_message_code_is_0100_plus_the_mode_or_the_alerts() {
    let known: Vec<u16> = (0..=u16::MAX).filter(|value| MessageCode::from_value(*value).is_some()).collect();
    assert_eq!(known, [0xCB, 0x100, 0x101, 0x102, 0x103, 0x104, 0x105, 0x106, 0x107, 0x108, 0x109]);
    for value in known {
        assert_eq!(MessageCode::from_value(value).unwrap().value(), value);
    }
    let recovery = CredentialsReplacementMode::AnyExceptAbnormalRootByRecovery;
    assert_eq!(recovery.message_code().to_string(), "0x0108 anyExceptAbnormalRootByRecovery");
}

#[test]
fn a_counter_ends_at_the_greatest_signed_integer_of_64_bits() {
    assert_eq!(SeqNumber::new((1 << 63) - 1), Some(SeqNumber::MAX));
    assert_eq!(SeqNumber::new(1 << 63), None);
}

#[test]
fn a_cell_is_shown_with_its_usage_only_where_that_is_not_the_default() {
    let cell = TrustAnchorCell::management(RemotePartyRole::Supplier, KeyUsage::KeyAgreement);
    assert_eq!(cell.to_string(), "supplier keyAgreement");
    let cell = TrustAnchorCell { cell_usage: CellUsage::PrePaymentTopUp, ..cell };
    assert_eq!(cell.to_string(), "supplier keyAgreement prePaymentTopUp");
}

#[test]
fn an_unknown_alert_code_is_shown_as_a_number() {
    assert_eq!(AlertCode(0x8F67).to_string(), "0x8F67 future-dated command not actioned successfully");
    assert_eq!(AlertCode(0x1234).to_string(), "0x1234 unknown");
}

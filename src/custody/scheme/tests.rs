use super::*;

/// Every way to take `k` of `items`.
fn choices<T: Clone>(items: &[T], k: usize) -> Vec<Vec<T>> {
    match (k, items.split_first()) {
        (0, _) => vec![Vec::new()],
        (_, None) => Vec::new(),
        (_, Some((first, rest))) => {
            let with = choices(rest, k - 1).into_iter().map(|mut more| {
                more.insert(0, first.clone());
                more
            });
            with.chain(choices(rest, k)).collect()
        }
    }
}

fn scalar(octets: &[u8; SCALAR_LEN]) -> Scalar {
    read_scalar(octets).unwrap()
}

/// The value at `x` of the polynomial through these points, by Lagrange: written anew here, with nothing of the crate.
fn value_at(x: Scalar, points: &[(Scalar, Scalar)]) -> Scalar {
    let basis = |n: usize| {
        let others = points.iter().enumerate().filter(|(other, _)| *other != n);
        others.fold(Scalar::ONE, |product, (_, (other, _))| {
            product * (x - other) * (points[n].0 - other).invert().unwrap()
        })
    };
    (0..points.len()).map(|n| points[n].1 * basis(n)).fold(Scalar::ZERO, |sum, term| sum + term)
}

fn points(shares: &[Share]) -> Vec<(Scalar, Scalar)> {
    shares.iter().map(|share| (Scalar::from(u64::from(share.index())), scalar(share.octets()))).collect()
}

#[test]
fn any_k_of_n_shares_give_the_secret_and_no_fewer_do() {
    for (k, n) in [(2, 2), (2, 3), (3, 5), (5, 7)] {
        let secret = SealingSecret::make();
        let (shares, commitments) = split(&secret, k, n).unwrap();
        for chosen in choices(&shares, k) {
            assert_eq!(commitments.combine(&chosen).unwrap().octets(), secret.octets(), "{k} of {n}");
            assert_eq!(value_at(Scalar::ZERO, &points(&chosen)), scalar(secret.octets()), "by another's arithmetic");
        }
        for chosen in choices(&shares, k - 1) {
            let refused = commitments.combine(&chosen).map(|_| ()).unwrap_err();
            assert_eq!(refused, SchemeError::TooFew { have: k - 1, need: k }, "{k} of {n}");
        }
        let all = commitments.combine(&shares).unwrap();
        assert_eq!(all.octets(), secret.octets(), "more than enough is enough");
    }
}

#[test]
fn one_share_given_twice_counts_once() {
    let (shares, commitments) = split(&SealingSecret::make(), 2, 3).unwrap();
    let twice = [shares[1].clone(), shares[1].clone()];
    assert_eq!(commitments.combine(&twice).map(|_| ()).unwrap_err(), SchemeError::TooFew { have: 1, need: 2 });
}

/// What the threshold is worth. Interpolation through k - 1 real shares misses the secret, so the polynomial is of no lower degree than it should be;
/// and with k - 1 shares in hand any other secret has a share set of its own in which those very shares are. (That the commitments single one
/// out is a discrete logarithm's worth of work.)
#[test]
fn k_minus_1_shares_miss_the_secret_and_lie_in_a_share_set_of_any_other_secret_too() {
    for (k, n) in [(2, 3), (3, 5)] {
        let secret = SealingSecret::make();
        let (shares, commitments) = split(&secret, k, n).unwrap();
        // The greatest coefficient is not 0: its commitment is a point, and not the neutral element.
        assert_eq!(commitments.octets().iter().map(Vec::len).collect::<Vec<_>>(), vec![COMMITMENT_LEN; k]);
        for known in choices(&shares, k - 1) {
            assert_ne!(value_at(Scalar::ZERO, &points(&known)), scalar(secret.octets()), "{k} of {n}");
            let guess = SealingSecret::make();
            let mut through = points(&known);
            through.push((Scalar::ZERO, scalar(guess.octets())));
            let other: Vec<Share> = (1..=u16::try_from(n).unwrap())
                .map(|index| {
                    let value = value_at(Scalar::from(u64::from(index)), &through);
                    Share::new(index, Zeroizing::new(value.to_repr().into())).unwrap()
                })
                .collect();
            for (real, other) in shares.iter().zip(&other) {
                let is_known = known.iter().any(|known| known.index() == real.index());
                assert_eq!(real.octets() == other.octets(), is_known, "what is not known would be another");
            }
            for chosen in choices(&other, k) {
                assert_eq!(value_at(Scalar::ZERO, &points(&chosen)), scalar(guess.octets()), "by any k of them");
            }
        }
    }
}

#[test]
fn two_splits_of_one_secret_have_nothing_in_common() {
    let secret = SealingSecret::make();
    let (one, of_one) = split(&secret, 2, 3).unwrap();
    let (other, of_other) = split(&secret, 2, 3).unwrap();
    for (a, b) in one.iter().zip(&other) {
        assert_ne!(a.octets(), b.octets());
        assert!(!of_one.fit(b) && !of_other.fit(a));
    }
    let mixed = [one[0].clone(), other[1].clone()];
    assert_eq!(of_one.combine(&mixed).map(|_| ()).unwrap_err(), SchemeError::Altered { index: 2 });
}

#[test]
fn an_altered_share_is_found_by_its_commitment_and_named() {
    let (shares, commitments) = split(&SealingSecret::make(), 2, 3).unwrap();
    for share in &shares {
        assert!(commitments.fit(share));
        for at in [0, 15, 31] {
            let mut octets = *share.octets();
            octets[at] ^= 1;
            let Ok(altered) = Share::new(share.index(), Zeroizing::new(octets)) else { continue };
            assert!(!commitments.fit(&altered), "octet {at}");
        }
        let misplaced = Share::new(share.index() % 3 + 1, Zeroizing::new(*share.octets())).unwrap();
        assert!(!commitments.fit(&misplaced), "under another's index");
    }
    let mut octets = *shares[2].octets();
    octets[31] ^= 1;
    let altered = [shares[0].clone(), Share::new(3, Zeroizing::new(octets)).unwrap()];
    assert_eq!(commitments.combine(&altered).map(|_| ()).unwrap_err(), SchemeError::Altered { index: 3 });
}

#[test]
fn the_commitments_tell_the_point_of_every_share_and_of_the_secret() {
    let secret = SealingSecret::make();
    let (shares, commitments) = split(&secret, 3, 5).unwrap();
    for share in &shares {
        assert_eq!(commitments.point(share.index()).unwrap(), share.point());
    }
    let point = (ProjectivePoint::GENERATOR * scalar(secret.octets())).to_affine().to_sec1_point(true);
    assert_eq!(commitments.octets()[0], point.as_bytes());
    assert_eq!(Commitments::read(&commitments.octets()).unwrap(), commitments);
}

#[test]
fn what_is_no_share_set_is_refused() {
    let secret = SealingSecret::make();
    for (k, n) in [(0, 3), (1, 3), (4, 3), (2, 101)] {
        let refused = split(&secret, k, n).map(|_| ()).unwrap_err();
        assert_eq!(refused, SchemeError::Numbers { threshold: k, count: n });
    }
    assert!(split(&secret, 2, 100).is_ok());
    assert!(Share::new(0, Zeroizing::new([1; 32])).is_err(), "the index of the secret itself");
    assert!(Share::new(1, Zeroizing::new([0; 32])).is_err());
    assert!(Share::new(1, Zeroizing::new([0xff; 32])).is_err(), "beyond the order");
    let (_, commitments) = split(&secret, 2, 3).unwrap();
    let mut octets = commitments.octets();
    octets[1][0] = 5;
    assert_eq!(Commitments::read(&octets).unwrap_err(), SchemeError::Commitment { at: 1 });
    assert!(Commitments::read(&octets[..1]).is_err());
}

#[test]
fn the_secret_signs_and_the_first_commitment_verifies_it() {
    use crate::domain::certificates::signature::PublicKey;
    let (secret, other) = (SealingSecret::make(), SealingSecret::make());
    let (shares, commitments) = split(&secret, 3, 5).unwrap();
    let first = PublicKey::from_compressed(&commitments.octets()[0]).unwrap();
    let again = commitments.combine(&shares[1..4]).unwrap();
    assert!(first.verifies_fixed(b"who has the next", &again.sign(b"who has the next").unwrap()));
    assert!(!first.verifies_fixed(b"who has the next", &again.sign(b"who had the last").unwrap()));
    assert!(!first.verifies_fixed(b"who has the next", &other.sign(b"who has the next").unwrap()));
}

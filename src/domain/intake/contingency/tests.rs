use super::*;
use crate::domain::certificates::apex::{WrapAlgorithm, WrapParameters};
use crate::domain::certificates::bodies::{self, Particulars, Template};
use crate::domain::certificates::signature::PublicKey;
use crate::domain::determination::document::{KeyChosen, tests::determination};
use crate::domain::fold::tests::Lists;
use crate::domain::gbcs::SymmetricKey;
use crate::domain::gbcs::samples::Key;
use crate::domain::ledger::contingency::{CheckResult, ReleaseResult, SymmetricReleased};
use crate::domain::ledger::entry::{Channel, ClockState, Entry, Event, Role, VERSION};
use crate::domain::policy::facts::IncidentFacts;
use crate::domain::policy::rules::tests::{before_release, now};
use crate::domain::time::Timestamp;

pub(in crate::domain) const ID: DeterminationId = DeterminationId([1; 16]);

pub(in crate::domain) fn label(label: &str) -> KeyLabel {
    label.parse().unwrap()
}

pub(in crate::domain) fn operator() -> Actor {
    let (person, account) = (Some("operator-1".parse().unwrap()), "operator-1".into());
    Actor { person, account, role: Role::Operator, channel: Channel::Socket }
}

/// The field of some generation; another number is another one.
pub(in crate::domain) fn field(n: u8) -> WrappedApexKey {
    let symmetric = SymmetricKey::new(&[n; 32]).unwrap();
    let parameters = WrapParameters::Gcm { nonce: [n; 12], icv_len: 16 };
    let public = PublicKey::from_point(&Key::generate().point).unwrap();
    WrappedApexKey::wrap(&public, &symmetric, WrapAlgorithm::Aes256Gcm, parameters).unwrap()
}

/// A Root OCA Certificate, as its operator would issue it.
pub(in crate::domain) struct Issue<'a> {
    pub key: &'a Key,
    pub signer: &'a Key,
    pub field: Option<&'a WrappedApexKey>,
    pub not_after: Timestamp,
}

impl<'a> Issue<'a> {
    /// In force for an hour more, and signed with its own key.
    pub fn honest(key: &'a Key, field: &'a WrappedApexKey) -> Self {
        Self { key, signer: key, field: Some(field), not_after: now().plus_ms(3_600_000) }
    }

    pub fn octets(&self) -> Vec<u8> {
        let template = Template::RootOca { common_name: "R".into(), contingency: self.field.cloned() };
        let fold = before_release(|_, _, _| ());
        let policies = &fold.policy().unwrap().policy.certificates().organisation_policy_oids;
        let particulars = Particulars {
            serial: &[0x40; 16],
            not_before: now().plus_ms(-3_600_000),
            not_after: self.not_after,
            key: &PublicKey::from_point(&self.key.point).unwrap(),
            policy: *policies.first().unwrap(),
        };
        let tbs = bodies::tbs(&template, &particulars, None).unwrap();
        bodies::assemble(&tbs, &self.signer.sign(&tbs)).unwrap()
    }
}

pub(in crate::domain) fn spki_sha256(key: &Key) -> Digest {
    PublicKey::from_point(&key.point).unwrap().spki_sha256()
}

fn rules<T>(decided: Result<T, Vec<Reason>>) -> Vec<String> {
    decided.err().unwrap_or_default().iter().map(|reason| reason.rule.to_string()).collect()
}

fn context<'a>(fold: &'a Fold, papers: &'a Lists) -> Context<'a> {
    Context { fold, blobs: papers, heads: papers, at: now(), clock: ClockState::Trusted }
}

/// Folds in what nobody decided, and answers its index.
fn record(fold: &mut Fold, event: Event) -> u64 {
    let entry = Entry { v: VERSION, at: now(), clock: ClockState::Trusted, by: operator(), event };
    fold.apply(&entry, &entry.to_leaf().unwrap(), &Lists::default(), &mut Vec::new()).unwrap();
    fold.size() - 1
}

/// The Root OCA Certificate that carries the key was found to carry it.
fn checked() -> Fold {
    let mut fold = before_release(|_, _, _| ());
    let root = fold.contingency(&label("contingency-1")).unwrap().root.unwrap();
    let (key, incident) = (label("contingency-1"), "INC-1".parse().unwrap());
    record(
        &mut fold,
        Event::ContingencyChecked(ContingencyChecked { key, incident, root, result: CheckResult::Matches }),
    );
    fold
}

#[test]
fn a_symmetric_key_is_spent_once_and_released_only_then_one_request_at_a_time() {
    let papers = Lists::default();
    let spent = |fold: &Fold| spend(&context(fold, &papers), &operator(), ID);
    let released = |fold: &Fold, n| release(&context(fold, &papers), &operator(), RequestId([n; 16]), ID);
    let unchecked = before_release(|_, _, _| ());
    assert_eq!(rules(spent(&unchecked)), ["preflight"]);
    assert_eq!(rules(released(&unchecked, 1)), ["preflight", "not-spent"]);
    let mut fold = checked();
    assert_eq!(rules(released(&fold, 1)), ["not-spent"]);
    let event = Event::SymmetricKeySpent(spent(&fold).unwrap());
    record(&mut fold, event);
    assert_eq!(rules(spent(&fold)), ["spent-already"]);
    let event = Event::SymmetricRelease(released(&fold, 1).unwrap());
    let intent = record(&mut fold, event);
    // The outcome of the first is waited for.
    assert_eq!(rules(released(&fold, 2)), ["release-open"]);
    assert_eq!(rules(released(&fold, 1)), ["request-used", "release-open"]);
    let result = ReleaseResult::Failed("CKR_DEVICE_ERROR".into());
    record(&mut fold, Event::SymmetricReleased(SymmetricReleased { intent, result }));
    assert_eq!(rules(released(&fold, 1)), ["request-used"]);
    assert_eq!(rules(released(&fold, 2)), [""; 0]);
    // However it ended, it stays spent.
    assert_eq!(rules(spent(&fold)), ["spent-already"]);
}

#[test]
fn the_root_that_carries_a_generation_is_its_own_issuer_in_force_sound_and_of_no_other_generation() {
    let (ours, other) = (Key::generate(), Key::generate());
    let (first, second) = (field(1), field(2));
    // What of the next generation's root, and of the incident.
    let against = |issue: &Issue<'_>, of_next: &Issue<'_>, change: &dyn Fn(&mut IncidentFacts)| {
        let mut papers = Lists::default();
        let next_root = papers.add(of_next.octets());
        let fold = before_release(|key, next, incident| {
            let contingency = key.contingency.as_mut().unwrap();
            contingency.root = None;
            contingency.prepared.extension = Digest::of(&first.to_der());
            next.contingency.as_mut().unwrap().root = Some(next_root);
            change(incident);
        });
        rules(root(&context(&fold, &papers), &label("contingency-1"), &issue.octets(), Compared::InToken))
    };
    let honest = || Issue::honest(&ours, &first);
    let of_next = Issue::honest(&other, &second);
    let check = |issue: Issue<'_>, expected: &[&str]| assert_eq!(against(&issue, &of_next, &|_| ()), expected);
    check(honest(), &[]);
    // A root under another key is no certificate of the profile at all.
    check(Issue { signer: &other, ..honest() }, &["certificate"]);
    check(Issue { not_after: now(), ..honest() }, &[]);
    check(Issue { not_after: now().plus_ms(-1_000), ..honest() }, &["certificate-time"]);
    check(Issue { field: None, ..honest() }, &["root-without-field"]);
    check(Issue { field: Some(&second), ..honest() }, &["root-of-another-key"]);
    // Another generation's root of the same key.
    let same_key = Issue::honest(&ours, &second);
    assert_eq!(against(&honest(), &same_key, &|_| ()), ["root-of-another-generation"]);
    // An incident about that key, and one about the contingency key that such a root carries.
    for (about, expected) in [
        (None, &["root-compromised"][..]),
        (Some(OtherKey::RootOca), &["root-compromised"]),
        (Some(OtherKey::Contingency), &[]),
        (Some(OtherKey::ContingencySymmetric), &[]),
    ] {
        let compromised = |key: &Key, incident: &mut IncidentFacts| {
            (incident.key, incident.compromised.spki_sha256) = (about, spki_sha256(key));
        };
        assert_eq!(against(&honest(), &of_next, &|incident| compromised(&ours, incident)), expected, "{about:?}");
        assert_eq!(against(&honest(), &of_next, &|incident| compromised(&other, incident)), [""; 0], "{about:?}");
    }
}

#[test]
fn where_the_root_is_compromised_the_line_names_the_certificate_of_that_very_key() {
    let (ours, other) = (Key::generate(), Key::generate());
    let mut papers = Lists::default();
    let root = papers.add(Issue::honest(&ours, &field(1)).octets());
    let next_root = papers.add(Issue::honest(&other, &field(2)).octets());
    let against = |about: Option<OtherKey>, compromised: Digest| {
        let fold = before_release(|key, next, incident| {
            key.contingency.as_mut().unwrap().root = Some(root);
            next.contingency.as_mut().unwrap().root = Some(next_root);
            (incident.key, incident.compromised.spki_sha256) = (about, compromised);
        });
        let mut form = determination();
        form.key = Some(KeyChosen { label: label("contingency-1"), spki_sha256: Digest([1; 32]) });
        let next = label("contingency-2");
        form.symmetric_key = Some(SymmetricKeyLine { root_sha256: root, next, next_root_sha256: next_root });
        form.counter_start = Some(highest_root_floor(&fold));
        let mut reasons = Reasons::default();
        let policy = &fold.policy().unwrap().policy;
        check_line(&context(&fold, &papers), policy, &form, &mut reasons);
        rules(reasons.end(Some(())))
    };
    let unrelated = spki_sha256(&Key::generate());
    assert_eq!(against(Some(OtherKey::RootOca), spki_sha256(&ours)), [""; 0]);
    assert_eq!(against(Some(OtherKey::RootOca), unrelated), ["root-of-the-incident"]);
    // An incident about another key says nothing of the root.
    for about in [None, Some(OtherKey::IssuingOca), Some(OtherKey::Recovery)] {
        assert_eq!(against(about, unrelated), [""; 0], "{about:?}");
    }
}

use super::super::snapshots::{TableKept, TargetsKept};
use super::*;
use crate::domain::ledger::ceremonies::{Attendance, Capacity, CeremonyKind};
use crate::domain::ledger::contingency::{CheckResult, Compared, ReleaseResult};
use crate::domain::ledger::custody::{Holder, Sealed, SharePresented};
use crate::domain::ledger::jobs::{DeviceRefused, JobList, JobTally, RuleCount};
use crate::domain::ledger::steps::{Certainty, CompromiseClass, Step};
use crate::domain::names::{DirectionId, FileKind};

fn entry(event: Event) -> Entry {
    let by = Actor { person: None, account: "alice".into(), role: Role::Operator, channel: Channel::Socket };
    Entry { v: VERSION, at: "2017-07-21T10:00:00Z".parse().unwrap(), clock: ClockState::Trusted, by, event }
}

fn digest(octet: u8) -> Digest {
    Digest([octet; 32])
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn signature() -> SignatureRecord {
    SignatureRecord { person: "anna".parse().unwrap(), spki: digest(0xA1), p7s: digest(0xA2) }
}

const ID: DeterminationId = DeterminationId([0x0D; 16]);
const OTHER: DeterminationId = DeterminationId([0x0E; 16]);
const REQUEST: RequestId = RequestId([0x0F; 16]);

/// Each kind of event, with the text under `event` in its leaf; `{5a}` stands for 32 such octets. A change of such a text is
/// a change of every ledger there is.
#[expect(clippy::too_many_lines, reason = "one table of every kind")]
fn golden() -> Vec<(Event, &'static str)> {
    let key = || "recovery-1".parse::<KeyLabel>().unwrap();
    let token = || "smki-a".parse::<TokenName>().unwrap();
    let device: DeviceId = "00DB1234567890A0".parse().unwrap();
    let incident = || "INC-1".parse::<IncidentId>().unwrap();
    let party: PartyId = "90B3D51F30000002".parse().unwrap();
    let record = KeyRecord {
        label: key(),
        use_: KeyUse::Recovery,
        token: token(),
        serial: "0001".into(),
        id: KeyId([0xA0; 16]),
        spki_sha256: digest(1),
        spki: "MFkw".into(),
    };
    let outcome = |result| Event::Outcome(Outcome { intent: 42, result });
    vec![
        (
            Event::Genesis(Genesis {
                origin: "smkid.example/ledger".parse().unwrap(),
                purpose: Purpose::Exercise,
                nonce: REQUEST,
                keys: vec![record.clone()],
                policy: digest(2),
            }),
            concat!(
                r#"{"genesis":{"origin":"smkid.example/ledger","purpose":"exercise","nonce":"0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f","#,
                r#""keys":[{"label":"recovery-1","use":"recovery","token":"smki-a","serial":"0001","#,
                r#""id":"a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0","spki_sha256":"{01}","spki":"MFkw"}],"policy":"{02}"}}"#
            ),
        ),
        (
            Event::PolicyAdopted(PolicyAdopted {
                sequence: 2,
                policy: digest(1),
                predecessor: Some(digest(2)),
                document: digest(3),
                signatures: vec![signature()],
                carries_over: vec![ID],
            }),
            concat!(
                r#"{"policy-adopted":{"sequence":2,"policy":"{01}","predecessor":"{02}","document":"{03}","#,
                r#""signatures":[{"person":"anna","spki":"{a1}","p7s":"{a2}"}],"#,
                r#""carries_over":["0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d"]}}"#
            ),
        ),
        (
            Event::PolicyAdopted(PolicyAdopted {
                sequence: 1,
                policy: digest(1),
                predecessor: None,
                document: digest(3),
                signatures: vec![],
                carries_over: vec![],
            }),
            concat!(
                r#"{"policy-adopted":{"sequence":1,"policy":"{01}","predecessor":null,"document":"{03}","#,
                r#""signatures":[],"carries_over":[]}}"#
            ),
        ),
        (
            Event::CertificationIntent(CertificationIntent { key: key(), request_info: digest(1) }),
            r#"{"certification-intent":{"key":"recovery-1","request_info":"{01}"}}"#,
        ),
        (
            Event::CertificateImported(CertificateImported {
                key: key(),
                party,
                certificate: digest(1),
                path: vec![digest(2), digest(3)],
            }),
            concat!(
                r#"{"certificate-imported":{"key":"recovery-1","party":"90B3D51F30000002","certificate":"{01}","#,
                r#""path":["{02}","{03}"]}}"#
            ),
        ),
        (
            Event::Started(Started {
                version: "0.1.0".into(),
                program: digest(1),
                configuration: digest(2),
                unconfirmed: None,
            }),
            r#"{"started":{"version":"0.1.0","program":"{01}","configuration":"{02}"}}"#,
        ),
        (
            Event::Started(Started {
                version: "0.1.0".into(),
                program: digest(1),
                configuration: digest(2),
                unconfirmed: Some(7),
            }),
            r#"{"started":{"version":"0.1.0","program":"{01}","configuration":"{02}","unconfirmed":7}}"#,
        ),
        (Event::Stopped(Stopped { reason: "SIGTERM".into() }), r#"{"stopped":{"reason":"SIGTERM"}}"#),
        (
            Event::IncidentOpened(IncidentOpened {
                incident: incident(),
                compromised: Compromised { certificate_sha256: digest(1), spki_sha256: digest(2), party },
                key: None,
                description: "told by telephone".into(),
                notification: None,
                profile: None,
            }),
            concat!(
                r#"{"incident-opened":{"incident":"INC-1","compromised":{"certificate_sha256":"{01}","spki_sha256":"{02}","#,
                r#""party":"90B3D51F30000002"},"description":"told by telephone"}}"#
            ),
        ),
        (
            Event::IncidentClosed(IncidentClosed { incident: incident(), reason: "over".into(), profile: None, departures: vec![], }),
            r#"{"incident-closed":{"incident":"INC-1","reason":"over"}}"#,
        ),
        (
            Event::DeterminationRecorded(DeterminationRecorded {
                determination: ID,
                incident: incident(),
                document: digest(1),
                signatures: vec![signature()],
                devices: Some(digest(2)),
                policy: digest(3), profile: None, departures: vec![], }),
            concat!(
                r#"{"determination-recorded":{"determination":"0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d","incident":"INC-1","#,
                r#""document":"{01}","signatures":[{"person":"anna","spki":"{a1}","p7s":"{a2}"}],"devices":"{02}","#,
                r#""policy":"{03}"}}"#
            ),
        ),
        (
            Event::ScheduleRecorded(ScheduleRecorded {
                determination: ID,
                document: digest(1),
                signatures: vec![signature()],
                devices: digest(2),
                policy: digest(3), profile: None, }),
            concat!(
                r#"{"schedule-recorded":{"determination":"0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d","document":"{01}","#,
                r#""signatures":[{"person":"anna","spki":"{a1}","p7s":"{a2}"}],"devices":"{02}","policy":"{03}"}}"#
            ),
        ),
        (
            Event::DeterminationSuspended(DeterminationSuspended {
                determination: ID,
                document: digest(1),
                signatures: vec![signature()],
                until: at("2017-07-22T10:00:00Z"),
            }),
            concat!(
                r#"{"determination-suspended":{"determination":"0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d","document":"{01}","#,
                r#""signatures":[{"person":"anna","spki":"{a1}","p7s":"{a2}"}],"until":"2017-07-22T10:00:00.000Z"}}"#
            ),
        ),
        (
            Event::DeterminationWithdrawn(DeterminationWithdrawn {
                determination: ID,
                document: digest(1),
                signatures: vec![signature()],
            }),
            concat!(
                r#"{"determination-withdrawn":{"determination":"0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d","document":"{01}","#,
                r#""signatures":[{"person":"anna","spki":"{a1}","p7s":"{a2}"}]}}"#
            ),
        ),
        (
            Event::KeyActivated(KeyActivated {
                key: key(),
                token: token(),
                serial: "0001".into(),
                until: Some(at("2017-07-21T18:00:00Z")),
                incident: None,
                profile: None,
                also: Vec::new(),
                custodians: Vec::new(),
            }),
            concat!(
                r#"{"key-activated":{"key":"recovery-1","token":"smki-a","serial":"0001","#,
                r#""until":"2017-07-21T18:00:00.000Z"}}"#
            ),
        ),
        (
            Event::KeyActivated(KeyActivated {
                key: key(),
                token: token(),
                serial: "0001".into(),
                until: None,
                incident: None,
                profile: None,
                also: vec![TokenFound { token: "smki-b".parse().unwrap(), serial: "0002".into() }],
                custodians: Vec::new(),
            }),
            concat!(
                r#"{"key-activated":{"key":"recovery-1","token":"smki-a","serial":"0001","until":null,"#,
                r#""also":[{"token":"smki-b","serial":"0002"}]}}"#
            ),
        ),
        (
            Event::KeyActivated(KeyActivated {
                key: key(),
                token: token(),
                serial: "0001".into(),
                until: Some(at("2017-07-21T18:00:00Z")),
                incident: Some(incident()),
                profile: Some(profile()),
                also: Vec::new(),
                custodians: Vec::new(),
            }),
            concat!(
                r#"{"key-activated":{"key":"recovery-1","token":"smki-a","serial":"0001","#,
                r#""until":"2017-07-21T18:00:00.000Z","incident":"INC-1","#,
                r#""profile":{"base":"base","variations":["direction-2017-07-18"]}}}"#
            ),
        ),
        (
            Event::KeyCopied(KeyCopied {
                key: key(),
                token: "smki-b".parse().unwrap(),
                serial: "0002".into(),
                spki_sha256: digest(1),
                by: "cloning".into(),
            }),
            concat!(
                r#"{"key-copied":{"key":"recovery-1","token":"smki-b","serial":"0002","spki_sha256":"{01}","#,
                r#""by":"cloning"}}"#
            ),
        ),
        (
            Event::SharesDealt(SharesDealt {
                key: key(),
                generation: 1,
                threshold: 2,
                commitments: vec!["02aa".into(), "03bb".into()],
                holders: vec![
                    Holder {
                        share: "share-1".parse().unwrap(),
                        person: "anna".parse().unwrap(),
                        index: 1,
                        sealed: Sealed::Passphrase,
                    },
                    Holder {
                        share: "share-2".parse().unwrap(),
                        person: "bert".parse().unwrap(),
                        index: 2,
                        sealed: Sealed::Certificate(digest(2)),
                    },
                ],
                tokens: vec![TokenFound { token: "smki-a".parse().unwrap(), serial: "0001".into() }],
                sealed: digest(1),
                left: Vec::new(),
                by: Vec::new(),
                former: None,
            }),
            concat!(
                r#"{"shares-dealt":{"key":"recovery-1","generation":1,"threshold":2,"commitments":["02aa","03bb"],"holders":["#,
                r#"{"share":"share-1","person":"anna","index":1,"sealed":"passphrase"},"#,
                r#"{"share":"share-2","person":"bert","index":2,"sealed":{"certificate":"{02}"}}],"#,
                r#""tokens":[{"token":"smki-a","serial":"0001"}],"sealed":"{01}"}}"#
            ),
        ),
        (
            Event::SharesBegun(SharesDealt {
                key: key(),
                generation: 2,
                threshold: 2,
                commitments: Vec::new(),
                holders: Vec::new(),
                tokens: Vec::new(),
                sealed: digest(1),
                left: vec![TokenFound { token: "smki-b".parse().unwrap(), serial: "0002".into() }],
                by: vec!["anna".parse().unwrap(), "bert".parse().unwrap()],
                former: Some("aabb".into()),
            }),
            concat!(
                r#"{"shares-begun":{"key":"recovery-1","generation":2,"threshold":2,"commitments":[],"holders":[],"tokens":[],"#,
                r#""sealed":"{01}","left":[{"token":"smki-b","serial":"0002"}],"by":["anna","bert"],"former":"aabb"}}"#
            ),
        ),
        (
            Event::CustodianPresented(CustodianPresented {
                key: key(),
                incident: "INC-1".parse().unwrap(),
                determination: "d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0".parse().unwrap(),
                share: Some(SharePresented { name: "share-1".parse().unwrap(), generation: 1 }),
                id: "e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0".parse().unwrap(),
                statement: digest(1),
                signature: signature(),
                until: at("2017-07-21T10:00:00Z"),
                expires: at("2017-07-21T20:00:00Z"),
            }),
            concat!(
                r#"{"custodian-presented":{"key":"recovery-1","incident":"INC-1","#,
                r#""determination":"d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0","share":{"name":"share-1","generation":1},"#,
                r#""id":"e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0","statement":"{01}","#,
                r#""signature":{"person":"anna","spki":"{a1}","p7s":"{a2}"},"#,
                r#""until":"2017-07-21T10:00:00.000Z","expires":"2017-07-21T20:00:00.000Z"}}"#
            ),
        ),
        (
            Event::KeyMade(KeyMade { key: record.clone() }),
            concat!(
                r#"{"key-made":{"key":{"label":"recovery-1","use":"recovery","token":"smki-a","serial":"0001","#,
                r#""id":"a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0","spki_sha256":"{01}","spki":"MFkw"}}}"#
            ),
        ),
        (
            Event::KeyDestruction(KeyDestruction {
                key: key(),
                document: digest(1),
                signatures: vec![signature()],
            }),
            concat!(
                r#"{"key-destruction":{"key":"recovery-1","document":"{01}","#,
                r#""signatures":[{"person":"anna","spki":"{a1}","p7s":"{a2}"}]}}"#
            ),
        ),
        (
            Event::KeyDestroyed(KeyDestroyed {
                key: key(),
                destruction: 7,
                tokens: vec![TokenFound { token: "smki-a".parse().unwrap(), serial: "0001".into() }],
            }),
            r#"{"key-destroyed":{"key":"recovery-1","destruction":7,"tokens":[{"token":"smki-a","serial":"0001"}]}}"#,
        ),
        (
            Event::CeremonyRecorded(CeremonyRecorded {
                kind: CeremonyKind::First,
                plan: digest(1),
                transcript: digest(2),
                from: at("2017-07-21T08:00:00Z"),
                until: at("2017-07-21T09:00:00Z"),
                people: vec![
                    Attendance { person: None, name: "Guest".into(), capacity: Capacity::Witness },
                    Attendance {
                        person: Some("operator-1".parse().unwrap()),
                        name: "Operator One".into(),
                        capacity: Capacity::Conductor,
                    },
                ],
            }),
            concat!(
                r#"{"ceremony-recorded":{"kind":"first","plan":"{01}","transcript":"{02}","#,
                r#""from":"2017-07-21T08:00:00.000Z","until":"2017-07-21T09:00:00.000Z","people":["#,
                r#"{"name":"Guest","capacity":"witness"},"#,
                r#"{"person":"operator-1","name":"Operator One","capacity":"conductor"}]}}"#
            ),
        ),
        (
            Event::KeyLocked(KeyLocked { key: key(), reason: "on demand".into(), incident: None }),
            r#"{"key-locked":{"key":"recovery-1","reason":"on demand"}}"#,
        ),
        (
            Event::KeyLocked(KeyLocked { key: key(), reason: "on demand".into(), incident: Some(incident()) }),
            r#"{"key-locked":{"key":"recovery-1","reason":"on demand","incident":"INC-1"}}"#,
        ),
        (
            Event::Batch(Batch {
                request: REQUEST,
                asked: digest(1),
                incident: incident(),
                determination: ID,
                policy: digest(2),
                profile: Some(profile()),
                key: key(),
            }),
            concat!(
                r#"{"batch":{"request":"0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f","asked":"{01}","incident":"INC-1","#,
                r#""determination":"0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d","policy":"{02}","#,
                r#""profile":{"base":"base","variations":["direction-2017-07-18"]},"key":"recovery-1"}}"#
            ),
        ),
        (
            Event::Batch(Batch {
                request: REQUEST,
                asked: digest(1),
                incident: incident(),
                determination: ID,
                policy: digest(2),
                profile: None,
                key: key(),
            }),
            concat!(
                r#"{"batch":{"request":"0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f","asked":"{01}","incident":"INC-1","#,
                r#""determination":"0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d","policy":"{02}","key":"recovery-1"}}"#
            ),
        ),
        (
            Event::Intent(Intent {
                batch: 41,
                template: "esme".parse().unwrap(),
                device,
                counter: 7000,
                attempt: 1,
                command: digest(0x5A),
            }),
            concat!(
                r#"{"intent":{"batch":41,"template":"esme","device":"00DB1234567890A0","counter":7000,"attempt":1,"#,
                r#""command":"{5a}"}}"#
            ),
        ),
        (outcome(SignResult::Signed(digest(1))), r#"{"outcome":{"intent":42,"result":{"signed":"{01}"}}}"#),
        (
            outcome(SignResult::Failed("CKR_DEVICE_ERROR".into())),
            r#"{"outcome":{"intent":42,"result":{"failed":"CKR_DEVICE_ERROR"}}}"#,
        ),
        (
            outcome(SignResult::NotSigned("fence".into())),
            r#"{"outcome":{"intent":42,"result":{"not-signed":"fence"}}}"#,
        ),
        (outcome(SignResult::Unknown("stopped".into())), r#"{"outcome":{"intent":42,"result":{"unknown":"stopped"}}}"#),
        (
            Event::Released(Released { request: REQUEST, determination: ID, intents: vec![(42, 44), (47, 48)] }),
            concat!(
                r#"{"released":{"request":"0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f","#,
                r#""determination":"0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d","intents":[[42,44],[47,48]]}}"#
            ),
        ),
        (
            Event::Settled(Settled { intent: 42, determination: ID, key: key(), device, reason: "left".into() }),
            concat!(
                r#"{"settled":{"intent":42,"determination":"0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d","key":"recovery-1","#,
                r#""device":"00DB1234567890A0","reason":"left"}}"#
            ),
        ),
        (
            Event::Refused(Refused {
                operation: "recovery-sign".into(),
                incident: Some(incident()),
                determination: Some(OTHER),
                request: Some(REQUEST),
                device: Some(device),
                asked: digest(1),
                reasons: vec![Reason { rule: "window".into(), text: "over".into() }],
            }),
            concat!(
                r#"{"refused":{"operation":"recovery-sign","incident":"INC-1","#,
                r#""determination":"0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e","request":"0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f","#,
                r#""device":"00DB1234567890A0","asked":"{01}","reasons":[{"rule":"window","text":"over"}]}}"#
            ),
        ),
        (
            Event::Refused(Refused {
                operation: "clock-accept".into(),
                incident: None,
                determination: None,
                request: None,
                device: None,
                asked: digest(1),
                reasons: vec![],
            }),
            r#"{"refused":{"operation":"clock-accept","asked":"{01}","reasons":[]}}"#,
        ),
        (
            Event::RefusalsFolded(RefusalsFolded { account: "bob".into(), count: 3, since: Timestamp::MIN }),
            r#"{"refusals-folded":{"account":"bob","count":3,"since":"1970-01-01T00:00:00.000Z"}}"#,
        ),
        (Event::ClockJumped(ClockJumped { by_ms: -3 }), r#"{"clock-jumped":{"by_ms":-3}}"#),
        (
            Event::ClockAccepted(ClockAccepted { reason: "radio clock".into(), from: None }),
            r#"{"clock-accepted":{"reason":"radio clock"}}"#,
        ),
        (
            Event::TokenHealth(TokenHealth {
                token: "recovery".parse().unwrap(),
                from: Health::Up,
                to: Health::Down,
                since: Timestamp::MIN,
                function: Some("C_Sign".into()),
                code: Some("CKR_DEVICE_ERROR".into()),
                cause: Some("it failed".into()),
                folded: 3,
            }),
            concat!(
                r#"{"token-health":{"token":"recovery","from":"up","to":"down","since":"1970-01-01T00:00:00.000Z","#,
                r#""function":"C_Sign","code":"CKR_DEVICE_ERROR","cause":"it failed","folded":3}}"#
            ),
        ),
        (
            Event::TokenHealth(TokenHealth {
                token: "recovery".parse().unwrap(),
                from: Health::Locked,
                to: Health::Up,
                since: Timestamp::MIN,
                function: None,
                code: None,
                cause: None,
                folded: 0,
            }),
            r#"{"token-health":{"token":"recovery","from":"locked","to":"up","since":"1970-01-01T00:00:00.000Z"}}"#,
        ),
        (
            Event::Snapshot(Snapshot {
                form: 1,
                fold: digest(1),
                targets: vec![TargetsKept { incident: "INC-1".parse().unwrap(), sha256: digest(2) }],
                device: TableKept { rows: 3, sha256: digest(3) },
                request: TableKept { rows: 4, sha256: digest(4) },
                earlier: TableKept { rows: 5, sha256: digest(5) },
                response: TableKept { rows: 6, sha256: digest(6) },
                device_key: TableKept { rows: 7, sha256: digest(7) },
            }),
            concat!(
                r#"{"snapshot":{"form":1,"fold":"{01}","targets":[{"incident":"INC-1","sha256":"{02}"}],"#,
                r#""device":{"rows":3,"sha256":"{03}"},"request":{"rows":4,"sha256":"{04}"},"#,
                r#""earlier":{"rows":5,"sha256":"{05}"},"response":{"rows":6,"sha256":"{06}"},"device_key":{"rows":7,"sha256":"{07}"}}}"#
            ),
        ),
        (
            Event::LoginRetried(LoginRetried {
                token: "ledger".parse().unwrap(),
                serial: "0123".into(),
                asked: Timestamp::MIN,
                was: "refused".into(),
            }),
            concat!(
                r#"{"login-retried":{"token":"ledger","serial":"0123","asked":"1970-01-01T00:00:00.000Z","#,
                r#""was":"refused"}}"#
            ),
        ),
    ]
    .into_iter()
    .chain(golden_of_the_procedure())
    .chain([golden_of_what_was_carried_over()])
    .collect()
}

fn profile() -> ProfileInForce {
    ProfileInForce { base: "base".parse().unwrap(), variations: vec!["direction-2017-07-18".parse().unwrap()] }
}

/// The same for a step that carried something over from another incident.
fn golden_of_what_was_carried_over() -> (Event, &'static str) {
    let taken = StepTaken {
        incident: "INC-1".parse().unwrap(),
        profile: profile(),
        step: Step::Prepare { note: "compared".into() },
        departures: Vec::new(),
        carried: 2,
    };
    let text = concat!(
        r#"{"step-taken":{"incident":"INC-1","profile":{"base":"base","variations":["direction-2017-07-18"]},"#,
        r#""step":{"prepare":{"note":"compared"}},"carried":2}}"#
    );
    (Event::StepTaken(taken), text)
}

/// The same for the entries of the procedure.
#[expect(clippy::too_many_lines, reason = "one table of every kind")]
fn golden_of_the_procedure() -> Vec<(Event, &'static str)> {
    let incident = || "INC-1".parse::<IncidentId>().unwrap();
    let direction = DirectionId([0x0C; 16]);
    vec![
        (
            Event::IncidentOpened(IncidentOpened {
                incident: incident(),
                compromised: Compromised {
                    certificate_sha256: digest(1),
                    spki_sha256: digest(2),
                    party: "90B3D51F30000002".parse().unwrap(),
                },
                key: None,
                description: "told".into(),
                notification: Some(Notification {
                    by: "Officer One".into(),
                    party: "supplier-b".parse().unwrap(),
                    certainty: Certainty::Suspected,
                    class: CompromiseClass::Organisation,
                    at: at("2017-07-22T02:10:00Z"),
                    channel: "telephone".into(),
                    recovery_event: at("2017-07-21T22:00:00Z"),
                }),
                profile: Some(profile()),
            }),
            concat!(
                r#"{"incident-opened":{"incident":"INC-1","compromised":{"certificate_sha256":"{01}","spki_sha256":"{02}","#,
                r#""party":"90B3D51F30000002"},"description":"told","notification":{"by":"Officer One","party":"supplier-b","#,
                r#""certainty":"suspected","class":"organisation","at":"2017-07-22T02:10:00.000Z","channel":"telephone","#,
                r#""recovery_event":"2017-07-21T22:00:00.000Z"},"#,
                r#""profile":{"base":"base","variations":["direction-2017-07-18"]}}}"#
            ),
        ),
        (
            Event::StepTaken(StepTaken {
                incident: incident(),
                profile: profile(),
                step: Step::Pause { reason: "the HSM is warm".into() },
                departures: vec![direction],
                carried: 0,
            }),
            concat!(
                r#"{"step-taken":{"incident":"INC-1","profile":{"base":"base","variations":["direction-2017-07-18"]},"#,
                r#""step":{"pause":{"reason":"the HSM is warm"}},"departures":["0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c"]}}"#
            ),
        ),
        (
            Event::DirectionRecorded(DirectionRecorded {
                direction,
                document: digest(1),
                signatures: vec![signature()],
                policy: digest(2),
                text: Some(digest(3)),
            }),
            concat!(
                r#"{"direction-recorded":{"direction":"0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c","document":"{01}","signatures":"#,
                r#"[{"person":"anna","spki":"{a1}","p7s":"{a2}"}],"policy":"{02}","text":"{03}"}}"#
            ),
        ),
        (
            Event::FileAccepted(FileAccepted {
                incident: incident(),
                profile: None,
                kind: FileKind::Adt,
                file: digest(1),
                signature: Some(signature()),
                party: Some("supplier-b".parse().unwrap()),
                smsr: Some("SMSR-1".parse().unwrap()),
                rows: 3,
            }),
            concat!(
                r#"{"file-accepted":{"incident":"INC-1","kind":"adt","file":"{01}","signature":"#,
                r#"{"person":"anna","spki":"{a1}","p7s":"{a2}"},"party":"supplier-b","smsr":"SMSR-1","rows":3}}"#
            ),
        ),
        (
            Event::ExerciseRecorded(ExerciseRecorded {
                at: at("2017-07-21T09:00:00Z"),
                report: digest(1),
                note: "yearly".into(),
            }),
            r#"{"exercise-recorded":{"at":"2017-07-21T09:00:00.000Z","report":"{01}","note":"yearly"}}"#,
        ),
        (
            Event::ResponsesTaken(ResponsesTaken {
                incident: incident(),
                profile: None,
                determination: ID,
                responses: digest(1),
                certificates: digest(2),
                imported_before: None,
                results: digest(3),
                tally: ResponseTally { recovered: 1, failed: 2, foreign: 3, ..ResponseTally::default() },
            }),
            concat!(
                r#"{"responses-taken":{"incident":"INC-1","determination":"0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d","#,
                r#""responses":"{01}","certificates":"{02}","results":"{03}","tally":{"recovered":1,"failed":2,"accepted":0,"#,
                r#""alert":0,"foreign":3,"unmatched":0,"unverified":0,"malformed":0,"duplicate":0,"contradiction":0}}}"#
            ),
        ),
        (
            Event::ResponsesTaken(ResponsesTaken {
                incident: incident(),
                profile: None,
                determination: ID,
                responses: digest(1),
                certificates: digest(2),
                imported_before: Some(9),
                results: digest(3),
                tally: ResponseTally::default(),
            }),
            concat!(
                r#"{"responses-taken":{"incident":"INC-1","determination":"0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d","#,
                r#""responses":"{01}","certificates":"{02}","imported_before":9,"results":"{03}","tally":{"recovered":0,"#,
                r#""failed":0,"accepted":0,"alert":0,"foreign":0,"unmatched":0,"unverified":0,"malformed":0,"duplicate":0,"#,
                r#""contradiction":0}}}"#
            ),
        ),
        (
            Event::DeviceCertificatesImported(DeviceCertificatesImported {
                certificates: digest(1),
                tally: CertificateTally { imported: 3, known: 2, refused: 1 },
            }),
            r#"{"device-certificates-imported":{"certificates":"{01}","tally":{"imported":3,"known":2,"refused":1}}}"#,
        ),
        (
            Event::SigningResumed(SigningResumed {
                incident: incident(),
                profile: None,
                determination: ID,
                stopped_by: 7,
                reason: "tested".into(),
            }),
            concat!(
                r#"{"signing-resumed":{"incident":"INC-1","determination":"0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d","#,
                r#""stopped_by":7,"reason":"tested"}}"#
            ),
        ),
        (
            Event::JobStarted(JobStarted {
                request: REQUEST,
                asked: digest(1),
                incident: incident(),
                determination: ID,
                key: "recovery".parse().unwrap(),
                list: None,
                per_hour: None,
                reason: None,
            }),
            concat!(
                r#"{"job-started":{"request":"0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f","asked":"{01}","incident":"INC-1","#,
                r#""determination":"0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d","key":"recovery"}}"#
            ),
        ),
        (
            Event::JobStarted(JobStarted {
                request: REQUEST,
                asked: digest(1),
                incident: incident(),
                determination: ID,
                key: "recovery".parse().unwrap(),
                list: Some(JobList { sha256: digest(2), devices: 10 }),
                per_hour: Some(1_000),
                reason: Some("the first ten".into()),
            }),
            concat!(
                r#"{"job-started":{"request":"0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f","asked":"{01}","incident":"INC-1","#,
                r#""determination":"0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d","key":"recovery","#,
                r#""list":{"sha256":"{02}","devices":10},"per_hour":1000,"reason":"the first ten"}}"#
            ),
        ),
        (
            Event::JobPassed(JobPassed {
                request: REQUEST,
                until: "00DB1234567890A0".parse().unwrap(),
                already: 3,
                refused: 1,
                rules: vec![RuleCount { rule: "excluded".into(), count: 1 }],
                first: vec![DeviceRefused {
                    device: "00DB1234567890A0".parse().unwrap(),
                    reasons: vec![Reason { rule: "excluded".into(), text: "left out".into() }],
                }],
            }),
            concat!(
                r#"{"job-passed":{"request":"0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f","until":"00DB1234567890A0","already":3,"#,
                r#""refused":1,"rules":[{"rule":"excluded","count":1}],"first":[{"device":"00DB1234567890A0","#,
                r#""reasons":[{"rule":"excluded","text":"left out"}]}]}}"#
            ),
        ),
        (
            Event::JobPassed(JobPassed {
                request: REQUEST,
                until: "00DB1234567890A0".parse().unwrap(),
                already: 3,
                refused: 0,
                rules: Vec::new(),
                first: Vec::new(),
            }),
            concat!(
                r#"{"job-passed":{"request":"0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f","until":"00DB1234567890A0","#,
                r#""already":3}}"#
            ),
        ),
        (
            Event::JobPaused(JobPaused { request: REQUEST, reason: "an hour".into() }),
            r#"{"job-paused":{"request":"0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f","reason":"an hour"}}"#,
        ),
        (
            Event::JobResumed(JobResumed { request: REQUEST }),
            r#"{"job-resumed":{"request":"0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f"}}"#,
        ),
        (
            Event::JobCancelled(JobCancelled { request: REQUEST, reason: "wrong list".into() }),
            r#"{"job-cancelled":{"request":"0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f","reason":"wrong list"}}"#,
        ),
        (
            Event::JobEnded(JobEnded {
                request: REQUEST,
                tally: JobTally { intents: 9, signed: 1, not_signed: 2, unknown: 3, left: 4, already: 5, refused: 6 },
                why: Vec::new(),
            }),
            concat!(
                r#"{"job-ended":{"request":"0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f","tally":{"intents":9,"signed":1,"#,
                r#""not_signed":2,"unknown":3,"left":4,"already":5,"refused":6}}}"#
            ),
        ),
        (
            Event::JobEnded(JobEnded {
                request: REQUEST,
                tally: JobTally::default(),
                why: vec![Reason { rule: "withdrawn".into(), text: "was withdrawn".into() }],
            }),
            concat!(
                r#"{"job-ended":{"request":"0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f","tally":{"intents":0,"signed":0,"#,
                r#""not_signed":0,"unknown":0,"left":0,"already":0,"refused":0},"#,
                r#""why":[{"rule":"withdrawn","text":"was withdrawn"}]}}"#
            ),
        ),
        (
            Event::IncidentOpened(IncidentOpened {
                incident: incident(),
                compromised: Compromised { certificate_sha256: digest(1), spki_sha256: digest(2), party: "0000000000000000".parse().unwrap() },
                key: Some(OtherKey::ContingencySymmetric),
                description: "found on a memory stick".into(),
                notification: None,
                profile: None,
            }),
            concat!(
                r#"{"incident-opened":{"incident":"INC-1","compromised":{"certificate_sha256":"{01}","spki_sha256":"{02}","#,
                r#""party":"0000000000000000"},"key":"contingency-symmetric","description":"found on a memory stick"}}"#
            ),
        ),
    ]
    .into_iter()
    .chain(golden_of_contingency())
    .collect()
}

/// The same of contingency material.
fn golden_of_contingency() -> Vec<(Event, &'static str)> {
    let key = || "contingency-1".parse::<KeyLabel>().unwrap();
    let incident = || "INC-1".parse::<IncidentId>().unwrap();
    let checked = |result| {
        Event::ContingencyChecked(ContingencyChecked { key: key(), incident: incident(), root: digest(1), result })
    };
    let released = |result| Event::SymmetricReleased(SymmetricReleased { intent: 42, result });
    vec![
        (
            Event::ContingencyPrepared(ContingencyPrepared {
                key: key(),
                token: "smki-c".parse().unwrap(),
                symmetric: KeyId([0xA1; 16]),
                wrapping: KeyId([0xA2; 16]),
                bits: 256,
                wrap_with_trusted: true,
                algorithm: "aes-256-gcm".into(),
                extension: digest(1),
            }),
            concat!(
                r#"{"contingency-prepared":{"key":"contingency-1","token":"smki-c","#,
                r#""symmetric":"a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1","wrapping":"a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2","#,
                r#""bits":256,"wrap_with_trusted":true,"algorithm":"aes-256-gcm","extension":"{01}"}}"#
            ),
        ),
        (
            Event::RootImported(RootImported { key: key(), root: digest(1), compared: Compared::InToken }),
            r#"{"root-imported":{"key":"contingency-1","root":"{01}","compared":"in-token"}}"#,
        ),
        (
            checked(CheckResult::Matches),
            r#"{"contingency-checked":{"key":"contingency-1","incident":"INC-1","root":"{01}","result":"matches"}}"#,
        ),
        (
            checked(CheckResult::Differs("another key".into())),
            r#"{"contingency-checked":{"key":"contingency-1","incident":"INC-1","root":"{01}","result":{"differs":"another key"}}}"#,
        ),
        (
            checked(CheckResult::Failed("CKR_DEVICE_ERROR".into())),
            r#"{"contingency-checked":{"key":"contingency-1","incident":"INC-1","root":"{01}","result":{"failed":"CKR_DEVICE_ERROR"}}}"#,
        ),
        (
            Event::SymmetricKeySpent(SymmetricKeySpent { key: key(), incident: incident(), determination: ID }),
            concat!(
                r#"{"symmetric-key-spent":{"key":"contingency-1","incident":"INC-1","#,
                r#""determination":"0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d"}}"#
            ),
        ),
        (
            Event::SymmetricRelease(SymmetricRelease {
                request: REQUEST,
                key: key(),
                incident: incident(),
                determination: ID,
                policy: digest(2),
                root: digest(1),
            }),
            concat!(
                r#"{"symmetric-release":{"request":"0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f","key":"contingency-1","incident":"INC-1","#,
                r#""determination":"0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d","policy":"{02}","root":"{01}"}}"#
            ),
        ),
        (released(ReleaseResult::Released), r#"{"symmetric-released":{"intent":42,"result":"released"}}"#),
        (
            released(ReleaseResult::Failed("CKR_DEVICE_ERROR".into())),
            r#"{"symmetric-released":{"intent":42,"result":{"failed":"CKR_DEVICE_ERROR"}}}"#,
        ),
        (
            released(ReleaseResult::NotReleased("was locked".into())),
            r#"{"symmetric-released":{"intent":42,"result":{"not-released":"was locked"}}}"#,
        ),
        (
            released(ReleaseResult::Unknown("ended".into())),
            r#"{"symmetric-released":{"intent":42,"result":{"unknown":"ended"}}}"#,
        ),
    ]
}

/// The kinds that the reader knows, as it lists them itself when it meets another.
fn kinds() -> Vec<String> {
    let said = serde_json::from_str::<Event>(r#"{"no such kind":{}}"#).unwrap_err().to_string();
    let list = said.split_once("expected one of ").unwrap_or_else(|| panic!("{said}")).1;
    list.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn every_kind_has_one_encoding_and_is_called_by_the_tag_in_its_leaf() {
    let golden = golden();
    let mut unseen = kinds();
    assert_eq!(unseen.len(), 53, "{unseen:?}");
    for (event, text) in &golden {
        let text = (0..=0xFF_u8).fold((*text).to_owned(), |text, octet| {
            text.replace(&format!("{{{octet:02x}}}"), &format!("{octet:02x}").repeat(32))
        });
        let expected = format!(
            r#"{{"v":1,"at":"2017-07-21T10:00:00.000Z","clock":"trusted","by":{{"account":"alice","role":"operator","channel":"socket"}},"event":{text}}}"#
        );
        let leaf = entry(event.clone()).to_leaf().unwrap();
        assert_eq!(String::from_utf8(leaf.clone()).unwrap(), expected);
        assert_eq!(Entry::from_canonical_leaf(&leaf), Ok(entry(event.clone())), "{expected}");
        assert!(text.starts_with(&format!(r#"{{"{}":"#, event.kind())), "{} {text}", event.kind());
        unseen.retain(|kind| kind != event.kind());
    }
    assert!(unseen.is_empty(), "a kind of event has no golden form here: {unseen:?}");
}

#[test]
fn what_is_common_is_told_from_its_octets_as_from_its_meaning() {
    let text = r#"he said "event":{"intent":{ and ,"result":{"signed":"#;
    let quoted = Event::Stopped(Stopped { reason: text.into() });
    for event in golden().into_iter().map(|(event, _)| event).chain([quoted]) {
        let mut entry = entry(event);
        entry.by.account = text.into();
        let expected = match &entry.event {
            Event::Intent(_) => Some(Common::Intent),
            Event::Outcome(Outcome { intent, result: SignResult::Signed(_) }) => {
                Some(Common::Signed { intent: *intent })
            }
            _ => None,
        };
        assert_eq!(Common::of(&entry.to_leaf().unwrap()), expected, "{}", entry.event.kind());
    }
}

#[test]
fn what_the_clock_was_worth_has_one_word() {
    let stopped = entry(Event::Stopped(Stopped { reason: "SIGTERM".into() }));
    for (clock, word) in [
        (ClockState::Trusted, "trusted"),
        (ClockState::Untrusted, "untrusted"),
        (ClockState::SetForExercise, "set-for-exercise"),
    ] {
        let entry = Entry { clock, ..stopped.clone() };
        let expected = format!(
            r#"{{"v":1,"at":"2017-07-21T10:00:00.000Z","clock":"{word}","by":{{"account":"alice","role":"operator","channel":"socket"}},"event":{{"stopped":{{"reason":"SIGTERM"}}}}}}"#
        );
        assert_eq!(String::from_utf8(entry.to_leaf().unwrap()).unwrap(), expected);
        assert_eq!(Entry::from_canonical_leaf(expected.as_bytes()), Ok(entry));
    }
}

#[test]
fn another_spelling_of_the_same_entry_is_not_canonical() {
    let leaf = entry(Event::Stopped(Stopped { reason: "SIGTERM".into() })).to_leaf().unwrap();
    let text = String::from_utf8(leaf).unwrap();
    let spaced = text.replace(r#""v":1"#, r#""v": 1"#);
    assert_eq!(Entry::from_canonical_leaf(spaced.as_bytes()), Err(EntryError::NotCanonical));
    let shorter = text.replace("10:00:00.000Z", "10:00:00Z");
    assert_eq!(Entry::from_canonical_leaf(shorter.as_bytes()), Err(EntryError::NotCanonical));
}

#[test]
fn an_unknown_field_or_kind_or_version_is_refused() {
    let leaf = entry(Event::Stopped(Stopped { reason: "x".into() })).to_leaf().unwrap();
    let text = String::from_utf8(leaf).unwrap();
    for (from, to) in
        [(r#""v":1"#, r#""v":2"#), ("stopped", "halted"), (r#""reason""#, r#""cause""#), (r#"{"v""#, r#"{"w":0,"v""#)]
    {
        assert!(Entry::from_leaf(text.replacen(from, to, 1).as_bytes()).is_err(), "{from} -> {to}");
    }
}

#[test]
fn a_leaf_has_at_most_65_535_octets() {
    let with = |len: usize| entry(Event::Stopped(Stopped { reason: "x".repeat(len).into() })).to_leaf();
    let overhead = with(0).unwrap().len();
    assert_eq!(with(LEAF_LEN_MAX - overhead).unwrap().len(), LEAF_LEN_MAX);
    assert_eq!(with(LEAF_LEN_MAX - overhead + 1), Err(EntryError::TooLong { len: LEAF_LEN_MAX + 1 }));
}

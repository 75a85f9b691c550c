//! What `show` warns of: each by itself, and nothing else beside it.

use smkid::domain::determination::document::{Decision, Determination, Payload, Written};
use smkid::domain::gbcs::{CredentialsReplacementMode, SeqNumber, Template};

use crate::support::desk::Office;

const ALL: &str = "--policy policy --compromised compromised.pem";

#[track_caller]
fn check(office: &Office, from: &str, to: &str, expected: &[&str]) {
    office.draft_toml(|text| {
        assert!(text.contains(from), "{from:?}");
        text.replacen(from, to, 1)
    });
    let (stem, _) = office.draft();
    assert_eq!(office.warnings(&stem, &format!("{ALL} --devices {stem}.devices.txt")), expected, "{from} → {to}");
}

const AFTER_PATH: &str = "path = [\"issuing.pem\"]\n";

#[test]
fn a_determination_as_it_should_be_has_no_warning() {
    check(&Office::new(), "INC-1", "INC-1", &[]);
}

#[test]
fn counter_floors_are_held_against_the_ceiling_the_list_and_the_start() {
    let office = Office::new();
    let floor = |floor: u64| format!("{AFTER_PATH}new_floor = {floor}\n");
    check(&office, AFTER_PATH, &floor(281_474_976_710_656), &[]);
    check(&office, AFTER_PATH, &floor(281_474_976_710_657), &["floor-above-ceiling"]);
    check(&office, AFTER_PATH, &floor(5), &[]);
    check(&office, AFTER_PATH, &floor(4), &["floor-below-counter", "floor-below-start"]);
    let other = format!("{AFTER_PATH}other_floor = [{{ role = \"supplier\", floor = 1, top_up = 281474976710657 }}]\n");
    check(&office, AFTER_PATH, &other, &["floor-above-ceiling"]);
    // Without a policy there is no ceiling, but the counter of the next command.
    office.draft_toml(|text| text.replacen(AFTER_PATH, &floor(7), 1));
    let (stem, _) = office.draft();
    assert_eq!(office.warnings(&stem, ""), ["floor-above-counters"]);
    office.draft_toml(|text| text.replacen(AFTER_PATH, &floor(6), 1));
    let (stem, _) = office.draft();
    assert_eq!(office.warnings(&stem, ""), [""; 0]);
}

#[test]
fn a_cell_of_the_compromised_key_that_is_left_out_is_named() {
    let office = Office::new();
    let own = "[[template.replace]]\ncell = \"supplier digitalSignature\"\ncertificate = \"signing.pem\"\n";
    check(&office, own, "", &["cell-left-out"]);
    let (stem, _) = office.draft();
    let page = office.smkictl(&format!("determination show {stem}.json {ALL}")).ok().out;
    assert!(
        page.contains("does not replace cell supplier digitalSignature, in which the compromised key lies"),
        "{page}"
    );
    let top_up =
        "[[template.replace]]\ncell = \"supplier keyAgreement prePaymentTopUp\"\ncertificate = \"agreement.pem\"\n";
    check(&office, top_up, "", &["cell-left-out"]);
    // Without the certificate nobody knows its role, and the page says so.
    let page = office.smkictl(&format!("determination show {stem}.json")).ok().out;
    assert!(page.contains("Not looked at: whether a cell of the compromised key is left out"), "{page}");
}

#[test]
fn root_cells_dates_and_time_checks_are_warned_of() {
    let office = Office::new();
    let root = "certificate = \"signing.pem\"\n[[template.replace]]\ncell = \"root keyCertSign\"\ncertificate = \"root.pem\"\n";
    check(&office, "certificate = \"signing.pem\"\n", root, &["root-cell"]);
    let execution = |at: &str| format!("{AFTER_PATH}execution = \"{at}\"\n");
    check(&office, AFTER_PATH, &execution("9999-12-31T23:59:59Z"), &["cancellation"]);
    check(&office, AFTER_PATH, &execution("9999-12-31T23:59:58Z"), &["future-dated"]);
    check(&office, AFTER_PATH, &format!("{AFTER_PATH}time_checks = \"disapply\"\n"), &["time-checks-disapplied"]);
}

#[test]
fn certificates_that_do_not_belong_there_are_warned_of() {
    let office = Office::new();
    let signing = "certificate = \"signing.pem\"";
    let with = |name: &str| format!("certificate = \"{name}.pem\"");
    check(&office, signing, &with("compromised"), &["replacement-compromised"]);
    check(&office, signing, &with("expired"), &["not-in-force"]);
    check(&office, signing, &with("agreement"), &["usage-differs"]);
    check(&office, signing, &with("network"), &["role-differs"]);
    check(&office, signing, &with("other"), &["other-party"]);
    // By Method 2 the Access Control Broker's belong there, and a Supplier's do not.
    let by_method_2 = ["role-differs", "role-differs", "role-differs"];
    check(&office, "\"new-organisation-certificates\"", "\"acb-certificates\"", &by_method_2);
    check(&office, signing, &with("anna"), &["certificate-unfit"]);
    check(&office, AFTER_PATH, "path = []\n", &["no-path", "no-path", "no-path"]);
    let twice = "certificate = \"signing.pem\"\n[[template.replace]]\ncell = \"supplier digitalSignature\"\ncertificate = \"signing.pem\"";
    check(&office, signing, twice, &["cell-twice"]);
}

#[test]
fn limits_and_windows_larger_than_needed_are_warned_of() {
    let office = Office::new();
    let limits = "intents = 2\nper_hour = 2\nretries_of_unknown = 0\nretry_by_itself = false";
    let with = |intents, per_hour, retries, by_itself| {
        format!(
            "intents = {intents}\nper_hour = {per_hour}\nretries_of_unknown = {retries}\nretry_by_itself = {by_itself}"
        )
    };
    check(&office, limits, &with(3, 3, 1, false), &["intents-above-devices"]);
    check(&office, limits, &with(2, 3, 0, false), &["rate-above-intents"]);
    check(&office, limits, &with(2, 2, 1, true), &["retries-by-itself"]);
    let window = |office: &Office, from_days: i64, until_days: i64, expected: &[&str]| {
        let day = 24 * 3_600_000;
        let now = smkid::wall_clock::wall_clock();
        office.draft_toml(|text| {
            let (start, end) = (text.find("[window]").unwrap(), text.find("[key]").unwrap());
            let (from, until) = (now.plus_ms(from_days * day), now.plus_ms(until_days * day));
            format!("{}[window]\nfrom = \"{from}\"\nuntil = \"{until}\"\n{}", &text[..start], &text[end..])
        });
        let (stem, _) = office.draft();
        assert_eq!(office.warnings(&stem, &format!("{ALL} --devices {stem}.devices.txt")), expected, "{from_days}");
    };
    window(&office, 0, 7, &[]);
    window(&office, 0, 8, &["window-long"]);
    window(&office, 0, 32, &["window-long", "refused"]);
    window(&office, -3, -1, &["window-over", "refused"]);
    window(&office, 8, 9, &["window-ahead"]);
}

#[test]
fn a_template_that_no_device_uses_is_warned_of() {
    let office = Office::new();
    let second = "[[template]]\nname = \"other\"\npath = [\"issuing.pem\"]\n[[template.replace]]\n\
                  cell = \"supplier digitalSignature\"\ncertificate = \"signing.pem\"\n[[template.replace]]\n\
                  cell = \"supplier keyAgreement\"\ncertificate = \"agreement.pem\"\n[[template.replace]]\n\
                  cell = \"supplier keyAgreement prePaymentTopUp\"\ncertificate = \"agreement.pem\"\n[[template]]";
    check(&office, "[[template]]", second, &["template-unused"]);
}

#[test]
fn what_the_policy_would_refuse_is_said_before_anybody_signs() {
    let office = Office::new();
    check(&office, "proposer = \"operator-1\"", "proposer = \"stranger\"", &["refused"]);
    check(&office, "weight = \"met\"", "weight = \"towards\"", &["refused"]);
    check(&office, "label = \"recovery-1\"", "label = \"ledger-1\"", &["refused"]);
    let (stem, _) = office.draft();
    // Another policy than the one the document names counts nobody.
    let text = office.scratch.text("policy/policy.toml").replace("approvals = 2", "approvals = 3");
    office.scratch.write("policy/policy.toml", text);
    let shown = office.smkictl(&format!("determination show {stem}.json --policy policy --output json")).ok().json();
    assert_eq!(shown["warnings"][0]["name"], "other-policy");
    assert_eq!(shown["signatures"]["standings"], serde_json::json!([]));
    let shown = office.warnings(&stem, "--compromised other.pem");
    assert_eq!(shown, ["other-compromised"]);
}

/// A document with a template that `smkictl draft` would not write.
fn altered(office: &Office, change: impl FnOnce(&mut Determination)) -> String {
    let (stem, _) = office.draft();
    let octets = office.scratch.read(&format!("{stem}.json"));
    let written: Written<Determination> = Written::read(octets).unwrap();
    let mut form = written.form().clone();
    change(&mut form);
    assert_eq!(form.decision, Decision::Execute);
    let octets = Written::write(&form).unwrap().octets().to_vec();
    office.scratch.write("altered.json", octets);
    "altered".to_owned()
}

#[test]
fn modes_that_the_method_does_not_have_and_templates_that_say_nothing_are_warned_of() {
    let office = Office::new();
    office.draft_toml(|text| text);
    let stem = altered(&office, |form| {
        let template = &mut form.templates.as_mut().unwrap()[0];
        let octets = template.payload.octets().to_vec();
        let parsed = Template::parse(&octets).unwrap();
        let mut update = parsed.update();
        update.mode = CredentialsReplacementMode::SupplierBySupplier;
        update.new_floor = SeqNumber::new(5);
        update.replacements.clear();
        template.payload = Payload::new(Template::from_update(&update).unwrap().octets()).unwrap();
    });
    let found = office.warnings(&stem, "--policy policy");
    assert_eq!(found, ["mode", "no-replacement"]);
    let stem = altered(&office, |form| {
        form.templates.as_mut().unwrap()[0].payload = Payload::new(&b"\x30\x03\x02\x01\x08"[..]).unwrap();
    });
    assert_eq!(office.warnings(&stem, ""), ["template-unreadable"]);
    let sha256 = smkid::domain::names::Digest::of(&office.scratch.read("altered.json"));
    office
        .smkictl(&format!(
            "determination sign altered.json --key anna.key --certificate anna.pem --member anna --confirm {sha256}"
        ))
        .is(4)
        .says("template single cannot be decoded");
    assert!(!office.scratch.path("altered.anna.p7s").exists());
}

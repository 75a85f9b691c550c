use super::super::in_force::tests::{at, extension, shipped, step, view};
use super::*;

fn form(directs: Directs) -> Direction {
    Direction {
        r#type: Type::new(),
        purpose: Purpose::Exercise,
        id: DirectionId([1; 16]),
        proposer: "operator-1".parse().unwrap(),
        ledger: LedgerHead { origin: "smkid.example/ledger".parse().unwrap(), size: 9, root: Digest([2; 32]) },
        policy: Digest([3; 32]),
        reference: "Direction of 1 November 2017".parse().unwrap(),
        text: None,
        directs,
    }
}

fn extends(variation: &str, until: Option<&str>) -> Directs {
    let until = until.map(|date| date.parse().unwrap());
    Directs::Extension { variation: variation.parse().unwrap(), until }
}

fn departs(id: &str) -> Directs {
    let reason = "The thresholds in force suffice.".parse().unwrap();
    Directs::Departure { incident: "INC-1".parse().unwrap(), step: step(id), reason }
}

#[test]
fn a_direction_is_read_as_it_was_written_and_in_no_other_form() {
    for directs in [extends("direction-2017-07-18", Some("2018-01-31")), extends("x", None), departs("submit-adt-file")]
    {
        let written = Written::write(&form(directs)).unwrap();
        assert_eq!(Written::<Direction>::read(written.octets()).unwrap(), written);
    }
    let octets = Written::write(&form(extends("x", None))).unwrap().octets().to_vec();
    let text = String::from_utf8(octets).unwrap();
    for (from, to, expected) in [
        ("\"until\": null", "\"until\": \"2018-02-30\"", "expected a date such as 2017-07-21"),
        (",\n      \"until\": null", "", "missing field `until`"),
        ("\"text\": null,", "", "missing field `text`"),
        ("\"variation\"", "\"edits\": 1, \"variation\"", "unknown field `edits`"),
        ("\"extension\"", "\"edit\"", "unknown variant `edit`"),
        ("smkid-direction/v1", "smkid-withdrawal/v1", "expected smkid-direction/v1"),
    ] {
        assert!(text.contains(from), "{from} in {text}");
        let faults = Written::<Direction>::read(text.replace(from, to).into_bytes()).unwrap_err();
        assert!(faults[0].to_string().contains(expected), "{to}: {faults:?}");
    }
}

#[test]
fn a_direction_does_only_what_the_procedure_lets_it() {
    let policy = shipped("included");
    let ask = |directs: Directs, extensions: &[Extension], view: Option<&IncidentView<'_>>, moment: &str| {
        let document = Written::write(&form(directs)).unwrap();
        check(&document, policy.procedure(), extensions, view, at(moment)).map_err(|fault| fault.to_string())
    };
    let (stands, over) = ("2017-11-02T23:59:59.999Z", "2017-11-03T00:00:00Z");
    let later = || extends("direction-2017-07-18", Some("2018-01-31"));
    assert_eq!(ask(later(), &[], None, stands), Ok(()));
    assert!(ask(later(), &[], None, over).unwrap_err().contains("does not bridge a gap"));
    let unknown = ask(extends("direction-of-nobody", None), &[], None, stands).unwrap_err();
    assert!(unknown.contains("(direction-2017-07-18)") && unknown.contains("direction-of-nobody"), "{unknown}");
    let shorter = extends("direction-2017-07-18", Some("2017-10-01"));
    assert!(ask(shorter, &[], None, stands).unwrap_err().contains("would not prolong it"));
    assert!(
        ask(later(), &[extension(5, Some("2018-01-31"))], None, stands).unwrap_err().contains("would not prolong it")
    );

    let open = view(super::super::Determined::None, &["notify-compromise"]);
    assert_eq!(ask(departs("submit-adt-file"), &[], Some(&open), stands), Ok(()));
    assert!(ask(departs("dance"), &[], Some(&open), stands).unwrap_err().contains("has no step dance"));
    for fixed in ["determine", "activate-key", "execute", "close"] {
        assert!(
            ask(departs(fixed), &[], Some(&open), stands).unwrap_err().contains("departure = \"never\""),
            "{fixed}"
        );
    }
    let done = view(super::super::Determined::None, &["submit-adt-file"]);
    assert!(
        ask(departs("submit-adt-file"), &[], Some(&done), stands).unwrap_err().contains("was taken in incident INC-1")
    );
    let mut departed = open;
    departed.departures.insert(step("submit-adt-file"), DirectionId([7; 16]));
    assert!(ask(departs("submit-adt-file"), &[], Some(&departed), stands).unwrap_err().contains("0707"));

    let document = Written::write(&form(later())).unwrap();
    assert_eq!(check(&document, None, &[], None, at(stands)), Err(DirectionFault::NoProcedure));
}

use super::*;

struct Place(tempfile::TempDir);

impl Place {
    fn new(text: &str) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        std::fs::write(place.path("rough.csv"), text).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn args(&self) -> Devices {
        let template = Some("esme".parse().unwrap());
        Devices { from: self.path("rough.csv"), out: Some(self.path("list.txt")), template, faults: FAULTS_MAX }
    }

    fn list(&self) -> String {
        std::fs::read_to_string(self.path("list.txt")).unwrap()
    }

    #[track_caller]
    fn refused(&self, args: &Devices, expected: &str) {
        let Err(error) = make(args, 2) else { panic!("expected a refusal") };
        let text = error.to_string();
        assert!(text.contains(expected), "expected {expected:?}, found {text}");
        assert_eq!(std::fs::read_dir(self.0.path()).unwrap().count(), 1, "nothing is left behind");
    }
}

#[test]
fn a_list_is_made_of_an_export_however_many_runs_it_takes() {
    let text = "\u{feff}Device,Template,Counter\r\n00db1234567890a2,gsme,7\r\n00DB1234567890A1\r\n\r\n\
                00-DB-12-34-56-78-90-A0,esme\r\n00DB1234567890A1,esme\r\n\"00DB1234567890A4\",esme\r\n00DB1234567890A3,,";
    for run_len in [1, 2, 3, 5, 6, 100] {
        let place = Place::new(text);
        let made = make(&place.args(), run_len).unwrap();
        let expected = "00DB1234567890A0,esme\n00DB1234567890A1,esme\n00DB1234567890A2,gsme,7\n00DB1234567890A3,esme\n00DB1234567890A4,esme\n";
        assert_eq!(place.list(), expected, "runs of {run_len}");
        assert_eq!(made.list.count, 5);
        assert_eq!(made.list.sha256, crate::domain::names::Digest::of(expected.as_bytes()));
        let Changed { tidied, moved, template, again } = made.changed;
        let counted = Tidied { empty: 1, header: 1, mark: 1, carriage_return: 7, digits: 2, around: 2 };
        assert_eq!((tidied, moved, template, again), (counted, 4, 2, 1));
        assert_eq!(std::fs::read_dir(place.0.path()).unwrap().count(), 2, "runs are gone");
    }
}

#[test]
fn a_list_comes_out_as_it_is_and_no_file_is_overwritten() {
    let text = "00DB1234567890A0,esme\n00DB1234567890A1,esme,18446744073709551615\n";
    let place = Place::new(text);
    let made = make(&place.args(), 2).unwrap();
    assert_eq!(place.list(), text);
    let Changed { tidied, moved, template, again } = made.changed;
    assert_eq!((tidied, moved, template, again), (Tidied::default(), 0, 0, 0));
    assert!(matches!(make(&place.args(), 2), Err(MemberError::Exists { .. })));
    let made = make(&Devices { out: None, ..place.args() }, 2).unwrap();
    assert_eq!(made.list.count, 2);
}

#[test]
fn what_cannot_be_a_list_is_told_line_by_line_up_to_as_many_as_asked_for_and_nothing_is_written() {
    let place = Place::new("00DB1234567890A0,esme\nx\n00DB1234567890A1,esme,07\ny\n");
    place.refused(&place.args(), "line 2: expected an EUI-64");
    place.refused(&place.args(), "line 3: expected a counter");
    place.refused(&Devices { faults: 2, ..place.args() }, "and 1 more");
    place.refused(&Devices { faults: 0, ..place.args() }, "and 3 more");
    let place =
        Place::new("00DB1234567890A1,esme\n00DB1234567890A0,esme\n00DB1234567890A2,esme\n00DB1234567890A1,esme,7\n");
    place.refused(&place.args(), "line 4: 00DB1234567890A1 stands in line 1 too, with another template or counter");
    let place = Place::new("00DB1234567890A1\n");
    place.refused(&Devices { template: None, ..place.args() }, "line 1: 00DB1234567890A1 has no template");
    let place = Place::new("");
    place.refused(&place.args(), "expected at least one Device");
    let many = (0..=TEMPLATES_MAX).fold(String::new(), |text, n| text + &format!("00DB1234567890{n:02X},t-{n}\n"));
    let place = Place::new(&many);
    place.refused(&place.args(), &format!("line 17: expected at most {TEMPLATES_MAX} templates, found one more: t-16"));
}

#[test]
fn a_line_that_is_too_long_is_one_fault() {
    let long = "A".repeat(3 * ROUGH_LEN_MAX);
    let place = Place::new(&format!("{long}\n00DB1234567890A1,esme\n{long}"));
    let Err(MemberError::Devices { faults, .. }) = make(&place.args(), 2) else { panic!("expected faults") };
    assert_eq!(faults.lines().count(), 2, "{faults}");
    assert!(faults.contains("line 1:") && faults.contains("line 3:"), "{faults}");
}

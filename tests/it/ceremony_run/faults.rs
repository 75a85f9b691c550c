//! Everything that can be wrong with a plan, told with its line before anybody comes.

use crate::ceremony::Stage;

/// A plan that was edited; where its fault is told, as the n-th line with that in it (0: in no line); and the fault.
type Fault<'a> = (&'a dyn Fn(&str) -> String, (&'a str, usize), &'a str);

/// The block of a plan that begins with that header and has that line in it.
pub fn block<'a>(plan: &'a str, header: &str, line: &str) -> &'a str {
    let starts = plan.match_indices(header).map(|(at, _)| at);
    let blocks = starts.map(|at| {
        let rest = &plan[at + header.len()..];
        &plan[at..at + header.len() + rest.find("\n[[").map_or(rest.len(), |end| end + 1)]
    });
    blocks.into_iter().find(|block| block.contains(line)).unwrap()
}

/// The line of a plan that starts so.
pub fn line<'a>(plan: &'a str, start: &str) -> &'a str {
    plan.lines().find(|line| line.starts_with(start)).unwrap()
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table, one row for each fault")]
fn every_fault_of_a_plan_is_told_with_its_line() {
    let stage = Stage::planned();
    let check = |(edit, (at, nth), fault): Fault<'_>| {
        let plan = stage.scratch.text("plan.toml");
        let text = edit(&plan);
        assert_ne!(text, plan, "the edit met nothing: {fault}");
        stage.scratch.write("edited.toml", &text);
        let said = stage.expect(1, "the plan edited.toml", "check edited.toml");
        let mut lines = text.lines().enumerate().filter(|(_, line)| line.starts_with(at));
        let place = match nth {
            0 => String::new(),
            nth => format!("line {}: ", lines.nth(nth - 1).unwrap().0 + 1),
        };
        assert!(said.contains(&format!("  {place}{fault}")), "expected {place}{fault} in\n{said}");
    };
    // Another configuration: the ledger's key elsewhere, and a token less.
    let configuration = stage.scratch.text("smkid.toml");
    stage.scratch.write("ledger-b.toml", configuration.replace("token = \"ledger-a\"", "token = \"smki-a\""));
    stage.scratch.write("fewer.toml", configuration.replace("name = \"smki-a\"", "name = \"smki-z\""));
    let person = "[[person]]";
    let faults: &[Fault<'_>] = &[
        (
            &|plan| plan.replace("purpose = \"exercise\"", "purpose = \"live\""),
            ("purpose = ", 1),
            "purpose: the policy is exercise",
        ),
        (
            &|plan| plan.replace(line(plan, "policy_digest"), &format!("policy_digest = \"{}\"", "0".repeat(64))),
            ("policy_digest = ", 1),
            "policy_digest: the policy in",
        ),
        (
            &|plan| plan.replace(line(plan, "origin = "), "origin = \"other.example/ledger\""),
            ("origin = ", 1),
            "origin: the policy is for",
        ),
        (
            &|plan| plan.replace(line(plan, "configuration = "), "configuration = \"ledger-b.toml\""),
            ("configuration = ", 1),
            "",
        ),
        (
            &|plan| plan.replace(line(plan, "configuration = "), "configuration = \"fewer.toml\""),
            ("configuration = ", 1),
            "",
        ),
        (
            &|plan| plan.replace("Room 4, Hut 6, Newport", "to be written: where"),
            ("place = ", 1),
            "place: expected the room",
        ),
        // People.
        (&|plan| format!("{plan}{}", block(plan, person, "\"Guest\"")), (person, 7), "person Guest stands here twice"),
        (
            &|plan| plan.replace("\"Guest\"", "\"Guest, Ada\""),
            (person, 2),
            "person Guest, Ada: a name without a comma is expected",
        ),
        (
            &|plan| plan.replace("id = \"auditor-1\"", "id = \"auditor-9\""),
            (person, 3),
            "person auditor-9: the policy knows nobody of that id",
        ),
        (
            &|plan| plan.replace("id = \"auditor-1\"\n", ""),
            (person, 3),
            "person Auditor One: who comes as auditor is named by the policy",
        ),
        (
            &|plan| plan.replace("\"Operator One\"", "\"Operator Two\""),
            (person, 1),
            "person operator-1: the policy calls them Operator One",
        ),
        (
            &|plan| plan.replace("\"conductor\"", "\"auditor\""),
            (person, 1),
            "person operator-1: the policy does not have them as auditor",
        ),
        (
            &|plan| plan.replace("\"conductor\"", "\"auditor\""),
            ("", 0),
            "person: expected one with the capacity \"conductor\", found 0",
        ),
        (&|plan| plan.replace("\"witness\"", "\"engineer\""), ("", 0), "person: expected at least 2 who bear witness"),
        // Keys.
        (
            &|plan| format!("{plan}{}", block(plan, "[[key]]", "\"ledger-1\"")),
            ("[[key]]", 1),
            "key ledger-1: it stands here twice",
        ),
        (
            &|plan| plan.replace(line(block(plan, "[[key]]", "\"recovery-1\""), "cka_id"), line(plan, "cka_id")),
            ("[[key]]", 2),
            "key recovery-1: its cka_id is that of ledger-1",
        ),
        (&|plan| plan.replacen("\"sensitive\", ", "", 1), ("[[key]]", 1), "key ledger-1: attributes: expected"),
        (
            &|plan| plan.replace("label = \"recovery-1\"", "label = \"recovery-9\""),
            ("[[key]]", 2),
            "key recovery-9: the policy has no such key",
        ),
        (
            &|plan| plan.replace(block(plan, "[[key]]", "\"recovery-1\""), ""),
            ("", 0),
            "key recovery-1: the policy has it and the plan does not",
        ),
        (
            &|plan| plan.replace("token = \"smki-a\"", "token = \"ledger-a\""),
            ("[[key]]", 2),
            "key recovery-1: the policy has it as a recovery key on token smki-a",
        ),
        (
            &|plan| plan.replace("use = \"recovery\"", "use = \"contingency\""),
            ("[[key]]", 2),
            "key recovery-1: the policy has it as a recovery key",
        ),
        (
            &|plan| plan.replace("token = \"smki-a\"", "token = \"smki-a\"\ncopies = [\"ledger-a\"]"),
            ("[[key]]", 2),
            "key recovery-1: the policy does not have it cloned to token ledger-a",
        ),
        (
            &|plan| plan.replace("token = \"smki-a\"", "token = \"smki-a\"\ncopies = [\"smki-z\"]"),
            ("[[key]]", 2),
            "no [[token]] of the configuration is called smki-z",
        ),
        (
            &|plan| plan.replace(line(plan, "chain = "), ""),
            ("[[key]]", 2),
            "key recovery-1: expected `certificate` and `chain`",
        ),
        (
            &|plan| plan.replace("kind = \"first\"", "kind = \"renewal\""),
            ("[[key]]", 1),
            "key ledger-1: the SMKI certifies a recovery key here",
        ),
        (
            &|plan| {
                let none = plan.replace(block(plan, "[[key]]", "\"recovery-1\""), "");
                none.replace(block(&none, "[[key]]", "\"ledger-1\""), "").replace("kind = \"first\"", "kind = \"copy\"")
            },
            ("", 0),
            "key: a copy ceremony is about at least one key; found none",
        ),
        // Shares.
        (
            &|plan| format!("{plan}{}", block(plan, "[[shares]]", "recovery-1")),
            ("[[shares]]", 2),
            "shares of key recovery-1: they stand here twice",
        ),
        (
            &|plan| plan.replace("key = \"recovery-1\"", "key = \"recovery-9\""),
            ("[[shares]]", 1),
            "shares of key recovery-9: the policy has no such key",
        ),
        (
            &|plan| plan.replace("key = \"recovery-1\"", "key = \"ledger-1\""),
            ("[[shares]]", 1),
            "shares of key ledger-1: the policy does not have it activated by custodians",
        ),
        (
            &|plan| plan.replace(block(plan, "[[shares]]", "recovery-1"), ""),
            ("", 0),
            "shares: key recovery-1 is activated by custodians",
        ),
        (
            &|plan| plan.replace("threshold = 2", "threshold = 3"),
            ("[[shares]]", 1),
            "shares of key recovery-1: threshold: the policy says 2",
        ),
        (
            &|plan| plan.replace("share = \"share-1\"", "share = \"share-2\""),
            ("[[shares]]", 1),
            "shares of key recovery-1: share-2 stands there twice",
        ),
        (
            &|plan| plan.replace("share = \"share-1\"", "share = \"share-2\""),
            ("[[shares]]", 1),
            "shares of key recovery-1: the policy gives share-1 to custodian-1",
        ),
        (
            &|plan| plan.replace("person = \"custodian-1\"", "person = \"custodian-2\""),
            ("[[shares]]", 1),
            "shares of key recovery-1: share-1 is not among the shares",
        ),
        (
            &|plan| plan.replace("person = \"custodian-1\"", "person = \"member-1\""),
            ("[[shares]]", 1),
            "shares of key recovery-1: member-1 is no Key Custodian in force",
        ),
        (
            &|plan| plan.replace(block(plan, person, "\"custodian-2\""), ""),
            ("[[shares]]", 1),
            "shares of key recovery-1: custodian-2 takes share-2 and does not come",
        ),
        (
            &|plan| plan.replace("person = \"custodian-3\"", "person = \"custodian-3\", certificate = \"no.pem\""),
            ("[[shares]]", 1),
            "shares of key recovery-1: ./no.pem",
        ),
        (
            &|plan| {
                let lines = plan.lines().filter(|line| !line.contains("\"share-2\"") && !line.contains("\"share-3\""));
                lines.collect::<Vec<_>>().join("\n")
            },
            ("[[shares]]", 1),
            "shares of key recovery-1: expected holders of at least 2 Parties, found 1",
        ),
        // What TOML itself does not take has its line, too.
        (&|plan| plan.replace("place = ", "plaice = "), ("plaice", 1), "unknown field"),
        (&|plan| plan.replace("version = 1", "version = 2"), ("version = ", 1), "expected version = 1, found 2"),
    ];
    for fault in faults {
        check(*fault);
    }
    // What the policy brings about.
    let changed = |file: &str, from: &str, to: &str, fault: Fault<'_>| {
        let file = format!("policy/{file}");
        let before = stage.scratch.text(&file);
        assert!(before.contains(from), "{before}");
        stage.scratch.write(&file, before.replacen(from, to, 1));
        check(fault);
        stage.scratch.write(&file, before);
    };
    let as_it_is = |plan: &str| plan.replace("Room 4", "Room 5");
    let second = "modes = [8]\noriginator = \"90B3D51F30000002\"\nactivation = \"custodians\"\n\n[[key]]\nlabel = \"contingency-1\"\nuse = \
                  \"contingency\"\ntoken = \"smki-a\"\nmodes = []\noriginator = \"90B3D51F30000003\"\nactivation = \"custodians\"\n";
    changed(
        "keys.toml",
        "modes = [8]\noriginator = \"90B3D51F30000002\"\nactivation = \"custodians\"\n",
        second,
        (
            &as_it_is,
            ("[[shares]]", 1),
            "shares of key recovery-1: the policy has key contingency-1 on token smki-a too",
        ),
    );
    let keys = stage.scratch.text("policy/keys.toml");
    let from = &keys[keys.find("name = \"smki-a\"").unwrap()..keys.find("modes = [8]").unwrap()];
    let cloned =
        format!("name = \"smki-b\"\n\n[[token]]\n{from}copies = [{{ token = \"smki-b\", by = \"cloning\" }}]\n");
    changed(
        "keys.toml",
        from,
        &cloned,
        (&as_it_is, ("[[key]]", 2), "key recovery-1: the policy has it cloned to token smki-b; add it to `copies`"),
    );
    let persons = stage.scratch.text("policy/persons.toml");
    let auditor = &persons[persons.find("id = \"auditor-1\"").unwrap()..];
    let auditor = &auditor[..auditor.find("\n\n").unwrap_or(auditor.len())];
    let later = auditor.replace("from = \"2026", "from = \"2036");
    changed("persons.toml", auditor, &later, (&as_it_is, (person, 3), "person auditor-1: their appointment is"));
}

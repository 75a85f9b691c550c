//! Files of Responses and certificates as `smkictl` takes them in: each fault where it stands, twice over, killed in the middle.

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Stdio};

use smkid::domain::ledger::entry::CertificateTally;
use smkid::domain::responses::messages::MESSAGES_LEN_MAX;

use super::*;

/// Runs `smkictl recovery`, and gives its status and what it said.
fn recovery(site: &Site, arguments: &[&str]) -> (i32, String) {
    let output = smkictl(site, arguments).output().unwrap();
    let said = [&output.stdout, &output.stderr].map(|said| String::from_utf8_lossy(said).into_owned()).concat();
    (output.status.code().unwrap(), said)
}

fn smkictl(site: &Site, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_smkictl"));
    command.arg("recovery").args(arguments).env("SMKID_SOCKET", &site.socket).current_dir(site.path(""));
    command
}

fn of(determination: DeterminationId) -> String {
    format!("--determination={determination}")
}

/// The lines of a list of faults: file, where, what, why.
fn faults(path: &Path) -> Vec<(String, String, String, String)> {
    let text = std::fs::read_to_string(path).unwrap();
    let read = |line: &str| {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        let text = |name: &str| value[name].as_str().unwrap().to_owned();
        let at = if value["line"].is_null() {
            format!("octet {}", value["octet"])
        } else {
            format!("line {}", value["line"])
        };
        (text("file"), at, text("result"), text("detail"))
    };
    text.lines().map(read).collect()
}

/// Each is told with file, place, result and something of the detail.
fn check(told: &[(String, String, String, String)], expected: &[(&str, &str, &str, &str)]) {
    let mut are_as = told.iter().zip(expected).map(|((file, at, result, detail), expected)| {
        (&**file, &**at, &**result) == (expected.0, expected.1, expected.2) && detail.contains(expected.3)
    });
    assert!(told.len() == expected.len() && are_as.all(|is_as| is_as), "{told:#?}");
}

fn imports(site: &Site) -> Vec<CertificateTally> {
    let tally = |entry: &Entry| match &entry.event {
        Event::DeviceCertificatesImported(imported) => Some(imported.tally),
        _ => None,
    };
    site.ledger().entries.iter().filter_map(tally).collect()
}

#[tokio::test]
async fn certificates_are_imported_once_and_every_fault_in_files_of_any_form_is_told_where_it_stands() {
    let site = Site::determined().await;
    let (lab, determination) = (&site.base.lab, site.main());
    let daemon = site.start_active().await;
    let client = &daemon.client;
    let items = whole(lines(client, "/v1/recovery/sign", &ask_for(determination, 0..8)).await);
    let command = |n: usize| items[n].command.as_ref().unwrap().0.as_slice();
    let meters: Vec<Meter> = (0..8).map(|n| Meter::new(lab, n)).collect();
    let good = |n: usize| meters[n].answer(command(n), AS_SENT);
    let elsewhere = Lab::new(wall_clock()).unwrap();

    // Line by line: chatter, three certificates, one of another CA, one of an organisation, one that is broken, one twice.
    let pem = |octets: &[u8]| certificate_to_pem(octets);
    let foreign = elsewhere.certify_device(device(6), meters[6].key.public()).unwrap();
    let mut text = String::from("Certificates of Devices\n");
    let mut places = Vec::new();
    let mut put = |block: &str| {
        places.push(text.lines().count() + 1);
        text.push_str(block);
    };
    put(&pem(&meters[0].certificate));
    put(&pem(&foreign));
    put(&pem(lab.before()[0].octets()));
    put("-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n");
    put(&pem(&meters[1].certificate));
    put(&pem(&meters[0].certificate));
    put("-----BEGIN CERTIFICATE-----\nMIIB\n");
    std::fs::write(site.path("some.pem"), &text).unwrap();
    // A directory: DER one after another, of which the end is cut off; a second certificate of Device 3, with another key.
    std::fs::create_dir(site.path("others")).unwrap();
    let second = Meter::new(lab, 3);
    let whole_ones = [&meters[2].certificate[..], &meters[3].certificate, &second.certificate].concat();
    let cut = [&whole_ones[..], &meters[4].certificate[..100]].concat();
    std::fs::write(site.path("others/a.der"), &cut).unwrap();
    std::fs::write(site.path("others/b.der"), &meters[5].certificate).unwrap();

    let (status, said) = recovery(&site, &["certificates", "import", "some.pem", "--dry-run"]);
    assert!(status == 0 && said.contains("/v1/recovery/certificates"), "{status}: {said}");
    assert_eq!(imports(&site), []);
    let import = |list: &str| recovery(&site, &["certificates", "import", "some.pem", "others", "--refused", list]);
    let (status, said) = import("refused.ndjson");
    assert_eq!(status, 6, "{said}");
    let line = |n: usize| format!("line {}", places[n]);
    let lines_of = [1, 2, 3, 6].map(line);
    let octet = format!("octet {}", whole_ones.len());
    let expected = [
        ("some.pem", lines_of[2].as_str(), "unreadable", "expected a certificate in PEM"),
        ("some.pem", lines_of[3].as_str(), "unreadable", "to end the block that begins here"),
        ("others/a.der", octet.as_str(), "unreadable", "the rest of the file was not read"),
        ("some.pem", lines_of[0].as_str(), "refused", "expected a certificate of its issuer"),
        ("some.pem", lines_of[1].as_str(), "refused", ""),
    ];
    check(&faults(&site.path("refused.ndjson")), &expected);
    // Again, after a break for all one knows: nothing is new, and the list is not written over.
    let (status, said) = import("refused.ndjson");
    assert!(status == 1 && said.contains("is not overwritten"), "{status}: {said}");
    let (status, said) = import("again.ndjson");
    assert_eq!(status, 6, "{said}");
    check(&faults(&site.path("again.ndjson")), &expected);
    let tallies =
        [(6, 1, 2), (0, 7, 2)].map(|(imported, known, refused)| CertificateTally { imported, known, refused });
    assert_eq!(imports(&site), tallies);

    // What is known in full is no entry.
    std::fs::write(site.path("known.der"), &whole_ones).unwrap();
    let (status, said) = recovery(&site, &["certificates", "import", "known.der"]);
    assert!(status == 0 && said.contains("known before"), "{status}: {said}");
    assert_eq!(imports(&site), tallies);

    // Hexadecimal with a line of something else, and binary that ends in something else.
    let mut flipped = good(1);
    *flipped.last_mut().unwrap() ^= 1;
    let by_second = second.answer(command(3), AS_SENT);
    let hex = |octets: &[u8]| hex::encode(octets) + "\n";
    let answers = [hex(&good(0)), "\n".into(), "nonsense\n".into(), hex(&flipped), hex(&good(6)), hex(&good(7)[..99])];
    std::fs::write(site.path("answers.hex"), answers.concat()).unwrap();
    let ends = [good(2), by_second].concat();
    std::fs::write(site.path("answers.bin"), [&ends[..], b"\xDFthe end"].concat()).unwrap();
    let hand_in = |list: &str| {
        recovery(&site, &["responses", "answers.hex", "answers.bin", &of(determination), "--unproven", list])
    };
    let (status, said) = hand_in("unproven.ndjson");
    assert_eq!(status, 6, "{said}");
    let octet = format!("octet {}", ends.len());
    check(
        &faults(&site.path("unproven.ndjson")),
        &[
            ("answers.hex", "line 3", "unreadable", "found \"nonsense\""),
            ("answers.bin", &octet, "unreadable", "the rest of the file was not read"),
            ("answers.hex", "line 4", "unverified", "the signature does not verify"),
            ("answers.hex", "line 5", "unverified", "no certificate of the Device was given or imported before"),
            ("answers.hex", "line 6", "malformed", "octet"),
        ],
    );
    let succeeded = [0, 2, 3].map(device);
    let states_of = async || states(client, determination, "&state=succeeded").await.into_keys().collect::<Vec<_>>();
    assert_eq!(states_of().await, succeeded);
    let (status, said) = hand_in("again-unproven.ndjson");
    assert_eq!(status, 6, "{said}");
    let found = faults(&site.path("again-unproven.ndjson"));
    assert_eq!(found.iter().filter(|fault| fault.2 == "duplicate").count(), 3, "{found:#?}");
    assert_eq!(states_of().await, succeeded);

    // One that is given with its Response does where none was imported, and needs no import.
    std::fs::write(site.path("seven.pem"), pem(&meters[7].certificate)).unwrap();
    std::fs::write(site.path("seven.hex"), hex(&good(7))).unwrap();
    let (status, said) =
        recovery(&site, &["responses", "seven.hex", "--certificates", "seven.pem", &of(determination)]);
    assert_eq!(status, 0, "{said}");
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
    // The keys are there again after a start.
    let daemon = site.start_active().await;
    std::fs::write(site.path("five.bin"), good(5)).unwrap();
    let (status, said) = recovery(&site, &["responses", "five.bin", &of(determination)]);
    assert_eq!(status, 0, "{said}");
    assert!(daemon.stop().await.unwrap().success());
}

/// What fills a file without proving anything.
fn filler(command: &[u8]) -> String {
    (hex::encode(command) + "\n").repeat(usize::try_from(MESSAGES_LEN_MAX).unwrap() / command.len() + 1)
}

fn kill(mut client: Child) {
    client.kill().unwrap();
    client.wait().unwrap();
}

#[tokio::test]
async fn a_client_that_is_killed_in_the_middle_of_a_file_begins_again_and_nothing_counts_twice() {
    let site = Site::determined().await;
    let (lab, determination) = (&site.base.lab, site.main());
    let daemon = site.start_active().await;
    let client = &daemon.client;
    let items = whole(lines(client, "/v1/recovery/sign", &ask_for(determination, 0..6)).await);
    let command = |n: usize| items[n].command.as_ref().unwrap().0.as_slice();
    let meters: Vec<Meter> = (0..6).map(|n| Meter::new(lab, n)).collect();
    let answer = |n: usize| hex::encode(meters[n].answer(command(n), AS_SENT)) + "\n";
    let certificates: String = meters.iter().map(|meter| certificate_to_pem(&meter.certificate)).collect();
    std::fs::write(site.path("devices.pem"), certificates).unwrap();
    let (status, said) = recovery(&site, &["certificates", "import", "devices.pem"]);
    assert_eq!(status, 0, "{said}");

    // More than one part has: the first goes out while the rest is not there yet, for whoever writes it waits.
    let first: String = (0..3).map(answer).collect::<String>() + &filler(command(0)) + &answer(3);
    let rest: String = (4..6).map(answer).collect();
    let pipe = site.path("answers.pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600), 0)
        .unwrap();
    let mut sending = smkictl(&site, &["responses", "answers.pipe", &of(determination)]);
    let sending = sending.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let text = first.clone();
    let writing = tokio::task::spawn_blocking(move || {
        let mut pipe = std::fs::OpenOptions::new().write(true).open(pipe).unwrap();
        pipe.write_all(text.as_bytes()).unwrap();
        pipe
    });
    let pipe = writing.await.unwrap();
    let entries = async || {
        let path = "/v1/ledger/entries?kind=responses-taken";
        client.get::<wire::Entries>(path).await.unwrap().entries.len()
    };
    while entries().await == 0 {
        tokio::task::yield_now().await;
    }
    kill(sending);
    drop(pipe);
    assert_eq!(entries().await, 1);
    assert_eq!(states(client, determination, "&state=succeeded").await.len(), 3);

    std::fs::write(site.path("answers.hex"), first + &rest).unwrap();
    let (status, said) = recovery(&site, &["responses", "answers.hex", &of(determination), "--unproven", "list"]);
    assert_eq!(status, 6, "{said}");
    let found = faults(&site.path("list"));
    let said_before = found.iter().filter(|fault| fault.3.contains("has recovered")).map(|fault| fault.1.as_str());
    assert_eq!(said_before.collect::<Vec<_>>(), ["line 1", "line 2", "line 3"]);
    assert_eq!(states(client, determination, "&state=succeeded").await.len(), 6);
    let recovered = |entry: &Entry| match &entry.event {
        Event::ResponsesTaken(taken) => Some(taken.tally.recovered),
        _ => None,
    };
    assert_eq!(site.ledger().entries.iter().filter_map(recovered).sum::<u64>(), 6);
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn certificates_and_responses_come_in_while_commands_are_signed() {
    let site = Site::determined().await;
    let (lab, determination) = (&site.base.lab, site.main());
    let daemon = site.start_active().await;
    let client = &daemon.client;
    let items = whole(lines(client, "/v1/recovery/sign", &ask_for(determination, 0..2)).await);
    let meters: Vec<Meter> = (0..2).map(|n| Meter::new(lab, n)).collect();
    let bundle = meters.iter().flat_map(|meter| meter.certificate.clone()).collect::<Vec<u8>>();
    let answers: Vec<Vec<u8>> = items
        .iter()
        .zip(&meters)
        .map(|(item, meter)| meter.answer(item.command.as_ref().unwrap().0.as_slice(), AS_SENT))
        .collect();
    let taking_in = async {
        let certificates = upload(client, bundle).await.sha256;
        let ask = wire::DeviceCertificates { certificates };
        let imported: wire::CertificatesImported = client.post("/v1/recovery/certificates", &ask).await.unwrap();
        assert_eq!((imported.tally.imported, imported.refused), (2, vec![]));
        let responses = upload(client, answers.concat()).await.sha256;
        let ask = wire::RecoveryResponses { determination, responses, certificates: None };
        client.post_for_text("/v1/recovery/responses", &ask).await.unwrap()
    };
    let ask = ask_for(determination, 2..300);
    let (text, signed) = tokio::join!(taking_in, lines(client, "/v1/recovery/sign", &ask));
    let last: wire::ResponsesSummaryLine = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!((last.summary.tally.recovered, whole(signed).len()), (2, 298));

    // What is no bundle, or waits no longer, is said so.
    let refused = async |octets: &[u8]| {
        let ask = wire::DeviceCertificates { certificates: upload(client, octets.to_vec()).await.sha256 };
        problem(client.post::<_, wire::CertificatesImported>("/v1/recovery/certificates", &ask).await).message
    };
    assert!(refused(b"").await.contains("nothing"));
    assert!(refused(b"-----BEGIN CERTIFICATE-----").await.contains("octet 0"));
    let never = wire::DeviceCertificates { certificates: smkid::domain::names::Digest::of(b"never uploaded") };
    let refused = client.post::<_, wire::CertificatesImported>("/v1/recovery/certificates", &never).await;
    assert!(problem(refused).message.contains("an upload that waits"));
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
}

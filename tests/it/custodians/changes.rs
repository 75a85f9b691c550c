//! Who holds shares, and how many are needed, changes while smkid runs and signs: each Device gets one command all the same.

use std::path::Path;

use secrecy::ExposeSecret as _;
use smkid::custody::file::Changing;
use smkid::custody::share_file;
use smkid::domain::ledger::custody::SharesDealt;
use smkid::exercise::people::APPROVALS;
use zeroize::Zeroizing;

use std::fmt::Write as _;

use super::*;
use crate::copies::finish;
use crate::support::desk::Done;
use crate::support::site::{DEVICES, Handed, Which, ask_for_all, device_list, lines_and_stop};

const SIGN: &str = "/v1/recovery/sign";
/// Where the ceremony lays the shares of the second generation.
const OUT: &str = "shares-2";

impl Custody {
    /// The files of who holds shares from here on, and with `bring` what the former bring.
    fn write_credentials(&self) {
        for n in 1..=4 {
            let credential = Self::credential_of(&self.site, n);
            fs::write(self.site.path(&format!("me-{n}.key")), credential.key_pem.expose_secret()).unwrap();
            fs::write(self.site.path(&format!("me-{n}.pem")), &credential.certificate_pem).unwrap();
        }
    }

    /// `ceremony deal` beside the daemon: these former custodians bring their shares of the first generation, and those of the second
    /// where there are some already; each of `to` gets a share sealed to their certificate.
    fn deal_anew(&self, brought: &[usize], again: &[usize], to: &[usize]) -> Done {
        let mut arguments = format!("ceremony deal --config smkid.toml --key {RECOVERY_KEY} --out {OUT}");
        for n in brought {
            write!(arguments, " --share custodian-{n}=share-{n}.pem").unwrap();
        }
        for n in again {
            write!(arguments, " --share custodian-{n}={OUT}/{RECOVERY_KEY}.2.share-{n}.pem").unwrap();
        }
        for n in [brought, again].concat() {
            // The first has the share of the first generation under a passphrase.
            if !arguments.contains(&format!("--key-file custodian-{n}=")) && (n != 1 || !again.is_empty()) {
                write!(arguments, " --key-file custodian-{n}=me-{n}.key").unwrap();
            }
        }
        arguments.push_str(" --passphrase-file custodian-1=passphrase");
        for n in to {
            write!(arguments, " --certificate custodian-{n}=me-{n}.pem").unwrap();
        }
        self.site.smkictl(&arguments)
    }

    /// The share of the second generation that custodian `n` was given, sealed to their certificate.
    fn second(&self, n: usize, share: u16) -> Share {
        let path = self.site.path(&format!("{OUT}/{RECOVERY_KEY}.2.share-{share}.pem"));
        let text = Zeroizing::new(fs::read_to_string(path).unwrap());
        let key = Zeroizing::new(Self::credential_of(&self.site, n).key_pem.expose_secret().to_owned());
        share_file::open(&text, share, Some(&key), || panic!("it is under no passphrase")).unwrap()
    }

    /// Custodian `n` presents their share of the second generation.
    async fn present_second(&self, client: &Client, n: usize, share: u16) -> Result<wire::Presented, ClientError> {
        let change = |form: &mut Statement| {
            form.generation = Some(2);
            form.share = Some(format!("share-{share}").parse().unwrap());
        };
        let statement = self.statement(client, n, change).await;
        self.present_for(client, (n, &self.second(n, share)), &statement).await
    }

    /// The last deal that is recorded, and who recorded it.
    fn last_dealt(&self) -> (Actor, SharesDealt) {
        let entries = self.site.ledger().entries.into_iter().rev();
        let mut dealt = entries.filter_map(|entry| match entry.event {
            Event::SharesDealt(dealt) => Some((entry.by, dealt)),
            _ => None,
        });
        dealt.next().unwrap()
    }

    /// The second custodian ceases, and a fourth takes the share in their place.
    fn replace_second(&mut self) {
        let until = Self::now().plus_ms(-1_000).to_string();
        let theirs = Self::credential_of(&self.site, 4).spki.to_string();
        let mut fourth = None;
        change_persons(&mut self.files, |person| {
            if let Some(own) = person.get_mut("keys").and_then(toml::Value::as_array_mut) {
                own.retain(|key| key.as_str() != Some(&theirs));
            }
            if person["id"].as_str() == Some("custodian-2") {
                let mut new = person.clone();
                new.insert("id".to_owned(), "custodian-4".into());
                new.insert("name".to_owned(), "custodian-4 of the exercise".into());
                new.insert("keys".to_owned(), vec![theirs.clone()].into());
                fourth = Some(new);
                person.remove("shares");
                person.insert("ceased".to_owned(), "letter of the exercise".into());
                person.insert("until".to_owned(), until.clone().into());
            }
        });
        let mut persons: toml::Table = std::str::from_utf8(&self.files["persons.toml"]).unwrap().parse().unwrap();
        persons["person"].as_array_mut().unwrap().push(fourth.unwrap().into());
        self.files.insert("persons.toml".to_owned(), persons.to_string().into_bytes());
    }
}

fn folder_is_empty(path: &Path) -> bool {
    fs::read_dir(path).map_or(true, |mut entries| entries.next().is_none())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_custodian_is_replaced_while_smkid_runs_and_signs_and_no_command_is_lost() {
    let mut custody = Custody::dealt().await;
    custody.bring();
    custody.write_credentials();
    custody.site.fault(Which::Recovery, Some("C_Sign * delay 40ms"));
    let daemon = custody.site.start().await;
    let client = daemon.client.clone();
    custody.present(&client, 1).await.unwrap();
    custody.present(&client, 2).await.unwrap();
    custody.site.activate(&client).await.unwrap();
    // Nobody changes the PIN of a token that is logged in to with it.
    custody.deal_anew(&[1, 3], &[], &[1, 2, 3]).is(4).says("Lock it first");
    assert!(folder_is_empty(&custody.site.path(OUT)));

    let ask = ask_for_all(custody.site.main());
    let running = tokio::spawn({
        let (client, ask) = (client.clone(), ask.clone());
        async move { lines_and_stop(&client, SIGN, &ask).await }
    });
    custody.site.reach(Which::Recovery, "C_Sign", 20).await;
    custody.replace_second();
    let policy = custody.site.adopt(&client, &custody.files, vec![custody.site.main()]).await;
    custody.policy = policy;
    // The second opened the key, and counts no more at once: it is locked, and the job waits.
    custody.locked_by_itself("custodian-2 is no key-custodian in force").await;
    let (items, stopped) = running.await.unwrap().unwrap();
    assert!(stopped.is_some_and(|reasons| !reasons.is_empty()));
    let mut handed = Handed::default();
    handed.take(&custody.site, &items);
    assert!((1..DEVICES as usize).contains(&handed.len()), "{}", handed.len());
    assert_eq!(custody.refused(&client, 2, |_| {}).await[0], "custodian-ceased");
    let theirs = |form: &mut Statement| form.share = Some("share-2".parse().unwrap());
    let statement = custody.statement(&client, 4, theirs).await;
    let early = custody.present_for(&client, (4, &custody.shares[1]), &statement).await;
    assert_eq!(custody.rules(&problem(early)), ["share-of-another"], "theirs by the policy, and not dealt to them yet");

    // What the ledger would refuse is refused from whoever has the account of smkid, too: nobody of before took part.
    let records = "/v1/ceremony/records";
    let never_begun = wire::CeremonyRecord::SharesDealt { key: key() };
    let refused = custody.site.refused(&client, records, &never_begun).await;
    assert!(refused.reasons[0].text.contains("no dealing of shares"), "{refused:?}");
    let (_, of_another) = split(&SealingSecret::make(), 2, 3).unwrap();
    let (_, before) = custody.last_dealt();
    let file = CustodyFile::read(&custody.site.state(), &before).unwrap();
    let mut holders = file.holders.clone();
    holders[1].person = "custodian-4".parse().unwrap();
    let shares = Set { origin: file.origin.clone(), key: key(), generation: 2, commitments: &of_another, holders };
    let found = TokenFound { token: custody.key.token.clone(), serial: custody.key.serial.clone() };
    let forged = CustodyFile::seal(shares, &SealingSecret::make(), &[(found, "nothing".into())]).unwrap();
    let by = vec!["custodian-1".parse().unwrap(), "custodian-2".parse().unwrap()];
    let mut signed = SharesDealt { by, ..forged.dealt() };
    let signature = SealingSecret::make().sign(&signed.signed_by_the_former(&forged.origin)).unwrap();
    signed.former = Some(hex::encode(signature).into());
    for (begun, says) in [(forged.dealt(), "found nobody, of 0 Parties"), (signed, "that the secret of generation 1")] {
        let sent = wire::CeremonyRecord::SharesBegun { begun, custody_file: Base64(forged.octets()) };
        let refused = custody.site.refused(&client, records, &sent).await;
        assert!(refused.reasons[0].text.contains(says), "{refused:?}");
    }
    assert!(CustodyFile::find(&custody.site.state(), &key(), 2).unwrap().is_none());

    // One share of those who have them still is too few, two of one Party are of too few; who ceased comes once more.
    custody.deal_anew(&[1], &[], &[1, 3, 4]).is(1).says("1 were brought, 2 are needed");
    custody.deal_anew(&[1, 3], &[], &[1, 3, 4]).is(4).says("of at least 2 Parties");
    let done = custody.deal_anew(&[1, 2], &[], &[1, 3, 4]).ok();
    assert!(done.out.contains("generation 2"), "{}", done.out);
    let (by, dealt) = custody.last_dealt();
    assert_eq!((by.role, by.channel), (Role::Ceremony, Channel::Socket));
    assert_eq!((dealt.generation, dealt.holders[1].person.as_str()), (2, "custodian-4"));
    assert_eq!((dealt.by.len(), dealt.former.is_some()), (2, true));
    assert!(!Changing::exists(&custody.site.state(), &dealt));

    // The old shares open nothing, whoever brings them, whatever they call them.
    assert_eq!(custody.refused(&client, 1, |_| {}).await, ["share-generation"]);
    assert_eq!(custody.refused(&client, 1, |form| form.generation = Some(2)).await, ["share-altered"]);
    assert_eq!(custody.activation(&client).await, ["custodians"]);
    custody.present_second(&client, 1, 1).await.unwrap();
    assert!(custody.present_second(&client, 4, 2).await.unwrap().standing.enough);
    custody.site.activate(&client).await.unwrap();
    finish(&custody.site, daemon, &ask, handed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn quorum_and_threshold_are_changed_while_smkid_runs_and_signs_and_no_command_is_lost() {
    let mut custody = Custody::dealt().await;
    custody.bring();
    custody.write_credentials();
    // The worker dies when the PIN was changed, before anybody is told so.
    custody.site.fault(Which::Recovery, Some("C_Sign * delay 40ms\nC_SetPIN 1 kill-after"));
    let daemon = custody.site.start().await;
    let client = daemon.client.clone();
    custody.present(&client, 1).await.unwrap();
    custody.present(&client, 2).await.unwrap();
    custody.site.activate(&client).await.unwrap();
    let ask = ask_for_all(custody.site.main());
    let running = tokio::spawn({
        let (client, ask) = (client.clone(), ask.clone());
        async move { lines_and_stop(&client, SIGN, &ask).await }
    });
    custody.site.reach(Which::Recovery, "C_Sign", 20).await;

    // One more who approves, and one more who opens the key. The determination is carried over.
    let changed = |files: &mut BTreeMap<String, Vec<u8>>, name: &str, from: String, to: String| {
        let text = String::from_utf8(files[name].clone()).unwrap();
        assert!(text.contains(&from), "{text}");
        files.insert(name.to_owned(), text.replacen(&from, &to, 1).into_bytes());
    };
    let more = APPROVALS + 1;
    changed(&mut custody.files, "policy.toml", format!("approvals = {APPROVALS}"), format!("approvals = {more}"));
    changed(&mut custody.files, "custodians.toml", "threshold = 2".to_owned(), "threshold = 3".to_owned());
    custody.policy = custody.site.adopt(&client, &custody.files, vec![custody.site.main()]).await;
    custody.locked_by_itself("2 of 3 Key Custodians count").await;
    let (items, stopped) = running.await.unwrap().unwrap();
    assert!(stopped.is_some_and(|reasons| !reasons.is_empty()));
    let mut handed = Handed::default();
    handed.take(&custody.site, &items);
    assert!((1..DEVICES as usize).contains(&handed.len()), "{}", handed.len());

    // A determination of today needs as many as the policy of today says.
    let policy = custody.policy;
    let list = device_list(600..602);
    let second = custody.site.determination(&client, 2, &list, |form| form.policy = policy).await;
    let refused = problem(custody.site.deliver(&client, &second, APPROVALS, Some(&list)).await);
    assert!(refused.message.contains(&more.to_string()), "{refused:?}");

    // The deal is cut off; until it is gone on with, nobody opens the key: the PIN may be either.
    custody.deal_anew(&[1, 2], &[], &[1, 2, 3]).is(3).says("Its PIN may be the new one already");
    assert_eq!(custody.refused(&client, 1, |_| {}).await, ["deal-unfinished"]);
    assert!(custody.activation(&client).await.contains(&"deal-unfinished".to_owned()));
    let done = custody.deal_anew(&[1, 2], &[1, 2, 3], &[1, 2, 3]).ok();
    assert!(done.out.contains("generation 2"), "{}", done.out);
    let (_, dealt) = custody.last_dealt();
    assert_eq!((dealt.generation, dealt.threshold, dealt.commitments.len()), (2, 3, 3));
    assert_eq!(custody.activation(&client).await, ["custodians"]);

    custody.present_second(&client, 1, 1).await.unwrap();
    custody.present_second(&client, 2, 2).await.unwrap();
    assert_eq!(custody.activation(&client).await, ["custodians"], "two are one too few now");
    assert!(custody.present_second(&client, 3, 3).await.unwrap().standing.enough);
    custody.site.activate(&client).await.unwrap();
    finish(&custody.site, daemon, &ask, handed).await;

    // The next adoption does not carry the determination over: nothing more is signed under it.
    let daemon = custody.site.start().await;
    let client = &daemon.client;
    changed(&mut custody.files, "policy.toml", format!("approvals = {more}"), format!("approvals = {APPROVALS}"));
    custody.site.adopt(client, &custody.files, Vec::new()).await;
    let refused = custody.activation(client).await;
    assert!(refused.contains(&"not-carried-over".to_owned()), "{refused:?}");
    custody.site.verify_export("not-carried-over");
    assert!(daemon.stop().await.unwrap().success());
}

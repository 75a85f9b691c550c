//! Key Custodians open a key, over the real daemon, a real vault and a real token: what is refused, and what comes of enough of them.

mod broken;
mod changes;
mod console;
mod forged;
mod image;
mod protected;
mod refused;

use std::collections::BTreeMap;
use std::fs;

use secrecy::SecretString;
use smkid::api::client::{Client, ClientError};
use smkid::api::failure::Problem;
use smkid::api::wire::{self, Base64};
use smkid::custody::file::{CustodyFile, Set};
use smkid::custody::present::{self, Purpose};
use smkid::custody::scheme::{Commitments, SealingSecret, Share, split};
use smkid::domain::custody::Statement;
use smkid::domain::determination::document::{KeyChosen, LedgerHead, Type, Written};
use smkid::domain::ledger::custody::{Holder, Sealed};
use smkid::domain::ledger::entry::{Actor, Channel, ClockState, Event, KeyRecord, Role, TokenFound};
use smkid::domain::names::{Digest, KeyLabel, Purpose as LedgerPurpose};
use smkid::exercise::documents;
use smkid::exercise::people::Credential;
use smkid::exercise::policy::{RECOVERY_KEY, RECOVERY_TOKEN};
use smkid::hsm::one_time::SealTo;
use smkid::recorder::{Moment, Recorder, record_alone};
use smkid::store::StagingLimits;
use smkid::store::sqlite::SqliteStore;

use crate::support::site::{INCIDENT, Site, ask_for, head, lines, problem, request, whole};

const HOUR_MS: i64 = 3_600_000;

/// A site whose Recovery key is opened by two of three custodians, the first and the third of one Party.
struct Custody {
    site: Site,
    shares: Vec<Share>,
    secret: SealingSecret,
    commitments: Commitments,
    key: KeyRecord,
    /// Of the policy in force.
    files: BTreeMap<String, Vec<u8>>,
    policy: Digest,
    /// By share, which custodian has it.
    holders: &'static [usize],
}

/// By whom and how a key is opened.
struct Terms {
    activation: &'static str,
    threshold: usize,
    holders: &'static [usize],
}

impl Default for Terms {
    fn default() -> Self {
        Self { activation: "custodians", threshold: 2, holders: &[1, 2, 3] }
    }
}

/// Changes each person of a policy.
fn change_persons(files: &mut BTreeMap<String, Vec<u8>>, change: impl FnMut(&mut toml::Table)) {
    let mut persons: toml::Table = std::str::from_utf8(&files["persons.toml"]).unwrap().parse().unwrap();
    let all = persons["person"].as_array_mut().unwrap();
    all.iter_mut().filter_map(toml::Value::as_table_mut).for_each(change);
    files.insert("persons.toml".to_owned(), persons.to_string().into_bytes());
}

fn key() -> KeyLabel {
    RECOVERY_KEY.parse().unwrap()
}

fn conductor() -> Actor {
    Actor { person: None, account: "root".into(), role: Role::Ceremony, channel: Channel::Console }
}

impl Custody {
    /// Opened by shares, which are dealt.
    async fn dealt() -> Self {
        Self::dealt_with(Terms::default()).await
    }

    async fn dealt_with(terms: Terms) -> Self {
        let custody = Self::adopted_with(terms).await;
        custody.deal();
        custody
    }

    /// Under a policy by which custodians open the key, in that way.
    async fn adopted(activation: &'static str) -> Self {
        Self::adopted_with(Terms { activation, ..Terms::default() }).await
    }

    async fn adopted_with(terms: Terms) -> Self {
        let Terms { activation, threshold, holders } = terms;
        let site = Site::determined().await;
        let daemon = site.start().await;
        let mut files = site.changed_policy("keys.toml", |text| {
            let at = text.rfind("activation = \"stored\"").unwrap();
            format!("{}activation = \"{activation}\"\n", &text[..at])
        });
        let custodians = String::from_utf8(files["custodians.toml"].clone()).unwrap();
        let custodians = custodians.replace("threshold = 2", &format!("threshold = {threshold}"));
        files.insert("custodians.toml".to_owned(), custodians.into_bytes());
        change_persons(&mut files, |person| {
            let id = person["id"].as_str().unwrap().to_owned();
            let mut keys: Vec<String> = (1..=3).map(|n| Self::credential_of(&site, n).spki.to_string()).collect();
            let n = id.strip_prefix("custodian-").and_then(|n| n.parse::<usize>().ok());
            if let Some(n) = n {
                // Keys of others become theirs: each key is one person's.
                person.insert("keys".to_owned(), vec![keys.swap_remove(n - 1)].into());
                let party = if n == 2 { "supplier-b" } else { "supplier-a" };
                person.insert("party".to_owned(), party.into());
                let theirs = (1..).zip(holders).filter(|(_, holder)| **holder == n);
                let theirs: Vec<String> = theirs.map(|(share, _)| format!("share-{share}")).collect();
                person.insert("shares".to_owned(), theirs.into());
            } else if let Some(own) = person.get_mut("keys").and_then(toml::Value::as_array_mut) {
                own.retain(|key| keys.iter().all(|taken| key.as_str() != Some(taken)));
            }
        });
        let policy = site.adopt(&daemon.client, &files, vec![site.main()]).await;
        assert!(daemon.stop().await.unwrap().success());
        let ledger = site.ledger();
        let Event::Genesis(genesis) = &ledger.entries[0].event else { panic!("no genesis") };
        let key = genesis.keys.iter().find(|record| record.label == key()).unwrap().clone();
        let secret = SealingSecret::make();
        let (shares, commitments) = split(&secret, threshold, holders.len()).unwrap();
        Self { site, shares, secret, commitments, key, files, policy, holders }
    }

    /// As `ceremony deal` does, but for the PIN, which stays the one of the exercise.
    fn deal(&self) {
        self.deal_under(Self::pin(&self.site));
    }

    /// The same of a token whose PIN is this.
    fn deal_under(&self, pin: SecretString) {
        let Self { site, key, secret, commitments, .. } = self;
        let holders = (1..).zip(self.holders).map(|(index, n)| Holder {
            share: format!("share-{index}").parse().unwrap(),
            person: format!("custodian-{n}").parse().unwrap(),
            index,
            sealed: Sealed::Passphrase,
        });
        let set = Set {
            origin: site.ledger().origin(),
            key: key.label.clone(),
            generation: 1,
            commitments,
            holders: holders.collect(),
        };
        let found = TokenFound { token: key.token.clone(), serial: key.serial.clone() };
        let file = CustodyFile::seal(set, secret, &[(found, pin)]).unwrap();
        file.write(&site.state()).unwrap();
        let limits = StagingLimits { account_len_max: 1 << 20, total_len_max: 1 << 20 };
        let mut store = SqliteStore::open(&site.state(), limits).unwrap();
        let fold = smkid::state::catch_up(&mut store).unwrap();
        let at = fold.last_at().unwrap();
        let read = move || (Moment { at, clock: ClockState::Trusted }, None);
        let mut recorder = Recorder::new(Box::new(store), fold, Box::new(read)).unwrap();
        record_alone(&mut recorder, |recorder| {
            recorder.queue(&conductor(), Event::SharesBegun(file.dealt()))?;
            recorder.queue(&conductor(), Event::SharesDealt(file.dealt()))
        })
        .unwrap()
        .into_inner();
    }

    /// The PIN that the exercise stored.
    fn pin(site: &Site) -> SecretString {
        let configuration: toml::Table = fs::read_to_string(&site.configuration).unwrap().parse().unwrap();
        let tokens = configuration["token"].as_array().unwrap();
        let token = tokens.iter().find(|token| token["name"].as_str() == Some(RECOVERY_TOKEN)).unwrap();
        let file = token["pin"]["file"].as_str().unwrap();
        SecretString::from(fs::read_to_string(file).unwrap().trim().to_owned())
    }

    fn credential_of(site: &Site, n: usize) -> &'static Credential {
        let people = &site.base.people;
        // Who takes another's place is none of the exercise's three.
        people.custodians.get(n - 1).map_or(&people.officers[1].first, |custodian| &custodian.first)
    }

    async fn statement(&self, client: &Client, n: usize, change: impl FnOnce(&mut Statement)) -> Written<Statement> {
        let LedgerHead { origin, size, root } = head(client).await;
        let mut form = Statement {
            r#type: Type::new(),
            purpose: LedgerPurpose::Exercise,
            id: request().to_string().parse().unwrap(),
            ledger: LedgerHead { origin, size, root },
            person: format!("custodian-{n}").parse().unwrap(),
            key: KeyChosen { label: key(), spki_sha256: self.key.spki_sha256 },
            incident: INCIDENT.parse().unwrap(),
            determination: self.site.main(),
            document: self.site.base.main.digest(),
            share: Some(format!("share-{n}").parse().unwrap()),
            generation: Some(1),
            expires: Self::now().plus_ms(HOUR_MS),
        };
        change(&mut form);
        Written::write(&form).unwrap()
    }

    fn now() -> smkid::domain::time::Timestamp {
        smkid::wall_clock::wall_clock()
    }

    fn sent(&self, n: usize, statement: &Written<Statement>) -> wire::Present {
        let p7s = documents::sign(statement.octets(), Self::credential_of(&self.site, n), Self::now()).unwrap();
        wire::Present { statement: Base64(statement.octets().to_vec()), signature: Base64(p7s) }
    }

    /// Custodian `n` states this, and presents that share for it.
    async fn present_for(
        &self,
        client: &Client,
        (n, share): (usize, &Share),
        statement: &Written<Statement>,
    ) -> Result<wire::Presented, ClientError> {
        let begun = self.begin(client, n, statement).await?;
        self.bring_share(client, share, statement, &begun).await
    }

    /// Custodian `n` states this; what share is asked for, and to what it is sealed.
    async fn begin(
        &self,
        client: &Client,
        n: usize,
        statement: &Written<Statement>,
    ) -> Result<wire::ShareWanted, ClientError> {
        let path = format!("/v1/keys/{RECOVERY_KEY}/presentations");
        let begun: wire::PresentationBegun = client.post(&path, &self.sent(n, statement)).await?;
        Ok(begun.share.unwrap())
    }

    async fn bring_share(
        &self,
        client: &Client,
        share: &Share,
        statement: &Written<Statement>,
        wanted: &wire::ShareWanted,
    ) -> Result<wire::Presented, ClientError> {
        let form = statement.form();
        let purpose = Purpose {
            origin: form.ledger.origin.clone(),
            key: key(),
            generation: wanted.generation,
            incident: form.incident.clone(),
            statement: statement.digest(),
        };
        let sealed = present::seal(share, &purpose, &SealTo::from_octets(&wanted.seal_to.0).unwrap()).unwrap();
        let path = format!("/v1/keys/{RECOVERY_KEY}/presentations/{}", wanted.presentation);
        client.post(&path, &wire::SealedShare { sealed: Base64(sealed) }).await
    }

    async fn present(&self, client: &Client, n: usize) -> Result<wire::Presented, ClientError> {
        let statement = self.statement(client, n, |_| {}).await;
        self.present_for(client, (n, &self.shares[n - 1]), &statement).await
    }

    async fn refused(&self, client: &Client, n: usize, change: impl FnOnce(&mut Statement)) -> Vec<String> {
        let statement = self.statement(client, n, change).await;
        let answer = self.present_for(client, (n, &self.shares[n - 1]), &statement).await;
        self.rules(&problem(answer))
    }

    /// The rules of a refusal, which lies in the ledger with the same reasons.
    fn rules(&self, problem: &Problem) -> Vec<String> {
        let ledger = self.site.ledger();
        let last = ledger.refusals().pop().cloned().unwrap();
        let told: Vec<String> = problem.reasons.iter().map(|reason| reason.rule.to_string()).collect();
        let recorded: Vec<String> = last.reasons.iter().map(|reason| reason.rule.to_string()).collect();
        assert_eq!(told, recorded, "what was told is what was recorded: {problem:?}");
        told
    }

    async fn activation(&self, client: &Client) -> Vec<String> {
        self.rules(&problem(self.site.activate(client).await))
    }
}

#[tokio::test]
async fn a_key_opens_for_enough_custodians_of_enough_parties_and_for_nobody_else() {
    let custody = Custody::dealt().await;
    let site = &custody.site;
    let daemon = site.start().await;
    let client = &daemon.client;
    assert_eq!(custody.activation(client).await, ["custodians"], "nobody presented");

    // What is not for this, not theirs, or too long is refused before a share is asked for.
    assert_eq!(custody.refused(client, 1, |form| form.incident = "INC-9".parse().unwrap()).await, ["incident-unknown"]);
    assert_eq!(
        custody.refused(client, 1, |form| form.share = Some("share-2".parse().unwrap())).await,
        ["share-of-another"]
    );
    assert_eq!(custody.refused(client, 1, |form| form.generation = Some(2)).await, ["share-generation"]);
    assert_eq!(
        custody.refused(client, 1, |form| form.person = "custodian-2".parse().unwrap()).await[0],
        "custodian-unknown"
    );
    assert_eq!(
        custody.refused(client, 1, |form| form.expires = form.expires.plus_ms(24 * HOUR_MS)).await,
        ["statement-too-long"]
    );
    assert_eq!(
        custody.refused(client, 1, |form| form.expires = form.expires.plus_ms(-2 * HOUR_MS)).await,
        ["statement-expired"]
    );
    // Another's share does not fit the commitment of this one.
    let statement = custody.statement(client, 1, |_| {}).await;
    let altered = custody.present_for(client, (1, &custody.shares[1]), &statement).await;
    assert_eq!(custody.rules(&problem(altered)), ["share-altered"]);

    let first = custody.statement(client, 1, |_| {}).await;
    let standing = custody.present_for(client, (1, &custody.shares[0]), &first).await.unwrap().standing;
    assert_eq!((standing.have, standing.need, standing.enough), (1, 2, false));
    assert_eq!(standing.can_present.len(), 2);
    let replayed = custody.present_for(client, (1, &custody.shares[0]), &first).await;
    assert!(custody.rules(&problem(replayed)).contains(&"statement-replayed".to_owned()));
    assert_eq!(custody.refused(client, 1, |_| {}).await, ["custodian-twice"]);
    assert_eq!(custody.activation(client).await, ["custodians"], "one too few");

    let standing = custody.present(client, 3).await.unwrap().standing;
    assert_eq!((standing.have, standing.parties, standing.enough), (2, 1, false));
    assert_eq!(custody.activation(client).await, ["custodians-of-one-party"]);

    assert!(custody.present(client, 2).await.unwrap().standing.enough);
    let changed = site.activate(client).await.unwrap();
    assert!(changed.key.active);
    assert_eq!(whole(lines(client, "/v1/recovery/sign", &ask_for(site.main(), 0..2)).await).len(), 2);

    // Locked, and after a start, everybody presents anew.
    site.lock(client).await.unwrap();
    assert_eq!(custody.activation(client).await, ["custodians"]);
    custody.present(client, 1).await.unwrap();
    custody.present(client, 2).await.unwrap();
    assert!(daemon.stop().await.unwrap().success());
    let daemon = site.start().await;
    assert_eq!(custody.activation(&daemon.client).await, ["custodians"]);
    custody.present(&daemon.client, 1).await.unwrap();
    custody.present(&daemon.client, 2).await.unwrap();
    site.activate(&daemon.client).await.unwrap();
    site.ledger().check();
    site.verify_export("custody");
    assert!(daemon.stop().await.unwrap().success());
}

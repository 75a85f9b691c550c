//! The steps of a ceremony: what each says beforehand, and how it is done with the functions of the single commands.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::{Conduct, Facts, Halt};
use crate::cli::Change;
use crate::cli::ceremony::contingency::Ids;
use crate::cli::ceremony::deal::Deal;
use crate::cli::ceremony::desk::{Desk, STOP};
use crate::cli::ceremony::keys::{KeysFile, Planned};
use crate::cli::ceremony::opened;
use crate::cli::ceremony::plan::{ATTRIBUTES, Key, Kind, Plan, Shares};
use crate::cli::ceremony::room::Room;
use crate::cli::ceremony::{Adoption, Begin, CeremonyError, Copy, Import, Request, certificate};
use crate::cli::input;
use crate::cli::input::InputError;
use crate::custody::file::{Changing, CustodyFile};
use crate::domain::certificates::x509::Certificate;
use crate::domain::determination::people::Role;
use crate::domain::fold::Fold;
use crate::domain::ledger::custody::{Holder, Sealed};
use crate::domain::ledger::entry::Event;
use crate::domain::ledger::transcript::What;
use crate::domain::names::{Digest, KeyLabel, KeyUse, PersonId, TokenName};
use crate::service::start::StartFault;
use crate::store::sqlite::SqliteStore;

/// The document that adopts the policy, in the plan's `out`.
const ADOPTION: &str = "adoption.json";

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The plan is read out and agreed upon.
    Opening,
    /// A key pair is made.
    Key(KeyLabel),
    /// A key that was made after genesis goes into the ledger.
    Recorded(KeyLabel),
    /// The document that adopts the policy is written.
    Adoption,
    /// Everyone on the roster signs it.
    Signatures,
    /// The ledger begins.
    Ledger,
    /// A clone is found on a further token.
    Copy(KeyLabel, TokenName),
    /// What stands beside a contingency key is made.
    Contingency(KeyLabel),
    /// The Root OCA Certificate that carries a contingency key is taken in.
    Root(KeyLabel),
    /// A certification request is signed.
    Request(KeyLabel),
    /// Key Custodians get shares of what opens the key.
    Shares(KeyLabel),
    /// The SMKI certifies the key.
    Certificate(KeyLabel),
    /// Last words.
    Closing,
}

impl Step {
    /// The steps of a plan, in order.
    pub fn of(plan: &Plan) -> Vec<Self> {
        let recovery = || plan.keys().filter(|key| key.r#use == KeyUse::Recovery).map(|key| key.label.clone());
        let copies =
            || plan.keys().flat_map(|key| key.copies.iter().map(|copy| Self::Copy(key.label.clone(), copy.clone())));
        let material = || plan.keys().filter(|key| key.material().is_some()).map(|key| key.label.clone());
        // Last of what needs the tokens' PINs: from then on only custodians have them, whose shares open them for the Root OCA Certificate.
        let shares = || plan.shares().map(|shares| Self::Shares(shares.key.clone()));
        let mut steps = vec![Self::Opening];
        match plan.kind {
            Kind::First => {
                steps.extend(plan.keys().map(|key| Self::Key(key.label.clone())));
                steps.extend([Self::Adoption, Self::Signatures, Self::Ledger]);
                steps.extend(copies());
                steps.extend(material().map(Self::Contingency));
                steps.extend(recovery().map(Self::Request));
                steps.extend(shares());
                steps.extend(material().map(Self::Root));
                steps.extend(recovery().map(Self::Certificate));
            }
            Kind::Renewal => {
                steps.extend(recovery().map(Self::Request));
                steps.extend(recovery().map(Self::Certificate));
            }
            Kind::NewKey => {
                steps.extend(plan.keys().map(|key| Self::Key(key.label.clone())));
                steps.extend(plan.keys().map(|key| Self::Recorded(key.label.clone())));
                steps.extend(copies());
                steps.extend(material().map(Self::Contingency));
                steps.extend(recovery().map(Self::Request));
                steps.extend(shares());
                steps.extend(material().map(Self::Root));
                steps.extend(recovery().map(Self::Certificate));
            }
            Kind::Copy => steps.extend(copies()),
            Kind::ReShare => steps.extend(shares()),
        }
        steps.push(Self::Closing);
        steps
    }

    /// How the journal and questions call it.
    pub fn id(&self) -> String {
        match self {
            Self::Opening => "opening".to_owned(),
            Self::Key(key) => format!("key-{key}"),
            Self::Recorded(key) => format!("recorded-{key}"),
            Self::Adoption => "adoption".to_owned(),
            Self::Signatures => "signatures".to_owned(),
            Self::Ledger => "ledger".to_owned(),
            Self::Copy(key, token) => format!("copy-{key}-{token}"),
            Self::Contingency(key) => format!("contingency-{key}"),
            Self::Root(key) => format!("root-{key}"),
            Self::Request(key) => format!("request-{key}"),
            Self::Shares(key) => format!("shares-{key}"),
            Self::Certificate(key) => format!("certificate-{key}"),
            Self::Closing => "closing".to_owned(),
        }
    }

    /// Its heading.
    pub fn title(&self) -> String {
        match self {
            Self::Opening => "The plan is read out".to_owned(),
            Self::Key(key) => format!("Key {key} is made"),
            Self::Recorded(key) => format!("Key {key} goes into the ledger"),
            Self::Adoption => "The adoption of the policy is written".to_owned(),
            Self::Signatures => "The adoption is signed".to_owned(),
            Self::Ledger => "The ledger begins".to_owned(),
            Self::Copy(key, token) => format!("Key {key} is cloned to token {token}"),
            Self::Contingency(key) => format!("The Contingency Symmetric Key of {key} is made"),
            Self::Root(key) => format!("The Root OCA Certificate that carries key {key} is recorded"),
            Self::Request(key) => format!("The certification request of key {key} is signed"),
            Self::Shares(key) => format!("Key Custodians take shares of key {key}"),
            Self::Certificate(key) => format!("The certificate of key {key} is recorded"),
            Self::Closing => "Last words".to_owned(),
        }
    }
}

#[allow(clippy::needless_pass_by_value)] // Numbers, names and texts stand at the call as they are.
pub(super) fn fact(name: &str, value: impl ToString) -> (Box<str>, Box<str>) {
    (name.into(), value.to_string().into())
}

impl Conduct {
    /// What the step will do.
    pub(super) fn says(&self, step: &Step) -> String {
        let out = self.out.display();
        match step {
            Step::Opening => {
                let mut text = format!("{}\nat {}.\n", self.plan.title, self.plan.place.get_ref());
                for key in self.plan.keys() {
                    let _ = writeln!(
                        text,
                        "Key {} ({}) on token {}, CKA_ID {}.",
                        key.label, key.r#use, key.token, key.cka_id
                    );
                    if let Some(Ids { symmetric, wrapping }) = key.material() {
                        let _ = writeln!(
                            text,
                            "Beside it its Contingency Symmetric Key, CKA_ID {symmetric}, and the wrapping key, CKA_ID {wrapping}."
                        );
                    }
                }
                for shares in self.plan.shares() {
                    let holders = shares.holders.iter().map(|holder| format!("{} to {}", holder.share, holder.person));
                    let holders = holders.collect::<Vec<_>>().join(", ");
                    let _ = writeln!(text, "Shares of key {}, {} needed: {holders}.", shares.key, shares.threshold);
                }
                let _ = write!(text, "Policy {}.\nIf it is interrupted: {}", self.policy.digest(), self.plan.when_interrupted);
                text
            }
            Step::Key(label) => self.plan.key(label).map_or_else(String::new, |key| {
                format!(
                    "A key pair labelled {label} with the CKA_ID {} is made on token {}: {}. It is looked for first: one that an \
                     interruption left is taken. Its public half is written to {out}; the private half never leaves the token.",
                    key.cka_id,
                    key.token,
                    ATTRIBUTES.join(", ")
                )
            }),
            Step::Recorded(key) => format!(
                "The ledger records the new key {key} by label, CKA_ID and public key; the policy in force names it. Its token is marked as this \
                 ledger's."
            ),
            Step::Adoption => format!("{out}/{ADOPTION} is written, by which the policy comes into force. No token is asked."),
            Step::Signatures => format!(
                "Everyone on the policy's roster signs {out}/{ADOPTION} with their own key, here or elsewhere\n(smkictl determination sign \
                 {out}/{ADOPTION} …), and the signatures are laid beside it as adoption.PERSON.p7s. The ceremony may rise until they are \
                 there."
            ),
            Step::Ledger => format!(
                "The ledger {} begins in {}, with the keys and the policy; its first entry is written to every token, its head to the \
                 ledger token. From then on these tokens belong to this ledger.",
                self.policy.origin(),
                self.configuration.state.display()
            ),
            Step::Copy(key, token) => {
                let means = self.policy.key(key).and_then(|found| found.copies.get(token));
                format!(
                    "Before this is answered, key {key} is cloned to token {token} by the HSM maker's means{}. Then the token is searched: the \
                     clone must have the same public key and be as fit as the first. It is recorded, and the token marked as this ledger's.",
                    means.map(|means| format!(": {means}")).unwrap_or_default()
                )
            }
            Step::Contingency(key) => self.says_contingency(key),
            Step::Root(key) => format!(
                "The field goes to the Root OCA's operator. The Root OCA Certificate that carries it is laid at\n  {}\nand is taken in if its field is \
                 that very one, and the token unwraps it to the public half of {key}. The ceremony may rise until it is there.",
                self.root_place(key).display()
            ),
            Step::Request(key) => format!(
                "The intent is recorded; then key {key} signs one certification request for the SMKI; then the outcome is recorded and the \
                 request written to {out}."
            ),
            Step::Shares(key) => self.plan.shares().find(|shares| shares.key == *key).map_or_else(String::new, |shares| {
                let holders = shares.holders.iter().map(|holder| format!("{} to {}", holder.share, holder.person));
                format!(
                    "Each token of key {key} gets a new PIN that nobody sees, sealed under a secret that is split among the custodians: {}. Any {} of \
                     them open the key; fewer know nothing. Each seals their share with a passphrase that they type, or with their certificate. \
                     The share files are written below {out}, and are taken away.",
                    holders.collect::<Vec<_>>().join(", "),
                    shares.threshold
                )
            }),
            Step::Certificate(key) => {
                let places = self.plan.key(key).map(|key| self.certificates(key)).unwrap_or_default();
                let places: Vec<String> = places.iter().map(|path| path.display().to_string()).collect();
                format!(
                    "The request goes to the SMKI. What it issues is laid at\n  {}\nand is checked against the key, the subject, the path and the \
                     policy's anchors, and recorded. The ceremony may rise until it is there.",
                    places.join("\n  ")
                )
            }
            Step::Closing => "Whoever wants something on record says so now. Then the transcript is closed and goes into the ledger.".to_owned(),
        }
    }

    fn certificates(&self, key: &Key) -> Vec<PathBuf> {
        key.certificate.iter().chain(&key.chain).map(|path| self.plan.path(path)).collect()
    }

    /// Does it. What came of it.
    pub(super) fn perform(&mut self, step: &Step) -> Result<Facts, Halt> {
        let id = step.id();
        match step {
            Step::Opening => {
                self.read_aloud(&id, "the plan", self.plan.digest())?;
                self.read_aloud(&id, "the policy", self.policy.digest())?;
                Ok(Vec::new())
            }
            Step::Key(label) => self.make_key(&id, label),
            Step::Recorded(key) => self.record_key(&id, key),
            Step::Adoption => self.adoption(&id),
            Step::Signatures => self.signatures(&id),
            Step::Ledger => self.ledger(&id),
            Step::Copy(key, token) => self.copy(&id, key, token),
            Step::Contingency(key) => self.contingency(&id, key),
            Step::Root(key) => self.root(&id, key),
            Step::Request(key) => self.request(&id, key),
            Step::Shares(key) => self.deal(&id, key),
            Step::Certificate(key) => self.certificate(&id, key),
            Step::Closing => Ok(Vec::new()),
        }
    }

    fn make_key(&mut self, id: &str, label: &KeyLabel) -> Result<Facts, Halt> {
        let unknown = || CeremonyError::Key { key: label.clone(), why: "the policy has no such key".to_owned() };
        let key = self.policy.key(label).ok_or_else(unknown)?;
        let genesis = if self.plan.kind == Kind::First { None } else { self.fold()?.genesis().map(|(_, hash)| hash) };
        let planned = Planned { key, id: self.plan.key(label).ok_or_else(unknown)?.cka_id, genesis };
        let room = Room::enter(&self.tokens.tokens(), self.configuration.clone(), self.policy.purpose())?;
        // That of this attempt, and one before: a pair that nobody here began to make is somebody else's, whatever it is called.
        let ours = self.journal.agreed(id) > 1;
        let (made, found) = planned.stand(&room, &self.out, &self.policy, ours)?;
        if found {
            self.found(
                id,
                format!(
                    "the key pair {label}, CKA_ID {}, on token {}: made at an attempt before this one",
                    made.id, made.token
                ),
            )?;
        }
        self.read_aloud(id, &format!("the public key of {label}"), made.spki_sha256)?;
        KeysFile::read(&self.out, &self.policy, &self.configuration)?.write_public_keys(&self.out, &self.policy)?;
        Ok(vec![
            fact("key", format!("{label} ({})", made.use_)),
            fact("token", format!("{}, serial number {}", made.token, made.serial)),
            fact("CKA_ID", made.id),
            fact("attributes, as the token says", ATTRIBUTES.join(", ")),
            fact("public key, SHA-256", made.spki_sha256),
        ])
    }

    fn document(&self) -> Adoption {
        let change = Change { dry_run: false };
        Adoption { policy: self.plan.policy(), out: self.out.join(ADOPTION), change }
    }

    fn adoption(&mut self, id: &str) -> Result<Facts, Halt> {
        if self.out.join(ADOPTION).exists() {
            self.found(id, format!("{ADOPTION}, written before; it must be the same"))?;
        }
        let written = self.document().write()?;
        self.read_aloud(id, "the adoption", written.digest())?;
        Ok(vec![fact("document", self.out.join(ADOPTION).display()), fact("SHA-256", written.digest())])
    }

    fn begin(&self, dry_run: bool) -> Result<Begin, CeremonyError> {
        let signatures = signatures(&self.out)?;
        let (tokens, change) = (self.tokens.tokens(), Change { dry_run });
        let (policy, out) = (self.plan.policy(), self.out.clone());
        Ok(Begin { tokens, policy, adoption: out.join(ADOPTION), out, signatures, change })
    }

    fn stands(&self) -> bool {
        SqliteStore::exists(&self.configuration.state)
    }

    /// Asks to look again, until `look` finds what is waited for.
    pub(super) fn wait<T>(
        &mut self,
        id: &str,
        may_pass: bool,
        look: impl Fn(&Self) -> Result<Result<T, String>, CeremonyError>,
    ) -> Result<Option<T>, Halt> {
        loop {
            let missing = match look(self)? {
                Ok(found) => return Ok(Some(found)),
                Err(missing) => missing,
            };
            self.print.note(&format!("  {}", missing.replace('\n', "\n  ")));
            if !matches!(self.desk, Desk::Terminal) && !may_pass {
                return Err(Halt::Adjourned(missing));
            }
            let choices: &[&str] = if may_pass { &["look", "pass"] } else { &["look"] };
            let expected = if may_pass { "pass" } else { STOP };
            let answer = self.choose(id, &format!("{id}/wait"), "Look again?", expected, choices);
            match answer {
                Ok(answer) if answer == "pass" => return Ok(None),
                // What was there and not taken is on record, too.
                Ok(_) => self.write(What::Found { step: id.into(), what: missing.into() })?,
                Err(Halt::Adjourned(_)) => return Err(Halt::Adjourned(missing)),
                Err(fault) => return Err(fault),
            }
        }
    }

    fn signatures(&mut self, id: &str) -> Result<Facts, Halt> {
        let files = self.wait(id, false, |conduct| {
            let files = signatures(&conduct.out)?;
            if conduct.stands() {
                return Ok(Ok(files));
            }
            match conduct.begin(true)?.check() {
                Ok(()) => Ok(Ok(files)),
                Err(CeremonyError::Refused(reasons)) => {
                    let mut texts = reasons.iter().map(|reason| &*reason.text).collect::<Vec<_>>().join("\n");
                    for path in &files {
                        let digest = Digest::of(&input::file(path, input::DOCUMENT_LEN_MAX)?).to_string();
                        texts = texts.replace(&digest, &path.display().to_string());
                    }
                    let of = |member: &PersonId| conduct.out.join(format!("adoption.{member}.p7s"));
                    let roster = conduct.policy.roster(Role::PmaMember, conduct.now()).map(|person| &person.id);
                    let missing: Vec<_> = roster.filter(|member| !of(member).is_file()).map(PersonId::as_str).collect();
                    Ok(Err(format!(
                        "{} signatures lie there; everyone on the roster signs the first policy. No file yet of: {}\n{texts}",
                        files.len(),
                        if missing.is_empty() { "nobody".to_owned() } else { missing.join(", ") }
                    )))
                }
                Err(other) => Err(other),
            }
        })?;
        let named =
            |path: &PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let facts = files.iter().flatten().map(|path| fact("signature", named(path)));
        Ok(facts.collect())
    }

    fn ledger(&mut self, id: &str) -> Result<Facts, Halt> {
        if self.stands() {
            self.found(id, "the ledger, begun before an interruption; what is missing is completed".to_owned())?;
        }
        let begun = self.begin(false)?.perform(self.print)?.ok_or(StartFault::NoLedgerKey)?;
        self.read_aloud(id, "genesis, the first entry of the ledger", begun.genesis)?;
        let mut facts = vec![fact("genesis", begun.genesis), fact("entries", begun.size)];
        facts.extend(begun.done.iter().map(|done| fact("done", done)));
        Ok(facts)
    }

    fn copy(&mut self, id: &str, key: &KeyLabel, token: &TokenName) -> Result<Facts, Halt> {
        if self.rehearsal.is_some() {
            // Nothing clones a key of SoftHSM, so nothing can be found.
            let said = format!("passed over: no maker's means clone a scratch key to {token}");
            self.found(id, said.clone())?;
            return Ok(vec![fact("rehearsal", said)]);
        }
        let (tokens, change) = (self.tokens.tokens(), Change { dry_run: false });
        let copy = Copy { tokens, key: key.clone(), token: token.clone(), change };
        let found = copy.perform()?;
        if found.entry.is_none() {
            self.found(id, format!("the clone on {token}, recorded before an interruption"))?;
        }
        self.read_aloud(
            id,
            &format!("the public key of {key} on token {token}, equal to that on its first token"),
            found.spki_sha256,
        )?;
        Ok(vec![
            fact("token", format!("{token}, serial number {}", found.serial)),
            fact("public key, SHA-256", found.spki_sha256),
            fact("brought by", &found.by),
            fact("recorded", found.entry.map_or_else(|| "before".to_owned(), |entry| format!("entry {entry}"))),
        ])
    }

    fn request(&mut self, id: &str, key: &KeyLabel) -> Result<Facts, Halt> {
        let (tokens, change) = (self.tokens.tokens(), Change { dry_run: false });
        let request = Request { tokens, key: key.clone(), common_name: None, out: self.out.clone(), change };
        let path = request.path()?;
        if request.was_made(self.opened())? {
            self.found(id, format!("{}, signed at an attempt before this one", path.display()))?;
        } else {
            let requested = request.perform()?;
            self.print.note(&format!("  subject: {}", requested.subject));
        }
        let digest = Digest::of(&input::file(&path, input::DOCUMENT_LEN_MAX)?);
        self.read_aloud(id, &format!("the request {}", path.display()), digest)?;
        Ok(vec![fact("request", path.display()), fact("SHA-256", digest)])
    }

    fn deal(&mut self, id: &str, key: &KeyLabel) -> Result<Facts, Halt> {
        let planned = self.plan.shares().find(|shares| shares.key == *key).cloned();
        let unknown = || CeremonyError::Key { key: key.clone(), why: "the plan has no shares of it".to_owned() };
        let planned = planned.ok_or_else(unknown)?;
        let is_here = |holder: &PersonId| self.present.iter().any(|person| person.id.as_ref() == Some(holder));
        if let Some(absent) = planned.holders.iter().find(|holder| !is_here(&holder.person)) {
            return Err(Halt::Adjourned(format!("{} takes {} and is not here", absent.person, absent.share)));
        }
        let state = self.configuration.state.clone();
        if let Some((entry, dealt)) = self.dealt(key)? {
            if self.journal.agreed(id) < 2 {
                let why = format!(
                    "entry {entry} of the ledger says that its shares were dealt since this ceremony was opened, and it has not dealt any yet: \
                     find out who did"
                );
                return Err(CeremonyError::Key { key: key.clone(), why }.into());
            }
            if Changing::exists(&state, &dealt) {
                // Cut off between the entry and the end: what was left after it is done now.
                self.dealing(key, &planned, self.out.join("shares")).perform(self.print)?;
            }
            self.found(
                id,
                format!("the shares of generation {}, dealt and recorded before an interruption", dealt.generation),
            )?;
            self.read_aloud(id, "the custody file", dealt.sealed)?;
            let generation = format!("{}, {} of {}", dealt.generation, dealt.threshold, dealt.holders.len());
            let mut facts = vec![fact("generation", generation)];
            for Holder { share, person, sealed, .. } in &dealt.holders {
                facts.push(fact(share.as_str(), format!("{person}, {}", sealed_to(sealed))));
            }
            facts.extend(brought_by(&dealt.by));
            let path = CustodyFile::path(&state, key, dealt.generation);
            facts.push(fact("custody file, SHA-256", dealt.sealed));
            facts.push(fact("custody file, of which everyone takes a copy", path.display()));
            facts.push(fact("recorded", format!("entry {entry}")));
            return Ok(facts);
        }
        // What an attempt before left there may be void, and nothing is written over.
        let mut folder = self.out.join("shares");
        let mut earlier = Vec::new();
        for attempt in 2_u32.. {
            if !folder.exists() {
                break;
            }
            let next = self.out.join(format!("shares-{attempt}"));
            earlier.push(std::mem::replace(&mut folder, next));
        }
        let deal = self.dealing(key, &planned, folder);
        let mut dealt = deal.perform(self.print)?;
        if dealt.entry.is_none() {
            // That was the end of the generation before, which an earlier command left open: this ceremony's is still to be dealt.
            self.found(
                id,
                format!("the deal of generation {} had not come to its very end; that is done", dealt.generation),
            )?;
            dealt = deal.perform(self.print)?;
        }
        if dealt.entry.is_none() {
            let why = format!("nothing was dealt: its shares are still those of generation {}", dealt.generation);
            return Err(CeremonyError::Key { key: key.clone(), why }.into());
        }
        for found in &dealt.found {
            self.found(id, found.clone())?;
        }
        if dealt.shares.iter().any(|given| given.file.is_some()) {
            for folder in earlier {
                let folder = folder.display();
                self.found(
                    id,
                    format!("share files of an attempt that came to nothing in {folder}: they are void; destroy them"),
                )?;
            }
        }
        let mut facts =
            vec![fact("generation", format!("{}, {} of {}", dealt.generation, dealt.threshold, dealt.shares.len()))];
        for given in &dealt.shares {
            let sealed = given.certificate_spki_sha256.map_or(Sealed::Passphrase, Sealed::Certificate);
            let place = given.file.as_ref().map_or_else(
                || "its file as it was handed out before the interruption".to_owned(),
                |path| path.display().to_string(),
            );
            facts.push(fact(given.share.as_str(), format!("{}, {}, {place}", given.person, sealed_to(&sealed))));
        }
        facts.extend(brought_by(&dealt.by));
        if let Some(digest) = dealt.custody_sha256 {
            self.read_aloud(id, "the custody file", digest)?;
            facts.push(fact("custody file, SHA-256", digest));
        }
        facts.extend(
            dealt
                .custody_file
                .as_ref()
                .map(|path| fact("custody file, of which everyone takes a copy", path.display())),
        );
        facts.extend(dealt.entry.map(|entry| fact("recorded", format!("entry {entry}"))));
        Ok(facts)
    }

    /// The deal that the plan describes.
    fn dealing(&self, key: &KeyLabel, planned: &Shares, out: PathBuf) -> Deal {
        let certificates = planned
            .holders
            .iter()
            .filter_map(|holder| Some((holder.person.clone(), self.plan.path(holder.certificate.as_ref()?))));
        let spkis = planned.holders.iter().filter_map(|holder| Some((holder.person.clone(), holder.spki?)));
        Deal {
            tokens: self.tokens.tokens(),
            key: key.clone(),
            out,
            certificates: certificates.collect(),
            planned: Some(spkis.collect()),
            change: Change { dry_run: false },
        }
    }

    fn certificate(&mut self, id: &str, key: &KeyLabel) -> Result<Facts, Halt> {
        let planned = self.plan.key(key).cloned();
        let planned = planned
            .ok_or_else(|| CeremonyError::Key { key: key.clone(), why: "the plan has no such key".to_owned() })?;
        let places = self.certificates(&planned);
        let may_pass = self.rehearsal.is_some();
        let label = key.clone();
        let imported = self.wait(id, may_pass, |conduct| {
            if let Some(missing) = places.iter().find(|path| !path.is_file()) {
                return Ok(Err(format!("{}: nothing lies there yet", missing.display())));
            }
            let ([first, above @ ..], tokens) = (places.as_slice(), conduct.tokens.tokens()) else {
                return Ok(Err("the plan says no places for certificates".to_owned()));
            };
            let (certificate, chain) = (first.clone(), above.to_vec());
            let laid = Digest::of(&certificate::read_certificate(first)?);
            if conduct.certified(&label)? == Some(laid) {
                // Of this ceremony, or of one before it that this one is to follow.
                let now = conduct.since(|event| match event {
                    Event::CertificateImported(imported) if imported.certificate == laid => Some(()),
                    _ => None,
                })?;
                let old = "is the certificate that the key has already; the new one is waited for";
                return Ok(now.map(|_| (laid, None)).ok_or_else(|| format!("{}: this {old}", first.display())));
            }
            let import = Import { tokens, key: label.clone(), certificate, chain, change: Change { dry_run: false } };
            match import.perform() {
                Ok((imported, entry)) => Ok(Ok((imported.certificate, entry))),
                Err(CeremonyError::Refused(reasons)) => {
                    let texts: Vec<&str> = reasons.iter().map(|reason| &*reason.text).collect();
                    Ok(Err(format!("the certificate is refused:\n{}", texts.join("\n"))))
                }
                Err(other) => Err(other),
            }
        })?;
        let Some((digest, entry)) = imported else {
            return Ok(vec![fact("rehearsal", "passed over: the SMKI certifies no scratch key")]);
        };
        if entry.is_none() {
            self.found(id, "the certificate, recorded at an attempt before this one".to_owned())?;
        }
        self.read_aloud(id, &format!("the certificate of {key}"), digest)?;
        let path = planned.certificate.as_ref().map(|path| self.plan.path(path)).unwrap_or_default();
        let certificate = Certificate::from_der(&certificate::read_certificate(&path)?)
            .map_err(|fault| CeremonyError::Key { key: key.clone(), why: format!("{}: {fault}", path.display()) })?;
        Ok(vec![
            fact("certificate, SHA-256", digest),
            fact("serial number", hex::encode(certificate.serial())),
            fact("issuer", certificate.issuer_text()),
            fact("subject", certificate.subject_text()),
            fact("valid", format!("from {} until {}", certificate.not_before(), certificate.not_after())),
            fact("recorded", entry.map_or_else(|| "before".to_owned(), |entry| format!("entry {entry}"))),
        ])
    }

    /// What the ledger amounts to.
    pub(super) fn fold(&self) -> Result<Fold, CeremonyError> {
        Ok(opened::read(&self.configuration)?.ok_or(StartFault::NoLedgerKey)?)
    }

    /// The certificate that the ledger has for a key.
    fn certified(&self, key: &KeyLabel) -> Result<Option<Digest>, CeremonyError> {
        Ok(self.fold()?.keys().get(key).and_then(|facts| facts.certificate.as_ref()).map(|(digest, _)| *digest))
    }
}

/// What a share's file is opened by, in words.
fn sealed_to(sealed: &Sealed) -> String {
    match sealed {
        Sealed::Passphrase => "under a passphrase".to_owned(),
        Sealed::Certificate(spki) => format!("sealed to the key with SPKI SHA-256 {spki}"),
    }
}

/// Who brought shares of the generation before, if there was one.
fn brought_by(by: &[PersonId]) -> Option<(Box<str>, Box<str>)> {
    let names: Vec<&str> = by.iter().map(PersonId::as_str).collect();
    (!names.is_empty()).then(|| fact("shares of before, brought by", names.join(", ")))
}

/// The signatures that lie beside the adoption.
pub fn signatures(out: &Path) -> Result<Vec<PathBuf>, InputError> {
    let files = input::directory(out, u64::MAX - 1)?;
    let is_one = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        name.starts_with("adoption.") && path.extension() == Some(OsStr::new("p7s"))
    };
    Ok(files.into_iter().map(|(path, _)| path).filter(is_one).collect())
}

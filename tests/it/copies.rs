//! One key on two SoftHSM tokens, behind the real daemon: what is signed is shared, a token that is sick is left out and comes
//! back, and whatever stops one stops both. How a clone comes to be known is the ceremony's.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use smkid::api::client::Client;
use smkid::api::wire::{self, ItemOutcome, KeyTokenState};
use smkid::domain::ledger::entry::{Channel, Event, KeyActivated, KeyCopied, Role};
use smkid::domain::names::KeyUse;
use smkid::exercise::policy::{RECOVERY_KEY, RECOVERY_TOKEN};
use smkid::exercise::programs::Daemon;
use smkid::hsm::{Expectations, Token};

use crate::support::copies::{COPY_TOKEN, MEANS, THIRD_TOKEN, folder_of, rename_token};
use crate::support::desk;
use crate::support::site::{DEVICES, Handed, Site, Which, ask_for_all, lines, lines_and_stop, settle_all, whole};
use crate::support::token::{PIN, TestToken};

const SIGN: &str = "/v1/recovery/sign";
const SETTLE: &str = "/v1/recovery/settle";

/// The Recovery key as status shows it.
async fn key(client: &Client) -> wire::KeyState {
    let status: wire::Status = client.get("/v1/status").await.unwrap();
    status.keys.into_iter().find(|key| key.key.as_str() == RECOVERY_KEY).unwrap()
}

/// How its tokens stand, its own first.
async fn states(client: &Client) -> Vec<KeyTokenState> {
    key(client).await.tokens.iter().map(|token| token.state).collect()
}

async fn wait_for_states(client: &Client, expected: &[KeyTokenState]) {
    let begun = Instant::now();
    while states(client).await != expected {
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", key(client).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The lines about the Recovery key and its tokens, as `smkictl status` shows them to an operator.
fn shown(site: &Site) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_smkictl")).arg("status").env("SMKID_SOCKET", &site.socket).output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    let of_tokens = text.lines().skip_while(|line| !line.contains(RECOVERY_KEY));
    let lines: Vec<&str> = of_tokens.take_while(|line| !line.starts_with("open incidents")).collect();
    lines.join("\n")
}

/// The activations in the ledger, each as the tokens that it names.
fn activations(site: &Site) -> Vec<Vec<String>> {
    let ledger = site.ledger();
    let activated = ledger.entries.iter().filter_map(|entry| match &entry.event {
        Event::KeyActivated(activated) => Some(activated),
        _ => None,
    });
    activated.map(|activated: &KeyActivated| activated.tokens().map(|(token, _)| token.to_string()).collect()).collect()
}

/// Both tokens count their signatures, and do with them as their scripts say.
async fn counted(site: &Site, recovery: &str, copy: &str) -> Daemon {
    site.fault(Which::Recovery, Some(recovery));
    site.fault(Which::Copy, Some(copy));
    site.start_active().await
}

/// Has everything signed that is not signed yet, unknowns among it, and holds the ledger against what was handed over.
pub async fn finish(site: &Site, daemon: Daemon, ask: &wire::RecoverySign, mut handed: Handed) {
    handed.take(site, &whole(lines(&daemon.client, SETTLE, &settle_all(site.main())).await));
    handed.take(site, &whole(lines(&daemon.client, SIGN, ask).await));
    assert_eq!(handed.len(), DEVICES as usize);
    let ledger = site.ledger();
    ledger.check();
    assert_eq!(ledger.signed().len(), DEVICES as usize);
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn a_batch_is_shared_by_the_tokens_of_its_key_and_each_command_is_signed_once() {
    let site = Site::on_two_tokens().await;
    let daemon = counted(&site, "C_Sign * delay 2ms", "C_Sign * delay 2ms").await;
    assert_eq!(states(&daemon.client).await, [KeyTokenState::Up, KeyTokenState::Up]);
    assert_eq!(activations(&site), [[RECOVERY_TOKEN, COPY_TOKEN]]);
    assert_eq!(daemon.workers().len(), 3, "each token has a worker of its own");
    let ask = ask_for_all(site.main());
    let items = whole(lines(&daemon.client, SIGN, &ask).await);
    let mut handed = Handed::default();
    handed.take(&site, &items);
    assert!(items.iter().all(|item| item.outcome == ItemOutcome::Signed));
    let (first, second) = (site.calls(Which::Recovery, "C_Sign"), site.calls(Which::Copy, "C_Sign"));
    assert_eq!(first + second, u64::from(DEVICES));
    assert!(first > u64::from(DEVICES) / 4 && second > u64::from(DEVICES) / 4, "{first} and {second}");
    finish(&site, daemon, &ask, handed).await;
}

#[tokio::test]
async fn a_slow_token_does_not_hold_the_other_back() {
    let site = Site::on_two_tokens().await;
    let daemon = counted(&site, "C_Sign 0 stop", "C_Sign * delay 1500ms").await;
    let ask = ask_for_all(site.main());
    let items = whole(lines(&daemon.client, SIGN, &ask).await);
    let mut handed = Handed::default();
    handed.take(&site, &items);
    assert!(items.iter().all(|item| item.outcome == ItemOutcome::Signed));
    // It gets one for each of its sessions to be known by, and a few before that is known; an even share would be 260.
    let slow = site.calls(Which::Copy, "C_Sign");
    assert!(slow <= 24, "{slow}");
    finish(&site, daemon, &ask, handed).await;
}

#[tokio::test]
async fn a_token_that_dies_is_left_out_what_it_never_began_goes_to_the_other_and_it_comes_back() {
    for script in ["C_Sign 40 kill", "C_Sign 40 kill-after"] {
        let site = Site::on_two_tokens().await;
        let daemon = counted(&site, "C_Sign * delay 2ms", script).await;
        let ask = ask_for_all(site.main());
        let items = whole(lines(&daemon.client, SIGN, &ask).await);
        let mut handed = Handed::default();
        handed.take(&site, &items);
        let count = |outcome| items.iter().filter(|item| item.outcome == outcome).count();
        let unknown = count(ItemOutcome::Unknown);
        // What it had begun is unknown and was given to nobody else; nothing else is lost.
        assert!((1..=16).contains(&unknown), "{script}: {unknown}");
        assert_eq!(count(ItemOutcome::Signed), DEVICES as usize - unknown, "{script}");
        wait_for_states(&daemon.client, &[KeyTokenState::Up, KeyTokenState::Up]).await;
        let before = site.calls(Which::Copy, "C_Sign");
        let ledger = site.ledger();
        assert_eq!(ledger.signed().len(), DEVICES as usize - unknown, "{script}");
        finish(&site, daemon, &ask, handed).await;
        assert!(site.calls(Which::Copy, "C_Sign") >= before);
        assert_eq!(activations(&site).len(), 1, "nobody had to activate it again");
    }
}

#[tokio::test]
async fn a_token_at_which_no_signature_can_be_begun_does_not_draw_the_work_to_itself() {
    let site = Site::on_two_tokens().await;
    let daemon = counted(&site, "C_Sign * delay 2ms", "C_SignInit * return CKR_FUNCTION_CANCELED").await;
    let ask = ask_for_all(site.main());
    let items = whole(lines(&daemon.client, SIGN, &ask).await);
    // Nothing was signed there for certain, so the other was given them.
    let mut handed = Handed::default();
    handed.take(&site, &items);
    assert_eq!(handed.len(), DEVICES as usize);
    assert_eq!(site.calls(Which::Recovery, "C_Sign"), u64::from(DEVICES));
    assert!(site.calls(Which::Copy, "C_SignInit") <= 48);
    finish(&site, daemon, &ask, handed).await;
}

#[tokio::test]
async fn a_token_that_fails_at_each_signature_is_given_a_rest_and_few_commands() {
    let site = Site::on_two_tokens().await;
    let daemon = counted(&site, "C_Sign * delay 2ms", "C_Sign * return CKR_DATA_INVALID").await;
    let ask = ask_for_all(site.main());
    let items = whole(lines(&daemon.client, SIGN, &ask).await);
    let failed = items.iter().filter(|item| item.outcome == ItemOutcome::Failed).count();
    assert!(failed <= 48, "{failed} of {} failed", items.len());
    assert_eq!(items.iter().filter(|item| item.outcome == ItemOutcome::Signed).count(), items.len() - failed);
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn a_token_whose_signatures_are_lost_one_by_one_is_given_a_rest_and_few_commands() {
    let site = Site::on_two_tokens().await;
    let daemon = counted(&site, "C_Sign * delay 2ms", "C_Sign * return CKR_FUNCTION_CANCELED").await;
    let items = whole(lines(&daemon.client, SIGN, &ask_for_all(site.main())).await);
    let unknown = items.iter().filter(|item| item.outcome == ItemOutcome::Unknown).count();
    assert!(unknown <= 48, "{unknown} of {} unknown", items.len());
    assert_eq!(items.iter().filter(|item| item.outcome == ItemOutcome::Signed).count(), items.len() - unknown);
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn a_token_that_fails_at_each_signature_is_given_up_before_the_list_is_used_up() {
    for (script, outcome) in [
        ("C_Sign * return CKR_FUNCTION_CANCELED", ItemOutcome::Unknown),
        ("C_SignInit * return CKR_ACTION_PROHIBITED", ItemOutcome::Failed),
    ] {
        let site = Site::determined().await;
        site.configure(|text| format!("{text}\n[signing]\nchunk = 20\n"));
        site.fault(Which::Recovery, Some(script));
        let daemon = site.start_active().await;
        let (items, stopped) = lines_and_stop(&daemon.client, SIGN, &ask_for_all(site.main())).await.unwrap();
        assert!(items.iter().all(|item| item.outcome == outcome), "{script}: {items:?}");
        assert!((20..=40).contains(&items.len()), "{script}: {} of {DEVICES}", items.len());
        let reasons = stopped.expect("it says why it stopped");
        let function = script.split(' ').next().unwrap();
        assert!(&*reasons[0].rule == "token" && reasons[0].text.contains(function), "{script}: {reasons:?}");
        // It is mended, and the rest is signed under the same request.
        site.fault(Which::Recovery, Some("# healthy"));
        site.lock(&daemon.client).await.unwrap();
        site.activate(&daemon.client).await.unwrap();
        finish(&site, daemon, &ask_for_all(site.main()), Handed::default()).await;
    }
}

#[tokio::test]
async fn a_token_that_signs_wrongly_is_locked_and_says_why_until_somebody_activates_its_key_again() {
    let site = Site::on_two_tokens().await;
    let daemon = counted(&site, "C_Sign * delay 2ms", "C_Sign 5 corrupt").await;
    let ask = ask_for_all(site.main());
    let items = whole(lines(&daemon.client, SIGN, &ask).await);
    let unknown = items.iter().filter(|item| item.outcome == ItemOutcome::Unknown).count();
    assert!((1..=3).contains(&unknown), "{unknown}");
    let shown = key(&daemon.client).await;
    let trouble = shown.tokens[1].trouble.as_ref().unwrap();
    assert!(shown.active && trouble.what.contains("take the token out of use"), "{shown:?}");
    // Its maker has said why.
    site.lock(&daemon.client).await.unwrap();
    site.activate(&daemon.client).await.unwrap();
    let mut handed = Handed::default();
    handed.take(&site, &items);
    finish(&site, daemon, &ask, handed).await;
}

#[tokio::test]
async fn a_token_that_is_taken_out_in_a_batch_is_left_out_and_is_back_once_it_is_put_back() {
    let site = Site::on_two_tokens().await;
    let daemon = counted(&site, "C_Sign * delay 5ms", "C_Sign * delay 5ms").await;
    let client = daemon.client.clone();
    let ask = ask_for_all(site.main());
    let running = tokio::spawn({
        let (client, ask) = (client.clone(), ask.clone());
        async move { lines(&client, SIGN, &ask).await }
    });
    site.reach(Which::Copy, "C_Sign", 20).await;
    let put_back = site.take_out(COPY_TOKEN);
    let mut handed = Handed::default();
    let items = whole(running.await.unwrap());
    handed.take(&site, &items);
    // What was at the token when it went: no more than its sessions had in hand.
    assert!(handed.len() >= DEVICES as usize - 16, "{}", handed.len());
    wait_for_states(&client, &[KeyTokenState::Up, KeyTokenState::Down]).await;
    println!("taken out:\n{}\n", self::shown(&site));
    assert!(self::shown(&site).contains(&format!("on {COPY_TOKEN}: down, left out until it is back")));
    let shown = key(&client).await;
    assert!(shown.active && shown.trouble.is_none(), "{shown:?}");
    assert!(shown.tokens[1].trouble.as_ref().unwrap().remedy.contains("by itself"), "{shown:?}");
    put_back();
    wait_for_states(&client, &[KeyTokenState::Up, KeyTokenState::Up]).await;
    println!("put back:\n{}\n", self::shown(&site));
    assert!(self::shown(&site).contains(&format!("on {COPY_TOKEN}: up")));
    finish(&site, daemon, &ask, handed).await;
}

#[tokio::test]
async fn a_lock_stops_both_tokens() {
    let site = Site::on_two_tokens().await;
    let daemon = counted(&site, "C_Sign * delay 50ms", "C_Sign * delay 50ms").await;
    let client = daemon.client.clone();
    let ask = ask_for_all(site.main());
    let running = tokio::spawn({
        let (client, ask) = (client.clone(), ask.clone());
        async move { lines_and_stop(&client, SIGN, &ask).await }
    });
    site.reach(Which::Recovery, "C_Sign", 3).await;
    site.reach(Which::Copy, "C_Sign", 3).await;
    client.post_nothing::<wire::KeyChanged>(&format!("/v1/keys/{RECOVERY_KEY}/lock")).await.unwrap();
    let counts = || site.calls(Which::Recovery, "C_Sign") + site.calls(Which::Copy, "C_Sign");
    let at_lock = counts();
    let (items, stopped) = running.await.unwrap().unwrap();
    assert!(stopped.is_some_and(|reasons| !reasons.is_empty()));
    assert_eq!(counts(), at_lock, "nothing was begun after the lock was answered");
    assert!(items.iter().filter(|item| item.outcome == ItemOutcome::NotSigned).count() > 200);
    assert_eq!(states(&client).await, [KeyTokenState::Off, KeyTokenState::Off]);
    assert_eq!(daemon.workers().len(), 1, "the workers of the locked key go");
    let mut handed = Handed::default();
    handed.take(&site, &items);
    site.activate(&client).await.unwrap();
    finish(&site, daemon, &ask, handed).await;
}

#[tokio::test]
async fn a_key_is_activated_on_the_tokens_that_are_there_and_the_others_are_told_and_can_follow() {
    for (out, left) in [(COPY_TOKEN, RECOVERY_TOKEN), (RECOVERY_TOKEN, COPY_TOKEN)] {
        let site = Site::on_two_tokens().await;
        let daemon = site.start().await;
        let client = &daemon.client;
        let put_back = site.take_out(out);
        let changed = site.activate(client).await.unwrap();
        assert!(changed.key.active);
        let told = changed.key.tokens.iter().find(|token| token.token.as_str() == out).unwrap();
        assert_eq!(told.state, KeyTokenState::LeftOut);
        assert!(told.trouble.as_ref().unwrap().what.contains("no token labelled"), "{told:?}");
        assert_eq!(activations(&site), [[left]]);
        let ledger = site.ledger();
        let refusals = ledger.refusals();
        assert!(refusals.last().unwrap().reasons[0].text.contains(out), "{refusals:?}");

        // An incident whose key is active is not activated for again: first locked, then on all that are there.
        put_back();
        site.lock(client).await.unwrap();
        site.activate(client).await.unwrap();
        assert_eq!(states(client).await, [KeyTokenState::Up, KeyTokenState::Up]);
        assert_eq!(activations(&site)[1], [RECOVERY_TOKEN, COPY_TOKEN]);
        let ask = ask_for_all(site.main());
        finish(&site, daemon, &ask, Handed::default()).await;
    }
}

#[tokio::test]
async fn without_any_of_its_tokens_a_key_stays_locked() {
    let site = Site::on_two_tokens().await;
    let daemon = site.start().await;
    let (_, _) = (site.take_out(COPY_TOKEN), site.take_out(RECOVERY_TOKEN));
    site.activate(&daemon.client).await.unwrap_err();
    assert_eq!(states(&daemon.client).await, [KeyTokenState::Off, KeyTokenState::Off]);
    assert_eq!(activations(&site), Vec::<Vec<String>>::new());
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn a_clone_that_no_ceremony_found_is_not_used_and_the_ceremony_finds_it_once() {
    let site = Site::cloned().await;
    let daemon = site.start().await;
    let changed = site.activate(&daemon.client).await.unwrap();
    let left_out = &changed.key.tokens[1];
    assert_eq!((left_out.state, &left_out.serial), (KeyTokenState::LeftOut, &None));
    assert!(left_out.trouble.as_ref().unwrap().what.contains("smkictl ceremony copy"), "{left_out:?}");
    assert_eq!(activations(&site), [[RECOVERY_TOKEN]]);
    let before = site.ledger().size();
    let dry = site.ceremony_copy(&["--dry-run"]);
    assert!(dry.status.success() && String::from_utf8_lossy(&dry.stderr).contains("no token was asked"));
    assert_eq!(site.ledger().size(), before);
    assert!(daemon.stop().await.unwrap().success());
    let before = site.ledger().size();
    let dry = site.ceremony_copy(&["--dry-run"]);
    assert!(dry.status.success() && String::from_utf8_lossy(&dry.stderr).contains("no token was asked"));
    assert_eq!(site.ledger().size(), before);
    assert!(site.ceremony_copy(&[]).status.success());
    let ledger = site.ledger();
    let Event::KeyCopied(KeyCopied { token, serial, by, .. }) = &ledger.entries.last().unwrap().event else {
        panic!("no clone was recorded")
    };
    assert_eq!((token.as_str(), &**serial, &**by), (COPY_TOKEN, site.serial(COPY_TOKEN).as_str(), MEANS));
    let again = site.ceremony_copy(&[]);
    assert!(again.status.success() && String::from_utf8_lossy(&again.stderr).contains("nothing was done"));
    assert_eq!(site.ledger().size(), ledger.size());

    let daemon = site.start_active().await;
    assert_eq!(states(&daemon.client).await, [KeyTokenState::Up, KeyTokenState::Up]);
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_replaced_while_smkid_runs_and_signs_and_no_command_is_lost() {
    let site = Site::on_two_tokens().await;
    // The token that is to come is described already; nothing of it is in the policy yet.
    site.put_third_token();
    let daemon = counted(&site, "C_Sign * delay 200ms", "C_Sign * delay 200ms").await;
    let client = daemon.client.clone();
    let refused = site.ceremony_copy_to(THIRD_TOKEN, &[]);
    assert_eq!(refused.status.code(), Some(4), "{}", String::from_utf8_lossy(&refused.stderr));

    let ask = ask_for_all(site.main());
    let running = tokio::spawn({
        let (client, ask) = (client.clone(), ask.clone());
        async move { lines_and_stop(&client, SIGN, &ask).await }
    });
    site.reach(Which::Recovery, "C_Sign", 10).await;
    // A policy without the first token, and with a third.
    let files = site.changed_policy("keys.toml", |text| {
        let copies =
            format!("token = \"{COPY_TOKEN}\"\ncopies = [{{ token = \"{THIRD_TOKEN}\", by = \"{MEANS}\" }}]\n");
        let tokens = format!("name = \"{COPY_TOKEN}\"\n\n[[token]]\nname = \"{THIRD_TOKEN}\"\n");
        text.replace(&format!("token = \"{RECOVERY_TOKEN}\"\n"), &copies)
            .replace(&format!("name = \"{RECOVERY_TOKEN}\"\n"), &tokens)
    });
    site.adopt(&client, &files, vec![site.main()]).await;
    let copied = site.ceremony_copy_to(THIRD_TOKEN, &[]);
    let said = String::from_utf8_lossy(&copied.stderr).into_owned();
    assert!(copied.status.success() && said.contains("the running daemon opens the key on this token too"), "{said}");
    let ledger = site.ledger();
    let (at, entry) = ledger
        .entries
        .iter()
        .enumerate()
        .find(|(_, entry)| matches!(&entry.event, Event::KeyCopied(copied) if copied.token.as_str() == THIRD_TOKEN))
        .expect("the daemon recorded it");
    assert_eq!((entry.by.role, entry.by.channel), (Role::Ceremony, Channel::Socket));
    assert!((at as u64) < ledger.checkpointed, "and under a checkpoint");
    let again = site.ceremony_copy_to(THIRD_TOKEN, &[]);
    assert!(again.status.success() && String::from_utf8_lossy(&again.stderr).contains("nothing was done"));

    // Locked and activated: from then on the old one is let go, and the new one signs.
    site.lock(&client).await.unwrap();
    let (items, _) = running.await.unwrap().unwrap();
    let mut handed = Handed::default();
    handed.take(&site, &items);
    assert!(handed.len() < DEVICES as usize, "what is left is signed by the new ones");
    let changed = site.activate(&client).await.unwrap();
    let names: Vec<&str> = changed.key.tokens.iter().map(|token| token.token.as_str()).collect();
    assert_eq!(names, [COPY_TOKEN, THIRD_TOKEN]);
    assert_eq!(states(&client).await, [KeyTokenState::Up, KeyTokenState::Up]);
    assert_eq!(activations(&site)[1], [COPY_TOKEN, THIRD_TOKEN]);
    let (before, copys) = (site.calls(Which::Recovery, "C_Sign"), site.calls(Which::Copy, "C_Sign"));
    let left = DEVICES as usize - handed.len();
    let _put_back = site.take_out(RECOVERY_TOKEN);
    finish(&site, daemon, &ask, handed).await;
    assert_eq!(site.calls(Which::Recovery, "C_Sign"), before, "the old token signs no more");
    let by_copy = site.calls(Which::Copy, "C_Sign") - copys;
    assert!(by_copy < left as u64, "the third token signed {} of {left}", left as u64 - by_copy);
}

/// A token of this ledger, by its genesis, with another key under the Recovery key's names, in the place and under the serial number
/// of the clone.
fn put_strange_token(site: &Site) {
    let ledger = site.ledger();
    let Event::Genesis(genesis) = &ledger.entries[0].event else { panic!("the first entry is genesis") };
    let record = genesis.keys.iter().find(|key| key.label.as_str() == RECOVERY_KEY).unwrap();
    let strange = TestToken::new("exercise-recovery");
    let (config, label, id, genesis) = (strange.config(1), record.label.clone(), record.id, site.base.genesis);
    // On a thread of its own: it waits for the token.
    let made = std::thread::spawn(move || {
        let (token, _) = Token::start(config, secrecy::SecretString::from(PIN), Expectations::default()).unwrap();
        token.generate_key(label, id, KeyUse::Recovery).wait().unwrap();
        token.write_genesis(genesis).wait().unwrap();
        token.shutdown();
    });
    made.join().unwrap();
    let serial = site.serial(COPY_TOKEN);
    let place = folder_of(&site.path("tokens"), &serial);
    fs::remove_dir_all(&place).unwrap();
    desk::copy(&folder_of(&strange.dir().join("tokens"), &strange.serial), &place);
    rename_token(&place, &strange.serial, &serial);
    let path = site.path("strange.pin");
    fs::write(&path, PIN).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    site.configure(|text| {
        let (before, block) = text.split_once(&format!("name = \"{COPY_TOKEN}\"")).unwrap();
        let from = block.find("pin = ").unwrap();
        let until = from + block[from..].find('\n').unwrap();
        let pin = format!("pin = {{ file = \"{}\" }}", path.display());
        format!("{before}name = \"{COPY_TOKEN}\"{}{pin}{}", &block[..from], &block[until..])
    });
}

#[tokio::test]
async fn a_token_with_another_key_of_the_same_name_is_refused_by_name() {
    // At the ceremony: nothing is recorded.
    let site = Site::cloned().await;
    put_strange_token(&site);
    let before = site.ledger().size();
    let output = site.ceremony_copy(&[]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(5), "{said}");
    assert!(said.contains(&format!("token {COPY_TOKEN}")) && said.contains("expected the public key"), "{said}");
    assert_eq!(site.ledger().size(), before);

    // At the activation: the key is active without it, and the refusal is recorded.
    let site = Site::on_two_tokens().await;
    put_strange_token(&site);
    let daemon = site.start().await;
    let changed = site.activate(&daemon.client).await.unwrap();
    assert_eq!(changed.key.tokens[1].state, KeyTokenState::LeftOut);
    assert_eq!(activations(&site), [[RECOVERY_TOKEN]]);
    let ledger = site.ledger();
    let text = &ledger.refusals().last().unwrap().reasons[0].text;
    assert!(text.contains(&format!("token {COPY_TOKEN}")) && text.contains("expected the public key"), "{text}");
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn the_tokens_of_ledger_and_recovery_key_have_modules_pins_and_settings_of_their_own() {
    let site = Site::determined().await;
    // One behind another module and on more sessions; the other as it is.
    site.fault(Which::Recovery, Some("C_OpenSession 0 stop\nC_Login 0 stop\nC_Sign 0 stop"));
    site.configure(|text| {
        let (before, recovery) = text.split_once(&format!("name = \"{RECOVERY_TOKEN}\"\n")).unwrap();
        format!("{before}name = \"{RECOVERY_TOKEN}\"\nsessions = 5\ndeadline_ms = 7000\n{recovery}")
    });
    let pin = |label: &str| fs::read_to_string(site.path(&format!("{label}.pin"))).unwrap();
    assert_ne!(pin("exercise-ledger"), pin("exercise-recovery"));
    let daemon = site.start().await;
    assert_eq!(site.calls(Which::Recovery, "C_Login"), 0, "nobody logs in to it before it is activated");
    site.activate(&daemon.client).await.unwrap();
    assert_eq!(site.calls(Which::Recovery, "C_Login"), 1);
    let items = whole(lines(&daemon.client, SIGN, &ask_for_all(site.main())).await);
    assert!(items.iter().all(|item| item.outcome == ItemOutcome::Signed));
    // Its own commands, on its own sessions and the one that stays open; no checkpoint among them.
    assert_eq!(site.calls(Which::Recovery, "C_Sign"), u64::from(DEVICES));
    assert_eq!(site.calls(Which::Recovery, "C_OpenSession"), 5 + 1);
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());

    // Each PIN opens its own token only.
    site.configure(|text| text.replace("exercise-recovery.pin", "exercise-ledger.pin"));
    site.fault(Which::Recovery, Some("C_Login 0 stop"));
    let daemon = site.start().await;
    site.activate(&daemon.client).await.unwrap_err();
    assert_eq!(site.calls(Which::Recovery, "C_Login"), 1, "a wrong PIN is offered once");
    assert!(daemon.stop().await.unwrap().success());
}

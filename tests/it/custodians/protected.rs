//! Where the HSM itself asks: custodians sign statements and bring no share, and the token is logged in to without a PIN of ours.

use super::*;
use crate::support::site::Which;

/// A token that says that it asks by itself.
const ASKS: &str = "C_GetTokenInfo * set CKF_PROTECTED_AUTHENTICATION_PATH";

impl Custody {
    /// Custodian `n` states what the key is to be opened for, and brings nothing.
    async fn state(&self, client: &Client, n: usize) -> wire::Presented {
        let statement = self.statement(client, n, |form| (form.share, form.generation) = (None, None)).await;
        let path = format!("/v1/keys/{RECOVERY_KEY}/presentations");
        let begun: wire::PresentationBegun = client.post(&path, &self.sent(n, &statement)).await.unwrap();
        assert!(begun.share.is_none(), "no share is asked for");
        begun.recorded.unwrap()
    }

    /// What is typed at the token's PIN pad.
    fn pad(&self) {
        use secrecy::ExposeSecret as _;
        let pin = Self::pin(&self.site);
        let typed = format!("FAULT_TOKEN_PIN_PAD = \"{}\", FAULT_TOKEN_MODULE", pin.expose_secret());
        self.site.configure(|text| text.replacen("FAULT_TOKEN_MODULE", &typed, 1));
    }
}

#[tokio::test]
async fn a_token_that_asks_by_itself_is_opened_by_statements_of_enough_custodians_and_by_no_pin_of_ours() {
    let custody = Custody::adopted("protected-path").await;
    let site = &custody.site;
    site.fault(Which::Recovery, Some(ASKS));
    custody.pad();
    let daemon = site.start().await;
    let client = &daemon.client;
    assert_eq!(custody.activation(client).await, ["custodians"]);
    assert_eq!(custody.refused(client, 1, |_| {}).await, ["share-missing"], "it names a share");
    let standing = custody.state(client, 1).await.standing;
    assert_eq!((standing.have, standing.can_present.len()), (1, 2));
    assert_eq!(custody.activation(client).await, ["custodians"]);
    custody.state(client, 3).await;
    assert_eq!(custody.activation(client).await, ["custodians-of-one-party"]);
    assert_eq!(site.calls(Which::Recovery, "C_Login"), 0, "nobody was asked yet");
    // At the console as well: the statement names no share, and none is brought.
    custody.bring();
    let digest = custody.states(2, "s2.json");
    custody.signs("s2.json", "me-2", &digest).ok();
    let present = format!(
        "custodian present {RECOVERY_KEY} --statement s2.json --signature s2.custodian-2.p7s --share share-2.pem"
    );
    site.smkictl(&present).is(1).says("leave --share out");
    let presented = site.smkictl(present.strip_suffix(" --share share-2.pem").unwrap()).ok();
    assert!(presented.out.contains("3 of 2 presented, of 2 of 2 Parties"), "{}", presented.out);
    site.activate(client).await.unwrap();
    assert_eq!(site.calls(Which::Recovery, "C_Login"), 1);
    assert_eq!(whole(lines(client, "/v1/recovery/sign", &ask_for(site.main(), 0..2)).await).len(), 2);
    site.lock(client).await.unwrap();
    assert_eq!(custody.activation(client).await, ["custodians"], "once locked, everybody anew");
    site.verify_export("protected");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn a_token_that_does_not_ask_by_itself_is_offered_nothing() {
    let custody = Custody::adopted("protected-path").await;
    let site = &custody.site;
    site.fault(Which::Recovery, Some("log calls"));
    custody.pad();
    let daemon = site.start().await;
    let client = &daemon.client;
    custody.state(client, 1).await;
    custody.state(client, 2).await;
    let refused = problem(site.activate(client).await);
    assert!(refused.message.contains("CKF_PROTECTED_AUTHENTICATION_PATH"), "{refused:?}");
    let ledger = site.ledger();
    let recorded = ledger.refusals().pop().unwrap();
    assert!(recorded.reasons[0].text.contains("CKF_PROTECTED_AUTHENTICATION_PATH"), "{recorded:?}");
    assert_eq!(site.calls(Which::Recovery, "C_Login"), 0);
    assert_eq!(custody.standing(client).await.have, 2, "mended, it is tried again without anybody coming anew");
    assert!(daemon.stop().await.unwrap().success());
}

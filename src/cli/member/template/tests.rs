use super::*;
use crate::domain::names::AccountName;
use crate::domain::policy::Activation;
use crate::exercise::lab::tests::{generation, lab, now};
use crate::exercise::people::People;
use crate::exercise::policy;
use crate::exercise::template::tests::recovery;
use crate::exercise::template::{contingency, template};

#[test]
fn a_new_root_is_shown_by_its_digest_in_words_with_what_it_carries_and_whether_the_policy_has_it() {
    let mut lab = lab();
    lab.carry(generation().wrapped).unwrap();
    let (recovery, _) = recovery(&lab);
    let account: AccountName = "operator".parse().unwrap();
    let files = policy::files(&lab, &People::new(now()).unwrap(), &account, Activation::Stored, now());
    let policy = policy::read(&files).unwrap();
    let told = |template: &Template, policy: Option<&Policy>| {
        let mut page = Page::default();
        show(&mut page, template.octets(), policy);
        (page.text().to_owned(), json(template.octets(), policy))
    };

    let renewal = lab.renew(Some(generation().wrapped), &recovery).unwrap();
    let approved = contingency(&renewal).unwrap();
    let digest = renewal.root_oca().sha256();
    let (page, json) = told(&approved, Some(&policy));
    assert!(page.contains("THE NEW ROOT") && page.contains(&digest.to_string()), "{page}");
    for line in Words(digest).to_string().lines() {
        assert!(page.contains(line.trim()), "{line} is not in\n{page}");
    }
    assert!(page.contains("a contingency key, wrapped by aes-256-gcm"), "{page}");
    assert!(page.contains("NO: it is none of its Root OCA Certificates"), "{page}");
    assert_eq!((&json["newRoot"]["sha256"], &json["newRoot"]["inPolicy"]), (&json!(digest), &json!(false)));
    let (page, json) = told(&approved, None);
    assert!(page.contains("not looked at: no policy is given") && json["newRoot"]["inPolicy"].is_null(), "{page}");

    // The other side of each: a root of the policy, one that carries nothing, and a command without a root.
    let mut update = approved.update();
    update.replacements[0].certificate = lab.root_oca().octets();
    let (page, json) = told(&Template::from_update(&update).unwrap(), Some(&policy));
    assert!(page.contains("yes: it is one of its Root OCA Certificates"), "{page}");
    assert_eq!(json["newRoot"]["inPolicy"], json!(true));
    let bare = contingency(&lab.renew(None, &recovery).unwrap()).unwrap();
    let (page, json) = told(&bare, Some(&policy));
    assert!(page.contains("NO contingency key: after it no Contingency command reaches the Device"), "{page}");
    assert!(json["newRoot"]["carries"].is_null());
    let (page, json) = told(&template(&lab, &recovery, lab.after()).unwrap(), Some(&policy));
    assert!(!page.contains("THE NEW ROOT") && json.get("newRoot").is_none(), "{page}");
}

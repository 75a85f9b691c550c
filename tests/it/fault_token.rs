//! The fault-injecting module with tools that know nothing of us: what `src/docs/fault-token.md` says of it.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Output};

use crate::support::token::{MODULE, PIN, TestToken, fault_token, write_script};

/// A token with a key, behind the module.
struct Behind(TestToken);

impl Behind {
    fn new() -> Self {
        let token = TestToken::new("behind");
        token.pkcs11_tool_logged_in(&["--keypairgen", "--key-type", "EC:prime256v1", "--label", "key", "--id", "01"]);
        fs::write(token.dir().join("digest"), [0x5a; 32]).unwrap();
        Self(token)
    }

    /// From the next call on.
    fn script(&self, text: &str) {
        write_script(&self.0.dir().join("script"), text);
    }

    fn tool(&self, program: &str) -> Command {
        let mut command = self.0.command(program);
        command
            .current_dir(self.0.dir())
            .env("FAULT_TOKEN_MODULE", MODULE)
            .env("FAULT_TOKEN_SCRIPT", self.0.dir().join("script"));
        command
    }

    fn pkcs11_tool(&self, arguments: &[&str]) -> Output {
        self.tool("pkcs11-tool").arg("--module").arg(fault_token()).args(arguments).output().unwrap()
    }

    fn sign(&self) -> Output {
        let _ = fs::remove_file(self.0.dir().join("signature"));
        let what =
            ["--sign", "--mechanism", "ECDSA", "--id", "01", "--input-file", "digest", "--output-file", "signature"];
        self.pkcs11_tool(&[&["--login", "--pin", PIN][..], &what].concat())
    }

    /// Whether the signature is one, by the real module.
    fn verifies(&self) -> bool {
        let mut command = self.0.command("pkcs11-tool");
        command.current_dir(self.0.dir()).args(["--module", MODULE, "--verify", "--mechanism", "ECDSA", "--id", "01"]);
        let output = command.args(["--input-file", "digest", "--signature-file", "signature"]).output().unwrap();
        said(&output).contains("Signature is valid")
    }

    fn signature_len(&self) -> u64 {
        fs::metadata(self.0.dir().join("signature")).unwrap().len()
    }

    fn tokens_by_p11tool(&self) -> String {
        let provider = format!("--provider={}", fault_token().display());
        said(&self.tool("p11tool").args([&provider, "--list-tokens"]).output().unwrap())
    }
}

fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|said| String::from_utf8_lossy(said).into_owned()).concat()
}

#[test]
fn without_a_fault_tools_work_as_with_the_real_module_and_each_call_is_written_down() {
    let behind = Behind::new();
    behind.script("log calls\n");
    assert!(behind.sign().status.success());
    assert!(behind.verifies());
    let log = fs::read_to_string(behind.0.dir().join("calls")).unwrap();
    let signed: Vec<&str> = log.lines().filter(|line| line.contains(" C_Sign ")).collect();
    let signature = hex::encode(fs::read(behind.0.dir().join("signature")).unwrap());
    assert_eq!(signed.len(), 1, "{log}");
    let told = format!("C_Sign 1 asked=yes token=CKR_OK client=CKR_OK data={} signature={signature}", "5a".repeat(32));
    assert!(signed[0].ends_with(&told), "{log}");
    assert!(log.contains(" C_Login 1 asked=yes token=CKR_OK client=CKR_OK\n"), "{log}");
    assert!(!log.contains(PIN) && !log.contains(&hex::encode(PIN)), "no PIN is written");
}

#[test]
fn a_signature_is_spoilt_in_one_bit_or_in_its_length() {
    let behind = Behind::new();
    behind.script("C_Sign 1 corrupt");
    assert!(behind.sign().status.success());
    assert!(!behind.verifies());
    assert!(behind.sign().status.success());
    assert!(behind.verifies(), "the second call was to be left alone");
    for (script, len) in
        [("C_Sign * short", 63), ("C_Sign * short 10", 54), ("C_Sign * long", 65), ("C_Sign * long 4", 68)]
    {
        behind.script(script);
        assert!(behind.sign().status.success(), "{script}");
        assert_eq!(behind.signature_len(), len, "{script}");
    }
}

#[test]
fn answers_are_given_before_the_token_is_asked_or_in_place_of_its_own() {
    let behind = Behind::new();
    for (fault, text, asked) in [
        ("C_Login +1 return CKR_PIN_EXPIRED", "CKR_PIN_EXPIRED", "C_Login 1 asked=no token=-"),
        ("C_Login +1 lose CKR_PIN_LOCKED", "CKR_PIN_LOCKED", "C_Login 2 asked=yes token=CKR_OK"),
        ("C_SignInit +1 return 0x80000042", "0x80000042", "C_SignInit 1 asked=no token=-"),
        ("C_OpenSession +* limit 0", "CKR_SESSION_COUNT", "asked=no token=- client=CKR_SESSION_COUNT"),
    ] {
        behind.script(&format!("log calls\n{fault}\n"));
        let output = behind.sign();
        assert!(!output.status.success(), "{fault}");
        assert!(said(&output).to_lowercase().contains(&text.to_lowercase()), "{fault}: {}", said(&output));
        let log = fs::read_to_string(behind.0.dir().join("calls")).unwrap();
        assert!(log.contains(asked), "{fault}: {log}");
    }
}

#[test]
fn a_process_ends_as_the_script_says() {
    let behind = Behind::new();
    for (action, signal, status) in [
        ("kill", Some(9), None),
        ("kill-after", Some(9), None),
        ("abort", Some(6), None),
        ("segfault", Some(11), None),
        ("exit 7", None, Some(7)),
    ] {
        behind.script(&format!("# {action}\nlog calls\nC_Sign +1 {action}"));
        let output = behind.sign();
        assert_eq!((output.status.signal(), output.status.code()), (signal, status), "{action}: {}", said(&output));
    }
    let log = fs::read_to_string(behind.0.dir().join("calls")).unwrap();
    let made = log.lines().filter(|line| line.contains("signature=")).count();
    assert_eq!(made, 1, "a process that was killed afterwards has told what its token signed: {log}");
}

#[test]
fn a_token_vanishes_for_every_process_and_comes_back_when_the_script_changes() {
    let behind = Behind::new();
    behind.script("C_GetTokenInfo 1 gone");
    // Whoever looks first finds it gone in the middle of looking; and everybody after it, by another tool too.
    behind.pkcs11_tool(&["--list-slots"]);
    assert!(!said(&behind.pkcs11_tool(&["--list-token-slots"])).contains("behind"));
    assert!(!behind.tokens_by_p11tool().contains("behind"));
    assert!(!behind.sign().status.success());
    behind.script("# put back");
    assert!(behind.tokens_by_p11tool().contains("Label: behind"));
    assert!(behind.sign().status.success());
    assert!(behind.verifies());
}

#[test]
fn flags_slots_and_chatter_are_what_the_script_says() {
    let behind = Behind::new();
    let slots = |script: &str| {
        behind.script(script);
        said(&behind.pkcs11_tool(&["--list-slots"]))
    };
    let number = |text: &str| {
        let line = text.lines().find(|line| line.starts_with("Slot 0 (0x")).unwrap().to_owned();
        u64::from_str_radix(line.split(['x', ')']).nth(1).unwrap(), 16).unwrap()
    };
    let healthy = slots("# nothing");
    assert!(healthy.contains("login required") && !healthy.contains("locked"), "{healthy}");
    assert!(slots("C_GetTokenInfo * set CKF_USER_PIN_LOCKED").contains("user PIN locked"));
    assert!(slots("C_GetTokenInfo * final-try").contains("final user PIN try"));
    assert!(slots("C_GetTokenInfo * set CKF_USER_PIN_COUNT_LOW").contains("user PIN count low"));
    assert!(!slots("C_GetTokenInfo * clear CKF_LOGIN_REQUIRED").contains("login required"));
    assert_eq!(number(&slots("C_Initialize * shift-slots 5")), number(&healthy) + 5);
    behind.script("C_Initialize * shift-slots 5");
    assert!(behind.sign().status.success(), "the other number serves");
    behind.script("C_Initialize +1 print 1000\nC_Initialize +1 complain 2000");
    let output = behind.pkcs11_tool(&["--list-slots"]);
    assert!(output.stdout.starts_with(b"fault-token: chatter at call ") && output.stdout.len() > 1000);
    assert!(output.stderr.starts_with(b"fault-token: chatter at call ") && output.stderr.len() >= 2000);
}

#[test]
fn a_script_that_is_none_is_refused_with_its_line_and_the_module_does_not_load() {
    let behind = Behind::new();
    behind.script("C_Sign 1 kill\nC_Sign 2 explode\n");
    let output = behind.pkcs11_tool(&["--list-slots"]);
    assert!(!output.status.success());
    let said = said(&output);
    assert!(said.contains("script line 2: expected one of: return CODE"), "{said}");
    assert!(said.contains("found \"explode\""), "{said}");
    let mut without = behind.0.command("pkcs11-tool");
    let output = without.arg("--module").arg(fault_token()).arg("--list-slots").output().unwrap();
    let said = self::said(&output);
    assert!(said.contains("expected the path of the real PKCS#11 module in FAULT_TOKEN_MODULE"), "{said}");
}

#[test]
fn processes_count_together_unless_each_counts_its_own() {
    let behind = Behind::new();
    // Of four processes that sign once each, the second and the third, by number.
    behind.script("C_Sign 2-3 return CKR_DEVICE_ERROR");
    let ended = || (0..4).map(|_| behind.sign().status.success()).collect::<Vec<_>>();
    assert_eq!(ended(), [true, false, false, true]);
    // Each for itself: nobody comes to a second.
    behind.script("counts process\nC_Sign 2-3 return CKR_DEVICE_ERROR");
    assert_eq!(ended(), [true; 4]);
    behind.script("counts process\nC_Sign 1 return CKR_DEVICE_ERROR");
    assert_eq!(ended(), [false; 4]);
}

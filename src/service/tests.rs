use std::io;
use std::sync::{Arc, Mutex};

use tracing_subscriber::fmt::MakeWriter;

use super::*;

/// Keeps what is logged.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl io::Write for Kept {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(octets);
        Ok(octets.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Kept {
    type Writer = Self;
    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[track_caller]
fn check_logged(setting: Option<&str>, info: bool, warning: bool) {
    let kept = Kept::default();
    let subscriber =
        tracing_subscriber::fmt().with_env_filter(filter(setting)).with_writer(kept.clone()).with_ansi(false).finish();
    tracing::subscriber::with_default(subscriber, || {
        tracing::info!("to know");
        tracing::warn!("to look at");
        tracing::info!(target: CHECKPOINT_TARGET, size = 7, "checkpoint");
    });
    let logged = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
    assert_eq!(
        (logged.contains("to know"), logged.contains("to look at"), logged.contains("checkpoint size=7")),
        (info, warning, true),
        "{setting:?}: {logged}"
    );
}

#[test]
fn no_setting_of_the_log_filters_a_checkpoint() {
    check_logged(None, true, true);
    check_logged(Some("debug"), true, true);
    check_logged(Some("warn"), false, true);
    check_logged(Some("error"), false, false);
    check_logged(Some("off"), false, false);
    check_logged(Some("smkid=warn"), false, true);
    check_logged(Some("warn,smkid::checkpoint=off"), false, true);
    check_logged(Some("no=such=filter"), true, true);
}

#[test]
fn each_end_has_its_own_exit_status() {
    for (kind, end, status) in [
        (FatalKind::RefusedToStart, End::RefusedToStart, 70),
        (FatalKind::CannotRecord, End::CannotRecord, 74),
        (FatalKind::Configuration, End::BadConfiguration, 78),
    ] {
        let error = StartError::from(Fatal { kind, why: "Why".into(), remedy: "What to do".into() });
        assert_eq!((error.end(), error.end().status()), (end, status));
        assert!(error.to_string().ends_with("Why. What to do"), "{error}");
    }
}

//! Throwaway.
#![allow(clippy::all, clippy::pedantic, missing_docs)]
use smkid::domain::files::{Content, ExportRow, Layout};
use smkid::domain::incident::{Targets, statuses};
use smkid::domain::ledger::steps::SmiStatus;
use smkid::domain::names::{DeviceId, Digest, Eui64, FileKind};
use std::fmt::Write as _;
use std::time::Instant;

fn t<R>(what: &str, f: impl FnOnce() -> R) -> R {
    let b = Instant::now();
    let r = f();
    println!("{what}: {:.1} ms", b.elapsed().as_secs_f64() * 1e3);
    r
}
fn src(text: &str) -> impl Fn(&mut dyn FnMut(&[u8])) -> Result<(), std::convert::Infallible> + '_ {
    move |piece| {
        text.as_bytes().chunks(65536).for_each(&mut *piece);
        Ok(())
    }
}
fn main() {
    let n = 1_000_000u64;
    let dev = |i: u64| DeviceId(Eui64((0x02DE_1CE0_0000_0000 + i).to_be_bytes()));
    let (mut list, mut plain, mut extract) = (String::new(), String::new(), String::from("device,status,from\n"));
    for i in 0..n {
        let _ = writeln!(list, "{},Commissioned,2016-11-03,read by SRV 8.2 of 2017-07-20", dev(i));
        let _ = writeln!(plain, "{}", dev(i));
        let s = if i % 10 == 0 { SmiStatus::Recovery } else { SmiStatus::Commissioned };
        let from = if i % 10 == 0 { "2017-07-22T00:00:00Z" } else { "2016-11-03T00:00:00Z" };
        let _ = writeln!(extract, "{},{s},{from}", dev(i));
    }
    let mut targets =
        t("read targets (assess: once to decide, once in the fold)", || Targets::read(src(&list)).unwrap());
    let copy = t("BEFORE: copy all (set-status, exclude, hand-over, key activate)", || targets.all().to_vec());
    t("AFTER: share (devices, key activate)", || targets.clone());
    t("look at all", || {
        targets.look(None::<fn(&mut dyn FnMut(&[u8])) -> Result<(), std::convert::Infallible>>, 0, |_| {}).unwrap()
    });
    t("look at a list of all", || targets.look(Some(src(&plain)), n, |_| {}).unwrap());
    t("alter a list of all (fold)", || targets.each(Some(src(&plain)), |t| t.excluded = false).unwrap());
    let csv = t("BEFORE: devices as one string", || {
        let mut text = String::new();
        for t in targets.all() {
            let _ = writeln!(text, "{},{},{},none,no,no,no", t.device, t.status, t.since);
        }
        text
    });
    println!("   {} MB", csv.len() / 1_000_000);
    let held = targets.clone();
    t("alter one while a reader holds them (the one copy)", || {
        targets.prove(dev(5), smkid::domain::incident::targets::Proof::Failed, None)
    });
    t("alter another", || targets.prove(dev(6), smkid::domain::incident::targets::Proof::Failed, None));
    drop((held, copy));
    t("SHA-256 of the extract", || Digest::of(extract.as_bytes()));
    println!("   {} MB", extract.len() / 1_000_000);
    let layout = Layout::standard(FileKind::SmiExtract);
    t("read the extract", || Content::read(&layout, extract.as_bytes()).unwrap().rows());
    let of = (&"INC-1".parse().unwrap(), "2017-07-25T12:00:00Z".parse().unwrap());
    let c = t("compare the extract (import: once to decide, once in the fold)", || {
        statuses::compare_all(&targets, &layout, of, src(&extract), |_, _, _| {}).unwrap()
    });
    println!("   {c:?}");
    t("count", || targets.counts());
    let _ = ExportRow::write_header;
}

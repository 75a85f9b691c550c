//! Small and large recoveries: whether a Device costs more where there are many, in time and in memory.
//!
//! Each recovery has a daemon, a ledger and tokens of its own. A job signs for every Device of the determination while `smkictl`, as a
//! process of its own, fetches the commands into files: from the device list in the ledger to the commands on the disk. Small ones
//! come before and after the large one, for rates drift.

use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::cpu::memory_kb_max;
use crate::daemon::{Daemon, Hsm};
use crate::{Fault, judge, say};

/// Devices of the small recoveries and of the large one.
pub const SMALL: usize = 10_000;
const LARGE: usize = 1_000_000;
const QUICK_LARGE: usize = 100_000;
/// Time for each Device, large over small, at most.
const TIME_RATIO_MAX: f64 = 1.1;
/// Memory of daemon or client, large over small, at most.
const MEMORY_RATIO_MAX: f64 = 1.15;
/// Memory of daemon or client at any size, in kB, at most: 256 MiB.
const MEMORY_KB_MAX: u64 = 256 * 1024;
/// How often a process is asked for its memory.
const EVERY: Duration = Duration::from_millis(50);

/// What one recovery took.
struct Taken {
    devices: usize,
    us_per_device: f64,
    cpu_us_per_device: f64,
    daemon_kb: u64,
    client_kb: u64,
}

/// Measures small, large, small. Answers whether the targets are met.
pub fn run(quick: bool, large: Option<usize>) -> Result<bool, Fault> {
    let large = large.unwrap_or(if quick { QUICK_LARGE } else { LARGE });
    println!("{:>10} {:>14} {:>14} {:>14} {:>14}", "Devices", "us/Device", "CPU us/Device", "smkid kB", "smkictl kB");
    let mut all = Vec::new();
    for devices in [SMALL, large, SMALL] {
        let taken = recovery(devices)?;
        let Taken { devices, us_per_device, cpu_us_per_device, daemon_kb, client_kb } = taken;
        println!("{devices:>10} {us_per_device:>14.1} {cpu_us_per_device:>14.1} {daemon_kb:>14} {client_kb:>14}");
        all.push(taken);
    }
    let (small, large) = all.iter().partition::<Vec<&Taken>, _>(|taken| taken.devices == SMALL);
    let large = large.first().ok_or("the large recovery has more Devices than the small one")?;
    println!();
    #[expect(clippy::cast_precision_loss, reason = "kilobytes of memory stay far below 2^52")]
    let over = |of: fn(&Taken) -> u64| say_over(&small, |taken| of(taken) as f64, of(large) as f64);
    let time =
        say("time for each Device, large over small", small.iter().map(|s| large.us_per_device / s.us_per_device));
    say("CPU for each Device, large over small", small.iter().map(|s| large.cpu_us_per_device / s.cpu_us_per_device));
    let daemon = say("VmHWM of smkid, large over small", over(|taken| taken.daemon_kb));
    let client = say("VmHWM of smkictl, large over small", over(|taken| taken.client_kb));
    let most = all.iter().map(|taken| taken.daemon_kb.max(taken.client_kb)).max().unwrap_or_default();
    let mut met = judge("time for each Device", time <= TIME_RATIO_MAX, &format!("at most {TIME_RATIO_MAX} times"));
    met &= judge("memory of smkid", daemon <= MEMORY_RATIO_MAX, &format!("at most {MEMORY_RATIO_MAX} times"));
    met &= judge("memory of smkictl", client <= MEMORY_RATIO_MAX, &format!("at most {MEMORY_RATIO_MAX} times"));
    met &= judge("memory of each", most < MEMORY_KB_MAX, "below 256 MiB");
    Ok(met)
}

/// The large figure over each of the small ones.
fn say_over(small: &[&Taken], of: impl Fn(&Taken) -> f64, large: f64) -> Vec<f64> {
    small.iter().map(|taken| large / of(taken)).collect()
}

fn recovery(devices: usize) -> Result<Taken, Fault> {
    let folder = tempfile::tempdir()?;
    let daemon = Daemon::start(&folder.path().join("daemon"), devices, Hsm::Fast)?;
    let before = crate::cpu::used(&daemon.processes())?;
    let began = Instant::now();
    let job = daemon.start_job()?;
    let mut client = daemon.smkictl(&["recovery", "fetch", &job, "--follow", "--format", "container", "--out"]);
    let mut client = client.arg(folder.path().join("commands")).stdout(Stdio::null()).spawn()?;
    let client_kb = waited_for(&mut client)?;
    let took = began.elapsed();
    let used = crate::cpu::used(&daemon.processes())?.saturating_sub(before);
    #[expect(clippy::cast_precision_loss, reason = "some millions of Devices")]
    let of_each = |took: Duration| took.as_secs_f64() * 1e6 / devices as f64;
    Ok(Taken {
        devices,
        us_per_device: of_each(took),
        cpu_us_per_device: of_each(used),
        daemon_kb: daemon.memory_kb_max()?,
        client_kb,
    })
}

/// Waits for a process to end well; the most memory that it had, as far as it was seen.
fn waited_for(child: &mut Child) -> Result<u64, Fault> {
    let mut most = 0;
    loop {
        most = memory_kb_max(child.id()).unwrap_or(most);
        if let Some(status) = child.try_wait()? {
            return if status.success() { Ok(most) } else { Err(format!("smkictl ended with {status}").into()) };
        }
        thread::sleep(EVERY);
    }
}

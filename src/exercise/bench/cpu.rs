//! Shell: the CPU and memory that processes have used, as proc(5) tells. Where others use the machine too, it says more than rates do:
//! with more threads one gets a larger share of a crowded machine, but not less work.

use std::time::Duration;

use super::Fault;

/// User and system time of all these processes since they began, and of those of their children that have ended.
pub fn used(processes: &[u32]) -> Result<Duration, Fault> {
    processes.iter().map(|process| used_by(*process)).sum()
}

fn used_by(process: u32) -> Result<Duration, Fault> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The fields after the name in parentheses, which may hold anything: state is the first, utime and stime the 12th and 13th, those
    // of children that were waited for the next two.
    let (_, fields) = stat.rsplit_once(')').ok_or("proc(5) puts the name in parentheses")?;
    let ticks: u64 = fields.split_whitespace().skip(11).take(4).map(str::parse::<u64>).sum::<Result<_, _>>()?;
    Ok(Duration::from_micros(ticks * 1_000_000 / rustix::param::clock_ticks_per_second()))
}

/// The most memory that a process had at any moment, in kB, as proc(5) tells.
pub fn memory_kb_max(process: u32) -> Result<u64, Fault> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("proc(5) has a line VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

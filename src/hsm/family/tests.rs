use super::*;

#[test]
fn a_child_is_found_by_its_parent_and_no_other_process_is() {
    let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let found = children_of(getpid());
    let pid = Pid::from_child(&child);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(found.contains(&pid));
    assert!(!found.contains(&getpid()));
}

use super::*;

#[track_caller]
fn check(permission: Permission, allowed: &[Role]) {
    for role in [Role::Operator, Role::Auditor, Role::Account, Role::Ceremony, Role::Daemon] {
        assert_eq!(permission.covers(role), allowed.contains(&role), "{permission:?} and {role}");
    }
}

#[test]
fn each_permission_covers_its_roles_and_no_other() {
    check(Permission::Anyone, &[Role::Operator, Role::Auditor, Role::Account]);
    check(Permission::Reading, &[Role::Operator, Role::Auditor]);
    check(Permission::Operating, &[Role::Operator]);
    // Whose user id it is says the rest.
    check(Permission::Conducting, &[Role::Operator, Role::Auditor, Role::Account]);
}

fn own_group() -> String {
    Group::from_gid(User::from_uid(Uid::current()).unwrap().unwrap().gid).unwrap().unwrap().name
}

#[track_caller]
fn check_own(operator: &[&str], auditor: &[&str], expected: Role) {
    let own = own_group();
    let named = |names: &[&str]| names.iter().map(|n| n.replace("OWN", &own)).collect();
    let roles = Roles { operator: named(operator), auditor: named(auditor), root_is_operator: false };
    assert_eq!(roles.caller(Uid::current().as_raw()).unwrap().role, expected, "{operator:?} {auditor:?}");
}

#[test]
fn a_role_comes_from_the_groups_of_the_account() {
    check_own(&[], &[], Role::Account);
    check_own(&["OWN"], &[], Role::Operator);
    check_own(&[], &["OWN"], Role::Auditor);
    check_own(&["OWN"], &["OWN"], Role::Operator);
    check_own(&["no-such-group-here"], &[], Role::Account);
    check_own(&["no-such-group-here", "OWN"], &[], Role::Operator);
}

#[test]
fn root_is_an_operator_only_if_the_configuration_says_so() {
    let role = |root_is_operator| Roles { root_is_operator, ..Roles::default() }.caller(0).unwrap().role;
    assert_eq!(role(true), Role::Operator);
    assert_eq!(role(false), Role::Account);
}

#[test]
fn a_user_id_without_a_name_is_an_account_named_by_its_number() {
    let caller = Roles::default().caller(3_999_999_999).unwrap();
    assert_eq!((&*caller.account, caller.role), ("#3999999999", Role::Account));
}

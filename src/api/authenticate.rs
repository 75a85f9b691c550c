//! Shell. Who may do what. The gate is a type: nothing but a [`Permitted`] hands out the engine, and nothing but
//! [`Permitted::admit`] makes one, so a handler that forgets to ask has nothing to call.
//!
//! The role comes from the UNIX groups of the account that the kernel names for the peer (`SO_PEERCRED`, unix(7)); it says who
//! *asks*. It is never evidence that anyone approved.

use std::marker::PhantomData;
use std::sync::Arc;

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

use super::engine::{Caller, Engine};
use super::failure::Failure;
use crate::domain::ledger::entry::Role;

/// Who a route is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Permission {
    /// Every authenticated account.
    Anyone,
    /// Those who read everything: auditors and operators.
    Reading,
    /// Those who run the procedure: operators.
    Operating,
    /// Who holds a ceremony: root, or the account of the daemon itself, whatever its role. The same could do it with the daemon stopped.
    Conducting,
}

impl Permission {
    /// Whether `role` has it, where it is a matter of roles.
    pub const fn covers(self, role: Role) -> bool {
        match (self, role) {
            (Self::Anyone | Self::Conducting, Role::Operator | Role::Auditor | Role::Account)
            | (Self::Reading, Role::Operator | Role::Auditor)
            | (Self::Operating, Role::Operator) => true,
            (Self::Reading, Role::Account)
            | (Self::Operating, Role::Auditor | Role::Account)
            // Neither comes by a socket: the ceremony acts at the console, the daemon by itself.
            | (Self::Anyone | Self::Reading | Self::Operating | Self::Conducting, Role::Ceremony | Role::Daemon) => false,
        }
    }

    /// The roles that have it, in words.
    pub const fn roles(self) -> &'static str {
        match self {
            Self::Anyone | Self::Conducting => "operator, auditor or account",
            Self::Reading => "operator or auditor",
            Self::Operating => "operator",
        }
    }
}

/// A [`Permission`] as a type, so that a handler's signature says what its route needs.
pub trait Level: Send + Sync + 'static {
    /// The same as a value, for the route table.
    const PERMISSION: Permission;
}

/// [`Permission::Anyone`].
pub struct Anyone;
/// [`Permission::Reading`].
pub struct Reading;
/// [`Permission::Operating`].
pub struct Operating;
/// [`Permission::Conducting`].
pub struct Conducting;

impl Level for Anyone {
    const PERMISSION: Permission = Permission::Anyone;
}
impl Level for Reading {
    const PERMISSION: Permission = Permission::Reading;
}
impl Level for Operating {
    const PERMISSION: Permission = Permission::Operating;
}
impl Level for Conducting {
    const PERMISSION: Permission = Permission::Conducting;
}

/// A caller who was found to have the permission `P`, and the engine that is there for it.
pub struct Permitted<P, E> {
    caller: Caller,
    engine: Arc<E>,
    level: PhantomData<fn() -> P>,
}

impl<P: Level, E: Engine> Permitted<P, E> {
    /// Lets the caller through if its role, or its user id, has the permission.
    pub fn admit(engine: Arc<E>, caller: Caller) -> Result<Self, Failure> {
        let may_conduct = || caller.uid == 0 || caller.uid == Uid::effective().as_raw();
        if P::PERMISSION == Permission::Conducting && !may_conduct() {
            return Err(Failure::NotConductor { account: caller.account });
        }
        if P::PERMISSION.covers(caller.role) {
            Ok(Self { caller, engine, level: PhantomData })
        } else {
            Err(Failure::Forbidden { needed: P::PERMISSION.roles(), found: caller.role })
        }
    }

    /// The engine, and who asks it.
    pub fn pass(&self) -> (&E, &Caller) {
        (&self.engine, &self.caller)
    }
}

/// Which UNIX groups give which role, from `[roles]` of the configuration. An account in groups of both is an operator: an
/// operator may read all that an auditor may.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    /// Names of groups whose members are operators.
    pub operator: Vec<String>,
    /// Names of groups whose members are auditors.
    pub auditor: Vec<String>,
    /// Whether user id 0 is an operator whatever its groups: it can become any account, so refusing it protects nothing.
    pub root_is_operator: bool,
}

/// Why a peer could not be told apart.
#[derive(Debug, thiserror::Error)]
pub enum AuthenticateError {
    /// The account data base did not answer.
    #[error("the account data base did not answer for user id {uid}: {source}. Check nsswitch.conf and its services")]
    Accounts {
        /// Whom it was asked about.
        uid: u32,
        /// What it said.
        source: nix::Error,
    },
}

impl Roles {
    /// Looks the peer up. Blocks on the system's account data base.
    ///
    /// Groups are those of the data base and not those that the process happens to have: a role that was taken away is gone with
    /// the next connection.
    pub fn caller(&self, uid: u32) -> Result<Caller, AuthenticateError> {
        let wrong = |source| AuthenticateError::Accounts { uid, source };
        let Some(user) = User::from_uid(Uid::from_raw(uid)).map_err(wrong)? else {
            let role = self.role(uid, &[]);
            return Ok(Caller { account: format!("#{uid}").into(), uid, role });
        };
        let name = std::ffi::CString::new(user.name.as_str()).map_err(|_| wrong(nix::Error::EINVAL))?;
        let groups = getgrouplist(&name, user.gid).map_err(wrong)?;
        let role = self.role(uid, &groups);
        Ok(Caller { account: user.name.into(), uid, role })
    }

    fn role(&self, uid: u32, groups: &[Gid]) -> Role {
        // A group that does not exist gives nobody a role; `smkid check-config` names it.
        let in_one_of = |names: &[String]| {
            names
                .iter()
                .any(|name| Group::from_name(name).ok().flatten().is_some_and(|group| groups.contains(&group.gid)))
        };
        if (uid == 0 && self.root_is_operator) || in_one_of(&self.operator) {
            Role::Operator
        } else if in_one_of(&self.auditor) {
            Role::Auditor
        } else {
            Role::Account
        }
    }
}

#[cfg(test)]
mod tests;

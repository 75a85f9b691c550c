//! Pure. The words of closed sets in files: one text each.

use std::fmt;
use std::str::FromStr;

/// A text that is none of the words of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected one of {expected}")]
pub struct NoWord {
    /// The words, as they are said.
    pub expected: &'static str,
}

/// A closed set of words: what is written is what is read.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$each:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$each])* $variant),+
        }

        impl $name {
            /// Every one.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text),+
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = NoWord;
            fn from_str(text: &str) -> Result<Self, NoWord> {
                let wrong = NoWord { expected: concat!($($text, " "),+) };
                Self::ALL.iter().copied().find(|word| word.as_str() == text).ok_or(wrong)
            }
        }
    };
}

words!(
    /// The class of an incident (consultation on file formats of September 2015, 3.1 and 3.2).
    Class {
        /// The key behind an Organisation Certificate that Devices hold.
        Organisation = "organisation",
        /// Any other Relevant Private Key.
        Other = "other",
    }
);

words!(
    /// Whether a Compromise is proven (SEC Section L10: actual or suspected).
    Certainty {
        /// It is.
        Actual = "actual",
        /// It is feared.
        Suspected = "suspected",
    }
);

words!(
    /// Which key is meant where it is not that of an Organisation Certificate (SEC Appendix L 6).
    OtherKey {
        /// The Recovery Private Key.
        Recovery = "recovery",
        /// The Contingency Private Key.
        Contingency = "contingency",
        /// The Contingency Symmetric Key.
        ContingencySymmetric = "contingency-symmetric",
        /// An Issuing OCA Private Key.
        IssuingOca = "issuing-oca",
        /// The Root OCA Private Key.
        RootOca = "root-oca",
    }
);

words!(
    /// The way in which Devices are recovered (SEC Appendix L 4 and 5).
    Route {
        /// Method 1.
        SubscriberKey = "subscriber-key",
        /// Method 2.
        AcbCertificates = "acb-certificates",
        /// Method 3.
        NewOrganisationCertificates = "new-organisation-certificates",
        /// With the Contingency Private Key.
        Contingency = "contingency",
    }
);

words!(
    /// The SMI Status of a Device: the nine values of the DUIS type DeviceStatus (SEC Appendix AD).
    SmiStatus {
        /// Notified, and nothing else.
        Pending = "Pending",
        /// On the whitelist of its Communications Hub.
        Whitelisted = "Whitelisted",
        /// Installed.
        InstalledNotCommissioned = "InstalledNotCommissioned",
        /// In use.
        Commissioned = "Commissioned",
        /// Taken out of use.
        Decommissioned = "Decommissioned",
        /// Withdrawn.
        Withdrawn = "Withdrawn",
        /// Suspended.
        Suspended = "Suspended",
        /// Only the Recovery or Contingency Private Key brings it back (direction of 18 July 2017, (b)).
        Recovery = "Recovery",
        /// Its recovery succeeded; normal control is not back yet.
        Recovered = "Recovered",
    }
);

words!(
    /// What a progress file counts: Devices in this state.
    DeviceState {
        /// In the device list of the determination.
        Listed = "listed",
        /// In use as before.
        Commissioned = "commissioned",
        /// SMI Status 'recovery'.
        Recovery = "recovery",
        /// Their command is signed.
        Signed = "signed",
        /// Their command was provably not submitted to the token.
        NotSigned = "not-signed",
        /// The token failed at their command.
        SigningFailed = "signing-failed",
        /// Whether their command was signed, nobody can tell.
        SigningUnknown = "signing-unknown",
        /// The same, and left so.
        Left = "left",
        /// Their command was sent.
        Sent = "sent",
        /// They answered that it succeeded.
        Succeeded = "succeeded",
        /// They answered that it failed, or not at all.
        Failed = "failed",
        /// SMI Status 'recovered'.
        Recovered = "recovered",
        /// The DCC controls them (Method 2).
        UnderDccControl = "under-dcc-control",
        /// Their Supplier controls them again.
        HandedBack = "handed-back",
        /// Left in 'recovery' without a use of the keys.
        Stranded = "stranded",
        /// Left out of the incident, with a reason.
        LeftOut = "left-out",
    }
);

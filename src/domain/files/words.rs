//! Pure. The words of closed sets that stand in files alone.

use crate::domain::ledger::words::words;

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
        /// Set from 'recovery' to another status without proof.
        Overridden = "overridden",
        /// Left out of the incident, with a reason.
        LeftOut = "left-out",
    }
);

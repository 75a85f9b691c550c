//! Shell: certificates of Devices, from the upload to the entry.

use std::sync::Arc;

use super::responses::{another_policy, staged};
use super::{Answer, Daemon, refused};
use crate::api::engine::Caller;
use crate::api::failure::Failure;
use crate::api::wire;
use crate::domain::intake::device_certificates::{Imported, Judged, NotImported, device_certificates, may_import};
use crate::domain::ledger::entry::Event;
use crate::domain::names::DeviceId;
use crate::domain::responses::bundle::{self, BUNDLE_LEN_MAX};
use crate::domain::responses::{DeviceKey, Trust};
use crate::service::responses;

/// What a certificate is, and where it lies in its bundle.
type Place = (std::ops::Range<usize>, Result<DeviceKey, (Option<DeviceId>, String)>);

impl Daemon {
    pub(super) async fn import_certificates(
        &self,
        caller: &Caller,
        ask: wire::DeviceCertificates,
    ) -> Answer<wire::CertificatesImported> {
        let asked = super::answers::digest_of(&ask)?;
        let (policy_digest, policy) = self.policy_in_force().await?;
        let (staging, upload) = (Arc::clone(&self.staging), ask.certificates);
        let read = move || {
            let octets = staged(&staging, "certificates", upload, BUNDLE_LEN_MAX)?;
            let count = bundle::split(&octets).map(|all| all.len()).map_err(|error| error.to_string());
            let found = match count {
                Ok(0) => "nothing".to_owned(),
                Ok(_) => return Ok(octets),
                Err(found) => found,
            };
            let expected = "certificates in DER, one after another";
            Err(Failure::malformed("certificates", expected, &found, "Mend it and send it again."))
        };
        let verify = move |octets: Vec<u8>| {
            let all = bundle::split(&octets).unwrap_or_default();
            let trust = Trust::new(&policy);
            let mut at = 0;
            let places = responses::import(&all, &trust).into_iter().map(|(der, judged)| {
                let place = at..at + der.len();
                at = place.end;
                (place, judged)
            });
            let places: Vec<Place> = places.collect();
            (octets, places)
        };
        let ((octets, places), held) = self.parts.verify(read, verify).await?;

        let actor = caller.actor();
        let imported = self.change(move |recorder| {
            let by = recorder.known(actor);
            if recorder.fold().policy().map(|adopted| adopted.digest) != Some(policy_digest) {
                return Ok(Err(another_policy()));
            }
            if let Err(reasons) = may_import(recorder.fold(), &by) {
                return refused(recorder, &by, "recovery-certificates", asked, (None, None), reasons);
            }
            let judged: Vec<Judged<'_>> = places.into_iter().map(|(place, judged)| (&octets[place], judged)).collect();
            let Imported { event, kept, keys, others } = device_certificates(recorder, recorder.moment().at, &judged)?;
            let tally = event.tally;
            // The same ones once more are no news, however often they come.
            let entry = if tally.imported + tally.refused > 0 {
                recorder.queue_keys_in(event.certificates, keys.into());
                recorder.queue_hashed_blob(event.certificates, kept);
                Some(recorder.queue(&by, Event::DeviceCertificatesImported(event))?)
            } else {
                None
            };
            Ok(Ok((entry, tally, others)))
        });
        let (entry, tally, others) = imported.await?;
        self.staging.discard(&[ask.certificates]);
        drop(held);
        let refused = others.into_iter().filter_map(|NotImported { certificate, device, why }| {
            Some(wire::CertificateRefused { certificate, device, why: why? })
        });
        Ok(wire::CertificatesImported { entry, tally, refused: refused.collect() })
    }
}

//! Who is charged, and by which tariffs: subscribers and tariff plans in the store's reference documents.
//!
//! Subscribers are read by every Create and never cached, so a change holds from the next request on, whichever
//! instance serves it. Tariff plans are cached; every instance looks for changes once a second, and at once for what it
//! does not know.

use serde::{Deserialize, Serialize};

use crate::app::App;
use crate::charging::command::Subscriber;
use crate::charging::ids::{SubscriberId, TariffPlanId};
use crate::charging::tariff::{PlanInForce, TariffPlan};
use crate::store::{self, List, ReferenceKind, Version, record};

/// What stands under the hash of an identifier.
#[derive(Serialize, Deserialize)]
enum SubscriberRecord {
    #[serde(rename = "s")]
    Subscriber(Subscriber),
    /// Another identifier of the subscriber with this one. Counts only while that subscriber lists it.
    #[serde(rename = "a")]
    Alias(SubscriberId),
}

/// Times that a write is tried again because somebody else wrote at the same time.
const ATTEMPTS: u32 = 8;

/// Items of one page when everything of a kind is read.
const PAGE: usize = 200;

impl App {
    /// The subscriber with this SUPI, GPSI or other provisioned identifier. One round trip for a SUPI, two for others.
    pub async fn subscriber(&self, identifier: &str) -> Result<Option<Subscriber>, store::Error> {
        Ok(match self.subscriber_record(identifier).await? {
            (Some(SubscriberRecord::Subscriber(subscriber)), _) => Some(subscriber),
            (Some(SubscriberRecord::Alias(id)), _) => match self.subscriber_record(id.as_str()).await? {
                (Some(SubscriberRecord::Subscriber(subscriber)), _) if subscriber.has_identifier(identifier) => {
                    Some(subscriber)
                }
                _ => None,
            },
            (None, _) => None,
        })
    }

    /// Writes a subscriber and makes it known by all its identifiers. Answers whether it is new.
    pub async fn put_subscriber(&self, subscriber: &Subscriber) -> Result<bool, store::Error> {
        let before = while_conflicting(|| async move {
            let (before, version) = self.subscriber_record(subscriber.id.as_str()).await?;
            let document = record::encode(&SubscriberRecord::Subscriber(subscriber.clone()));
            let key = self.shared.refs.subscriber_key(subscriber.id.as_str());
            self.store.put_reference(ReferenceKind::Subscriber, &key, version, Some(document)).await.map(|()| before)
        })
        .await?;
        let before = match before {
            Some(SubscriberRecord::Subscriber(before)) => Some(before),
            Some(SubscriberRecord::Alias(_)) | None => None,
        };
        for identifier in before.iter().flat_map(Subscriber::other_identifiers) {
            if !subscriber.has_identifier(identifier) {
                self.forget_alias(identifier, &subscriber.id).await?;
            }
        }
        for identifier in subscriber.other_identifiers() {
            self.put_alias(identifier, &subscriber.id).await?;
        }
        Ok(before.is_none())
    }

    /// Forgets a subscriber and all its identifiers. Answers whether there was one.
    pub async fn delete_subscriber(&self, subscriber: &Subscriber) -> Result<bool, store::Error> {
        for identifier in subscriber.other_identifiers() {
            self.forget_alias(identifier, &subscriber.id).await?;
        }
        let key = &self.shared.refs.subscriber_key(subscriber.id.as_str());
        while_conflicting(|| async move {
            let (before, version) = self.subscriber_record(subscriber.id.as_str()).await?;
            if before.is_some() {
                self.store.put_reference(ReferenceKind::Subscriber, key, version, None).await?;
            }
            Ok(before.is_some())
        })
        .await
    }

    async fn subscriber_record(&self, identifier: &str) -> Result<(Option<SubscriberRecord>, Version), store::Error> {
        let key = self.shared.refs.subscriber_key(identifier);
        match self.store.reference(ReferenceKind::Subscriber, &key).await? {
            Some(document) => {
                let record = record::decode(&document.bytes);
                Ok((Some(record.map_err(|error| error.about(&format!("subscriber under {key}")))?), document.version))
            }
            None => Ok((None, Version::ABSENT)),
        }
    }

    /// A SUPI comes before an alias of the same spelling: whoever owns an identifier keeps it.
    async fn put_alias(&self, identifier: &str, of: &SubscriberId) -> Result<(), store::Error> {
        let key = &self.shared.refs.subscriber_key(identifier);
        while_conflicting(|| async move {
            let (before, version) = self.subscriber_record(identifier).await?;
            if let Some(SubscriberRecord::Subscriber(_)) = before {
                return Ok(());
            }
            let document = record::encode(&SubscriberRecord::Alias(of.clone()));
            self.store.put_reference(ReferenceKind::Subscriber, key, version, Some(document)).await
        })
        .await?;
        Ok(())
    }

    async fn forget_alias(&self, identifier: &str, of: &SubscriberId) -> Result<(), store::Error> {
        let key = &self.shared.refs.subscriber_key(identifier);
        while_conflicting(async || match self.subscriber_record(identifier).await? {
            (Some(SubscriberRecord::Alias(owner)), version) if owner == *of => {
                self.store.put_reference(ReferenceKind::Subscriber, key, version, None).await
            }
            _ => Ok(()),
        })
        .await?;
        Ok(())
    }

    /// Writes the next version of a plan. Answers it, and whether the plan is new. What is equal to the newest version
    /// is no new version.
    pub async fn put_tariff_plan(&self, plan: &TariffPlan) -> Result<(TariffPlan, bool), store::Error> {
        let (plan, is_new) = while_conflicting(|| async move {
            let (newest, version) = self.newest_plan(&plan.id).await?;
            let next = newest.as_ref().map_or(1, |newest| newest.version.saturating_add(1));
            let plan = TariffPlan { version: next, ..plan.clone() };
            if let Some(newest) = newest.filter(|newest| TariffPlan { version: next, ..newest.clone() } == plan) {
                return Ok((newest, false));
            }
            let document = record::encode(&plan);
            // The version first, so that whoever sees the plan can rate with it. It may be there already, from an
            // attempt that went no further: then it holds what nobody has used.
            let id = version_id(&plan.id, plan.version);
            let left_over = self.store.reference(ReferenceKind::TariffPlanVersion, &id).await?;
            let expected = Version::of(left_over.as_ref());
            self.store.put_reference(ReferenceKind::TariffPlanVersion, &id, expected, Some(document.clone())).await?;
            let id = plan.id.as_str();
            self.store
                .put_reference(ReferenceKind::TariffPlan, id, version, Some(document))
                .await
                .map(|()| (plan, next == 1))
        })
        .await?;
        while_conflicting(|| async move {
            let stamp = self.catalog_stamp().await?;
            let document = record::encode(&());
            self.store.put_reference(ReferenceKind::CatalogStamp, STAMP, stamp, Some(document)).await
        })
        .await?;
        self.add_to_catalog(plan.clone())?;
        Ok((plan, is_new))
    }

    /// The newest version of a plan, as stored.
    pub async fn tariff_plan(&self, id: &TariffPlanId) -> Result<Option<TariffPlan>, store::Error> {
        Ok(self.newest_plan(id).await?.0)
    }

    async fn newest_plan(&self, id: &TariffPlanId) -> Result<(Option<TariffPlan>, Version), store::Error> {
        match self.store.reference(ReferenceKind::TariffPlan, id.as_str()).await? {
            Some(document) => {
                let plan = record::decode(&document.bytes);
                Ok((Some(plan.map_err(|error| error.about(&format!("tariff plan {id}")))?), document.version))
            }
            None => Ok((None, Version::ABSENT)),
        }
    }

    /// Changes whenever a plan does.
    pub async fn catalog_stamp(&self) -> Result<Version, store::Error> {
        let stamp = self.store.reference(ReferenceKind::CatalogStamp, STAMP).await?;
        Ok(Version::of(stamp.as_ref()))
    }

    /// Reads the newest version of every plan. Versions that sessions still rate with stay known.
    pub async fn refresh_catalog(&self) -> Result<(), store::Error> {
        let mut cursor: Option<Box<str>> = None;
        loop {
            let page = self.store.list(&List::References(ReferenceKind::TariffPlan), cursor.as_deref(), PAGE).await?;
            for id in &page.items {
                if let (Some(plan), _) = self.newest_plan(&TariffPlanId::new(id.clone())).await? {
                    self.add_to_catalog(plan)?;
                }
            }
            match page.next {
                Some(next) => cursor = Some(next),
                None => return Ok(()),
            }
        }
    }

    /// Makes sure that the newest version of a plan is known, if there is one.
    pub async fn know_plan(&self, id: &TariffPlanId) -> Result<(), store::Error> {
        if self.shared.catalog().newest(id).is_none()
            && let (Some(plan), _) = self.newest_plan(id).await?
        {
            self.add_to_catalog(plan)?;
        }
        Ok(())
    }

    /// As `know_plan`, for one version that a session rates with.
    pub async fn know_plan_version(&self, id: &TariffPlanId, version: u32) -> Result<(), store::Error> {
        if self.shared.catalog().version(id, version).is_some() {
            return Ok(());
        }
        // Rare, and then large: it would make every request's future larger.
        Box::pin(self.read_plan_version(id, version)).await
    }

    async fn read_plan_version(&self, id: &TariffPlanId, version: u32) -> Result<(), store::Error> {
        if let Some(document) = self.store.reference(ReferenceKind::TariffPlanVersion, &version_id(id, version)).await?
        {
            let plan = record::decode(&document.bytes);
            let named = |error: store::Error| error.about(&format!("version {version} of tariff plan {id}"));
            self.add_to_catalog(plan.map_err(named)?)?;
        }
        self.know_plan(id).await
    }

    fn add_to_catalog(&self, plan: TariffPlan) -> Result<(), store::Error> {
        let unknown =
            format!("tariff plan {} is in the time zone {}, which is not known here", plan.id, plan.time_zone);
        self.shared.add_plan(PlanInForce::new(plan).ok_or_else(|| store::Error::corrupt(unknown))?);
        Ok(())
    }
}

/// Does it again as long as somebody else is faster.
async fn while_conflicting<T, F>(attempt: impl Fn() -> F) -> Result<T, store::Error>
where
    F: Future<Output = Result<T, store::Error>>,
{
    for _ in 1..ATTEMPTS {
        match attempt().await {
            Err(store::Error::Conflict(_)) => {}
            done => return done,
        }
    }
    attempt().await
}

const STAMP: &str = "plans";

fn version_id(id: &TariffPlanId, version: u32) -> String {
    format!("{id}@{version}")
}

impl Subscriber {
    /// All identifiers but the subscriber's own.
    fn other_identifiers(&self) -> impl Iterator<Item = &str> {
        self.gpsi.iter().chain(&self.identifiers).map(|text| &**text)
    }

    fn has_identifier(&self, identifier: &str) -> bool {
        self.id.as_str() == identifier || self.other_identifiers().any(|other| other == identifier)
    }
}

//! `/tariff-plans/{id}`: what units cost. Versioned: a running session keeps the version it rated with until its next
//! grant.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use validator::Validate;

use super::body::{Asked, Body};
use super::page::{Page, PageQuery};
use super::subscribers::{FinalUnitAction, FinalUnitBody};
use super::{Answer, not_found};
use crate::app::App;
use crate::charging::ids::{BalanceId, RatingGroup, TariffPlanId};
use crate::charging::money::{Amount, BalanceUnit};
use crate::charging::tariff::{
    FinalUnit, Hours, Metered, PlanInForce, Price, Prices, Rule, Tariff, TariffPlan, Tier, Window,
};
use crate::charging::units::UnitKind;
use crate::http::path::Path;
use crate::http::problem::{InvalidParam, ProblemDetails};
use crate::store::{List, ReferenceKind};

/// Tariffs by rating group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Validate, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TariffPlanBody {
    /// Answered only: the identifier in the path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(read_only, example = "demo")]
    pub id: Option<String>,
    /// Answered only: grows by one with every change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(read_only)]
    pub version: Option<u32>,
    /// ISO 4217.
    #[validate(length(min = 3, max = 3, message = "three letters"))]
    #[schema(example = "EUR")]
    pub currency: String,
    /// IANA name; its calendar decides times of day and months.
    #[schema(example = "Europe/Brussels")]
    pub time_zone: String,
    #[validate(length(max = 10_000, message = "at most 10000"), nested)]
    pub tariffs: Vec<TariffBody>,
}

/// How one rating group is charged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Validate, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TariffBody {
    #[schema(example = 10)]
    pub rating_group: u32,
    #[validate(length(max = 128, message = "at most 128 bytes"))]
    #[schema(example = "internet")]
    pub name: String,
    #[serde(default)]
    pub behaviour: Behaviour,
    /// With `metered`: the price, or the one outside all windows or beyond all tiers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<PriceBody>,
    /// Other prices for hours of the day. Not together with `tiers`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[validate(length(max = 24, message = "at most 24"))]
    pub windows: Vec<WindowBody>,
    /// Other prices for the first units of a calendar month, in growing order. Not together with `windows`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[validate(length(max = 16, message = "at most 16"))]
    pub tiers: Vec<TierBody>,
    /// Balances of the same unit that pay one for one before money does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[validate(length(max = 16, message = "at most 16"))]
    pub allowances: Vec<String>,
    /// Granted when the consumer leaves the amount to us.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = 10_485_760)]
    pub default_grant: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = 1_073_741_824)]
    pub largest_grant: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[validate(range(min = 1, message = "1 or more"))]
    #[schema(example = 3600)]
    pub validity_secs: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = 300)]
    pub holding_secs: Option<u32>,
    /// Per cent of a grant that remain when the consumer shall report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[validate(range(min = 1, max = 99, message = "1 to 99"))]
    #[schema(example = 20)]
    pub threshold_percent: Option<u8>,
    /// What the consumer does after the last grant; TERMINATE by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[validate(nested)]
    pub final_unit: Option<FinalUnitBody>,
    /// Hours in which quota is granted at all; always when there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[validate(length(max = 24, message = "at most 24"))]
    pub sold: Vec<HoursBody>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Behaviour {
    /// Quota is managed; usage has a price.
    #[default]
    Metered,
    /// `QUOTA_MANAGEMENT_NOT_APPLICABLE`: usage is recorded.
    Flat,
    /// `END_USER_SERVICE_DENIED`.
    Barred,
    /// Not subject to charging at all: `CHARGING_NOT_APPLICABLE` when nothing else is asked for.
    NotCharged,
}

/// An amount for each started block.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PriceBody {
    #[schema(example = "0.010000")]
    pub amount: String,
    /// Units of one block, 1 or more.
    #[schema(example = 1_048_576)]
    pub per: u64,
    pub unit: ServiceUnit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ServiceUnit {
    Octets,
    Seconds,
    Events,
}

/// From a time of day up to and not including another, over midnight when that is not later.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HoursBody {
    #[schema(example = "08:00")]
    pub from: String,
    #[schema(example = "20:00")]
    pub to: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WindowBody {
    #[schema(example = "08:00")]
    pub from: String,
    #[schema(example = "20:00")]
    pub to: String,
    pub price: PriceBody,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TierBody {
    /// The last unit of the month at this price.
    #[schema(example = 104_857_600)]
    pub up_to: u64,
    pub price: PriceBody,
}

/// The plan that a body describes; wrong members by JSON pointer.
///
/// # Errors
///
/// A 400 problem that names every member that is missing or contradicts another.
pub fn plan_of(id: TariffPlanId, body: &TariffPlanBody) -> Answer<TariffPlan> {
    let mut wrong = Vec::new();
    let mut tariffs: Vec<Tariff> = Vec::with_capacity(body.tariffs.len());
    for (at, tariff) in body.tariffs.iter().enumerate() {
        let mut reader = Reader { place: format!("/tariffs/{at}"), wrong: &mut wrong };
        if tariffs.iter().any(|other| other.rating_group.0 == tariff.rating_group) {
            reader.wrong("ratingGroup", "another tariff of the plan has it");
        }
        let rule = match tariff.behaviour {
            Behaviour::Metered => reader.metered(tariff).map(Rule::Metered),
            Behaviour::Flat => Some(Rule::Flat),
            Behaviour::Barred => Some(Rule::Barred),
            Behaviour::NotCharged => Some(Rule::NotCharged),
        };
        tariffs.extend(rule.map(|rule| Tariff {
            rating_group: RatingGroup(tariff.rating_group),
            name: tariff.name.as_str().into(),
            rule,
        }));
    }
    let plan = TariffPlan {
        id,
        version: 0,
        currency: body.currency.as_str().into(),
        time_zone: body.time_zone.as_str().into(),
        tariffs,
    };
    if PlanInForce::new(plan.clone()).is_none() {
        wrong.push(InvalidParam::new("/timeZone", "not a name of the IANA time zone database"));
    }
    if wrong.is_empty() { Ok(plan) } else { Err(ProblemDetails::incorrect(wrong)) }
}

/// Reads one tariff and collects what is wrong with it.
struct Reader<'a> {
    place: String,
    wrong: &'a mut Vec<InvalidParam>,
}

impl Reader<'_> {
    fn wrong(&mut self, member: &str, reason: &'static str) {
        self.wrong.push(InvalidParam::new(format!("{}/{member}", self.place), reason));
    }

    fn metered(&mut self, tariff: &TariffBody) -> Option<Metered> {
        let Some(price) = &tariff.price else {
            self.wrong("price", "needed where usage is metered");
            return None;
        };
        let unit = price.unit;
        let otherwise = self.price("price", price, unit);
        let windows: Vec<_> = (tariff.windows.iter().enumerate())
            .map(|(at, window)| {
                let place = format!("windows/{at}");
                let hours = self.hours(&place, &window.from, &window.to);
                let price = self.price(&format!("{place}/price"), &window.price, unit);
                Some(Window { hours: hours?, price: price? })
            })
            .collect();
        let tiers: Vec<_> = (tariff.tiers.iter().enumerate())
            .map(|(at, tier)| {
                let price = self.price(&format!("tiers/{at}/price"), &tier.price, unit);
                Some(Tier { up_to: tier.up_to, price: price? })
            })
            .collect();
        let sold: Vec<_> = (tariff.sold.iter().enumerate())
            .map(|(at, hours)| self.hours(&format!("sold/{at}"), &hours.from, &hours.to))
            .collect();
        if !tariff.tiers.is_sorted_by(|one, next| one.up_to < next.up_to) {
            self.wrong("tiers", "upTo must grow from tier to tier");
        }
        if !windows.is_empty() && !tiers.is_empty() {
            self.wrong("tiers", "not together with windows");
        }
        let default_grant = self.amount("defaultGrant", tariff.default_grant);
        let largest_grant = self.amount("largestGrant", tariff.largest_grant);
        let is_time = unit == ServiceUnit::Seconds;
        if is_time && largest_grant.is_some_and(|amount| amount > u64::from(u32::MAX)) {
            self.wrong("largestGrant", "at most 4294967295 seconds");
        }
        let final_unit = tariff.final_unit.as_ref().map_or(FinalUnit::Terminate, Into::into);
        let otherwise = otherwise?;
        let prices = if !windows.is_empty() {
            Prices::TimeOfDay { windows: windows.into_iter().collect::<Option<_>>()?, otherwise }
        } else if !tiers.is_empty() {
            Prices::Tiers { tiers: tiers.into_iter().collect::<Option<_>>()?, beyond: otherwise }
        } else {
            Prices::Always(otherwise)
        };
        Some(Metered {
            kind: unit.into(),
            prices,
            allowances: tariff.allowances.iter().map(|id| BalanceId::new(id.as_str())).collect(),
            default_grant: default_grant?,
            largest_grant: largest_grant?,
            validity_secs: tariff.validity_secs,
            holding_secs: tariff.holding_secs,
            threshold_percent: tariff.threshold_percent,
            final_unit,
            sold: sold.into_iter().collect::<Option<_>>()?,
        })
    }

    fn amount(&mut self, member: &str, amount: Option<u64>) -> Option<u64> {
        let amount = amount.filter(|amount| *amount > 0);
        if amount.is_none() {
            self.wrong(member, "1 or more, needed where usage is metered");
        }
        amount
    }

    fn price(&mut self, member: &str, body: &PriceBody, unit: ServiceUnit) -> Option<Price> {
        let amount = Amount::parse(BalanceUnit::Money, &body.amount).filter(|amount| *amount >= Amount::ZERO);
        if amount.is_none() {
            self.wrong(&format!("{member}/amount"), "a decimal number of at most six places, not negative");
        }
        if body.per == 0 {
            self.wrong(&format!("{member}/per"), "1 or more");
        }
        if body.unit != unit {
            self.wrong(&format!("{member}/unit"), "all prices of a tariff are for the same unit");
        }
        Some(Price { amount: amount?, per: body.per })
    }

    fn hours(&mut self, member: &str, from: &str, to: &str) -> Option<Hours> {
        let [from_minute, to_minute] = [from, to].map(minute);
        for (name, minute) in [("from", from_minute), ("to", to_minute)] {
            if minute.is_none() {
                self.wrong(&format!("{member}/{name}"), "a time of day such as 08:00 is needed");
            }
        }
        Some(Hours { from: from_minute?, to: to_minute? })
    }
}

/// `HH:MM`, 00:00 to 24:00, in minutes.
fn minute(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let number = |text: &str| text.parse::<u16>().ok().filter(|_| text.len() == 2);
    let (hour, minute) = (number(hour)?, number(minute)?);
    (minute < 60 && hour * 60 + minute <= 24 * 60).then_some(hour * 60 + minute)
}

impl From<ServiceUnit> for UnitKind {
    fn from(unit: ServiceUnit) -> Self {
        match unit {
            ServiceUnit::Octets => Self::Octets,
            ServiceUnit::Seconds => Self::Seconds,
            ServiceUnit::Events => Self::Events,
        }
    }
}

impl From<UnitKind> for ServiceUnit {
    fn from(kind: UnitKind) -> Self {
        match kind {
            UnitKind::Octets => Self::Octets,
            UnitKind::Seconds => Self::Seconds,
            UnitKind::Events => Self::Events,
        }
    }
}

impl From<&TariffPlan> for TariffPlanBody {
    fn from(plan: &TariffPlan) -> Self {
        Self {
            id: Some(plan.id.to_string()),
            version: Some(plan.version),
            currency: plan.currency.to_string(),
            time_zone: plan.time_zone.to_string(),
            tariffs: plan.tariffs.iter().map(Into::into).collect(),
        }
    }
}

impl From<&Tariff> for TariffBody {
    fn from(tariff: &Tariff) -> Self {
        let bare = |behaviour| Self {
            rating_group: tariff.rating_group.0,
            name: tariff.name.to_string(),
            behaviour,
            price: None,
            windows: Vec::new(),
            tiers: Vec::new(),
            allowances: Vec::new(),
            default_grant: None,
            largest_grant: None,
            validity_secs: None,
            holding_secs: None,
            threshold_percent: None,
            final_unit: None,
            sold: Vec::new(),
        };
        let metered = match &tariff.rule {
            Rule::Metered(metered) => metered,
            Rule::Flat => return bare(Behaviour::Flat),
            Rule::Barred => return bare(Behaviour::Barred),
            Rule::NotCharged => return bare(Behaviour::NotCharged),
        };
        let price = |price: &Price| PriceBody {
            amount: price.amount.text(BalanceUnit::Money),
            per: price.per,
            unit: metered.kind.into(),
        };
        let (last, windows, tiers) = match &metered.prices {
            Prices::Always(always) => (always, &[][..], &[][..]),
            Prices::TimeOfDay { windows, otherwise } => (otherwise, &windows[..], &[][..]),
            Prices::Tiers { tiers, beyond } => (beyond, &[][..], &tiers[..]),
        };
        let final_unit = FinalUnitBody::from(&metered.final_unit);
        Self {
            price: Some(price(last)),
            windows: (windows.iter())
                .map(|window| WindowBody {
                    from: time_of_day(window.hours.from),
                    to: time_of_day(window.hours.to),
                    price: price(&window.price),
                })
                .collect(),
            tiers: tiers.iter().map(|tier| TierBody { up_to: tier.up_to, price: price(&tier.price) }).collect(),
            allowances: metered.allowances.iter().map(ToString::to_string).collect(),
            default_grant: Some(metered.default_grant),
            largest_grant: Some(metered.largest_grant),
            validity_secs: metered.validity_secs,
            holding_secs: metered.holding_secs,
            threshold_percent: metered.threshold_percent,
            final_unit: Some(final_unit).filter(|body| body.action != FinalUnitAction::Terminate),
            sold: (metered.sold.iter())
                .map(|hours| HoursBody { from: time_of_day(hours.from), to: time_of_day(hours.to) })
                .collect(),
            ..bare(Behaviour::Metered)
        }
    }
}

fn time_of_day(minute: u16) -> String {
    format!("{:02}:{:02}", minute / 60, minute % 60)
}

/// Creates a plan or its next version. Sessions with quota by a changed tariff are asked for new one.
#[utoipa::path(
    put, path = "/tariff-plans/{id}", tag = "Tariff plans",
    // Not the plan of the demo data, which whoever tries this out goes on using.
    params(("id" = String, Path, example = "my-plan")),
    request_body(
        content = TariffPlanBody,
        examples(
            ("always" = (summary = "0.01 EUR for each started MiB", value = json!({
                "currency": "EUR", "timeZone": "Europe/Brussels",
                "tariffs": [{
                    "ratingGroup": 10, "name": "internet",
                    "price": { "amount": "0.010000", "per": 1048576, "unit": "octets" },
                    "defaultGrant": 10485760, "largestGrant": 1073741824,
                    "validitySecs": 3600, "holdingSecs": 300, "thresholdPercent": 20,
                }],
            }))),
            ("by_time_of_day" = (summary = "Dearer by day", value = json!({
                "currency": "EUR", "timeZone": "Europe/Brussels",
                "tariffs": [{
                    "ratingGroup": 20, "name": "voice",
                    "price": { "amount": "0.050000", "per": 60, "unit": "seconds" },
                    "windows": [{
                        "from": "08:00", "to": "20:00",
                        "price": { "amount": "0.100000", "per": 60, "unit": "seconds" },
                    }],
                    "defaultGrant": 300, "largestGrant": 3600, "validitySecs": 3600, "thresholdPercent": 10,
                }],
            }))),
            ("by_volume" = (summary = "A bundle first, then cheaper after 100 MiB of a month", value = json!({
                "currency": "EUR", "timeZone": "Europe/Brussels",
                "tariffs": [{
                    "ratingGroup": 10, "name": "internet", "allowances": ["data-bundle"],
                    "price": { "amount": "0.002000", "per": 1048576, "unit": "octets" },
                    "tiers": [{
                        "upTo": 104857600, "price": { "amount": "0.010000", "per": 1048576, "unit": "octets" },
                    }],
                    "defaultGrant": 10485760, "largestGrant": 1073741824, "thresholdPercent": 20,
                    "finalUnit": { "action": "TERMINATE" },
                }],
            }))),
        ),
    ),
    responses(
        (status = 200, description = "The plan, in a new version if anything differs", body = TariffPlanBody),
        (status = 201, description = "Created", body = TariffPlanBody),
        (status = 400, description = "The body is wrong; nothing has changed", body = ProblemDetails),
    ),
)]
pub async fn put_tariff_plan(
    State(app): State<App>,
    Path(id): Path<String>,
    Body(body): Body<TariffPlanBody>,
) -> Answer<(StatusCode, Json<TariffPlanBody>)> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if !(1..=64).contains(&id.len()) || !id.bytes().all(is_name) {
        let reason = "expected 1 to 64 letters, digits, '-', '_' or '.'";
        return Err(ProblemDetails::incorrect(Vec::new()).with_param("id", reason));
    }
    let plan = plan_of(TariffPlanId::new(id), &body)?;
    let before = app.tariff_plan(&plan.id).await?;
    let (plan, is_new) = app.put_tariff_plan(&plan).await?;
    let changed = before.map(|before| plan.changed_since(&before)).unwrap_or_default();
    if !changed.is_empty() {
        reauthorize(app, plan.id.clone(), changed);
    }
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json((&plan).into())))
}

/// Goes through all open sessions, which may take a while: nobody waits for it. A session that is missed, because this
/// instance ends meanwhile, follows the new version from its next grant on.
fn reauthorize(app: App, plan: TariffPlanId, changed: Vec<RatingGroup>) {
    tokio::spawn(async move {
        if let Err(failure) = app.reauthorize_plan(&plan, &changed).await {
            tracing::warn!(%plan, ?failure, "not all sessions were asked to follow the changed plan at once");
        }
    });
}

/// The newest version of a plan.
#[utoipa::path(
    get, path = "/tariff-plans/{id}", tag = "Tariff plans",
    params(("id" = String, Path, example = "demo")),
    responses(
        (status = 200, description = "The plan", body = TariffPlanBody),
        (status = 404, description = "No such plan", body = ProblemDetails),
    ),
)]
pub async fn get_tariff_plan(State(app): State<App>, Path(id): Path<String>) -> Answer<Json<TariffPlanBody>> {
    let plan = app.tariff_plan(&TariffPlanId::new(id)).await?.ok_or_else(|| not_found("no such tariff plan"))?;
    Ok(Json((&plan).into()))
}

/// All plans, in the order of their names.
#[utoipa::path(
    get, path = "/tariff-plans", tag = "Tariff plans",
    params(PageQuery),
    responses(
        (status = 200, description = "One page", body = Page<TariffPlanBody>),
        (status = 400, description = "A query parameter is wrong", body = ProblemDetails),
    ),
)]
pub async fn list_tariff_plans(
    State(app): State<App>,
    Asked(query): Asked<PageQuery>,
) -> Answer<Json<Page<TariffPlanBody>>> {
    let list = List::References(ReferenceKind::TariffPlan);
    let page = app.store.list(&list, query.cursor.as_deref(), query.limit()?).await?;
    let mut items = Vec::new();
    for id in page.items {
        items.extend(app.tariff_plan(&TariffPlanId::new(id)).await?.as_ref().map(TariffPlanBody::from));
    }
    Ok(Json(Page { items, next_cursor: page.next.map(Into::into) }))
}

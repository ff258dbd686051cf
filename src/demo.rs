//! The demo data of `serve --demo`: a tariff plan with one tariff of each kind, and subscribers to try them with.
//!
//! Creates what is missing, changes nothing that is there, and may be run by several instances at once.

use tokio::task::JoinSet;

use crate::app::App;
use crate::charging::command::{Credit, Subscriber};
use crate::charging::ids::{AccountId, BalanceId, RatingGroup, SubscriberId, TariffPlanId};
use crate::charging::money::{Amount, BalanceUnit};
use crate::charging::tariff::{FinalUnit, Hours, Metered, Price, Prices, Rule, Tariff, TariffPlan, Tier, Window};
use crate::charging::units::UnitKind;
use crate::transact::Failure;

/// Everything of the demo, idempotent.
pub async fn provision(app: &App) -> Result<(), Failure> {
    let plan = plan();
    if app.tariff_plan(&plan.id).await?.is_none() {
        app.put_tariff_plan(&plan).await?;
    }
    let mut under_way = JoinSet::new();
    for who in subscribers() {
        if under_way.len() == PROVISIONED_AT_ONCE {
            finished(under_way.join_next().await)?;
        }
        let app = app.clone();
        under_way.spawn(async move { who.provision(&app).await });
    }
    while let Some(done) = under_way.join_next().await {
        finished(Some(done))?;
    }
    Ok(())
}

/// Few enough to leave room for requests, many enough to share the store's commits.
const PROVISIONED_AT_ONCE: usize = 64;

fn finished(done: Option<Result<Result<(), Failure>, tokio::task::JoinError>>) -> Result<(), Failure> {
    match done {
        Some(Ok(outcome)) => outcome,
        // A panic in there is a bug here.
        Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
        None => Ok(()),
    }
}

/// A subscriber with the account that pays.
struct Demo {
    subscriber: Subscriber,
    credit_limit: Amount,
    credits: Vec<Credit>,
}

impl Demo {
    async fn provision(self, app: &App) -> Result<(), Failure> {
        let Self { subscriber, credit_limit, credits } = self;
        let opened = app.open_account(&subscriber.account, CURRENCY, credit_limit, &credits).await?;
        opened.expect("a few small credits in one currency fit into a new account");
        if app.subscriber(subscriber.id.as_str()).await?.is_none() {
            app.put_subscriber(&subscriber).await?;
        }
        Ok(())
    }
}

const CURRENCY: &str = "EUR";
const MIB: u64 = 1_048_576;
/// Subscribers with an account of their own.
const SUBSCRIBERS: u32 = 1000;

/// Subscribers `imsi-001010000000001` and on, then the special ones.
fn subscribers() -> impl Iterator<Item = Demo> {
    let ordinary = (1..=SUBSCRIBERS).map(|number| {
        let mut demo = demo(number, &format!("demo-{number:04}"), "10");
        demo.subscriber.gpsi = Some(format!("msisdn-{}", 32_470_000_000 + u64::from(number)).into());
        demo
    });
    let mut blocked = demo(9001, "demo-blocked", "10");
    blocked.subscriber.blocked = true;
    let mut redirected = demo(9004, "demo-redirect", "0.05");
    redirected.subscriber.final_unit =
        Some(FinalUnit::Redirect { address_type: "URL".into(), address: "http://topup.example.com/".into() });
    let mut postpaid = demo(9005, "demo-postpaid", "0");
    postpaid.credit_limit = money("50");
    let mut bundle = demo(9009, "demo-bundle", "10");
    bundle.credits.push(credit("data-bundle", BalanceUnit::Octets, "1073741824"));
    let family = (9006..=9008).map(|number| demo(number, "demo-family", "10"));
    let special =
        [blocked, demo(9002, "demo-empty", "0"), demo(9003, "demo-low", "0.05"), redirected, postpaid, bundle];
    ordinary.chain(special).chain(family)
}

fn demo(number: u32, account: &str, balance: &str) -> Demo {
    let credits = if money(balance).is_zero() { Vec::new() } else { vec![credit("main", BalanceUnit::Money, balance)] };
    Demo {
        subscriber: Subscriber {
            id: SubscriberId::new(format!("imsi-00101{number:010}")),
            gpsi: None,
            identifiers: Vec::new(),
            account: AccountId::new(account),
            plan: TariffPlanId::new("demo"),
            blocked: false,
            final_unit: None,
        },
        credit_limit: Amount::ZERO,
        credits,
    }
}

fn credit(balance: &str, unit: BalanceUnit, amount: &str) -> Credit {
    Credit {
        balance: BalanceId::new(balance),
        unit: Some(unit),
        amount: Amount::parse(unit, amount).expect("a number written here"),
        expires_at: None,
        priority: None,
        reference: "demo".into(),
    }
}

fn money(text: &str) -> Amount {
    Amount::parse(BalanceUnit::Money, text).expect("a number written here")
}

/// The tariff plan `demo`.
pub fn plan() -> TariffPlan {
    let tariff =
        |rating_group, name: &str, rule| Tariff { rating_group: RatingGroup(rating_group), name: name.into(), rule };
    let day = Hours { from: 8 * 60, to: 20 * 60 };
    TariffPlan {
        id: TariffPlanId::new("demo"),
        version: 1,
        currency: CURRENCY.into(),
        time_zone: "Europe/Brussels".into(),
        tariffs: vec![
            tariff(10, "internet", Rule::Metered(internet())),
            tariff(20, "voice", Rule::Metered(voice())),
            tariff(30, "sms", Rule::Metered(sms())),
            tariff(40, "messaging", Rule::Metered(data(Prices::Always(per_mib("0"))))),
            tariff(50, "flat", Rule::Flat),
            tariff(60, "barred", Rule::Barred),
            tariff(
                70,
                "day and night",
                Rule::Metered(data(Prices::TimeOfDay {
                    windows: vec![Window { hours: day, price: per_mib("0.02") }],
                    otherwise: per_mib("0.005"),
                })),
            ),
            tariff(
                80,
                "tiered",
                Rule::Metered(data(Prices::Tiers {
                    tiers: vec![Tier { up_to: 100 * MIB, price: per_mib("0.01") }],
                    beyond: per_mib("0.002"),
                })),
            ),
            tariff(
                90,
                "bundle",
                Rule::Metered(Metered { allowances: vec![BalanceId::new("data-bundle")], ..internet() }),
            ),
        ],
    }
}

fn per_mib(amount: &str) -> Price {
    Price { amount: money(amount), per: MIB }
}

fn data(prices: Prices) -> Metered {
    Metered {
        kind: UnitKind::Octets,
        prices,
        allowances: Vec::new(),
        default_grant: 10 * MIB,
        largest_grant: 1024 * MIB,
        validity_secs: None,
        holding_secs: None,
        threshold_percent: None,
        final_unit: FinalUnit::Terminate,
        sold: Vec::new(),
    }
}

fn internet() -> Metered {
    Metered {
        validity_secs: Some(3600),
        holding_secs: Some(300),
        threshold_percent: Some(20),
        ..data(Prices::Always(per_mib("0.01")))
    }
}

fn voice() -> Metered {
    Metered {
        kind: UnitKind::Seconds,
        default_grant: 300,
        largest_grant: 3600,
        validity_secs: Some(3600),
        threshold_percent: Some(10),
        ..data(Prices::Always(Price { amount: money("0.1"), per: 60 }))
    }
}

fn sms() -> Metered {
    Metered {
        kind: UnitKind::Events,
        default_grant: 1,
        largest_grant: 100,
        ..data(Prices::Always(Price { amount: money("0.05"), per: 1 }))
    }
}

//! The tariff plan, the subscribers and the accounts of the demo data, as values.

use nchf::charging::account::{Account, Balance, DEFAULT_PRIORITY};
use nchf::charging::command::Subscriber;
use nchf::charging::ids::{AccountId, BalanceId, RatingGroup, SubscriberId, TariffPlanId};
use nchf::charging::money::{Amount, BalanceUnit};
use nchf::charging::tariff::{FinalUnit, Hours, Metered, Price, Prices, Rule, Tariff, TariffPlan, Tier, Window};
use nchf::charging::units::UnitKind;

pub const MIB: u64 = 1024 * 1024;
pub const GIB: u64 = 1024 * MIB;

/// Short names of the subscribers, for tables.
pub const NAMES: [&str; 10] =
    ["user", "blocked", "empty", "low", "redirect", "postpaid", "mother", "father", "child", "bundle"];

pub fn plan() -> TariffPlan {
    TariffPlan {
        id: TariffPlanId::new("demo"),
        version: 1,
        currency: "EUR".into(),
        time_zone: "Europe/Brussels".into(),
        tariffs: vec![
            tariff(10, "internet", Rule::Metered(internet())),
            tariff(20, "voice", Rule::Metered(voice())),
            tariff(30, "sms", Rule::Metered(sms())),
            tariff(40, "messaging", Rule::Metered(by_volume(Prices::Always(per_mib(0))))),
            tariff(50, "flat", Rule::Flat),
            tariff(60, "barred", Rule::Barred),
            tariff(70, "day and night", Rule::Metered(by_volume(day_and_night()))),
            tariff(80, "tiered", Rule::Metered(by_volume(tiers()))),
            tariff(90, "bundle", Rule::Metered(bundle())),
        ],
    }
}

pub fn tariff(rating_group: u32, name: &str, rule: Rule) -> Tariff {
    Tariff { rating_group: RatingGroup(rating_group), name: name.into(), rule }
}

pub const fn per_mib(millionths: i64) -> Price {
    Price { amount: Amount::new(millionths), per: MIB }
}

/// 10 MiB granted by default, 1 GiB at most, and nothing said about time or thresholds.
pub fn by_volume(prices: Prices) -> Metered {
    Metered {
        kind: UnitKind::Octets,
        prices,
        allowances: Vec::new(),
        default_grant: 10 * MIB,
        largest_grant: GIB,
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
        ..by_volume(Prices::Always(per_mib(10_000)))
    }
}

fn voice() -> Metered {
    Metered {
        kind: UnitKind::Seconds,
        default_grant: 300,
        largest_grant: 3600,
        validity_secs: Some(3600),
        threshold_percent: Some(10),
        ..by_volume(Prices::Always(Price { amount: Amount::new(100_000), per: 60 }))
    }
}

fn sms() -> Metered {
    Metered {
        kind: UnitKind::Events,
        default_grant: 1,
        largest_grant: 100,
        ..by_volume(Prices::Always(Price { amount: Amount::new(50_000), per: 1 }))
    }
}

fn bundle() -> Metered {
    Metered { allowances: vec![BalanceId::new("data-bundle")], ..by_volume(Prices::Always(per_mib(10_000))) }
}

fn day_and_night() -> Prices {
    Prices::TimeOfDay {
        windows: vec![Window { hours: Hours { from: 8 * 60, to: 20 * 60 }, price: per_mib(20_000) }],
        otherwise: per_mib(5_000),
    }
}

fn tiers() -> Prices {
    Prices::Tiers { tiers: vec![Tier { up_to: 100 * MIB, price: per_mib(10_000) }], beyond: per_mib(2_000) }
}

/// A subscriber by its short name, and the account that pays for it as it is at first.
pub fn subscriber(name: &str) -> (Subscriber, Account) {
    let place = NAMES.iter().position(|known| *known == name).unwrap_or_else(|| panic!("no subscriber {name:?}"));
    let supi = if place == 0 { 1 } else { 9000 + place };
    let account = match name {
        "user" => "demo-0001".to_owned(),
        "mother" | "father" | "child" => "demo-family".to_owned(),
        name => format!("demo-{name}"),
    };
    let money = match name {
        "empty" | "postpaid" => 0,
        "low" | "redirect" => 50_000,
        _ => 10_000_000,
    };
    let credit_limit = Amount::new(if name == "postpaid" { 50_000_000 } else { 0 });
    let mut opened = Account::new(AccountId::new(account.clone()), "EUR", credit_limit);
    opened.balances[0].amount = Amount::new(money);
    if name == "bundle" {
        opened.balances.push(balance("data-bundle", BalanceUnit::Octets, 1_073_741_824));
    }
    let portal = FinalUnit::Redirect { address_type: "URL".into(), address: "http://topup.example.com/".into() };
    let subscriber = Subscriber {
        id: SubscriberId::new(format!("imsi-{:015}", 1_010_000_000_000 + supi)),
        gpsi: None,
        identifiers: Vec::new(),
        account: AccountId::new(account),
        plan: TariffPlanId::new("demo"),
        blocked: name == "blocked",
        final_unit: (name == "redirect").then_some(portal),
    };
    (subscriber, opened)
}

pub fn balance(id: &str, unit: BalanceUnit, steps: i64) -> Balance {
    Balance {
        id: BalanceId::new(id),
        unit,
        amount: Amount::new(steps),
        reserved: Amount::ZERO,
        priority: DEFAULT_PRIORITY,
        expires_at: None,
    }
}

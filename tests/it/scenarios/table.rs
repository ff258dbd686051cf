//! The language of the scenario tables: one row for each message, each passing of time, each thing to look at.
//!
//! ```text
//! subscriber low                                        who creates from here on, and whose balances are meant
//! create S1 #1 rg10 ask 1000000 → rg10 granted 1000000 valid 3600 hold 300 threshold 200000
//! update S1 #2 rg10 used 700000 ask {} → rg10 granted 10MiB …
//! a: update S1 #3 rg10 used 5 #7 online QHT             `a:` names the request, `#7` numbers the container
//! copy a marked → again rg10 SUCCESS                    the same request once more, here as a retransmission
//! release S1 #4 → ok
//! balance 9.98                                          also: reserved, available, charged, cdr, moves, due …
//! tick 600s
//! timer S1 → expired rg10 reauthorize S1 rg10            the session's timer fires: all that follows, or `nothing`
//! abort S1 → abort S1                                    also: reauthorize, gone, moved, split
//! rules supervision=3600s record=600s octets=4096        settings that decide, from here on
//! ```
//!
//! What follows of what happens between messages is its events (`expired`, `closed`, `later` for a timer that is only
//! set anew), then the work that goes out: `record S1/0`, `reauthorize S1 rg10`, `abort S1`. A record is
//! `#2 cause 17 lost charged 0.01 rg10 …`: its sequence number where there is one, `lost` when no Release came.
//!
//! An expected result is complete: what it does not name must not be there. `…` leaves out validity,
//! holding time and threshold. Units: `7` octets in total, `up=7`, `down=7`, `7s` seconds, `7x` events, `{}` left
//! open; `7MiB` for short, `max` the largest number there is. Times of day are those of Brussels. `--` begins a remark.

use std::collections::BTreeMap;
use std::fmt::Write;

use nchf::charging::cdr::Cdr;
use nchf::charging::command::{
    Block, Container, Credit, Indicator, OneTime, QuotaKey, Trigger, TriggerCategory, UnitUsage,
};
use nchf::charging::decision::{GroupResult, NotificationKind, Outcome, Outgoing, ResultCode};
use nchf::charging::explain::{Explanation, GroupExplanation, explain};
use nchf::charging::ids::{BalanceId, ChargingDataRef, RatingGroup};
use nchf::charging::journal::{AbortReason, Event, Told};
use nchf::charging::lists::SharedList;
use nchf::charging::maintain::Maintenance;
use nchf::charging::money::{Amount, BalanceUnit};
use nchf::charging::session::{ChargingSession, Operation, Service, SessionState};
use nchf::charging::tariff::{FinalUnit, Hours, Metered, Price, Prices, Rule, TariffPlan};
use nchf::charging::time::{Span, Timestamp};
use nchf::charging::units::Units;

use super::demo::{self, GIB, MIB};
use super::world::{Request, World, consumer, key};

/// Plays a table in a world of its own. A row that answers otherwise than it says ends the test with both.
#[track_caller]
pub fn check(table: &str) {
    play(World::demo(), table);
}

/// As [`check`], in a world prepared by the test; answers it as it is afterwards.
#[track_caller]
pub fn play(world: World, table: &str) -> World {
    let mut player = Player { world, subscriber: "user", names: BTreeMap::new(), sent: BTreeMap::new() };
    for (at, row) in rows(table) {
        let (doing, expected) = match row.split_once('→') {
            Some((doing, expected)) => (doing.trim(), Some(expected.trim())),
            None => (row.as_str(), None),
        };
        let shown = std::panic::AssertUnwindSafe(|| player.row(doing, expected));
        let outcome = std::panic::catch_unwind(shown).unwrap_or_else(|_| panic!("in line {at}: {row}"));
        if let Some((expected, got)) = outcome {
            assert!(expected == got, "line {at}: {row}\n  expected: {expected}\n  got:      {got}");
        }
    }
    player.world
}

/// The rows with their lines; a line that begins with its answer belongs to the row before.
fn rows(table: &str) -> Vec<(usize, String)> {
    let mut rows: Vec<(usize, String)> = Vec::new();
    for (at, line) in table.lines().enumerate() {
        let line = line.split("--").next().unwrap_or_default().trim();
        match rows.last_mut() {
            Some((_, row)) if line.starts_with('→') || line.starts_with("rg") => {
                row.push(' ');
                row.push_str(line);
            }
            _ if line.is_empty() => {}
            _ => rows.push((at + 1, line.to_owned())),
        }
    }
    rows
}

struct Player {
    world: World,
    subscriber: &'static str,
    /// Sessions by the names of the table.
    names: BTreeMap<String, ChargingDataRef>,
    /// Requests that rows gave a name.
    sent: BTreeMap<String, (String, Request)>,
}

/// What a row expected, and what it got; both in one spelling.
type Outcomes = Option<(String, String)>;

impl Player {
    fn row(&mut self, doing: &str, expected: Option<&str>) -> Outcomes {
        let (label, doing) = match doing.split_once(": ") {
            Some((label, doing)) => (Some(label), doing),
            None => (None, doing),
        };
        let words: Vec<&str> = doing.split([' ', ',']).filter(|word| !word.is_empty()).collect();
        let (verb, rest) = words.split_first().expect("a row begins with what to do");
        let seen = |got: String| {
            let expected = expected.map_or_else(|| rest.join(" "), str::to_owned);
            Some(compare(&expected, &got))
        };
        match (*verb, rest) {
            ("create" | "update" | "release", [name, about @ ..]) => {
                let request = self.request(verb, about);
                if let Some(label) = label {
                    self.sent.insert(label.to_owned(), ((*name).to_owned(), request.clone()));
                }
                let got = self.send(name, &request);
                Some(compare(expected.unwrap_or("ok"), &got))
            }
            ("copy", [label, about @ ..]) => {
                let (name, mut request) = self.sent[*label].clone();
                self.change(&mut request, about);
                let got = self.send(&name, &request);
                Some(compare(expected.unwrap_or("ok"), &got))
            }
            ("subscriber", [name]) => {
                self.subscriber = known(name);
                None
            }
            ("now", [at]) => {
                self.world.now = self.time(at);
                None
            }
            ("tick", [span]) => {
                self.world.now = self.world.now.after(duration(span));
                None
            }
            ("have", [balance, amount, about @ ..]) => {
                self.have(balance, amount, about);
                None
            }
            ("credit", [balance, amount, about @ ..]) => {
                let got = self.credit(balance, amount, about);
                Some(compare(expected.unwrap_or("ok"), &got))
            }
            ("plan", [version, rating_group, price @ ..]) => {
                self.plan(version, rating_group, price);
                None
            }
            ("rules", about) => {
                about.iter().for_each(|word| self.rule(word));
                None
            }
            ("timer", [name]) => self.maintain(name, Maintenance::Due, expected),
            ("reauthorize", [name, groups @ ..]) => {
                let groups = (!groups.is_empty()).then(|| groups.iter().map(|word| group(word)).collect());
                self.maintain(name, Maintenance::Reauthorize { groups }, expected)
            }
            ("abort", [name]) => self.maintain(name, Maintenance::Abort { reason: AbortReason::Operator }, expected),
            ("gone", [name, uri]) => {
                self.maintain(name, Maintenance::ConsumerGone { notify_uri: (*uri).into() }, expected)
            }
            ("moved", [name, from, to]) => {
                let cause = Maintenance::Moved { from: (*from).into(), to: (*to).into() };
                self.maintain(name, cause, expected)
            }
            ("split", [name]) => self.maintain(name, Maintenance::CloseRecord, expected),
            ("ran-out", [name]) => {
                let groups = self.session(name).ran_out_groups();
                let got: Vec<_> = groups.iter().map(|group| format!("rg{}", group.0)).collect();
                Some(compare(expected.unwrap_or_default(), &got.join(" ")))
            }
            ("balance", _) => self.balance(rest, |balance| balance.amount),
            ("reserved", _) => self.balance(rest, |balance| balance.reserved),
            ("available", _) => seen(self.world.account_of(self.subscriber).money_available().to_string()),
            ("counted", [rating_group, ..]) => {
                let counters = self.world.account_of(self.subscriber).counters.iter();
                let of_group = counters.filter(|one| one.rating_group == group(rating_group));
                let counted: Vec<_> = of_group.map(|one| one.used.to_string()).collect();
                seen(format!("{rating_group} {}", counted.join(" ")))
            }
            ("charged", [name, _]) => seen(format!("{name} {}", self.session(name).charged)),
            ("state", [name, ..]) => seen(format!("{name} {}", state(self.session(name)))),
            ("used", [name, rating_group, _]) => {
                let quotas = self.session(name).quotas.iter();
                let used = quotas.filter(|quota| quota.key.rating_group == group(rating_group));
                seen(format!("{name} {rating_group} {}", used.map(|quota| quota.used).sum::<u64>()))
            }
            ("grant", [name, at]) => {
                let quotas = &self.session(name).quotas;
                let quota = quotas.iter().find(|quota| quota_text(&quota.key) == *at);
                let grant = quota.and_then(|quota| quota.grant.as_ref());
                let got = grant.map_or("none".to_owned(), |grant| format!("{} used {}", grant.granted, grant.used));
                Some(compare(expected.unwrap_or("none"), &got))
            }
            ("due", [name, ..]) => {
                let due = self.session(name).due_at(&self.world.rules);
                let due = due.map_or("never".to_owned(), |at| format!("{}s", at.since(self.world.now).secs()));
                seen(format!("{name} {due}"))
            }
            ("notify", [name, _]) => {
                seen(format!("{name} {}", self.session(name).notify_uri.as_deref().unwrap_or("nobody")))
            }
            ("cdrs", [name, _]) => seen(format!("{name} {}", self.world.records(&self.names[*name]).len())),
            ("cdr", [name]) => {
                let (name, part) = name.split_once('/').unwrap_or((name, "0"));
                let records = self.world.records(&self.names[name]);
                let got = records.get(part.parse::<usize>().unwrap()).map_or("none".to_owned(), record_text);
                Some(compare(expected.unwrap_or("none"), &got))
            }
            ("record", [name]) => {
                let (name, part) = name.split_once('/').unwrap_or((name, "0"));
                let records = self.world.records(&self.names[name]);
                let record = &records[part.parse::<usize>().unwrap()];
                let zone = jiff::tz::TimeZone::get("Europe/Brussels").unwrap();
                let opened_at = record.opened_at.in_zone(&zone).strftime("%H:%M:%S");
                let got = format!("opened {opened_at} for {}s", record.duration().secs());
                Some(compare(expected.unwrap_or_default(), &got))
            }
            ("collected", [name, _]) => seen(format!("{name} {}", self.session(name).record.octets)),
            ("why", [name, rating_group]) => {
                let got = explain(&self.world.journals[&self.names[*name]]).map(|why| why_text(&why, rating_group));
                Some(compare(expected.unwrap_or_default(), &got.unwrap_or_default()))
            }
            ("told", [name]) => {
                let why = explain(&self.world.journals[&self.names[*name]]).unwrap();
                let told = why.told.iter().map(|(at, told)| {
                    let secs = at.since(why.opened_at).secs();
                    match told {
                        Told::Probe => format!("{secs}s probe"),
                        Told::Reauthorize(groups) => format!("{secs}s reauthorize {}", groups.len()),
                        Told::Abort(reason) => format!("{secs}s abort {}", reason.as_str()),
                    }
                });
                Some(compare(expected.unwrap_or_default(), &told.collect::<Vec<_>>().join(" ")))
            }
            ("blocks", [name]) => {
                let (name, part) = name.split_once('/').unwrap_or((name, "0"));
                let records = self.world.records(&self.names[name]);
                let record = &records[part.parse::<usize>().unwrap()];
                let blocks = record.blocks.iter().chain(&record.reports);
                let got: Vec<_> = blocks.map(|block| format!("{}:{}", block.name, block.json)).collect();
                Some(compare(expected.unwrap_or_default(), &got.join(" ")))
            }
            ("moves", []) => {
                let moves = self.world.last_entries.iter().flat_map(|entry| &entry.moves);
                let got: Vec<_> = moves
                    .map(|one| format!("{} {} {}", one.kind.as_str(), one.balance, one.amount.text(one.unit)))
                    .collect();
                Some(compare(expected.unwrap_or_default(), &got.join(" ")))
            }
            ("outbox", []) => {
                let outbox: Vec<_> = self.world.last_outbox.iter().map(|one| self.outgoing(one)).collect();
                Some(compare(expected.unwrap_or_default(), &outbox.join(" ")))
            }
            _ => panic!("this row is not understood: {doing}"),
        }
    }

    fn session(&self, name: &str) -> &ChargingSession {
        &self.world.sessions[&self.names[name]]
    }

    fn rule(&mut self, word: &str) {
        let rules = &mut self.world.rules;
        match word.split_once('=').expect("a setting") {
            ("supervision", span) => rules.supervision = duration(span),
            ("probe", span) => rules.probe_guard = duration(span),
            ("abort", span) => rules.abort_guard = duration(span),
            ("grace", span) => rules.validity_grace = duration(span),
            ("record", span) => rules.record_open_max = Some(duration(span)),
            ("octets", octets) => rules.record_octets_max = octets.parse().unwrap(),
            ("partial", trigger) => {
                rules.partial_triggers.push(serde_json::from_value(trigger.into()).expect("a known trigger"));
            }
            _ => panic!("no such setting: {word}"),
        }
    }

    /// Lets something happen between messages, and says in one line what followed.
    fn maintain(&mut self, name: &str, cause: Maintenance, expected: Option<&str>) -> Outcomes {
        let reference = self.names[name].clone();
        let is_timer = cause == Maintenance::Due;
        let happened = self.world.maintain(&reference, cause);
        let mut got = Vec::new();
        match self.world.last_entries.last().map(|entry| &entry.event) {
            Some(Event::Maintained { expired, .. }) => {
                got.extend(expired.iter().map(|key| format!("expired {}", quota_text(key))));
            }
            Some(Event::Closed(cause)) => got.push(format!("closed {cause:?}")),
            Some(_) => panic!("an entry of a message"),
            None if !happened => got.push("nothing".to_owned()),
            None if is_timer => got.push("later".to_owned()),
            None => {}
        }
        got.extend(self.world.last_outbox.iter().map(|one| self.outgoing(one)));
        Some(compare(expected.unwrap_or_default(), &got.join(" ")))
    }

    fn name_of(&self, reference: &ChargingDataRef) -> String {
        let known = self.names.iter().find(|(_, known)| *known == reference);
        known.map_or("unnamed".to_owned(), |(name, _)| name.clone())
    }

    fn outgoing(&self, outgoing: &Outgoing) -> String {
        match outgoing {
            Outgoing::Record { session, part, .. } => format!("record {}/{part}", self.name_of(session)),
            Outgoing::Notify(notification) => {
                let name = self.name_of(&notification.session);
                match &notification.kind {
                    NotificationKind::Reauthorize { groups } => {
                        let groups = groups.iter().map(|group| format!(" rg{}", group.0));
                        format!("reauthorize {name}{}", groups.collect::<String>())
                    }
                    NotificationKind::Abort => format!("abort {name}"),
                }
            }
            Outgoing::Credited { .. } => "credited".to_owned(),
        }
    }

    fn balance(&self, rest: &[&str], of: impl Fn(&nchf::charging::account::Balance) -> Amount) -> Outcomes {
        let (id, expected) = match rest {
            [amount] => ("main", amount),
            [id, amount] => (*id, amount),
            _ => panic!("a balance and an amount"),
        };
        let balance = self.world.account_of(self.subscriber).balance(&BalanceId::new(id)).expect("a balance");
        Some(compare(expected, &of(balance).text(balance.unit)))
    }

    fn have(&mut self, id: &str, amount: &str, about: &[&str]) {
        let mut account = self.world.account_of(self.subscriber).clone();
        let unit = unit_of(about);
        let mut balance = account.balance(&BalanceId::new(id)).cloned().unwrap_or(demo::balance(id, unit, 0));
        balance.amount = Amount::parse(unit, amount).unwrap();
        for words in about.windows(2) {
            match words {
                ["until", at] => balance.expires_at = Some(self.time(at)),
                ["priority", priority] => balance.priority = priority.parse().unwrap(),
                ["limit", limit] => account.credit_limit = Amount::parse(BalanceUnit::Money, limit).unwrap(),
                _ => {}
            }
        }
        account.balances.retain(|known| known.id != balance.id);
        account.balances.push(balance);
        self.world.set_account(account);
    }

    fn credit(&mut self, id: &str, amount: &str, about: &[&str]) -> String {
        let unit = unit_of(about);
        let mut credit = Credit {
            balance: BalanceId::new(id),
            unit: about.iter().any(|word| BalanceUnit::from_name(word).is_some()).then_some(unit),
            amount: Amount::parse(unit, amount).unwrap(),
            expires_at: None,
            priority: None,
            reference: "top-up".into(),
        };
        for words in about.windows(2) {
            match words {
                ["until", at] => credit.expires_at = Some(self.time(at)),
                ["priority", priority] => credit.priority = Some(priority.parse().unwrap()),
                _ => {}
            }
        }
        match self.world.credit(self.subscriber, &credit) {
            Ok(()) => "ok".to_owned(),
            Err(refusal) => format!("refused {refusal:?}"),
        }
    }

    /// A new version of the plan: one rating group at another price, or under another rule.
    fn plan(&mut self, version: &str, rating_group: &str, rule: &[&str]) {
        let newest = self.world.catalog.newest(&demo::plan().id).expect("the demo plan");
        let mut plan = TariffPlan { version: version.parse().unwrap(), ..newest.plan.clone() };
        let rating_group = group(rating_group);
        let place = plan.tariffs.iter().position(|tariff| tariff.rating_group == rating_group);
        let metered = place.and_then(|place| match &plan.tariffs[place].rule {
            Rule::Metered(metered) => Some(metered.clone()),
            Rule::Flat | Rule::Barred | Rule::NotCharged => None,
        });
        let metered = metered.unwrap_or_else(|| demo::by_volume(Prices::Always(demo::per_mib(10_000))));
        let rule = match rule {
            ["flat"] => Rule::Flat,
            ["barred"] => Rule::Barred,
            ["not-charged"] => Rule::NotCharged,
            ["price", amount, "per", per] => {
                let amount = Amount::parse(BalanceUnit::Money, amount).unwrap();
                Rule::Metered(Metered { prices: Prices::Always(Price { amount, per: number(per) }), ..metered })
            }
            ["validity", secs] => Rule::Metered(Metered { validity_secs: Some(secs.parse().unwrap()), ..metered }),
            ["sold", from, to] => {
                let hours = |text: &str| text.parse::<u16>().unwrap() * 60;
                Rule::Metered(Metered { sold: vec![Hours { from: hours(from), to: hours(to) }], ..metered })
            }
            ["restricts", filter] => {
                let final_unit =
                    FinalUnit::RestrictAccess { filter_rules: Vec::new(), filter_ids: vec![(*filter).into()] };
                Rule::Metered(Metered { final_unit, ..metered })
            }
            ["allowances", names @ ..] => Rule::Metered(Metered {
                allowances: names.iter().map(|name| BalanceId::new(*name)).collect(),
                ..metered
            }),
            ["metered"] => Rule::Metered(metered),
            _ => panic!("no such rule: {rule:?}"),
        };
        plan.tariffs.retain(|tariff| tariff.rating_group != rating_group);
        plan.tariffs.push(demo::tariff(rating_group.0, "changed", rule));
        self.world.add_plan(plan);
    }

    fn request(&self, verb: &str, about: &[&str]) -> Request {
        let operation = match verb {
            "create" => Operation::Create,
            "update" => Operation::Update,
            _ => Operation::Release,
        };
        let mut request = Request::new(operation, 0, self.world.now);
        if operation == Operation::Create {
            request.subscriber = Some(self.subscriber);
        }
        self.change(&mut request, about);
        request
    }

    /// Reads the words about a request: first those about the whole, then one rating group after the other.
    fn change(&self, request: &mut Request, about: &[&str]) {
        let mut words = about.iter().copied().peekable();
        while let Some(word) = words.next_if(|word| !word.starts_with("rg")) {
            let invocation = &mut request.invocation;
            match word.split_once('=').unwrap_or((word, "")) {
                ("marked", _) => invocation.retransmission = true,
                ("key", key) => invocation.idempotency = Some(key.parse().unwrap()),
                ("at", _) => request.invoked_at(self.time(words.next().expect("a time"))),
                ("later", _) => request.invoked_at(request.invocation.invoked_at.after(Span::from_secs(1))),
                ("pdu", id) => {
                    request.pdu_session = Some(id.parse().unwrap());
                    invocation.blocks.push(block(&format!("pDUSessionChargingInformation:{id}")));
                }
                ("from", name) => invocation.consumer = consumer(name),
                ("notify", uri) => invocation.notify_uri = Some(uri.into()),
                ("features", bits) => invocation.features = Some(u64::from_str_radix(bits, 16).unwrap()),
                ("names", name) => {
                    invocation.subscriber = Some(self.world.subscribers[known(name)].id.clone());
                }
                ("nobody", _) => request.subscriber = None,
                ("offline-only", _) => request.service = Service::OfflineOnly,
                ("IEC", _) => request.one_time = Some(OneTime::Immediate),
                ("PEC", _) => request.one_time = Some(OneTime::Post),
                ("event", _) => request.one_time = Some(OneTime::Untyped),
                ("block", text) => invocation.blocks.push(block(text)),
                ("grown", _) => {}
                (number, _) if number.starts_with('#') => invocation.number = number[1..].parse().unwrap(),
                (name, _) if is_trigger(name) => invocation.triggers.push(trigger(name)),
                _ => panic!("nothing about a request: {word}"),
            }
        }
        while let Some(word) = words.next() {
            let usage =
                UnitUsage { key: quota(word), requested: None, containers: SharedList::default(), others: Vec::new() };
            let usages = &mut request.invocation.usages;
            // A copy may say more about a rating group that it names already.
            let at = about
                .first()
                .filter(|word| **word == "marked" || **word == "grown")
                .and_then(|_| usages.iter().position(|known| known.key == usage.key));
            let at = at.unwrap_or_else(|| {
                usages.push(usage);
                usages.len() - 1
            });
            let mut asks = false;
            while let Some(word) = words.next_if(|word| !word.starts_with("rg")) {
                asks = word == "ask" || (asks && word != "used");
                if asks {
                    self.change_request(&mut usages[at], word, &mut words);
                } else {
                    let mut containers = usages[at].containers.to_vec();
                    self.change_containers(&mut containers, word, &mut words);
                    usages[at].containers = containers.into();
                }
            }
        }
    }

    fn change_request<'a>(&self, usage: &mut UnitUsage, word: &str, words: &mut impl Iterator<Item = &'a str>) {
        let more = if word == "ask" { words.next().expect("units") } else { word };
        usage.requested = Some(plus(usage.requested.unwrap_or_default(), units(more)));
    }

    /// `used` begins a container; the words after it are about that container.
    fn change_containers<'a>(
        &self,
        containers: &mut Vec<Container>,
        word: &str,
        words: &mut impl Iterator<Item = &'a str>,
    ) {
        if word == "used" {
            let mut container = Container::of_units(units(words.next().expect("units")));
            container.local_sequence_number = i64::try_from(containers.len()).unwrap();
            containers.push(container);
            return;
        }
        let container = containers.last_mut().unwrap_or_else(|| panic!("nothing about a rating group: {word}"));
        match word {
            "online" => container.indicator = Some(Indicator::Online),
            "offline" => container.indicator = Some(Indicator::Offline),
            "suspended" => container.indicator = Some(Indicator::Suspended),
            "strange" => container.indicator = Some(Indicator::Other("STRANGE".into())),
            "from" => container.first_usage = Some(self.time(words.next().expect("a time"))),
            "to" => container.last_usage = Some(self.time(words.next().expect("a time"))),
            "closed" => container.closed_at = Some(self.time(words.next().expect("a time"))),
            number if number.starts_with('#') => container.local_sequence_number = number[1..].parse().unwrap(),
            name if is_trigger(name) => container.triggers.push(trigger(name)),
            more => container.units = plus(container.units, units(more)),
        }
    }

    /// Sends a request, and says in one line what was answered.
    fn send(&mut self, name: &str, request: &Request) -> String {
        let sent = self.world.send(request, self.names.get(name));
        let done = match sent {
            Ok(done) => done,
            Err(rejection) => return format!("refused {rejection:?}"),
        };
        let mut text = String::new();
        if request.operation == Operation::Create {
            let of_other = self.names.iter().find(|(known, reference)| **reference == done.reference && *known != name);
            match of_other {
                Some((other, _)) => write!(text, "{other} ").unwrap(),
                None => {
                    self.names.insert(name.to_owned(), done.reference.clone());
                }
            }
        }
        assert_eq!(done.answer.number, request.invocation.number, "the answer repeats the number");
        if done.replayed {
            text.push_str("again ");
        }
        let usual = match request.operation {
            Operation::Create => Outcome::Created,
            Operation::Update => Outcome::Updated,
            Operation::Release => Outcome::Released,
        };
        match done.answer.outcome {
            Outcome::Gone => text.push_str("gone "),
            outcome => assert_eq!(outcome, usual),
        }
        let session = &self.world.sessions[&done.reference];
        for result in &done.answer.results {
            let quota = &session.quotas[usize::from(result.quota)];
            write!(text, "{} {} ", quota_text(&quota.key), result_text(result)).unwrap();
        }
        if done.answer.results.is_empty() && done.answer.outcome != Outcome::Gone {
            text.push_str("ok");
        }
        text
    }

    /// `08:15` today, `2026-03-29T01:30` another day; both on the clocks of Brussels.
    fn time(&self, text: &str) -> Timestamp {
        let zone = jiff::tz::TimeZone::get("Europe/Brussels").unwrap();
        let today = self.world.now.in_zone(&zone).date();
        let at = if text.ends_with('Z') {
            text.parse::<jiff::Timestamp>().unwrap()
        } else if text.contains('T') {
            text.parse::<jiff::civil::DateTime>().unwrap().to_zoned(zone).unwrap().timestamp()
        } else {
            let time: jiff::civil::Time = text.parse().unwrap();
            today.to_datetime(time).to_zoned(zone).unwrap().timestamp()
        };
        at.into()
    }
}

/// Both sides word by word in one spelling, leaving out of what was got what `…` says may be left out.
fn compare(expected: &str, got: &str) -> (String, String) {
    let (expected, got) = (items(expected), items(got));
    let mut shown = Vec::new();
    for (at, item) in got.into_iter().enumerate() {
        let is_short = expected.get(at).is_some_and(|expected| expected.iter().any(|word| word == "…"));
        let hidden = |word: &String| is_short && ["valid", "hold", "threshold"].contains(&word.as_str());
        let mut words = item.into_iter();
        while let Some(word) = words.next() {
            if hidden(&word) {
                words.next();
            } else {
                shown.push(word);
            }
        }
    }
    let expected: Vec<_> = expected.into_iter().flatten().filter(|word| word != "…").collect();
    (expected.join(" "), shown.join(" "))
}

/// Words, cut before each rating group.
fn items(text: &str) -> Vec<Vec<String>> {
    let mut items = vec![Vec::new()];
    for word in text.split([' ', ',']).filter(|word| !word.is_empty()) {
        if word.starts_with("rg") && items.last().is_some_and(|item: &Vec<_>| !item.is_empty()) {
            items.push(Vec::new());
        }
        let same = if word.ends_with("iB") {
            let (name, amount) = word.split_once('=').map_or(("", word), |(name, amount)| (name, amount));
            if name.is_empty() { number(amount).to_string() } else { format!("{name}={}", number(amount)) }
        } else if word.contains('.') {
            Amount::parse(BalanceUnit::Money, word).map_or_else(|| word.to_owned(), |amount| amount.to_string())
        } else {
            word.to_owned()
        };
        items.last_mut().expect("never empty").push(same);
    }
    items
}

fn result_text(result: &GroupResult) -> String {
    let mut text = match (result.code, &result.granted) {
        (ResultCode::Success, Some(_)) => String::new(),
        (code, _) => format!("{} ", code.as_str()),
    };
    if let Some(granted) = &result.granted {
        write!(text, "granted {}", units_text(granted)).unwrap();
    }
    let words = [("valid", result.validity_secs.map(u64::from)), ("hold", result.holding_secs.map(u64::from))];
    for (word, number) in words.into_iter().chain([("threshold", result.threshold)]) {
        if let Some(number) = number {
            write!(text, " {word} {number}").unwrap();
        }
    }
    if let Some(at) = result.tariff_change {
        let zone = jiff::tz::TimeZone::get("Europe/Brussels").unwrap();
        write!(text, " switch {}", at.in_zone(&zone).strftime("%H:%M")).unwrap();
    }
    match &result.final_unit {
        Some(FinalUnit::Terminate) => text.push_str(" final terminate"),
        Some(FinalUnit::Redirect { address, .. }) => write!(text, " final redirect {address}").unwrap(),
        Some(FinalUnit::RestrictAccess { filter_ids, .. }) => {
            write!(text, " final restrict {}", filter_ids.join("+")).unwrap();
        }
        None => {}
    }
    text
}

/// `cause 0 charged 0.01 rg10 700000 offline QHT`: the containers of each rating group, in order.
fn record_text(record: &Cdr) -> String {
    let number = record.sequence_number.map(|number| format!("#{number} ")).unwrap_or_default();
    let is_lost = record.incomplete.is_some_and(|incomplete| incomplete.termination_lost == Some(true));
    let lost = if is_lost { "lost " } else { "" };
    let mut text = format!("{number}cause {} {lost}charged {}", record.cause.code(), record.charged);
    for usage in &record.usage {
        write!(text, " {}", quota_text(&usage.key)).unwrap();
        for container in &usage.containers {
            write!(text, " {}", units_text(&container.units)).unwrap();
            match &container.indicator {
                Some(Indicator::Online) => text.push_str(" online"),
                Some(Indicator::Offline) => text.push_str(" offline"),
                Some(Indicator::Suspended) => text.push_str(" suspended"),
                Some(Indicator::Other(_)) => text.push_str(" strange"),
                None => {}
            }
            for trigger in &container.triggers {
                write!(text, " {}", trigger.name.as_deref().unwrap_or("?")).unwrap();
            }
        }
    }
    text
}

/// `granted 10485760 used 5 main reserved 0.1 released 0 … #3 600s SUCCESS final`: sums, then the quotas' last answers.
fn why_text(why: &Explanation, rating_group: &str) -> String {
    let is_it = |one: &&GroupExplanation| one.rating_group == group(rating_group);
    let Some(group) = why.groups.iter().find(is_it) else { return "nothing".to_owned() };
    let mut text = format!("granted {} used {}", units_text(&group.granted), units_text(&group.used));
    for one in &group.balances {
        let [reserved, released, expired, charged] =
            [one.reserved, one.released, one.expired, one.charged].map(|amount| amount.text(one.unit));
        let balance = &one.balance;
        write!(text, " {balance} reserved {reserved} released {released} expired {expired} charged {charged}").unwrap();
    }
    for quota in &group.quotas {
        if let Some(at) = quota.expired_at {
            write!(text, " expired {}s", at.since(why.opened_at).secs()).unwrap();
        }
        if let Some(last) = &quota.last_answer {
            let secs = last.at.since(why.opened_at).secs();
            write!(text, " #{} {secs}s {}", last.number, last.result.code.as_str()).unwrap();
            text.push_str(if last.result.final_unit.is_some() { " final" } else { "" });
        }
    }
    text
}

fn state(session: &ChargingSession) -> String {
    match session.state {
        SessionState::Active => "active".to_owned(),
        SessionState::Probing { .. } => "probing".to_owned(),
        SessionState::Aborting { .. } => "aborting".to_owned(),
        SessionState::Closed { cause, .. } => format!("closed {cause:?}"),
    }
}

fn units_text(units: &Units) -> String {
    let mut words = Vec::new();
    words.extend(units.total_volume.map(|total| total.to_string()));
    words.extend(units.uplink_volume.map(|up| format!("up={up}")));
    words.extend(units.downlink_volume.map(|down| format!("down={down}")));
    words.extend(units.time.map(|secs| format!("{secs}s")));
    words.extend(units.service_specific_units.map(|events| format!("{events}x")));
    words.join(" ")
}

fn units(text: &str) -> Units {
    let none = Units::default();
    match text {
        "{}" => return none,
        "max" => return Units { total_volume: Some(u64::MAX), ..none },
        _ => {}
    }
    if let Some(up) = text.strip_prefix("up=") {
        return Units { uplink_volume: Some(number(up)), ..none };
    }
    if let Some(down) = text.strip_prefix("down=") {
        return Units { downlink_volume: Some(number(down)), ..none };
    }
    if let Some(secs) = text.strip_suffix('s') {
        return Units { time: Some(secs.parse().unwrap()), ..none };
    }
    if let Some(events) = text.strip_suffix('x') {
        return Units { service_specific_units: Some(number(events)), ..none };
    }
    Units { total_volume: Some(number(text)), ..none }
}

fn plus(units: Units, more: Units) -> Units {
    Units {
        time: more.time.or(units.time),
        total_volume: more.total_volume.or(units.total_volume),
        uplink_volume: more.uplink_volume.or(units.uplink_volume),
        downlink_volume: more.downlink_volume.or(units.downlink_volume),
        service_specific_units: more.service_specific_units.or(units.service_specific_units),
    }
}

fn number(text: &str) -> u64 {
    let (digits, unit) = match text {
        "max" => return u64::MAX,
        _ if text.ends_with("KiB") => (&text[..text.len() - 3], 1024),
        _ if text.ends_with("MiB") => (&text[..text.len() - 3], MIB),
        _ if text.ends_with("GiB") => (&text[..text.len() - 3], GIB),
        _ => (text, 1),
    };
    digits.parse::<u64>().unwrap_or_else(|_| panic!("no number: {text}")) * unit
}

fn duration(text: &str) -> Span {
    let (digits, millis) = match text {
        _ if text.ends_with("ms") => (&text[..text.len() - 2], 1),
        _ if text.ends_with('s') => (&text[..text.len() - 1], 1000),
        _ if text.ends_with('h') => (&text[..text.len() - 1], 3_600_000),
        _ => (text.strip_suffix('d').expect("ms, s, h or d"), 86_400_000),
    };
    let millis = digits.parse::<i64>().unwrap() * millis;
    Timestamp::from_millis(millis).since(Timestamp::from_millis(0))
}

fn unit_of(about: &[&str]) -> BalanceUnit {
    about.iter().find_map(|word| BalanceUnit::from_name(word)).unwrap_or(BalanceUnit::Money)
}

fn known(name: &str) -> &'static str {
    demo::NAMES.into_iter().find(|known| *known == name).unwrap_or_else(|| panic!("no subscriber {name}"))
}

fn group(text: &str) -> RatingGroup {
    RatingGroup(text.strip_prefix("rg").expect("a rating group").parse().unwrap())
}

/// `rg10`, or `rg10@A` for the quota of the user plane function A.
fn quota(text: &str) -> QuotaKey {
    let (rating_group, upf) = text.split_once('@').map_or((text, None), |(group, upf)| (group, Some(upf)));
    key(group(rating_group).0, upf)
}

fn quota_text(key: &QuotaKey) -> String {
    match &key.upf {
        Some(upf) => format!("rg{}@{upf}", key.rating_group.0),
        None => format!("rg{}", key.rating_group.0),
    }
}

/// `name:content`.
fn block(text: &str) -> Block {
    let hash = text.bytes().fold(7u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let (name, json) = text.split_once(':').unwrap_or((text, "{}"));
    Block { name: name.into(), json: json.into(), hash }
}

fn is_trigger(word: &str) -> bool {
    word.chars().all(|letter| letter.is_ascii_uppercase() || letter == '_' || letter.is_ascii_digit())
        && word.starts_with(|letter: char| letter.is_ascii_uppercase())
}

fn trigger(name: &str) -> Trigger {
    Trigger { name: Some(name.into()), category: TriggerCategory::Immediate, others: Vec::new() }
}

//! A slow walk over all session documents that puts back what an index has lost. Indexes are written in the commit that
//! needs them, so there should be nothing to find; a hand or a restored backup may still have taken something away.
//!
//! On its way it counts what open sessions hold: the only place that sees all of them.

use std::collections::BTreeMap;

use super::{seconds, together};
use crate::app::App;
use crate::charging::account::Account;
use crate::charging::ids::ChargingDataRef;
use crate::charging::money::BalanceUnit;
use crate::charging::session::ChargingSession;
use crate::charging::text::Text;
use crate::charging::time::{Span, Timestamp};
use crate::store::{self, Commit, Listing, Load, SessionWrite, TimerWrite, record};
use crate::telemetry::UnitLabel;

/// Documents looked at in one step: half a million in half an hour, for a few per cent of a core.
const STEP: usize = 128;

/// Documents looked at together.
const TOGETHER: usize = 8;

/// Several leases of a claim.
const TOLERANCE: Span = Span::from_secs(60);

/// Where the walk stands.
#[derive(Default)]
pub struct Sweep {
    cursor: Option<Box<str>>,
    counted: Counted,
    /// Units that were shown after some walk, and are nothing when the next one finds none of them.
    shown: Vec<UnitLabel>,
}

/// What a walk has seen so far. A session that comes twice while the store is rebuilt counts twice.
#[derive(Default)]
struct Counted {
    sessions: i64,
    /// By currency or unit, in the smallest one.
    reserved: BTreeMap<Text, (BalanceUnit, i128)>,
    /// Of sessions that hold something.
    oldest: Option<Timestamp>,
}

impl Sweep {
    pub async fn step(&mut self, app: &App) -> Result<(), store::Error> {
        let page = app.store.scan(self.cursor.as_deref(), STEP).await?;
        let references = page.items.into_iter().map(ChargingDataRef::new);
        let checks = references.map(|reference| check_readable(app, reference));
        for held in together(checks, TOGETHER).await?.into_iter().flatten() {
            self.counted.add(held);
        }
        self.cursor = page.next;
        if self.cursor.is_none() {
            self.show(app);
        }
        Ok(())
    }

    /// At the end of a walk.
    fn show(&mut self, app: &App) {
        let Counted { sessions, reserved, oldest } = std::mem::take(&mut self.counted);
        let metrics = &app.shared.metrics;
        metrics.open_sessions.set(sessions);
        for label in self.shown.drain(..) {
            metrics.reserved.get_or_create(&label).set(0.0);
        }
        for (unit, (kind, amount)) in reserved {
            let label = UnitLabel { unit: unit.into() };
            metrics.reserved.get_or_create(&label).set(figure(kind, amount));
            self.shown.push(label);
        }
        let now = app.shared.clock.now();
        metrics.reservation_age.set(oldest.map_or(0.0, |oldest| seconds(now.since(oldest))));
    }
}

#[expect(clippy::cast_precision_loss, reason = "a figure for a metric")]
fn figure(unit: BalanceUnit, amount: i128) -> f64 {
    match unit {
        BalanceUnit::Money => amount as f64 / 1e6,
        BalanceUnit::Octets | BalanceUnit::Seconds | BalanceUnit::Events => amount as f64,
    }
}

/// What an open session holds.
struct Held {
    since: Timestamp,
    reserved: Vec<(Text, BalanceUnit, i64)>,
}

impl Held {
    fn of(session: &ChargingSession, account: Option<&Account>) -> Self {
        let reservations = session.quotas.iter().filter_map(|quota| quota.grant.as_ref()).flat_map(|one| &one.reserved);
        let reserved = reservations.filter(|one| one.amount.is_positive()).map(|one| {
            let unit = match one.unit {
                BalanceUnit::Money => account.map_or_else(|| "unknown".into(), |account| account.currency.clone()),
                BalanceUnit::Octets => "octets".into(),
                BalanceUnit::Seconds => "seconds".into(),
                BalanceUnit::Events => "events".into(),
            };
            (unit, one.unit, one.amount.steps())
        });
        Self { since: session.updated_at, reserved: reserved.collect() }
    }
}

impl Counted {
    fn add(&mut self, held: Held) {
        self.sessions += 1;
        if !held.reserved.is_empty() {
            self.oldest = Some(self.oldest.map_or(held.since, |oldest| oldest.min(held.since)));
        }
        for (unit, kind, amount) in held.reserved {
            self.reserved.entry(unit).or_insert((kind, 0)).1 += i128::from(amount);
        }
    }
}

/// As [`check`]; a session that cannot be read keeps the walk from no other one, and is not counted.
async fn check_readable(app: &App, reference: ChargingDataRef) -> Result<Option<Held>, store::Error> {
    match check(app, reference.clone()).await {
        Err(error @ store::Error::Corrupt(_)) => {
            tracing::error!(charging.r#ref = %reference, %error, "a session cannot be read");
            Ok(None)
        }
        checked => checked,
    }
}

/// Puts back what an index has lost of a session, and answers what it holds; `None` when it is not open.
async fn check(app: &App, reference: ChargingDataRef) -> Result<Option<Held>, store::Error> {
    let Some(account) = app.shared.refs.account_of(reference.as_str()) else { return Ok(None) };
    let load = Load { account, session: Some(reference.clone()), index: Vec::new() };
    let snapshot = app.store.load(&load).await?;
    let Some(document) = snapshot.session else { return Ok(None) };
    let session = record::decode_session(&reference, &document.bytes)?;
    let Some(due_at) = session.due_at(&app.shared.rules) else { return Ok(None) };
    let payer: Option<Account> = snapshot.account.as_ref().map(|found| record::decode(&found.bytes)).transpose()?;
    let held = Held::of(&session, payer.as_ref());
    let indexed = app.store.indexes(account, &reference).await?;
    // A claimed entry stands a lease later than it is due.
    let tolerated = due_at.max(app.shared.clock.now()).after(TOLERANCE);
    if indexed.timer.is_some_and(|at| at <= tolerated) && indexed.listed_open {
        return Ok(Some(held));
    }
    let write = SessionWrite {
        key: reference,
        expected: document.version,
        document: document.bytes,
        lives_for: app.shared.rules.open_life(),
        timer: TimerWrite::At(session.timer_at.unwrap_or(due_at)),
        listing: Listing::Open(session.opened_at),
        journal: None,
    };
    let account_expected = store::Version::of(snapshot.account.as_ref());
    let commit = Commit { sessions: vec![write], ..Commit::unchanged(snapshot.origin, account, account_expected) };
    put_back(app, &commit).await?;
    Ok(Some(held))
}

async fn put_back(app: &App, commit: &Commit) -> Result<(), store::Error> {
    match app.store.commit(commit).await {
        Ok(()) => {
            app.shared.metrics.index_drift.inc();
            for write in &commit.sessions {
                tracing::warn!(charging.r#ref = %write.key, "an index had lost a session; it was put back");
            }
            Ok(())
        }
        // Somebody has worked on it between two looks, perhaps closed it; the next walk looks again.
        Err(store::Error::Conflict(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

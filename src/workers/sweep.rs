//! A slow walk over all session documents that puts back what an index has lost. Indexes are written in the commit that
//! needs them, so there should be nothing to find; a hand or a restored backup may still have taken something away.

use crate::app::App;
use crate::charging::ids::ChargingDataRef;
use crate::charging::session::ChargingSession;
use crate::charging::time::Span;
use crate::store::{self, Commit, Listing, Load, SessionWrite, TimerWrite, record};

/// Documents looked at in one step: half a million in half an hour, for a few per cent of a core.
const STEP: usize = 128;

/// Several leases of a claim.
const TOLERANCE: Span = Span::from_secs(60);

/// Where the walk stands.
#[derive(Default)]
pub struct Sweep {
    cursor: Option<Box<str>>,
}

impl Sweep {
    pub async fn step(&mut self, app: &App) -> Result<(), store::Error> {
        let page = app.store.scan(self.cursor.as_deref(), STEP).await?;
        self.cursor = page.next;
        for reference in page.items.into_iter().map(ChargingDataRef::new) {
            check(app, &reference).await?;
        }
        Ok(())
    }
}

async fn check(app: &App, reference: &ChargingDataRef) -> Result<(), store::Error> {
    let Some(account) = app.shared.refs.account_of(reference.as_str()) else { return Ok(()) };
    let load = Load { account, session: Some(reference.clone()), index: Vec::new() };
    let snapshot = app.store.load(&load).await?;
    let Some(document) = snapshot.session else { return Ok(()) };
    let session: ChargingSession = record::decode(&document.bytes)?;
    let Some(due_at) = session.due_at(&app.shared.rules) else { return Ok(()) };
    let indexed = app.store.indexes(account, reference).await?;
    // A claimed entry stands a lease later than it is due.
    let tolerated = due_at.max(app.shared.clock.now()).after(TOLERANCE);
    if indexed.timer.is_some_and(|at| at <= tolerated) && indexed.listed_open {
        return Ok(());
    }
    app.shared.metrics.index_drift.inc();
    tracing::warn!(charging.r#ref = %reference, "an index had lost a session; it is put back");
    let write = SessionWrite {
        key: reference.clone(),
        expected: document.version,
        document: document.bytes,
        lives_for: app.shared.rules.open_life(),
        timer: TimerWrite::At(session.timer_at.unwrap_or(due_at)),
        listing: Listing::Open(session.opened_at),
        journal: None,
    };
    let commit = Commit {
        account,
        account_expected: snapshot.account.map_or(store::Version::ABSENT, |account| account.version),
        account_document: None,
        account_journal: None,
        sessions: vec![write],
        outbox: Vec::new(),
        index: Vec::new(),
    };
    match app.store.commit(&commit).await {
        // Somebody works on it, and the next walk looks again.
        Ok(()) | Err(store::Error::Conflict(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

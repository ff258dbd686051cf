//! When one record is enough: the requests after which a partial record is written, and how much a record collects.
//!
//! A CDR file gives a record's length 16 bits (TS 32.297 6.1), so a record is cut before it grows beyond what it may
//! hold, in the middle of a request where it must be. What is counted is an estimate on the safe side: what is kept
//! verbatim counts as the JSON text that it is, which its BER form does not exceed, and all else by its largest form.

use serde::{Deserialize, Serialize};

use super::cdr::CauseForRecordClosing;
use super::command::{Block, Container, Invocation, Trigger, TriggerCategory};
use super::decide::Rules;
use super::journal::{Closing, Reported};
use super::session::RecordSoFar;

/// Changes that operators may want a new record after (TS 32.255 5.2.3), in the spelling of `triggerType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PartialTrigger {
    ServingNodeChange,
    RatChange,
    UeTimezoneChange,
    PlmnChange,
}

impl PartialTrigger {
    const fn as_str(self) -> &'static str {
        match self {
            Self::ServingNodeChange => "SERVING_NODE_CHANGE",
            Self::RatChange => "RAT_CHANGE",
            Self::UeTimezoneChange => "UE_TIMEZONE_CHANGE",
            Self::PlmnChange => "PLMN_CHANGE",
        }
    }

    const fn cause(self) -> CauseForRecordClosing {
        match self {
            Self::ServingNodeChange => CauseForRecordClosing::ServingNodeChange,
            Self::RatChange => CauseForRecordClosing::RatChange,
            Self::UeTimezoneChange => CauseForRecordClosing::UeTimezoneChange,
            Self::PlmnChange => CauseForRecordClosing::PlmnChange,
        }
    }
}

/// Limits of the session that its consumer watches, and its operator's intervention. Of a rating group they close
/// containers only.
const ALWAYS: [(&str, CauseForRecordClosing); 4] = [
    ("MANAGEMENT_INTERVENTION", CauseForRecordClosing::ManagementIntervention),
    ("TIME_LIMIT", CauseForRecordClosing::TimeLimit),
    ("VOLUME_LIMIT", CauseForRecordClosing::VolumeLimit),
    ("MAX_NUMBER_OF_CHANGES_IN_CHARGING_CONDITIONS", CauseForRecordClosing::MaxChangesInChargingConditions),
];

/// Why an Update closes the record that it is the last of; `None` when the record goes on.
pub(super) fn cause_to_split(rules: &Rules, invocation: &Invocation) -> Option<CauseForRecordClosing> {
    let always = |trigger: &Trigger| {
        let immediate = trigger.category == TriggerCategory::Immediate;
        ALWAYS.iter().find(|(name, _)| immediate && trigger.is(name)).map(|(_, cause)| *cause)
    };
    // Whatever their category: by default, the change of a serving node is reported with the next report.
    let wanted = |trigger: &Trigger| {
        rules.partial_triggers.iter().find(|wanted| trigger.is(wanted.as_str())).map(|wanted| wanted.cause())
    };
    let triggers = &invocation.triggers;
    triggers.iter().find_map(always).or_else(|| triggers.iter().find_map(wanted))
}

/// Of a container: its identifiers, five units, its times and its frame, each as large as it can be.
const CONTAINER_OCTETS: usize = 120;
/// Of the item around containers of one quota, besides what it names.
const ITEM_OCTETS: usize = 24;
/// Of a trigger, besides what it says of its limits.
const TRIGGER_OCTETS: usize = 8;
/// Of a member that is kept verbatim: the frame around it.
const FRAME_OCTETS: usize = 6;

/// What a request adds to a record in one piece.
struct Piece {
    octets: usize,
    /// Of the item that it stands in, which each record has to open for itself.
    item: usize,
    opens_item: bool,
}

impl RecordSoFar {
    /// Takes in what a request reports, and answers where the record was full. `room` is what it may hold besides the
    /// blocks that stand in every record.
    pub(super) fn take(
        &mut self,
        room: u32,
        usage: &[Reported],
        blocks: &[Block],
        triggers: &[Trigger],
    ) -> Vec<Closing> {
        let mut cuts = Vec::new();
        let reports = blocks.iter().filter(|block| block.is_report());
        let reports =
            reports.map(|report| Piece { octets: of_blocks(std::slice::from_ref(report)), item: 0, opens_item: false });
        let triggers = Piece { octets: of_triggers(triggers), item: 0, opens_item: false };
        for (containers, piece) in (0..).zip(usage.iter().flat_map(pieces).chain(reports).chain([triggers])) {
            let fits = |octets: u32| self.octets == 0 || self.octets.saturating_add(octets) <= room;
            // A piece that is too large by itself has a record of its own.
            if piece.octets > 0 && !fits(piece.beside(self.octets)) {
                cuts.push(Closing { cause: CauseForRecordClosing::VolumeLimit, containers: Some(containers) });
                self.octets = 0;
            }
            self.octets = self.octets.saturating_add(piece.beside(self.octets));
        }
        cuts
    }
}

impl Piece {
    /// What it adds to a record that holds so much.
    fn beside(&self, octets: u32) -> u32 {
        let item = if self.opens_item || octets == 0 { self.item } else { 0 };
        u32::try_from(self.octets.saturating_add(item)).unwrap_or(u32::MAX)
    }
}

/// The containers of an item; repeated ones add nothing.
fn pieces(reported: &Reported) -> impl Iterator<Item = Piece> {
    let key = &reported.key;
    let names = [&key.upf, &key.multihomed, &key.mb_upf].into_iter().flatten().map(|name| name.len());
    let item = names.chain([ITEM_OCTETS, of_blocks(&reported.others)]).fold(0, usize::saturating_add);
    reported.containers.iter().enumerate().map(move |(at, container)| {
        let is_repeated = reported.repeated.iter().any(|repeated| usize::from(*repeated) == at);
        let octets = if is_repeated { 0 } else { of_container(container) };
        Piece { octets, item: if is_repeated { 0 } else { item }, opens_item: at == 0 }
    })
}

fn of_container(container: &Container) -> usize {
    CONTAINER_OCTETS.saturating_add(of_triggers(&container.triggers)).saturating_add(of_blocks(&container.others))
}

fn of_triggers(triggers: &[Trigger]) -> usize {
    let one = |trigger: &Trigger| TRIGGER_OCTETS.saturating_add(of_blocks(&trigger.others));
    triggers.iter().map(one).fold(0, usize::saturating_add)
}

fn of_blocks(blocks: &[Block]) -> usize {
    let one = |block: &Block| block.name.len().saturating_add(block.json.len()).saturating_add(FRAME_OCTETS);
    blocks.iter().map(one).fold(0, usize::saturating_add)
}

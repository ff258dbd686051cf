//! How the core keeps texts.

/// A text that is never changed. One of up to 23 octets lies in place, copies of a longer one share it: a decision takes
/// most texts from a request or a session on to an answer, an entry and a session, and that must not cost an allocation
/// for each.
pub type Text = smol_str::SmolStr;

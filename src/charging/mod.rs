//! The pure core: what a charging request means, decided without a clock, a socket, a store or a future.
//!
//! Start with [`decide`], then [`maintain`] for what happens where no message comes. Integers only: money in millionths, checked; rounding is named where it happens. Nothing
//! here fails but with a [`decision::Rejection`], and nothing here imports anything of the rest of the crate.
#![warn(
    clippy::arithmetic_side_effects,
    clippy::float_arithmetic,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::wildcard_enum_match_arm,
    clippy::unwrap_used
)]
#![cfg_attr(test, allow(clippy::arithmetic_side_effects, clippy::unwrap_used))]

pub mod account;
pub mod cdr;
pub mod command;
pub mod compact;
pub mod decide;
pub mod decision;
pub mod explain;
mod grant;
pub mod ids;
pub mod journal;
pub mod lists;
pub mod maintain;
pub mod money;
pub mod operator;
mod packed;
pub mod parts;
pub mod rating;
pub mod replay;
pub mod session;
mod settle;
pub mod tariff;
pub mod text;
pub mod time;
pub mod units;
mod work;

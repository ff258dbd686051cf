//! What the targets run: the checks of the tests, and the core's world that they play in.

#[path = "../../tests/it/fuzz/checks/mod.rs"]
pub mod checks;

#[path = "../../tests/it/scenarios"]
pub mod scenarios {
    pub mod demo;
    pub mod world;
}

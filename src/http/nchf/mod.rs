//! The charging services Nchf_ConvergedCharging and Nchf_OfflineOnlyCharging (TS 32.291).

pub mod wire;

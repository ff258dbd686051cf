pub mod official;

//! The directory on a real file system.

//! How the core keeps lists, where a vector would be allocated for each of many.

use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A list that a decision makes for itself, and that has one or two items nearly always: they lie in place.
pub type Few<T> = smallvec::SmallVec<[T; 2]>;

/// A list that is never changed and whose copies share it: what a request reports stands in the entry too, and what is
/// answered in the session, in the entry and in the answer. Stored as a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<T>", into = "Vec<T>", bound(serialize = "T: Clone + Serialize"))]
pub struct SharedList<T>(Arc<[T]>);

impl<T> Default for SharedList<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T> Deref for SharedList<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T> From<Vec<T>> for SharedList<T> {
    fn from(items: Vec<T>) -> Self {
        if items.is_empty() { Self::default() } else { Self(items.into()) }
    }
}

impl<T: Clone> From<SharedList<T>> for Vec<T> {
    fn from(items: SharedList<T>) -> Self {
        items.to_vec()
    }
}

impl<'a, T> IntoIterator for &'a SharedList<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

//! What a watch has shown of one kind, reduced to what is needed, with our own writes put in at once.
//!
//! A watch lags behind. Were a write of ours forgotten until it comes back, the next decision would be made on what was
//! before it, and could give an address away twice. So a written object stands here at once ([`Store::put`]), and an
//! older state of it that still comes along changes nothing.

use kube::runtime::watcher::Event;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How long a written object is believed that a later listing didn't show.
const DOUBT: Duration = Duration::from_secs(30);

/// What is kept of an object.
pub trait Kept: PartialEq {
    /// The object's UID and the generation of its spec, for kinds that we write.
    fn version(&self) -> Option<(&str, i64)> {
        None
    }
}

/// All objects of a kind, by name.
#[derive(Debug)]
pub struct Store<T> {
    inner: Mutex<Inner<T>>,
    listed: watch::Sender<bool>,
}

#[derive(Debug)]
struct Inner<T> {
    items: BTreeMap<String, Item<T>>,
    /// What a listing under way has shown so far.
    listing: Option<BTreeMap<String, T>>,
}

#[derive(Debug)]
struct Item<T> {
    value: Arc<T>,
    /// Written by us, and not yet seen in the watch.
    unconfirmed: bool,
    /// A listing didn't show it: it goes then, if nothing else is heard of it.
    doubted: Option<Instant>,
}

impl<T> Item<T> {
    fn seen(value: T) -> Self {
        Self { value: Arc::new(value), unconfirmed: false, doubted: None }
    }
}

impl<T> Default for Store<T> {
    fn default() -> Self {
        let inner = Inner { items: BTreeMap::new(), listing: None };
        Self { inner: Mutex::new(inner), listed: watch::Sender::new(false) }
    }
}

impl<T: Kept> Store<T> {
    /// Everything, as it is now.
    pub fn snapshot(&self) -> BTreeMap<String, Arc<T>> {
        let now = Instant::now();
        let mut inner = self.lock();
        inner.items.retain(|_, item| item.doubted.is_none_or(|since| now < since + DOUBT));
        inner.items.iter().map(|(name, item)| (name.clone(), Arc::clone(&item.value))).collect()
    }

    /// One object.
    pub fn get(&self, name: &str) -> Option<Arc<T>> {
        self.lock().items.get(name).map(|item| Arc::clone(&item.value))
    }

    /// Has a listing been complete?
    pub fn is_listed(&self) -> bool {
        *self.listed.borrow()
    }

    /// Returns when a listing has been complete.
    pub async fn listed(&self) {
        // The sender lives as long as `self`.
        let _ = self.listed.subscribe().wait_for(|listed| *listed).await;
    }

    /// What the API server answered to a write of ours.
    pub fn put(&self, name: String, value: T) {
        let mut inner = self.lock();
        let passed = |known: &T| match (value.version(), known.version()) {
            (Some((uid, generation)), Some((known_uid, known_generation))) => {
                uid == known_uid && generation < known_generation
            }
            _ => false,
        };
        if inner.items.get(&name).is_some_and(|known| passed(&known.value)) {
            return; // The watch was faster.
        }
        inner.items.insert(name, Item { value: Arc::new(value), unconfirmed: true, doubted: None });
    }

    /// An event of the watch, each object by its name and reduced (`None`: of no interest). Has anything changed?
    pub fn feed(&self, event: Event<(String, Option<T>)>) -> bool {
        let mut inner = self.lock();
        match event {
            Event::Apply((name, Some(value))) => inner.apply(name, value),
            Event::Apply((name, None)) => inner.items.remove(&name).is_some(),
            Event::Delete((name, value)) => inner.delete(&name, value.as_ref()),
            Event::Init => {
                inner.listing = Some(BTreeMap::new());
                false
            }
            Event::InitApply((name, value)) => {
                if let (Some(listing), Some(value)) = (&mut inner.listing, value) {
                    listing.insert(name, value);
                }
                false
            }
            Event::InitDone => {
                let changed = inner.finish_listing();
                self.listed.send_replace(true);
                changed
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Kept> Inner<T> {
    fn apply(&mut self, name: String, value: T) -> bool {
        match self.items.get_mut(&name) {
            Some(known) if known.unconfirmed && is_older(&value, &known.value) => false,
            Some(known) if *known.value == value => {
                (known.unconfirmed, known.doubted) = (false, None);
                false
            }
            _ => {
                self.items.insert(name, Item::seen(value));
                true
            }
        }
    }

    fn delete(&mut self, name: &str, deleted: Option<&T>) -> bool {
        let another = self.items.get(name).is_some_and(|known| {
            let uid = |value: &T| value.version().map(|(uid, _)| uid.to_owned());
            known.unconfirmed && deleted.is_some_and(|deleted| uid(deleted) != uid(&known.value))
        });
        !another && self.items.remove(name).is_some()
    }

    /// A listing replaces everything, except what was written while it was made.
    fn finish_listing(&mut self) -> bool {
        let Some(listing) = self.listing.take() else { return false };
        let before = std::mem::take(&mut self.items);
        let mut changed = false;
        for (name, value) in listing {
            let item = match before.get(&name) {
                Some(known) if known.unconfirmed && is_older(&value, &known.value) => {
                    Item { value: Arc::clone(&known.value), unconfirmed: true, doubted: known.doubted }
                }
                Some(known) if *known.value == value => {
                    Item { value: Arc::clone(&known.value), unconfirmed: false, doubted: None }
                }
                _ => {
                    changed = true;
                    Item::seen(value)
                }
            };
            self.items.insert(name, item);
        }
        for (name, item) in before {
            if self.items.contains_key(&name) {
                continue;
            }
            changed = true;
            if item.unconfirmed {
                let doubted = item.doubted.or_else(|| Some(Instant::now()));
                self.items.insert(name, Item { doubted, ..item });
            }
        }
        changed
    }
}

/// Is `value`, from the watch, of before `known`, which we wrote? Only we make objects of such kinds, so that another
/// UID is that of an earlier object of the name.
fn is_older<T: Kept>(value: &T, known: &T) -> bool {
    match (value.version(), known.version()) {
        (Some((uid, generation)), Some((known_uid, known_generation))) => {
            uid != known_uid || generation < known_generation
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    struct Object(&'static str, i64);

    impl Kept for Object {
        fn version(&self) -> Option<(&str, i64)> {
            Some((self.0, self.1))
        }
    }

    fn apply(store: &Store<Object>, object: Object) -> bool {
        store.feed(Event::Apply(("a".to_owned(), Some(object))))
    }

    fn list(store: &Store<Object>, objects: &[Object]) -> bool {
        store.feed(Event::Init);
        for object in objects {
            store.feed(Event::InitApply(("a".to_owned(), Some(object.clone()))));
        }
        store.feed(Event::InitDone)
    }

    fn generation(store: &Store<Object>) -> Option<i64> {
        store.get("a").map(|object| object.1)
    }

    #[test]
    fn what_was_written_is_not_undone_by_a_watch_that_lags() {
        let store = Store::default();
        apply(&store, Object("u", 1));
        store.put("a".to_owned(), Object("u", 3));
        assert!(!apply(&store, Object("u", 2)));
        assert_eq!(generation(&store), Some(3));
        apply(&store, Object("u", 4));
        assert_eq!(generation(&store), Some(4));
    }

    #[test]
    fn an_answer_that_comes_after_the_watch_changes_nothing() {
        let store = Store::default();
        apply(&store, Object("u", 2));
        store.put("a".to_owned(), Object("u", 1));
        assert_eq!(generation(&store), Some(2));
    }

    #[test]
    fn what_replaces_an_earlier_object_of_the_name_stands_at_once() {
        let store = Store::default();
        apply(&store, Object("old", 7));
        store.put("a".to_owned(), Object("new", 1));
        assert!(!apply(&store, Object("old", 8)));
        assert_eq!(generation(&store), Some(1));
    }

    #[test]
    fn the_end_of_an_earlier_object_of_the_name_is_not_the_end_of_the_written_one() {
        let store = Store::default();
        store.put("a".to_owned(), Object("new", 1));
        assert!(!store.feed(Event::Delete(("a".to_owned(), Some(Object("old", 7))))));
        assert_eq!(generation(&store), Some(1));
        assert!(store.feed(Event::Delete(("a".to_owned(), Some(Object("new", 1))))));
        assert_eq!(generation(&store), None);
    }

    #[test]
    fn a_listing_made_before_a_write_does_not_forget_it() {
        let store = Store::default();
        store.put("a".to_owned(), Object("u", 1));
        list(&store, &[]);
        assert_eq!(generation(&store), Some(1));
        list(&store, &[Object("u", 1)]);
        assert!(list(&store, &[]), "seen, then gone");
        assert_eq!(generation(&store), None);
    }

    #[test]
    fn what_is_the_same_is_no_change() {
        let store = Store::default();
        assert!(apply(&store, Object("u", 1)));
        assert!(!apply(&store, Object("u", 1)));
        assert!(!list(&store, &[Object("u", 1)]));
        assert!(list(&store, &[Object("u", 2)]));
    }

    #[test]
    fn an_object_of_no_more_interest_is_gone() {
        let store = Store::default();
        apply(&store, Object("u", 1));
        assert!(store.feed(Event::Apply(("a".to_owned(), None))));
        assert_eq!(generation(&store), None);
    }
}

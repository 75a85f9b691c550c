use std::cell::Cell;

use super::*;

#[tokio::test]
async fn the_watchdog_is_pinged_by_a_live_engine_and_by_no_other() {
    let (asked, pinged) = (Cell::new(0), Cell::new(0));
    // Alive at first, then stuck from the third time on.
    let alive = || {
        asked.set(asked.get() + 1);
        asked.get() < 3
    };
    let watching = watch_every(Duration::from_millis(1), alive, || pinged.set(pinged.get() + 1));
    assert!(tokio::time::timeout(Duration::from_millis(200), watching).await.is_err());
    assert!(asked.get() > 3, "asked {} times", asked.get());
    assert_eq!(pinged.get(), 2);
}

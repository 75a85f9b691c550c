use super::*;

fn caller(uid: u32, role: Role) -> Caller {
    Caller { account: format!("#{uid}").into(), uid, role }
}

/// Takes so many places for one caller; says how many were given.
fn taken(places: &Arc<Places>, uid: u32, role: Role, wanted: usize) -> Vec<Place> {
    (0..wanted).filter_map(|_| places.take(&caller(uid, role))).collect()
}

#[test]
fn an_account_holds_no_more_than_its_connections_and_gets_them_back() {
    let places = Arc::new(Places::default());
    let held = taken(&places, 1, Role::Operator, CONNECTIONS_PER_ACCOUNT_MAX + 1);
    assert_eq!(held.len(), CONNECTIONS_PER_ACCOUNT_MAX);
    drop(held);
    assert_eq!(taken(&places, 1, Role::Operator, 1).len(), 1);
    assert!(places.held.lock().unwrap().by_uid.is_empty());
}

#[test]
fn accounts_without_a_role_leave_half_of_the_connections_free() {
    let places = Arc::new(Places::default());
    let held: Vec<Place> =
        (0..10).flat_map(|uid| taken(&places, uid, Role::Account, CONNECTIONS_PER_ACCOUNT_MAX)).collect();
    assert_eq!(held.len(), CONNECTIONS_OF_ACCOUNTS_MAX);
    assert_eq!(taken(&places, 100, Role::Operator, 3).len(), 3);
}

#[test]
fn there_are_no_more_connections_than_there_are() {
    let places = Arc::new(Places::default());
    let held: Vec<Place> =
        (0..10).flat_map(|uid| taken(&places, uid, Role::Operator, CONNECTIONS_PER_ACCOUNT_MAX)).collect();
    assert_eq!(held.len(), CONNECTIONS_MAX);
}

#[tokio::test]
async fn a_live_socket_is_not_taken_and_a_stale_one_is_replaced() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("smkid.sock");
    let first = Listener::bind(&path, None).unwrap();
    assert_eq!(std::fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o777, SOCKET_MODE);
    assert!(matches!(Listener::bind(&path, None), Err(ListenError::Live { .. })));
    drop(first);
    assert!(!path.exists(), "a socket of ours is removed at the end");

    // Stale: a socket that was left behind by a process that was killed.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    Listener::bind(&path, None).unwrap();

    std::fs::write(&path, b"a file").unwrap();
    assert!(matches!(Listener::bind(&path, None), Err(ListenError::NotASocket { .. })));
    assert_eq!(std::fs::read(&path).unwrap(), b"a file");
}

#[tokio::test]
async fn a_socket_group_that_does_not_exist_is_named() {
    let scratch = tempfile::tempdir().unwrap();
    let found = Listener::bind(&scratch.path().join("s"), Some("no-such-group-here"));
    assert!(matches!(found, Err(ListenError::NoGroup { group }) if group == "no-such-group-here"));
}

#[tokio::test]
async fn a_peer_that_stops_reading_is_given_up() {
    use tokio::io::AsyncWriteExt;
    let patience = Duration::from_millis(50);
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let mut ours = Unstalled::new(ours, patience);
    let (begun, octets) = (std::time::Instant::now(), vec![0; 65536]);
    let error = loop {
        if let Err(error) = ours.write_all(&octets).await {
            break error;
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert!(begun.elapsed() >= patience);
}

#[tokio::test]
async fn a_peer_that_reads_slowly_is_not_given_up() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let patience = Duration::from_millis(500);
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let mut ours = Unstalled::new(ours, patience);
    let slow = async {
        let (mut taken, mut piece) = (0, vec![0; 512 * 1024]);
        while taken < 2 * 1024 * 1024 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            taken += theirs.read(&mut piece).await.unwrap();
        }
    };
    let octets = vec![0; 2 * 1024 * 1024];
    let (written, ()) = tokio::join!(ours.write_all(&octets), slow);
    written.unwrap();
}

use futures_util::FutureExt as _;
use http_body_util::BodyExt as _;
use tokio::sync::mpsc;

use super::*;

/// How long it is waited for what must happen.
const PATIENCE: Duration = Duration::from_secs(30);

async fn whole(answer: Response) -> Result<Bytes, axum::Error> {
    answer.into_body().collect().await.map(http_body_util::Collected::to_bytes)
}

fn bug() -> Result<Bytes, Failure> {
    Err(Failure::Internal { what: "a bug".to_owned() })
}

#[tokio::test]
async fn the_head_of_a_stream_waits_for_the_first_piece_and_no_piece_is_lost() {
    let (pieces, octets) = mpsc::channel(2);
    let mut head = Box::pin(stream(octets, Gives::Octets));
    assert!(head.as_mut().now_or_never().is_none(), "the head went before any piece");
    pieces.send(Ok("one ".into())).await.unwrap();
    pieces.send(Ok("two".into())).await.unwrap();
    drop(pieces);
    assert_eq!(whole(head.await).await.unwrap(), "one two");
}

#[tokio::test]
async fn the_head_goes_alone_where_the_first_piece_is_long_in_coming() {
    let (pieces, octets) = mpsc::channel(1);
    let head = tokio::time::timeout(PATIENCE, stream(octets, Gives::Octets)).await.expect("a head without a piece");
    pieces.send(Ok("late".into())).await.unwrap();
    drop(pieces);
    assert_eq!(whole(head).await.unwrap(), "late");
}

#[tokio::test]
async fn a_failure_before_the_first_piece_is_answered_as_one_unless_something_may_have_been_recorded() {
    for (gives, status) in [(Gives::Octets, StatusCode::INTERNAL_SERVER_ERROR), (Gives::Lines, StatusCode::OK)] {
        let (pieces, octets) = mpsc::channel(1);
        pieces.send(bug()).await.unwrap();
        let answer = stream(octets, gives).await;
        assert_eq!(answer.status(), status);
        let body = whole(answer).await.unwrap();
        assert_eq!(body.is_empty(), status == StatusCode::OK, "a cut has no summary: {body:?}");
    }
}

#[tokio::test]
async fn octets_that_fail_after_the_head_are_cut_and_a_stream_of_nothing_is_empty() {
    let (pieces, octets) = mpsc::channel(2);
    pieces.send(Ok("some".into())).await.unwrap();
    pieces.send(bug()).await.unwrap();
    assert!(whole(stream(octets, Gives::Octets).await).await.is_err());
    let (pieces, octets) = mpsc::channel(1);
    drop(pieces);
    assert_eq!(whole(stream(octets, Gives::Octets).await).await.unwrap(), "");
}

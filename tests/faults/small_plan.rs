//! The smallest plans: a backlog drains without a refusal, as fast as our share allows.

use super::drain::drain;

#[tokio::test]
async fn small_plan_backlog_drains_without_429() {
    let drained = drain(120).await;
    assert_eq!(drained.undenied, 0);
    assert_eq!(drained.refused, 0, "{drained:?}");
    assert!(drained.ratio() >= 0.95, "{:.3} of our share: {drained:?}", drained.ratio());
}

//! The rate of a channel: one line of turns for all who send on it, by the database's clock.

use std::time::Duration;

use deadpool_postgres::Client;

use super::error::Fault;
use crate::store::Turns;

/// The row that everybody takes from.
const LINE: &str =
    "insert into rate (channel, next_at) values ($1, clock_timestamp()) on conflict do nothing";

/// How far off the next turn is. The row stays locked until its turns are taken.
const LOOK: &str = "select greatest(extract(epoch from next_at - clock_timestamp()), 0)::float8
from rate where channel = $1 for no key update";

const TAKE: &str = "update rate set
 next_at = greatest(next_at, clock_timestamp()) + make_interval(secs => $2)
where channel = $1";

/// See [`crate::store::Store::take_turns`].
pub(super) async fn take_turns(
    client: &mut Client,
    channel: &str,
    count: u32,
    gap: Duration,
    within: Duration,
) -> Result<Turns, Fault> {
    let tx = client.transaction().await?;
    let look = tx.prepare_cached(LOOK).await?;
    let row = match tx.query_opt(&look, &[&channel]).await? {
        Some(row) => row,
        None => {
            let line = tx.prepare_cached(LINE).await?;
            tx.execute(&line, &[&channel]).await?;
            tx.query_one(&look, &[&channel]).await?
        }
    };
    let after = Duration::try_from_secs_f64(row.try_get(0)?).unwrap_or_default();
    let turns = Turns::of(after, count, gap, within);
    let take = tx.prepare_cached(TAKE).await?;
    let taken = gap.saturating_mul(turns.count).as_secs_f64();
    tx.execute(&take, &[&channel, &taken]).await?;
    tx.commit().await?;
    Ok(turns)
}

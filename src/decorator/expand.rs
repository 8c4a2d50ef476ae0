//! From recipients to chunks of people.

use std::collections::HashMap;
use std::collections::HashSet;

use crate::catalog::Catalog;
use crate::chunk::CHUNK_PEOPLE_MAX;
use crate::chunk::Chunk;
use crate::chunk::Note;
use crate::chunk::Person;
use crate::failure::Failure;
use crate::notification::EntityRef;
use crate::notification::Recipients;
use crate::recipients::Audience;
use crate::recipients::Walk;
use crate::submission::Submission;
use crate::time::Timestamp;

/// Most refs in one question to the catalog.
const REFS_PER_QUESTION: usize = 1_000;

/// Who the recipients are; `None` is everybody.
pub(super) async fn audience(
    catalog: &dyn Catalog,
    recipients: &Recipients,
) -> Result<Option<Audience>, Failure> {
    let Recipients::Entity { refs, exclude } = recipients else {
        return Ok(None);
    };
    let mut walk = Walk::new(refs, exclude);
    loop {
        let wanted = walk.wanted(REFS_PER_QUESTION);
        if wanted.is_empty() {
            return Ok(Some(walk.finish()));
        }
        let found = catalog.entities(&wanted).await?;
        walk.found(&wanted, found);
    }
}

/// Cuts a submission into chunks: the first, and the others. A single chunk keeps the order in
/// which people were found, as the peer answers it; several are cut from the sorted audience, so
/// that a repeated expansion cuts the same ones.
pub(super) fn cut(
    submission: Submission,
    audience: Option<Audience>,
    notes: Vec<Note>,
    now: Timestamp,
) -> (Chunk, Vec<Chunk>) {
    let broadcast = audience.is_none();
    let named = named(&submission.recipients);
    let (mut users, refs) = audience.map_or_else(Default::default, |one| (one.users, one.refs));
    if CHUNK_PEOPLE_MAX < users.len() {
        users.sort_unstable();
    }
    let of = u32::try_from(users.len().div_ceil(CHUNK_PEOPLE_MAX).max(1)).unwrap_or(u32::MAX);
    let mut users = users.into_iter().map(|user| Person {
        named: canonical(&user).is_some_and(|user| named.contains(&user)),
        user,
        patch: None,
    });
    let mut people = || users.by_ref().take(CHUNK_PEOPLE_MAX).collect();
    let first = Chunk {
        header: submission.header,
        payload: submission.payload,
        no: 0,
        of,
        broadcast,
        people: people(),
        refs: Vec::new(),
        dropped: 0,
        slip: Vec::new(),
        seal: None,
        notes: Vec::new(),
        started_at: now,
        extra: submission.extra,
    };
    let rest = (1..of)
        .map(|no| Chunk {
            no,
            people: people(),
            ..first.clone()
        })
        .collect();
    (
        Chunk {
            refs,
            notes,
            ..first
        },
        rest,
    )
}

/// The people whom the recipients name themselves, canonical.
fn named(recipients: &Recipients) -> HashSet<String> {
    let Recipients::Entity { refs, .. } = recipients else {
        return HashSet::new();
    };
    refs.iter().filter_map(|one| canonical(one)).collect()
}

/// The canonical ref of a person.
fn canonical(reference: &str) -> Option<String> {
    let parsed: EntityRef = reference.parse().ok()?;
    parsed.is_user().then(|| parsed.canonical())
}

/// Chunks that can be persisted in one call: no two of them touch one row, and no two are the
/// same chunk. Returns, for each wave, the indices of its chunks, oldest submission first.
pub(super) fn waves(keys: &[(Timestamp, Vec<uuid::Uuid>)]) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..keys.len()).collect();
    order.sort_by_key(|index| keys[*index].0);
    let mut wave_of: HashMap<uuid::Uuid, usize> = HashMap::new();
    let mut waves: Vec<Vec<usize>> = Vec::new();
    for index in order {
        let rows = &keys[index].1;
        let wave = rows
            .iter()
            .filter_map(|row| wave_of.get(row).map(|last| last + 1))
            .max()
            .unwrap_or(0);
        for row in rows {
            wave_of.insert(*row, wave);
        }
        if waves.len() <= wave {
            waves.resize_with(wave + 1, Vec::new);
        }
        waves[wave].push(index);
    }
    waves
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn chunks_that_touch_one_row_go_in_waves_oldest_first() {
        let at = Timestamp::from_millis;
        let row = Uuid::from_u128;
        let keys = [
            (at(3), vec![row(1)]),
            (at(1), vec![row(1), row(2)]),
            (at(2), vec![row(9)]),
            (at(2), vec![row(2)]),
        ];
        assert_eq!(waves(&keys), [vec![1, 2], vec![3, 0]]);
    }
}

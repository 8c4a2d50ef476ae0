//! What a person has switched on and off (contract 3). The same for the route and the page.

use axum::Json;
use axum::extract::Request;
use axum::extract::State;
use http::Uri;

use super::Parts;
use crate::http::Caller;
use crate::http::HttpError;
use crate::http::no_query;
use crate::http::read_json;
use crate::settings::Switchboard;
use crate::settings::wire::Switches;
use crate::store::Store;
use crate::store::StoreError;

/// Largest body of settings: the switches of some thousand topics on each of several channels.
const SETTINGS_BODY_MAX: usize = 4 << 20;

/// The switches as `user` is shown them.
///
/// # Errors
/// When the store does not answer.
pub async fn shown(
    store: &dyn Store,
    board: &Switchboard,
    user: &str,
) -> Result<Switches, StoreError> {
    let users = [user.to_owned()];
    let (stored, known) = tokio::try_join!(store.settings(&users), store.origins(user))?;
    Ok(board.show(&stored, &known))
}

/// Keeps `switches` in place of all that `user` chose before, at once or not at all.
///
/// # Errors
/// 400 for what is not on the board or there twice; when the store does not answer.
pub async fn save(
    store: &dyn Store,
    board: &Switchboard,
    user: &str,
    switches: Switches,
) -> Result<(), HttpError> {
    let rows = board.rows(switches, user)?;
    Ok(store.save_settings(user, &rows).await?)
}

pub(super) async fn get(
    State(parts): State<Parts>,
    caller: Caller,
    uri: Uri,
) -> Result<Json<Switches>, HttpError> {
    no_query(&uri)?;
    let user = caller.user()?;
    Ok(Json(shown(&*parts.store, &parts.board, &user).await?))
}

pub(super) async fn post(
    State(parts): State<Parts>,
    caller: Caller,
    uri: Uri,
    request: Request,
) -> Result<Json<Switches>, HttpError> {
    no_query(&uri)?;
    let body = read_json(request, SETTINGS_BODY_MAX).await?;
    let switches = Switches::parse(&body)?;
    let user = caller.user()?;
    save(&*parts.store, &parts.board, &user, switches).await?;
    Ok(Json(shown(&*parts.store, &parts.board, &user).await?))
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Join tokens.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::Json;
use dvs_api::{JoinTokenInfo, TokenCreated, TokenRequest, TokenRevoked};
use dvs_config::JoinToken;
use dvs_state::tokens::Command as Tokens;
use dvs_state::Command;

use super::{parse, Api};
use crate::admission::public_key;
use crate::api::{bad, unavailable, Failure};

/// Of what tokens are made: 32 characters, so that each takes five bits; none is easily taken for another.
const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
/// Characters of an id: enough to tell tokens apart.
const ID: usize = 8;
/// Characters of a secret: 160 bits.
const SECRET: usize = 32;

fn draw() -> Result<JoinToken, Failure> {
    let mut random = [0; ID + SECRET];
    getrandom::fill(&mut random).map_err(|error| unavailable(format!("entropy: {error}")))?;
    let letter = |byte: &u8| char::from(LETTERS[usize::from(byte % 32)]);
    let text: String = random.iter().map(letter).collect();
    let (id, secret) = text.split_at(ID);
    format!("{id}.{secret}").parse().map_err(|error| unavailable(format!("draw a token: {error}")))
}

pub(super) async fn create(
    State(api): State<Arc<Api>>,
    body: Bytes,
) -> Result<Json<TokenCreated>, Failure> {
    let TokenRequest { token, ttl_ms, uses, description } = parse("join token", &body)?;
    let token = match token {
        Some(text) => text.parse().map_err(|error| bad(format!("join token: {error}")))?,
        None => draw()?,
    };
    let (name, public) = (token.id().to_owned(), public_key(&token));
    let issue = Tokens::Issue { name, public, ttl_ms, uses, description };
    api.propose(&Command::Tokens(issue)).await?;
    let id = token.id().to_owned();
    Ok(Json(TokenCreated { token: token.into(), id }))
}

pub(super) async fn list(State(api): State<Arc<Api>>) -> Result<Json<Vec<JoinTokenInfo>>, Failure> {
    let now = api.consensus()?.now();
    let tokens = api.read(false, |state| {
        let info = |(id, note): (&String, &dvs_state::tokens::Note)| {
            let token = state.tokens().get(id)?;
            Some(JoinTokenInfo {
                id: id.clone(),
                description: note.description.clone(),
                age_ms: now.0.saturating_sub(note.created.0),
                expires_ms: token.expires.map(|at| at.0.saturating_sub(now.0)),
                uses_left: token.uses_left,
                machines: note.machines.iter().map(ToString::to_string).collect(),
            })
        };
        state.token_notes().iter().filter_map(info).collect()
    });
    tokens.await.map(Json)
}

pub(super) async fn revoke(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
) -> Result<Json<TokenRevoked>, Failure> {
    api.propose(&Command::Tokens(Tokens::Revoke { name: id.clone() })).await?;
    Ok(Json(TokenRevoked { id }))
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Join tokens.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Body of `POST /v1/tokens`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// The token, `ID.SECRET`, where somebody else has chosen it; the node that answers draws one without.
    #[serde(default)]
    pub token: Option<String>,
    /// Milliseconds for which it is valid; for ever without.
    #[serde(default)]
    pub ttl_ms: Option<u64>,
    /// How many machines may join with it; any number without.
    #[serde(default)]
    pub uses: Option<u32>,
    /// What it is for, for people.
    #[serde(default)]
    pub description: String,
}

/// Answer of `POST /v1/tokens`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TokenCreated {
    /// The token, which nobody tells again: `cluster.join_token` of a machine that is to join.
    pub token: String,
    /// Its id.
    pub id: String,
}

/// An element of `GET /v1/tokens`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JoinTokenInfo {
    /// Its id.
    pub id: String,
    /// What it is for.
    pub description: String,
    /// Milliseconds since it was created, in agreed time.
    pub age_ms: u64,
    /// Milliseconds for which it is still valid; for ever without.
    pub expires_ms: Option<u64>,
    /// How many more machines may join with it; any number without.
    pub uses_left: Option<u32>,
    /// The machines that have joined with it, and may again.
    pub machines: Vec<String>,
}

/// Answer of `DELETE /v1/tokens/{id}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TokenRevoked {
    /// Its id.
    pub id: String,
}
